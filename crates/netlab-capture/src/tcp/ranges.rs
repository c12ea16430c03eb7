//! The octets a direction has sent, as tcptrace keeps them: every range of sequence space seen.
//!
//! A segment that overlaps a range seen before is a retransmission, counted in octets overlapped. In
//! the common case the ranges are one, from the first sequence number to the highest end, and nothing
//! is stored; a [`Ranges`] exists only while there are holes.

/// Separate ranges kept; the lowest two are joined beyond that (their hole is forgotten).
const LIMIT: usize = 4096;

/// Disjoint, sorted ranges; positions are signed offsets from an anchor that moves with the flow.
#[derive(Debug, Default, Clone)]
pub struct Ranges {
    anchor: u32,
    list: Vec<(i64, i64)>,
    /// Unwrapped position of the anchor.
    position: i64,
}

/// What adding a segment revealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Octets that had been seen before.
    pub overlap: u32,
    /// It starts before a range seen, without overlap: it fills a hole.
    pub fills_hole: bool,
    /// Its last octet had been seen before.
    pub tail_seen: bool,
}

impl Ranges {
    /// One range low..high.
    pub fn begin(&mut self, low: u32, high: u32) {
        self.list.clear();
        self.anchor = low;
        self.position = 0;
        self.list.push((0, i64::from(high.wrapping_sub(low) as i32).max(0)));
    }

    fn unwrap(&mut self, seq: u32) -> i64 {
        self.position += i64::from(seq.wrapping_sub(self.anchor) as i32);
        self.anchor = seq;
        self.position
    }

    /// Account a segment of `len` sequence numbers at `seq`.
    pub fn add(&mut self, seq: u32, len: u32) -> Added {
        let low = self.unwrap(seq);
        let high = low + i64::from(len);
        let first = self.list.partition_point(|&(_, end)| end < low);
        let (mut from, mut to, mut last, mut overlap) = (low, high, first, 0i64);
        while let Some(&(start, end)) = self.list.get(last) {
            if start > high {
                break;
            }
            overlap += (end.min(high) - start.max(low)).max(0);
            from = from.min(start);
            to = to.max(end);
            last += 1;
        }
        let tail_seen = self.list[first..last].iter().any(|&(start, end)| start < high && end >= high);
        let above = self.list.last().is_some_and(|&(_, end)| low < end);
        self.list.splice(first..last, [(from, to)]);
        if self.list.len() > LIMIT {
            let (start, _) = self.list.remove(0);
            if let Some(second) = self.list.first_mut() {
                second.0 = start;
            }
        }
        Added { overlap: overlap as u32, fills_hole: above && overlap == 0, tail_seen }
    }

    /// The end of the single range, if there is no hole.
    pub fn whole(&mut self) -> Option<u32> {
        match self.list[..] {
            [(_, end)] => Some(self.anchor.wrapping_add((end - self.position) as u32)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_counted_in_octets_and_holes_close() {
        let mut ranges = Ranges::default();
        ranges.begin(1000, 2000);
        let added = |overlap, fills_hole, tail_seen| Added { overlap, fills_hole, tail_seen };
        assert_eq!(ranges.add(2500, 500), added(0, false, false));
        assert_eq!(ranges.whole(), None);
        assert_eq!(ranges.add(1900, 300), added(100, false, false));
        assert_eq!(ranges.add(2300, 100), added(0, true, false));
        assert_eq!(ranges.add(2100, 500), added(300, false, true));
        assert_eq!(ranges.whole(), Some(3000));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut ranges = Ranges::default();
        ranges.begin(u32::MAX - 99, u32::MAX);
        assert_eq!(ranges.add(u32::MAX, 101).overlap, 0);
        assert_eq!(ranges.whole(), Some(100));
        assert_eq!(ranges.add(50, 100).overlap, 50);
    }
}
