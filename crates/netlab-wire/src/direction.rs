//! One direction of a link as a pure state machine: fed with frames and times, asked what leaves.
//!
//! ```text
//! arrive (decide) → queue → rate → exact drop → loss → duplicate → corrupt → delay + jitter → pop
//! ```
//!
//! Losses happen on the line, behind the rate: a lost packet has waited and used the link.
//!
//! It reads no clock and does no input or output. Events inside (a packet leaving the rate
//! limiter) happen at their own exact times however late the caller is: being called late delays
//! departures, it does not slow the link down.
//!
//! **Determinism.** Every decision is made on arrival and is a function of (seed, direction,
//! index). The index counts the packets of a class in a direction; chatter (ARP, neighbour discovery,
//! group upkeep) is a class of its own with the same settings but its own draws. Correlation and
//! the Gilbert-Elliott state depend on the indices before. Changing one impairment
//! leaves the draws and the state of the others as they were.
//!
//! **Order** is kept: a packet never leaves before the one that left the queue before it, so jitter
//! makes packets wait for each other, which raises their mean delay. It may reorder only where `jitter.reorders` is
//! set; chosen packets leave their place with `reorder`. When a change makes the delay shorter,
//! later packets wait for those under way.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::config::Settings;
use crate::impair::Deciders;
use crate::impair::exact::Exact;
use crate::impair::reorder::Place;
use crate::journal::{Record, Sink, Verdict};
use crate::packet::{Digest, Kind};
use crate::pool::{
    CHATTER, COPY, CORRUPTED, DAMAGE, DROP, DUPLICATED, LOSE, MARKED, Meta, Pool, REORDERED, REPEAT, Slot,
};
use crate::queue::gate::Gate;
use crate::queue::{Dropped, Queue};
use crate::rng::{Purpose, Stream};
use crate::stats::Counters;

/// Buffers kept back, so that a port always has some to read into.
pub const RESERVE: usize = 160;

/// One direction of a link.
#[derive(Debug)]
pub struct Direction {
    number: u8,
    link_seed: u64,
    tolerance_ns: u64,
    settings: Settings,
    deciders: [Deciders; 2],
    next_index: [u64; 2],
    exact: Exact,
    gate: Option<Gate>,
    queue: Queue,
    /// The packet being sent, and when it will have been.
    in_service: Option<(u64, Slot)>,
    line: VecDeque<(u64, Slot)>,
    aside: BinaryHeap<Reverse<(u64, u64, Slot)>>,
    order: u64,
    last_due: u64,
    dropped: Dropped,
    /// What it has done so far.
    pub counters: Counters,
}

impl Direction {
    /// Direction `number` (0 from a to b, 1 back) of a link with `seed`, starting at `now`.
    ///
    /// A departure more than `tolerance_ns` after its due time counts as late; `capacity` is that of the pool.
    #[must_use]
    pub fn new(
        number: u8,
        seed: u64,
        settings: Settings,
        now: u64,
        tolerance_ns: u64,
        capacity: usize,
    ) -> Self {
        let lane = u64::from(number) * 2;
        let link_seed = seed;
        let seed = settings.seed.unwrap_or(link_seed);
        Self {
            number,
            link_seed,
            tolerance_ns,
            deciders: [Deciders::new(&settings, seed, lane), Deciders::new(&settings, seed, lane + 1)],
            next_index: [0; 2],
            exact: Exact::new(&settings.drop),
            gate: Gate::new(&settings, now),
            queue: Queue::new(settings.queue.as_ref(), hash_key(seed, number)),
            in_service: None,
            line: VecDeque::with_capacity(capacity),
            aside: BinaryHeap::new(),
            order: 0,
            last_due: 0,
            dropped: Dropped::with_capacity(128),
            counters: Counters::default(),
            settings,
        }
    }

    /// A frame has arrived in `slot` (its length set in the pool) at `now`.
    pub fn arrive(&mut self, now: u64, slot: Slot, pool: &mut Pool, sink: &mut impl Sink) {
        self.advance(now, pool, sink);
        let digest = Digest::of(pool.frame(slot));
        let class = usize::from(digest.kind == Kind::Chatter);
        let index = self.next_index[class];
        self.next_index[class] += 1;
        let meta = pool.meta_mut(slot);
        meta.arrival_ns = now;
        meta.digest = digest;
        meta.index = index;
        if class == 1 {
            meta.flags |= CHATTER;
            self.counters.chatter += 1;
        }
        self.counters.received.0 += 1;
        self.counters.received.1 += u64::from(meta.len);

        // Each is asked for each packet, whatever the others say: draws never depend on one another.
        let deciders = &mut self.deciders[class];
        let mut sentence = 0;
        for (bit, decision) in [
            (DROP, self.exact.decide(&digest)),
            (LOSE, deciders.loss.decide(index)),
            (REPEAT, deciders.duplicate.decide(index)),
            (DAMAGE, deciders.corrupt.decide(index)),
        ] {
            sentence |= if decision { bit } else { 0 };
        }
        let travel = deciders.delay.decide(index);
        let place = deciders.reorder.decide(index);
        let meta = pool.meta_mut(slot);
        meta.sentence = sentence;
        // Until the packet is on the line its due time is how long it will travel there.
        meta.due_ns = match place {
            Place::Kept => travel,
            Place::Ahead => 0,
            Place::Held(hold) => travel.saturating_add(hold),
        };
        if place != Place::Kept {
            meta.flags |= REORDERED;
        }
        if pool.free() < RESERVE {
            return self.drop(now, slot, Verdict::Overflow, pool, sink);
        }
        self.enqueue(now, slot, pool, sink);
    }

    /// The next frame whose time has come; frames leave in order of their due times.
    ///
    /// The caller sends it and then calls [`Self::delivered`] or [`Self::refused`].
    pub fn pop(&mut self, now: u64, pool: &mut Pool, sink: &mut impl Sink) -> Option<Slot> {
        self.advance(now, pool, sink);
        let line = self.line.front().map(|&(due, _)| due);
        let aside = self.aside.peek().map(|&Reverse((due, ..))| due);
        match (line, aside) {
            (Some(due), other) if due <= now && other.is_none_or(|other| due <= other) => {
                self.line.pop_front().map(|(_, slot)| slot)
            }
            (_, Some(due)) if due <= now => self.aside.pop().map(|Reverse((_, _, slot))| slot),
            _ => None,
        }
    }

    /// The earliest time at which something will happen by itself.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let line = self.line.front().map(|&(due, _)| due);
        let aside = self.aside.peek().map(|&Reverse((due, ..))| due);
        let service = self.in_service.map(|(done, _)| done);
        [line, aside, service].into_iter().flatten().min()
    }

    /// The frame in `slot` left at `now`; its buffer is recycled.
    pub fn delivered(&mut self, now: u64, slot: Slot, pool: &mut Pool, sink: &mut impl Sink) {
        let meta = pool.meta(slot);
        let late = now.saturating_sub(meta.due_ns);
        self.counters.lateness.add(late);
        self.counters.late += u64::from(late > self.tolerance_ns);
        self.counters.verdicts[Verdict::Delivered as usize] += 1;
        self.counters.delivered_octets += u64::from(meta.len);
        self.counters.marked += u64::from(meta.flags & MARKED != 0);
        sink.record(&Record::new(self.number, Verdict::Delivered, meta, now, self.tolerance_ns));
        pool.give(slot);
    }

    /// The port would not take the frame in `slot`; `verdict` says why.
    pub fn refused(&mut self, now: u64, slot: Slot, verdict: Verdict, pool: &mut Pool, sink: &mut impl Sink) {
        self.drop(now, slot, verdict, pool, sink);
    }

    /// Change the settings at `now`. No packet is lost by it: what waits moves to the new queue
    /// whatever its limit, what is under way keeps its due time, the rest of a packet being sent goes at the
    /// new rate. Impairments that stay the same keep their state, exact rules their counts.
    pub fn replace(&mut self, settings: Settings, now: u64, pool: &mut Pool, sink: &mut impl Sink) {
        self.advance(now, pool, sink);
        if settings == self.settings {
            return;
        }
        let old = std::mem::replace(&mut self.settings, settings);
        let new = &self.settings;
        let seed = new.seed.unwrap_or(self.link_seed);
        let same = old.seed == new.seed;
        for (class, kept) in self.deciders.iter_mut().enumerate() {
            let mut fresh = Deciders::new(new, seed, u64::from(self.number) * 2 + class as u64);
            if same && old.loss == new.loss {
                std::mem::swap(&mut fresh.loss, &mut kept.loss);
            }
            if same && old.duplicate == new.duplicate {
                std::mem::swap(&mut fresh.duplicate, &mut kept.duplicate);
            }
            if same && old.corrupt == new.corrupt {
                std::mem::swap(&mut fresh.corrupt, &mut kept.corrupt);
            }
            if same && old.reorder == new.reorder {
                std::mem::swap(&mut fresh.reorder, &mut kept.reorder);
            }
            if same && (old.delay_ns, &old.jitter) == (new.delay_ns, &new.jitter) {
                std::mem::swap(&mut fresh.delay, &mut kept.delay);
            }
            *kept = fresh;
        }
        if old.drop != new.drop {
            let mut exact = Exact::new(&new.drop);
            exact.inherit(std::mem::take(&mut self.exact));
            self.exact = exact;
        }
        let new_queue = old.queue != new.queue;
        let new_gate = (&old.rate, &old.trace) != (&new.rate, &new.trace);
        if new_queue {
            let mut queue = Queue::new(new.queue.as_ref(), hash_key(seed, self.number));
            while let Some(slot) = self.queue.evict(pool) {
                queue.adopt(slot, pool);
            }
            self.queue = queue;
        }
        if new_gate {
            let gate = Gate::new(new, now);
            let old_gate = std::mem::replace(&mut self.gate, gate);
            self.serve_anew(old_gate.as_ref(), now, pool, sink);
        }
    }

    /// Go on with the packet being sent, and those behind it, under a new gate.
    fn serve_anew(&mut self, old: Option<&Gate>, now: u64, pool: &mut Pool, sink: &mut impl Sink) {
        let Some((done, slot)) = self.in_service.take() else { return };
        match (&mut self.gate, old) {
            (None, _) => {
                self.launch(now, slot, pool, sink);
                while let Some(slot) = self.queue.evict(pool) {
                    self.launch(now, slot, pool, sink);
                }
            }
            (Some(Gate::Line(line)), Some(Gate::Line(old))) => {
                self.in_service = Some((now + line.rescale(old, done.saturating_sub(now)), slot));
            }
            (Some(gate), _) => self.in_service = Some((gate.serve(now, pool.meta(slot).len), slot)),
        }
    }

    /// The link ends at `now`: whatever waits or is under way is recorded as unfinished.
    pub fn abandon(&mut self, now: u64, pool: &mut Pool, sink: &mut impl Sink) {
        while let Some((_, slot)) = self.line.pop_front() {
            self.drop(now, slot, Verdict::Unfinished, pool, sink);
        }
        while let Some(Reverse((_, _, slot))) = self.aside.pop() {
            self.drop(now, slot, Verdict::Unfinished, pool, sink);
        }
        if let Some((_, slot)) = self.in_service.take() {
            self.drop(now, slot, Verdict::Unfinished, pool, sink);
        }
        while let Some(slot) = self.queue.evict(pool) {
            self.drop(now, slot, Verdict::Unfinished, pool, sink);
        }
    }

    /// Packets and octets waiting in the queue.
    #[must_use]
    pub fn backlog(&self) -> (u32, u64) {
        self.queue.backlog()
    }

    /// Packets on their way, those in the queue not counted.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.line.len() + self.aside.len() + usize::from(self.in_service.is_some())
    }

    /// Packets of flows that an exact rule had no room to count.
    #[must_use]
    pub const fn untracked(&self) -> u64 {
        self.exact.untracked
    }

    fn enqueue(&mut self, now: u64, slot: Slot, pool: &mut Pool, sink: &mut impl Sink) {
        if self.gate.is_none() {
            return self.launch(now, slot, pool, sink);
        }
        self.queue.push(now, slot, pool, &mut self.dropped);
        self.give_up(now, pool, sink);
        if self.in_service.is_none() {
            self.serve(now, pool, sink);
        }
        let (packets, octets) = self.queue.backlog();
        let peak = &mut self.counters.peak_backlog;
        *peak = (peak.0.max(packets), peak.1.max(octets));
    }

    /// Begin to send the next packet of the queue.
    fn serve(&mut self, now: u64, pool: &mut Pool, sink: &mut impl Sink) {
        let next = self.queue.pop(now, pool, &mut self.dropped);
        if let (Some(slot), Some(gate)) = (next, &mut self.gate) {
            self.in_service = Some((gate.serve(now, pool.meta(slot).len), slot));
        }
        self.give_up(now, pool, sink);
    }

    /// Let everything happen that happens inside up to `now`, each at its own time.
    #[inline]
    fn advance(&mut self, now: u64, pool: &mut Pool, sink: &mut impl Sink) {
        while let Some((done, slot)) = self.in_service {
            if done > now {
                break;
            }
            self.in_service = None;
            self.launch(done, slot, pool, sink);
            self.serve(done, pool, sink);
        }
    }

    /// A packet has left the rate at `now`: do to it what was decided, and put it on the line.
    #[inline]
    fn launch(&mut self, now: u64, slot: Slot, pool: &mut Pool, sink: &mut impl Sink) {
        let sentence = pool.meta(slot).sentence;
        if sentence == 0 {
            return self.travel(now, slot, pool, sink);
        }
        if sentence & DROP != 0 {
            return self.drop(now, slot, Verdict::Exact, pool, sink);
        }
        if sentence & LOSE != 0 {
            let marks = self.settings.loss.as_ref().is_some_and(|loss| loss.ecn);
            if !(marks && pool.mark(slot)) {
                return self.drop(now, slot, Verdict::Loss, pool, sink);
            }
        }
        let mut copy = None;
        if sentence & REPEAT != 0 && pool.free() >= RESERVE {
            copy = pool.duplicate(slot);
        }
        if sentence & DAMAGE != 0 {
            let Meta { index, digest, flags, .. } = *pool.meta(slot);
            let corrupt = &self.deciders[usize::from(flags & CHATTER != 0)].corrupt;
            if let Some(bit) = corrupt.damage(index, pool.frame_mut(slot), &digest) {
                let meta = pool.meta_mut(slot);
                meta.corrupt_bit = bit;
                meta.flags |= CORRUPTED;
                self.counters.corrupted += 1;
            }
        }
        if copy.is_some() {
            pool.meta_mut(slot).flags |= DUPLICATED;
            self.counters.duplicated += 1;
        }
        self.travel(now, slot, pool, sink);
        if let Some(copy) = copy {
            pool.meta_mut(copy).flags |= COPY;
            self.travel(now, copy, pool, sink);
        }
    }

    /// Put a packet on the line at `now`, to come out when it is due.
    #[inline]
    fn travel(&mut self, now: u64, slot: Slot, pool: &mut Pool, sink: &mut impl Sink) {
        if self.settings.limit.is_some_and(|limit| self.line.len() + self.aside.len() >= limit) {
            return self.drop(now, slot, Verdict::Queue, pool, sink);
        }
        let meta = pool.meta_mut(slot);
        let due = now.saturating_add(meta.due_ns);
        self.counters.reordered += u64::from(meta.flags & REORDERED != 0);
        let may_reorder = self.settings.jitter.as_ref().is_some_and(|jitter| jitter.reorders);
        if may_reorder || meta.flags & REORDERED != 0 {
            meta.due_ns = due;
            self.order += 1;
            self.aside.push(Reverse((due, self.order, slot)));
        } else {
            self.last_due = self.last_due.max(due);
            meta.due_ns = self.last_due;
            self.line.push_back((self.last_due, slot));
        }
    }

    fn give_up(&mut self, now: u64, pool: &mut Pool, sink: &mut impl Sink) {
        for at in 0..self.dropped.len() {
            let (slot, verdict) = self.dropped[at];
            self.drop(now, slot, verdict, pool, sink);
        }
        self.dropped.clear();
    }

    fn drop(&mut self, now: u64, slot: Slot, verdict: Verdict, pool: &mut Pool, sink: &mut impl Sink) {
        self.counters.verdicts[verdict as usize] += 1;
        sink.record(&Record::new(self.number, verdict, pool.meta(slot), now, self.tolerance_ns));
        pool.give(slot);
    }
}

fn hash_key(seed: u64, number: u8) -> u64 {
    Stream::new(seed, u64::from(number), Purpose::FlowHash).word(0)
}

#[cfg(test)]
mod tests;
