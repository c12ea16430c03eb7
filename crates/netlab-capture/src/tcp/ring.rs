//! The list of unacknowledged segments of one direction (rules 12d, 13, 16 and 17 of wireshark.md).
//!
//! Entries stand sorted by their end, equal ends in the order they were sent. Almost every segment goes
//! to the back; a retransmission is put where it belongs. An acknowledgement then removes from the front,
//! and what it falls into, or where the octets in flight begin, is the front entry as long as no two
//! overlap, else found among the few whose end lies within one segment length of the front. Only if sequence numbers lie so far apart that signed
//! differences stop being an order is the list kept as it comes and scanned, which defines the semantics.
//! One entry lives in the flow record; a list is taken from the pool for the second and goes back when
//! empty.

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
    /// Its last octet was sent more than once (Karn).
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

/// The same where no entries overlap.
#[derive(Clone, Copy, Debug)]
pub enum Popped {
    /// This one ends at the acknowledgement.
    Exact(Entry),
    /// The acknowledgement falls into this one.
    Into(Entry),
    /// Neither.
    Past,
    /// Entries overlap, and nothing was done.
    Odd,
}

/// One list.
#[derive(Debug, Default)]
struct Ring {
    entries: Box<[Entry]>,
    head: u32,
    len: u32,
    /// Start of the first entry and end of the last: a long list is not in the nearest cache.
    front: u32,
    back: u32,
    /// Longest entry so far.
    longest: u32,
    /// Each entry begins where the one before it ends, or later.
    disjoint: bool,
    /// Not sorted: sequence numbers lie too far apart.
    wild: bool,
}

/// Sequence numbers within this distance of one another are safely ordered by signed difference.
const NEAR: u32 = 1 << 30;

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
        let length = entry.end.wrapping_sub(entry.seq);
        if self.len == 0 {
            self.longest = length;
            self.wild = length >= NEAR;
            self.disjoint = true;
            self.front = entry.seq;
        } else {
            let follows = !before(entry.seq, self.back) & (entry.end.wrapping_sub(self.front) < NEAR);
            if self.wild || length >= NEAR || !follows {
                return self.squeeze(entry);
            }
            self.longest = self.longest.max(length);
        }
        self.back = entry.end;
        self.len += 1;
        *self.at_mut(self.len - 1) = entry;
    }

    /// Put an entry where it belongs, behind those that end no later.
    #[cold]
    #[inline(never)]
    fn squeeze(&mut self, entry: Entry) {
        let length = entry.end.wrapping_sub(entry.seq);
        self.longest = self.longest.max(length);
        self.disjoint &= !before(entry.seq, self.back);
        if self.wild || length >= NEAR || before(entry.end, self.back) {
            self.wild |= self.back.wrapping_sub(entry.seq) >= NEAR || length >= NEAR;
        } else {
            self.wild = entry.end.wrapping_sub(self.front) >= NEAR;
        }
        self.len += 1;
        let mut place = self.len - 1;
        if !self.wild {
            while place > 0 && before(entry.end, self.at(place - 1).end) {
                *self.at_mut(place) = self.at(place - 1);
                place -= 1;
            }
        }
        *self.at_mut(place) = entry;
        self.touch();
    }

    /// Entries were changed: note anew where they begin and end.
    fn touch(&mut self) {
        if self.len > 0 {
            self.front = self.at(0).seq;
            self.back = self.at(self.len - 1).end;
        }
    }

    /// Near enough that signed comparison orders every entry and `ack` alike.
    #[inline(always)]
    fn near(&self, ack: u32) -> bool {
        !self.wild && ack.wrapping_sub(self.at(0).end).wrapping_add(NEAR) < 2 * NEAR
    }

    /// Apply an acknowledgement as long as no entries overlap.
    #[inline(always)]
    fn pop(&mut self, ack: u32) -> Popped {
        if !self.disjoint || self.len == 0 || !self.near(ack) {
            return Popped::Odd;
        }
        loop {
            let front = self.at(0);
            if before(ack, front.end) {
                self.front = front.seq;
                if !before(front.seq, ack) {
                    return Popped::Past;
                }
                self.at_mut(0).seq = ack;
                self.front = ack;
                return Popped::Into(front);
            }
            self.head = self.head.wrapping_add(1) & (self.entries.len() as u32 - 1);
            self.len -= 1;
            if front.end == ack {
                self.touch();
                return Popped::Exact(front);
            }
            if self.len == 0 {
                return Popped::Past;
            }
        }
    }

    #[inline(never)]
    fn acknowledge(&mut self, ack: u32) -> Acked {
        let acked = if self.near(ack) { self.sweep(ack) } else { self.scan(ack) };
        self.touch();
        acked
    }

    /// Remove from the front of a sorted list.
    fn sweep(&mut self, ack: u32) -> Acked {
        let mut acked = Acked::default();
        while self.len > 0 {
            let front = self.at(0);
            if before(ack, front.end) {
                self.reach_into(ack, &mut acked);
                return acked;
            }
            if front.end == ack {
                acked.exact = acked.exact.or(Some(front));
                acked.newest = Some(front);
            }
            self.head = self.head.wrapping_add(1) & (self.entries.len() as u32 - 1);
            self.len -= 1;
        }
        acked
    }

    /// Move the start of every entry the acknowledgement falls into.
    #[inline(always)]
    fn reach_into(&mut self, ack: u32, acked: &mut Acked) {
        for i in 0..self.len {
            let entry = self.at(i);
            if entry.end.wrapping_sub(ack) >= self.longest {
                return;
            }
            if before(entry.seq, ack) {
                acked.partial = Some(entry);
                self.at_mut(i).seq = ack;
            }
        }
    }

    /// The definition: every entry judged by itself.
    #[cold]
    #[inline(never)]
    fn scan(&mut self, ack: u32) -> Acked {
        let mut acked = Acked::default();
        let mut kept = 0;
        let older = |a: Entry, b: Option<Entry>| b.is_none_or(|b| before(a.frame, b.frame));
        for i in 0..self.len {
            let mut entry = self.at(i);
            if entry.end == ack {
                if older(entry, acked.exact) {
                    acked.exact = Some(entry);
                }
                if acked.newest.is_none_or(|newest| !before(entry.frame, newest.frame)) {
                    acked.newest = Some(entry);
                }
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

    #[inline(always)]
    fn ends(&self, base: u32) -> (u32, u32) {
        let start = if self.disjoint { self.front } else { self.start() };
        let (first, last) = (start.wrapping_sub(base), self.back.wrapping_sub(base));
        if !self.wild && first <= last && last - first < NEAR {
            return (first, last);
        }
        self.scan_ends(base)
    }

    /// Where the first of several entries that overlap begins.
    #[inline(never)]
    fn start(&self) -> u32 {
        let front = self.at(0);
        let mut start = front.seq;
        for i in 1..self.len {
            let entry = self.at(i);
            if entry.end.wrapping_sub(front.end) >= self.longest {
                break;
            }
            if before(entry.seq, start) {
                start = entry.seq;
            }
        }
        start
    }

    #[cold]
    #[inline(never)]
    fn scan_ends(&self, base: u32) -> (u32, u32) {
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

    /// Apply an acknowledgement (rule 16) where entries do not overlap, else say so.
    #[inline(always)]
    pub fn pop(&mut self, handle: u32, ack: u32) -> Popped {
        self.get_mut(handle).pop(ack)
    }

    /// Apply an acknowledgement (rule 16).
    pub fn acknowledge(&mut self, handle: u32, ack: u32) -> Acked {
        self.get_mut(handle).acknowledge(ack)
    }

    /// Smallest start and largest end relative to `base`, as unsigned numbers (rule 17).
    #[inline(always)]
    pub fn ends(&self, handle: u32, base: u32) -> (u32, u32) {
        self.get(handle).ends(base)
    }

    /// The entry sent first.
    pub fn oldest(&self, handle: u32) -> Option<Entry> {
        self.iter(handle).reduce(|a, b| if before(b.frame, a.frame) { b } else { a })
    }

    /// Every entry, in no promised order.
    pub fn iter(&self, handle: u32) -> impl Iterator<Item = Entry> + '_ {
        let ring = self.get(handle);
        (0..ring.len).map(|i| ring.at(i))
    }

    /// Every entry in the order sent.
    pub fn sent(&self, handle: u32) -> Vec<Entry> {
        let mut all: Vec<Entry> = self.iter(handle).collect();
        all.sort_by(|a, b| (a.frame.wrapping_sub(b.frame) as i32).cmp(&0));
        all
    }

    /// Mark every entry whose last octet lies in seq..end as sent more than once.
    pub fn mark_repeated(&mut self, handle: u32, seq: u32, end: u32) {
        let ring = self.get_mut(handle);
        for i in 0..ring.len {
            let entry = ring.at_mut(i);
            if before(seq, entry.end) && !before(end, entry.end) {
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
            rings.push(ring, Entry { seq, end, time, frame: time as u32, repeated: false });
        }
        let acked = rings.acknowledge(ring, 20);
        assert_eq!(acked.exact.map(|e| e.time), Some(2));
        assert_eq!(acked.newest.map(|e| e.time), Some(3));
        assert_eq!(rings.len(ring), 0);
    }

    proptest! {
        /// The sorted list and the plain scan are the same function.
        #[test]
        fn short_cut_equals_scan(start in any::<u32>(),
                                 steps in proptest::collection::vec((0u32..3000, 0u32..1500, any::<bool>(), -500i32..4000), 1..80)) {
            let (mut rings, mut plain) = (Rings::default(), Rings::default());
            let (ring, wild) = (rings.take(), plain.take());
            let mut next = start;
            for (i, (gap, len, send, ack)) in steps.into_iter().enumerate() {
                if send {
                    let back = if gap < 300 { gap * 20 } else { 0 };
                    let far = if gap == 2999 { 1 << 31 } else { 0 };
                    let seq = next.wrapping_add(if gap > 2800 { gap } else { 0 }).wrapping_sub(back).wrapping_add(far);
                    let entry = Entry { seq, end: seq.wrapping_add(len), time: i as i64, frame: i as u32, repeated: false };
                    rings.push(ring, entry);
                    plain.push(wild, entry);
                    plain.get_mut(wild).wild = true;
                    if back == 0 {
                        next = entry.end;
                    }
                } else if plain.len(wild) > 0 {
                    let ack = plain.sent(wild)[0].seq.wrapping_add(ack as u32);
                    let (a, b) = (rings.acknowledge(ring, ack), plain.acknowledge(wild, ack));
                    prop_assert_eq!((a.exact, a.newest, a.partial.is_some()), (b.exact, b.newest, b.partial.is_some()));
                }
                prop_assert_eq!(rings.sent(ring), plain.sent(wild));
                if plain.len(wild) > 0 {
                    prop_assert_eq!(rings.ends(ring, start), plain.ends(wild, start));
                    prop_assert_eq!(rings.oldest(ring), plain.oldest(wild));
                }
            }
        }
    }
}
