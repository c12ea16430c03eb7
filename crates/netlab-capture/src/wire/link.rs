//! Link layers down to an EtherType or a bare IP datagram.

use super::{Decoder, Frame, Reason};
use crate::packet::{Chunk, Tunnel};
use crate::reader::array;

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array::<2>(bytes, at).map(|b| u16::from_be_bytes(*b))
}

impl Decoder {
    /// Decode by LINKTYPE_ number.
    pub(super) fn link(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        link: u16,
        data: &[u8],
        reported: u32,
    ) {
        match link {
            1 => self.ethernet(chunk, frame, data, reported),
            274 => self.after(chunk, frame, data, reported, 8, Self::ethernet),
            0 | 108 => self.loopback(chunk, frame, data, reported, link == 108),
            12 | 14 | 101 => self.bare_ip(chunk, frame, data, reported),
            228 => self.ipv4(chunk, frame, data, reported),
            229 => self.ipv6(chunk, frame, data, reported),
            113 => match be16(data, 14) {
                Some(kind) => self.cooked(chunk, frame, kind, &data[16..], reported.saturating_sub(16)),
                None => self.fail(Reason::CutLink),
            },
            276 => match be16(data, 0) {
                Some(kind) if data.len() >= 20 => {
                    self.cooked(chunk, frame, kind, &data[20..], reported.saturating_sub(20))
                }
                _ => self.fail(Reason::CutLink),
            },
            10 => self.after(chunk, frame, data, reported, 13, Self::llc),
            6 => self.token_ring(chunk, frame, data, reported),
            9 | 50 | 51 => self.ppp(chunk, frame, data, reported),
            104 => match be16(data, 2) {
                Some(kind) => self.ethertype(chunk, frame, kind, &data[4..], reported.saturating_sub(4)),
                None => self.fail(Reason::CutLink),
            },
            105 => self.wireless(chunk, frame, data, reported),
            127 => match array::<2>(data, 2).map(|b| usize::from(u16::from_le_bytes(*b))) {
                Some(skip) if skip >= 8 => self.after(chunk, frame, data, reported, skip, Self::wireless),
                _ => self.fail(Reason::CutLink),
            },
            239 => self.nflog(chunk, frame, data, reported),
            _ => {
                self.fail(Reason::UnknownLink);
                let known = &mut self.counts.unknown_links;
                match known.iter().position(|(kind, _)| *kind == link) {
                    Some(at) => known[at].1 += 1,
                    None if known.len() < 16 => known.push((link, 1)),
                    None => {}
                }
            }
        }
    }

    /// Go on with `next` behind `skip` bytes.
    fn after(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        data: &[u8],
        reported: u32,
        skip: usize,
        next: fn(&mut Self, &mut Chunk, &mut Frame, &[u8], u32),
    ) {
        match data.get(skip..) {
            Some(rest) => next(self, chunk, frame, rest, reported.saturating_sub(skip as u32)),
            None => self.fail(Reason::CutLink),
        }
    }

    /// Ethernet II or 802.3.
    pub(super) fn ethernet(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let Some(kind) = be16(data, 12) else { return self.fail(Reason::CutLink) };
        self.ethertype(chunk, frame, kind, &data[14..], reported.saturating_sub(14));
    }

    /// Behind an EtherType, or a length (802.3) with 802.2 behind it.
    pub(super) fn ethertype(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        kind: u16,
        data: &[u8],
        reported: u32,
    ) {
        if !self.deeper(frame) {
            return;
        }
        match kind {
            0x0800 => self.ipv4(chunk, frame, data, reported),
            0x86dd => self.ipv6(chunk, frame, data, reported),
            0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
                let Some(tag) = array::<4>(data, 0) else { return self.fail(Reason::CutLink) };
                if frame.origin.vlan == 0 {
                    frame.origin.vlan = (u16::from_be_bytes([tag[0], tag[1]]) & 0xfff) + 1;
                    self.counts.vlan += 1;
                }
                self.ethertype(
                    chunk,
                    frame,
                    u16::from_be_bytes([tag[2], tag[3]]),
                    &data[4..],
                    reported.saturating_sub(4),
                );
            }
            0x0806 | 0x8035 => self.counts.arp += 1,
            0x8847 | 0x8848 => self.mpls(chunk, frame, data, reported),
            0x8864 => self.pppoe(chunk, frame, data, reported),
            0x880b => self.ppp(chunk, frame, data, reported),
            0x6558 => self.ethernet(chunk, frame, data, reported),
            0x88be | 0x22eb => self.erspan(chunk, frame, kind, data, reported),
            0..=1500 => self.llc(chunk, frame, data, reported.min(u32::from(kind))),
            _ => self.fail(Reason::UnknownEtherType),
        }
    }

    /// 802.2: SNAP carries an EtherType, SAP 06 is IP; spanning tree and the like are not IP.
    fn llc(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        match data {
            [0xaa, 0xaa, 3, oui @ ..] if oui.len() >= 5 => {
                let kind = u16::from_be_bytes([oui[3], oui[4]]);
                let rest = reported.saturating_sub(8);
                match (oui[0], oui[1], oui[2]) {
                    (0, 0, 0) | (0, 0, 0xf8) => self.ethertype(chunk, frame, kind, &data[8..], rest),
                    _ => self.fail(Reason::NotIp),
                }
            }
            [6, 6, 3, ip @ ..] => self.ipv4(chunk, frame, ip, reported.saturating_sub(3)),
            [_, _, _, ..] => self.fail(Reason::NotIp),
            _ => self.fail(Reason::CutLink),
        }
    }

    /// Linux cooked captures: the protocol field is an EtherType except for a few small numbers.
    fn cooked(&mut self, chunk: &mut Chunk, frame: &mut Frame, kind: u16, data: &[u8], reported: u32) {
        match kind {
            4 => self.llc(chunk, frame, data, reported),
            0..=1500 => self.fail(Reason::NotIp),
            _ => self.ethertype(chunk, frame, kind, data, reported),
        }
    }

    /// BSD loopback: a 32-bit address family, in the byte order of the capturing machine or (LOOP) of the network.
    fn loopback(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        data: &[u8],
        reported: u32,
        network_order: bool,
    ) {
        let Some(family) = array::<4>(data, 0) else { return self.fail(Reason::CutLink) };
        let mut number = u32::from_be_bytes(*family);
        if !network_order && number & 0xffff_0000 != 0 {
            number = u32::from_le_bytes(*family);
        }
        let (rest, reported) = (&data[4..], reported.saturating_sub(4));
        match number {
            2 => self.ipv4(chunk, frame, rest, reported),
            10 | 24 | 28 | 30 => self.ipv6(chunk, frame, rest, reported),
            0x600..=0xffff => self.ethertype(chunk, frame, number as u16, rest, reported),
            _ => self.fail(Reason::NotIp),
        }
    }

    /// The version nibble says which IP.
    pub(super) fn bare_ip(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        match data.first().map(|b| b >> 4) {
            Some(4) => self.ipv4(chunk, frame, data, reported),
            Some(6) => self.ipv6(chunk, frame, data, reported),
            Some(_) => self.fail(Reason::BadVersion),
            None => self.fail(Reason::CutNetwork),
        }
    }

    /// 802.5 with an optional source-routing field.
    fn token_ring(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let Some(head) = array::<16>(data, 0) else { return self.fail(Reason::CutLink) };
        let routing = if head[8] & 0x80 == 0 { 0 } else { usize::from(head[14] & 0x1f) };
        self.after(chunk, frame, data, reported, 14 + routing, Self::llc);
    }

    /// PPP with or without address and control, one- or two-byte protocol (RFC 1661, RFC 1662).
    pub(super) fn ppp(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let skip = if data.starts_with(&[0xff, 3]) { 2 } else { 0 };
        let (kind, used) = match data.get(skip..) {
            Some([first, ..]) if first & 1 == 1 => (u16::from(*first), 1),
            Some([first, second, ..]) => (u16::from_be_bytes([*first, *second]), 2),
            _ => return self.fail(Reason::CutLink),
        };
        let (rest, reported) = (&data[skip + used..], reported.saturating_sub((skip + used) as u32));
        match kind {
            0x0021 => self.ipv4(chunk, frame, rest, reported),
            0x0057 => self.ipv6(chunk, frame, rest, reported),
            0x0281 | 0x0283 => self.mpls(chunk, frame, rest, reported),
            _ => self.fail(Reason::NotIp),
        }
    }

    /// PPPoE session (RFC 2516): its length field bounds the payload.
    fn pppoe(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let Some(head) = array::<6>(data, 0) else { return self.fail(Reason::CutLink) };
        if head[0] != 0x11 || head[1] != 0 {
            return self.fail(Reason::NotIp);
        }
        frame.origin.tunnel = Tunnel::Pppoe;
        frame.origin.tunnel_id = u32::from(u16::from_be_bytes([head[2], head[3]]));
        let length = u32::from(u16::from_be_bytes([head[4], head[5]]));
        self.ppp(chunk, frame, &data[6..], reported.saturating_sub(6).min(length));
    }

    /// MPLS labels down to the bottom of the stack; the first nibble behind tells IP from a pseudowire.
    fn mpls(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let mut at = 0;
        loop {
            let Some(label) = array::<4>(data, at) else { return self.fail(Reason::CutLink) };
            at += 4;
            let word = u32::from_be_bytes(*label);
            frame.origin.tunnel = Tunnel::Mpls;
            frame.origin.tunnel_id = word >> 12;
            if word & 0x100 != 0 {
                break;
            }
            if at > 4 * 32 {
                return self.fail(Reason::TooDeep);
            }
        }
        let (rest, reported) = (&data[at..], reported.saturating_sub(at as u32));
        match rest.first().map(|b| b >> 4) {
            Some(4) => self.ipv4(chunk, frame, rest, reported),
            Some(6) => self.ipv6(chunk, frame, rest, reported),
            Some(0) => self.after(chunk, frame, rest, reported, 4, Self::ethernet),
            Some(_) => self.fail(Reason::NotIp),
            None => self.fail(Reason::CutLink),
        }
    }

    /// 802.11 data frames that are not encrypted.
    fn wireless(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let Some(control) = array::<2>(data, 0) else { return self.fail(Reason::CutLink) };
        if control[0] & 0x0c != 8 || control[0] & 0x40 != 0 {
            return self.fail(Reason::NotIp);
        }
        if control[1] & 0x40 != 0 {
            return self.fail(Reason::Encrypted);
        }
        let four = if control[1] & 3 == 3 { 6 } else { 0 };
        let quality = if control[0] & 0x80 == 0 {
            0
        } else if control[1] & 0x80 == 0 {
            2
        } else {
            6
        };
        self.after(chunk, frame, data, reported, 24 + four + quality, Self::llc);
    }

    /// Netfilter's log: attributes, of which number 9 is the packet.
    fn nflog(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let mut at = 4;
        while let Some(head) = array::<4>(data, at) {
            let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
            if length < 4 {
                return self.fail(Reason::BadLength);
            }
            if u16::from_le_bytes([head[2], head[3]]) & 0x7fff == 9 {
                let behind = reported.saturating_sub(at as u32 + 4).min(length as u32 - 4);
                let rest = &data[at + 4..];
                return self.bare_ip(chunk, frame, &rest[..rest.len().min(length - 4)], behind);
            }
            at += length.next_multiple_of(4);
        }
        self.fail(Reason::CutLink);
    }
}
