//! pcapng (draft-ietf-opsawg-pcapng): blocks of type, length, body, length; interfaces per section.

use super::{
    Damage, Interface, MAX_CAPTURED, MAX_CAPTURED_LARGE, MAX_INTERFACES, NO_TIME, Record, Step, array,
};

/// Reader of a pcapng.
#[derive(Clone, Debug, Default)]
pub struct Pcapng {
    big_endian: bool,
    sections: u32,
    first: usize,
    interfaces: Vec<Interface>,
    scales: Vec<Scale>,
    comments: u64,
}

/// How the stamps of one interface become nanoseconds, with the usual cases made cheap.
#[derive(Clone, Copy, Debug)]
struct Scale {
    multiply: u64,
    per_second: u64,
    offset: i64,
    link: u16,
    snaplen: u32,
}

impl Scale {
    /// Nanoseconds since 1970 of `units`; wraps where 64 bits end.
    #[inline(always)]
    fn ns(self, units: u64) -> i64 {
        if self.multiply != 0 {
            return (units.wrapping_mul(self.multiply) as i64).wrapping_add(self.offset);
        }
        let scaled = u128::from(units) * 1_000_000_000 / u128::from(self.per_second.max(1));
        (scaled as u64 as i64).wrapping_add(self.offset)
    }
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// A block longer than this is damage.
const MAX_BLOCK: u32 = MAX_CAPTURED_LARGE + (16 << 20);

/// A section header block: its type reads the same in both byte orders.
pub(super) fn is_section_header(head: &[u8]) -> bool {
    head.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a])
}

impl Pcapng {
    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    pub(super) fn sections(&self) -> u32 {
        self.sections
    }

    pub(super) fn comments(&self) -> u64 {
        self.comments
    }

    #[inline(always)]
    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        array(bytes, at)
            .map_or(0, |b| if self.big_endian { u16::from_be_bytes(*b) } else { u16::from_le_bytes(*b) })
    }

    #[inline(always)]
    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        array(bytes, at)
            .map_or(0, |b| if self.big_endian { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) })
    }

    fn u64(&self, bytes: &[u8], at: usize) -> u64 {
        array(bytes, at)
            .map_or(0, |b| if self.big_endian { u64::from_be_bytes(*b) } else { u64::from_le_bytes(*b) })
    }

    #[inline(always)]
    pub(crate) fn step(&mut self, window: &[u8], at: usize) -> Step {
        let Some(head) = array::<12>(window, at) else { return Step::More(12) };
        let kind = self.u32(head, 0);
        if kind == PACKET {
            // The common case first, straight-line: an enhanced packet block.
            let Some(head) = array::<28>(window, at) else { return Step::More(28) };
            let length = self.u32(head, 4);
            let captured = self.u32(head, 20);
            if !(32..=MAX_BLOCK).contains(&length) {
                return Step::Damaged(Damage::BlockLength(length));
            }
            let size = length.next_multiple_of(4) as usize;
            if window.len() - at < size {
                return Step::More(size);
            }
            let closing = self.u32(window, at + size - 4);
            if closing != length {
                return Step::Damaged(Damage::BlockLengths(length, closing));
            }
            let interface = self.u32(head, 8);
            let stamp = u64::from(self.u32(head, 12)) << 32 | u64::from(self.u32(head, 16));
            let Some(scale) = self.scales.get(self.first.wrapping_add(interface as usize)) else {
                return Step::Damaged(Damage::UnknownInterface(interface));
            };
            let room = length - 32;
            if captured > limit(scale.link) || captured > room {
                return Step::Damaged(Damage::CapturedLength(captured));
            }
            let record = Record {
                data: at + 28,
                captured,
                original: self.u32(head, 24),
                ts: scale.ns(stamp),
                interface: (self.first as u32).wrapping_add(interface),
                link: scale.link,
                end: at + size,
            };
            if room > captured.next_multiple_of(4) {
                self.packet_options(&window[at + 28 + captured.next_multiple_of(4) as usize..at + size - 4]);
            }
            return Step::Packet(record);
        }
        self.other(window, at, kind)
    }

    fn other(&mut self, window: &[u8], at: usize, kind: u32) -> Step {
        if kind == SECTION {
            self.big_endian = match self.order(window, at) {
                Ok(big_endian) => big_endian,
                Err(step) => return step,
            };
        }
        let length = self.u32(window, at + 4);
        if !(12..=MAX_BLOCK).contains(&length) || self.sections == 0 && kind != SECTION {
            return Step::Damaged(Damage::BlockLength(length));
        }
        let size = length.next_multiple_of(4) as usize;
        if window.len() - at < size {
            return Step::More(size);
        }
        let closing = self.u32(window, at + size - 4);
        if closing != length {
            return Step::Damaged(Damage::BlockLengths(length, closing));
        }
        let body = &window[at + 8..at + size - 4];
        match kind {
            SECTION => {
                self.sections += 1;
                self.first = self.interfaces.len();
                self.comments += self.count_comments(body.get(16..).unwrap_or(&[]));
            }
            INTERFACE => {
                if body.len() < 8 {
                    return Step::Damaged(Damage::BlockLength(length));
                }
                if self.interfaces.len() >= MAX_INTERFACES {
                    return Step::Damaged(Damage::UnknownInterface(MAX_INTERFACES as u32));
                }
                self.add_interface(body);
            }
            STATISTICS => self.statistics(body),
            OLD_PACKET => return self.old_packet(body, at, at + size),
            SIMPLE_PACKET => return self.simple_packet(body, at, at + size),
            // Custom blocks, journal entries and Sysdig events are numbered among the frames.
            0xbad | 0x4000_0bad | 9 | 0x204 | 0x208 | 0x216 | 0x217 | 0x221 | 0x222 => {
                return Step::Other(size);
            }
            _ => {}
        }
        Step::Skip(size)
    }

    fn order(&self, window: &[u8], at: usize) -> Result<bool, Step> {
        match array::<4>(window, at + 8) {
            None => Err(Step::More(28)),
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => Ok(true),
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => Ok(false),
            Some(other) => Err(Step::Damaged(Damage::ByteOrder(u32::from_be_bytes(*other)))),
        }
    }

    /// Walk options: code, length, value padded to 32 bits; ends at code 0 or where they make no sense.
    fn options<'b>(&self, bytes: &'b [u8], mut each: impl FnMut(u16, &'b [u8])) {
        let mut at = 0;
        while bytes.len().saturating_sub(at) >= 4 {
            let (code, length) = (self.u16(bytes, at), usize::from(self.u16(bytes, at + 2)));
            let Some(value) = bytes.get(at + 4..at + 4 + length) else { return };
            if code == 0 {
                return;
            }
            each(code, value);
            at += 4 + length.next_multiple_of(4);
        }
    }

    fn count_comments(&self, options: &[u8]) -> u64 {
        let mut comments = 0;
        self.options(options, |code, _| comments += u64::from(code == 1));
        comments
    }

    #[cold]
    fn packet_options(&mut self, options: &[u8]) {
        self.comments += self.count_comments(options);
    }

    fn add_interface(&mut self, body: &[u8]) {
        let mut found = Interface {
            link: self.u16(body, 0),
            snaplen: self.u32(body, 4),
            resolution: 1_000_000,
            section: self.sections.saturating_sub(1),
            ..Interface::default()
        };
        let text = |value: &[u8]| {
            String::from_utf8_lossy(&value[..value.len().min(256)]).trim_end_matches('\0').to_string()
        };
        self.options(&body[8..], |code, value| match (code, value) {
            (2, _) => found.name = text(value),
            (3, _) => found.description = text(value),
            (9, &[bits, ..]) => {
                let exponent = u32::from(bits & 0x7f);
                found.resolution = if bits & 0x80 == 0 {
                    10u64.checked_pow(exponent).unwrap_or(u64::MAX)
                } else {
                    1u64.checked_shl(exponent).unwrap_or(u64::MAX)
                };
            }
            (11, &[0, ref filter @ ..]) => found.filter = text(filter),
            (14, _) if value.len() >= 8 => found.offset = self.u64(value, 0) as i64,
            _ => {}
        });
        self.comments += self.count_comments(&body[8..]);
        let multiply = if 1_000_000_000 % found.resolution.max(1) == 0 {
            1_000_000_000 / found.resolution.max(1)
        } else {
            0
        };
        self.scales.push(Scale {
            multiply,
            per_second: found.resolution,
            offset: found.offset.wrapping_mul(1_000_000_000),
            link: found.link,
            snaplen: found.snaplen,
        });
        self.interfaces.push(found);
    }

    fn statistics(&mut self, body: &[u8]) {
        let index = self.first.wrapping_add(self.u32(body, 0) as usize);
        let (mut received, mut dropped, mut os_dropped) = (None, None, None);
        self.options(body.get(12..).unwrap_or(&[]), |code, value| {
            let number = (value.len() >= 8).then(|| self.u64(value, 0));
            match code {
                4 => received = number,
                5 => dropped = number,
                7 => os_dropped = number,
                _ => {}
            }
        });
        if let Some(found) = self.interfaces.get_mut(index) {
            found.received = received.or(found.received);
            found.dropped = dropped.or(found.dropped);
            found.os_dropped = os_dropped.or(found.os_dropped);
        }
    }

    /// The obsolete packet block: 16-bit interface and drop count, then as the enhanced one.
    fn old_packet(&mut self, body: &[u8], at: usize, end: usize) -> Step {
        if body.len() < 20 {
            return Step::Damaged(Damage::BlockLength(body.len() as u32 + 12));
        }
        let interface = u32::from(self.u16(body, 0));
        let stamp = u64::from(self.u32(body, 4)) << 32 | u64::from(self.u32(body, 8));
        let captured = self.u32(body, 12);
        let Some(scale) = self.scales.get(self.first + interface as usize) else {
            return Step::Damaged(Damage::UnknownInterface(interface));
        };
        if captured > limit(scale.link) || captured as usize > body.len().saturating_sub(20) {
            return Step::Damaged(Damage::CapturedLength(captured));
        }
        Step::Packet(Record {
            data: at + 28,
            captured,
            original: self.u32(body, 16),
            ts: scale.ns(stamp),
            interface: self.first as u32 + interface,
            link: scale.link,
            end,
        })
    }

    /// A simple packet block has no time stamp and belongs to interface 0.
    fn simple_packet(&mut self, body: &[u8], at: usize, end: usize) -> Step {
        let Some(scale) = self.scales.get(self.first) else {
            return Step::Damaged(Damage::UnknownInterface(0));
        };
        let original = self.u32(body, 0);
        let kept = if scale.snaplen == 0 { original } else { original.min(scale.snaplen) };
        if body.len() < 4 {
            return Step::Damaged(Damage::BlockLength(body.len() as u32 + 12));
        }
        if kept > limit(scale.link) {
            return Step::Damaged(Damage::CapturedLength(kept));
        }
        Step::Packet(Record {
            data: at + 12,
            captured: kept.min((body.len() - 4) as u32),
            original,
            ts: NO_TIME,
            interface: self.first as u32,
            link: scale.link,
            end,
        })
    }
}

fn limit(link: u16) -> u32 {
    if matches!(link, 189 | 220 | 231 | 249 | 279) { MAX_CAPTURED_LARGE } else { MAX_CAPTURED }
}
