//! FQ-CoDel, RFC 8290: flows hashed to queues, served in turn by deficit, each under CoDel.
//!
//! New flows go before old ones (§4.2); when the limit is hit, packets are dropped from the head
//! of the fattest queue, half of it but at most 64 (§4.1.3 and its note on batches).

use super::Dropped;
use super::codel::{Parameters, State};
use crate::journal::Verdict;
use crate::pool::{List, Pool, Slot};

const NO_FLOW: u32 = u32::MAX;
/// Most packets dropped at once on overflow.
const BATCH: u32 = 64;

/// Sizes of the discipline.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most packets in all flows.
    pub packets: u32,
    /// Most octets in all flows.
    pub bytes: u64,
    /// Number of queues.
    pub flows: u32,
    /// Octets of one round.
    pub quantum: u32,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    list: List,
    state: State,
    deficit: i64,
    next: u32,
    scheduled: bool,
}

/// A list of flows, threaded through the table.
#[derive(Clone, Copy, Debug)]
struct Turns {
    head: u32,
    tail: u32,
}

impl Turns {
    const EMPTY: Self = Self { head: NO_FLOW, tail: NO_FLOW };

    fn push(&mut self, flows: &mut [Flow], id: u32) {
        flows[id as usize].next = NO_FLOW;
        if self.head == NO_FLOW {
            self.head = id;
        } else {
            flows[self.tail as usize].next = id;
        }
        self.tail = id;
    }

    fn pop(&mut self, flows: &[Flow]) {
        if self.head != NO_FLOW {
            self.head = flows[self.head as usize].next;
        }
    }
}

/// The discipline.
#[derive(Clone, Debug)]
pub struct FqCodel {
    limits: Limits,
    parameters: Parameters,
    hash_key: u64,
    flows: Vec<Flow>,
    new: Turns,
    old: Turns,
    packets: u32,
    octets: u64,
}

impl FqCodel {
    /// Empty queues; `hash_key` perturbs the hash.
    #[must_use]
    pub fn new(limits: Limits, parameters: Parameters, hash_key: u64) -> Self {
        let flow = Flow {
            list: List::default(),
            state: State::default(),
            deficit: 0,
            next: NO_FLOW,
            scheduled: false,
        };
        Self {
            limits,
            parameters,
            hash_key,
            flows: vec![flow; limits.flows as usize],
            new: Turns::EMPTY,
            old: Turns::EMPTY,
            packets: 0,
            octets: 0,
        }
    }

    /// Append to the packet's flow; on overflow drop from the fattest.
    pub fn push(&mut self, slot: Slot, pool: &mut Pool, dropped: &mut Dropped) {
        self.adopt(slot, pool);
        if self.packets > self.limits.packets || self.octets > self.limits.bytes {
            self.drop_from_fattest(pool, dropped);
        }
    }

    /// Append whatever the limit.
    pub fn adopt(&mut self, slot: Slot, pool: &mut Pool) {
        let meta = pool.meta(slot);
        let id = (meta.digest.flow_hash(self.hash_key) % u64::from(self.limits.flows)) as u32;
        self.packets += 1;
        self.octets += u64::from(meta.len);
        let flow = &mut self.flows[id as usize];
        flow.list.push(pool, slot);
        if !flow.scheduled {
            flow.scheduled = true;
            flow.deficit = i64::from(self.limits.quantum);
            self.new.push(&mut self.flows, id);
        }
    }

    fn drop_from_fattest(&mut self, pool: &Pool, dropped: &mut Dropped) {
        let Some(flow) = self.flows.iter_mut().max_by_key(|flow| flow.list.octets()) else { return };
        let count = (flow.list.packets() / 2).clamp(1, BATCH);
        for _ in 0..count {
            if let Some(slot) = flow.list.pop(pool) {
                self.packets -= 1;
                self.octets -= u64::from(pool.meta(slot).len);
                dropped.push((slot, Verdict::Queue));
            }
        }
    }

    /// RFC 8290 §4.2: the next packet to send.
    pub fn pop(&mut self, now: u64, pool: &mut Pool, dropped: &mut Dropped) -> Option<Slot> {
        loop {
            let from_new = self.new.head != NO_FLOW;
            let id = if from_new { self.new.head } else { self.old.head };
            if id == NO_FLOW {
                return None;
            }
            let flow = &mut self.flows[id as usize];
            if flow.deficit <= 0 {
                flow.deficit += i64::from(self.limits.quantum);
                self.rotate(from_new);
                self.old.push(&mut self.flows, id);
                continue;
            }
            let already = dropped.len();
            let slot = flow.state.dequeue(&self.parameters, now, &mut flow.list, pool, dropped);
            for &(slot, _) in &dropped[already..] {
                self.packets -= 1;
                self.octets -= u64::from(pool.meta(slot).len);
            }
            let Some(slot) = slot else {
                self.rotate(from_new);
                // An emptied new flow gets one turn as an old one, lest it come back as new at once.
                if from_new && self.old.head != NO_FLOW {
                    self.old.push(&mut self.flows, id);
                } else {
                    self.flows[id as usize].scheduled = false;
                }
                continue;
            };
            let len = pool.meta(slot).len;
            self.flows[id as usize].deficit -= i64::from(len);
            self.packets -= 1;
            self.octets -= u64::from(len);
            return Some(slot);
        }
    }

    fn rotate(&mut self, from_new: bool) {
        if from_new { self.new.pop(&self.flows) } else { self.old.pop(&self.flows) }
    }

    /// Any packet, not judged; in order within its flow.
    pub fn evict(&mut self, pool: &Pool) -> Option<Slot> {
        let flow = self.flows.iter_mut().find(|flow| !flow.list.is_empty())?;
        let slot = flow.list.pop(pool)?;
        self.packets -= 1;
        self.octets -= u64::from(pool.meta(slot).len);
        Some(slot)
    }

    /// Packets and octets waiting.
    #[must_use]
    pub const fn backlog(&self) -> (u32, u64) {
        (self.packets, self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Digest, craft};

    const MS: u64 = 1_000_000;
    const LIMITS: Limits = Limits { packets: 10_240, bytes: 32 << 20, flows: 1024, quantum: 1514 };
    const RFC: Parameters = Parameters { target_ns: 5 * MS, interval_ns: 100 * MS, ecn: false };

    fn offer(
        queue: &mut FqCodel,
        pool: &mut Pool,
        dropped: &mut Dropped,
        now: u64,
        port: u16,
        payload: usize,
    ) {
        let frame = craft::udp(port, payload);
        let slot = pool.take().unwrap();
        let meta = pool.meta_mut(slot);
        meta.len = frame.len() as u32;
        meta.digest = Digest::of(&frame);
        meta.queued_ns = now;
        queue.push(slot, pool, dropped);
    }

    #[test]
    fn flows_share_octets_not_packets() {
        let mut pool = Pool::new(4096, 64);
        let mut queue = FqCodel::new(LIMITS, RFC, 3);
        let mut dropped = Dropped::new();
        for _ in 0..500 {
            offer(&mut queue, &mut pool, &mut dropped, 0, 1, 1400);
            offer(&mut queue, &mut pool, &mut dropped, 0, 2, 300);
            offer(&mut queue, &mut pool, &mut dropped, 0, 2, 300);
        }
        let mut octets = [0u64; 3];
        for _ in 0..600 {
            let slot = queue.pop(MS, &mut pool, &mut dropped).unwrap();
            octets[usize::from(pool.meta(slot).digest.source_port)] += u64::from(pool.meta(slot).len);
        }
        let ratio = octets[1] as f64 / octets[2] as f64;
        assert!((0.95..1.05).contains(&ratio), "{octets:?}");
    }

    #[test]
    fn a_sparse_flow_goes_first() {
        let mut pool = Pool::new(4096, 64);
        let mut queue = FqCodel::new(LIMITS, RFC, 3);
        let mut dropped = Dropped::new();
        for _ in 0..100 {
            offer(&mut queue, &mut pool, &mut dropped, 0, 1, 1400);
        }
        for _ in 0..10 {
            queue.pop(0, &mut pool, &mut dropped);
        }
        offer(&mut queue, &mut pool, &mut dropped, 0, 2, 20);
        // At most the rest of the bulk flow's turn comes before it.
        let next: Vec<u16> = (0..3)
            .map(|_| {
                let slot = queue.pop(0, &mut pool, &mut dropped).unwrap();
                pool.meta(slot).digest.source_port
            })
            .collect();
        assert!(next.contains(&2), "{next:?}");
    }

    #[test]
    fn overflow_hits_the_fattest_flow() {
        let mut pool = Pool::new(4096, 64);
        let mut queue = FqCodel::new(Limits { packets: 100, ..LIMITS }, RFC, 3);
        let mut dropped = Dropped::new();
        for _ in 0..5 {
            offer(&mut queue, &mut pool, &mut dropped, 0, 2, 20);
        }
        for _ in 0..200 {
            offer(&mut queue, &mut pool, &mut dropped, 0, 1, 1000);
        }
        assert!(queue.backlog().0 <= 100);
        assert!(!dropped.is_empty());
        assert!(dropped.iter().all(|&(slot, _)| pool.meta(slot).digest.source_port == 1));
    }

    #[test]
    fn everything_offered_comes_out_or_is_dropped_and_counts_agree() {
        let mut pool = Pool::new(4096, 64);
        let mut queue = FqCodel::new(LIMITS, RFC, 3);
        let mut dropped = Dropped::new();
        let mut out = 0;
        for step in 0..2000u64 {
            offer(&mut queue, &mut pool, &mut dropped, step * MS, (step % 7) as u16, 900);
            if step % 2 == 0 {
                out += usize::from(queue.pop(step * MS, &mut pool, &mut dropped).is_some());
            }
        }
        while queue.pop(4000 * MS, &mut pool, &mut dropped).is_some() {
            out += 1;
        }
        assert_eq!(out + dropped.len(), 2000);
        assert!(dropped.len() > 10, "a standing queue is controlled");
        assert_eq!(queue.backlog(), (0, 0));
    }

    #[test]
    fn flows_stay_in_order() {
        let mut pool = Pool::new(4096, 64);
        let mut queue = FqCodel::new(LIMITS, RFC, 9);
        let mut dropped = Dropped::new();
        for i in 0..700u64 {
            offer(&mut queue, &mut pool, &mut dropped, 0, (i % 5) as u16, 100);
            let slot = pool.capacity() as u32;
            let _ = slot;
        }
        let mut last = [0u32; 5];
        while let Some(slot) = queue.pop(0, &mut pool, &mut dropped) {
            // Slots were taken in rising order.
            let port = usize::from(pool.meta(slot).digest.source_port);
            assert!(slot + 1 > last[port]);
            last[port] = slot + 1;
        }
    }
}
