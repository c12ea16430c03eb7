//! Propagation delay with jitter.
//!
//! A uniform draw u becomes a normal score z = Φ⁻¹(u); with correlation ρ the scores follow
//! z ← ρz + √(1-ρ²)·z', which stays standard normal, and are turned into the asked shape. So
//! the distribution is what was asked whatever the correlation.

use crate::config::{Distribution, Jitter};
use crate::rng::{Purpose, Stream};

/// How long a packet travels.
#[derive(Clone, Debug)]
pub struct Delay {
    base_ns: u64,
    jitter: Option<Variation>,
}

#[derive(Clone, Debug)]
struct Variation {
    ns: f64,
    distribution: Distribution,
    correlation: f64,
    stream: Stream,
    score: Option<f64>,
}

impl Delay {
    /// Build from settings.
    #[must_use]
    pub fn new(base_ns: u64, jitter: Option<&Jitter>, seed: u64, lane: u64) -> Self {
        let jitter = jitter.filter(|j| j.ns > 0).map(|j| Variation {
            ns: j.ns as f64,
            distribution: j.distribution,
            correlation: j.correlation,
            stream: Stream::new(seed, lane, Purpose::Jitter),
            score: None,
        });
        Self { base_ns, jitter }
    }

    /// The delay of the packet `index` in nanoseconds, never below 0.
    #[inline]
    pub fn decide(&mut self, index: u64) -> u64 {
        match &mut self.jitter {
            None => self.base_ns,
            Some(variation) => (self.base_ns as f64 + variation.draw(index)).max(0.0) as u64,
        }
    }
}

impl Variation {
    fn draw(&mut self, index: u64) -> f64 {
        let mut u = self.stream.ratio(index);
        if self.correlation > 0.0 {
            let fresh = normal_quantile(u);
            let rho = self.correlation;
            let score = self.score.map_or(fresh, |last| rho * last + (1.0 - rho * rho).sqrt() * fresh);
            self.score = Some(score);
            u = normal_cdf(score).clamp(1e-12, 1.0 - 1e-12);
        }
        self.ns
            * match self.distribution {
                Distribution::Uniform => 2.0 * u - 1.0,
                Distribution::Normal => normal_quantile(u).clamp(-4.0, 4.0),
                Distribution::Pareto => pareto_quantile(u).min(10.0),
                Distribution::Paretonormal => {
                    let mixed =
                        0.25 * normal_quantile(u).clamp(-4.0, 4.0) + 0.75 * pareto_quantile(u).min(10.0);
                    mixed / PARETONORMAL_SPREAD
                }
            }
    }
}

/// Standard deviation of the mixture before scaling, by quadrature.
const PARETONORMAL_SPREAD: f64 = 0.857;

/// Pareto with index 3 and minimum 1 has mean 3/2 and variance 3/4; shifted and scaled to 0 and 1.
fn pareto_quantile(u: f64) -> f64 {
    ((1.0 - u).powf(-1.0 / 3.0) - 1.5) / 0.75f64.sqrt()
}

/// Φ(z), absolute error below 1.5e-7 (Abramowitz and Stegun 7.1.26).
fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = ((((1.061_405_429 * t - 1.453_152_027) * t + 1.421_413_741) * t - 0.284_496_736) * t
        + 0.254_829_592)
        * t;
    let tail = 0.5 * poly * (-x * x).exp();
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// Φ⁻¹(u) for 0 < u < 1, relative error below 1.2e-9 (P. J. Acklam's rational approximation).
fn normal_quantile(u: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -54.476_098_798_224_06,
        161.585_836_858_040_9,
        -155.698_979_859_886_6,
        66.801_311_887_719_72,
        -13.280_681_552_885_72,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [0.007_784_695_709_041_462, 0.322_467_129_070_039_8, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let low = 0.024_25;
    if u < low || u > 1.0 - low {
        let q = (-2.0 * u.min(1.0 - u).ln()).sqrt();
        let z = horner(&C, q) / (horner(&D, q) * q + 1.0);
        return if u < low { z } else { -z };
    }
    let q = u - 0.5;
    let r = q * q;
    horner(&A, r) * q / (horner(&B, r) * r + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn sample(distribution: Distribution, correlation: f64) -> Vec<f64> {
        let jitter = Jitter { ns: 5 * MS, distribution, correlation, reorders: true };
        let mut delay = Delay::new(100 * MS, Some(&jitter), 11, 0);
        (0..200_000).map(|i| delay.decide(i) as f64 / 1e6 - 100.0).collect()
    }

    fn moments(sample: &[f64]) -> (f64, f64) {
        let mean = sample.iter().sum::<f64>() / sample.len() as f64;
        let var = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / sample.len() as f64;
        (mean, var.sqrt())
    }

    #[test]
    fn each_shape_has_the_asked_mean_and_spread() {
        for correlation in [0.0, 0.5] {
            let slack = if correlation > 0.0 { 0.1 } else { 0.05 };
            let (mean, sd) = moments(&sample(Distribution::Uniform, correlation));
            assert!(mean.abs() < slack && (sd - 5.0 / 3f64.sqrt()).abs() < slack, "{mean} {sd}");
            let (mean, sd) = moments(&sample(Distribution::Normal, correlation));
            assert!(mean.abs() < slack && (sd - 5.0).abs() < slack, "{mean} {sd}");
            // Cutting a heavy tail at +10 costs spread: 4.5 instead of 5.
            let (mean, sd) = moments(&sample(Distribution::Pareto, correlation));
            assert!(mean.abs() < 0.15 && (4.2..5.0).contains(&sd), "{mean} {sd}");
            let (mean, sd) = moments(&sample(Distribution::Paretonormal, correlation));
            assert!(mean.abs() < 0.15 && (sd - 5.0).abs() < 0.15, "{mean} {sd}");
        }
    }

    #[test]
    fn the_correlation_is_the_asked_one() {
        let sample = sample(Distribution::Normal, 0.7);
        let (mean, sd) = moments(&sample);
        let cov =
            sample.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>() / (sample.len() - 1) as f64;
        assert!((cov / (sd * sd) - 0.7).abs() < 0.02, "{}", cov / (sd * sd));
    }

    #[test]
    fn without_jitter_the_delay_is_exact() {
        let mut delay = Delay::new(123_456_789, None, 1, 0);
        assert!((0..100).all(|i| delay.decide(i) == 123_456_789));
    }

    #[test]
    fn the_quantile_inverts_the_distribution() {
        for i in 1..1000 {
            let u = f64::from(i) / 1000.0;
            assert!((normal_cdf(normal_quantile(u)) - u).abs() < 1e-6);
        }
    }

    #[test]
    fn a_delay_is_never_negative() {
        let jitter =
            Jitter { ns: 50 * MS, distribution: Distribution::Normal, correlation: 0.0, reorders: true };
        let mut delay = Delay::new(MS, Some(&jitter), 1, 0);
        assert!((0..10_000).any(|i| delay.decide(i) == 0));
    }
}
