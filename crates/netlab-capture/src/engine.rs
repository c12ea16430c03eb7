//! Drives a capture through parse stage and state stage, on one thread or several.
//!
//! The parse stage is one reader and one decoder, in file order, whoever runs it. It fills chunks of
//! descriptors. On one thread each chunk goes to the only shard at once, while it is in the cache. On
//! several, every thread takes whatever work there is: parse the next chunk (one at a time), or the next
//! chunk of a shard no one works on. Each shard takes its descriptors in file order, so the answer is
//! the same for every number of threads.
//!
//! Unsatisfactory: the parse stage does not scale beyond the work of one core, which bounds the gain
//! to roughly two and a half.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::packet::Chunk;
use crate::reader::{Damage, Reader, Step};
use crate::shard::{Keep, Shard, Wanted};
use crate::source::{Source, Stream};
use crate::summary::{Summary, Totals};
use crate::tcp::Rules;
use crate::wire::Decoder;

pub use crate::tcp::Rules as Semantics;

/// Called now and then with octets done, octets in all (if known) and packets; false stops the run.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>, u64) -> bool;

/// How to summarize.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads to use; 0 counts as 1.
    pub threads: usize,
    /// Verify TCP and UDP checksums.
    pub checksums: bool,
    /// Whose rules.
    pub rules: Rules,
    /// Frames per chunk, 0 to let the engine choose; changes nothing but speed.
    pub chunk: u32,
    /// What to keep beside flows.
    pub keep: Keep,
    /// Read a file as it grows, until the progress callback says stop.
    pub follow: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            checksums: false,
            rules: Rules::V40,
            chunk: 0,
            keep: Keep::default(),
            follow: false,
        }
    }
}

/// Frames per chunk when several threads work: enough to make a hand-over cheap, few enough that the
/// chunks on their way stay in the second cache.
const CHUNK_SHARED: u32 = 2048;
/// Shards per thread: more than one evens out flows of unequal size.
const SHARDS_PER_THREAD: usize = 4;
/// How far ahead of small records the capture is asked for, octets.
const AHEAD: usize = 1024;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

/// Reader, decoder and totals: everything that needs file order.
struct Parser {
    reader: Reader,
    decoder: Decoder,
    totals: Totals,
    frame: u64,
}

/// Why [`Parser::fill`] stopped.
enum Filled {
    /// The chunk is full.
    Full,
    /// So many bytes from here are needed.
    More(usize),
    /// The rest cannot be read.
    Damaged(Damage),
}

impl Parser {
    /// Decode records of `window` from `at` on until the chunk holds `limit` frames.
    fn fill(&mut self, window: &[u8], at: &mut usize, chunk: &mut Chunk, limit: u32) -> Filled {
        chunk.clear();
        chunk.first_frame = self.frame + 1;
        let Self { reader, decoder, totals, .. } = self;
        // One loop per container: what distinguishes them is decided outside of it.
        let filled = match reader {
            Reader::Pcap(pcap) if pcap.is_big_endian() => {
                records(|at| pcap.step::<true>(window, at), window, at, chunk, limit, decoder, totals)
            }
            Reader::Pcap(pcap) => {
                records(|at| pcap.step::<false>(window, at), window, at, chunk, limit, decoder, totals)
            }
            Reader::Pcapng(ng) => {
                records(|at| ng.step(window, at), window, at, chunk, limit, decoder, totals)
            }
        };
        self.frame += u64::from(chunk.frames);
        filled
    }
}

/// The loop of [`Parser::fill`]: `step` says what stands at an offset of `window`.
#[inline(always)]
fn records(
    mut step: impl FnMut(usize) -> Step,
    window: &[u8],
    at: &mut usize,
    chunk: &mut Chunk,
    limit: u32,
    decoder: &mut Decoder,
    totals: &mut Totals,
) -> Filled {
    let (mut interface, mut run) = (0, 0);
    let filled = loop {
        if chunk.frames >= limit {
            break Filled::Full;
        }
        match step(*at) {
            Step::Packet(record) => {
                let data = &window[record.data..record.data + record.captured as usize];
                let size = record.end - *at;
                if size > 256 {
                    // Bulk traffic repeats its sizes: ask for the headers a few records ahead.
                    netlab_mem::prefetch(window, record.end + 6 * size, 0);
                    netlab_mem::prefetch(window, record.end + 6 * size, 1);
                } else {
                    // Small ones do not, but nearly every line holds headers: ask for all, some way ahead.
                    for line in 0..=size / 64 {
                        netlab_mem::prefetch(window, *at + AHEAD, line);
                    }
                }
                *at = record.end;
                if record.interface != interface {
                    totals.count_interface(interface, std::mem::take(&mut run));
                    interface = record.interface;
                }
                run += 1;
                totals.packet(&record);
                decoder.frame(chunk, &record, data);
            }
            Step::Skip(size) => *at += size,
            Step::Other(size) => {
                chunk.frames += 1;
                totals.other_records += 1;
                *at += size;
            }
            Step::More(size) => break Filled::More(size),
            Step::Damaged(damage) => break Filled::Damaged(damage),
        }
    };
    totals.count_interface(interface, run);
    filled
}

/// A window onto the bytes: the whole mapping, or a buffer that is refilled.
enum Feed<'a> {
    Whole { bytes: &'a [u8], at: usize, mapping: Option<&'a netlab_mem::Mapping> },
    Buffer { stream: &'a mut Stream, bytes: Vec<u8>, at: usize, len: usize, base: u64, ended: bool },
}

/// The least a refill asks for.
const REFILL: usize = 1 << 20;

enum Refilled {
    Yes,
    End,
    Wait,
}

impl Feed<'_> {
    fn position(&self) -> u64 {
        match self {
            Self::Whole { at, .. } => *at as u64,
            Self::Buffer { at, base, .. } => base + *at as u64,
        }
    }

    /// Bytes left in view.
    fn view(&self) -> &[u8] {
        match self {
            Self::Whole { bytes, at, .. } => &bytes[*at..],
            Self::Buffer { bytes, at, len, .. } => &bytes[*at..*len],
        }
    }

    fn advance(&mut self, by: usize) {
        match self {
            Self::Whole { at, .. } | Self::Buffer { at, .. } => *at += by,
        }
    }

    /// Try to bring at least `need` bytes into view. A read error counts as the end, with its words.
    fn refill(&mut self, need: usize, totals: &mut Vec<String>) -> Refilled {
        let Self::Buffer { stream, bytes, at, len, base, ended } = self else { return Refilled::End };
        if *ended {
            return Refilled::End;
        }
        bytes.copy_within(*at..*len, 0);
        *base += *at as u64;
        *len -= *at;
        *at = 0;
        while *len < need {
            if *len == bytes.len() {
                // Twice what has arrived, whatever a length field claims: a lie costs no memory.
                bytes.resize((bytes.len() * 2).max(REFILL), 0);
            }
            match stream.read(&mut bytes[*len..]) {
                Ok(0) if stream.follow => return Refilled::Wait,
                Ok(0) => {
                    *ended = true;
                    return Refilled::End;
                }
                Ok(n) => *len += n,
                Err(error) => {
                    let kind = if stream.compression.is_empty() { "input" } else { stream.compression };
                    totals.push(format!(
                        "the {kind} data ends in an error after {} bytes: {error}",
                        *base + *len as u64
                    ));
                    *ended = true;
                    return Refilled::End;
                }
            }
        }
        Refilled::Yes
    }
}

/// Parse stage with its input; whoever holds it parses the next chunk.
struct Intake<'a> {
    parser: Parser,
    feed: Feed<'a>,
    done: bool,
    shrunk: bool,
    interrupted: bool,
    last_tell: Instant,
    size: Option<u64>,
}

impl Intake<'_> {
    /// Fill a chunk; afterwards `done` says whether it was the last. `progress` is told now and then.
    fn next(&mut self, chunk: &mut Chunk, limit: u32, mut progress: Option<Progress<'_>>) {
        loop {
            let mut at = 0;
            let filled = match &mut self.feed {
                Feed::Whole { bytes, at, .. } => self.parser.fill(bytes, at, chunk, limit),
                Feed::Buffer { bytes, at: start, len, .. } => {
                    let filled = self.parser.fill(&bytes[*start..*len], &mut at, chunk, limit);
                    *start += at;
                    filled
                }
            };
            if let Feed::Whole { mapping: Some(mapping), .. } = &self.feed {
                if mapping.faulted() {
                    self.shrunk = true;
                    self.done = true;
                    return;
                }
            }
            if let Some(progress) = progress.as_mut().filter(|_| self.last_tell.elapsed() >= TELL) {
                self.last_tell = Instant::now();
                if !progress(self.feed.position(), self.size, self.parser.frame) {
                    self.interrupted = true;
                    self.done = true;
                    return;
                }
            }
            match filled {
                Filled::Full => return,
                Filled::Damaged(damage) => {
                    let at = self.feed.position();
                    self.parser.totals.damaged_at = Some(at);
                    self.parser.totals.truncated_at = Some(at);
                    let frames = self.parser.totals.packets;
                    self.parser.totals.warnings.push(format!(
                        "damaged at offset {at}, after {frames} packets: {damage}; the rest of the file was not read"
                    ));
                    self.done = true;
                    return;
                }
                Filled::More(need) => {
                    let mut words = Vec::new();
                    match self.feed.refill(need, &mut words) {
                        Refilled::Yes => {
                            if chunk.frames > 0 {
                                return;
                            }
                        }
                        Refilled::Wait => {
                            if chunk.frames > 0 {
                                return;
                            }
                            std::thread::sleep(Duration::from_millis(20));
                            let position = self.feed.position();
                            if progress.as_mut().is_some_and(|tell| !tell(position, None, self.parser.frame))
                            {
                                self.done = true;
                                return;
                            }
                        }
                        Refilled::End => {
                            let broken = !words.is_empty();
                            self.parser.totals.warnings.append(&mut words);
                            self.end(broken);
                            self.done = true;
                            return;
                        }
                    }
                }
            }
        }
    }

    /// The input is over: was it cut inside a record?
    fn end(&mut self, broken: bool) {
        let left = self.feed.view().len();
        let at = self.feed.position();
        if left > 0 || broken {
            self.parser.totals.truncated_at = Some(at);
            let frames = self.parser.totals.packets;
            self.parser.totals.warnings.push(format!(
                "truncated at offset {at}, after {frames} packets: {left} bytes of an incomplete record were left"
            ));
        }
    }
}

/// Summarize the capture at `path`.
pub fn summarize(path: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary, Error> {
    let mut source = Source::open(path, options.follow)?;
    summarize_source(&mut source, options, progress).map_err(|error| match error {
        Error::NotACapture(what) => Error::NotACapture(format!("{}: {what}", path.display())),
        other => other,
    })
}

/// Summarize bytes in memory.
pub fn summarize_bytes(bytes: &[u8], options: &Options) -> Result<Summary, Error> {
    run(Feed::Whole { bytes, at: 0, mapping: None }, None, options, &mut |_, _, _| true)
        .map(|(summary, _)| summary)
}

/// Summarize an opened source.
pub fn summarize_source(
    source: &mut Source,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Summary, Error> {
    match source {
        Source::Stream(stream) => {
            let size = if stream.compression.is_empty() { stream.size } else { None };
            let compression = stream.compression;
            let feed = Feed::Buffer { stream, bytes: vec![0; REFILL], at: 0, len: 0, base: 0, ended: false };
            let (mut summary, _) = run(feed, size, options, progress)?;
            summary.totals.compression = compression;
            Ok(summary)
        }
        Source::Mapped(mapping) => {
            // A file that shrinks meanwhile is summarized again up to where it now ends.
            let full = mapping.bytes().len();
            let mut length = full;
            loop {
                let bytes = &mapping.bytes()[..length];
                let watched = (length == full).then_some(&*mapping);
                let feed = Feed::Whole { bytes, at: 0, mapping: watched };
                let outcome = run(feed, Some(length as u64), options, &mut *progress);
                let readable = mapping.readable();
                if readable < length {
                    length = readable;
                    continue;
                }
                let (mut summary, _) = outcome?;
                if length < full {
                    summary.totals.truncated_at.get_or_insert(length as u64);
                    summary.totals.warnings.push(format!(
                        "the file shrank while it was read, from {full} to {length} bytes; what remained was summarized"
                    ));
                }
                return Ok(summary);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Random words for the flow hash, from the seed the standard library draws for its own tables.
fn random_seed() -> [u64; 4] {
    use std::hash::{BuildHasher, RandomState};
    std::array::from_fn(|i| RandomState::new().hash_one(i))
}

fn run(
    mut feed: Feed<'_>,
    size: Option<u64>,
    options: &Options,
    progress: Progress<'_>,
) -> Result<(Summary, bool), Error> {
    let mut words = Vec::new();
    let (reader, used) = loop {
        match Reader::recognise(feed.view(), false)? {
            Some(found) => break found,
            None => match feed.refill(24, &mut words) {
                Refilled::Yes => {}
                Refilled::Wait => {
                    std::thread::sleep(Duration::from_millis(20));
                    if !progress(0, None, 0) {
                        return Err(Error::NotACapture("no capture header arrived".into()));
                    }
                }
                Refilled::End => match Reader::recognise(feed.view(), true)? {
                    Some(found) => break found,
                    None => return Err(Error::NotACapture("the header is incomplete".into())),
                },
            },
        }
    };
    let header_cut = matches!(reader, Reader::Pcap(_)) && used < 24;
    feed.advance(used);
    // Segment rows by stream number need stream numbers as they are given: one shard, in order. So does
    // a limit on flows, which is a limit on all of them together.
    let keep = &options.keep;
    let alone = matches!(keep.segments, Wanted::Streams(_)) || keep.max_flows.is_some();
    let threads = options.threads.max(1);
    let shards = if alone || threads == 1 { 1 } else { threads * SHARDS_PER_THREAD };
    let detail = keep.segments != Wanted::None;
    let expected = usize::try_from(size.unwrap_or(4 << 20) / 1000).unwrap_or(usize::MAX) / shards;
    let mut totals = Totals::new();
    totals.warnings = words;
    if header_cut {
        totals.truncated_at = Some(used as u64);
        totals.warnings.push(format!("truncated at offset {used}, inside the file header"));
    }
    let parser =
        Parser { reader, decoder: Decoder::new(random_seed(), detail, options.checksums), totals, frame: 0 };
    let mut intake = Intake {
        parser,
        feed,
        done: header_cut,
        shrunk: false,
        interrupted: false,
        last_tell: Instant::now(),
        size,
    };
    let mut all: Vec<Shard> =
        (0..shards).map(|_| Shard::new(expected, options.rules, keep.clone())).collect();
    if threads == 1 {
        let mut chunk = Chunk::default();
        while !intake.done {
            // Few flows: a small chunk stays in the first cache. Many: a long one keeps prefetches flowing.
            let limit = match options.chunk {
                0 if all[0].is_small() => 64,
                0 => 1024,
                asked => asked,
            };
            intake.next(&mut chunk, limit, Some(&mut *progress));
            all[0].process(&chunk, None);
        }
    } else {
        let limit =
            if options.chunk == Options::default().chunk { CHUNK_SHARED } else { options.chunk.max(1) };
        (intake, all) = share(intake, all, threads, limit, progress);
    }
    if intake.interrupted {
        return Err(Error::Interrupted);
    }
    let shrunk = intake.shrunk;
    let Parser { reader, decoder, totals, frame } = intake.parser;
    Ok((Summary::new(reader, decoder.counts, totals, frame, all, options), shrunk))
}

/// A chunk with, per shard, the descriptors that fall to it.
struct Work {
    chunk: Chunk,
    lists: Vec<Vec<u32>>,
}

/// The state stage of one shard: its queue in file order, and the shard for whoever takes it.
struct Station {
    queue: Mutex<VecDeque<Arc<Work>>>,
    shard: Mutex<Shard>,
}

fn share<'a>(
    intake: Intake<'a>,
    shards: Vec<Shard>,
    threads: usize,
    limit: u32,
    progress: Progress<'_>,
) -> (Intake<'a>, Vec<Shard>) {
    let count = shards.len();
    let stations: Vec<Station> =
        shards.into_iter().map(|s| Station { queue: Mutex::default(), shard: Mutex::new(s) }).collect();
    let intake = Mutex::new(intake);
    let spare: Mutex<Vec<Work>> = Mutex::default();
    let (parsed, pending) = (AtomicBool::new(false), AtomicUsize::new(0));
    let most = count * 3;
    let work = |own: usize, mut progress: Option<Progress<'_>>| {
        let mut idle = 0u32;
        loop {
            let mut busy = false;
            if pending.load(Ordering::Acquire) < most && !parsed.load(Ordering::Acquire) {
                if let Ok(mut intake) = intake.try_lock() {
                    if !intake.done {
                        let mut work = lock(&spare).pop().unwrap_or_else(|| Work {
                            chunk: Chunk::default(),
                            lists: vec![Vec::new(); count],
                        });
                        intake.next(&mut work.chunk, limit, progress.as_mut().map(|p| &mut **p as _));
                        work.lists.iter_mut().for_each(Vec::clear);
                        for (i, packet) in work.chunk.packets.iter().enumerate() {
                            // Middle bits of the hash: the upper ones choose the place in the table.
                            let shard = ((packet.hash & 0xffff_ffff) * count as u64) >> 32;
                            work.lists[shard as usize].push(i as u32);
                        }
                        let work = Arc::new(work);
                        for (station, list) in stations.iter().zip(&work.lists) {
                            if !list.is_empty() {
                                pending.fetch_add(1, Ordering::AcqRel);
                                lock(&station.queue).push_back(Arc::clone(&work));
                            }
                        }
                        if intake.done {
                            parsed.store(true, Ordering::Release);
                        }
                        busy = true;
                    } else {
                        parsed.store(true, Ordering::Release);
                    }
                }
            }
            for turn in 0..count {
                let which = (own + turn) % count;
                let Ok(mut shard) = stations[which].shard.try_lock() else { continue };
                let Some(work) = lock(&stations[which].queue).pop_front() else { continue };
                shard.process(&work.chunk, Some(&work.lists[which]));
                drop(shard);
                if let Some(work) = Arc::into_inner(work) {
                    lock(&spare).push(work);
                }
                pending.fetch_sub(1, Ordering::AcqRel);
                busy = true;
                if pending.load(Ordering::Acquire) < most / 2 {
                    break;
                }
            }
            if busy {
                idle = 0;
                continue;
            }
            if parsed.load(Ordering::Acquire) && pending.load(Ordering::Acquire) == 0 {
                return;
            }
            idle += 1;
            if idle < 64 { std::thread::yield_now() } else { std::thread::sleep(Duration::from_micros(50)) }
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        for i in 1..threads {
            scope.spawn(move || work(i * count / threads, None));
        }
        work(0, Some(progress));
    });
    let intake = intake.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let shards =
        stations.into_iter().map(|s| s.shard.into_inner().unwrap_or_else(|p| p.into_inner())).collect();
    (intake, shards)
}
