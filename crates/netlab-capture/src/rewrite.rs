//! Merge captures, or keep some packets of one: records in, pcapng out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::expression::Expression;
use crate::packet::Chunk;
use crate::reader::{NO_TIME, Reader, Record, Step};
use crate::source::{Source, Stream};
use crate::wire::Decoder;
use crate::writer::Writer;

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Packets read.
    pub read: u64,
    /// Packets written.
    pub written: u64,
    /// Damage met in the inputs.
    pub warnings: Vec<String>,
}

/// Pulls records one at a time, from a mapping or a stream.
pub struct Records {
    source: Source,
    reader: Reader,
    buffer: Vec<u8>,
    at: usize,
    len: usize,
    base: u64,
    ended: bool,
    /// Time stamp of the newest record that has one, ns.
    time: i64,
    /// Frame number of the record `next` returned last.
    pub frame: u64,
    /// Why it ended early, if it did.
    pub warning: Option<String>,
}

fn refill(
    stream: &mut Stream,
    buffer: &mut Vec<u8>,
    at: &mut usize,
    len: &mut usize,
    base: &mut u64,
    need: usize,
) -> bool {
    buffer.copy_within(*at..*len, 0);
    *base += *at as u64;
    *len -= *at;
    *at = 0;
    while *len < need {
        if *len == buffer.len() {
            buffer.resize((buffer.len() * 2).max(1 << 20), 0);
        }
        match stream.read(&mut buffer[*len..]) {
            Ok(0) | Err(_) => return false,
            Ok(n) => *len += n,
        }
    }
    true
}

impl Records {
    /// Open a capture.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut source = Source::open(path, false)?;
        let (mut buffer, mut at, mut len, mut base, mut ended) = (Vec::new(), 0, 0, 0, false);
        let say = |error| match error {
            Error::NotACapture(what) => Error::NotACapture(format!("{}: {what}", path.display())),
            other => other,
        };
        if let Source::Stream(stream) = &mut source {
            ended = !refill(stream, &mut buffer, &mut at, &mut len, &mut base, 24);
        }
        let head = match &source {
            Source::Mapped(mapping) => mapping.bytes(),
            Source::Stream(_) => &buffer[..len],
        };
        let Some((reader, used)) = Reader::recognise(head, true).map_err(say)? else {
            return Err(Error::NotACapture(format!("{}: the header is incomplete", path.display())));
        };
        Ok(Self { source, reader, buffer, at: used, len, base, ended, time: 0, frame: 0, warning: None })
    }

    /// The reader, for its interfaces.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The next packet, or the end. One without a time gets that of the packet before it, so that it stays
    /// at its place in what is written.
    pub fn next_record(&mut self) -> Option<Record> {
        loop {
            let window = match &self.source {
                Source::Mapped(mapping) => mapping.bytes(),
                Source::Stream(_) => &self.buffer[..self.len],
            };
            match self.reader.step(window, self.at) {
                Step::Packet(mut record) => {
                    if record.ts == NO_TIME {
                        record.ts = self.time;
                    }
                    self.time = record.ts;
                    self.at = record.end;
                    self.frame += 1;
                    return Some(record);
                }
                Step::Skip(size) => self.at += size,
                Step::Other(size) => {
                    self.at += size;
                    self.frame += 1;
                }
                Step::More(need) => {
                    if let Source::Stream(stream) = &mut self.source {
                        let Self { buffer, at, len, base, .. } = self;
                        if !self.ended && refill(stream, buffer, at, len, base, need) {
                            continue;
                        }
                        self.ended = true;
                    }
                    let left = match &self.source {
                        Source::Mapped(mapping) => mapping.bytes().len() - self.at,
                        Source::Stream(_) => self.len - self.at,
                    };
                    if left > 0 {
                        let at = self.base + self.at as u64;
                        self.warning = Some(format!("truncated at offset {at}: {left} bytes were left"));
                    }
                    return None;
                }
                Step::Damaged(damage) => {
                    let at = self.base + self.at as u64;
                    self.warning = Some(format!("damaged at offset {at}: {damage}"));
                    return None;
                }
            }
        }
    }

    /// The bytes of a record just returned; empty if the file shrank under it.
    pub fn data(&self, record: &Record) -> &[u8] {
        let window = match &self.source {
            Source::Mapped(mapping) => mapping.bytes(),
            Source::Stream(_) => &self.buffer[..self.len],
        };
        window.get(record.data..record.data + record.captured as usize).unwrap_or(&[])
    }
}

/// A new file that appears under its name only when complete.
struct Fresh {
    path: PathBuf,
    part: PathBuf,
    done: bool,
}

impl Fresh {
    fn create(path: &Path) -> Result<(Self, BufWriter<File>), Error> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let part = path.with_file_name(name);
        let file = File::create(&part)
            .map_err(|error| Error::Io(format!("cannot write {}", part.display()), error))?;
        Ok((Self { path: path.into(), part, done: false }, BufWriter::with_capacity(1 << 20, file)))
    }

    fn finish(mut self) -> Result<(), Error> {
        std::fs::rename(&self.part, &self.path)
            .map_err(|error| Error::Io(format!("cannot write {}", self.path.display()), error))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Numbers of the output's interfaces by (input, interface); `names` are those of the inputs, if given.
struct Outlet<'a, W: Write> {
    writer: Writer<W>,
    known: HashMap<(usize, u32), u32>,
    names: &'a [String],
}

impl<W: Write> Outlet<'_, W> {
    fn copy(&mut self, input: usize, from: &Records, record: &Record) -> std::io::Result<()> {
        let interface = match self.known.get(&(input, record.interface)) {
            Some(&known) => known,
            None => {
                let mut described =
                    from.reader().interfaces().get(record.interface as usize).cloned().unwrap_or_default();
                if let Some(name) = self.names.get(input) {
                    described.name.clone_from(name);
                }
                let number = self.writer.interface(&described)?;
                self.known.insert((input, record.interface), number);
                number
            }
        };
        self.writer.packet(interface, record.ts, record.original, from.data(record))
    }
}

/// Called now and then with packets read; false stops.
pub type Tell<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Write the packets of several captures in order of time; equal stamps keep the order of `paths`.
///
/// `names`, one for each input or none at all, become the names of the interfaces.
pub fn merge(paths: &[PathBuf], names: &[String], out: &Path, tell: Tell<'_>) -> Result<Written, Error> {
    if paths.is_empty() {
        return Err(Error::Request("there is nothing to merge".into()));
    }
    if !names.is_empty() && names.len() != paths.len() {
        return Err(Error::Request(format!("{} names for {} captures", names.len(), paths.len())));
    }
    let mut inputs: Vec<Records> = paths.iter().map(|path| Records::open(path)).collect::<Result<_, _>>()?;
    let (fresh, file) = Fresh::create(out)?;
    let say = |error| Error::Io(format!("cannot write {}", out.display()), error);
    let mut outlet = Outlet { writer: Writer::new(file).map_err(say)?, known: HashMap::new(), names };
    let mut heads: Vec<Option<Record>> = inputs.iter_mut().map(Records::next_record).collect();
    let mut result = Written::default();
    while let Some(input) = (0..heads.len())
        .filter(|&i| heads[i].is_some())
        .min_by_key(|&i| heads[i].map_or(i64::MAX, |record| record.ts))
    {
        if let Some(record) = heads[input] {
            outlet.copy(input, &inputs[input], &record).map_err(say)?;
        }
        heads[input] = inputs[input].next_record();
        result.read += 1;
        result.written += 1;
        if result.read % 65_536 == 0 && !tell(result.read) {
            return Err(Error::Interrupted);
        }
    }
    outlet.writer.finish().map_err(say)?;
    fresh.finish()?;
    for (input, path) in inputs.iter().zip(paths) {
        result.warnings.extend(input.warning.iter().map(|warning| format!("{}: {warning}", path.display())));
    }
    Ok(result)
}

/// Which packets to keep; those that satisfy every condition given.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// Sorted frame numbers.
    pub frames: Option<Vec<u64>>,
    /// A condition on headers.
    pub expression: Option<Expression>,
}

/// Write the chosen packets of a capture.
pub fn filter(path: &Path, out: &Path, chosen: &Chosen, tell: Tell<'_>) -> Result<Written, Error> {
    let mut input = Records::open(path)?;
    let (fresh, file) = Fresh::create(out)?;
    let say = |error| Error::Io(format!("cannot write {}", out.display()), error);
    let mut outlet = Outlet { writer: Writer::new(file).map_err(say)?, known: HashMap::new(), names: &[] };
    let mut decoder = Decoder::new([1, 2, 3, 4], false, false);
    let mut chunk = Chunk::default();
    let mut result = Written::default();
    while let Some(record) = input.next_record() {
        result.read += 1;
        let listed = chosen.frames.as_ref().is_none_or(|frames| frames.binary_search(&input.frame).is_ok());
        let holds = listed
            && chosen.expression.as_ref().is_none_or(|expression| {
                chunk.clear();
                decoder.frame(&mut chunk, &record, input.data(&record));
                expression.frame(&chunk, &record, input.frame)
            });
        if holds {
            outlet.copy(0, &input, &record).map_err(say)?;
            result.written += 1;
        }
        if result.read % 65_536 == 0 && !tell(result.read) {
            return Err(Error::Interrupted);
        }
    }
    outlet.writer.finish().map_err(say)?;
    fresh.finish()?;
    result.warnings.extend(input.warning);
    Ok(result)
}

/// One packet with its octets, at most as many as were asked for.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Frame number, as Wireshark counts.
    pub number: u64,
    /// ns since 1970.
    pub ts: i64,
    /// Length on the wire.
    pub original: u32,
    /// LINKTYPE_ number.
    pub link: u16,
    /// What was kept of it.
    pub data: Vec<u8>,
}

/// Read packets with their octets: at most `count` from frame number `first` on, `snap` octets of each.
pub fn frames(
    path: &Path,
    first: u64,
    count: usize,
    snap: usize,
    tell: Tell<'_>,
) -> Result<Vec<Frame>, Error> {
    let mut input = Records::open(path)?;
    let mut found = Vec::new();
    let mut read = 0u64;
    while found.len() < count {
        let Some(record) = input.next_record() else { break };
        if input.frame >= first {
            let data = input.data(&record);
            let data = data[..data.len().min(snap)].to_vec();
            let Record { ts, original, link, .. } = record;
            found.push(Frame { number: input.frame, ts, original, link, data });
        }
        read += 1;
        if read % 65_536 == 0 && !tell(read) {
            return Err(Error::Interrupted);
        }
    }
    Ok(found)
}
