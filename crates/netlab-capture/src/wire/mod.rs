//! Decodes the headers of one frame into descriptors.
//!
//! Every function borrows the captured bytes of its layer, checks their length once and reads. Next to
//! the bytes travels `reported`: how long the layer was on the wire, which is what payload lengths are
//! computed from, so that a snap length changes nothing. A layer that is cut or makes no sense is
//! counted by reason and the frame ends there; whatever outer layers were accounted stay accounted.

mod checksum;
mod fragments;
mod icmp;
mod ip;
mod link;
mod tcp;
mod tunnel;

use crate::packet::{Chunk, Extra, Key, Origin, Packet, Tunnel, mark, proto};
use crate::reader::Record;
use crate::reader::array;
use fragments::Fragments;

/// Encapsulations followed inside one frame; deeper ones are counted as undecodable.
pub const MAX_DEPTH: u8 = 24;

/// Why (part of) a frame could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Reason {
    CutLink,
    CutNetwork,
    CutTransport,
    UnknownLink,
    UnknownEtherType,
    NotIp,
    BadVersion,
    BadHeader,
    BadLength,
    BadTransport,
    TooDeep,
    Encrypted,
}

/// Names of [`Reason`] as they appear in the totals.
pub const REASONS: [&str; 12] = [
    "cut_in_link_header",
    "cut_in_network_header",
    "cut_in_transport_header",
    "unknown_link_type",
    "unknown_ethertype",
    "not_ip",
    "bad_ip_version",
    "bad_network_header",
    "bad_network_length",
    "bad_transport_header",
    "too_deep",
    "encrypted",
];

/// What the decoder counts beside flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Failures by [`Reason`].
    pub undecodable: [u64; REASONS.len()],
    /// ARP and RARP packets.
    pub arp: u64,
    /// IP fragments seen.
    pub fragments: u64,
    /// Datagrams put together from them.
    pub reassembled: u64,
    /// Fragmented datagrams given up: limit reached, overlapping nonsense.
    pub fragments_dropped: u64,
    /// Frames with at least one VLAN tag.
    pub vlan: u64,
    /// Tunnelled headers analysed.
    pub tunnelled: u64,
    /// ICMP errors quoting a packet.
    pub icmp_errors: u64,
    /// Transport checksums verified: right, wrong, left to the card.
    pub checksums: [u64; 3],
    /// Link types that were not understood, and how many frames had them (at most 16 kinds kept).
    pub unknown_links: Vec<(u16, u64)>,
}

/// Stateless but for fragments and counters; one per run, fed frames in order.
pub struct Decoder {
    seed: [u64; 4],
    /// Fill an [`Extra`] for every packet with options, for the segment table.
    detail: bool,
    checksums: bool,
    /// Counters so far.
    pub counts: Counts,
    fragments: Fragments,
}

/// What the layers above have found about the frame at hand.
#[derive(Clone, Copy)]
struct Frame {
    ts: i64,
    number: u32,
    bytes: u32,
    interface: u16,
    layer: u8,
    depth: u8,
    marks: u16,
    origin: Origin,
}

/// The two ends and the datagram's own facts, as the IP layer hands them to the transport.
#[derive(Clone, Copy)]
struct Datagram {
    source: [u64; 2],
    destination: [u64; 2],
    version: u8,
    proto: u8,
    ttl: u8,
    id: u16,
    ip_bytes: u32,
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ (wide >> 64) as u64
}

impl Decoder {
    /// `seed` keys the flow hash; a capture is hostile, so it differs from run to run.
    pub fn new(seed: [u64; 4], detail: bool, checksums: bool) -> Self {
        Self {
            seed: seed.map(|s| s | 1),
            detail,
            checksums,
            counts: Counts::default(),
            fragments: Fragments::default(),
        }
    }

    /// Decode the frame of `record`, appending its descriptors to `chunk`.
    #[inline(always)]
    pub fn frame(&mut self, chunk: &mut Chunk, record: &Record, data: &[u8]) {
        let frame = Frame {
            ts: record.ts,
            number: chunk.frames,
            bytes: record.original,
            interface: record.interface.min(0xffff) as u16,
            layer: 0,
            depth: 0,
            marks: 0,
            origin: Origin::default(),
        };
        chunk.frames += 1;
        if record.link == 1 && self.ethernet_ip_tcp(chunk, &frame, data, record.original) {
            return;
        }
        let mut frame = frame;
        self.link(chunk, &mut frame, record.link, data, record.original);
    }

    /// The straight way for most frames: Ethernet, IPv4 or IPv6 without options or fragments, TCP.
    #[inline(always)]
    fn ethernet_ip_tcp(&mut self, chunk: &mut Chunk, frame: &Frame, data: &[u8], reported: u32) -> bool {
        let Some(head) = data.first_chunk::<54>() else { return false };
        if self.checksums {
            return false;
        }
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (datagram, congestion, at) = if head[12] == 8 && head[13] == 0 {
            if head[14] != 0x45 || head[23] != proto::TCP || (head[20] & 0x3f) | head[21] != 0 {
                return false;
            }
            let datagram = Datagram {
                source: [u64::from(word(26)), 0],
                destination: [u64::from(word(30)), 0],
                version: 4,
                proto: proto::TCP,
                ttl: head[22],
                id: half(18),
                ip_bytes: u32::from(half(16)),
            };
            (datagram, head[15] & 3 == 3, 20)
        } else if head[12] == 0x86 && head[13] == 0xdd {
            if head[14] >> 4 != 6 || head[20] != proto::TCP || half(18) == 0 {
                return false;
            }
            let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
            let datagram = Datagram {
                source: [long(22), long(30)],
                destination: [long(38), long(46)],
                version: 6,
                proto: proto::TCP,
                ttl: head[21],
                id: 0,
                ip_bytes: u32::from(half(18)) + 40,
            };
            (datagram, head[15] & 0x30 == 0x30, 40)
        } else {
            return false;
        };
        let Some(segment) = array::<20>(data, 14 + at) else { return false };
        let offset = u32::from(segment[12] >> 4) * 4;
        let headers = at as u32 + offset;
        let total = datagram.ip_bytes;
        if total < headers || offset < 20 || reported < total + 14 || data.len() < 14 + headers as usize {
            return false;
        }
        let word =
            |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
        let mut packet = self.packet(frame, &datagram, word(0));
        if congestion {
            packet.marks |= mark::CE;
        }
        packet.len = total - headers;
        packet.seq = word(4);
        packet.ack = word(8);
        packet.flags = u16::from_be_bytes([segment[12], segment[13]]) & 0xfff;
        packet.window = u16::from_be_bytes([segment[14], segment[15]]);
        if offset > 20 {
            self.options(chunk, &mut packet, &data[34 + at..14 + headers as usize]);
        }
        chunk.packets.push(packet);
        true
    }

    /// Begin a descriptor: canonical key, hash, facts of frame and datagram. `ports` as in the header.
    #[inline(always)]
    fn packet(&self, frame: &Frame, datagram: &Datagram, ports: u32) -> Packet {
        let (source, destination) = (datagram.source, datagram.destination);
        let swapped = ports.rotate_left(16);
        let reversed = if source == destination { ports > swapped } else { source > destination };
        let (low, high, ports) =
            if reversed { (destination, source, swapped) } else { (source, destination, ports) };
        let [s0, s1, s2, s3] = self.seed;
        let key = Key { low, high, ports, proto: datagram.proto, version: datagram.version };
        let ends = fold(low[0] ^ s0, low[1] ^ s1) ^ fold(high[0] ^ s2, high[1] ^ s3);
        let hash = fold(ends ^ s1, (u64::from(ports) | u64::from(datagram.proto) << 32) ^ s2);
        Packet {
            hash,
            key,
            ts: frame.ts,
            frame: frame.number,
            bytes: frame.bytes,
            ip_bytes: datagram.ip_bytes,
            interface: frame.interface,
            ip_id: datagram.id,
            ttl: datagram.ttl,
            layer: frame.layer,
            marks: frame.marks | u16::from(reversed) | if datagram.version == 6 { mark::V6 } else { 0 },
            ..Packet::default()
        }
    }

    /// Append a finished descriptor; the next one of this frame lies a layer deeper.
    fn emit(&mut self, chunk: &mut Chunk, frame: &mut Frame, mut packet: Packet) {
        if frame.origin != Origin::default() {
            if chunk.origins.last() != Some(&frame.origin) {
                chunk.origins.push(frame.origin);
            }
            packet.origin = chunk.origins.len() as u32;
        }
        if frame.origin.tunnel != Tunnel::None {
            self.counts.tunnelled += 1;
        }
        chunk.packets.push(packet);
        frame.layer = frame.layer.saturating_add(1);
    }

    #[cold]
    fn fail(&mut self, reason: Reason) {
        self.counts.undecodable[reason as usize] += 1;
    }

    /// One encapsulation deeper, or a counted refusal.
    fn deeper(&mut self, frame: &mut Frame) -> bool {
        frame.depth += 1;
        if frame.depth > MAX_DEPTH {
            self.fail(Reason::TooDeep);
        }
        frame.depth <= MAX_DEPTH
    }

    /// The transport header of an unfragmented or reassembled datagram.
    fn transport(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        datagram: &Datagram,
        data: &[u8],
        reported: u32,
    ) {
        match datagram.proto {
            proto::TCP => self.tcp(chunk, frame, datagram, data, reported),
            proto::UDP | proto::UDPLITE => self.udp(chunk, frame, datagram, data, reported),
            proto::ICMP if datagram.version == 4 => self.icmp(chunk, frame, datagram, data, reported),
            proto::ICMPV6 if datagram.version == 6 => self.icmp(chunk, frame, datagram, data, reported),
            proto::SCTP | proto::DCCP => {
                let Some(head) = array::<12>(data, 0) else { return self.fail(Reason::CutTransport) };
                let ports = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                let mut packet = self.packet(frame, datagram, ports);
                packet.len = reported.saturating_sub(12);
                self.emit(chunk, frame, packet);
            }
            _ => {
                let mut packet = self.packet(frame, datagram, 0);
                packet.len = reported;
                self.emit(chunk, frame, packet);
                self.ip_payload(chunk, frame, datagram.proto, data, reported);
            }
        }
    }

    fn udp(&mut self, chunk: &mut Chunk, frame: &mut Frame, datagram: &Datagram, data: &[u8], reported: u32) {
        let Some(head) = array::<8>(data, 0) else { return self.fail(Reason::CutTransport) };
        let word = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
        let (source, destination, length) = (word(0), word(2), u32::from(word(4)));
        let mut packet = self.packet(frame, datagram, u32::from(source) << 16 | u32::from(destination));
        // Length 0 means a jumbogram or an offloaded datagram (RFC 2675 §4).
        let length = if length == 0 { reported } else { length.min(reported) };
        packet.len = length.saturating_sub(8);
        if self.checksums && datagram.proto == proto::UDP && word(6) != 0 {
            packet.marks |= self.verify(datagram, data, length, 6);
        }
        self.emit(chunk, frame, packet);
        let payload = data.get(8..).unwrap_or(&[]);
        self.udp_payload(chunk, frame, (source, destination), payload, length.saturating_sub(8));
    }

    /// Keep `extra` beside `packet`.
    fn attach(chunk: &mut Chunk, packet: &mut Packet, extra: Extra) {
        chunk.extras.push(extra);
        packet.extra = chunk.extras.len() as u32;
    }
}
