//! The flow table: an open-addressing index over an array of records, made for batches.
//!
//! An index entry is one word: the upper half of the keyed hash and the slot number plus one. The
//! position of an entry is the top bits of the same hash half, so growing the index never touches a
//! record. Packets come in groups of 64 in overlapping passes: ask for the index lines of the group
//! after next, ask for the records of the next group, ask for the side records of this group, work on
//! it. By the time something is needed it is in the cache, whatever the number of flows.

use netlab_mem::{advise_huge, prefetch};

use crate::packet::{Chunk, Key, Origin, Packet, Tunnel};
use crate::reader::NO_TIME;

/// Packets per prefetch group.
pub const GROUP: usize = 64;

/// "The index had nothing under this hash."
pub const NO_SLOT: u32 = u32::MAX;

/// "No packet had a time stamp yet": later than any, so that the first one is noticed.
pub const UNTIMED: i64 = i64::MAX;

/// The time of a packet that creates a flow.
pub(crate) fn time_of(packet: &Packet) -> i64 {
    if packet.ts == NO_TIME { UNTIMED } else { packet.ts }
}

/// State of a flow that packets touch: four cache lines. With [`Story`], 344 octets per flow.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct Flow {
    /// Who talks.
    pub key: Key,
    /// Latest time stamp seen, ns; [`UNTIMED`] until a packet has one.
    pub last_ts: i64,
    /// Frame number of the newest packet.
    pub last_frame: u64,
    /// Events already in the history: two sets of eight bits.
    pub letters: u16,
    /// tcp.completeness bits.
    pub completeness: u8,
    /// Direction (0 low, 1 high) of the originator.
    pub originator: u8,
    /// A SYN decided the originator.
    pub decided: bool,
    /// At least one packet was counted (a flow known only from a quotation has none).
    pub counted: bool,
    /// The initial RTT is unset and a SYN was seen.
    pub initial_pending: bool,
    /// Which handshake times are known, bits of [`known`].
    pub known: u8,
    /// Per direction, indexed by sender: 0 the lower endpoint, 1 the higher.
    pub dirs: [Dir; 2],
}

/// Bits of [`Flow::known`]: what the slots of a [`Story`] that hold first a time, then an interval, hold.
pub mod known {
    /// The initial RTT.
    pub const INITIAL: u8 = 1;
    /// The time of the first SYN+ACK, or what became of it.
    pub const ANSWERED: u8 = 2;
    /// From the first SYN to the first SYN+ACK.
    pub const TO_SYNACK: u8 = 4;
    /// From there to the ACK.
    pub const TO_ACK: u8 = 8;
}

/// Bits of [`Dir::held`].
pub mod held {
    /// `one_end` is the handle of a list of unacknowledged segments.
    pub const RING: u8 = 1;
    /// There are holes: `Trouble::ranges` is the handle of the octets seen.
    pub const HOLES: u8 = 2;
}

/// One direction: first the line both directions' packets read, then the sender's own counters.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Dir {
    /// Highest end of segment seen; 0 = unset.
    pub next: u32,
    /// Contiguous end: the highest that can be acknowledged without a hole; 0 = unset.
    pub reach: u32,
    /// Last acknowledgement number sent.
    pub ack: u32,
    /// Duplicate acknowledgement counter; all ones after rule 11.
    pub dup: u32,
    /// When `next` last moved, ns.
    pub next_time: i64,
    /// Time of the newest packet of this sender, ns.
    pub ack_time: i64,
    /// The only unacknowledged segment, when `state` says there is one.
    pub one_seq: u32,
    /// Its end; or the handle of the list, when `held` says there are several.
    pub one_end: u32,
    /// Its time.
    pub one_time: i64,
    /// First sequence number.
    pub base: u32,
    /// Raw window; see [`Dir::window`].
    pub last_window: u16,
    /// Bits of [`crate::tcp::state`].
    pub state: u16,
    /// Window scale: -1 unknown, -2 not used.
    pub scale: i8,
    /// Bits of [`held`].
    pub held: u8,
    /// Largest payload; longer ones are in [`crate::tcp::Trouble`].
    pub max_seg: u16,
    /// Packets sent.
    pub packets: u32,
    /// Packets with payload.
    pub data_packets: u32,
    /// Octets of frames, of IP datagrams, of payload: low 32 bits, the rest is in
    /// [`crate::tcp::Trouble`].
    pub octets: [u32; 3],
    /// Largest window offered, scaled.
    pub window_max: u32,
    /// Smallest window offered, scaled.
    pub window_min: u32,
    /// Most octets in flight (rule 17).
    pub flight_max: u32,
    /// Handle of RTT statistics of this sender's data; 0 = none yet.
    pub rtt: u32,
}

impl Dir {
    /// Raw window of the newest packet; all ones before the first.
    #[inline(always)]
    pub fn window(&self) -> u32 {
        if self.state & crate::tcp::state::WINDOW == 0 { u32::MAX } else { self.last_window.into() }
    }
}

impl Default for Dir {
    fn default() -> Self {
        Self {
            next: 0,
            reach: 0,
            ack: 0,
            dup: 0,
            next_time: 0,
            ack_time: 0,
            one_seq: 0,
            one_end: 0,
            one_time: 0,
            base: 0,
            last_window: 0,
            state: crate::tcp::state::IN_FLIGHT_VALID,
            scale: -1,
            held: 0,
            max_seg: 0,
            packets: 0,
            data_packets: 0,
            octets: [0; 3],
            window_max: 0,
            window_min: u32::MAX,
            flight_max: 0,
            rtt: 0,
        }
    }
}

const _: () = assert!(size_of::<Flow>() == 256 && size_of::<Dir>() == 96);

/// What is written once, or seldom: identity, handshake, close.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Frame that created the flow.
    pub first_frame: u64,
    /// Earliest time stamp, ns; [`UNTIMED`] until a packet has one.
    pub first_ts: i64,
    /// Time of the most recent SYN without ACK; once [`known::INITIAL`], the initial RTT.
    pub(crate) initial: i64,
    /// Time of the first SYN, of the first SYN+ACK (`i64::MIN` = none); once known, the time from the
    /// first SYN to the first SYN+ACK, from there to the ACK.
    pub(crate) handshake: [i64; 2],
    /// Events in order of first appearance, newest in the lowest four bits: 8, then the number of the
    /// letter; see [`Story::note`].
    history: u64,
    /// Position in its frame of the header that created the flow.
    pub layer: u8,
    /// Interface of the first packet.
    pub interface: u16,
    /// Stream number; assigned at the end, or at once when asked for.
    pub stream: u32,
    /// Identifier of the tunnel of the first packet.
    tunnel_id: u32,
    /// VLAN of the first packet.
    vlan: u16,
    /// Tunnel of the first packet.
    tunnel: Tunnel,
    /// Packets with an initial number other than stored.
    pub reused_ports: u16,
    /// Per direction.
    pub dirs: [DirStory; 2],
}

/// The seldom part of one direction.
#[derive(Clone, Debug, Default)]
pub struct DirStory {
    /// Handle of [`crate::tcp::Trouble`]; 0 = nothing happened.
    pub trouble: u32,
    /// MSS option.
    pub mss: u16,
    /// Options seen, the lower bits of [`crate::packet::option`]; time stamps are a bit of the state.
    pub options: u8,
    /// Window scale sent; meaningful where the options have one.
    pub scale: u8,
    /// Sent, by [`control`]; what goes beyond 255 is in [`crate::tcp::Trouble`].
    pub controls: [u8; 4],
}

/// Indices of [`DirStory::controls`].
pub mod control {
    /// SYN without ACK.
    pub const SYN: usize = 0;
    /// SYN+ACK.
    pub const SYNACK: usize = 1;
    /// FIN.
    pub const FIN: usize = 2;
    /// RST.
    pub const RST: usize = 3;
}

const _: () = assert!(size_of::<Flow>() + size_of::<Story>() <= 350);

impl Story {
    pub(crate) fn new(packet: &Packet, chunk: &Chunk) -> Self {
        let Origin { vlan, tunnel, tunnel_id } = origin(packet, chunk);
        Self {
            first_frame: chunk.first_frame + u64::from(packet.frame),
            first_ts: time_of(packet),
            handshake: [i64::MIN; 2],
            stream: u32::MAX,
            interface: packet.interface,
            layer: packet.layer,
            vlan,
            tunnel,
            tunnel_id,
            ..Self::default()
        }
    }

    /// Append an event: the number of its letter (0 to 7) and the direction.
    pub(crate) fn note(&mut self, letter: usize, dir: usize) {
        self.history = self.history << 4 | (dir as u64) << 3 | letter as u64;
    }

    /// VLAN and tunnel of the first packet.
    pub fn origin(&self) -> Origin {
        Origin { vlan: self.vlan, tunnel: self.tunnel, tunnel_id: self.tunnel_id }
    }

    /// The events in order: number of the letter, direction. `letters` as in the flow.
    pub fn events(&self, letters: u16) -> impl Iterator<Item = (usize, u8)> + '_ {
        (0..letters.count_ones()).rev().map(|back| {
            let event = self.history >> (back * 4) & 15;
            ((event & 7) as usize, (event >> 3) as u8)
        })
    }
}

impl Flow {
    /// Note an event in the history, once per direction.
    #[cold]
    pub(crate) fn letter(&mut self, story: &mut Story, dir: usize, bit: usize) {
        self.letters |= 1 << (dir * 8 + bit);
        story.note(bit, dir);
    }

    /// Initial RTT, ns; 0 = unset.
    pub fn initial_rtt(&self, story: &Story) -> i64 {
        if self.known & known::INITIAL == 0 { 0 } else { story.initial }
    }

    /// SYN to SYN+ACK, SYN+ACK to ACK; `i64::MIN` = unknown.
    pub fn handshake_rtt(&self, story: &Story) -> [i64; 2] {
        let [to_synack, to_ack] = story.handshake;
        let pick = |bit: u8, ns: i64| if self.known & bit == 0 { i64::MIN } else { ns };
        [pick(known::TO_SYNACK, to_synack), pick(known::TO_ACK, to_ack)]
    }
}

pub(crate) fn origin(packet: &Packet, chunk: &Chunk) -> Origin {
    chunk.origins.get((packet.origin as usize).wrapping_sub(1)).copied().unwrap_or_default()
}

/// The table of one shard.
#[derive(Debug)]
pub struct Table {
    index: Vec<u64>,
    /// 64 - log2 of the index size.
    shift: u32,
    used: usize,
    /// Records; a slot number is an index into this.
    pub flows: Vec<Flow>,
    /// Seldom parts, same slots.
    pub stories: Vec<Story>,
    free: Vec<u32>,
    /// Changes whenever a key begins to mean another slot: guesses made before are then worthless.
    pub generation: u32,
}

impl Table {
    /// A table that expects so many flows (a hint; it grows).
    pub fn new(expected: usize) -> Self {
        let entries = expected.clamp(1024, 1 << 22).next_power_of_two();
        let table = Self {
            index: vec![0; entries],
            shift: 64 - entries.trailing_zeros(),
            used: 0,
            flows: Vec::with_capacity(expected.clamp(64, 1 << 21)),
            stories: Vec::with_capacity(expected.clamp(64, 1 << 21)),
            free: Vec::new(),
            generation: 0,
        };
        advise_huge(&table.index);
        advise_huge(&table.flows);
        advise_huge(&table.stories);
        table
    }

    /// Flows alive.
    pub fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// First pass: ask for the index line of a hash.
    #[inline(always)]
    pub fn prefetch_index(&self, hash: u64) {
        prefetch(&self.index, (hash >> self.shift) as usize, 0);
    }

    /// Second pass: ask for the record the index probably means; its slot, or [`NO_SLOT`].
    #[inline(always)]
    pub fn guess(&self, packet: &Packet) -> u32 {
        let mut at = (packet.hash >> self.shift) as usize;
        loop {
            let entry = self.index.get(at).copied().unwrap_or(0);
            if entry == 0 {
                return NO_SLOT;
            }
            if (entry ^ packet.hash) >> 32 == 0 {
                let slot = entry as u32 - 1;
                for line in 0..size_of::<Flow>() / 64 {
                    prefetch(&self.flows, slot as usize, line);
                }
                return slot;
            }
            at = (at + 1) & (self.index.len() - 1);
        }
    }

    /// The slot of a key, or the index position where it would go.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &Key) -> Result<usize, usize> {
        let mask = self.index.len() - 1;
        let mut at = (hash >> self.shift) as usize & mask;
        loop {
            let entry = self.index[at];
            if entry == 0 {
                return Err(at);
            }
            if (entry ^ hash) >> 32 == 0 {
                let slot = (entry as u32 - 1) as usize;
                if self.flows.get(slot).is_some_and(|flow| flow.key == *key) {
                    return Ok(slot);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Add a flow at the position `find` gave.
    #[cold]
    #[inline(never)]
    pub fn insert(&mut self, mut at: usize, hash: u64, flow: Flow, story: Story) -> usize {
        if (self.used + 1) * 2 > self.index.len() {
            self.grow();
            let mask = self.index.len() - 1;
            at = (hash >> self.shift) as usize & mask;
            while self.index[at] != 0 {
                at = (at + 1) & mask;
            }
        }
        let slot = self.place(flow, story);
        self.index[at] = hash & 0xffff_ffff_0000_0000 | (slot as u64 + 1);
        self.used += 1;
        slot
    }

    /// Put a new flow in place of the one its key leads to; the old record stays as a finished row.
    #[cold]
    pub fn replace(&mut self, hash: u64, key: &Key, flow: Flow, story: Story) -> usize {
        self.generation = self.generation.wrapping_add(1);
        let mask = self.index.len() - 1;
        let mut at = (hash >> self.shift) as usize & mask;
        let slot = self.place(flow, story);
        loop {
            let entry = self.index[at];
            let old = (entry as u32).wrapping_sub(1) as usize;
            if entry == 0
                || (entry ^ hash) >> 32 == 0 && self.flows.get(old).is_some_and(|flow| flow.key == *key)
            {
                self.used += usize::from(entry == 0);
                self.index[at] = hash & 0xffff_ffff_0000_0000 | (slot as u64 + 1);
                return slot;
            }
            at = (at + 1) & mask;
        }
    }

    fn place(&mut self, flow: Flow, story: Story) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.flows[slot as usize] = flow;
                self.stories[slot as usize] = story;
                slot as usize
            }
            None => {
                self.flows.push(flow);
                self.stories.push(story);
                self.flows.len() - 1
            }
        }
    }

    fn grow(&mut self) {
        let entries = self.index.len() * 2;
        let old = std::mem::replace(&mut self.index, vec![0; entries]);
        self.shift -= 1;
        advise_huge(&self.index);
        for entry in old.into_iter().filter(|&entry| entry != 0) {
            self.link(entry);
        }
    }

    fn link(&mut self, entry: u64) {
        let mask = self.index.len() - 1;
        let mut at = (entry >> self.shift) as usize & mask;
        while self.index[at] != 0 {
            at = (at + 1) & mask;
        }
        self.index[at] = entry;
    }

    /// Forget the flows for which `gone` holds; their slots are used again.
    pub fn remove(&mut self, mut gone: impl FnMut(usize) -> bool) {
        self.generation = self.generation.wrapping_add(1);
        let entries = self.index.len();
        let old = std::mem::replace(&mut self.index, vec![0; entries]);
        let dead: std::collections::HashSet<u32> = self.free.iter().copied().collect();
        let mut removed = vec![false; self.flows.len()];
        for (slot, removed) in removed.iter_mut().enumerate() {
            if !dead.contains(&(slot as u32)) && gone(slot) {
                *removed = true;
                self.free.push(slot as u32);
            }
        }
        self.used = 0;
        for entry in old.into_iter().filter(|&entry| entry != 0) {
            if !removed[(entry as u32 - 1) as usize] {
                self.link(entry);
                self.used += 1;
            }
        }
    }

    /// Slots in use.
    pub fn slots(&self) -> Vec<u32> {
        let mut used = vec![true; self.flows.len()];
        for &slot in &self.free {
            used[slot as usize] = false;
        }
        (0..self.flows.len() as u32).filter(|&slot| used[slot as usize]).collect()
    }
}
