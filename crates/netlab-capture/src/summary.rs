//! What remains of a capture: totals, flows in order of their first frame, segment rows if kept.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::engine::Options;
use crate::flows::{Dir, DirStory, Flow, Story, UNTIMED};
use crate::packet::proto;
use crate::reader::{Interface, NO_TIME, Reader, Record};
use crate::segments::{Bin, Row};
use crate::shard::{Evicted, Shard};
use crate::tcp::Trouble;
use crate::tcp::histogram::Rtt;
use crate::wire::Counts;

/// Counts over the whole capture.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// "pcap", "nsecpcap", "pcapng".
    pub format: &'static str,
    /// "gzip", "zstd" or "".
    pub compression: &'static str,
    /// Sections of a pcapng.
    pub sections: u32,
    /// Interfaces described.
    pub interfaces: Vec<Interface>,
    /// Packets by interface.
    pub interface_packets: Vec<u64>,
    /// pcapng comments.
    pub comments: u64,
    /// Packets.
    pub packets: u64,
    /// Records that are no packets but have frame numbers.
    pub other_records: u64,
    /// Octets on the wire.
    pub bytes: u64,
    /// Octets captured.
    pub captured_bytes: u64,
    /// Earliest stamp, ns; 0 if no packet has one.
    pub first_ns: i64,
    /// Latest stamp, ns.
    pub last_ns: i64,
    /// Packets stamped earlier than the one before them.
    pub time_back: u64,
    /// Packets without a time stamp.
    pub untimed: u64,
    /// Packets of which less was captured than was on the wire.
    pub cut_packets: u64,
    /// Where a damaged record stands.
    pub damaged_at: Option<u64>,
    /// Where the readable part ends, if the file does not end there properly.
    pub truncated_at: Option<u64>,
    /// Sentences for the user.
    pub warnings: Vec<String>,
    /// What the decoder counted.
    pub counts: Counts,
    /// Flows evicted.
    pub evicted: Evicted,
    /// The newest stamp; [`UNTIMED`] before the first.
    previous: i64,
}

impl Totals {
    /// Nothing counted yet.
    pub(crate) fn new() -> Self {
        Self { previous: UNTIMED, ..Self::default() }
    }

    /// Account a record.
    #[inline(always)]
    pub(crate) fn packet(&mut self, record: &Record) {
        self.packets += 1;
        self.bytes += u64::from(record.original);
        self.captured_bytes += u64::from(record.captured);
        self.cut_packets += u64::from(record.captured < record.original);
        if record.ts < self.previous {
            self.stamp(record.ts);
        } else {
            // The usual order: the stamp moves on.
            self.last_ns = self.last_ns.max(record.ts);
            self.previous = record.ts;
        }
    }

    /// A stamp before the one before it, or the first, or none.
    #[cold]
    fn stamp(&mut self, ts: i64) {
        if ts == NO_TIME {
            self.untimed += 1;
            return;
        }
        if self.previous == UNTIMED {
            (self.first_ns, self.last_ns) = (ts, ts);
        } else {
            self.time_back += 1;
            self.first_ns = self.first_ns.min(ts);
        }
        self.previous = ts;
    }

    /// Earliest and latest stamp, ns, if a packet has one.
    pub fn times(&self) -> Option<(i64, i64)> {
        (self.packets > self.untimed).then_some((self.first_ns, self.last_ns))
    }

    /// Account so many packets to an interface.
    pub(crate) fn count_interface(&mut self, interface: u32, packets: u64) {
        let interface = interface as usize;
        if packets > 0 && self.interface_packets.len() <= interface {
            self.interface_packets.resize(interface + 1, 0);
        }
        if let Some(count) = self.interface_packets.get_mut(interface) {
            *count += packets;
        }
    }
}

/// A bin of a series: protocol, stream, start of the bin in ns, side (0 the originator), contents.
pub type BinRow = (u8, u32, i64, u8, Bin);

/// The answer.
#[derive(Debug)]
pub struct Summary {
    /// Capture totals.
    pub totals: Totals,
    shards: Vec<Shard>,
    /// (shard, slot) of each flow that has packets, by first frame.
    rows: Vec<(u32, u32)>,
    segments: Option<Vec<Row>>,
    bin_ns: Option<i64>,
}

/// One flow with all its parts, seen from its originator.
#[derive(Clone, Copy)]
pub struct FlowRef<'a> {
    shard: &'a Shard,
    /// The record.
    pub flow: &'a Flow,
    /// The seldom part.
    pub story: &'a Story,
}

impl<'a> FlowRef<'a> {
    fn index(self, side: usize) -> usize {
        usize::from(self.flow.originator) ^ side
    }

    /// Counters of a side: 0 the originator, 1 the responder.
    pub fn dir(self, side: usize) -> &'a Dir {
        &self.flow.dirs[self.index(side)]
    }

    /// Seldom part of a side.
    pub fn seldom(self, side: usize) -> &'a DirStory {
        &self.story.dirs[self.index(side)]
    }

    /// Window scale option of a side, if it sent one.
    pub fn scale(self, side: usize) -> u8 {
        self.seldom(side).scale
    }

    /// Anomalies of a side, if any.
    pub fn trouble(self, side: usize) -> Option<&'a Trouble> {
        self.shard.tcp.troubles.get((self.seldom(side).trouble as usize).wrapping_sub(1))
    }

    /// Octets a side sent: of frames, of IP datagrams, of payload.
    pub fn octets(self, side: usize) -> [u64; 3] {
        self.shard.tcp.octets_of(self.dir(side), self.seldom(side))
    }

    /// Largest payload a side sent.
    pub fn max_seg(self, side: usize) -> u32 {
        let long = self.trouble(side).map_or(0, |t| t.max_seg);
        long.max(self.dir(side).max_seg.into())
    }

    /// Packets a side sent with SYN, SYN and ACK, FIN, RST.
    pub fn controls(self, side: usize) -> [u32; 4] {
        let beyond = self.trouble(side).map_or([0; 4], |t| t.controls);
        std::array::from_fn(|i| u32::from(self.seldom(side).controls[i]).saturating_add(beyond[i]))
    }

    /// RTT statistics of a side's data; Karn's when asked.
    pub fn rtt(self, side: usize, karn: bool) -> Option<Rtt> {
        self.shard.tcp.rtts.get(self.dir(side).rtt, karn)
    }

    /// A quantile of the same, ns.
    pub fn quantile(self, side: usize, karn: bool, share: f64) -> Option<f64> {
        self.shard.tcp.rtts.quantile(self.dir(side).rtt, karn, share)
    }

    /// Earliest and latest time stamp, ns, if a packet has one.
    pub fn times(self) -> Option<(i64, i64)> {
        (self.story.first_ts != UNTIMED).then_some((self.story.first_ts, self.flow.last_ts))
    }

    /// Address of a side as text.
    pub fn address(self, side: usize) -> String {
        let words = if self.index(side) == 0 { self.flow.key.low } else { self.flow.key.high };
        if self.flow.key.version == 6 {
            Ipv6Addr::from(u128::from(words[0]) << 64 | u128::from(words[1])).to_string()
        } else {
            Ipv4Addr::from(words[0] as u32).to_string()
        }
    }

    /// Port of a side.
    pub fn port(self, side: usize) -> u16 {
        (if self.index(side) == 0 { self.flow.key.ports >> 16 } else { self.flow.key.ports & 0xffff }) as u16
    }

    /// The history as text: upper case by the originator.
    pub fn history(self) -> String {
        self.story
            .events(self.flow.letters)
            .map(|(letter, dir)| {
                let plain = crate::shard::LETTERS[letter];
                char::from(if dir == self.flow.originator { plain } else { plain.to_ascii_lowercase() })
            })
            .collect()
    }
}

impl Summary {
    pub(crate) fn new(
        reader: Reader,
        counts: Counts,
        mut totals: Totals,
        _frames: u64,
        mut shards: Vec<Shard>,
        options: &Options,
    ) -> Self {
        totals.format = reader.format().name();
        totals.sections = reader.sections();
        totals.interfaces = reader.interfaces().to_vec();
        totals.interface_packets.resize(totals.interfaces.len().max(totals.interface_packets.len()), 0);
        totals.comments = reader.comments();
        totals.counts = counts;
        // Number the streams, each protocol by itself, in order of creation over the file.
        let mut order: Vec<(u64, u32, u32)> = Vec::with_capacity(shards.iter().map(|s| s.table.len()).sum());
        for (index, shard) in shards.iter().enumerate() {
            order.extend(shard.table.slots().into_iter().map(|slot| {
                let story = &shard.table.stories[slot as usize];
                (story.first_frame << 8 | u64::from(story.layer), index as u32, slot)
            }));
            totals.evicted.flows += shard.evicted.flows;
            totals.evicted.packets += shard.evicted.packets;
            totals.evicted.bytes += shard.evicted.bytes;
        }
        // A few ascending runs, one per shard: what this sort is made for.
        order.sort();
        let online = options.keep.max_flows.is_some();
        let mut next = [0u32; 256];
        let mut rows = Vec::with_capacity(order.len());
        for (_, shard, slot) in order {
            let table = &mut shards[shard as usize].table;
            let flow = &table.flows[slot as usize];
            let story = &mut table.stories[slot as usize];
            if !(online && flow.key.proto == proto::TCP) {
                story.stream = next[usize::from(flow.key.proto)];
                next[usize::from(flow.key.proto)] += 1;
            }
            if flow.counted {
                rows.push((shard, slot));
            }
        }
        if totals.evicted.flows > 0 {
            totals.warnings.push(format!(
                "{} flows were forgotten to stay within the limit; they held {} packets",
                totals.evicted.flows, totals.evicted.packets
            ));
        }
        let segments = (options.keep.segments != crate::shard::Wanted::None).then(|| {
            let mut all = Vec::new();
            for shard in &mut shards {
                let mut mine = std::mem::take(&mut shard.store.rows);
                for row in &mut mine {
                    row.stream = shard.table.stories.get(row.slot as usize).map_or(u32::MAX, |s| s.stream);
                }
                all.append(&mut mine);
            }
            all.sort_by_key(|row| (row.frame, row.packet.layer));
            all
        });
        Self { totals, shards, rows, segments, bin_ns: options.keep.bin_ns }
    }

    /// Flows that have packets.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A flow by its place in the order of first frames.
    pub fn flow(&self, row: usize) -> Option<FlowRef<'_>> {
        let &(shard, slot) = self.rows.get(row)?;
        let shard = self.shards.get(shard as usize)?;
        let (flow, story) = (shard.table.flows.get(slot as usize)?, shard.table.stories.get(slot as usize)?);
        Some(FlowRef { shard, flow, story })
    }

    /// All flows in order.
    pub fn flows(&self) -> impl Iterator<Item = FlowRef<'_>> {
        (0..self.len()).filter_map(|row| self.flow(row))
    }

    /// The TCP flow with this stream number.
    pub fn tcp_stream(&self, stream: u32) -> Option<FlowRef<'_>> {
        self.flows().find(|f| f.flow.key.proto == proto::TCP && f.story.stream == stream)
    }

    /// Segment rows, when they were kept.
    pub fn segments(&self) -> Option<&[Row]> {
        self.segments.as_deref()
    }

    /// Series bins as (protocol, stream, bin start in ns, side, bin), when they were kept: ordered by
    /// stream, time, side.
    pub fn series(&self) -> Option<Vec<BinRow>> {
        let width = self.bin_ns?;
        let mut all = Vec::new();
        for shard in &self.shards {
            for (&(slot, bin, dir), value) in shard.series.iter().flat_map(|s| &s.bins) {
                let (Some(flow), Some(story)) =
                    (shard.table.flows.get(slot as usize), shard.table.stories.get(slot as usize))
                else {
                    continue;
                };
                let side = dir ^ flow.originator;
                all.push((flow.key.proto, story.stream, bin.saturating_mul(width), side, *value));
            }
        }
        all.sort_by_key(|&(proto, stream, at, side, _)| (proto, stream, at, side));
        Some(all)
    }

    /// Octets held: (flow records and index, seldom parts, pools).
    pub fn memory(&self) -> (usize, usize, usize) {
        let (mut flows, mut stories, mut pools) = (0, 0, 0);
        for shard in &self.shards {
            flows += shard.table.flows.len() * size_of::<Flow>();
            stories += shard.table.stories.len() * size_of::<Story>();
            pools += shard.tcp.rings.memory()
                + shard.tcp.rtts.memory()
                + shard.tcp.troubles.len() * size_of::<Trouble>();
        }
        (flows, stories, pools)
    }

    /// Originator side (0 low, 1 high) by TCP stream number, for turning segment rows.
    pub fn originators(&self) -> HashMap<u32, u8> {
        self.flows()
            .filter(|f| f.flow.key.proto == proto::TCP)
            .map(|f| (f.story.stream, f.flow.originator))
            .collect()
    }
}
