//! A slab of fixed-size frame buffers, recycled: nothing is allocated for a packet.
//!
//! A frame is known by its slot number. Queues are lists threaded through the slots
//! ([`List`]), so any number of queues costs no memory beyond their heads. The free list is
//! last-in first-out: a lightly loaded link touches few pages of a large pool.

use crate::packet::Digest;

/// The number of a buffer in its pool.
pub type Slot = u32;

/// No slot.
pub const NONE: Slot = u32::MAX;

/// The frame is an extra copy made by `duplicate`.
pub const COPY: u8 = 1;
/// The frame was sent twice; this is the original.
pub const DUPLICATED: u8 = 2;
/// A bit of the frame was flipped.
pub const CORRUPTED: u8 = 4;
/// The frame left its place in the order.
pub const REORDERED: u8 = 8;
/// A queue set Congestion Experienced.
pub const MARKED: u8 = 16;
/// The frame is of the class `Kind::Chatter`, which has an index of its own.
pub const CHATTER: u8 = 32;
/// The frame left later than its due time by more than the tolerance.
pub const LATE: u8 = 64;

/// Sentence: lost at random.
pub const LOSE: u8 = 1;
/// Sentence: lost by an exact rule.
pub const DROP: u8 = 2;
/// Sentence: sent twice.
pub const REPEAT: u8 = 4;
/// Sentence: one bit flipped.
pub const DAMAGE: u8 = 8;

/// What is known about the frame in a slot.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Place in the direction's sequence of its class (traffic or chatter), from 0.
    pub index: u64,
    /// When it was read from its port (CLOCK_MONOTONIC).
    pub arrival_ns: u64,
    /// When it should leave.
    pub due_ns: u64,
    /// When it entered its queue.
    pub queued_ns: u64,
    /// Length in octets, Ethernet header included, frame check sequence not.
    pub len: u32,
    /// The next slot of the list it is in.
    pub next: Slot,
    /// Bit flipped by `corrupt`, counted from the first bit of the frame; `u32::MAX` when none.
    pub corrupt_bit: u32,
    /// `COPY`, `DUPLICATED`, ...
    pub flags: u8,
    /// What was decided on arrival and is still to be done: `LOSE`, `DROP`, `REPEAT`, `DAMAGE`.
    pub sentence: u8,
    /// Header fields.
    pub digest: Digest,
}

const BLANK: Meta = Meta {
    index: 0,
    arrival_ns: 0,
    due_ns: 0,
    queued_ns: 0,
    len: 0,
    next: NONE,
    corrupt_bit: u32::MAX,
    flags: 0,
    sentence: 0,
    digest: Digest {
        source: 0,
        destination: 0,
        source_port: 0,
        destination_port: 0,
        seq: 0,
        ack: 0,
        payload: 0,
        flags: 0,
        protocol: 0,
        version: 0,
        kind: crate::packet::Kind::Other,
        damage_from: 0,
        network: 0,
    },
};

/// The buffers of one link.
#[derive(Debug)]
pub struct Pool {
    data: Vec<u8>,
    meta: Vec<Meta>,
    free: Vec<Slot>,
    slot_size: usize,
}

impl Pool {
    /// `count` buffers of `slot_size` octets each. Pages are only touched when first used.
    #[must_use]
    pub fn new(count: usize, slot_size: usize) -> Self {
        Self {
            data: vec![0; count * slot_size],
            meta: vec![BLANK; count],
            free: (0..count as Slot).rev().collect(),
            slot_size,
        }
    }

    /// Take a free buffer, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<Slot> {
        let slot = self.free.pop()?;
        self.meta[slot as usize] = BLANK;
        Some(slot)
    }

    /// Give a buffer back.
    #[inline]
    pub fn give(&mut self, slot: Slot) {
        debug_assert!(self.free.len() < self.meta.len(), "a buffer was given back twice");
        self.free.push(slot);
    }

    /// How many buffers are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// How many buffers there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.meta.len()
    }

    /// Octets of one buffer.
    #[must_use]
    pub const fn slot_size(&self) -> usize {
        self.slot_size
    }

    /// The whole buffer of a slot, to read a frame into.
    #[inline]
    pub fn buffer(&mut self, slot: Slot) -> &mut [u8] {
        let at = slot as usize * self.slot_size;
        &mut self.data[at..at + self.slot_size]
    }

    /// All buffers, one after the other: slot `n` begins at `n * slot_size()`.
    pub(crate) fn region(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// The frame in a slot.
    #[inline]
    #[must_use]
    pub fn frame(&self, slot: Slot) -> &[u8] {
        let at = slot as usize * self.slot_size;
        &self.data[at..at + self.meta[slot as usize].len as usize]
    }

    /// The frame in a slot, to change it.
    #[inline]
    pub fn frame_mut(&mut self, slot: Slot) -> &mut [u8] {
        let at = slot as usize * self.slot_size;
        &mut self.data[at..at + self.meta[slot as usize].len as usize]
    }

    /// What is known about the frame in a slot.
    #[inline]
    #[must_use]
    pub fn meta(&self, slot: Slot) -> &Meta {
        &self.meta[slot as usize]
    }

    /// What is known about the frame in a slot, to change it.
    #[inline]
    pub fn meta_mut(&mut self, slot: Slot) -> &mut Meta {
        &mut self.meta[slot as usize]
    }

    /// Set Congestion Experienced on the frame; false when it is not ECN-capable.
    pub fn mark(&mut self, slot: Slot) -> bool {
        let digest = self.meta(slot).digest;
        let marked = crate::packet::mark_congestion(self.frame_mut(slot), &digest);
        if marked {
            self.meta_mut(slot).flags |= MARKED;
        }
        marked
    }

    /// Copy a frame and what is known about it into a new slot, if one is free.
    pub fn duplicate(&mut self, slot: Slot) -> Option<Slot> {
        let copy = self.take()?;
        let (from, to, len) =
            (slot as usize * self.slot_size, copy as usize * self.slot_size, self.meta(slot).len as usize);
        self.data.copy_within(from..from + len, to);
        self.meta[copy as usize] = Meta { next: NONE, ..self.meta[slot as usize] };
        Some(copy)
    }
}

/// A first-in first-out list of slots, threaded through a pool.
#[derive(Clone, Copy, Debug)]
pub struct List {
    head: Slot,
    tail: Slot,
    packets: u32,
    octets: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, packets: 0, octets: 0 }
    }
}

impl List {
    /// Append a slot.
    #[inline]
    pub fn push(&mut self, pool: &mut Pool, slot: Slot) {
        pool.meta_mut(slot).next = NONE;
        if self.head == NONE {
            self.head = slot;
        } else {
            pool.meta_mut(self.tail).next = slot;
        }
        self.tail = slot;
        self.packets += 1;
        self.octets += u64::from(pool.meta(slot).len);
    }

    /// Remove the first slot.
    #[inline]
    pub fn pop(&mut self, pool: &Pool) -> Option<Slot> {
        if self.head == NONE {
            return None;
        }
        let slot = self.head;
        self.head = pool.meta(slot).next;
        self.packets -= 1;
        self.octets -= u64::from(pool.meta(slot).len);
        Some(slot)
    }

    /// How many frames wait.
    #[must_use]
    pub const fn packets(&self) -> u32 {
        self.packets
    }

    /// How many octets wait.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_order_and_count() {
        let mut pool = Pool::new(8, 64);
        let mut list = List::default();
        let slots: Vec<Slot> = (0..5).map(|_| pool.take().unwrap()).collect();
        for (i, &slot) in slots.iter().enumerate() {
            pool.meta_mut(slot).len = i as u32 + 1;
            list.push(&mut pool, slot);
        }
        assert_eq!((list.packets(), list.octets()), (5, 15));
        let out: Vec<Slot> = std::iter::from_fn(|| list.pop(&pool)).collect();
        assert_eq!(out, slots);
        assert!(list.is_empty() && list.octets() == 0);
        list.push(&mut pool, slots[2]);
        assert_eq!(list.pop(&pool), Some(slots[2]));
    }

    #[test]
    fn an_empty_pool_says_so_and_recycles() {
        let mut pool = Pool::new(2, 64);
        let a = pool.take().unwrap();
        let b = pool.take().unwrap();
        assert!(pool.take().is_none() && pool.duplicate(a).is_none());
        pool.give(b);
        pool.buffer(a)[..3].copy_from_slice(b"abc");
        pool.meta_mut(a).len = 3;
        let copy = pool.duplicate(a).unwrap();
        assert_eq!(pool.frame(copy), b"abc");
    }
}
