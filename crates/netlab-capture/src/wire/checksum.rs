//! The Internet checksum (RFC 1071) of TCP and UDP, aware of transmit offload.

use super::{Datagram, Decoder};
use crate::packet::mark;

/// One's complement sum of 16-bit big-endian words, not folded.
fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut last = [0u8; 4];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_be_bytes(last))
}

fn folded(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

impl Decoder {
    /// Verify the checksum at `field` over `length` octets; 0 when the capture holds fewer.
    pub(super) fn verify(&mut self, datagram: &Datagram, data: &[u8], length: u32, field: usize) -> u16 {
        let Some(bytes) = data.get(..length as usize) else { return 0 };
        let Some(stored) = bytes.get(field..field + 2) else { return 0 };
        let stored = u16::from_be_bytes([stored[0], stored[1]]);
        let words = |address: [u64; 2]| address.iter().map(|w| (w >> 32) + (w & 0xffff_ffff)).sum::<u64>();
        let pseudo = words(datagram.source)
            + words(datagram.destination)
            + u64::from(length)
            + u64::from(datagram.proto);
        if folded(pseudo + sum(bytes)) == 0xffff {
            self.counts.checksums[0] += 1;
            mark::CHECKSUM_GOOD
        } else if stored == folded(pseudo) {
            self.counts.checksums[2] += 1;
            mark::CHECKSUM_PARTIAL
        } else {
            self.counts.checksums[1] += 1;
            mark::CHECKSUM_BAD
        }
    }
}
