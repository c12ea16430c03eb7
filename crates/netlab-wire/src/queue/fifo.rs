//! First in, first out, tail drop; limited in packets (pfifo) or octets (bfifo).

use super::Dropped;
use crate::journal::Verdict;
use crate::pool::{List, Pool, Slot};

/// A tail-drop queue.
#[derive(Clone, Debug)]
pub struct Fifo {
    list: List,
    packets: u32,
    octets: u64,
}

impl Fifo {
    /// A queue of at most `packets` and `octets`.
    #[must_use]
    pub fn new(packets: u32, octets: u64) -> Self {
        Self { list: List::default(), packets, octets }
    }

    /// Append, or drop at the tail.
    pub fn push(&mut self, slot: Slot, pool: &mut Pool, dropped: &mut Dropped) {
        let len = u64::from(pool.meta(slot).len);
        if self.list.packets() >= self.packets || self.list.octets() + len > self.octets {
            dropped.push((slot, Verdict::Queue));
        } else {
            self.list.push(pool, slot);
        }
    }

    /// The oldest packet.
    pub fn pop(&mut self, pool: &Pool) -> Option<Slot> {
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

    fn offer(queue: &mut Fifo, pool: &mut Pool, lens: &[u32]) -> (Vec<u32>, usize) {
        let mut dropped = Dropped::new();
        for &len in lens {
            let slot = pool.take().unwrap();
            pool.meta_mut(slot).len = len;
            queue.push(slot, pool, &mut dropped);
        }
        (std::iter::from_fn(|| queue.pop(pool)).map(|slot| pool.meta(slot).len).collect(), dropped.len())
    }

    #[test]
    fn a_pfifo_counts_packets() {
        let mut pool = Pool::new(16, 64);
        assert_eq!(offer(&mut Fifo::new(3, u64::MAX), &mut pool, &[9, 8, 7, 6, 5]), (vec![9, 8, 7], 2));
    }

    #[test]
    fn a_bfifo_counts_octets_and_a_small_packet_still_fits() {
        let mut pool = Pool::new(16, 64);
        assert_eq!(offer(&mut Fifo::new(u32::MAX, 20), &mut pool, &[9, 8, 7, 3, 1]), (vec![9, 8, 3], 2));
    }
}
