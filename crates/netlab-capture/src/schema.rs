//! The columns of the tables: name, type, unit, meaning, source, and how each is read.
//!
//! Names follow tshark where the meaning is the same, Zeek for endpoints and counts. `orig` is the
//! sender of the SYN, or of the first packet where there was none; `resp` the other side.

use crate::packet::{Extra, Tunnel, mark, option, proto};
use crate::reader::NO_TIME;
use crate::segments::Row;
use crate::summary::{BinRow, FlowRef, Summary};
use crate::table::{Column, Field, Kind, Value};
use crate::tcp::{Trouble, analysis, is_dsack};

/// A column of the flow table.
type OfFlow = (&'static str, Kind, &'static str, &'static str, &'static str, fn(&FlowRef<'_>) -> Value);
/// A pair of columns of the flow table: one for the originator, one for the responder.
type OfSide =
    (&'static str, Kind, &'static str, &'static str, &'static str, fn(&FlowRef<'_>, usize) -> Value);

fn u(value: impl Into<u64>) -> Value {
    Value::U64(value.into())
}

fn known(value: Option<u64>) -> Value {
    value.map_or(Value::Null, Value::U64)
}

fn real(value: Option<f64>) -> Value {
    value.map_or(Value::Null, Value::F64)
}

fn tcp(flow: &FlowRef<'_>, value: Value) -> Value {
    if flow.flow.key.proto == proto::TCP { value } else { Value::Null }
}

fn anomaly(flow: &FlowRef<'_>, side: usize, of: fn(&Trouble) -> u64) -> Value {
    tcp(flow, Value::U64(flow.trouble(side).map_or(0, of)))
}

fn flagged(flow: &FlowRef<'_>, side: usize, flag: u32) -> Value {
    let count = flow.trouble(side).map_or(0, |t| t.counts[flag.trailing_zeros() as usize]);
    tcp(flow, u(count))
}

fn has(flow: &FlowRef<'_>, side: usize, bit: u16) -> Value {
    tcp(flow, Value::Bool(u16::from(flow.seldom(side).options) & bit != 0))
}

fn sampled(flow: &FlowRef<'_>, side: usize, karn: bool, share: f64) -> Value {
    real(flow.quantile(side, karn, share))
}

fn exact(flow: &FlowRef<'_>, side: usize, karn: bool, of: fn(crate::tcp::histogram::Rtt) -> f64) -> Value {
    real(flow.rtt(side, karn).filter(|r| r.count > 0).map(of))
}

/// Seconds between the first and the last packet; `None` when that is no time.
fn seconds(flow: &FlowRef<'_>) -> Option<f64> {
    let (first, last) = flow.times()?;
    let span = last.saturating_sub(first);
    (span > 0).then_some(span as f64 / 1e9)
}

/// Name of an IP protocol.
pub fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "tcp".into(),
        proto::UDP => "udp".into(),
        proto::ICMP => "icmp".into(),
        proto::ICMPV6 => "icmpv6".into(),
        proto::SCTP => "sctp".into(),
        proto::DCCP => "dccp".into(),
        proto::UDPLITE => "udplite".into(),
        2 => "igmp".into(),
        4 => "ipip".into(),
        41 => "ipv6".into(),
        47 => "gre".into(),
        50 => "esp".into(),
        51 => "ah".into(),
        89 => "ospf".into(),
        103 => "pim".into(),
        112 => "vrrp".into(),
        other => format!("ip-{other}"),
    }
}

/// Packets of a side that open or close.
struct Controls {
    syn: u32,
    synack: u32,
    fin: u32,
    rst: u32,
}

/// Zeek's connection state, from the packets of both sides.
fn conn_state(flow: &FlowRef<'_>) -> &'static str {
    let controls = |side: usize| {
        let [syn, synack, fin, rst] = flow.controls(side);
        Controls { syn, synack, fin, rst }
    };
    let (o, r) = (controls(0), controls(1));
    let (sent, answered) = (flow.dir(0), flow.dir(1));
    if flow.flow.key.proto != proto::TCP {
        return if answered.packets > 0 { "SF" } else { "S0" };
    }
    let established = r.synack > 0 && (o.syn > 0) && sent.packets > o.syn;
    if o.syn == 0 && o.synack == 0 && r.synack == 0 && r.syn == 0 {
        return "OTH";
    }
    if o.syn > 0 && answered.packets == 0 {
        return if o.rst > 0 {
            "RSTOS0"
        } else if o.fin > 0 {
            "SH"
        } else {
            "S0"
        };
    }
    if o.syn == 0 && r.synack > 0 {
        return if r.rst > 0 {
            "RSTRH"
        } else if r.fin > 0 {
            "SHR"
        } else {
            "OTH"
        };
    }
    if r.synack == 0 && r.rst > 0 {
        return "REJ";
    }
    if o.rst > 0 && (r.rst == 0 || closer(flow) == "orig_rst") {
        return "RSTO";
    }
    if r.rst > 0 {
        return "RSTR";
    }
    match (o.fin > 0, r.fin > 0) {
        (true, true) => "SF",
        (true, false) => "S2",
        (false, true) => "S3",
        (false, false) if established => "S1",
        (false, false) => "OTH",
    }
}

/// Who ended it first, and how.
fn closer(flow: &FlowRef<'_>) -> &'static str {
    for letter in flow.history().chars() {
        match letter {
            'F' => return "orig_fin",
            'f' => return "resp_fin",
            'R' => return "orig_rst",
            'r' => return "resp_rst",
            _ => {}
        }
    }
    ""
}

/// Which side the capture was taken near: at the responder, the SYN+ACK follows the SYN at once and the
/// ACK comes a round trip later; at the originator it is the other way round.
fn capture_side(flow: &FlowRef<'_>) -> Value {
    let [to_synack, to_ack] = flow.flow.handshake_rtt(flow.story);
    if to_synack < 0 || to_ack < 0 {
        return Value::Null;
    }
    let name = if to_ack.saturating_mul(4) < to_synack {
        "orig"
    } else if to_synack.saturating_mul(4) < to_ack {
        "resp"
    } else {
        "middle"
    };
    Value::Text(name.into())
}

/// A time that may be negative; `unset` stands for none.
fn signed(value: i64, unset: i64) -> Value {
    if value == unset { Value::Null } else { Value::I64(value) }
}

use Kind::{Bool, F64, I64, List, Text, U64};

#[rustfmt::skip]
const FLOW: &[OfFlow] = &[
    ("stream", U64, "", "number of the flow among those of its protocol, in order of creation", "tcp.stream, udp.stream", |f| u(f.story.stream)),
    ("proto", Text, "", "transport protocol", "IANA protocol numbers", |f| Value::Text(protocol(f.flow.key.proto))),
    ("orig_h", Text, "", "address of the originator", "Zeek conn.log", |f| Value::Text(f.address(0))),
    ("orig_p", U64, "", "port of the originator; identifier of an ICMP echo", "Zeek conn.log", |f| u(f.port(0))),
    ("resp_h", Text, "", "address of the responder", "Zeek conn.log", |f| Value::Text(f.address(1))),
    ("resp_p", U64, "", "port of the responder; identifier of an ICMP echo", "Zeek conn.log", |f| u(f.port(1))),
    ("ip_version", U64, "", "4 or 6", "ip.version", |f| u(f.flow.key.version)),
    ("vlan", U64, "", "outermost VLAN identifier of the first packet", "vlan.id", |f| known((f.story.origin().vlan > 0).then(|| u64::from(f.story.origin().vlan) - 1))),
    ("tunnel", Text, "", "innermost tunnel around the first packet", "", |f| if f.story.origin().tunnel == Tunnel::None { Value::Null } else { Value::Text(f.story.origin().tunnel.name().into()) }),
    ("tunnel_id", U64, "", "its identifier: VNI, TEID, key, label or session", "", |f| if f.story.origin().tunnel == Tunnel::None { Value::Null } else { u(f.story.origin().tunnel_id) }),
    ("interface", U64, "", "interface of the first packet, over all sections", "frame.interface_id", |f| u(f.story.interface)),
    ("first_frame", U64, "", "frame number of the first packet", "frame.number", |f| u(f.story.first_frame)),
    ("last_frame", U64, "", "frame number of the last packet", "frame.number", |f| u(f.flow.last_frame)),
    ("ts", I64, "ns", "earliest time stamp, since 1970; absent if no packet has one", "frame.time_epoch", |f| f.times().map_or(Value::Null, |(first, _)| Value::I64(first))),
    ("duration", I64, "ns", "latest minus earliest time stamp; absent if no packet has one", "tshark conv", |f| f.times().map_or(Value::Null, |(first, last)| Value::I64(last.saturating_sub(first)))),
    ("conn_state", Text, "", "how far the connection got and how it ended", "Zeek conn.log", |f| Value::Text(conn_state(f).into())),
    ("completeness", U64, "bits", "1 SYN, 2 SYN+ACK, 4 ACK, 8 data, 16 FIN, 32 RST", "tcp.completeness", |f| tcp(f, u(f.flow.completeness))),
    ("history", Text, "", "first occurrence of S, H (SYN+ACK), A, D(ata), F, R, T (retransmission), W (zero window); lower case by the responder", "Zeek conn.log", |f| Value::Text(f.history())),
    ("closed_by", Text, "", "orig_fin, resp_fin, orig_rst or resp_rst: the first of these seen", "", |f| { let by = closer(f); if by.is_empty() { Value::Null } else { Value::Text(by.into()) } }),
    ("initial_rtt", I64, "ns", "latest SYN to the first ACK without SYN", "tcp.analysis.initial_rtt", |f| signed(f.flow.initial_rtt(f.story), 0)),
    ("syn_rtt", I64, "ns", "first SYN to first SYN+ACK", "", |f| signed(f.flow.handshake_rtt(f.story)[0], i64::MIN)),
    ("ack_rtt3", I64, "ns", "first SYN+ACK to the ACK of the originator", "", |f| signed(f.flow.handshake_rtt(f.story)[1], i64::MIN)),
    ("syn_retries", U64, "packets", "SYNs beyond the first, both sides", "", |f| tcp(f, u(f.controls(0)[0].saturating_sub(1) + f.controls(1)[0].saturating_sub(u32::from(f.controls(0)[0] == 0))))),
    ("reused_ports", U64, "packets", "SYNs with an initial number other than the stored one", "tcp.analysis.reused_ports", |f| tcp(f, u(f.story.reused_ports))),
    ("capture_side", Text, "", "estimate of where the capture was taken: orig, resp or middle", "handshake timing", capture_side),
];

#[rustfmt::skip]
const SIDE: &[OfSide] = &[
    ("pkts", U64, "packets", "packets sent", "tshark conv", |f, s| u(f.dir(s).packets)),
    ("bytes", U64, "octets", "frame octets sent, link header included", "tshark conv", |f, s| u(f.octets(s)[0])),
    ("ip_bytes", U64, "octets", "IP octets sent", "Zeek orig_ip_bytes", |f, s| u(f.octets(s)[1])),
    ("payload_bytes", U64, "octets", "transport payload sent, repetitions included", "tcp.len", |f, s| u(f.octets(s)[2])),
    ("unique_bytes", U64, "octets", "payload without octets seen before", "tcptrace unique bytes", |f, s| {
        let again = f.trouble(s).map_or(0, |t| t.retrans_payload);
        u(f.octets(s)[2].saturating_sub(again))
    }),
    ("data_pkts", U64, "packets", "packets with payload", "tcptrace actual data pkts", |f, s| u(f.dir(s).data_packets)),
    ("max_seg", U64, "octets", "largest payload of one packet", "tcptrace max segm size", |f, s| u(f.max_seg(s))),
    ("pps", F64, "packets/s", "packets over the duration of the flow", "", |f, s| real(seconds(f).map(|t| f64::from(f.dir(s).packets) / t))),
    ("throughput_bps", F64, "bit/s", "frame octets times 8 over the duration of the flow", "", |f, s| real(seconds(f).map(|t| f.octets(s)[0] as f64 * 8.0 / t))),
    ("syn", U64, "packets", "SYNs without ACK", "", |f, s| tcp(f, u(f.controls(s)[0]))),
    ("synack", U64, "packets", "SYNs with ACK", "", |f, s| tcp(f, u(f.controls(s)[1]))),
    ("fin", U64, "packets", "FINs", "", |f, s| tcp(f, u(f.controls(s)[2]))),
    ("rst", U64, "packets", "RSTs", "", |f, s| tcp(f, u(f.controls(s)[3]))),
    ("retransmission", U64, "packets", "retransmissions of all kinds", "tcp.analysis.retransmission", |f, s| flagged(f, s, analysis::RETRANSMISSION)),
    ("fast_retransmission", U64, "packets", "of these: after two duplicate ACKs within 20 ms", "tcp.analysis.fast_retransmission", |f, s| flagged(f, s, analysis::FAST_RETRANSMISSION)),
    ("spurious_retransmission", U64, "packets", "of these: already acknowledged", "tcp.analysis.spurious_retransmission", |f, s| flagged(f, s, analysis::SPURIOUS_RETRANSMISSION)),
    ("out_of_order", U64, "packets", "late by less than the initial RTT", "tcp.analysis.out_of_order", |f, s| flagged(f, s, analysis::OUT_OF_ORDER)),
    ("duplicate_ack", U64, "packets", "duplicate acknowledgements", "tcp.analysis.duplicate_ack", |f, s| flagged(f, s, analysis::DUPLICATE_ACK)),
    ("lost_segment", U64, "packets", "segments behind a hole", "tcp.analysis.lost_segment", |f, s| flagged(f, s, analysis::LOST_SEGMENT)),
    ("ack_lost_segment", U64, "packets", "acknowledgements of octets not seen", "tcp.analysis.ack_lost_segment", |f, s| flagged(f, s, analysis::ACK_LOST_SEGMENT)),
    ("zero_window", U64, "packets", "packets that close the window", "tcp.analysis.zero_window", |f, s| flagged(f, s, analysis::ZERO_WINDOW)),
    ("zero_window_probe", U64, "packets", "one octet into a closed window", "tcp.analysis.zero_window_probe", |f, s| flagged(f, s, analysis::ZERO_WINDOW_PROBE)),
    ("zero_window_probe_ack", U64, "packets", "answers to such probes", "tcp.analysis.zero_window_probe_ack", |f, s| flagged(f, s, analysis::ZERO_WINDOW_PROBE_ACK)),
    ("window_full", U64, "packets", "segments that fill the other side's window", "tcp.analysis.window_full", |f, s| flagged(f, s, analysis::WINDOW_FULL)),
    ("window_update", U64, "packets", "acknowledgements that only change the window", "tcp.analysis.window_update", |f, s| flagged(f, s, analysis::WINDOW_UPDATE)),
    ("keep_alive", U64, "packets", "keep-alives", "tcp.analysis.keep_alive", |f, s| flagged(f, s, analysis::KEEP_ALIVE)),
    ("keep_alive_ack", U64, "packets", "answers to keep-alives", "tcp.analysis.keep_alive_ack", |f, s| flagged(f, s, analysis::KEEP_ALIVE_ACK)),
    ("partial_ack", U64, "packets", "acknowledgements inside a segment (4.4 rules only)", "tcp.analysis.partial_ack", |f, s| flagged(f, s, analysis::PARTIAL_ACK)),
    ("retrans_bytes", U64, "octets", "sequence numbers sent again: octets, and 1 for a SYN or FIN", "tcptrace rexmt data bytes", |f, s| anomaly(f, s, |t| t.retrans_bytes)),
    ("retrans_pkts", U64, "packets", "packets with such octets", "tcptrace rexmt data pkts", |f, s| anomaly(f, s, |t| t.retrans_packets.into())),
    ("hole_fills", U64, "packets", "segments that fill a hole, however late", "tcptrace outoforder pkts", |f, s| anomaly(f, s, |t| t.hole_fills.into())),
    ("dsack", U64, "packets", "duplicate SACKs sent", "RFC 2883", |f, s| anomaly(f, s, |t| t.dsack.into())),
    ("sack_pkts", U64, "packets", "packets with SACK blocks", "tcptrace sack pkts sent", |f, s| anomaly(f, s, |t| t.sack_packets.into())),
    ("sack_blocks", U64, "blocks", "SACK blocks sent", "RFC 2018", |f, s| anomaly(f, s, |t| t.sack_blocks.into())),
    ("max_dup_run", U64, "packets", "longest run of duplicate ACKs", "tcp.analysis.duplicate_ack_num", |f, s| anomaly(f, s, |t| t.max_dup_run.into())),
    ("bytes_in_flight_max", U64, "octets", "most octets in flight", "tcp.analysis.bytes_in_flight", |f, s| tcp(f, u(f.dir(s).flight_max))),
    ("zero_window_ns", U64, "ns", "time this side's window was closed", "", |f, s| {
        let open = f.trouble(s).map_or(0, |t| t.zero_window_ns);
        let closed = f.dir(s).state & crate::tcp::state::WINDOW_CLOSED != 0;
        let more = f.trouble(s).filter(|_| closed).map_or(0, |t| f.flow.last_ts.saturating_sub(t.closed_since).max(0) as u64);
        tcp(f, Value::U64(open.saturating_add(more)))
    }),
    ("ack_rtt_n", U64, "samples", "RTT samples of this side's data: segment to the ACK that ends at it", "tcp.analysis.ack_rtt", |f, s| tcp(f, u(f.rtt(s, false).map_or(0, |r| r.count)))),
    ("ack_rtt_min", F64, "ns", "least", "tcp.analysis.ack_rtt", |f, s| exact(f, s, false, |r| r.min as f64)),
    ("ack_rtt_p50", F64, "ns", "median, within 5 %", "tcp.analysis.ack_rtt", |f, s| sampled(f, s, false, 0.5)),
    ("ack_rtt_p90", F64, "ns", "90th percentile, within 5 %", "tcp.analysis.ack_rtt", |f, s| sampled(f, s, false, 0.9)),
    ("ack_rtt_p99", F64, "ns", "99th percentile, within 5 %", "tcp.analysis.ack_rtt", |f, s| sampled(f, s, false, 0.99)),
    ("ack_rtt_max", F64, "ns", "most", "tcp.analysis.ack_rtt", |f, s| exact(f, s, false, |r| r.max as f64)),
    ("ack_rtt_mean", F64, "ns", "mean", "tcp.analysis.ack_rtt", |f, s| exact(f, s, false, |r| r.sum as f64 / f64::from(r.count))),
    ("karn_rtt_n", U64, "samples", "the same without segments sent more than once", "tcptrace RTT samples (Karn)", |f, s| tcp(f, u(f.rtt(s, true).map_or(0, |r| r.count)))),
    ("karn_rtt_min", F64, "ns", "least", "tcptrace RTT min", |f, s| exact(f, s, true, |r| r.min as f64)),
    ("karn_rtt_p50", F64, "ns", "median, within 5 %", "", |f, s| sampled(f, s, true, 0.5)),
    ("karn_rtt_p90", F64, "ns", "90th percentile, within 5 %", "", |f, s| sampled(f, s, true, 0.9)),
    ("karn_rtt_p99", F64, "ns", "99th percentile, within 5 %", "", |f, s| sampled(f, s, true, 0.99)),
    ("karn_rtt_max", F64, "ns", "most", "tcptrace RTT max", |f, s| exact(f, s, true, |r| r.max as f64)),
    ("karn_rtt_mean", F64, "ns", "mean", "tcptrace RTT avg", |f, s| exact(f, s, true, |r| r.sum as f64 / f64::from(r.count))),
    ("karn_ambiguous", U64, "samples", "samples left out: sent more than once, or one below was sent again in between", "", |f, s| anomaly(f, s, |t| t.karn_ambiguous.into())),
    ("mss", U64, "octets", "maximum segment size announced", "tcp.options.mss_val", |f, s| known((u16::from(f.seldom(s).options) & option::MSS != 0).then_some(f.seldom(s).mss.into()))),
    ("wscale", U64, "bits", "window scale announced", "tcp.options.wscale.shift", |f, s| known((u16::from(f.seldom(s).options) & option::SCALE != 0).then_some(f.scale(s).into()))),
    ("sack_perm", Bool, "", "SACK permitted announced", "tcp.options.sack_perm", |f, s| has(f, s, option::SACK_PERMITTED)),
    ("timestamps", Bool, "", "time stamps sent", "tcp.options.timestamp", |f, s| tcp(f, Value::Bool(f.dir(s).state & crate::tcp::state::TIMESTAMPS != 0))),
    ("tfo", Bool, "", "Fast Open option seen", "tcp.options.tfo", |f, s| has(f, s, option::FAST_OPEN)),
    ("mptcp", Bool, "", "Multipath TCP option seen", "tcp.options.mptcp", |f, s| has(f, s, option::MPTCP)),
    ("win_min", U64, "octets", "smallest window offered, scaled", "tcp.window_size", |f, s| tcp(f, known((f.dir(s).window_min != u32::MAX).then_some(f.dir(s).window_min.into())))),
    ("win_max", U64, "octets", "largest window offered, scaled", "tcp.window_size", |f, s| tcp(f, known((f.dir(s).window_min != u32::MAX).then_some(f.dir(s).window_max.into())))),
    ("ece", U64, "packets", "ECN echo, SYNs left out", "RFC 3168", |f, s| anomaly(f, s, |t| t.ece.into())),
    ("cwr", U64, "packets", "congestion window reduced, SYNs left out", "RFC 3168", |f, s| anomaly(f, s, |t| t.cwr.into())),
    ("ce_marks", U64, "packets", "packets marked congestion experienced", "RFC 3168", |f, s| anomaly(f, s, |t| t.ce.into())),
    ("icmp_unreach", U64, "packets", "ICMP unreachables about this side's packets", "RFC 792, RFC 4443", |f, s| u(f.trouble(s).map_or(0, |t| t.icmp_unreach))),
    ("icmp_frag_needed", U64, "packets", "fragmentation needed or packet too big, about this side's packets", "RFC 1191, RFC 8201", |f, s| u(f.trouble(s).map_or(0, |t| t.icmp_frag_needed))),
    ("mtu_hint", U64, "octets", "smallest MTU such a message named", "RFC 1191, RFC 8201", |f, s| known(f.trouble(s).map(|t| u64::from(t.mtu_hint)).filter(|&mtu| mtu > 0))),
    ("bad_checksum", U64, "packets", "wrong TCP checksums, when verified", "tcp.checksum.bad", |f, s| anomaly(f, s, |t| t.bad_checksum.into())),
    ("partial_checksum", U64, "packets", "checksums left to the card, when verified", "", |f, s| anomaly(f, s, |t| t.partial_checksum.into())),
];

/// Columns of the flow table.
pub fn flow_fields() -> Vec<Field> {
    let plain = FLOW.iter().map(|&(name, kind, unit, meaning, source, _)| Field {
        name: name.into(),
        kind,
        unit,
        meaning,
        source,
    });
    let sides = SIDE.iter().flat_map(|&(name, kind, unit, meaning, source, _)| {
        ["orig", "resp"].map(|side| Field { name: format!("{side}_{name}"), kind, unit, meaning, source })
    });
    plain.chain(sides).collect()
}

/// Rows `range` of the flow table; `only` picks columns by index.
pub fn flow_columns(summary: &Summary, range: std::ops::Range<usize>, only: Option<&[usize]>) -> Vec<Column> {
    let flows: Vec<FlowRef<'_>> = range.filter_map(|row| summary.flow(row)).collect();
    let wanted: Vec<usize> =
        only.map_or_else(|| (0..FLOW.len() + 2 * SIDE.len()).collect(), <[usize]>::to_vec);
    wanted
        .into_iter()
        .map(|index| {
            if let Some(&(_, kind, .., get)) = FLOW.get(index) {
                let mut column = Column::new(kind);
                flows.iter().for_each(|flow| column.push(get(flow)));
                return column;
            }
            let (pair, side) = ((index - FLOW.len()) / 2, (index - FLOW.len()) % 2);
            let (_, kind, .., get) = SIDE[pair.min(SIDE.len() - 1)];
            let mut column = Column::new(kind);
            flows.iter().for_each(|flow| column.push(get(flow, side)));
            column
        })
        .collect()
}

/// A column of the segment table; the originator's direction is given.
type OfSegment = (&'static str, Kind, &'static str, &'static str, &'static str, fn(&Row, u8) -> Value);

fn relative(value: u32, base: u32) -> Value {
    u(value.wrapping_sub(base))
}

fn acked(row: &Row) -> bool {
    row.packet.flags & crate::packet::flag::ACK != 0
}

fn extra(row: &Row) -> Extra {
    row.extra.as_deref().copied().unwrap_or_default()
}

fn optional(row: &Row, bit: u16, of: fn(&Extra) -> u64) -> Value {
    known(row.extra.as_deref().filter(|e| e.options & bit != 0).map(of))
}

/// A low half of a frame number made whole: the newest frame not after the row's with that half.
fn frame_before(row: &Row, low: u32) -> u64 {
    let guess = row.frame & !0xffff_ffff | u64::from(low);
    if guess > row.frame { guess.wrapping_sub(1 << 32) } else { guess }
}

#[rustfmt::skip]
const SEGMENT: &[OfSegment] = &[
    ("frame", U64, "", "frame number, from 1", "frame.number", |r, _| u(r.frame)),
    ("layer", U64, "", "0 for the outermost TCP or UDP header, more inside tunnels", "", |r, _| u(r.packet.layer)),
    ("ts_ns", I64, "ns", "time stamp since 1970; absent if the packet has none", "frame.time_epoch", |r, _| signed(r.packet.ts, NO_TIME)),
    ("stream", U64, "", "TCP stream number", "tcp.stream", |r, _| u(r.stream)),
    ("from_orig", Bool, "", "sent by the originator", "", |r, originator| Value::Bool(r.dir == originator)),
    ("seq_raw", U64, "", "sequence number", "tcp.seq_raw", |r, _| u(r.packet.seq)),
    ("ack_raw", U64, "", "acknowledgement number", "tcp.ack_raw", |r, _| u(r.packet.ack)),
    ("seq", U64, "octets", "sequence number relative to the first", "tcp.seq", |r, _| relative(r.packet.seq, r.base[0])),
    ("ack", U64, "octets", "acknowledgement number relative to the first of the other side; as in the header without ACK", "tcp.ack", |r, _| if acked(r) { relative(r.packet.ack, r.base[1]) } else { u(r.packet.ack) }),
    ("len", U64, "octets", "payload", "tcp.len", |r, _| u(r.packet.len)),
    ("flags", U64, "bits", "TCP flags, 12 bits", "tcp.flags", |r, _| u(r.packet.flags)),
    ("window_raw", U64, "", "window as sent", "tcp.window_size_value", |r, _| u(r.packet.window)),
    ("window", U64, "octets", "window scaled", "tcp.window_size", |r, _| u(r.window)),
    ("window_scale", I64, "bits", "scale in force: -1 unknown, -2 not used", "tcp.window_size_scalefactor", |r, _| Value::I64(r.scale.into())),
    ("analysis", U64, "bits", "all analysis flags, in the order of the following columns", "", |r, _| u(r.verdict.flags)),
    ("retransmission", Bool, "", "retransmission of any kind", "tcp.analysis.retransmission", |r, _| Value::Bool(r.verdict.flags & analysis::RETRANSMISSION != 0)),
    ("fast_retransmission", Bool, "", "rule 12b", "tcp.analysis.fast_retransmission", |r, _| Value::Bool(r.verdict.flags & analysis::FAST_RETRANSMISSION != 0)),
    ("spurious_retransmission", Bool, "", "rule 12a", "tcp.analysis.spurious_retransmission", |r, _| Value::Bool(r.verdict.flags & analysis::SPURIOUS_RETRANSMISSION != 0)),
    ("out_of_order", Bool, "", "rule 12c", "tcp.analysis.out_of_order", |r, _| Value::Bool(r.verdict.flags & analysis::OUT_OF_ORDER != 0)),
    ("duplicate_ack", Bool, "", "rule 9", "tcp.analysis.duplicate_ack", |r, _| Value::Bool(r.verdict.flags & analysis::DUPLICATE_ACK != 0)),
    ("lost_segment", Bool, "", "rule 3", "tcp.analysis.lost_segment", |r, _| Value::Bool(r.verdict.flags & analysis::LOST_SEGMENT != 0)),
    ("ack_lost_segment", Bool, "", "rule 11", "tcp.analysis.ack_lost_segment", |r, _| Value::Bool(r.verdict.flags & analysis::ACK_LOST_SEGMENT != 0)),
    ("zero_window", Bool, "", "rule 2", "tcp.analysis.zero_window", |r, _| Value::Bool(r.verdict.flags & analysis::ZERO_WINDOW != 0)),
    ("zero_window_probe", Bool, "", "rule 1", "tcp.analysis.zero_window_probe", |r, _| Value::Bool(r.verdict.flags & analysis::ZERO_WINDOW_PROBE != 0)),
    ("zero_window_probe_ack", Bool, "", "rule 8", "tcp.analysis.zero_window_probe_ack", |r, _| Value::Bool(r.verdict.flags & analysis::ZERO_WINDOW_PROBE_ACK != 0)),
    ("window_full", Bool, "", "rule 6", "tcp.analysis.window_full", |r, _| Value::Bool(r.verdict.flags & analysis::WINDOW_FULL != 0)),
    ("window_update", Bool, "", "rule 5", "tcp.analysis.window_update", |r, _| Value::Bool(r.verdict.flags & analysis::WINDOW_UPDATE != 0)),
    ("keep_alive", Bool, "", "rule 4", "tcp.analysis.keep_alive", |r, _| Value::Bool(r.verdict.flags & analysis::KEEP_ALIVE != 0)),
    ("keep_alive_ack", Bool, "", "rule 7", "tcp.analysis.keep_alive_ack", |r, _| Value::Bool(r.verdict.flags & analysis::KEEP_ALIVE_ACK != 0)),
    ("reused_ports", Bool, "", "SYN with another initial number", "tcp.analysis.reused_ports", |r, _| Value::Bool(r.verdict.flags & analysis::REUSED_PORTS != 0)),
    ("partial_ack", Bool, "", "rule 16 of 4.4", "tcp.analysis.partial_ack", |r, _| Value::Bool(r.verdict.flags & analysis::PARTIAL_ACK != 0)),
    ("duplicate_ack_num", U64, "", "number of this duplicate", "tcp.analysis.duplicate_ack_num", |r, _| known((r.verdict.flags & analysis::DUPLICATE_ACK != 0).then_some(r.verdict.duplicate_ack_num.into()))),
    ("duplicate_ack_frame", U64, "", "frame it duplicates", "tcp.analysis.duplicate_ack_frame", |r, _| known((r.verdict.flags & analysis::DUPLICATE_ACK != 0).then(|| frame_before(r, r.verdict.duplicate_ack_frame)))),
    ("acks_frame", U64, "", "frame this one acknowledges", "tcp.analysis.acks_frame", |r, _| known(r.verdict.acks_frame.map(|low| frame_before(r, low)))),
    ("ack_rtt_ns", I64, "ns", "time since that frame; absent when 0", "tcp.analysis.ack_rtt", |r, _| signed(r.verdict.ack_rtt, 0)),
    ("initial_rtt_ns", I64, "ns", "initial RTT of the stream, once known", "tcp.analysis.initial_rtt", |r, _| signed(r.initial_rtt, 0)),
    ("rto_ns", I64, "ns", "time since the segment a retransmission waited for", "tcp.analysis.rto", |r, _| signed(r.verdict.rto, 0)),
    ("rto_frame", U64, "", "frame of that segment", "tcp.analysis.rto_frame", |r, _| known((r.verdict.rto != 0).then(|| frame_before(r, r.verdict.rto_frame)))),
    ("bytes_in_flight", U64, "octets", "rule 17", "tcp.analysis.bytes_in_flight", |r, _| known((r.verdict.in_flight > 0).then_some(r.verdict.in_flight.into()))),
    ("push_bytes_sent", U64, "octets", "payload since the last PSH", "tcp.analysis.push_bytes_sent", |r, _| known((r.verdict.push_bytes > 0).then_some(r.verdict.push_bytes.into()))),
    ("retrans_bytes", U64, "octets", "octets of this segment seen before", "tcptrace", |r, _| u(r.verdict.overlap)),
    ("completeness", U64, "bits", "completeness so far", "tcp.completeness", |r, _| u(r.completeness)),
    ("mss", U64, "octets", "MSS option", "tcp.options.mss_val", |r, _| optional(r, option::MSS, |e| e.mss.into())),
    ("wscale", U64, "bits", "window scale option", "tcp.options.wscale.shift", |r, _| optional(r, option::SCALE, |e| e.scale.into())),
    ("sack_perm", Bool, "", "SACK permitted option", "tcp.options.sack_perm", |r, _| Value::Bool(extra(r).options & option::SACK_PERMITTED != 0)),
    ("tsval", U64, "", "time stamp value", "tcp.options.timestamp.tsval", |r, _| optional(r, option::TIMESTAMPS, |e| e.timestamps.0.into())),
    ("tsecr", U64, "", "time stamp echo", "tcp.options.timestamp.tsecr", |r, _| optional(r, option::TIMESTAMPS, |e| e.timestamps.1.into())),
    ("sack", List, "", "SACK block edges, raw, left and right in turn", "tcp.options.sack_le, sack_re (raw)", |r, _| {
        let extra = extra(r);
        if extra.sack_count == 0 {
            return Value::Null;
        }
        Value::List(extra.sack.iter().take(usize::from(extra.sack_count)).flat_map(|&(le, re)| [le, re]).collect())
    }),
    ("dsack", Bool, "", "the first block is a duplicate SACK", "RFC 2883", |r, _| {
        let extra = extra(r);
        Value::Bool(is_dsack(&extra.sack[..usize::from(extra.sack_count.min(4))], r.packet.ack))
    }),
    ("mptcp", U64, "bits", "MPTCP subtypes, 1 << subtype", "tcp.options.mptcp.subtype", |r, _| optional(r, option::MPTCP, |e| e.mptcp.into())),
    ("tfo", Bool, "", "Fast Open option", "tcp.options.tfo", |r, _| Value::Bool(extra(r).options & option::FAST_OPEN != 0)),
    ("options_cut", Bool, "", "the capture ends inside the options: tshark shows no analysis here", "", |r, _| Value::Bool(r.packet.marks & mark::OPTIONS_CUT != 0)),
    ("analysed", Bool, "", "false where the IP length is too short for the header", "", |r, _| Value::Bool(r.packet.marks & mark::NO_LENGTH == 0)),
    ("frame_len", U64, "octets", "length of the frame on the wire", "frame.len", |r, _| u(r.packet.bytes)),
    ("ip_len", U64, "octets", "length of the IP datagram", "ip.len", |r, _| u(r.packet.ip_bytes)),
    ("ip_ttl", U64, "", "time to live or hop limit", "ip.ttl, ipv6.hlim", |r, _| u(r.packet.ttl)),
    ("ip_id", U64, "", "identification; 0 for IPv6", "ip.id", |r, _| u(r.packet.ip_id)),
    ("ip_ce", Bool, "", "marked congestion experienced", "ip.dsfield.ecn", |r, _| Value::Bool(r.packet.marks & mark::CE != 0)),
    ("interface", U64, "", "interface, over all sections", "frame.interface_id", |r, _| u(r.packet.interface)),
    ("reassembled", Bool, "", "the frame completed a fragmented datagram", "", |r, _| Value::Bool(r.packet.marks & mark::REASSEMBLED != 0)),
    ("checksum", Text, "", "good, bad or partial (left to the card), when verified", "tcp.checksum.status", |r, _| {
        let names = [(mark::CHECKSUM_GOOD, "good"), (mark::CHECKSUM_BAD, "bad"), (mark::CHECKSUM_PARTIAL, "partial")];
        let found = names.iter().find(|(bit, _)| r.packet.marks & bit != 0);
        found.map_or(Value::Null, |(_, name)| Value::Text((*name).into()))
    }),
];

/// Columns of the segment table.
pub fn segment_fields() -> Vec<Field> {
    SEGMENT
        .iter()
        .map(|&(name, kind, unit, meaning, source, _)| Field {
            name: name.into(),
            kind,
            unit,
            meaning,
            source,
        })
        .collect()
}

/// The segment table of some rows; `originator` says which direction began a stream.
pub fn segment_columns(rows: &[Row], originator: &dyn Fn(u32) -> u8) -> Vec<Column> {
    let sides: Vec<u8> = rows.iter().map(|row| originator(row.stream)).collect();
    SEGMENT
        .iter()
        .map(|&(_, kind, .., get)| {
            let mut column = Column::new(kind);
            rows.iter().zip(&sides).for_each(|(row, &side)| column.push(get(row, side)));
            column
        })
        .collect()
}

/// A column of the series table.
type OfBin = (&'static str, Kind, &'static str, &'static str, fn(&BinRow) -> Value);

#[rustfmt::skip]
const SERIES: &[OfBin] = &[
    ("proto", Text, "", "transport protocol", |b| Value::Text(protocol(b.0))),
    ("stream", U64, "", "stream number within the protocol", |b| u(b.1)),
    ("t_ns", I64, "ns", "start of the bin, since 1970", |b| Value::I64(b.2)),
    ("from_orig", Bool, "", "sent by the originator", |b| Value::Bool(b.3 == 0)),
    ("pkts", U64, "packets", "packets", |b| u(b.4.packets)),
    ("bytes", U64, "octets", "frame octets", |b| u(b.4.bytes)),
    ("payload_bytes", U64, "octets", "payload octets", |b| u(b.4.payload)),
    ("retransmission", U64, "packets", "retransmissions of all kinds", |b| u(b.4.retransmissions)),
    ("duplicate_ack", U64, "packets", "duplicate acknowledgements", |b| u(b.4.duplicate_acks)),
    ("bytes_in_flight_max", U64, "octets", "most octets in flight", |b| u(b.4.flight_max)),
    ("window", U64, "octets", "newest window, scaled", |b| u(b.4.window)),
    ("window_min", U64, "octets", "smallest window, scaled", |b| u(b.4.window_min)),
];

/// Columns of the series table.
pub fn series_fields() -> Vec<Field> {
    SERIES
        .iter()
        .map(|&(name, kind, unit, meaning, _)| Field { name: name.into(), kind, unit, meaning, source: "" })
        .collect()
}

/// The series table.
pub fn series_columns(bins: &[BinRow]) -> Vec<Column> {
    SERIES
        .iter()
        .map(|&(_, kind, .., get)| {
            let mut column = Column::new(kind);
            bins.iter().for_each(|bin| column.push(get(bin)));
            column
        })
        .collect()
}

/// Every table with its columns.
pub fn tables() -> Vec<(&'static str, Vec<Field>)> {
    vec![("flows", flow_fields()), ("segments", segment_fields()), ("series", series_fields())]
}
