//! Corruption: one bit flipped where a checksum notices.

use crate::config::Likelihood;
use crate::packet::Digest;
use crate::rng::{Chance, Purpose, Stream};

/// Whether a packet is damaged and which bit it is.
#[derive(Clone, Debug)]
pub struct Corrupt {
    chance: Chance,
    bit: Stream,
}

impl Corrupt {
    /// Build from settings; none means never.
    #[must_use]
    pub fn new(settings: Option<&Likelihood>, seed: u64, lane: u64) -> Self {
        let stream = |purpose| Stream::new(seed, lane, purpose);
        Self {
            chance: super::chance(settings, stream(Purpose::Corrupt), stream(Purpose::CorruptRepeat)),
            bit: stream(Purpose::CorruptBit),
        }
    }

    /// Whether the packet `index` is damaged; indices come in order, each once.
    #[inline]
    pub fn decide(&mut self, index: u64) -> bool {
        self.chance.decide(index)
    }

    /// Flip one bit of the payload (of the transport header where there is none, of whatever
    /// follows the Ethernet header where that is unknown) and say which, counted from the
    /// first bit of the frame. Ethernet padding is left alone: nobody would notice.
    pub fn damage(&self, index: u64, frame: &mut [u8], digest: &Digest) -> Option<u32> {
        let from = usize::from(digest.damage_from);
        let mut to = frame.len();
        if digest.payload > 0 {
            to = to.min(from + usize::from(digest.payload));
        }
        let octets = to.checked_sub(from).filter(|&n| n > 0)?;
        let bit = self.bit.word(index) % (octets as u64 * 8);
        let (octet, shift) = (from + (bit / 8) as usize, 7 - bit % 8);
        *frame.get_mut(octet)? ^= 1 << shift;
        Some((from * 8) as u32 + bit as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::craft;

    #[test]
    fn exactly_one_bit_of_the_payload_changes() {
        let corrupt = Corrupt::new(Some(&Likelihood { rate: 1.0, correlation: 0.0 }), 3, 0);
        for index in 0..500 {
            let clean = craft::tcp(1, 0x18, 0, 40);
            let mut frame = clean.clone();
            frame.resize(frame.len() + 6, 0); // padding
            let bit = corrupt.damage(index, &mut frame, &Digest::of(&clean)).unwrap();
            assert!(bit >= 54 * 8 && bit < clean.len() as u32 * 8);
            let flipped: u32 = clean.iter().zip(&frame).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(flipped, 1);
            assert_ne!(
                clean[bit as usize / 8] >> (7 - bit % 8) & 1,
                frame[bit as usize / 8] >> (7 - bit % 8) & 1
            );
        }
    }

    #[test]
    fn a_segment_without_payload_is_hit_in_its_tcp_header() {
        let corrupt = Corrupt::new(Some(&Likelihood { rate: 1.0, correlation: 0.0 }), 3, 0);
        for index in 0..200 {
            let mut frame = craft::tcp(1, 0x10, 0, 0);
            let digest = Digest::of(&frame);
            let bit = corrupt.damage(index, &mut frame, &digest).unwrap();
            assert!((34 * 8..54 * 8).contains(&bit));
        }
    }
}
