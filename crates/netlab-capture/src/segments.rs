//! Per-packet rows of chosen flows, and time series made of them.

use std::collections::BTreeMap;

use crate::flows::Table;
use crate::packet::{Extra, Packet, mark};
use crate::reader::NO_TIME;
use crate::tcp::{Verdict, analysis, state};

/// One analysed TCP packet, with the state it met.
#[derive(Clone, Debug)]
pub struct Row {
    /// Slot of its flow in the shard; the stream number once the run is over.
    pub stream: u32,
    /// Slot of its flow.
    pub slot: u32,
    /// Frame number, from 1.
    pub frame: u64,
    /// Sent by the higher endpoint.
    pub dir: u8,
    /// The descriptor.
    pub packet: Packet,
    /// Side facts, when there were any.
    pub extra: Option<Box<Extra>>,
    /// What was decided.
    pub verdict: Verdict,
    /// First sequence number of the sender, of the other side.
    pub base: [u32; 2],
    /// Initial RTT as known after this packet, ns; 0 = unset.
    pub initial_rtt: i64,
    /// tcp.completeness so far.
    pub completeness: u8,
    /// Window in octets.
    pub window: u32,
    /// Window scale in force for the sender: -1 unknown, -2 not used.
    pub scale: i8,
}

/// The rows of a shard, in file order.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// Rows.
    pub rows: Vec<Row>,
}

impl Store {
    pub(crate) fn push(
        &mut self,
        table: &Table,
        slot: usize,
        packet: &Packet,
        extra: Option<&Extra>,
        frame: u64,
        verdict: &Verdict,
    ) {
        let (flow, story) = (&table.flows[slot], &table.stories[slot]);
        let dir = usize::from(packet.marks & mark::REVERSED);
        let (own, other) = (&flow.dirs[dir], &flow.dirs[1 - dir]);
        // A base that was never learned makes relative numbers meaningless; raw ones then stand in.
        let base = |d: &crate::flows::Dir| if d.state & state::BASE == 0 { 0 } else { d.base };
        self.rows.push(Row {
            stream: slot as u32,
            slot: slot as u32,
            frame,
            dir: dir as u8,
            packet: *packet,
            extra: extra.map(|e| Box::new(*e)),
            verdict: *verdict,
            base: [base(own), base(other)],
            initial_rtt: flow.initial_rtt(story),
            completeness: flow.completeness,
            window: crate::shard::scaled_window(flow, packet),
            scale: own.scale,
        });
    }
}

/// What happened in one bin, one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// Packets.
    pub packets: u64,
    /// Octets of frames.
    pub bytes: u64,
    /// Octets of payload.
    pub payload: u64,
    /// Retransmissions of all kinds.
    pub retransmissions: u64,
    /// Duplicate acknowledgements.
    pub duplicate_acks: u64,
    /// Most octets in flight.
    pub flight_max: u32,
    /// Newest window, octets.
    pub window: u32,
    /// Smallest window, octets.
    pub window_min: u32,
}

/// Bins of all flows, keyed by (slot, bin number, direction).
#[derive(Clone, Debug)]
pub struct Series {
    /// Width of a bin, ns.
    pub width: i64,
    /// The bins.
    pub bins: BTreeMap<(u32, i64, u8), Bin>,
}

impl Series {
    /// Bins of `width` ns, counted from 1970.
    pub fn new(width: i64) -> Self {
        Self { width: width.max(1), bins: BTreeMap::new() }
    }

    /// Account a packet; one without a time falls into no bin.
    pub fn add(&mut self, slot: u32, packet: &Packet, flags: u32, in_flight: u32, window: u32) {
        if packet.ts == NO_TIME {
            return;
        }
        let key = (slot, packet.ts.div_euclid(self.width), (packet.marks & mark::REVERSED) as u8);
        let bin = self.bins.entry(key).or_insert(Bin { window_min: u32::MAX, ..Bin::default() });
        bin.packets += 1;
        bin.bytes += u64::from(packet.bytes);
        bin.payload += u64::from(packet.len);
        bin.retransmissions += u64::from(flags & analysis::RETRANSMISSION != 0);
        bin.duplicate_acks += u64::from(flags & analysis::DUPLICATE_ACK != 0);
        bin.flight_max = bin.flight_max.max(in_flight);
        bin.window = window;
        bin.window_min = bin.window_min.min(window);
    }
}
