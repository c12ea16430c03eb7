//! Round-trip times of one direction: exact count, least, most, sum; percentiles within 3 %.
//!
//! Most directions of most captures have a handful of samples. Their record keeps the samples themselves
//! and lies beside that of the other direction, so that a packet of either finds it in one cache line.
//! What has more samples, or odd ones, goes on in a [`Large`] record: a sample falls into one of 16
//! buckets per octave between 1 µs and 275 s, the first twelve are kept as bucket numbers in the record
//! itself, and only what has still more gets a table.

/// Samples of a direction that are kept as they are.
const FEW: usize = 6;
/// Samples kept without a table.
const SMALL: usize = 12;
const LOWEST: u32 = 10;
const OCTAVES: u32 = 28;
const PER_OCTAVE: u32 = 16;
/// Buckets of a table.
pub const BUCKETS: usize = (OCTAVES * PER_OCTAVE) as usize + 1;

/// Statistics of one direction's samples.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    /// Samples.
    pub count: u32,
    /// Least, ns; negative where stamps run backwards.
    pub min: i64,
    /// Most, ns.
    pub max: i64,
    /// Sum, ns.
    pub sum: i64,
}

impl Rtt {
    const NONE: Self = Self { count: 0, min: i64::MAX, max: i64::MIN, sum: 0 };

    fn add(&mut self, ns: i64) {
        self.count = self.count.saturating_add(1);
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        self.sum = self.sum.saturating_add(ns);
    }
}

/// The samples of one direction, ns, while there are few and none is negative or above 4.29 s.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    few: [u32; FEW],
    count: u32,
    /// Handle of the [`Large`] record that has all samples; 0 = none, they are here.
    large: u32,
}

/// The records of both directions of a flow, in no promised order.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Pair([Record; 2]);

const _: () = assert!(size_of::<Pair>() == 64);

/// Many samples, or odd ones.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Large {
    all: Rtt,
    table: u32,
    small: [u16; SMALL],
    /// Handle of the record that keeps Karn's samples since they began to differ; 0 = the same ones.
    karn: u32,
}

/// All records and tables of a shard. A handle is one more than a place; 0 is none.
#[derive(Debug, Default)]
pub struct Rtts {
    pairs: Vec<Pair>,
    large: Vec<Large>,
    tables: Vec<Vec<u32>>,
    free: Vec<u32>,
    free_large: Vec<u32>,
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

/// The item of a handle.
fn at<T>(items: &[T], handle: u32) -> Option<&T> {
    items.get((handle as usize).wrapping_sub(1))
}

/// Put an item into a free place or a new one; its handle.
fn keep<T>(items: &mut Vec<T>, free: &mut Vec<u32>, item: T) -> u32 {
    match free.pop() {
        Some(handle) => {
            items[handle as usize - 1] = item;
            handle
        }
        None => {
            items.push(item);
            items.len() as u32
        }
    }
}

/// The place of a direction's record: number of the pair, which of the two.
#[inline(always)]
fn place(handle: u32) -> (usize, usize) {
    let at = (handle as usize).wrapping_sub(1);
    (at / 2, at & 1)
}

impl Rtts {
    /// Room (not yet memory) for the records of so many flows.
    pub fn new(expected: usize) -> Self {
        let pairs = Vec::with_capacity(expected.clamp(64, 1 << 21));
        netlab_mem::advise_huge(&pairs);
        Self { pairs, ..Self::default() }
    }

    /// A new, empty record, beside that of the other direction if there is one; its handle.
    pub fn new_record(&mut self, other: u32) -> u32 {
        match other {
            0 => keep(&mut self.pairs, &mut self.free, Pair::default()) * 2 - 1,
            other => ((other - 1) ^ 1) + 1,
        }
    }

    /// Take the records of a flow back for reuse: the handles of its directions.
    pub fn release(&mut self, handles: [u32; 2]) {
        let Some(&handle) = handles.iter().find(|&&handle| handle != 0) else { return };
        let (pair, _) = place(handle);
        for record in self.pairs[pair].0 {
            let karn = at(&self.large, record.large).map_or(0, |large| large.karn);
            for handle in [record.large, karn] {
                let Some(large) = at(&self.large, handle) else { continue };
                if large.table != 0 {
                    self.free_tables.push(large.table);
                }
                self.free_large.push(handle);
            }
        }
        self.free.push(pair as u32 + 1);
    }

    fn record(&self, handle: u32) -> Option<&Record> {
        let (pair, which) = place(handle);
        self.pairs.get(pair).map(|pair| &pair.0[which])
    }

    /// The large record of a direction, or Karn's, if it has one.
    fn large(&self, handle: u32, karn: bool) -> Option<&Large> {
        let large = at(&self.large, self.record(handle)?.large)?;
        Some(if karn { at(&self.large, large.karn).unwrap_or(large) } else { large })
    }

    /// The statistics of a handle; Karn's when asked.
    pub fn get(&self, handle: u32, karn: bool) -> Option<Rtt> {
        let record = self.record(handle)?;
        Some(self.large(handle, karn).map_or_else(|| record.all(), |large| large.all))
    }

    /// Add a sample, ns.
    #[inline(always)]
    pub fn add(&mut self, handle: u32, ns: i64) {
        let (pair, which) = place(handle);
        let Some(Pair(records)) = self.pairs.get_mut(pair) else { return };
        let record = &mut records[which];
        if record.large == 0 {
            if let (Some(few), Ok(ns)) = (record.few.get_mut(record.count as usize), u32::try_from(ns)) {
                *few = ns;
                record.count += 1;
                return;
            }
            self.promote(handle);
        }
        let large = self.pairs[pair].0[which].large;
        self.add_large(large, ns);
    }

    #[inline(always)]
    fn add_large(&mut self, handle: u32, ns: i64) {
        let Some(record) = self.large.get_mut((handle as usize).wrapping_sub(1)) else { return };
        let bucket = bucket(ns.max(0) as u64);
        if let Some(small) = record.small.get_mut(record.all.count as usize) {
            *small = bucket;
            return record.all.add(ns);
        }
        record.all.add(ns);
        if record.table == 0 {
            self.spread(handle);
        }
        let table = self.large[handle as usize - 1].table;
        self.tables[table as usize - 1][usize::from(bucket)] += 1;
    }

    /// Move the few samples of a direction into a large record; its handle.
    #[cold]
    #[inline(never)]
    fn promote(&mut self, handle: u32) -> u32 {
        let (pair, which) = place(handle);
        let Record { few, count, large } = self.pairs[pair].0[which];
        if large != 0 {
            return large;
        }
        let empty = Large { all: Rtt::NONE, table: 0, small: [0; SMALL], karn: 0 };
        let large = keep(&mut self.large, &mut self.free_large, empty);
        for &ns in &few[..count as usize] {
            self.add_large(large, ns.into());
        }
        self.pairs[pair].0[which].large = large;
        large
    }

    /// Give a large record its table.
    #[cold]
    fn spread(&mut self, handle: u32) {
        let mut table = vec![0u32; BUCKETS];
        for small in self.large[handle as usize - 1].small {
            table[usize::from(small)] += 1;
        }
        self.large[handle as usize - 1].table = keep(&mut self.tables, &mut self.free_tables, table);
    }

    /// Karn's samples begin to differ: split them off as a copy, if that is not done yet; its handle.
    pub fn split(&mut self, handle: u32) -> u32 {
        let own = self.promote(handle);
        let large = &self.large[own as usize - 1];
        if large.karn != 0 {
            return large.karn;
        }
        let mut copy = large.clone();
        if let Some(table) = at(&self.tables, copy.table).cloned() {
            copy.table = keep(&mut self.tables, &mut self.free_tables, table);
        }
        let karn = keep(&mut self.large, &mut self.free_large, copy);
        self.large[own as usize - 1].karn = karn;
        karn
    }

    /// Add a sample to Karn's alone.
    pub fn add_karn(&mut self, handle: u32, ns: i64) {
        let karn = self.split(handle);
        self.add_large(karn, ns);
    }

    /// The sample below which `share` (0…1) of them lie, ns; of Karn's when asked.
    pub fn quantile(&self, handle: u32, karn: bool, share: f64) -> Option<f64> {
        let all = self.get(handle, karn).filter(|all| all.count > 0)?;
        let rank = ((f64::from(all.count) * share).ceil() as u64).clamp(1, u64::from(all.count));
        let limit = |ns: f64| ns.clamp(all.min as f64, all.max as f64);
        let pick = |small: &mut [u16]| {
            small.sort_unstable();
            small.get(rank as usize - 1).map(|&b| limit(middle(usize::from(b))))
        };
        let Some(large) = self.large(handle, karn) else {
            let record = self.record(handle)?;
            let mut small = record.few.map(|ns| bucket(ns.into()));
            return pick(&mut small[..record.count as usize]);
        };
        let Some(table) = at(&self.tables, large.table) else {
            let mut small = large.small;
            return pick(&mut small[..(all.count as usize).min(SMALL)]);
        };
        let mut seen = 0;
        for (i, &count) in table.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Some(limit(middle(i)));
            }
        }
        Some(all.max as f64)
    }

    /// Ask for a record soon to be used.
    #[inline(always)]
    pub fn prefetch(&self, handle: u32) {
        netlab_mem::prefetch(&self.pairs, (handle.max(1) as usize - 1) / 2, 0);
    }

    /// Memory held, octets.
    pub fn memory(&self) -> usize {
        self.pairs.len() * size_of::<Pair>()
            + self.large.len() * size_of::<Large>()
            + self.tables.len() * BUCKETS * 4
    }
}

impl Record {
    /// Statistics of the few samples.
    fn all(&self) -> Rtt {
        let mut all = Rtt::NONE;
        self.few[..self.count as usize].iter().for_each(|&ns| all.add(ns.into()));
        all
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
            let handle = rtts.new_record(0);
            for &s in &samples {
                rtts.add(handle, s as i64);
            }
            let mut sorted = samples;
            sorted.sort_unstable();
            let exact = sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1] as f64;
            let got = rtts.quantile(handle, false, share).unwrap();
            prop_assert!((got - exact).abs() <= exact * 0.05, "{got} for {exact}");
        }
    }

    proptest! {
        /// Where a sample is kept changes nothing: few, odd ones among them, or all in a large record.
        #[test]
        fn few_samples_say_what_many_would(samples in proptest::collection::vec(-5i64..9_000_000_000, 1..20),
                                           share in 0.01f64..0.99) {
            let mut rtts = Rtts::default();
            let handle = rtts.new_record(0);
            let other = rtts.new_record(handle);
            rtts.promote(other);
            for &ns in &samples {
                rtts.add(handle, ns);
                rtts.add(other, ns);
            }
            let (few, many) = (rtts.get(handle, false).unwrap(), rtts.get(other, true).unwrap());
            prop_assert_eq!((few.count, few.min, few.max, few.sum), (many.count, many.min, many.max, many.sum));
            prop_assert_eq!(few.count as usize, samples.len());
            prop_assert_eq!(rtts.quantile(handle, true, share), rtts.quantile(other, false, share));
        }
    }

    #[test]
    fn records_of_a_released_flow_are_used_again_and_empty() {
        let mut rtts = Rtts::default();
        let first = rtts.new_record(0);
        let second = rtts.new_record(first);
        for ns in 1..40 {
            rtts.add(first, ns * 1000);
            rtts.add(second, ns);
        }
        rtts.split(second);
        let held = rtts.memory();
        rtts.release([0, second]);
        let again = rtts.new_record(0);
        let beside = rtts.new_record(again);
        assert_eq!(rtts.get(again, false).unwrap().count + rtts.get(beside, true).unwrap().count, 0);
        for ns in 1..40 {
            rtts.add(again, ns);
            rtts.add(beside, ns);
        }
        rtts.split(again);
        assert_eq!(rtts.memory(), held);
        rtts.release([0, 0]);
        assert_ne!(rtts.new_record(0), again);
    }

    #[test]
    fn karn_begins_as_a_copy() {
        let mut rtts = Rtts::default();
        let handle = rtts.new_record(0);
        for ns in 1..40 {
            rtts.add(handle, ns * 1000);
        }
        let karn = rtts.split(handle);
        rtts.add(handle, 1_000_000);
        assert_eq!(rtts.get(handle, true).unwrap().count + 1, rtts.get(handle, false).unwrap().count);
        assert_eq!(rtts.split(handle), karn);
    }
}
