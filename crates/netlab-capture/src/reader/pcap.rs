//! The classic libpcap file: a 24-byte header, then 16-byte record headers (24 in Kuznetzov's variant).

use super::{Damage, Format, Interface, MAX_CAPTURED, MAX_CAPTURED_LARGE, Record, Step, array};

/// Reader of a classic capture.
#[derive(Clone, Debug)]
pub struct Pcap {
    big_endian: bool,
    nanoseconds: bool,
    header: usize,
    limit: u32,
    interface: Interface,
}

impl Pcap {
    /// `None`: not a pcap. `Some(None)`: more bytes are needed.
    pub(super) fn recognise(head: &[u8], whole: bool) -> Option<Option<(Self, usize)>> {
        let magic = *head.first_chunk::<4>()?;
        let (big_endian, nanoseconds, header) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, false, 16),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, false, 16),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, true, 16),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, true, 16),
            [0x34, 0xcd, 0xb2, 0xa1] => (false, false, 24),
            [0xa1, 0xb2, 0xcd, 0x34] => (true, false, 24),
            _ => return None,
        };
        let word = |at: usize| {
            array::<4>(head, at)
                .map_or(0, |b| if big_endian { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) })
        };
        if head.len() < 24 && !whole {
            return Some(None);
        }
        // The upper bits of the link field hold the frame check sequence length and class.
        let link = (word(20) & 0xffff) as u16;
        let limit =
            if matches!(link, 189 | 220 | 231 | 249 | 279) { MAX_CAPTURED_LARGE } else { MAX_CAPTURED };
        let interface = Interface {
            link,
            snaplen: word(16),
            resolution: if nanoseconds { 1_000_000_000 } else { 1_000_000 },
            ..Interface::default()
        };
        Some(Some((Self { big_endian, nanoseconds, header, limit, interface }, head.len().min(24))))
    }

    pub(super) fn format(&self) -> Format {
        Format::Pcap { nanoseconds: self.nanoseconds }
    }

    pub(super) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether its numbers stand most significant octet first.
    pub(crate) fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    /// The record at `window[at..]`, in the order of octets that [`Self::is_big_endian`] tells.
    #[inline(always)]
    pub(crate) fn step<const BIG_ENDIAN: bool>(&self, window: &[u8], at: usize) -> Step {
        let Some(head) = array::<16>(window, at) else { return Step::More(self.header) };
        let word = |i: usize| {
            let bytes = [head[i], head[i + 1], head[i + 2], head[i + 3]];
            if BIG_ENDIAN { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let (captured, original) = (word(8), word(12));
        if captured > self.limit {
            return Step::Damaged(Damage::CapturedLength(captured));
        }
        let size = self.header + captured as usize;
        if window.len() - at < size {
            return Step::More(size);
        }
        let fraction = i64::from(word(4)) * if self.nanoseconds { 1 } else { 1000 };
        Step::Packet(Record {
            data: at + self.header,
            captured,
            original,
            ts: (i64::from(word(0)) * 1_000_000_000).wrapping_add(fraction),
            interface: 0,
            link: self.interface.link,
            end: at + size,
        })
    }
}
