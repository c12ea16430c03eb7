//! Tunnels: GRE, ERSPAN, VXLAN, Geneve, GTP-U, Teredo. Inner headers are flows in their own right.

use super::{Decoder, Frame, Reason};
use crate::packet::{Chunk, Tunnel};
use crate::reader::array;

impl Decoder {
    /// GRE (RFC 2784, 2890) and its PPTP variant (RFC 2637).
    pub(super) fn gre(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let Some(head) = array::<4>(data, 0) else { return self.fail(Reason::CutTransport) };
        let (flags, version) = (head[0], head[1] & 7);
        let kind = u16::from_be_bytes([head[2], head[3]]);
        let mut at = 4;
        if flags & 0xc0 != 0 {
            at += 4;
        }
        let mut key = 0;
        if flags & 0x20 != 0 {
            key = array::<4>(data, at).map_or(0, |b| u32::from_be_bytes(*b));
            at += 4;
        }
        if flags & 0x10 != 0 {
            at += 4;
        }
        if version == 1 && head[1] & 0x80 != 0 {
            at += 4;
        }
        let Some(rest) = data.get(at..) else { return self.fail(Reason::CutTransport) };
        if flags & 0x40 != 0 || version > 1 {
            return self.fail(Reason::BadTransport);
        }
        frame.origin.tunnel = Tunnel::Gre;
        frame.origin.tunnel_id = key;
        let left = reported.saturating_sub(at as u32);
        if left == 0 {
            return;
        }
        if kind == 0x88be && flags & 0x10 == 0 {
            // ERSPAN type I has no header of its own.
            return self.ethernet(chunk, frame, rest, left);
        }
        self.ethertype(chunk, frame, kind, rest, left);
    }

    /// ERSPAN types II (8 octets) and III (12, and 8 more when flagged): mirrored Ethernet frames.
    pub(super) fn erspan(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        kind: u16,
        data: &[u8],
        reported: u32,
    ) {
        let Some(head) = array::<4>(data, 0) else { return self.fail(Reason::CutTransport) };
        let size = match (kind, head[0] >> 4) {
            (0x88be, 1) => 8,
            (0x22eb | 0x88be, 2) => {
                let Some(flags) = data.get(11) else { return self.fail(Reason::CutTransport) };
                if flags & 1 == 0 { 12 } else { 20 }
            }
            _ => return self.fail(Reason::BadTransport),
        };
        match data.get(size..) {
            Some(rest) => self.ethernet(chunk, frame, rest, reported.saturating_sub(size as u32)),
            None => self.fail(Reason::CutTransport),
        }
    }

    /// What a UDP payload carries, by the ports under which these tunnels are registered.
    pub(super) fn udp_payload(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        (source, destination): (u16, u16),
        data: &[u8],
        reported: u32,
    ) {
        let either = |port: u16| source == port || destination == port;
        if either(4789) || either(8472) {
            let Some(head) = array::<8>(data, 0) else { return };
            frame.origin.tunnel = Tunnel::Vxlan;
            frame.origin.tunnel_id = u32::from_be_bytes([0, head[4], head[5], head[6]]);
            self.inner(chunk, frame, 0x6558, &data[8..], reported.saturating_sub(8));
        } else if either(4790) {
            let Some(head) = array::<8>(data, 0) else { return };
            let kind = match head[3] {
                1 => 0x0800,
                2 => 0x86dd,
                3 => 0x6558,
                5 => 0x8847,
                _ => return,
            };
            frame.origin.tunnel = Tunnel::Vxlan;
            frame.origin.tunnel_id = u32::from_be_bytes([0, head[4], head[5], head[6]]);
            self.inner(chunk, frame, kind, &data[8..], reported.saturating_sub(8));
        } else if either(6081) {
            let Some(head) = array::<8>(data, 0) else { return };
            let size = 8 + usize::from(head[0] & 0x3f) * 4;
            let Some(rest) = data.get(size..) else { return };
            frame.origin.tunnel = Tunnel::Geneve;
            frame.origin.tunnel_id = u32::from_be_bytes([0, head[4], head[5], head[6]]);
            let kind = u16::from_be_bytes([head[2], head[3]]);
            self.inner(chunk, frame, kind, rest, reported.saturating_sub(size as u32));
        } else if either(2152) {
            self.gtp(chunk, frame, data, reported);
        } else if either(3544) {
            self.teredo(chunk, frame, data, reported);
        }
    }

    fn inner(&mut self, chunk: &mut Chunk, frame: &mut Frame, kind: u16, data: &[u8], reported: u32) {
        if reported > 0 {
            self.ethertype(chunk, frame, kind, data, reported);
        }
    }

    /// GTP-U (3GPP TS 29.281): version 1, message 255 carries an IP packet.
    fn gtp(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let Some(head) = array::<8>(data, 0) else { return };
        if head[0] >> 5 != 1 || head[0] & 0x10 == 0 || head[1] != 255 {
            return;
        }
        let mut at = 8;
        if head[0] & 7 != 0 {
            let Some(optional) = array::<4>(data, at) else { return };
            at += 4;
            let mut next = if head[0] & 4 != 0 { optional[3] } else { 0 };
            while next != 0 {
                let Some(&units) = data.get(at) else { return };
                let size = usize::from(units) * 4;
                let Some(&following) = data.get(at + size.max(1) - 1) else { return };
                if size == 0 {
                    return;
                }
                next = following;
                at += size;
            }
        }
        let Some(rest) = data.get(at..) else { return };
        if !matches!(rest.first().map(|b| b >> 4), Some(4 | 6)) {
            return;
        }
        frame.origin.tunnel = Tunnel::GtpU;
        frame.origin.tunnel_id = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        self.bare_ip(chunk, frame, rest, reported.saturating_sub(at as u32));
    }

    /// Teredo (RFC 4380 §5.1.1): optional authentication and origin indications, then IPv6.
    fn teredo(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], reported: u32) {
        let mut at = 0;
        if data.starts_with(&[0, 1]) {
            let Some(head) = array::<4>(data, 0) else { return };
            at += 13 + usize::from(head[2]) + usize::from(head[3]);
        }
        if data.get(at..).is_some_and(|rest| rest.starts_with(&[0, 0])) {
            at += 8;
        }
        let Some(rest) = data.get(at..) else { return };
        if rest.first().map(|b| b >> 4) == Some(6) {
            frame.origin.tunnel = Tunnel::Teredo;
            frame.origin.tunnel_id = 0;
            self.ipv6(chunk, frame, rest, reported.saturating_sub(at as u32));
        }
    }
}
