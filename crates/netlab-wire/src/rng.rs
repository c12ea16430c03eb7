//! Counter-based random numbers: a draw is a pure function of a key and a packet index.
//!
//! There is no generator state to advance, so one impairment never disturbs the draws of
//! another, and a packet's fate does not depend on what was decided before it. The mixing
//! function is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
//! number generators", OOPSLA 2014), applied twice with the key in between.

/// What a stream of draws is used for; part of its key, so streams are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Whether a packet is lost.
    Loss = 1,
    /// Whether the previous draw for loss is repeated (correlation).
    LossRepeat,
    /// The state of the Gilbert-Elliott channel.
    Channel,
    /// Whether a packet is sent twice.
    Duplicate,
    /// Whether the previous draw for duplication is repeated.
    DuplicateRepeat,
    /// Whether a packet is damaged.
    Corrupt,
    /// Whether the previous draw for corruption is repeated.
    CorruptRepeat,
    /// Which bit of a damaged packet is flipped.
    CorruptBit,
    /// How much a packet's delay differs from the mean.
    Jitter,
    /// Whether a packet leaves its place in the order.
    Reorder,
    /// Whether the previous draw for reordering is repeated.
    ReorderRepeat,
    /// The perturbation of the flow hash of FQ-CoDel.
    FlowHash,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scatter the bits of `z` over the whole word (a bijection).
#[inline]
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A keyed, stateless source of random words, one for each index.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// Derive the stream of `purpose` from the link's `seed` and a `lane` (direction, traffic class).
    #[must_use]
    pub const fn new(seed: u64, lane: u64, purpose: Purpose) -> Self {
        let lane = mix(lane.wrapping_add(1).wrapping_mul(GOLDEN));
        Self { key: mix(mix(seed.wrapping_add(GOLDEN)) ^ lane.wrapping_add((purpose as u64) << 32)) }
    }

    /// The word drawn for `index`: 64 uniform bits.
    #[inline]
    #[must_use]
    pub const fn word(&self, index: u64) -> u64 {
        mix(mix(index.wrapping_add(1).wrapping_mul(GOLDEN) ^ self.key).wrapping_add(self.key))
    }

    /// The number drawn for `index`, uniform in the open interval (0, 1).
    #[inline]
    #[must_use]
    pub fn ratio(&self, index: u64) -> f64 {
        ((self.word(index) >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }
}

/// A probability as a 53-bit threshold: comparing integers is exact, and 1.0 means always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold(u64);

impl Threshold {
    /// The threshold of a probability in 0…1.
    #[must_use]
    pub fn new(probability: f64) -> Self {
        Self((probability.clamp(0.0, 1.0) * (1u64 << 53) as f64) as u64)
    }

    /// Whether a uniform `word` falls below the probability.
    #[inline]
    #[must_use]
    pub const fn holds(self, word: u64) -> bool {
        (word >> 11) < self.0
    }

    /// Whether the probability is zero.
    #[inline]
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0 == 0
    }
}

/// A seeded yes-or-no for each packet, with an exact rate and an optional correlation.
///
/// With correlation ρ the previous draw is used again with probability ρ, else a fresh one is
/// taken. The rate stays exactly what was asked and the lag-1 autocorrelation is ρ (the averaging
/// that `sch_netem` applies instead changes the rate: 25 % of correlation turns 1 % of loss into less).
#[derive(Clone, Debug)]
pub struct Chance {
    fresh: Stream,
    repeat: Stream,
    rate: Threshold,
    correlation: Threshold,
    last: Option<u64>,
}

impl Chance {
    /// A chance of `rate` (0…1) with `correlation` (0…1), drawing from the two streams.
    #[must_use]
    pub fn new(rate: f64, correlation: f64, fresh: Stream, repeat: Stream) -> Self {
        Self {
            fresh,
            repeat,
            rate: Threshold::new(rate),
            correlation: Threshold::new(correlation),
            last: None,
        }
    }

    /// Decide for the packet `index`; indices must be given in order, each once, when correlated.
    #[inline]
    pub fn decide(&mut self, index: u64) -> bool {
        if self.rate.is_never() {
            return false;
        }
        let word = match self.last {
            Some(last) if !self.correlation.is_never() && self.correlation.holds(self.repeat.word(index)) => {
                last
            }
            _ => self.fresh.word(index),
        };
        self.last = Some(word);
        self.rate.holds(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_every_part_of_the_key() {
        let base = Stream::new(7, 0, Purpose::Loss).word(5);
        assert_eq!(base, Stream::new(7, 0, Purpose::Loss).word(5));
        assert_ne!(base, Stream::new(8, 0, Purpose::Loss).word(5));
        assert_ne!(base, Stream::new(7, 1, Purpose::Loss).word(5));
        assert_ne!(base, Stream::new(7, 0, Purpose::Corrupt).word(5));
        assert_ne!(base, Stream::new(7, 0, Purpose::Loss).word(6));
    }

    #[test]
    fn every_bit_is_fair() {
        let stream = Stream::new(1, 0, Purpose::Loss);
        let n = 100_000u64;
        for bit in 0..64 {
            let ones = (0..n).filter(|&i| stream.word(i) >> bit & 1 == 1).count() as f64;
            // 4.5 standard deviations of a fair coin.
            assert!((ones - n as f64 / 2.0).abs() < 4.5 * (n as f64 / 4.0).sqrt(), "bit {bit}: {ones}");
        }
    }

    #[test]
    fn bytes_are_uniform_by_chi_squared() {
        let stream = Stream::new(99, 1, Purpose::Jitter);
        let mut bins = [0f64; 256];
        let n = 256_000u64;
        for i in 0..n {
            bins[(stream.word(i) & 255) as usize] += 1.0;
        }
        let chi2: f64 = bins.iter().map(|b| (b - 1000.0).powi(2) / 1000.0).sum();
        // 255 degrees of freedom: mean 255, standard deviation 22.6.
        assert!((150.0..370.0).contains(&chi2), "{chi2}");
    }

    #[test]
    fn correlation_keeps_the_rate_and_shows_in_the_autocorrelation() {
        let fresh = Stream::new(3, 0, Purpose::Loss);
        let repeat = Stream::new(3, 0, Purpose::LossRepeat);
        let mut chance = Chance::new(0.1, 0.5, fresh, repeat);
        let hits: Vec<f64> = (0..400_000).map(|i| f64::from(u8::from(chance.decide(i)))).collect();
        let mean = hits.iter().sum::<f64>() / hits.len() as f64;
        assert!((mean - 0.1).abs() < 0.005, "{mean}");
        let var = mean * (1.0 - mean);
        let cov =
            hits.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>() / (hits.len() - 1) as f64;
        assert!((cov / var - 0.5).abs() < 0.02, "{}", cov / var);
    }

    #[test]
    fn never_and_always_are_exact() {
        let stream = Stream::new(3, 0, Purpose::Loss);
        let mut never = Chance::new(0.0, 0.0, stream, stream);
        let mut always = Chance::new(1.0, 0.0, stream, stream);
        assert!((0..10_000).all(|i| !never.decide(i) && always.decide(i)));
    }
}
