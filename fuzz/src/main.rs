//! A coverage-guided fuzzer in one process, for stable Rust.
//!
//! usage: netlab-fuzz TARGET SECONDS [SEED] | netlab-fuzz TARGET minimize | netlab-fuzz TARGET FILE...
//!
//! Inputs come from `corpus/` and `grown/` (found in earlier runs). An input that reaches a new edge,
//! or an edge a new order of magnitude of times, is kept and mutated further. An input that panics or
//! takes more memory than the bound is saved in `artifacts/` (one for each place of a panic), one that
//! takes more than five seconds ends the run; the status is then 1.

mod coverage;
mod memory;
mod mutate;
mod targets;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use coverage::Coverage;
use mutate::Dice;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Octets of the longest input.
const LONGEST: usize = 64 << 10;
/// Octets of the longest input that `minimize` keeps.
const LONGEST_KEPT: usize = 4 << 10;
/// An input that takes more CPU time hangs.
const HANG: Duration = Duration::from_secs(5);
/// Memory that any input may take (tables and buffers that are reserved at once, most of it never
/// touched: a pcapng block may claim 128 MiB, and a pipe's buffer grows to twice that), and what each of its octets may add: a packet of 60 octets makes a flow and, with segments
/// kept and written out as text, a row of every column.
const BASE_MEMORY: usize = 320 << 20;
const MEMORY_PER_OCTET: usize = 400;

static CURRENT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Where the last panic came from.
static PLACE: Mutex<String> = Mutex::new(String::new());
/// Odd while an input runs; every start and every end counts.
static RUN: AtomicU64 = AtomicU64::new(0);

/// A file name from the content, so that equal inputs are one file.
fn name_of(data: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn load(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    files.sort();
    files.iter().filter_map(|f| std::fs::read(f).ok()).filter(|data| data.len() <= LONGEST).collect()
}

fn save(directory: &str, name: &str, data: &[u8]) -> PathBuf {
    let _ = std::fs::create_dir_all(directory);
    let path = Path::new(directory).join(name);
    if let Err(error) = std::fs::write(&path, data) {
        eprintln!("cannot keep {}: {error}", path.display());
    }
    path
}

/// CPU time of this process in milliseconds: what others do on the machine must not look like a hang.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| after_name.split_whitespace().nth(place).and_then(|word| word.parse().ok());
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    (ticks(11).unwrap_or(0u64) + ticks(12).unwrap_or(0)) * 10
}

/// Run the target on an input; what went wrong, if anything.
fn trial(target: fn(&[u8]), data: &[u8]) -> Result<(), String> {
    if let Ok(mut current) = CURRENT.lock() {
        data.clone_into(&mut current);
    }
    RUN.fetch_add(1, Relaxed);
    let before = memory::begin();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(data)));
    let peak = memory::peak_above(before);
    RUN.fetch_add(1, Relaxed);
    match outcome {
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_string()));
            let place = PLACE.lock().map(|p| p.clone()).unwrap_or_default();
            Err(format!("panic at {place}: {}", text.unwrap_or_default()))
        }
        Ok(()) if peak > BASE_MEMORY + MEMORY_PER_OCTET * data.len() => {
            Err(format!("memory: {} octets of input took {peak} octets", data.len()))
        }
        Ok(()) => Ok(()),
    }
}

/// End the process when one input takes too long.
fn watch() {
    std::thread::spawn(|| {
        let (mut seen, mut since) = (0, 0);
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let (run, now) = (RUN.load(Relaxed), cpu_ms());
            if run != seen || run % 2 == 0 {
                (seen, since) = (run, now);
            } else if now > since + HANG.as_millis() as u64 {
                let data = CURRENT.lock().map(|d| d.clone()).unwrap_or_default();
                let path = save("artifacts", &format!("hang-{}", name_of(&data)), &data);
                eprintln!("an input of {} octets takes more than {HANG:?}: {}", data.len(), path.display());
                std::process::exit(1);
            }
        }
    });
}

fn fuzz(name: &str, target: fn(&[u8]), seconds: u64, seed: u64) -> ExitCode {
    let clock = Instant::now();
    watch();
    std::panic::set_hook(Box::new(|info| {
        if let (Some(place), Ok(mut last)) = (info.location(), PLACE.lock()) {
            *last = place.to_string();
        }
    }));
    let mut cover = Coverage::new();
    if cover.len() == 0 {
        eprintln!("this build counts no coverage; start it with run");
        return ExitCode::FAILURE;
    }
    let mut dice = Dice(seed);
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    // One input for each place that panics (or for "memory"): the run goes on to find others.
    let mut broken: HashMap<String, u64> = HashMap::new();
    let mut waiting = load(Path::new("corpus"));
    let committed = waiting.len();
    waiting.extend(load(&Path::new("grown").join(name)));
    waiting.reverse();
    let (mut runs, mut slowest, mut told) = (0u64, Duration::ZERO, Instant::now());
    while clock.elapsed().as_secs() < seconds {
        let seed_file = waiting.pop();
        let from_file = seed_file.is_some();
        let data = seed_file.unwrap_or_else(|| {
            if corpus.is_empty() {
                return vec![0; 24];
            }
            // Newer inputs are more interesting: half of the time one of the last quarter.
            let from = if dice.below(2) == 0 { corpus.len() * 3 / 4 } else { 0 };
            let base = from + dice.below(corpus.len() - from);
            let other = dice.below(corpus.len());
            mutate::mutate(&corpus[base], &corpus[other], &mut dice, LONGEST)
        });
        cover.clear();
        let begun = Instant::now();
        if let Err(why) = trial(target, &data) {
            let kind = why.split(": ").next().unwrap_or_default().to_string();
            let times = broken.entry(kind).or_insert(0);
            *times += 1;
            if *times == 1 {
                let path = save("artifacts", &format!("{name}-{}", name_of(&data)), &data);
                eprintln!("{why}\n  input: {0}\n  again: ./run {name} {0}", path.display());
            }
            continue;
        }
        slowest = slowest.max(begun.elapsed());
        runs += 1;
        if cover.collect() > 0 {
            if !from_file {
                save(&format!("grown/{name}"), &name_of(&data), &data);
            }
            corpus.push(data);
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            eprintln!(
                "{name}: {:>5} s  {runs} runs  {} of {} edges  {} inputs  slowest {slowest:?}",
                clock.elapsed().as_secs(),
                cover.reached(),
                cover.len(),
                corpus.len(),
            );
        }
    }
    let took = clock.elapsed().as_secs().max(1);
    for (kind, times) in &broken {
        println!("{name}: BROKEN {times} times: {kind}");
    }
    println!(
        "{name}: {}: {runs} runs in {took} s ({} a second), {committed} committed inputs, {} kept, \
         {} of {} edges, slowest {slowest:?}",
        if broken.is_empty() { "clean" } else { "broken" },
        runs / took,
        corpus.len(),
        cover.reached(),
        cover.len(),
    );
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Choose few inputs that together reach all edges that `corpus/` and `grown/` reach: again and again
/// the one that adds most. Edges only: an input for each order of magnitude would keep thousands.
fn minimize(name: &str, target: fn(&[u8])) -> ExitCode {
    let mut inputs = load(Path::new("corpus"));
    inputs.extend(load(&Path::new("grown").join(name)));
    inputs.sort_by_key(Vec::len);
    inputs.dedup();
    let cover = Coverage::new();
    let mut reached: Vec<(usize, HashSet<u32>)> = Vec::new();
    for (index, data) in inputs.iter().enumerate() {
        cover.clear();
        if data.len() <= LONGEST_KEPT && trial(target, data).is_ok() {
            reached.push((index, cover.bits().into_iter().map(|(edge, _)| edge).collect()));
        }
    }
    let mut left: HashSet<u32> = reached.iter().flat_map(|(_, edges)| edges.iter().copied()).collect();
    let (edges, mut kept, mut octets) = (left.len(), 0, 0);
    while !left.is_empty() {
        let best = reached.iter().max_by_key(|(_, edges)| edges.intersection(&left).count());
        let Some((index, found)) = best else { break };
        left.retain(|edge| !found.contains(edge));
        kept += 1;
        octets += inputs[*index].len();
        save("corpus.new", &name_of(&inputs[*index]), &inputs[*index]);
    }
    println!("{name}: {kept} of {} inputs, {octets} octets, {edges} edges, in corpus.new/", inputs.len());
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, what, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: netlab-fuzz reader|pipeline SECONDS [SEED] | minimize | FILE...");
        return ExitCode::from(2);
    };
    let Some(target) = targets::find(name) else {
        eprintln!("no such target: {name}; there are reader and pipeline");
        return ExitCode::from(2);
    };
    if what == "minimize" {
        return minimize(name, target);
    }
    if let Ok(seconds) = what.parse() {
        let seed = rest.first().and_then(|s| s.parse().ok()).unwrap_or(1);
        return fuzz(name, target, seconds, seed);
    }
    for file in std::iter::once(what).chain(rest) {
        match std::fs::read(file) {
            Ok(data) => {
                let before = memory::begin();
                let begun = Instant::now();
                target(&data);
                println!("{file}: {:?}, {} octets of memory", begun.elapsed(), memory::peak_above(before));
            }
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}
