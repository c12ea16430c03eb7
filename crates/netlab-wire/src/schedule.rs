//! Settings over time: those written, with the scheduled changes laid over them.
//!
//! A [`Timeline`] is the list of instants at which something changes; at each, the settings of a
//! direction are its base with every change then active put in its place or merged over it, in
//! the order written.
//! It lives with the control channel; the thread that moves packets is handed a [`Script`]: the
//! steps to come, parsed and checked, so that a change costs it next to nothing.

use std::collections::VecDeque;

use serde_json::Value;

use crate::WireError;
use crate::config::{Change, Link, Settings, Way, merge, refuse};

/// The base settings and changes of a link.
#[derive(Clone, Debug)]
pub struct Timeline {
    name: String,
    mtu: u32,
    base: [Value; 2],
    changes: Vec<Change>,
    instants: Vec<u64>,
}

/// Settings of both directions from an instant on.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, counted from the schedule's start.
    pub at_ns: u64,
    /// From a to b, from b to a.
    pub settings: [Settings; 2],
}

/// The steps to come, in order of time.
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: VecDeque<Step>,
}

impl Script {
    /// When the next step is due.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.steps.front().map(|step| step.at_ns)
    }

    /// Forget every step but the first: the clock does not run yet.
    pub fn keep_first(&mut self) {
        self.steps.truncate(1);
    }

    /// Take the next step if it is due.
    pub fn take(&mut self, now: u64) -> Option<Step> {
        if self.next()? <= now { self.steps.pop_front() } else { None }
    }
}

impl Timeline {
    /// Gather the changes of `link` and parse every settings that will ever be in force.
    ///
    /// # Errors
    /// The first settings that are refused, with the time at which they would hold.
    pub fn new(link: &Link) -> Result<Self, WireError> {
        let mut timeline = Self {
            name: link.name.clone(),
            mtu: link.mtu,
            base: [link.a_to_b.clone(), link.b_to_a.clone()],
            changes: link.schedule.clone(),
            instants: Vec::new(),
        };
        timeline.check()?;
        Ok(timeline)
    }

    fn check(&mut self) -> Result<(), WireError> {
        let ends = self.changes.iter().filter_map(|c| Some(c.at_ns.saturating_add(c.for_ns?)));
        self.instants = self.changes.iter().map(|c| c.at_ns).chain(ends).collect();
        self.instants.sort_unstable();
        self.instants.dedup();
        for direction in 0..2 {
            self.settings(direction, 0)?;
            for &at in &self.instants {
                self.settings(direction, at)?;
            }
        }
        Ok(())
    }

    /// The settings of a direction `at` nanoseconds after the schedule's start.
    ///
    /// # Errors
    /// When they are refused (`new` and `set` have tried every one).
    pub fn settings(&self, direction: usize, at: u64) -> Result<Settings, WireError> {
        let mut value = self.base[direction].clone();
        for change in self.changes.iter().filter(|c| c.direction.includes(direction)) {
            if change.at_ns <= at && change.for_ns.is_none_or(|length| at - change.at_ns < length) {
                if !change.settings.is_object() {
                    return Err(refuse(&self.place(direction), "the settings of a change must be an object"));
                }
                if change.merge {
                    merge(&mut value, &change.settings);
                } else {
                    value = change.settings.clone();
                }
            }
        }
        Settings::parse(&value, &self.place(direction), self.mtu)
    }

    fn place(&self, direction: usize) -> String {
        format!("link '{}' {}", self.name, ["a_to_b", "b_to_a"][direction])
    }

    /// The settings in force at `now`, and every change after it.
    ///
    /// # Errors
    /// When settings are refused (`new` and `set` have tried every one).
    pub fn script(&self, now: u64) -> Result<Script, WireError> {
        let later = self.instants.iter().copied().filter(|&at| at > now);
        let step = |at| Ok(Step { at_ns: at, settings: [self.settings(0, at)?, self.settings(1, at)?] });
        std::iter::once(now).chain(later).map(step).collect::<Result<_, _>>().map(|steps| Script { steps })
    }

    /// Change the settings now: replace the base, or merge over it (`keep`); with `for_ns` only for a while.
    ///
    /// What replaces the settings also ends earlier changes for a while; `then` is the base that
    /// comes after this one.
    ///
    /// # Errors
    /// When a settings that would then come into force is refused; nothing has changed then.
    pub fn set(
        &mut self,
        now: u64,
        way: Way,
        settings: &Value,
        keep: bool,
        for_ns: Option<u64>,
        then: Option<&Value>,
    ) -> Result<(), WireError> {
        if then.is_some() && (for_ns.is_none() || keep) {
            return Err(refuse(&self.name, "'then' needs 'for_ns', and no 'merge'"));
        }
        let mut next = self.clone();
        if then.is_some() || (!keep && for_ns.is_none()) {
            next.end_live_changes(way);
        }
        if let Some(base) = then {
            for direction in (0..2).filter(|&d| way.includes(d)) {
                next.base[direction] = base.clone();
            }
        }
        if let Some(length) = for_ns {
            next.changes.push(Change {
                at_ns: now,
                for_ns: Some(length),
                direction: way,
                settings: settings.clone(),
                merge: keep,
                live: true,
            });
        } else {
            for direction in (0..2).filter(|&d| way.includes(d)) {
                if keep {
                    merge(&mut next.base[direction], settings);
                } else {
                    next.base[direction] = settings.clone();
                }
            }
        }
        next.check()?;
        for direction in 0..2 {
            next.settings(direction, now)?;
        }
        *self = next;
        Ok(())
    }

    /// Forget what commands have changed for a while in these directions.
    fn end_live_changes(&mut self, way: Way) {
        self.changes.retain_mut(|change| {
            if !change.live {
                return true;
            }
            let left: Vec<_> = (0..2).filter(|&d| change.direction.includes(d) && !way.includes(d)).collect();
            match left[..] {
                [0] => change.direction = Way::AToB,
                [1] => change.direction = Way::BToA,
                _ => {}
            }
            !left.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn timeline(schedule: Value) -> Result<Timeline, WireError> {
        let link = serde_json::from_value(json!({
            "name": "x", "a": {"tap": "a"}, "b": {"tap": "b"},
            "a_to_b": {"delay_ns": 10}, "schedule": schedule,
        }));
        Timeline::new(&link.unwrap())
    }

    #[test]
    fn a_flap_comes_and_goes_and_leaves_the_rest() {
        let flap = json!([{"at_ns": 100, "for_ns": 50, "merge": true, "settings": {"loss": {"rate": 1.0}}}]);
        let timeline = timeline(flap).unwrap();
        let lossy = |t: &Timeline, at| t.settings(0, at).unwrap().loss.is_some();
        assert!(
            !lossy(&timeline, 99) && lossy(&timeline, 100) && lossy(&timeline, 149) && !lossy(&timeline, 150)
        );
        assert_eq!(timeline.settings(0, 120).unwrap().delay_ns, 10);
        let mut script = timeline.script(0).unwrap();
        assert!(script.take(0).is_some() && script.take(99).is_none());
        assert!(script.take(100).unwrap().settings[1].loss.is_some());
        assert_eq!(script.next(), Some(150));
        assert!(script.take(500).unwrap().settings[1].loss.is_none() && script.next().is_none());
    }

    #[test]
    fn a_change_for_one_direction_leaves_the_other() {
        let timeline =
            timeline(json!([{"at_ns": 5, "direction": "b_to_a", "settings": {"delay_ns": 7}}])).unwrap();
        assert_eq!(timeline.settings(0, 9).unwrap().delay_ns, 10);
        assert_eq!(timeline.settings(0, 9).unwrap().loss, None);
        assert_eq!(timeline.settings(1, 9).unwrap().delay_ns, 7);
    }

    #[test]
    fn settings_that_would_be_refused_later_are_refused_at_once() {
        let error = timeline(json!([{"at_ns": 5, "settings": {"queue": {"kind": "pfifo", "packets": 3}}}]));
        assert!(error.unwrap_err().to_string().contains("only fills before"));
    }

    #[test]
    fn a_live_change_for_a_while_ends_by_itself() {
        let mut timeline = timeline(json!([])).unwrap();
        timeline.set(1000, Way::Both, &json!({"delay_ns": 99}), true, Some(500), None).unwrap();
        assert_eq!(timeline.settings(1, 1000).unwrap().delay_ns, 99);
        assert_eq!(timeline.settings(0, 1500).unwrap().delay_ns, 10);
        assert!(timeline.set(1000, Way::Both, &json!({"dealy": 1}), true, None, None).is_err());
        assert_eq!(timeline.settings(0, 2000).unwrap().delay_ns, 10);
        timeline.set(2000, Way::AToB, &json!({"loss": {"rate": 0.5}}), true, None, None).unwrap();
        assert_eq!(timeline.settings(0, 2000).unwrap().delay_ns, 10);
        timeline.set(2000, Way::AToB, &json!({}), false, None, None).unwrap();
        assert_eq!(timeline.settings(0, 2000).unwrap(), Settings::default());
    }

    #[test]
    fn a_later_change_takes_the_place_of_one_for_a_while() {
        let delay = |t: &Timeline, way: usize, at| t.settings(way, at).unwrap().delay_ns;
        let (slow, base) = (json!({"delay_ns": 99}), json!({"delay_ns": 5}));
        let mut timeline = timeline(json!([])).unwrap();
        timeline.set(1000, Way::Both, &slow, false, Some(500), Some(&base)).unwrap();
        assert_eq!((delay(&timeline, 0, 1499), delay(&timeline, 0, 1500)), (99, 5));
        timeline.set(1200, Way::BToA, &json!({"delay_ns": 1}), false, None, None).unwrap();
        assert_eq!((delay(&timeline, 1, 1200), delay(&timeline, 1, 1500)), (1, 1));
        assert_eq!((delay(&timeline, 0, 1200), delay(&timeline, 0, 1500)), (99, 5));
        assert!(timeline.set(1200, Way::Both, &slow, false, None, Some(&base)).is_err());
    }
}
