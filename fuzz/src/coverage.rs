//! What the instrumented code has reached: LLVM's inline 8-bit counters.
//!
//! Each instrumented module calls `__sanitizer_cov_8bit_counters_init` before `main` with the range of
//! its counters. A counter counts how often its edge was taken, modulo 256; we look at the order of
//! magnitude only, as AFL does, so a loop that runs twice differs from one that runs a hundred times.

use std::sync::Mutex;

static RANGES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by instrumented modules; remembers where their counters are.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let range = (start as usize, stop as usize);
    let mut ranges = RANGES.lock().unwrap();
    if range.0 < range.1 && !ranges.contains(&range) {
        ranges.push(range);
    }
}

/// Called by instrumented modules; the table of program counters is not used.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_pcs_init(_start: *const usize, _stop: *const usize) {}

/// The counters of this process and everything they have shown so far.
pub struct Coverage {
    ranges: Vec<(usize, usize)>,
    /// One bit per order of magnitude, for every counter.
    seen: Vec<u8>,
}

impl Coverage {
    /// All counters of the process.
    pub fn new() -> Self {
        let ranges = RANGES.lock().unwrap().clone();
        let size = ranges.iter().map(|(start, stop)| stop - start).sum();
        Self { ranges, seen: vec![0; size] }
    }

    /// How many counters there are.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Counters that were not zero at least once.
    pub fn reached(&self) -> usize {
        self.seen.iter().filter(|bits| **bits != 0).count()
    }

    fn counters(&self) -> impl Iterator<Item = &'static mut [u8]> + use<> {
        self.ranges.clone().into_iter().map(|(start, stop)| {
            // SAFETY: LLVM laid out these octets for the life of the process, and only the instrumented
            // code of this thread writes them while the fuzzer runs on one thread; on several the counts
            // may be torn, which costs precision and nothing else.
            unsafe { std::slice::from_raw_parts_mut(start as *mut u8, stop - start) }
        })
    }

    /// Set all counters to zero, just before an input runs.
    pub fn clear(&self) {
        for counters in self.counters() {
            counters.fill(0);
        }
    }

    /// Bits (counter, magnitude) the input reached, as (index, bit) pairs, without taking them over.
    pub fn bits(&self) -> Vec<(u32, u8)> {
        let mut out = Vec::new();
        let mut base = 0;
        for counters in self.counters() {
            for (place, &count) in counters.iter().enumerate() {
                if count != 0 {
                    out.push(((base + place) as u32, magnitude(count)));
                }
            }
            base += counters.len();
        }
        out
    }

    /// Take over what the input reached; say how much of it is new.
    pub fn collect(&mut self) -> usize {
        let mut fresh = 0;
        let mut base = 0;
        for counters in self.counters() {
            for (word, chunk) in counters.chunks(8).enumerate() {
                if chunk.iter().all(|&count| count == 0) {
                    continue;
                }
                for (place, &count) in chunk.iter().enumerate().filter(|(_, count)| **count != 0) {
                    let seen = &mut self.seen[base + word * 8 + place];
                    let bit = magnitude(count);
                    fresh += usize::from(*seen & bit == 0);
                    *seen |= bit;
                }
            }
            base += counters.len();
        }
        fresh
    }
}

fn magnitude(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        _ => 128,
    }
}
