//! Queue disciplines: what waits before a rate, and which packets are dropped or marked.
//!
//! A discipline is driven by the direction with the time of each event; it reads no clock. Packets
//! it drops are handed back through [`Dropped`], so that the direction can journal and recycle them.

pub mod codel;
pub mod fifo;
pub mod fq_codel;
pub mod gate;

use crate::config;
use crate::journal::Verdict;
use crate::pool::{Pool, Slot};

/// Packets a queue has just dropped, and why.
pub type Dropped = Vec<(Slot, Verdict)>;

/// One queue discipline.
#[derive(Clone, Debug)]
pub enum Queue {
    /// pfifo and bfifo.
    Fifo(fifo::Fifo),
    /// CoDel.
    Codel(codel::Codel),
    /// FQ-CoDel.
    FqCodel(fq_codel::FqCodel),
}

impl Queue {
    /// Build from settings; `hash_key` perturbs the flow hash.
    #[must_use]
    pub fn new(settings: Option<&config::Queue>, hash_key: u64) -> Self {
        match settings {
            None => Self::Fifo(fifo::Fifo::new(1000, u64::MAX)),
            Some(&config::Queue::Pfifo { packets }) => Self::Fifo(fifo::Fifo::new(packets, u64::MAX)),
            Some(&config::Queue::Bfifo { bytes }) => Self::Fifo(fifo::Fifo::new(u32::MAX, bytes)),
            Some(&config::Queue::Codel { packets, target_ns, interval_ns, ecn }) => {
                Self::Codel(codel::Codel::new(packets, codel::Parameters { target_ns, interval_ns, ecn }))
            }
            Some(&config::Queue::FqCodel { packets, bytes, flows, quantum, target_ns, interval_ns, ecn }) => {
                let limits = fq_codel::Limits { packets, bytes, flows, quantum };
                let codel = codel::Parameters { target_ns, interval_ns, ecn };
                Self::FqCodel(fq_codel::FqCodel::new(limits, codel, hash_key))
            }
        }
    }

    /// Take in a packet, or hand back what does not fit.
    pub fn push(&mut self, now: u64, slot: Slot, pool: &mut Pool, dropped: &mut Dropped) {
        pool.meta_mut(slot).queued_ns = now;
        match self {
            Self::Fifo(queue) => queue.push(slot, pool, dropped),
            Self::Codel(queue) => queue.push(slot, pool, dropped),
            Self::FqCodel(queue) => queue.push(slot, pool, dropped),
        }
    }

    /// The packet to send next.
    pub fn pop(&mut self, now: u64, pool: &mut Pool, dropped: &mut Dropped) -> Option<Slot> {
        match self {
            Self::Fifo(queue) => queue.pop(pool),
            Self::Codel(queue) => queue.pop(now, pool, dropped),
            Self::FqCodel(queue) => queue.pop(now, pool, dropped),
        }
    }

    /// Take out any packet without judging it, to move it to another queue.
    pub fn evict(&mut self, pool: &mut Pool) -> Option<Slot> {
        match self {
            Self::Fifo(queue) => queue.pop(pool),
            Self::Codel(queue) => queue.evict(pool),
            Self::FqCodel(queue) => queue.evict(pool),
        }
    }

    /// Take in a packet whatever the limit, with the time at which it was queued kept.
    pub fn adopt(&mut self, slot: Slot, pool: &mut Pool) {
        match self {
            Self::Fifo(queue) => queue.adopt(slot, pool),
            Self::Codel(queue) => queue.adopt(slot, pool),
            Self::FqCodel(queue) => queue.adopt(slot, pool),
        }
    }

    /// Packets and octets waiting.
    #[must_use]
    pub fn backlog(&self) -> (u32, u64) {
        match self {
            Self::Fifo(queue) => queue.backlog(),
            Self::Codel(queue) => queue.backlog(),
            Self::FqCodel(queue) => queue.backlog(),
        }
    }
}
