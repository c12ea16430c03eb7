//! Round-trip times of one direction: exact count, least, most, sum; percentiles within 3 %.
//!
//! A sample falls into one of 16 buckets per octave between 1 µs and 275 s. The first twelve are kept
//! as bucket numbers in the record itself; only a direction with more gets a table.

/// Samples kept without a table.
const SMALL: usize = 12;
const LOWEST: u32 = 10;
const OCTAVES: u32 = 28;
const PER_OCTAVE: u32 = 16;
/// Buckets of a table.
pub const BUCKETS: usize = (OCTAVES * PER_OCTAVE) as usize + 1;

/// Statistics of one direction's samples.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Rtt {
    /// Samples.
    pub count: u32,
    table: u32,
    /// Least, ns; negative where stamps run backwards.
    pub min: i64,
    /// Most, ns.
    pub max: i64,
    /// Sum, ns.
    pub sum: i64,
    small: [u16; SMALL],
    /// Handle of the record that keeps Karn's samples since they began to differ; 0 = the same ones.
    pub karn: u32,
}

/// All records and tables of a shard.
#[derive(Debug, Default)]
pub struct Rtts {
    records: Vec<Rtt>,
    tables: Vec<Vec<u32>>,
    free: Vec<u32>,
    free_tables: Vec<u32>,
}

fn bucket(ns: u64) -> u16 {
    let octave = 63 - ns.max(1).leading_zeros();
    if octave < LOWEST {
        return 0;
    }
    let within = (ns >> (octave - 4)) as u32 & 15;
    (((octave - LOWEST) * PER_OCTAVE + within + 1) as usize).min(BUCKETS - 1) as u16
}

/// The middle of a bucket, ns.
fn middle(bucket: usize) -> f64 {
    if bucket == 0 {
        return 512.0;
    }
    let step = bucket as u32 - 1;
    let base = f64::from(1 << LOWEST) * 2f64.powi((step / PER_OCTAVE) as i32);
    base * (1.0 + (f64::from(step % PER_OCTAVE) + 0.5) / 16.0)
}

impl Rtts {
    /// Room (not yet memory) for two records per flow.
    pub fn new(expected: usize) -> Self {
        let records = Vec::with_capacity(expected.clamp(64, 1 << 21) * 2);
        netlab_mem::advise_huge(&records);
        Self { records, ..Self::default() }
    }

    /// A new, empty record; its handle.
    pub fn new_record(&mut self) -> u32 {
        let empty =
            Rtt { count: 0, table: 0, min: i64::MAX, max: i64::MIN, sum: 0, small: [0; SMALL], karn: 0 };
        self.keep(empty)
    }

    fn keep(&mut self, record: Rtt) -> u32 {
        match self.free.pop() {
            Some(free) => {
                self.records[free as usize - 1] = record;
                free
            }
            None => {
                self.records.push(record);
                self.records.len() as u32
            }
        }
    }

    fn keep_table(&mut self, table: Vec<u32>) -> u32 {
        match self.free_tables.pop() {
            Some(free) => {
                self.tables[free as usize - 1] = table;
                free
            }
            None => {
                self.tables.push(table);
                self.tables.len() as u32
            }
        }
    }

    /// Take a record (and Karn's beside it) back for reuse.
    pub fn release(&mut self, handle: u32) {
        let Some(record) = self.get(handle).cloned() else { return };
        for table in [record.table, self.get(record.karn).map_or(0, |karn| karn.table)] {
            if table != 0 {
                self.free_tables.push(table);
            }
        }
        self.free.push(handle);
        if record.karn != 0 {
            self.free.push(record.karn);
        }
    }

    /// The record of a handle.
    pub fn get(&self, handle: u32) -> Option<&Rtt> {
        self.records.get((handle as usize).wrapping_sub(1))
    }

    /// Add a sample, ns.
    #[inline(always)]
    pub fn add(&mut self, handle: u32, ns: i64) {
        let Some(record) = self.records.get_mut((handle as usize).wrapping_sub(1)) else { return };
        let at = record.count as usize;
        record.count = record.count.saturating_add(1);
        record.min = record.min.min(ns);
        record.max = record.max.max(ns);
        record.sum = record.sum.saturating_add(ns);
        let bucket = bucket(ns.max(0) as u64);
        if at < SMALL {
            record.small[at] = bucket;
            return;
        }
        if record.table == 0 {
            let small = record.small;
            self.spread(handle, small);
        }
        let table = self.records[handle as usize - 1].table;
        self.tables[table as usize - 1][usize::from(bucket)] += 1;
    }

    /// Give a record its table.
    #[cold]
    fn spread(&mut self, handle: u32, small: [u16; SMALL]) {
        let mut table = vec![0u32; BUCKETS];
        for &b in &small {
            table[usize::from(b)] += 1;
        }
        self.records[handle as usize - 1].table = self.keep_table(table);
    }

    /// Karn's record of `handle`, split off as a copy when it does not exist yet.
    pub fn karn(&mut self, handle: u32) -> u32 {
        let Some(record) = self.get(handle) else { return 0 };
        if record.karn != 0 {
            return record.karn;
        }
        let mut copy = record.clone();
        if copy.table != 0 {
            let table = self.tables[copy.table as usize - 1].clone();
            copy.table = self.keep_table(table);
        }
        let karn = self.keep(copy);
        self.records[handle as usize - 1].karn = karn;
        karn
    }

    /// The sample below which `share` (0…1) of them lie, ns.
    pub fn quantile(&self, handle: u32, share: f64) -> Option<f64> {
        let record = self.get(handle).filter(|r| r.count > 0)?;
        let rank = ((f64::from(record.count) * share).ceil() as u64).clamp(1, u64::from(record.count));
        let limit = |ns: f64| ns.clamp(record.min as f64, record.max as f64);
        if record.table == 0 {
            let mut small = record.small;
            let known = &mut small[..(record.count as usize).min(SMALL)];
            known.sort_unstable();
            return known.get(rank as usize - 1).map(|&b| limit(middle(usize::from(b))));
        }
        let mut seen = 0;
        for (i, &count) in self.tables[record.table as usize - 1].iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Some(limit(middle(i)));
            }
        }
        Some(record.max as f64)
    }

    /// Bucket counts of a record with their lower edges in ns, empty ones left out.
    pub fn buckets(&self, handle: u32) -> Vec<(f64, u32)> {
        let Some(record) = self.get(handle) else { return Vec::new() };
        let mut counts = vec![0u32; BUCKETS];
        if record.table == 0 {
            for &b in record.small.iter().take(record.count as usize) {
                counts[usize::from(b)] += 1;
            }
        } else {
            counts.copy_from_slice(&self.tables[record.table as usize - 1][..]);
        }
        counts.into_iter().enumerate().filter(|&(_, n)| n > 0).map(|(i, n)| (middle(i), n)).collect()
    }

    /// Ask for a record soon to be used.
    #[inline(always)]
    pub fn prefetch(&self, handle: u32) {
        netlab_mem::prefetch(&self.records, (handle as usize).wrapping_sub(1), 0);
    }

    /// Memory held, octets.
    pub fn memory(&self) -> usize {
        self.records.len() * size_of::<Rtt>() + self.tables.len() * BUCKETS * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_within_five_per_cent(samples in proptest::collection::vec(1_000u64..100_000_000_000, 1..400),
                                              share in 0.01f64..0.99) {
            let mut rtts = Rtts::default();
            let handle = rtts.new_record();
            for &s in &samples {
                rtts.add(handle, s as i64);
            }
            let mut sorted = samples;
            sorted.sort_unstable();
            let exact = sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1] as f64;
            let got = rtts.quantile(handle, share).unwrap();
            prop_assert!((got - exact).abs() <= exact * 0.05, "{got} for {exact}");
        }
    }

    #[test]
    fn karn_begins_as_a_copy() {
        let mut rtts = Rtts::default();
        let handle = rtts.new_record();
        for ns in 1..40 {
            rtts.add(handle, ns * 1000);
        }
        let karn = rtts.karn(handle);
        rtts.add(handle, 1_000_000);
        assert_eq!(rtts.get(karn).unwrap().count + 1, rtts.get(handle).unwrap().count);
        assert_eq!(rtts.karn(handle), karn);
    }
}
