//! Reordering: chosen packets go ahead without delay, or are held back.

use crate::config;
use crate::rng::{Chance, Purpose, Stream};

/// What a chosen packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It keeps its place.
    Kept,
    /// It is sent without delay, overtaking those that wait (as `sch_netem` does).
    Ahead,
    /// It is held back by so many nanoseconds after its due time; later ones overtake it.
    Held(u64),
}

/// Whether a packet leaves its place in the order.
#[derive(Clone, Debug)]
pub struct Reorder {
    chance: Chance,
    gap: u64,
    place: Place,
}

impl Reorder {
    /// Build from settings; none means never.
    #[must_use]
    pub fn new(settings: Option<&config::Reorder>, seed: u64, lane: u64) -> Self {
        let (rate, correlation, gap, hold) =
            settings.map_or((0.0, 0.0, 1, None), |s| (s.rate, s.correlation, s.gap, s.hold_ns));
        Self {
            chance: Chance::new(
                rate,
                correlation,
                Stream::new(seed, lane, Purpose::Reorder),
                Stream::new(seed, lane, Purpose::ReorderRepeat),
            ),
            gap,
            place: hold.map_or(Place::Ahead, Place::Held),
        }
    }

    /// Decide for the packet `index`; only every `gap`-th is a candidate.
    #[inline]
    pub fn decide(&mut self, index: u64) -> Place {
        if index % self.gap == self.gap - 1 && self.chance.decide(index) { self.place } else { Place::Kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_every_gap_th_packet_is_a_candidate() {
        let settings = config::Reorder { rate: 1.0, correlation: 0.0, gap: 5, hold_ns: None };
        let mut reorder = Reorder::new(Some(&settings), 1, 0);
        let ahead: Vec<u64> = (0..20).filter(|&i| reorder.decide(i) == Place::Ahead).collect();
        assert_eq!(ahead, [4, 9, 14, 19]);
    }

    #[test]
    fn a_hold_is_passed_on() {
        let settings = config::Reorder { rate: 1.0, correlation: 0.0, gap: 1, hold_ns: Some(9) };
        assert_eq!(Reorder::new(Some(&settings), 1, 0).decide(0), Place::Held(9));
        assert_eq!(Reorder::new(None, 1, 0).decide(0), Place::Kept);
    }
}
