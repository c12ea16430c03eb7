//! Puts IP fragments together, keeping only the first octets: that is where the headers are.
//!
//! Bounded: so many datagrams at once, so many holes per datagram; the oldest is given up first.

use std::collections::{HashMap, VecDeque};

/// Datagrams under reassembly at once.
const MAX_DATAGRAMS: usize = 4096;
/// Separate ranges of one datagram.
const MAX_RANGES: usize = 64;
/// Octets kept of the start of a datagram: IP-in-UDP tunnels with TCP options inside fit.
const HEAD: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Identity {
    pub source: [u64; 2],
    pub destination: [u64; 2],
    pub id: u32,
    pub proto: u8,
}

#[derive(Default)]
pub(super) struct Fragments {
    open: HashMap<Identity, Assembly>,
    order: VecDeque<(Identity, u64)>,
    serial: u64,
}

struct Assembly {
    serial: u64,
    head: [u8; HEAD],
    proto: u8,
    total: Option<u32>,
    /// Disjoint, sorted, half-open.
    ranges: Vec<(u32, u32)>,
}

/// A datagram all of whose octets have been seen.
pub(super) struct Whole {
    head: [u8; HEAD],
    /// Octets of payload.
    pub length: u32,
    /// Protocol named by the first fragment.
    pub proto: u8,
}

impl Whole {
    /// Its first octets.
    pub fn head(&self) -> &[u8] {
        &self.head[..HEAD.min(self.length as usize)]
    }
}

#[derive(Default)]
pub(super) struct Outcome {
    pub whole: Option<Whole>,
    /// Datagrams given up.
    pub dropped: u64,
}

impl Fragments {
    pub fn add(&mut self, identity: Identity, offset: u32, more: bool, payload: &[u8], proto: u8) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.open.contains_key(&identity) {
            while self.open.len() >= MAX_DATAGRAMS {
                let Some((oldest, serial)) = self.order.pop_front() else { break };
                if self.open.get(&oldest).is_some_and(|a| a.serial == serial) {
                    self.open.remove(&oldest);
                    outcome.dropped += 1;
                }
            }
            if self.order.len() > 4 * MAX_DATAGRAMS {
                let open = &self.open;
                self.order
                    .retain(|(identity, serial)| open.get(identity).is_some_and(|a| a.serial == *serial));
            }
            self.serial += 1;
            self.order.push_back((identity, self.serial));
        }
        let serial = self.serial;
        let assembly = self.open.entry(identity).or_insert_with(|| Assembly {
            serial,
            head: [0; HEAD],
            proto,
            total: None,
            ranges: Vec::new(),
        });
        let end = offset.saturating_add(payload.len() as u32);
        if offset == 0 {
            assembly.proto = proto;
        }
        if !more && assembly.total.is_none() {
            assembly.total = Some(end);
        }
        if (offset as usize) < HEAD {
            let room = &mut assembly.head[offset as usize..];
            let keep = room.len().min(payload.len());
            room[..keep].copy_from_slice(&payload[..keep]);
        }
        insert(&mut assembly.ranges, offset, end);
        let complete =
            assembly.total.is_some_and(|total| matches!(assembly.ranges[..], [(0, high)] if high >= total));
        if complete || assembly.ranges.len() > MAX_RANGES {
            if let Some(done) = self.open.remove(&identity) {
                match done.total {
                    Some(length) if complete => {
                        outcome.whole = Some(Whole { head: done.head, length, proto: done.proto });
                    }
                    _ => outcome.dropped += 1,
                }
            }
        }
        outcome
    }
}

/// Add a half-open range to a sorted list of disjoint ones, joining neighbours.
fn insert(ranges: &mut Vec<(u32, u32)>, mut low: u32, mut high: u32) {
    let first = ranges.partition_point(|&(_, end)| end < low);
    let mut last = first;
    while let Some(&(start, end)) = ranges.get(last) {
        if start > high {
            break;
        }
        low = low.min(start);
        high = high.max(end);
        last += 1;
    }
    ranges.splice(first..last, [(low, high)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Identity = Identity { source: [1, 0], destination: [2, 0], id: 7, proto: 6 };

    #[test]
    fn fragments_in_any_order_complete_once() {
        let mut table = Fragments::default();
        assert!(table.add(WHO, 16, false, &[3; 8], 6).whole.is_none());
        assert!(table.add(WHO, 0, true, &[1; 8], 6).whole.is_none());
        let whole = table.add(WHO, 8, true, &[2; 8], 6).whole.unwrap();
        assert_eq!((whole.length, whole.head()[0], whole.head()[8], whole.head()[16]), (24, 1, 2, 3));
        assert!(table.open.is_empty());
    }

    #[test]
    fn memory_is_bounded_under_a_flood() {
        let mut table = Fragments::default();
        let mut dropped = 0;
        for id in 0..50_000 {
            dropped += table.add(Identity { id, ..WHO }, 8, true, &[0; 8], 6).dropped;
        }
        assert_eq!(table.open.len(), MAX_DATAGRAMS);
        assert_eq!(dropped, 50_000 - MAX_DATAGRAMS as u64);
        let mut many = Fragments::default();
        let dropped: u64 = (0..1000).map(|i| many.add(WHO, i * 16, true, &[0; 8], 6).dropped).sum();
        assert!(dropped > 0);
    }
}
