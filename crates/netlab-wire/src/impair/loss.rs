//! Random loss: independent, correlated, or from a two-state channel.

use crate::config;
use crate::rng::{Chance, Purpose, Stream, Threshold};

/// Whether a packet is lost at random.
#[derive(Clone, Debug)]
pub enum Loss {
    /// A rate, possibly correlated.
    Random(Chance),
    /// Gilbert-Elliott.
    Channel(Channel),
}

/// A two-state Markov channel; the state before the first packet is drawn from the
/// stationary distribution p/(p+r), so that even a short run has the asked mean.
#[derive(Clone, Debug)]
pub struct Channel {
    transitions: Stream,
    losses: Stream,
    to_bad: Threshold,
    to_good: Threshold,
    loss_bad: Threshold,
    loss_good: Threshold,
    stationary: Threshold,
    bad: Option<bool>,
}

impl Loss {
    /// Build from settings; none means no loss.
    #[must_use]
    pub fn new(settings: Option<&config::Loss>, seed: u64, lane: u64) -> Self {
        let losses = Stream::new(seed, lane, Purpose::Loss);
        if let Some(ge) = settings.and_then(|s| s.gilbert_elliott.as_ref()) {
            return Self::Channel(Channel {
                transitions: Stream::new(seed, lane, Purpose::Channel),
                losses,
                to_bad: Threshold::new(ge.p),
                to_good: Threshold::new(ge.r),
                loss_bad: Threshold::new(ge.bad_loss),
                loss_good: Threshold::new(ge.good_loss),
                stationary: Threshold::new(ge.p / (ge.p + ge.r)),
                bad: None,
            });
        }
        let (rate, correlation) = settings.map_or((0.0, 0.0), |s| (s.rate.unwrap_or(0.0), s.correlation));
        Self::Random(Chance::new(rate, correlation, losses, Stream::new(seed, lane, Purpose::LossRepeat)))
    }

    /// Decide for the packet `index`; indices come in order, each once.
    #[inline]
    pub fn decide(&mut self, index: u64) -> bool {
        match self {
            Self::Random(chance) => chance.decide(index),
            Self::Channel(channel) => channel.decide(index),
        }
    }
}

impl Channel {
    fn decide(&mut self, index: u64) -> bool {
        let word = self.transitions.word(index);
        let bad = match self.bad {
            None => self.stationary.holds(word),
            Some(false) => self.to_bad.holds(word),
            Some(true) => !self.to_good.holds(word),
        };
        self.bad = Some(bad);
        let rate = if bad { self.loss_bad } else { self.loss_good };
        rate.holds(self.losses.word(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rate: f64, seed: u64) -> Loss {
        let settings = config::Loss { rate: Some(rate), correlation: 0.0, ecn: false, gilbert_elliott: None };
        Loss::new(Some(&settings), seed, 0)
    }

    #[test]
    fn realised_loss_lies_in_the_binomial_interval() {
        let n = 200_000u64;
        for rate in [0.001, 0.01, 0.05, 0.2, 0.5] {
            for seed in 0..20 {
                let mut loss = random(rate, seed);
                let lost = (0..n).filter(|&i| loss.decide(i)).count() as f64;
                // 20 seeds x 5 rates at 4 standard deviations: a false alarm once in 150 such tests.
                let bound = 4.0 * (n as f64 * rate * (1.0 - rate)).sqrt();
                assert!((lost - n as f64 * rate).abs() < bound, "{rate} {seed}: {lost}");
            }
        }
    }

    #[test]
    fn the_same_seed_loses_the_same_packets_and_another_seed_others() {
        let lost = |seed| {
            let mut loss = random(0.05, seed);
            (0..1000).filter(|&i| loss.decide(i)).collect::<Vec<u64>>()
        };
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
    }

    #[test]
    fn bursts_of_the_channel_are_geometric_with_mean_one_over_r() {
        let (p, r) = (0.01, 0.25);
        let settings = config::Loss {
            rate: None,
            correlation: 0.0,
            ecn: false,
            gilbert_elliott: Some(config::GilbertElliott { p, r, bad_loss: 1.0, good_loss: 0.0 }),
        };
        let mut loss = Loss::new(Some(&settings), 5, 0);
        let n = 1_000_000u64;
        let (mut lost, mut bursts, mut run, mut lengths) = (0u64, 0u64, 0u64, [0u64; 4]);
        for i in 0..n {
            if loss.decide(i) {
                lost += 1;
                run += 1;
            } else if run > 0 {
                bursts += 1;
                lengths[(run.min(4) - 1) as usize] += 1;
                run = 0;
            }
        }
        let rate = lost as f64 / n as f64;
        assert!((rate - p / (p + r)).abs() < 0.002, "{rate}");
        assert!((lost as f64 / bursts as f64 - 1.0 / r).abs() < 0.1);
        // A burst of length 1 has probability r, of length 2 r(1-r).
        assert!((lengths[0] as f64 / bursts as f64 - r).abs() < 0.02);
        assert!((lengths[1] as f64 / bursts as f64 - r * (1.0 - r)).abs() < 0.02);
    }
}
