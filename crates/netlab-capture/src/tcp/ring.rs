//! The list of unacknowledged segments of one direction (rules 12d, 13, 16 and 17 of wireshark.md).
//!
//! Entries stand in the order they were sent. While each begins at or after the end of the one before
//! ("ordered"), an acknowledgement removes from the front, the octets in flight are the last end minus
//! the first start, and nothing is searched. A retransmission breaks the order; then the plain scan
//! that defines the semantics is used until the list drains. One entry lives in the flow record; a list
//! is taken from the pool for the second and goes back when empty.

/// Most entries; further segments are not listed (rule 13).
pub const LIMIT: usize = 10_000;

/// A segment waiting for its acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// First sequence number not yet acknowledged.
    pub seq: u32,
    /// Sequence number after the last octet.
    pub end: u32,
    /// When it was sent, ns.
    pub time: i64,
    /// Frame (low 32 bits).
    pub frame: u32,
    /// Some octet of it was sent more than once (Karn).
    pub repeated: bool,
}

/// What an acknowledgement removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// The oldest entry that ends at the acknowledgement.
    pub exact: Option<Entry>,
    /// The newest entry that ends there.
    pub newest: Option<Entry>,
    /// An entry the acknowledgement falls into (4.4: a sample too); its time.
    pub partial: Option<Entry>,
}

/// One list.
#[derive(Debug, Default)]
struct Ring {
    entries: Box<[Entry]>,
    head: u32,
    len: u32,
    ordered: bool,
}

/// `a` before `b` in sequence space (signed 32-bit difference).
#[inline(always)]
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Ring {
    #[inline(always)]
    fn at(&self, i: u32) -> Entry {
        let mask = self.entries.len() - 1;
        self.entries[(self.head + i) as usize & mask]
    }

    #[inline(always)]
    fn at_mut(&mut self, i: u32) -> &mut Entry {
        let mask = self.entries.len() - 1;
        &mut self.entries[(self.head + i) as usize & mask]
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.entries.len() * 2).max(8);
        let mut bigger = vec![Entry::default(); size].into_boxed_slice();
        for i in 0..self.len {
            bigger[i as usize] = self.at(i);
        }
        self.entries = bigger;
        self.head = 0;
    }

    #[inline(always)]
    fn push(&mut self, entry: Entry) {
        if self.len as usize == self.entries.len() {
            self.grow();
        }
        self.ordered = self.len == 0 || self.ordered && !before(entry.seq, self.at(self.len - 1).end);
        self.len += 1;
        *self.at_mut(self.len - 1) = entry;
    }

    /// Near enough that signed comparison orders every entry and `ack` alike.
    #[inline(always)]
    fn near(&self, ack: u32) -> bool {
        let start = self.at(0).seq;
        let last = self.at(self.len - 1).end.wrapping_sub(start);
        last < 1 << 30 && ack.wrapping_sub(start).wrapping_add(1 << 30) < 1 << 31
    }

    #[inline(always)]
    fn acknowledge(&mut self, ack: u32) -> Acked {
        let mut acked = Acked::default();
        if self.ordered && self.near(ack) {
            while self.len > 0 {
                let front = self.at(0);
                if before(ack, front.end) {
                    if before(front.seq, ack) {
                        acked.partial = Some(front);
                        self.at_mut(0).seq = ack;
                    }
                    return acked;
                }
                if front.end == ack {
                    acked.exact = Some(front);
                    acked.newest = acked.exact;
                }
                self.head = self.head.wrapping_add(1) & (self.entries.len() as u32 - 1);
                self.len -= 1;
            }
            return acked;
        }
        self.scan(ack)
    }

    /// The definition: every entry judged by itself, oldest first.
    #[inline(never)]
    fn scan(&mut self, ack: u32) -> Acked {
        let mut acked = Acked::default();
        let mut kept = 0;
        for i in 0..self.len {
            let mut entry = self.at(i);
            if entry.end == ack {
                acked.exact = acked.exact.or(Some(entry));
                acked.newest = Some(entry);
                continue;
            }
            if before(entry.seq, ack) && before(ack, entry.end) {
                acked.partial = Some(entry);
                entry.seq = ack;
            } else if !before(ack, entry.end) {
                continue;
            }
            *self.at_mut(kept) = entry;
            kept += 1;
        }
        self.len = kept;
        acked
    }

    fn ends(&self, base: u32) -> (u32, u32) {
        let (front, back) = (self.at(0), self.at(self.len - 1));
        let (first, last) = (front.seq.wrapping_sub(base), back.end.wrapping_sub(base));
        if self.ordered && first <= last && last - first < 1 << 30 {
            return (first, last);
        }
        let (mut first, mut last) = (u32::MAX, 0);
        for i in 0..self.len {
            let entry = self.at(i);
            first = first.min(entry.seq.wrapping_sub(base));
            last = last.max(entry.end.wrapping_sub(base));
        }
        (first, last)
    }
}

/// All lists of a shard; empty ones keep their memory for the next flow.
#[derive(Debug, Default)]
pub struct Rings {
    rings: Vec<Ring>,
    free: Vec<u32>,
}

impl Rings {
    /// Take an empty list; its handle.
    pub fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.rings
                .push(Ring { entries: vec![Entry::default(); 8].into_boxed_slice(), ..Ring::default() });
            self.rings.len() as u32
        })
    }

    /// Give an empty list back.
    pub fn give(&mut self, handle: u32) {
        let ring = self.get_mut(handle);
        ring.len = 0;
        ring.head = 0;
        if ring.entries.len() > 1024 {
            ring.entries = vec![Entry::default(); 8].into_boxed_slice();
        }
        self.free.push(handle);
    }

    fn get(&self, handle: u32) -> &Ring {
        &self.rings[handle as usize - 1]
    }

    fn get_mut(&mut self, handle: u32) -> &mut Ring {
        &mut self.rings[handle as usize - 1]
    }

    /// Add an entry.
    #[inline(always)]
    pub fn push(&mut self, handle: u32, entry: Entry) {
        self.get_mut(handle).push(entry);
    }

    /// Entries in it.
    pub fn len(&self, handle: u32) -> usize {
        self.get(handle).len as usize
    }

    /// Apply an acknowledgement (rule 16).
    #[inline(always)]
    pub fn acknowledge(&mut self, handle: u32, ack: u32) -> Acked {
        self.get_mut(handle).acknowledge(ack)
    }

    /// Smallest start and largest end relative to `base`, as unsigned numbers (rule 17).
    #[inline(always)]
    pub fn ends(&self, handle: u32, base: u32) -> (u32, u32) {
        self.get(handle).ends(base)
    }

    /// The oldest entry.
    pub fn oldest(&self, handle: u32) -> Option<Entry> {
        let ring = self.get(handle);
        (ring.len > 0).then(|| ring.at(0))
    }

    /// Every entry, oldest first.
    pub fn iter(&self, handle: u32) -> impl Iterator<Item = Entry> + '_ {
        let ring = self.get(handle);
        (0..ring.len).map(|i| ring.at(i))
    }

    /// Mark every entry that shares octets with seq..end as sent more than once.
    pub fn mark_repeated(&mut self, handle: u32, seq: u32, end: u32) {
        let ring = self.get_mut(handle);
        for i in 0..ring.len {
            let entry = ring.at_mut(i);
            if before(seq, entry.end) && before(entry.seq, end) {
                entry.repeated = true;
            }
        }
    }

    /// Ask for the memory of a list soon to be used.
    #[inline(always)]
    pub fn prefetch(&self, handle: u32) {
        netlab_mem::prefetch(&self.rings, (handle as usize).wrapping_sub(1), 0);
    }

    /// Memory held, octets.
    pub fn memory(&self) -> usize {
        self.rings.iter().map(|r| r.entries.len() * size_of::<Entry>() + size_of::<Ring>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_acknowledgement_times_the_oldest_entry_that_ends_there() {
        let mut rings = Rings::default();
        let ring = rings.take();
        for (seq, end, time) in [(0, 10, 1), (10, 20, 2), (10, 20, 3)] {
            rings.push(ring, Entry { seq, end, time, ..Entry::default() });
        }
        let acked = rings.acknowledge(ring, 20);
        assert_eq!(acked.exact.map(|e| e.time), Some(2));
        assert_eq!(acked.newest.map(|e| e.time), Some(3));
        assert_eq!(rings.len(ring), 0);
    }

    proptest! {
        /// The ordered short cut and the plain scan are the same function.
        #[test]
        fn short_cut_equals_scan(start in any::<u32>(),
                                 steps in proptest::collection::vec((0u32..3000, 0u32..1500, any::<bool>(), -500i32..4000), 1..60)) {
            let (mut rings, mut plain) = (Rings::default(), Ring { entries: vec![Entry::default(); 8].into_boxed_slice(), ..Ring::default() });
            let ring = rings.take();
            let mut next = start;
            for (i, (gap, len, send, ack)) in steps.into_iter().enumerate() {
                if send {
                    let seq = next.wrapping_add(if gap > 2800 { gap } else { 0 }).wrapping_sub(if gap < 100 { gap } else { 0 });
                    let entry = Entry { seq, end: seq.wrapping_add(len), time: i as i64, ..Entry::default() };
                    rings.push(ring, entry);
                    plain.push(entry);
                    next = entry.end;
                } else if plain.len > 0 {
                    let ack = plain.at(0).seq.wrapping_add(ack as u32);
                    prop_assert_eq!(rings.acknowledge(ring, ack), plain.scan(ack));
                }
                let left: Vec<_> = rings.iter(ring).collect();
                let want: Vec<_> = (0..plain.len).map(|i| plain.at(i)).collect();
                prop_assert_eq!(&left, &want);
                if !want.is_empty() {
                    plain.ordered = false;
                    prop_assert_eq!(rings.ends(ring, start), plain.ends(start));
                }
            }
        }
    }
}
