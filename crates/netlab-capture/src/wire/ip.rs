//! IPv4 (RFC 791) and IPv6 (RFC 8200) with extension headers and fragments.

use super::fragments::Identity;
use super::{Datagram, Decoder, Frame, Reason};
use crate::packet::{Chunk, Tunnel, mark, proto};
use crate::reader::array;

/// An IP header with what lies behind it.
pub(super) struct Split<'a> {
    pub datagram: Datagram,
    pub payload: &'a [u8],
    /// Octets of payload on the wire.
    pub reported: u32,
    /// Fragment: identification, offset in octets, more to come.
    pub fragment: Option<(u32, u32, bool)>,
    pub congestion: bool,
}

fn v6(bytes: &[u8; 16]) -> [u64; 2] {
    let wide = u128::from_be_bytes(*bytes);
    [(wide >> 64) as u64, wide as u64]
}

/// Read an IPv4 header. Total length 0 (segmentation offload) means to the end of the frame.
pub(super) fn split_v4(data: &[u8], reported: u32) -> Result<Split<'_>, Reason> {
    let head = array::<20>(data, 0).ok_or(Reason::CutNetwork)?;
    if head[0] >> 4 != 4 {
        return Err(Reason::BadVersion);
    }
    let header = usize::from(head[0] & 15) * 4;
    if header < 20 {
        return Err(Reason::BadHeader);
    }
    let word = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let total = match u32::from(word(2)) {
        0 => reported,
        total => total.min(reported),
    };
    if total < header as u32 {
        return Err(Reason::BadLength);
    }
    let payload = data.get(header..).ok_or(Reason::CutNetwork)?;
    let fragment = word(6);
    let offset = u32::from(fragment & 0x1fff) * 8;
    let more = fragment & 0x2000 != 0;
    let address =
        |i: usize| [u64::from(u32::from_be_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]])), 0];
    Ok(Split {
        datagram: Datagram {
            source: address(12),
            destination: address(16),
            version: 4,
            proto: head[9],
            ttl: head[8],
            id: word(4),
            ip_bytes: total,
        },
        payload: &payload[..payload.len().min(total as usize - header)],
        reported: total - header as u32,
        fragment: (more || offset != 0).then_some((u32::from(word(4)), offset, more)),
        congestion: head[1] & 3 == 3,
    })
}

/// The final destination that a routing header with segments left names: what the transport's checksum
/// and its endpoints see (RFC 8200 §8.1). Source routes (RFC 5095 deprecates them), mobility (RFC 6275
/// §6.4), RPL (RFC 6554 §3) and segment routing (RFC 8754 §2, whose list stands backwards).
fn final_destination(header: &[u8], given: [u64; 2]) -> Option<[u64; 2]> {
    let head = array::<8>(header, 0)?;
    if head[3] == 0 {
        return None;
    }
    match head[2] {
        0 if header.len() >= 24 => array(header, header.len() - 16).map(v6),
        2 | 4 => array(header, 8).map(v6),
        3 => {
            // The last address leaves out its first `elided` octets, which are those of the destination.
            let (elided, padding) = (usize::from(head[4] & 15), usize::from(head[5] >> 4));
            let start = header.len().checked_sub(padding + 16 - elided).filter(|&start| start >= 8)?;
            let mut address = (u128::from(given[0]) << 64 | u128::from(given[1])).to_be_bytes();
            address[elided..].copy_from_slice(header.get(start..start + 16 - elided)?);
            Some(v6(&address))
        }
        _ => None,
    }
}

/// The home address that a mobile node puts into a destination options header; it is the source for
/// everything above (RFC 6275 §6.3).
fn home_address(header: &[u8]) -> Option<[u64; 2]> {
    let mut at = 2;
    loop {
        match *header.get(at)? {
            0 => at += 1,
            0xc9 if header.get(at + 1) == Some(&16) => return array(header, at + 2).map(v6),
            _ => at += 2 + usize::from(*header.get(at + 1)?),
        }
    }
}

/// Read an IPv6 header and its extension headers (at most 16).
pub(super) fn split_v6(data: &[u8], reported: u32) -> Result<Split<'_>, Reason> {
    let head = array::<40>(data, 0).ok_or(Reason::CutNetwork)?;
    if head[0] >> 4 != 6 {
        return Err(Reason::BadVersion);
    }
    let mut left = match u32::from(u16::from_be_bytes([head[4], head[5]])) {
        0 => reported.saturating_sub(40),
        length => length.min(reported.saturating_sub(40)),
    };
    let ip_bytes = left.saturating_add(40);
    let address = |i: usize| array::<16>(head, i).map_or([0; 2], v6);
    let (mut source, mut destination) = (address(8), address(24));
    let mut payload = &data[40..];
    payload = &payload[..payload.len().min(left as usize)];
    let mut next = head[6];
    let mut fragment = None;
    for _ in 0..16 {
        let size = match next {
            0 | 43 | 60 | 135 | 139 | 140 => {
                let head = array::<2>(payload, 0).ok_or(Reason::CutNetwork)?;
                (usize::from(head[1]) + 1) * 8
            }
            51 => {
                let head = array::<2>(payload, 0).ok_or(Reason::CutNetwork)?;
                (usize::from(head[1]) + 2) * 4
            }
            44 => {
                let head = array::<8>(payload, 0).ok_or(Reason::CutNetwork)?;
                let word = u16::from_be_bytes([head[2], head[3]]);
                let id = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                if word & 0xfff9 != 0 {
                    fragment = Some((id, u32::from(word & 0xfff8), word & 1 != 0));
                }
                8
            }
            _ => break,
        };
        if size as u32 > left {
            return Err(Reason::BadLength);
        }
        let header = payload.get(..size).ok_or(Reason::CutNetwork)?;
        match next {
            43 => destination = final_destination(header, destination).unwrap_or(destination),
            60 => source = home_address(header).unwrap_or(source),
            _ => {}
        }
        next = header.first().copied().unwrap_or(59);
        payload = payload.get(size..).unwrap_or(&[]);
        left -= size as u32;
        if fragment.is_some_and(|(_, offset, _)| offset != 0) {
            break;
        }
    }
    Ok(Split {
        datagram: Datagram { source, destination, version: 6, proto: next, ttl: head[7], id: 0, ip_bytes },
        payload,
        reported: left,
        fragment,
        congestion: head[1] & 0x30 == 0x30,
    })
}

impl Decoder {
    pub(super) fn ipv4(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        match split_v4(data, reported) {
            Ok(split) => self.datagram(chunk, frame, split),
            Err(reason) => self.fail(reason),
        }
    }

    pub(super) fn ipv6(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        match split_v6(data, reported) {
            Ok(split) => self.datagram(chunk, frame, split),
            Err(reason) => self.fail(reason),
        }
    }

    fn datagram(&mut self, chunk: &mut Chunk, frame: &mut Frame, split: Split<'_>) {
        if !self.deeper(frame) {
            return;
        }
        let Split { datagram, payload, reported, fragment, congestion } = split;
        frame.marks = frame.marks & !mark::CE | if congestion { mark::CE } else { 0 };
        let Some((id, offset, more)) = fragment else {
            return self.transport(chunk, frame, &datagram, payload, reported);
        };
        self.counts.fragments += 1;
        if (payload.len() as u32) < reported {
            // A cut fragment cannot be put together; a first one is still looked at on its own.
            if offset == 0 {
                frame.marks |= mark::FRAGMENT;
                self.transport(chunk, frame, &datagram, payload, reported);
                frame.marks &= !mark::FRAGMENT;
            }
            return;
        }
        let identity = Identity {
            source: datagram.source,
            destination: datagram.destination,
            id,
            proto: if datagram.version == 4 { datagram.proto } else { 0 },
        };
        let outcome = self.fragments.add(identity, offset, more, payload, datagram.proto);
        self.counts.fragments_dropped += outcome.dropped;
        if let Some(whole) = outcome.whole {
            self.counts.reassembled += 1;
            frame.marks |= mark::REASSEMBLED;
            let header = datagram.ip_bytes - reported;
            let datagram =
                Datagram { ip_bytes: header.saturating_add(whole.length), proto: whole.proto, ..datagram };
            self.transport(chunk, frame, &datagram, whole.head(), whole.length);
            frame.marks &= !mark::REASSEMBLED;
        }
    }

    /// IP protocols that carry another packet.
    pub(super) fn ip_payload(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        protocol: u8,
        data: &[u8],
        reported: u32,
    ) {
        match protocol {
            4 | 41 => {
                frame.origin.tunnel = Tunnel::IpInIp;
                frame.origin.tunnel_id = 0;
                if protocol == 4 {
                    self.ipv4(chunk, frame, data, reported)
                } else {
                    self.ipv6(chunk, frame, data, reported)
                }
            }
            47 => self.gre(chunk, frame, data, reported),
            137 => self.ethertype(chunk, frame, 0x8847, data, reported),
            51 => {
                let Some(head) = array::<2>(data, 0) else { return self.fail(Reason::CutTransport) };
                let size = (usize::from(head[1]) + 2) * 4;
                if let (4 | 41, Some(rest)) = (head[0], data.get(size..)) {
                    self.ip_payload(chunk, frame, head[0], rest, reported.saturating_sub(size as u32));
                }
            }
            _ => {}
        }
    }

    /// Whether a protocol has ports in its first four octets.
    pub(super) fn has_ports(protocol: u8) -> bool {
        matches!(protocol, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP)
    }
}
