//! ICMP (RFC 792) and ICMPv6 (RFC 4443); errors lead to the flow of the packet they quote.

use super::ip::{split_v4, split_v6};
use super::{Datagram, Decoder, Frame, Reason};
use crate::packet::{Chunk, Extra, mark, proto};
use crate::reader::array;

impl Decoder {
    pub(super) fn icmp(
        &mut self,
        chunk: &mut Chunk,
        frame: &mut Frame,
        datagram: &Datagram,
        data: &[u8],
        reported: u32,
    ) {
        let Some(head) = array::<4>(data, 0) else { return self.fail(Reason::CutTransport) };
        let (kind, code) = (head[0], head[1]);
        let (echo, error) = match datagram.version {
            4 => (matches!(kind, 0 | 8), matches!(kind, 3 | 4 | 5 | 11 | 12)),
            _ => (matches!(kind, 128 | 129), matches!(kind, 1..=4)),
        };
        // An echo exchange is a flow of its own: its identifier stands for both ports.
        let id = if echo { array::<2>(data, 4).map_or(0, |b| u32::from(u16::from_be_bytes(*b))) } else { 0 };
        let mut packet = self.packet(frame, datagram, id << 16 | id);
        packet.len = reported.saturating_sub(8);
        self.emit(chunk, frame, packet);
        if !error {
            return;
        }
        let Some(rest) = array::<4>(data, 4) else { return };
        let mtu = match (datagram.version, kind, code) {
            (4, 3, 4) => u32::from(u16::from_be_bytes([rest[2], rest[3]])),
            (6, 2, _) => u32::from_be_bytes(*rest),
            _ => 0,
        };
        self.quoted(
            chunk,
            frame,
            &data[8..],
            Extra { icmp_type: kind, icmp_code: code, mtu, ..Extra::default() },
        );
    }

    /// The packet inside an error: usually cut, perhaps with a length that no longer fits.
    fn quoted(&mut self, chunk: &mut Chunk, frame: &mut Frame, data: &[u8], extra: Extra) {
        let split = match data.first().map(|b| b >> 4) {
            Some(4) => split_v4(data, u32::MAX),
            Some(6) => split_v6(data, u32::MAX),
            _ => return,
        };
        let Ok(split) = split else { return };
        self.counts.icmp_errors += 1;
        if !Self::has_ports(split.datagram.proto) || split.fragment.is_some_and(|(_, offset, _)| offset != 0)
        {
            return;
        }
        let Some(ports) = array::<4>(split.payload, 0) else { return };
        let mut packet = self.packet(frame, &split.datagram, u32::from_be_bytes(*ports));
        packet.marks |= mark::QUOTED | mark::ICMP_ERROR;
        // A TCP header quoted up to its window takes part in numbering streams; a shorter one is only looked up.
        let enough = if split.datagram.proto == proto::TCP { 16 } else { 8 };
        if split.payload.len() < enough {
            packet.marks |= mark::NO_LENGTH;
        } else if let (proto::TCP, Some(head)) = (split.datagram.proto, array::<16>(split.payload, 0)) {
            packet.seq = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            packet.flags = u16::from_be_bytes([head[12], head[13]]) & 0xfff;
        }
        packet.extra = chunk.attach(extra);
        self.emit(chunk, frame, packet);
    }
}
