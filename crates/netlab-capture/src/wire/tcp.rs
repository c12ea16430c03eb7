//! The TCP header (RFC 9293 §3.1) and its options.

use super::{Datagram, Decoder, Frame, Reason};
use crate::packet::{Chunk, Extra, mark, option};
use crate::reader::array;

impl Decoder {
    pub(super) fn tcp(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        datagram: &Datagram,
        data: &[u8],
        reported: u32,
    ) {
        // Sixteen octets reach to the window; checksum and urgent pointer are not needed.
        let Some(head) = array::<16>(data, 0) else { return self.fail(Reason::CutTransport) };
        let word = |i: usize| u32::from_be_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let mut packet = self.packet(frame, datagram, word(0));
        packet.seq = word(4);
        packet.ack = word(8);
        packet.flags = u16::from_be_bytes([head[12], head[13]]) & 0xfff;
        packet.window = u16::from_be_bytes([head[14], head[15]]);
        let offset = usize::from(head[12] >> 4) * 4;
        if offset < 20 {
            self.fail(Reason::BadTransport);
            packet.marks |= mark::BOGUS;
            return self.emit(chunk, frame, packet);
        }
        if reported < offset as u32 {
            packet.marks |= mark::NO_LENGTH;
        }
        packet.len = reported.saturating_sub(offset as u32);
        if data.len() < offset {
            packet.marks |= mark::OPTIONS_CUT;
        }
        if offset > 20 {
            let (marks, extra) = self.options(chunk, data.get(20..offset.min(data.len())).unwrap_or(&[]));
            packet.marks |= marks;
            packet.extra = extra;
        }
        if self.checksums && packet.marks & (mark::NO_LENGTH | mark::REASSEMBLED | mark::FRAGMENT) == 0 {
            packet.marks |= self.verify(datagram, data, reported, 16);
        }
        self.emit(chunk, frame, packet);
    }

    /// Read the options; most packets carry only time stamps, which need no side entry. Returns marks and
    /// what goes into [`Packet::extra`].
    #[inline(always)]
    pub(super) fn options(&mut self, chunk: &mut Chunk, bytes: &[u8]) -> (u16, u32) {
        if bytes.len() == 12 && bytes[..4] == [1, 1, 8, 10] && !self.detail {
            return (mark::TIMESTAMPS, 0);
        }
        self.odd_options(chunk, bytes)
    }

    #[inline(never)]
    fn odd_options(&mut self, chunk: &mut Chunk, bytes: &[u8]) -> (u16, u32) {
        let extra = parse(bytes);
        let stamped = extra.options & option::TIMESTAMPS != 0;
        let listed = extra.options & !option::TIMESTAMPS != 0 || self.detail && stamped;
        (if stamped { mark::TIMESTAMPS } else { 0 }, if listed { chunk.attach(extra) } else { 0 })
    }
}

/// Read TCP options up to the first that makes no sense.
pub(super) fn parse(bytes: &[u8]) -> Extra {
    let mut extra = Extra::default();
    let mut at = 0;
    let be16 = |b: &[u8]| u16::from_be_bytes([b[0], b[1]]);
    let be32 = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
    while let Some(&kind) = bytes.get(at) {
        match kind {
            0 => break,
            1 => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let length = usize::from(bytes.get(at + 1).copied().unwrap_or(0));
        let Some(body) = bytes.get(at + 2..at + length) else { break };
        if length < 2 {
            break;
        }
        match (kind, body.len()) {
            (2, 2) => {
                extra.options |= option::MSS;
                extra.mss = be16(body);
            }
            (3, 1) => {
                extra.options |= option::SCALE;
                extra.scale = body[0];
            }
            (4, 0) => extra.options |= option::SACK_PERMITTED,
            (5, n) if n >= 8 => {
                extra.options |= option::SACK;
                for (slot, block) in extra.sack.iter_mut().zip(body.chunks_exact(8)) {
                    *slot = (be32(block), be32(&block[4..]));
                }
                extra.sack_count = (n / 8).min(4) as u8;
            }
            (8, 8) => {
                extra.options |= option::TIMESTAMPS;
                extra.timestamps = (be32(body), be32(&body[4..]));
            }
            (19 | 29, _) => extra.options |= option::SIGNATURE,
            (30, n) if n >= 1 => {
                extra.options |= option::MPTCP;
                extra.mptcp |= 1 << (body[0] >> 4);
            }
            (34, _) => extra.options |= option::FAST_OPEN,
            (254, n) if n >= 2 && be16(body) == 0xf989 => extra.options |= option::FAST_OPEN,
            _ => extra.options |= option::OTHER,
        }
        at += length;
    }
    extra
}
