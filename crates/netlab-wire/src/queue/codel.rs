//! CoDel, RFC 8289: drop at the head when packets have waited too long for too long.
//!
//! [`State`] is the control law of §5 with its variables under their names there; [`Codel`]
//! puts it over one queue, FQ-CoDel over many. Departures from the pseudocode: with ECN a
//! capable packet is marked where it would have been dropped (RFC 8290 §4.2 and Linux `codel.h` do the
//! same), and a drop schedule is computed in whole nanoseconds.

use super::Dropped;
use crate::journal::Verdict;
use crate::pool::{List, Pool, Slot};

/// RFC 8289 §4.4: below one full packet of backlog nothing is dropped.
const FULL_PACKET: u64 = 1514;

/// What the administrator sets.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Acceptable standing delay (TARGET).
    pub target_ns: u64,
    /// Window in which the minimum must fall below the target (INTERVAL).
    pub interval_ns: u64,
    /// Mark instead of dropping where the packet allows it.
    pub ecn: bool,
}

/// The variables of RFC 8289 §5.1, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    first_above_time: u64,
    drop_next: u64,
    count: u32,
    last_count: u32,
    dropping: bool,
}

impl State {
    /// RFC 8289 §5.5: the time of the next drop, `t` + interval / √count.
    fn control_law(&self, parameters: &Parameters, t: u64) -> u64 {
        t + (parameters.interval_ns as f64 / f64::from(self.count).sqrt()) as u64
    }

    /// RFC 8289 §5.6, `dodequeue`: the head, and whether it may be dropped.
    fn head(
        &mut self,
        parameters: &Parameters,
        now: u64,
        list: &mut List,
        pool: &Pool,
    ) -> (Option<Slot>, bool) {
        let Some(slot) = list.pop(pool) else {
            self.first_above_time = 0;
            return (None, false);
        };
        let sojourn = now.saturating_sub(pool.meta(slot).queued_ns);
        if sojourn < parameters.target_ns || list.octets() <= FULL_PACKET {
            self.first_above_time = 0;
            return (Some(slot), false);
        }
        if self.first_above_time == 0 {
            self.first_above_time = now + parameters.interval_ns;
            return (Some(slot), false);
        }
        (Some(slot), now >= self.first_above_time)
    }

    /// RFC 8289 §5.3: take the next packet of `list` to send, dropping or marking on the way.
    pub fn dequeue(
        &mut self,
        parameters: &Parameters,
        now: u64,
        list: &mut List,
        pool: &mut Pool,
        dropped: &mut Dropped,
    ) -> Option<Slot> {
        let (mut head, mut ok_to_drop) = self.head(parameters, now, list, pool);
        if self.dropping {
            if !ok_to_drop {
                self.dropping = false;
            }
            while self.dropping && now >= self.drop_next {
                let Some(slot) = head else { break };
                self.count += 1;
                if parameters.ecn && pool.mark(slot) {
                    self.drop_next = self.control_law(parameters, self.drop_next);
                    return Some(slot);
                }
                dropped.push((slot, Verdict::Codel));
                (head, ok_to_drop) = self.head(parameters, now, list, pool);
                if ok_to_drop {
                    self.drop_next = self.control_law(parameters, self.drop_next);
                } else {
                    self.dropping = false;
                }
            }
        } else if let (Some(slot), true) = (head, ok_to_drop) {
            if !(parameters.ecn && pool.mark(slot)) {
                dropped.push((slot, Verdict::Codel));
                (head, _) = self.head(parameters, now, list, pool);
            }
            self.dropping = true;
            // §5.4: after a short break go on nearly where the control law had come to.
            let delta = self.count.wrapping_sub(self.last_count);
            let recent = now.saturating_sub(self.drop_next) < 16 * parameters.interval_ns;
            self.count = if delta > 1 && recent { delta } else { 1 };
            self.drop_next = self.control_law(parameters, now);
            self.last_count = self.count;
        }
        head
    }
}

/// CoDel over one queue with a limit in packets.
#[derive(Clone, Debug)]
pub struct Codel {
    parameters: Parameters,
    state: State,
    list: List,
    packets: u32,
}

impl Codel {
    /// A queue of at most `packets`.
    #[must_use]
    pub fn new(packets: u32, parameters: Parameters) -> Self {
        Self { parameters, state: State::default(), list: List::default(), packets }
    }

    /// Append, or drop at the tail.
    pub fn push(&mut self, slot: Slot, pool: &mut Pool, dropped: &mut Dropped) {
        if self.list.packets() >= self.packets {
            dropped.push((slot, Verdict::Queue));
        } else {
            self.list.push(pool, slot);
        }
    }

    /// The next packet to send.
    pub fn pop(&mut self, now: u64, pool: &mut Pool, dropped: &mut Dropped) -> Option<Slot> {
        self.state.dequeue(&self.parameters, now, &mut self.list, pool, dropped)
    }

    /// The oldest packet, not judged.
    pub fn evict(&mut self, pool: &Pool) -> Option<Slot> {
        self.list.pop(pool)
    }

    /// Append whatever the limit.
    pub fn adopt(&mut self, slot: Slot, pool: &mut Pool) {
        self.list.push(pool, slot);
    }

    /// Packets and octets waiting.
    #[must_use]
    pub const fn backlog(&self) -> (u32, u64) {
        (self.list.packets(), self.list.octets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Digest, craft};
    use crate::pool::MARKED;

    const MS: u64 = 1_000_000;
    const RFC: Parameters = Parameters { target_ns: 5 * MS, interval_ns: 100 * MS, ecn: false };

    /// A standing queue: one packet leaves each millisecond, having waited 40 ms. Times of drops and marks, ms.
    fn standing(parameters: Parameters, tos: u8, until_ms: u64) -> (Vec<u64>, Vec<u64>) {
        let mut pool = Pool::new(256, 2048);
        let mut queue = Codel::new(1000, parameters);
        let (mut drops, mut marks) = (Vec::new(), Vec::new());
        let mut dropped = Dropped::new();
        let frame = craft::tcp_ecn(1, 0x10, 0, 1000, tos);
        for now in 0..until_ms {
            while queue.backlog().0 < 20 {
                let slot = pool.take().unwrap();
                pool.buffer(slot)[..frame.len()].copy_from_slice(&frame);
                let meta = pool.meta_mut(slot);
                meta.len = frame.len() as u32;
                meta.digest = Digest::of(&frame);
                meta.queued_ns = (now * MS).saturating_sub(20 * MS);
                queue.push(slot, &mut pool, &mut dropped);
            }
            if let Some(slot) = queue.pop(now * MS, &mut pool, &mut dropped) {
                if pool.meta(slot).flags & MARKED != 0 {
                    marks.push(now);
                }
                pool.give(slot);
            }
            for (slot, _) in dropped.drain(..) {
                drops.push(now);
                pool.give(slot);
            }
        }
        (drops, marks)
    }

    /// What RFC 8289 §5.5 says: first after one interval above target, then each interval / √count later.
    fn schedule(first: u64, until_ms: u64) -> Vec<u64> {
        let (mut times, mut next, mut count) = (vec![first], first as f64 + 100.0, 1.0f64);
        while next.ceil() < until_ms as f64 {
            times.push(next.ceil() as u64);
            count += 1.0;
            next += 100.0 / count.sqrt();
        }
        times
    }

    #[test]
    fn drops_follow_the_control_law() {
        let (drops, _) = standing(RFC, 0, 3000);
        let first = drops[0];
        // The sojourn time of the first packets grows to the target within 5 ms, then one interval.
        assert!((100..=106).contains(&first), "{first}");
        assert_eq!(drops, schedule(first, 3000));
        assert!(drops.len() > 100);
    }

    #[test]
    fn marks_replace_drops_one_for_one() {
        let (drops, marks) = standing(Parameters { ecn: true, ..RFC }, 1, 1000);
        assert!(drops.is_empty());
        assert_eq!(marks, schedule(marks[0], 1000));
        let (drops, marks) = standing(Parameters { ecn: true, ..RFC }, 0, 1000);
        assert!(marks.is_empty() && !drops.is_empty());
    }

    #[test]
    fn a_queue_below_target_is_left_alone() {
        let (drops, _) = standing(Parameters { target_ns: 45 * MS, ..RFC }, 0, 3000);
        assert!(drops.is_empty());
    }

    #[test]
    fn a_burst_shorter_than_an_interval_is_left_alone() {
        let mut pool = Pool::new(256, 64);
        let mut queue = Codel::new(1000, RFC);
        let mut dropped = Dropped::new();
        for _ in 0..90 {
            let slot = pool.take().unwrap();
            pool.meta_mut(slot).len = 1514;
            queue.push(slot, &mut pool, &mut dropped);
        }
        let sent = (0..90).filter_map(|ms| queue.pop(ms * MS, &mut pool, &mut dropped)).count();
        assert_eq!((sent, dropped.len()), (90, 0));
    }
}
