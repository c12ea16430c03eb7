//! Counters of one direction and the histogram of lateness.

use serde_json::{Value, json};

use crate::journal::Verdict;

/// Lateness in powers of two: bucket i counts values in [2^i, 2^(i+1)) ns, bucket 0 also 0.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: [u64; 36],
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; 36], count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Count one value.
    #[inline]
    pub fn add(&mut self, ns: u64) {
        let bucket = (63 - (ns | 1).leading_zeros() as usize).min(35);
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum += u128::from(ns);
        self.max = self.max.max(ns);
    }

    /// The largest value.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// An upper bound of the given quantile: the end of the bucket it falls into.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = (q * self.count as f64).ceil() as u64;
        let mut seen = 0;
        for (i, &n) in self.buckets.iter().enumerate() {
            seen += n;
            if n > 0 && seen >= rank {
                return ((2u64 << i) - 1).min(self.max);
            }
        }
        self.max
    }

    fn json(&self) -> Value {
        let mean = if self.count == 0 { 0 } else { (self.sum / u128::from(self.count)) as u64 };
        let last = self.buckets.iter().rposition(|&n| n > 0).map_or(0, |i| i + 1);
        json!({
            "count": self.count, "mean_ns": mean, "p50_ns": self.quantile(0.5),
            "p99_ns": self.quantile(0.99), "max_ns": self.max, "log2_ns": self.buckets[..last],
        })
    }
}

/// What one direction has done.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Frames and octets taken from the port.
    pub received: (u64, u64),
    /// Frames by verdict (copies count as delivered too).
    pub verdicts: [u64; Verdict::ALL.len()],
    /// Octets delivered.
    pub delivered_octets: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Bits flipped.
    pub corrupted: u64,
    /// Frames that left their place.
    pub reordered: u64,
    /// Frames marked Congestion Experienced.
    pub marked: u64,
    /// Frames of the class chatter.
    pub chatter: u64,
    /// Most packets and octets ever waiting in the queue.
    pub peak_backlog: (u32, u64),
    /// Departures later than the tolerance.
    pub late: u64,
    /// Departure minus due time.
    pub lateness: Histogram,
}

impl Counters {
    /// As JSON; `backlog` and `in_flight` are those of the moment.
    #[must_use]
    pub fn json(&self, backlog: (u32, u64), in_flight: usize, untracked: u64) -> Value {
        let delivered = self.verdicts[Verdict::Delivered as usize];
        let late_fraction = if delivered == 0 { 0.0 } else { self.late as f64 / delivered as f64 };
        let mut out = json!({
            "received_packets": self.received.0, "received_bytes": self.received.1,
            "delivered_packets": delivered, "delivered_bytes": self.delivered_octets,
            "duplicated": self.duplicated, "corrupted": self.corrupted, "reordered": self.reordered,
            "ecn_marked": self.marked, "chatter_packets": self.chatter,
            "backlog_packets": backlog.0, "backlog_bytes": backlog.1, "in_flight": in_flight,
            "peak_backlog_packets": self.peak_backlog.0, "peak_backlog_bytes": self.peak_backlog.1,
            "untracked_flow_packets": untracked,
            "late_packets": self.late, "late_fraction": late_fraction, "max_late_ns": self.lateness.max(),
            "lateness": self.lateness.json(),
        });
        for verdict in &Verdict::ALL[1..] {
            out[format!("dropped_{}", verdict.name())] = self.verdicts[*verdict as usize].into();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_bounds_within_a_factor_of_two() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ns| histogram.add(ns));
        assert!((500..1000).contains(&histogram.quantile(0.5)));
        assert_eq!(histogram.quantile(1.0), 1000);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }

    #[test]
    fn extreme_values_have_a_bucket() {
        let mut histogram = Histogram::default();
        histogram.add(0);
        histogram.add(u64::MAX);
        assert_eq!(histogram.max(), u64::MAX);
        assert_eq!(histogram.json()["count"], 2);
    }
}
