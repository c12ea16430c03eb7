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

use crate::packet::{Chunk, Key, Origin, Packet, Tunnel, flag, mark, proto};
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
    last: Last,
}

/// The newest descriptor of IPv4 that came the straight way, if nothing came after it.
struct Last {
    /// How many descriptors its chunk held with it; no number at all once there is another.
    count: usize,
    /// Addresses and ports as in the IPv4 and TCP headers.
    ends: [u8; 12],
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

/// A flow's key with its hash, and whether the packet goes from the higher end to the lower.
struct Ends {
    hash: u64,
    key: Key,
    reversed: bool,
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
            last: Last { count: usize::MAX, ends: [0; 12] },
        }
    }

    /// Decode the frame of `record`, appending its descriptors to `chunk`.
    #[inline(always)]
    pub fn frame(&mut self, chunk: &mut Chunk, record: &Record, data: &[u8]) {
        if record.link != 1 || self.checksums || !self.ethernet_ip_tcp(chunk, record, data) {
            self.layers(chunk, record, data);
        }
        chunk.frames += 1;
    }

    /// Decode a frame layer by layer.
    #[inline(never)]
    fn layers(&mut self, chunk: &mut Chunk, record: &Record, data: &[u8]) {
        self.last.count = usize::MAX;
        let mut frame = Frame {
            ts: record.ts,
            number: chunk.frames,
            bytes: record.original,
            interface: record.interface.min(0xffff) as u16,
            layer: 0,
            depth: 0,
            marks: 0,
            origin: Origin::default(),
        };
        self.link(chunk, &mut frame, record.link, data, record.original);
    }

    /// The straight way for most frames: Ethernet, IPv4 or IPv6 without options or fragments, TCP. The
    /// descriptor is written once, in its place.
    #[inline(always)]
    fn ethernet_ip_tcp(&mut self, chunk: &mut Chunk, record: &Record, data: &[u8]) -> bool {
        let Some(head) = data.first_chunk::<54>() else { return false };
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (segment, at, congestion, total, ttl, id);
        match half(12) {
            0x0800 if head[14] == 0x45 && head[23] == proto::TCP && half(20) & 0x3fff == 0 => {
                at = 34;
                congestion = head[15] & 3 == 3;
                (total, ttl, id) = (u32::from(half(16)), head[22], half(18));
            }
            0x86dd if head[14] >> 4 == 6 && head[20] == proto::TCP && half(18) != 0 => {
                at = 54;
                congestion = head[15] & 0x30 == 0x30;
                (total, ttl, id) = (u32::from(half(18)) + 40, head[21], 0);
            }
            _ => return false,
        }
        let Some(found) = array::<20>(data, at) else { return false };
        segment = found;
        let field =
            |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
        let offset = usize::from(segment[12] >> 4) * 4;
        let headers = (at - 14 + offset) as u32;
        if total < headers || offset < 20 || record.original < total + 14 || data.len() < at + offset {
            return false;
        }
        let flags = u16::from_be_bytes([segment[12], segment[13]]) & 0xfff;
        let mut marks = if congestion { mark::CE } else { 0 };
        let mut extra = 0;
        if offset > 20 {
            let (found, listed) = self.options(chunk, &data[at + 20..at + offset]);
            marks |= found;
            extra = listed;
        }
        let plain = flags & (flag::SYN | flag::FIN | flag::RST | flag::ACK | flag::ECE | flag::CWR);
        if plain == flag::ACK && extra == 0 && !congestion {
            marks |= mark::PLAIN;
        }
        // Field by field: in its place, not put together elsewhere and copied.
        let (count, ports) = (chunk.packets.len(), field(0));
        let packet = if at == 34 {
            let Some(ends) = array::<12>(data, 26) else { return false };
            let same = count == self.last.count && *ends == self.last.ends;
            self.last.count = count + 1;
            if same {
                let (packet, reversed) = chunk.packets.repeat();
                marks |= mark::SAME | reversed;
                packet
            } else {
                self.last.ends = *ends;
                let ends = self.ends([word(26).into(), 0], [word(30).into(), 0], ports, proto::TCP, 4);
                marks |= u16::from(ends.reversed);
                let packet = chunk.packets.next();
                (packet.hash, packet.key) = (ends.hash, ends.key);
                packet
            }
        } else {
            self.last.count = usize::MAX;
            let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
            let ends = self.ends([long(22), long(30)], [long(38), long(46)], ports, proto::TCP, 6);
            marks |= mark::V6 | u16::from(ends.reversed);
            let packet = chunk.packets.next();
            (packet.hash, packet.key) = (ends.hash, ends.key);
            packet
        };
        packet.ts = record.ts;
        packet.frame = chunk.frames;
        packet.bytes = record.original;
        packet.ip_bytes = total;
        packet.len = total - headers;
        packet.seq = field(4);
        packet.ack = field(8);
        packet.window = u16::from_be_bytes([segment[14], segment[15]]);
        packet.flags = flags;
        packet.extra = extra;
        packet.origin = 0;
        packet.interface = record.interface.min(0xffff) as u16;
        packet.ip_id = id;
        packet.ttl = ttl;
        packet.layer = 0;
        packet.marks = marks;
        chunk.packets.keep();
        true
    }

    /// The hash of a key, from its parts.
    #[inline(always)]
    fn hash(&self, addresses: u64, ports: u32, proto: u8) -> u64 {
        fold(addresses ^ self.seed[1], (u64::from(ports) | u64::from(proto) << 32) ^ self.seed[2])
    }

    /// Canonical key and hash of a pair of addresses; `ports` as in the header.
    #[inline(always)]
    fn ends(&self, source: [u64; 2], destination: [u64; 2], ports: u32, proto: u8, version: u8) -> Ends {
        let swapped = ports.rotate_left(16);
        let reversed = if source == destination { ports > swapped } else { source > destination };
        let (low, high, ports) =
            if reversed { (destination, source, swapped) } else { (source, destination, ports) };
        let [s0, s1, s2, s3] = self.seed;
        let mut addresses = fold(low[0] ^ s0, high[0] ^ s1);
        if version == 6 {
            addresses ^= fold(low[1] ^ s2, high[1] ^ s3);
        }
        let hash = self.hash(addresses, ports, proto);
        Ends { hash, key: Key { low, high, ports, proto, version }, reversed }
    }

    /// Begin a descriptor: canonical key, hash, facts of frame and datagram. `ports` as in the header.
    #[inline(always)]
    fn packet(&self, frame: &Frame, datagram: &Datagram, ports: u32) -> Packet {
        let Datagram { source, destination, proto, version, .. } = *datagram;
        let Ends { hash, key, reversed } = self.ends(source, destination, ports, proto, version);
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
}
