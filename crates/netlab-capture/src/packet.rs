//! What the parse stage hands to the state stage: one descriptor per analysed header.

/// Bits of [`Packet::marks`].
pub mod mark {
    /// The sender is the higher endpoint of the canonical pair.
    pub const REVERSED: u16 = 1;
    /// IPv6 addresses.
    pub const V6: u16 = 1 << 1;
    /// Quoted by an ICMP error: finds (and may create) its flow, is neither counted nor analysed.
    pub const QUOTED: u16 = 1 << 2;
    /// The header makes no sense as TCP (data offset below 5): it creates the flow, nothing more.
    pub const BOGUS: u16 = 1 << 3;
    /// The IP length ends inside the TCP header: counted, not analysed.
    pub const NO_LENGTH: u16 = 1 << 4;
    /// The capture ends inside the TCP options (tshark shows no analysis for it; this engine does).
    pub const OPTIONS_CUT: u16 = 1 << 5;
    /// Completed a fragmented datagram.
    pub const REASSEMBLED: u16 = 1 << 6;
    /// ECN field of the IP header is CE.
    pub const CE: u16 = 1 << 7;
    /// Carries an ICMP message about a flow: `extra` says which.
    pub const ICMP_ERROR: u16 = 1 << 8;
    /// A first fragment shown on its own.
    pub const FRAGMENT: u16 = 1 << 9;
    /// TCP or UDP checksum verified and wrong.
    pub const CHECKSUM_BAD: u16 = 1 << 10;
    /// Checksum holds only the pseudo header's sum: left to the network card (transmit offload).
    pub const CHECKSUM_PARTIAL: u16 = 1 << 11;
    /// Checksum verified and right.
    pub const CHECKSUM_GOOD: u16 = 1 << 12;
    /// Carries the TCP timestamps option.
    pub const TIMESTAMPS: u16 = 1 << 13;
    /// TCP with ACK and none of SYN, FIN, RST, ECE, CWR, no entry in the side table, no other mark than
    /// direction, version and time stamps: what nearly all packets are.
    pub const PLAIN: u16 = 1 << 14;
    /// The descriptor before it in the chunk is of the same flow.
    pub const SAME: u16 = 1 << 15;
}

/// TCP header flags as in the 12-bit field.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u16 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u16 = 2;
    /// Reset.
    pub const RST: u16 = 4;
    /// Push.
    pub const PSH: u16 = 8;
    /// The acknowledgement field counts.
    pub const ACK: u16 = 16;
    /// Urgent pointer counts.
    pub const URG: u16 = 32;
    /// ECN echo.
    pub const ECE: u16 = 64;
    /// Congestion window reduced.
    pub const CWR: u16 = 128;
}

/// IP protocol numbers that are told apart.
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// The two ends of a flow in canonical order (lower address, then lower port, first).
#[derive(Clone, Copy, Debug, Default, Eq)]
#[repr(C)]
pub struct Key {
    /// Address of the lower end; IPv4 in the first word, big-endian value.
    pub low: [u64; 2],
    /// Address of the higher end.
    pub high: [u64; 2],
    /// Port of the lower end in the upper half, of the higher end in the lower half.
    pub ports: u32,
    /// IP protocol.
    pub proto: u8,
    /// IP version, 4 or 6.
    pub version: u8,
}

impl PartialEq for Key {
    /// All fields at once: two keys that are compared are almost always equal.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let low = (self.low[0] ^ other.low[0]) | (self.low[1] ^ other.low[1]);
        let high = (self.high[0] ^ other.high[0]) | (self.high[1] ^ other.high[1]);
        let rest = (self.ports ^ other.ports)
            | u32::from(self.proto ^ other.proto)
            | u32::from(self.version ^ other.version);
        low | high | u64::from(rest) == 0
    }
}

/// One header chain to account: who, when, how much and, for TCP, the fields analysis needs.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Packet {
    /// Keyed hash of `key`.
    pub hash: u64,
    /// The flow.
    pub key: Key,
    /// Time stamp, ns, or [`crate::reader::NO_TIME`].
    pub ts: i64,
    /// Frame number within the chunk (0 for its first frame).
    pub frame: u32,
    /// Octets of the frame on the wire.
    pub bytes: u32,
    /// Octets of the IP datagram, header included.
    pub ip_bytes: u32,
    /// Octets of payload after the transport header.
    pub len: u32,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number as in the header.
    pub ack: u32,
    /// TCP window, raw.
    pub window: u16,
    /// TCP flags, 12 bits.
    pub flags: u16,
    /// 1 + index of the [`Extra`] of this packet in its chunk; 0 = none.
    pub extra: u32,
    /// 1 + index of the [`Origin`] (VLAN, tunnel) in its chunk; 0 = plain.
    pub origin: u32,
    /// Interface of the capture.
    pub interface: u16,
    /// IPv4 identification.
    pub ip_id: u16,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Position among the descriptors of its frame (outer headers first).
    pub layer: u8,
    /// See [`mark`].
    pub marks: u16,
}

/// Everything about a packet that most packets do not have, or that only the segment table shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// Options present, bits of [`option`].
    pub options: u16,
    /// Maximum segment size.
    pub mss: u16,
    /// Window scale as sent (values above 14 count as 14 when used).
    pub scale: u8,
    /// Number of SACK blocks in `sack`.
    pub sack_count: u8,
    /// MPTCP subtype bits seen (1 << subtype).
    pub mptcp: u16,
    /// SACK blocks in the order of the header.
    pub sack: [(u32, u32); 4],
    /// Timestamps option: value and echo.
    pub timestamps: (u32, u32),
    /// ICMP type of a message about this flow.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// MTU of a "fragmentation needed" or "packet too big".
    pub mtu: u32,
}

/// TCP options, bits of [`Extra::options`] and of the flow's columns.
pub mod option {
    /// Maximum segment size (kind 2).
    pub const MSS: u16 = 1;
    /// Window scale (kind 3).
    pub const SCALE: u16 = 2;
    /// SACK permitted (kind 4).
    pub const SACK_PERMITTED: u16 = 4;
    /// SACK blocks (kind 5).
    pub const SACK: u16 = 8;
    /// Timestamps (kind 8).
    pub const TIMESTAMPS: u16 = 16;
    /// TCP Fast Open (kind 34, or 254 with its magic).
    pub const FAST_OPEN: u16 = 32;
    /// Multipath TCP (kind 30).
    pub const MPTCP: u16 = 64;
    /// MD5 signature or TCP-AO (kinds 19, 29).
    pub const SIGNATURE: u16 = 128;
    /// Any other kind.
    pub const OTHER: u16 = 256;
}

/// Where below the IP header a packet came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Outermost VLAN identifier + 1; 0 = untagged.
    pub vlan: u16,
    /// Innermost tunnel.
    pub tunnel: Tunnel,
    /// Its identifier (VNI, TEID, GRE key, MPLS label, PPPoE session).
    pub tunnel_id: u32,
}

/// Encapsulations that are told apart; the innermost counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Tunnel {
    #[default]
    None,
    IpInIp,
    Gre,
    Vxlan,
    Geneve,
    GtpU,
    Mpls,
    Pppoe,
    Teredo,
}

impl Tunnel {
    /// The name used in tables.
    pub fn name(self) -> &'static str {
        ["", "ipip", "gre", "vxlan", "geneve", "gtpu", "mpls", "pppoe", "teredo"][self as usize]
    }
}

/// Descriptors in a row. Unlike a `Vec` it hands out the next place to be written, so that a descriptor is
/// not put together elsewhere and copied.
#[derive(Debug, Default)]
pub struct Packets {
    items: Vec<Packet>,
    used: usize,
}

impl Packets {
    /// The place of the next descriptor, with an old one in it; it counts once [`Self::keep`] is called.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> &mut Packet {
        if self.used >= self.items.len() {
            self.grow();
        }
        &mut self.items[self.used]
    }

    /// The place of the next descriptor, with the flow of the newest in it, and whether that one is
    /// [`mark::REVERSED`].
    #[inline(always)]
    pub(crate) fn repeat(&mut self) -> (&mut Packet, u16) {
        if self.used >= self.items.len() {
            self.grow();
        }
        let Packet { hash, key, marks, .. } = self.items[self.used.saturating_sub(1)];
        let next = &mut self.items[self.used];
        (next.hash, next.key) = (hash, key);
        (next, marks & mark::REVERSED)
    }

    /// Count the descriptor that was written.
    #[inline(always)]
    pub(crate) fn keep(&mut self) {
        self.used += 1;
    }

    /// Append a descriptor.
    pub fn push(&mut self, packet: Packet) {
        *self.next() = packet;
        self.keep();
    }

    #[cold]
    fn grow(&mut self) {
        self.items.resize((self.items.len() * 2).max(64), Packet::default());
    }
}

impl std::ops::Deref for Packets {
    type Target = [Packet];

    fn deref(&self) -> &[Packet] {
        &self.items[..self.used]
    }
}

/// A run of consecutive frames, decoded.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Number of its first frame, from 1.
    pub first_frame: u64,
    /// Frames in it.
    pub frames: u32,
    /// Descriptors in frame order.
    pub packets: Packets,
    /// Side table of `packets`.
    pub extras: Vec<Extra>,
    /// Side table of `packets`.
    pub origins: Vec<Origin>,
}

impl Chunk {
    /// Keep `extra`; what [`Packet::extra`] then says.
    pub(crate) fn attach(&mut self, extra: Extra) -> u32 {
        self.extras.push(extra);
        self.extras.len() as u32
    }

    /// Empty it for reuse, keeping the memory.
    pub fn clear(&mut self) {
        self.frames = 0;
        self.packets.used = 0;
        self.extras.clear();
        self.origins.clear();
    }
}
