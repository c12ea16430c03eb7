//! What is run on an input, and what must hold.

use netlab_capture::engine::{Options, Semantics, summarize_bytes, summarize_source};
use netlab_capture::reader::{Reader, Record, Step};
use netlab_capture::shard::{Keep, Wanted};
use netlab_capture::source::{Source, Stream};
use netlab_capture::{Error, Summary, schema};

/// A target by name.
pub fn find(name: &str) -> Option<fn(&[u8])> {
    match name {
        "reader" => Some(reader),
        "pipeline" => Some(pipeline),
        _ => None,
    }
}

/// Walk the records of a window that is the whole file.
fn whole(data: &[u8]) -> Option<(Vec<Record>, Option<String>)> {
    let (mut reader, mut at) = Reader::recognise(data, true).ok()??;
    let mut records = Vec::new();
    loop {
        assert!(at <= data.len(), "the reader stands at {at} of {}", data.len());
        match reader.step(data, at) {
            Step::Packet(record) => {
                assert!(record.data >= at && record.end > at, "a record must move forwards");
                assert!(record.data + record.captured as usize <= record.end && record.end <= data.len());
                assert!((record.interface as usize) < reader.interfaces().len());
                at = record.end;
                records.push(record);
            }
            Step::Skip(size) | Step::Other(size) => {
                assert!(size > 0, "skipping nothing never ends");
                at += size;
            }
            Step::More(need) => {
                assert!(need > data.len() - at, "asks for {need}, has {}", data.len() - at);
                return Some((records, None));
            }
            Step::Damaged(damage) => return Some((records, Some(damage.to_string()))),
        }
    }
}

/// Both readers: the same records from one window and from windows that are as small as they may be.
fn reader(data: &[u8]) {
    let expected = whole(data);
    // Recognition must not depend on how much is there, beyond asking for more.
    for size in 0..data.len().min(32) {
        if let Ok(Some((_, used))) = Reader::recognise(&data[..size], false) {
            assert!(used <= size);
        }
    }
    let Some((expected, damage)) = expected else { return };
    let Ok(Some((mut reader, mut at))) = Reader::recognise(data, true) else { unreachable!() };
    let (mut given, mut found) = (at, 0);
    loop {
        assert!(found <= expected.len());
        match reader.step(&data[at..given], 0) {
            Step::Packet(record) => {
                let moved = Record { data: record.data + at, end: record.end + at, ..record };
                assert_eq!(Some(&moved), expected.get(found), "record {found} differs");
                found += 1;
                at = moved.end;
                given = given.max(at);
            }
            Step::Skip(size) | Step::Other(size) => {
                at += size;
                given = given.max(at);
                if at > data.len() {
                    break;
                }
            }
            Step::More(need) => {
                assert!(need > given - at, "asks for what it has");
                if at + need > data.len() {
                    // It may ask for a length first and for the whole block then.
                    if given == data.len() {
                        break;
                    }
                    given = data.len();
                } else {
                    given = at + need;
                }
            }
            Step::Damaged(what) => {
                assert_eq!(Some(what.to_string()), damage);
                break;
            }
        }
    }
    assert_eq!(found, expected.len(), "fewer records from small windows");
}

/// Options with everything on.
fn everything(rules: Semantics) -> Options {
    let keep = Keep { segments: Wanted::All, bin_ns: Some(10_000_000), ..Keep::default() };
    Options { checksums: true, rules, keep, ..Options::default() }
}

/// All that a summary says, as text: a line for each column of each table.
fn account(result: &Result<Summary, Error>) -> String {
    let summary = match result {
        Ok(summary) => summary,
        // What the bytes look like is told from as many as there are at the time.
        Err(Error::NotACapture(_)) => return "no capture".into(),
        Err(error) => return format!("error: {error}"),
    };
    let mut text = format!("{:?}\n", summary.totals);
    let sides = summary.originators();
    let rows = summary.segments().unwrap_or_default();
    let bins = summary.series().unwrap_or_default();
    let tables = [
        schema::flow_columns(summary, 0..summary.len(), None),
        schema::segment_columns(rows, &|stream| sides.get(&stream).copied().unwrap_or(0)),
        schema::series_columns(&bins),
    ];
    for column in tables.iter().flatten() {
        text += &format!("{column:?}\n");
    }
    text
}

/// The table of flows alone, as text.
fn flows(result: &Result<Summary, Error>) -> String {
    let Ok(summary) = result else { return String::new() };
    schema::flow_columns(summary, 0..summary.len(), None)
        .iter()
        .map(|column| format!("{column:?}\n"))
        .collect()
}

/// Fail with the first line that differs.
fn same(left: &str, right: &str, what: &str) {
    if left != right {
        let pair = left.lines().zip(right.lines()).find(|(a, b)| a != b);
        panic!("{what}: {pair:#?}");
    }
}

/// Hands out a slice a few octets at a time.
struct Dribble {
    data: Vec<u8>,
    at: usize,
    step: usize,
}

impl std::io::Read for Dribble {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let size = self.step.min(into.len()).min(self.data.len() - self.at);
        into[..size].copy_from_slice(&self.data[self.at..self.at + size]);
        self.at += size;
        Ok(size)
    }
}

/// The whole pipeline: one answer for any chunk size, any way the bytes arrive, any number of threads.
fn pipeline(data: &[u8]) {
    // The last octets choose the variation, so that a corpus file always means the same run.
    let choice =
        data.iter().rev().take(8).fold(data.len() as u64, |sum, &b| sum.wrapping_mul(31) ^ u64::from(b));
    let rules = if choice & 1 == 0 { Semantics::V40 } else { Semantics::V44 };
    let options = everything(rules);
    // One summary at a time is alive, so that the bound on memory is that of a single run.
    let expected = account(&summarize_bytes(data, &options));
    if choice >> 1 & 3 == 0 {
        let keep = Keep { max_flows: Some(2), ..options.keep.clone() };
        account(&summarize_bytes(data, &Options { keep, ..options.clone() }));
    }
    if choice >> 3 & 7 == 0 {
        let single = account(&summarize_bytes(data, &Options { chunk: 1, ..options.clone() }));
        same(&expected, &single, "chunks of one frame give another answer");
        let step = 1 + (choice >> 8) as usize % 61;
        let mut source = Source::Stream(Stream::new(Dribble { data: data.to_vec(), at: 0, step }));
        let dribbled = account(&summarize_source(&mut source, &options, &mut |_, _, _| true));
        same(&expected, &dribbled, &format!("reading {step} octets at a time gives another answer"));
    }
    if rules == Semantics::V40 {
        // Without segments and checksums most packets take a short way; it must come to the same.
        let keep = Keep { segments: Wanted::All, ..Keep::default() };
        let long = flows(&summarize_bytes(data, &Options { keep, ..Options::default() }));
        let threads = 1 + (choice >> 6) as usize % 2;
        let short = flows(&summarize_bytes(data, &Options { threads, ..Options::default() }));
        same(&long, &short, &format!("the short way gives another answer with {threads} threads"));
    }
}
