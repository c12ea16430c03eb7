//! The few header fields a link needs of a frame: what it is, whose it is, how to mark or damage it.
//!
//! Reading never fails: a frame that is short or odd is `Kind::Other` with zeros in its digest.

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What a frame is, as far as exact rules and statistics care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Neither TCP, UDP nor ICMP, or too short to tell.
    #[default]
    Other,
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An ICMP or ICMPv6 message that is not neighbour or group upkeep.
    Icmp,
    /// ARP, neighbour and router discovery, group membership: traffic nobody asked for.
    Chatter,
}

/// The header fields of one frame that the journal keeps and rules match on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Source address: the IPv4 address, or the four words of an IPv6 address folded by XOR.
    pub source: u32,
    /// Destination address, as `source`.
    pub destination: u32,
    /// TCP or UDP source port; identifier of an ICMP echo.
    pub source_port: u16,
    /// TCP or UDP destination port; sequence number of an ICMP echo.
    pub destination_port: u16,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// Octets above the transport header, from the IP length (not counting Ethernet padding).
    pub payload: u16,
    /// TCP flags, or the ICMP type.
    pub flags: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// 4, 6, or 0 when the frame is not IP.
    pub version: u8,
    /// What the frame is.
    pub kind: Kind,
    /// Offset in octets of the first octet a corruption should hit (payload if there is any).
    pub damage_from: u16,
    /// Offset in octets of the IP header, 0 when the frame is not IP.
    pub network: u16,
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn be32(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

fn fold(frame: &[u8], at: usize) -> Option<u32> {
    Some(be32(frame, at)? ^ be32(frame, at + 4)? ^ be32(frame, at + 8)? ^ be32(frame, at + 12)?)
}

impl Digest {
    /// Read what can be read of an Ethernet `frame`.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        let mut digest = Self { damage_from: 14, kind: Kind::Chatter, ..Self::default() };
        // A frame that ends early keeps what was read up to there.
        let _ = digest.read(frame);
        digest
    }

    fn read(&mut self, frame: &[u8]) -> Option<()> {
        let mut at = 12;
        let mut ethertype = be16(frame, at)?;
        for _ in 0..2 {
            if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
                at += 4;
                ethertype = be16(frame, at)?;
            }
        }
        let ip = at + 2;
        self.damage_from = ip as u16;
        let (transport, end) = match ethertype {
            ETHERTYPE_IPV4 => self.read_ipv4(frame, ip)?,
            ETHERTYPE_IPV6 => self.read_ipv6(frame, ip)?,
            _ => return None,
        };
        self.damage_from = transport as u16;
        self.read_transport(frame, transport, end)
    }

    fn read_ipv4(&mut self, frame: &[u8], ip: usize) -> Option<(usize, usize)> {
        let header = usize::from(frame.get(ip)? & 15) * 4;
        let end = ip + usize::from(be16(frame, ip + 2)?);
        self.kind = Kind::Other;
        self.version = 4;
        self.network = ip as u16;
        self.protocol = *frame.get(ip + 9)?;
        self.source = be32(frame, ip + 12)?;
        self.destination = be32(frame, ip + 16)?;
        if self.protocol == 2 {
            self.kind = Kind::Chatter; // IGMP
        }
        // A later fragment (RFC 791 §3.1) has no transport header to read.
        (be16(frame, ip + 6)? & 0x1fff == 0).then_some((ip + header, end))
    }

    fn read_ipv6(&mut self, frame: &[u8], ip: usize) -> Option<(usize, usize)> {
        let end = ip + 40 + usize::from(be16(frame, ip + 4)?);
        self.kind = Kind::Other;
        self.version = 6;
        self.network = ip as u16;
        self.source = fold(frame, ip + 8)?;
        self.destination = fold(frame, ip + 24)?;
        let mut next = *frame.get(ip + 6)?;
        let mut at = ip + 40;
        // RFC 8200 §4: hop-by-hop, routing, fragment and destination options; eight is plenty.
        for _ in 0..8 {
            self.protocol = next;
            match next {
                0 | 43 | 60 => {
                    next = *frame.get(at)?;
                    at += 8 + 8 * usize::from(*frame.get(at + 1)?);
                }
                44 => {
                    next = *frame.get(at)?;
                    self.protocol = next;
                    if be16(frame, at + 2)? & 0xfff8 != 0 {
                        return None;
                    }
                    at += 8;
                }
                _ => return Some((at, end)),
            }
        }
        None
    }

    fn read_transport(&mut self, frame: &[u8], at: usize, end: usize) -> Option<()> {
        match self.protocol {
            6 => {
                self.kind = Kind::Tcp;
                self.ports(frame, at)?;
                self.seq = be32(frame, at + 4)?;
                self.ack = be32(frame, at + 8)?;
                let header = usize::from(frame.get(at + 12)? >> 4) * 4;
                self.flags = *frame.get(at + 13)?;
                self.payload = end.saturating_sub(at + header) as u16;
                if self.payload > 0 {
                    self.damage_from = (at + header) as u16;
                }
            }
            17 => {
                self.kind = Kind::Udp;
                self.ports(frame, at)?;
                self.payload = end.saturating_sub(at + 8) as u16;
                if self.payload > 0 {
                    self.damage_from = (at + 8) as u16;
                }
            }
            1 | 58 => {
                self.flags = *frame.get(at)?;
                // RFC 2710, 3810 (MLD) and 4861 (neighbour discovery): 130-137 and 143.
                let upkeep = self.protocol == 58 && (matches!(self.flags, 130..=137) || self.flags == 143);
                self.kind = if upkeep { Kind::Chatter } else { Kind::Icmp };
                self.payload = end.saturating_sub(at + 8) as u16;
                self.source_port = be16(frame, at + 4)?;
                self.destination_port = be16(frame, at + 6)?;
                if self.payload > 0 {
                    self.damage_from = (at + 8) as u16;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn ports(&mut self, frame: &[u8], at: usize) -> Option<()> {
        self.source_port = be16(frame, at)?;
        self.destination_port = be16(frame, at + 2)?;
        Some(())
    }

    /// A hash of the five-tuple under `key`; the same for every packet of a flow in one direction.
    #[must_use]
    pub fn flow_hash(&self, key: u64) -> u64 {
        let addresses = u64::from(self.source) << 32 | u64::from(self.destination);
        let mut ports = u64::from(self.source_port) << 16 | u64::from(self.destination_port);
        if self.kind == Kind::Icmp {
            ports &= 0xffff_0000; // the echo's sequence number is not part of its flow
        }
        let rest = ports << 16 | u64::from(self.protocol) << 8 | u64::from(self.version);
        crate::rng::mix(crate::rng::mix(addresses ^ key).wrapping_add(rest) ^ key)
    }

    /// Whether the segment opens a connection (SYN without ACK).
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.flags & (SYN | ACK) == SYN
    }

    /// Whether the segment answers an opening (SYN and ACK).
    #[must_use]
    pub const fn is_synack(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.flags & (SYN | ACK) == SYN | ACK
    }

    /// Whether the segment carries FIN.
    #[must_use]
    pub const fn is_fin(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.flags & FIN != 0
    }

    /// Whether the segment carries RST.
    #[must_use]
    pub const fn is_rst(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.flags & RST != 0
    }

    /// Whether the segment carries payload.
    #[must_use]
    pub const fn is_tcp_data(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.payload > 0
    }

    /// Whether the segment acknowledges and does nothing else.
    #[must_use]
    pub const fn is_pure_ack(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.payload == 0 && self.flags & (FIN | SYN | RST | ACK) == ACK
    }
}

/// Set Congestion Experienced on an ECN-capable packet (RFC 3168 §5); false when it is not capable.
///
/// The IPv4 header checksum is updated as RFC 1624 §3 says.
pub fn mark_congestion(frame: &mut [u8], digest: &Digest) -> bool {
    let ip = usize::from(digest.network);
    match digest.version {
        4 => {
            let (Some(word), Some(sum)) = (be16(frame, ip), be16(frame, ip + 10)) else { return false };
            if word & 3 == 0 {
                return false;
            }
            let marked = word | 3;
            let mut fresh = u32::from(!sum) + u32::from(!word) + u32::from(marked);
            fresh = (fresh & 0xffff) + (fresh >> 16);
            fresh = (fresh & 0xffff) + (fresh >> 16);
            frame[ip..ip + 2].copy_from_slice(&marked.to_be_bytes());
            frame[ip + 10..ip + 12].copy_from_slice(&(!(fresh as u16)).to_be_bytes());
            true
        }
        6 => {
            let Some(octet) = frame.get_mut(ip + 1) else { return false };
            if *octet & 0x30 == 0 {
                return false;
            }
            *octet |= 0x30;
            true
        }
        _ => false,
    }
}

/// Frames for tests, with valid IPv4 headers.
#[cfg(test)]
pub(crate) mod craft {
    /// An Ethernet frame of IPv4 with `protocol` and the given transport octets.
    pub fn ipv4(protocol: u8, tos: u8, transport: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let total = (20 + transport.len()) as u16;
        let mut ip = vec![0x45, tos, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(transport);
        frame
    }

    /// The Internet checksum (RFC 1071) of `octets`.
    pub fn checksum(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// A TCP segment in a frame; `payload` octets of zero.
    pub fn tcp(source_port: u16, flags: u8, seq: u32, payload: usize) -> Vec<u8> {
        tcp_ecn(source_port, flags, seq, payload, 0)
    }

    /// A TCP segment with the given ECN bits.
    pub fn tcp_ecn(source_port: u16, flags: u8, seq: u32, payload: usize, tos: u8) -> Vec<u8> {
        let mut segment = vec![0u8; 20 + payload];
        segment[0..2].copy_from_slice(&source_port.to_be_bytes());
        segment[2..4].copy_from_slice(&80u16.to_be_bytes());
        segment[4..8].copy_from_slice(&seq.to_be_bytes());
        segment[12] = 5 << 4;
        segment[13] = flags;
        ipv4(6, tos, &segment)
    }

    /// A UDP datagram in a frame.
    pub fn udp(source_port: u16, payload: usize) -> Vec<u8> {
        let mut datagram = vec![0u8; 8 + payload];
        datagram[0..2].copy_from_slice(&source_port.to_be_bytes());
        datagram[2..4].copy_from_slice(&53u16.to_be_bytes());
        ipv4(17, 0, &datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_fields_are_read() {
        let digest = Digest::of(&craft::tcp(4000, 0x18, 77, 100));
        assert_eq!(
            (digest.version, digest.protocol, digest.source_port, digest.destination_port),
            (4, 6, 4000, 80)
        );
        assert_eq!((digest.seq, digest.payload, digest.flags), (77, 100, 0x18));
        assert!(digest.is_tcp_data() && !digest.is_pure_ack());
        assert_eq!(usize::from(digest.damage_from), 14 + 20 + 20);
    }

    #[test]
    fn segments_are_told_apart_by_flags() {
        let of = |flags, payload| Digest::of(&craft::tcp(1, flags, 0, payload));
        assert!(of(2, 0).is_syn() && !of(2, 0).is_synack());
        assert!(of(0x12, 0).is_synack() && !of(0x12, 0).is_syn() && !of(0x12, 0).is_pure_ack());
        assert!(of(0x11, 0).is_fin() && !of(0x11, 0).is_pure_ack());
        assert!(of(0x14, 0).is_rst());
        assert!(of(0x10, 0).is_pure_ack() && !of(0x10, 1).is_pure_ack());
    }

    #[test]
    fn padding_is_not_payload() {
        let mut frame = craft::tcp(1, 0x10, 0, 0);
        frame.resize(60, 0);
        assert!(Digest::of(&frame).is_pure_ack());
    }

    #[test]
    fn ipv6_behind_a_vlan_and_an_extension_header_is_read() {
        let mut frame = vec![0u8; 12];
        frame.extend([0x81, 0, 0, 5, 0x86, 0xdd]);
        let mut ip = vec![0x60, 0, 0, 0, 0, 8 + 20, 60, 64];
        ip.extend([1u8; 16]);
        ip.extend([2u8; 16]);
        frame.extend(ip);
        frame.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        let mut segment = [0u8; 20];
        segment[12] = 5 << 4;
        segment[13] = 2;
        frame.extend(segment);
        let digest = Digest::of(&frame);
        assert!(digest.is_syn());
        assert_eq!((digest.version, digest.network), (6, 18));
    }

    #[test]
    fn arp_and_neighbour_discovery_are_chatter() {
        let mut arp = vec![0u8; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(Digest::of(&arp).kind, Kind::Chatter);
        let mut frame = vec![0u8; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255]);
        frame.extend([0u8; 32]);
        frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Digest::of(&frame).kind, Kind::Chatter);
    }

    #[test]
    fn every_prefix_is_read_without_panic() {
        let frame = craft::tcp(1, 0x18, 0, 30);
        for end in 0..=frame.len() {
            let _ = Digest::of(&frame[..end]);
        }
    }

    #[test]
    fn marking_keeps_the_ipv4_checksum_valid() {
        for ecn in 0..4u8 {
            let mut frame = craft::tcp_ecn(1, 0x10, 0, 10, 0xb8 | ecn);
            let digest = Digest::of(&frame);
            assert_eq!(mark_congestion(&mut frame, &digest), ecn != 0);
            assert_eq!(craft::checksum(&frame[14..34]), 0, "ecn {ecn}");
            assert_eq!(frame[15] & 3, if ecn == 0 { 0 } else { 3 });
        }
    }

    #[test]
    fn a_flow_hashes_alike_and_ports_tell_flows_apart() {
        let hash = |port, seq| Digest::of(&craft::tcp(port, 0x10, seq, 5)).flow_hash(9);
        assert_eq!(hash(1, 0), hash(1, 999));
        assert_ne!(hash(1, 0), hash(2, 0));
    }
}
