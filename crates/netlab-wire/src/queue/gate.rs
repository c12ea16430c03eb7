//! When the packet at the head of a queue may leave: constant rate, token bucket, or a trace.
//!
//! All arithmetic is in whole numbers: a rate is exact over any length of time.

use crate::config::{ETHERNET, Rate, Settings, Trace};

/// Bits times nanoseconds in a second: the unit in which credit is kept.
const NANO: u128 = 1_000_000_000;

/// The pace of a link.
#[derive(Clone, Debug)]
pub enum Gate {
    /// A serialiser: each packet occupies the line for its length over the rate.
    Line(Line),
    /// A token bucket: packets pass while there is credit.
    Bucket(Bucket),
    /// Delivery opportunities of a mahimahi trace.
    Opportunities(Opportunities),
}

impl Gate {
    /// The gate asked for, if any; `now` is the time at which a bucket is full and a trace starts.
    #[must_use]
    pub fn new(settings: &Settings, now: u64) -> Option<Self> {
        if let Some(trace) = &settings.trace {
            return Some(Self::Opportunities(Opportunities::new(trace, now)));
        }
        let rate = settings.rate.as_ref()?;
        Some(match rate.burst_bytes {
            None => Self::Line(Line::new(rate)),
            Some(burst) => Self::Bucket(Bucket::new(rate, burst, now)),
        })
    }

    /// When a frame of `octets`, at the head since `now`, has left. Calls come in order of time.
    pub fn serve(&mut self, now: u64, octets: u32) -> u64 {
        match self {
            Self::Line(line) => line.serve(now, octets),
            Self::Bucket(bucket) => bucket.serve(now, octets),
            Self::Opportunities(trace) => trace.serve(now, octets),
        }
    }
}

/// A serialiser. What a packet's time leaves below one nanosecond is carried to the next.
#[derive(Clone, Debug)]
pub struct Line {
    rate: Rate,
    carry: u128,
    free_at: u64,
}

impl Line {
    fn new(rate: &Rate) -> Self {
        Self { rate: rate.clone(), carry: 0, free_at: 0 }
    }

    fn serve(&mut self, now: u64, octets: u32) -> u64 {
        if now > self.free_at {
            self.carry = 0; // the line was idle
        }
        let rate = u128::from(self.rate.bits_per_second);
        let work = cost(&self.rate, octets) + self.carry;
        self.carry = work % rate;
        self.free_at = now + (work / rate) as u64;
        self.free_at
    }

    /// The time left of a packet that would have left `left_ns` later at the rate of `old`.
    #[must_use]
    pub fn rescale(&self, old: &Self, left_ns: u64) -> u64 {
        (u128::from(left_ns) * u128::from(old.rate.bits_per_second) / u128::from(self.rate.bits_per_second))
            as u64
    }
}

/// Bits times nanoseconds that a frame of `len` octets takes.
fn cost(rate: &Rate, len: u32) -> u128 {
    u128::from(rate.octets(len)) * 8 * NANO
}

/// A token bucket (RFC 2697 has the same arithmetic in its committed bucket), full at the start.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    depth: u128,
    credit: u128,
    updated: u64,
    /// When the peak rate lets the next packet go.
    peak_free: u64,
}

impl Bucket {
    fn new(rate: &Rate, burst: u64, now: u64) -> Self {
        let depth = u128::from(burst) * 8 * NANO;
        Self { rate: rate.clone(), depth, credit: depth, updated: now, peak_free: now }
    }

    fn serve(&mut self, now: u64, octets: u32) -> u64 {
        let (cost, rate) = (cost(&self.rate, octets), u128::from(self.rate.bits_per_second));
        let elapsed = u128::from(now.saturating_sub(self.updated));
        self.credit = (self.credit + elapsed * rate).min(self.depth);
        self.updated = self.updated.max(now);
        if self.credit < cost {
            let wait = (cost - self.credit).div_ceil(rate);
            self.credit += wait * rate;
            self.updated += wait as u64;
        }
        self.credit = self.credit.saturating_sub(cost);
        let leaves = self.updated.max(self.peak_free);
        if let Some(peak) = self.rate.peak_bits_per_second {
            self.peak_free = leaves + (cost / u128::from(peak)) as u64;
        }
        leaves
    }
}

/// A mahimahi trace (Netravali et al., USENIX ATC 2015): each opportunity carries so many octets
/// of IP; several small packets share one, a large one takes several, an unused one is lost.
#[derive(Clone, Debug)]
pub struct Opportunities {
    ms: Vec<u64>,
    period_ns: u64,
    capacity: u32,
    base: u64,
    position: usize,
    left: u32,
}

impl Opportunities {
    fn new(trace: &Trace, now: u64) -> Self {
        let period_ns = trace.ms.last().copied().unwrap_or(1) * 1_000_000;
        let capacity = trace.opportunity_bytes;
        Self { ms: trace.ms.clone(), period_ns, capacity, base: now, position: 0, left: capacity }
    }

    fn next(&mut self) {
        self.left = self.capacity;
        self.position += 1;
        if self.position == self.ms.len() {
            self.position = 0;
            self.base += self.period_ns;
        }
    }

    fn serve(&mut self, now: u64, octets: u32) -> u64 {
        let behind = now.saturating_sub(self.base) / self.period_ns;
        if behind > 1 {
            // Idle for whole periods: go there at once. One period is left to walk through.
            self.base += (behind - 1) * self.period_ns;
            self.position = 0;
            self.left = self.capacity;
        }
        let mut need = octets.saturating_sub(ETHERNET);
        loop {
            let at = self.base + self.ms[self.position] * 1_000_000;
            if at < now {
                self.next();
                continue;
            }
            let take = need.min(self.left);
            need -= take;
            self.left -= take;
            if self.left == 0 {
                self.next();
            }
            if need == 0 {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn rate(bits_per_second: u64, overhead_bytes: i32) -> Rate {
        Rate {
            bits_per_second,
            overhead_bytes,
            cell_bytes: 0,
            cell_overhead_bytes: 0,
            burst_bytes: None,
            peak_bits_per_second: None,
        }
    }

    #[test]
    fn a_line_takes_length_over_rate() {
        let mut line = Line::new(&rate(10_000_000, 0));
        assert_eq!(line.serve(0, 1250), MS);
        assert_eq!(line.serve(MS, 1250), 2 * MS);
        assert_eq!(line.serve(100 * MS, 1250), 101 * MS);
        assert_eq!(Line::new(&rate(10_000_000, 24)).serve(0, 1226), MS);
        assert_eq!(Line::new(&rate(10_000_000, -14)).serve(0, 1264), MS);
    }

    #[test]
    fn fractions_of_a_nanosecond_are_not_lost() {
        let mut line = Line::new(&rate(3_000_000_007, 0));
        let mut now = 0;
        for _ in 0..1_000_000 {
            now = line.serve(now, 1514);
        }
        let exact = 1_000_000u128 * 1514 * 8 * NANO / 3_000_000_007;
        assert_eq!(u128::from(now), exact);
    }

    #[test]
    fn a_bucket_passes_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(&rate(8_000_000, 0), 3000, 0);
        assert_eq!(bucket.serve(0, 1000), 0);
        assert_eq!(bucket.serve(0, 1000), 0);
        assert_eq!(bucket.serve(0, 1000), 0);
        assert_eq!(bucket.serve(0, 1000), MS);
        assert_eq!(bucket.serve(MS, 500), MS + MS / 2);
        // Ten milliseconds of idling refill at most the depth.
        let later = 12 * MS;
        assert_eq!(
            (0..4).map(|_| bucket.serve(later, 1000)).collect::<Vec<_>>(),
            [later, later, later, later + MS]
        );
    }

    #[test]
    fn a_burst_keeps_to_the_peak_rate() {
        let peak = Rate { peak_bits_per_second: Some(80_000_000), ..rate(8_000_000, 0) };
        let mut bucket = Bucket::new(&peak, 3000, 0);
        let mut now = 0;
        let times: Vec<u64> = (0..5)
            .map(|_| {
                now = bucket.serve(now, 1000);
                now
            })
            .collect();
        assert_eq!(times, [0, MS / 10, MS / 5, MS, 2 * MS]);
    }

    #[test]
    fn the_last_cell_is_filled_up() {
        // ATM: 48 octets of payload in a cell of 53.
        let atm = Rate { cell_bytes: 48, cell_overhead_bytes: 5, ..rate(1_000_000, 0) };
        assert_eq!((atm.octets(1), atm.octets(48), atm.octets(49)), (53, 53, 106));
        assert_eq!(Line::new(&atm).serve(0, 49), 106 * 8000);
    }

    #[test]
    fn a_bucket_s_long_run_rate_is_exact() {
        let mut bucket = Bucket::new(&rate(7_777_777, 0), 2000, 0);
        let mut now = 0;
        for _ in 0..100_000 {
            now = bucket.serve(now, 1500);
        }
        let exact = (100_000u128 * 1500 - 2000) * 8 * NANO / 7_777_777;
        assert!(u128::from(now).abs_diff(exact) <= 1);
    }

    fn trace(ms: &[u64]) -> Opportunities {
        Opportunities::new(&Trace { ms: ms.to_vec(), path: None, opportunity_bytes: 1500 }, 0)
    }

    #[test]
    fn each_opportunity_carries_one_full_packet() {
        let mut trace = trace(&[0, 5, 5, 9]);
        let mut now = 0;
        let times: Vec<u64> = (0..6)
            .map(|_| {
                now = trace.serve(now, 1514);
                now / MS
            })
            .collect();
        // The period is 9 ms: the next round's 0 coincides with this one's 9.
        assert_eq!(times, [0, 5, 5, 9, 9, 14]);
    }

    #[test]
    fn small_packets_share_an_opportunity_and_unused_ones_are_lost() {
        let mut trace = trace(&[1, 2, 3, 10]);
        let times: Vec<u64> = (0..4).map(|_| trace.serve(0, 764) / MS).collect();
        assert_eq!(times, [1, 1, 2, 2]);
        assert_eq!(trace.serve(4 * MS, 1514), 10 * MS);
        // A large packet takes several opportunities.
        assert_eq!(trace.serve(10 * MS, 4514), 13 * MS);
    }

    #[test]
    fn a_long_idle_time_is_skipped_whole() {
        let mut trace = trace(&[1, 2, 10]);
        assert_eq!(trace.serve(1_000_000_005 * MS, 1514), 1_000_000_010 * MS);
    }
}
