//! One share of the flows: finds the flow of each descriptor and advances it.
//!
//! Shards are independent of one another; each sees its descriptors in file order, so what it computes
//! does not depend on how many there are.

use netlab_mem::prefetch;

use crate::flows::{Flow, GROUP, NO_SLOT, Story, Table, UNTIMED, control, time_of};
use crate::packet::{Chunk, Extra, Packet, flag, mark, proto};
use crate::reader::NO_TIME;
use crate::segments::{Series, Store};
use crate::tcp::{Opening, Rules, Tcp, analysis};

/// What a shard keeps beside flows.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Segment rows: of no flow, of flows first seen at these (frame, layer), or of all.
    pub segments: Wanted,
    /// Width of series bins, ns.
    pub bin_ns: Option<i64>,
    /// Most flows alive.
    pub max_flows: Option<usize>,
}

/// Flows whose segments are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    #[default]
    None,
    /// These, by stream number: needs all flows in one shard.
    Streams(Vec<u32>),
    /// Those created by these (frame, layer).
    Created(Vec<(u64, u8)>),
    /// All.
    All,
}

/// Flows evicted because of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Flows.
    pub flows: u64,
    /// Their packets.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
}

/// Flow table and pools of one share.
#[derive(Debug)]
pub struct Shard {
    /// The flows.
    pub table: Table,
    /// TCP pools.
    pub tcp: Tcp,
    /// Segment rows, when wanted.
    pub store: Store,
    /// Series, when wanted.
    pub series: Option<Series>,
    /// Evictions.
    pub evicted: Evicted,
    keep: Keep,
    wanted: Vec<bool>,
    /// TCP streams so far; meaningful in the only shard.
    streams: u32,
}

/// Flows below which nothing is prefetched.
const SMALL: usize = 1024;

/// History letters by bit; lower case marks the responder.
pub const LETTERS: [u8; 8] = *b"SHADFRTW";

impl Shard {
    /// A shard that expects so many flows.
    pub fn new(expected: usize, rules: Rules, keep: Keep) -> Self {
        let expected = keep.max_flows.map_or(expected, |most| expected.min(most));
        Self {
            table: Table::new(expected),
            tcp: Tcp::new(rules, expected),
            store: Store::default(),
            series: keep.bin_ns.map(Series::new),
            evicted: Evicted::default(),
            keep,
            wanted: Vec::new(),
            streams: 0,
        }
    }

    /// Whether all flows fit in the caches.
    pub fn is_small(&self) -> bool {
        self.table.flows.len() < SMALL
    }

    /// Work on the packets of a chunk that fall to this shard: all, or those listed.
    pub fn process(&mut self, chunk: &Chunk, list: Option<&[u32]>) {
        let detail = self.keep.segments != Wanted::None || self.series.is_some();
        match (list, detail) {
            (None, false) => self.batches::<false>(chunk, chunk.packets.len(), |i| i),
            (None, true) => self.batches::<true>(chunk, chunk.packets.len(), |i| i),
            (Some(list), false) => self.batches::<false>(chunk, list.len(), |i| list[i] as usize),
            (Some(list), true) => self.batches::<true>(chunk, list.len(), |i| list[i] as usize),
        }
    }

    #[inline(always)]
    fn batches<const DETAIL: bool>(&mut self, chunk: &Chunk, count: usize, at: impl Fn(usize) -> usize) {
        let packet = |i: usize| chunk.packets.get(at(i));
        if self.is_small() {
            // Everything is in the cache already: asking for it would only cost instructions.
            let mut slot = NO_SLOT;
            for i in 0..count {
                if let Some(packet) = packet(i) {
                    let guess = if packet.marks & mark::SAME != 0 { slot } else { NO_SLOT };
                    slot = self.packet::<DETAIL>(chunk, packet, guess);
                }
            }
            return;
        }
        let mut guesses = [[NO_SLOT; GROUP]; 2];
        let index = |shard: &Self, start: usize| {
            for i in start..count.min(start + GROUP) {
                packet(i).inspect(|p| shard.table.prefetch_index(p.hash));
            }
        };
        let records = |shard: &Self, start: usize, guesses: &mut [u32; GROUP]| {
            for (i, guess) in (start..count).zip(guesses) {
                *guess = packet(i).map_or(NO_SLOT, |p| shard.table.guess(p));
            }
        };
        let mut generation = self.table.generation;
        index(self, 0);
        index(self, GROUP);
        records(self, 0, &mut guesses[0]);
        let (mut start, mut turn, mut slot) = (0, 0, NO_SLOT);
        while start < count {
            index(self, start + 2 * GROUP);
            let next = self.table.generation;
            records(self, start + GROUP, &mut guesses[1 - turn]);
            let current = guesses[turn];
            let end = count.min(start + GROUP);
            for (i, &guess) in (start..end).zip(&current) {
                packet(i).inspect(|p| self.prefetch_sides(p, guess));
            }
            for (i, &guess) in (start..end).zip(&current) {
                if let Some(packet) = packet(i) {
                    let guess = if generation == self.table.generation { guess } else { NO_SLOT };
                    let guess = if packet.marks & mark::SAME != 0 { slot } else { guess };
                    slot = self.packet::<DETAIL>(chunk, packet, guess);
                }
            }
            generation = next;
            turn = 1 - turn;
            start = end;
        }
    }

    /// Work on one packet; the slot of its flow, which `guess` may be.
    #[inline(always)]
    fn packet<const DETAIL: bool>(&mut self, chunk: &Chunk, packet: &Packet, guess: u32) -> u32 {
        let frame = chunk.first_frame + u64::from(packet.frame);
        // A packet like the one before it leads where that one led.
        let same = packet.marks & mark::SAME != 0;
        let known = self.table.flows.get(guess as usize).is_some_and(|flow| same || flow.key == packet.key);
        let slot = if known {
            guess as usize
        } else {
            match self.table.find(packet.hash, &packet.key) {
                Ok(slot) => slot,
                Err(at) => {
                    if packet.marks & (mark::QUOTED | mark::NO_LENGTH) == mark::QUOTED | mark::NO_LENGTH {
                        return NO_SLOT;
                    }
                    self.create(chunk, packet, Some(at))
                }
            }
        };
        if !DETAIL {
            let (flow, story) = (&mut self.table.flows[slot], &mut self.table.stories[slot]);
            if self.tcp.plain(flow, story, packet, frame) {
                return slot as u32;
            }
        }
        let extra = match packet.extra {
            0 => None,
            index => chunk.extras.get(index as usize - 1),
        };
        if packet.key.proto == proto::TCP {
            return self.tcp_packet::<DETAIL>(chunk, packet, extra, frame, slot) as u32;
        } else if packet.marks & mark::QUOTED != 0 {
            self.quoted(packet, extra, slot);
        } else {
            self.count(packet, frame, slot);
            let flow = &mut self.table.flows[slot];
            let dir = usize::from(packet.marks & mark::REVERSED);
            if flow.letters & 1 << (dir * 8 + 3) == 0 {
                flow.letter(&mut self.table.stories[slot], dir, 3);
            }
            if DETAIL {
                self.store_series(packet, slot, 0, 0);
            }
        }
        slot as u32
    }

    /// Account a packet to its flow.
    #[inline(always)]
    fn count(&mut self, packet: &Packet, frame: u64, slot: usize) {
        let dir = usize::from(packet.marks & mark::REVERSED);
        let flow = &mut self.table.flows[slot];
        flow.counted = true;
        flow.last_frame = frame;
        if packet.ts >= flow.last_ts {
            flow.last_ts = packet.ts;
        } else if packet.ts != NO_TIME {
            let first = &mut self.table.stories[slot].first_ts;
            *first = packet.ts.min(*first);
            if flow.last_ts == UNTIMED {
                flow.last_ts = packet.ts;
            }
        }
        let own = &mut flow.dirs[dir];
        own.packets = own.packets.saturating_add(1);
        own.data_packets += u32::from(packet.len > 0);
        let [bytes, ip_bytes, payload] = own.octets;
        let (bytes, first) = bytes.overflowing_add(packet.bytes);
        let (ip_bytes, second) = ip_bytes.overflowing_add(packet.ip_bytes);
        let (payload, third) = payload.overflowing_add(packet.len);
        own.octets = [bytes, ip_bytes, payload];
        own.max_seg = own.max_seg.max(packet.len.min(0xffff) as u16);
        if first | second | third | (packet.len > 0xffff) {
            let trouble = self.tcp.trouble(&mut self.table.stories[slot].dirs[dir].trouble);
            trouble.carry([first, second, third], packet.len);
        }
    }

    #[inline(always)]
    fn tcp_packet<const DETAIL: bool>(
        &mut self,
        chunk: &Chunk,
        packet: &Packet,
        extra: Option<&Extra>,
        frame: u64,
        mut slot: usize,
    ) -> usize {
        let dir = usize::from(packet.marks & mark::REVERSED);
        let mut reused = 0;
        if packet.flags & (flag::SYN | flag::FIN | flag::RST) != 0 {
            reused = self.edges(chunk, packet, &mut slot, dir);
        }
        if packet.marks & (mark::QUOTED | mark::BOGUS) != 0 {
            self.quoted(packet, extra, slot);
            return slot;
        }
        self.count(packet, frame, slot);
        let flow = &mut self.table.flows[slot];
        let story = &mut self.table.stories[slot];

        // tcp.completeness and the history: both change a few times in a flow's life.
        let data = packet.len > 0;
        let acks = packet.flags & flag::ACK != 0;
        let mut complete = if data && acks && packet.flags & flag::SYN == 0 { 8 } else { 0 };
        if acks {
            complete |= match packet.flags & (flag::SYN | flag::FIN) {
                0 if !data => 4,
                flag::SYN => 2,
                flag::FIN => 16 | if data { 0 } else { 4 },
                _ => 0,
            };
        }
        if packet.flags & flag::RST != 0 {
            complete |= 32;
        }
        if complete & !flow.completeness != 0 {
            // What opens a stream counts only if it is a SYN.
            let opens = story.first_frame == frame && story.layer == packet.layer;
            if !opens || packet.flags & (flag::SYN | flag::ACK) == flag::SYN {
                flow.completeness |= complete;
            }
        }
        let ctl = packet.flags & (flag::SYN | flag::FIN | flag::RST);
        let mut letters = u16::from(data) << 3 | u16::from(acks && !data && ctl == 0) << 2;
        if ctl != 0 {
            letters |=
                u16::from(ctl & flag::SYN != 0 && !acks) | u16::from(ctl & flag::SYN != 0 && acks) << 1;
            letters |= u16::from(ctl & flag::FIN != 0) << 4 | u16::from(ctl & flag::RST != 0) << 5;
        }
        let new = letters & !(flow.letters >> (dir * 8));
        if new != 0 {
            for bit in (0..6).filter(|bit| new >> bit & 1 != 0) {
                flow.letter(story, dir, bit);
            }
        }

        let mut verdict = self.tcp.analyse::<DETAIL>(flow, story, packet, extra, frame, slot);
        verdict.flags |= reused;
        if verdict.flags & (analysis::RETRANSMISSION | analysis::ZERO_WINDOW) != 0 {
            for (bit, of) in [(6, analysis::RETRANSMISSION), (7, analysis::ZERO_WINDOW)] {
                if verdict.flags & of != 0 && flow.letters >> (dir * 8 + bit) & 1 == 0 {
                    flow.letter(story, dir, bit);
                }
            }
        }
        if DETAIL {
            if self.keep.segments == Wanted::All || self.wanted.get(slot).copied().unwrap_or(false) {
                self.store.push(&self.table, slot, packet, extra, frame, &verdict);
            }
            self.store_series(packet, slot, verdict.flags, verdict.in_flight);
        }
        slot
    }

    fn store_series(&mut self, packet: &Packet, slot: usize, flags: u32, in_flight: u32) {
        if let Some(series) = &mut self.series {
            let window = match self.table.flows.get(slot) {
                Some(flow) => scaled_window(flow, packet),
                None => 0,
            };
            series.add(slot as u32, packet, flags, in_flight, window);
        }
    }

    /// SYN, FIN, RST: new streams on old ports, and the counts. Returns the flags of reused ports.
    #[cold]
    fn edges(&mut self, chunk: &Chunk, packet: &Packet, slot: &mut usize, dir: usize) -> u32 {
        let mut flags = 0;
        if packet.flags & flag::SYN != 0 {
            let (flow, story) = (&self.table.flows[*slot], &self.table.stories[*slot]);
            let opening = self.tcp.opening(flow, story, packet);
            let fresh = story.first_frame == chunk.first_frame + u64::from(packet.frame)
                && story.layer == packet.layer;
            match opening {
                Opening::Same => {
                    let own = &mut self.table.flows[*slot].dirs[dir];
                    let known = own.state & crate::tcp::state::BASE != 0;
                    if packet.flags & flag::ACK == 0 && known && packet.marks & mark::QUOTED == 0 {
                        own.next = own.reach;
                    }
                }
                Opening::Reused => {
                    *slot = self.create(chunk, packet, None);
                    self.table.stories[*slot].reused_ports = 1;
                    flags = analysis::REUSED_PORTS;
                }
                Opening::Renumbered => {
                    self.table.flows[*slot].dirs[dir].base = packet.seq;
                    let story = &mut self.table.stories[*slot];
                    story.reused_ports = story.reused_ports.saturating_add(1);
                    flags = analysis::REUSED_PORTS;
                }
            }
            if packet.flags & flag::ACK == 0 && (fresh || opening == Opening::Reused) {
                // Data on the SYN that opens the stream counts; on no other SYN.
                let data = packet.len > 0 && packet.marks & (mark::QUOTED | mark::BOGUS) == 0;
                self.table.flows[*slot].completeness |= if data { 9 } else { 1 };
            }
        }
        if packet.marks & (mark::QUOTED | mark::BOGUS) != 0 {
            return 0;
        }
        let (flow, story) = (&mut self.table.flows[*slot], &mut self.table.stories[*slot]);
        let own = &mut story.dirs[dir];
        match packet.flags & (flag::SYN | flag::ACK) {
            flag::SYN => {
                self.tcp.control(own, control::SYN);
                if !flow.decided {
                    flow.decided = true;
                    flow.originator = dir as u8;
                }
            }
            flag::ACK | 0 => {}
            _ => self.tcp.control(own, control::SYNACK),
        }
        if packet.flags & flag::FIN != 0 {
            self.tcp.control(own, control::FIN);
        }
        if packet.flags & flag::RST != 0 {
            self.tcp.control(own, control::RST);
        }
        flags
    }

    /// A new flow for `packet`, at an index position or in place of the one with the same key.
    #[cold]
    #[inline(never)]
    fn create(&mut self, chunk: &Chunk, packet: &Packet, at: Option<usize>) -> usize {
        if let Some(most) = self.keep.max_flows {
            if self.table.len() >= most.max(1) {
                self.evict(most.max(1));
                return self.create_now(chunk, packet, None);
            }
        }
        self.create_now(chunk, packet, at)
    }

    fn create_now(&mut self, chunk: &Chunk, packet: &Packet, at: Option<usize>) -> usize {
        let dir = usize::from(packet.marks & mark::REVERSED);
        let flow =
            Flow { key: packet.key, last_ts: time_of(packet), originator: dir as u8, ..Flow::default() };
        let mut story = Story::new(packet, chunk);
        let mut wanted = false;
        if packet.key.proto == proto::TCP {
            story.stream = self.streams;
            wanted = match &self.keep.segments {
                Wanted::None => false,
                Wanted::All => true,
                Wanted::Streams(list) => list.contains(&self.streams),
                Wanted::Created(list) => list.contains(&(story.first_frame, story.layer)),
            };
            self.streams += 1;
        }
        let slot = match at {
            Some(at) => self.table.insert(at, packet.hash, flow, story),
            None => match self.table.find(packet.hash, &packet.key) {
                Ok(_) => self.table.replace(packet.hash, &packet.key, flow, story),
                Err(at) => self.table.insert(at, packet.hash, flow, story),
            },
        };
        if let Some(details) = self.tcp.details.get_mut(slot) {
            *details = Default::default();
        }
        if wanted || slot < self.wanted.len() {
            self.wanted.resize(self.wanted.len().max(slot + 1), false);
            self.wanted[slot] = wanted;
        }
        slot
    }

    /// Make room: forget the quarter of the flows that have been idle longest (by frame, so that odd
    /// time stamps cannot choose). What they held is added up in `evicted`.
    #[cold]
    fn evict(&mut self, most: usize) {
        let used = self.table.slots();
        let mut ages: Vec<(u64, u32)> =
            used.iter().map(|&slot| (self.table.flows[slot as usize].last_frame, slot)).collect();
        let go = (most / 4).max(1).min(ages.len());
        ages.select_nth_unstable(go - 1);
        let mut leave = vec![false; self.table.flows.len()];
        for &(_, slot) in &ages[..go] {
            leave[slot as usize] = true;
            let flow = &self.table.flows[slot as usize];
            self.evicted.flows += 1;
            for (dir, seldom) in flow.dirs.iter().zip(&self.table.stories[slot as usize].dirs) {
                self.evicted.packets += u64::from(dir.packets);
                self.evicted.bytes += self.tcp.octets_of(dir, seldom)[0];
            }
            self.tcp.release(&self.table.flows[slot as usize], &self.table.stories[slot as usize]);
        }
        self.table.remove(|slot| leave[slot]);
    }

    /// An ICMP error about this flow's packet.
    #[cold]
    fn quoted(&mut self, packet: &Packet, extra: Option<&Extra>, slot: usize) {
        let (Some(extra), true) = (extra, packet.marks & mark::ICMP_ERROR != 0) else { return };
        let dir = usize::from(packet.marks & mark::REVERSED);
        let trouble = self.tcp.trouble(&mut self.table.stories[slot].dirs[dir].trouble);
        let big = if packet.marks & mark::V6 != 0 {
            extra.icmp_type == 2
        } else {
            extra.icmp_type == 3 && extra.icmp_code == 4
        };
        let unreachable =
            if packet.marks & mark::V6 != 0 { extra.icmp_type == 1 } else { extra.icmp_type == 3 };
        if big {
            trouble.icmp_frag_needed += 1;
            if extra.mtu > 0 && (trouble.mtu_hint == 0 || extra.mtu < trouble.mtu_hint) {
                trouble.mtu_hint = extra.mtu;
            }
        } else if unreachable {
            trouble.icmp_unreach += 1;
        }
    }

    /// Third pass: the record has arrived; ask for what hangs on it.
    #[inline(always)]
    fn prefetch_sides(&self, packet: &Packet, guess: u32) {
        let Some(flow) = self.table.flows.get(guess as usize) else { return };
        let dir = usize::from(packet.marks & mark::REVERSED);
        // Chosen, not branched on: in short flows either is as likely. The first story is always near.
        let opens = packet.flags & (flag::SYN | flag::FIN | flag::RST) != 0 || flow.dirs[dir].packets < 4;
        let story = if opens { guess as usize } else { 0 };
        prefetch(&self.table.stories, story, 0);
        prefetch(&self.table.stories, story, 1);
        self.tcp.rtts.prefetch(flow.dirs[1 - dir].rtt);
    }
}

/// The window of a packet in octets: scaled when both SYNs allow it and it is no SYN itself.
pub fn scaled_window(flow: &Flow, packet: &Packet) -> u32 {
    let dir = usize::from(packet.marks & mark::REVERSED);
    let scale = flow.dirs[dir].scale;
    let shift = if scale < 0 || packet.flags & flag::SYN != 0 { 0 } else { scale as u32 };
    u32::from(packet.window) << shift
}
