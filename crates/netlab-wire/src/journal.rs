//! The journal: what happened to every packet of a link, in fixed records of 64 octets.
//!
//! Little-endian throughout. A file is a header of [`HEADER`] octets and then records; it may end anywhere
//! (the process may be killed): whole records before the end are good. The header is rewritten
//! at every flush, so its counts are at most one flush old.
//!
//! | header at | type | meaning |
//! |---|---|---|
//! | 0 | 8 octets | `NLWIREJ` and a zero octet |
//! | 8 | u16, u16, u16, u16 | version 1, header size 128, record size 64, 1 when closed in good order |
//! | 16 | u64 | seed of the link |
//! | 24 | u64, u64 | CLOCK_MONOTONIC and CLOCK_REALTIME of one instant at the start, ns |
//! | 40 | u64, u64 | records written; records missed because of the size limit or a failing disk |
//! | 56 | 64 octets | name of the link, UTF-8, zero-padded |
//!
//! | record at | type | meaning |
//! |---|---|---|
//! | 0 | u64 | index of the packet in its direction and class, from 0 (a copy has its original's) |
//! | 8 | u64 | arrival, CLOCK_MONOTONIC ns |
//! | 16 | u64 | departure (or drop), CLOCK_MONOTONIC ns |
//! | 24 | u32 | length of the frame without FCS |
//! | 28 | u32 | departure minus due time, ns |
//! | 32 | u32 | flipped bit, counted from the start of the frame, `0xffffffff` when none |
//! | 36 | u32, u32 | source, destination: IPv4 address, or the four words of IPv6 folded by XOR |
//! | 44 | u16, u16 | source and destination port; ICMP identifier and sequence number |
//! | 48 | u32, u32 | TCP sequence and acknowledgement number |
//! | 56 | u16 | octets above the transport header |
//! | 58 | u8 | TCP flags, or ICMP type |
//! | 59 | u8, u8 | IP protocol; IP version (0: not IP) |
//! | 61 | u8 | direction: 0 from a to b, 1 from b to a |
//! | 62 | u8 | verdict, see [`Verdict`] |
//! | 63 | u8 | flags, see `pool`: 1 copy, 2 sent twice, 4 corrupted, 8 reordered, 16 marked CE, 32 chatter, 64 late |

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::config::JournalConfig;
use crate::packet::{Digest, Kind};
use crate::pool::{LATE, Meta};

/// Octets of the header.
pub const HEADER: usize = 128;
/// Octets of a record.
pub const RECORD: usize = 64;
const MAGIC: &[u8; 8] = b"NLWIREJ\0";
/// Records gathered before a write: 16 KiB, a few microseconds of copying.
const GATHER: usize = 256;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// It left by the other port.
    Delivered = 0,
    /// Lost at random (`loss`).
    Loss = 1,
    /// Lost by an exact rule (`drop`).
    Exact = 2,
    /// The queue was full.
    Queue = 3,
    /// CoDel dropped it.
    Codel = 4,
    /// The wire itself could not carry it: no free buffer, or the port refused it. Not asked for.
    Overflow = 5,
    /// The interface behind the port was down: as on an unplugged cable.
    Down = 6,
    /// It was still waiting or under way when the wire stopped.
    Unfinished = 7,
}

impl Verdict {
    /// Every verdict, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Delivered,
        Self::Loss,
        Self::Exact,
        Self::Queue,
        Self::Codel,
        Self::Overflow,
        Self::Down,
        Self::Unfinished,
    ];

    /// Its name in statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ["delivered", "loss", "exact", "queue", "codel", "overflow", "down", "unfinished"][self as usize]
    }
}

/// One packet's fate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Direction: 0 from a to b, 1 from b to a.
    pub direction: u8,
    /// What became of it.
    pub verdict: Verdict,
    /// When it left or was dropped.
    pub departure_ns: u64,
    /// Everything known about the packet.
    pub index: u64,
    /// When it came.
    pub arrival_ns: u64,
    /// Frame length in octets.
    pub len: u32,
    /// Departure minus due time.
    pub late_ns: u32,
    /// Flipped bit or `u32::MAX`.
    pub corrupt_bit: u32,
    /// Flags of `pool`.
    pub flags: u8,
    /// Header fields.
    pub digest: Digest,
}

impl Record {
    /// The record of a packet that left or was dropped at `departure_ns`.
    #[must_use]
    pub fn new(direction: u8, verdict: Verdict, meta: &Meta, departure_ns: u64, tolerance_ns: u64) -> Self {
        let late = if verdict == Verdict::Delivered { departure_ns.saturating_sub(meta.due_ns) } else { 0 };
        Self {
            direction,
            verdict,
            departure_ns,
            index: meta.index,
            arrival_ns: meta.arrival_ns,
            len: meta.len,
            late_ns: u32::try_from(late).unwrap_or(u32::MAX),
            corrupt_bit: meta.corrupt_bit,
            flags: meta.flags | if late > tolerance_ns { LATE } else { 0 },
            digest: meta.digest,
        }
    }

    /// The 64 octets of the record.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        let d = &self.digest;
        out[0..8].copy_from_slice(&self.index.to_le_bytes());
        out[8..16].copy_from_slice(&self.arrival_ns.to_le_bytes());
        out[16..24].copy_from_slice(&self.departure_ns.to_le_bytes());
        out[24..28].copy_from_slice(&self.len.to_le_bytes());
        out[28..32].copy_from_slice(&self.late_ns.to_le_bytes());
        out[32..36].copy_from_slice(&self.corrupt_bit.to_le_bytes());
        out[36..40].copy_from_slice(&d.source.to_le_bytes());
        out[40..44].copy_from_slice(&d.destination.to_le_bytes());
        out[44..46].copy_from_slice(&d.source_port.to_le_bytes());
        out[46..48].copy_from_slice(&d.destination_port.to_le_bytes());
        out[48..52].copy_from_slice(&d.seq.to_le_bytes());
        out[52..56].copy_from_slice(&d.ack.to_le_bytes());
        out[56..58].copy_from_slice(&d.payload.to_le_bytes());
        out[58..64].copy_from_slice(&[
            d.flags,
            d.protocol,
            d.version,
            self.direction,
            self.verdict as u8,
            self.flags,
        ]);
        out
    }

    /// Read a record back; none for a verdict of a later version.
    #[must_use]
    pub fn decode(raw: &[u8; RECORD]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let digest = Digest {
            source: u32_at(36),
            destination: u32_at(40),
            source_port: u16_at(44),
            destination_port: u16_at(46),
            seq: u32_at(48),
            ack: u32_at(52),
            payload: u16_at(56),
            flags: raw[58],
            protocol: raw[59],
            version: raw[60],
            kind: Kind::Other,
            damage_from: 0,
            network: 0,
        };
        Some(Self {
            direction: raw[61],
            verdict: *Verdict::ALL.get(usize::from(raw[62]))?,
            departure_ns: u64_at(16),
            index: u64_at(0),
            arrival_ns: u64_at(8),
            len: u32_at(24),
            late_ns: u32_at(28),
            corrupt_bit: u32_at(32),
            flags: raw[63],
            digest,
        })
    }
}

/// Where fates go. The pure core only knows this.
pub trait Sink {
    /// One packet's fate is known.
    fn record(&mut self, record: &Record);
}

/// Keep every record: for tests.
impl Sink for Vec<Record> {
    fn record(&mut self, record: &Record) {
        self.push(*record);
    }
}

/// Keep nothing.
impl Sink for () {
    fn record(&mut self, _: &Record) {}
}

/// A journal file being written; nothing is allocated after it is opened.
#[derive(Debug)]
pub struct Journal {
    file: File,
    gathered: Vec<u8>,
    header: [u8; HEADER],
    written: u64,
    missed: u64,
    room: u64,
    flush_ns: u64,
    flushed_ns: u64,
}

impl Journal {
    /// Create the file and write its header.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(
        config: &JournalConfig,
        name: &str,
        seed: u64,
        monotonic_ns: u64,
        realtime_ns: u64,
    ) -> std::io::Result<Self> {
        let mut header = [0; HEADER];
        header[0..8].copy_from_slice(MAGIC);
        for (at, value) in [(8, 1u16), (10, HEADER as u16), (12, RECORD as u16)] {
            header[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(16, seed), (24, monotonic_ns), (32, realtime_ns)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let mut end = name.len().min(63);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        header[56..56 + end].copy_from_slice(&name.as_bytes()[..end]);
        let mut file = File::create(Path::new(&config.path))?;
        file.write_all(&header)?;
        let room = config.max_bytes.map_or(u64::MAX, |max| max.saturating_sub(HEADER as u64) / RECORD as u64);
        Ok(Self {
            file,
            gathered: Vec::with_capacity(GATHER * RECORD),
            header,
            written: 0,
            missed: 0,
            room,
            flush_ns: config.flush_ns,
            flushed_ns: monotonic_ns,
        })
    }

    /// Write out what has waited longer than asked.
    pub fn tick(&mut self, now: u64) {
        if now.saturating_sub(self.flushed_ns) >= self.flush_ns {
            self.flush(now);
        }
    }

    /// When `tick` is next needed, if anything waits.
    #[must_use]
    pub fn next_flush(&self) -> Option<u64> {
        (!self.gathered.is_empty()).then_some(self.flushed_ns + self.flush_ns)
    }

    /// Write out everything gathered, and the counts in the header.
    pub fn flush(&mut self, now: u64) {
        self.flushed_ns = now;
        self.drain();
        self.header[40..48].copy_from_slice(&self.written.to_le_bytes());
        self.header[48..56].copy_from_slice(&self.missed.to_le_bytes());
        // A failing disk is known by the missed records; there is nobody to tell in between.
        let _ = self.file.write_all_at(&self.header, 0);
    }

    /// Flush and mark the file as closed in good order.
    pub fn close(&mut self, now: u64) {
        self.header[14] = 1;
        self.flush(now);
    }

    /// Records written and records missed.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.written, self.missed)
    }

    fn drain(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let records = (self.gathered.len() / RECORD) as u64;
        let at = HEADER as u64 + self.written * RECORD as u64;
        if self.file.write_all_at(&self.gathered, at).is_ok() {
            self.written += records;
        } else {
            self.missed += records;
            self.room = 0;
        }
        self.gathered.clear();
    }
}

impl Sink for Journal {
    fn record(&mut self, record: &Record) {
        if self.room == 0 {
            self.missed += 1;
            return;
        }
        self.room -= 1;
        self.gathered.extend_from_slice(&record.encode());
        if self.gathered.len() == GATHER * RECORD {
            self.drain();
        }
    }
}

/// What a journal's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Seed of the link.
    pub seed: u64,
    /// CLOCK_MONOTONIC at the start.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME at the same instant.
    pub realtime_ns: u64,
    /// Records missed.
    pub missed: u64,
    /// Closed in good order.
    pub complete: bool,
    /// Name of the link.
    pub name: String,
}

/// Read a journal; a partial record at the end is left out.
///
/// # Errors
/// A sentence when the file is not a journal or of another version.
pub fn read(raw: &[u8]) -> Result<(Header, Vec<Record>), String> {
    let head: &[u8; HEADER] = raw.first_chunk().ok_or("shorter than a journal's header")?;
    if &head[..8] != MAGIC {
        return Err("not a journal of netlab-wire".into());
    }
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    if (u16_at(8), u16_at(10), u16_at(12)) != (1, HEADER, RECORD) {
        return Err(format!("version {} of the journal is not known", u16_at(8)));
    }
    let u64_at = |at: usize| head[at..at + 8].iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b));
    let name = head[56..120].split(|&b| b == 0).next().unwrap_or_default();
    let header = Header {
        seed: u64_at(16),
        monotonic_ns: u64_at(24),
        realtime_ns: u64_at(32),
        missed: u64_at(48),
        complete: head[14] == 1,
        name: String::from_utf8_lossy(name).into_owned(),
    };
    let records =
        raw[HEADER..].chunks_exact(RECORD).filter_map(|r| Record::decode(r.first_chunk()?)).collect();
    Ok((header, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64) -> Record {
        Record {
            direction: 1,
            verdict: Verdict::Codel,
            departure_ns: 5,
            index,
            arrival_ns: 4,
            len: 60,
            late_ns: 3,
            corrupt_bit: 432,
            flags: 4,
            digest: Digest {
                seq: 0xdead_beef,
                source_port: 80,
                version: 6,
                kind: Kind::Other,
                ..Digest::default()
            },
        }
    }

    fn config(name: &str, max_bytes: Option<u64>) -> JournalConfig {
        let path = std::env::temp_dir().join(format!("netlab-wire-{}-{name}", std::process::id()));
        JournalConfig { path: path.to_str().unwrap().into(), max_bytes, flush_ns: 100 }
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        assert_eq!(Record::decode(&record(7).encode()), Some(record(7)));
    }

    #[test]
    fn a_file_cut_anywhere_gives_its_whole_records() {
        let config = config("cut", None);
        let mut journal = Journal::create(&config, "access", 9, 1, 2).unwrap();
        (0..1000).for_each(|i| journal.record(&record(i)));
        journal.close(50);
        let raw = std::fs::read(&config.path).unwrap();
        let (header, records) = read(&raw).unwrap();
        assert!(header.complete && header.name == "access" && header.seed == 9);
        assert_eq!(records, (0..1000).map(record).collect::<Vec<_>>());
        for end in [HEADER, HEADER + 63, HEADER + 64, raw.len() - 1] {
            assert_eq!(read(&raw[..end]).unwrap().1.len(), (end - HEADER) / RECORD);
        }
        assert!(read(&raw[..50]).is_err() && read(&[0; 200]).is_err());
        std::fs::remove_file(&config.path).unwrap();
    }

    #[test]
    fn the_size_limit_holds_and_what_is_missed_is_counted() {
        let config = config("limit", Some((HEADER + 300 * RECORD) as u64));
        let mut journal = Journal::create(&config, "x", 9, 1, 2).unwrap();
        (0..1000).for_each(|i| journal.record(&record(i)));
        journal.flush(50);
        let (header, records) = read(&std::fs::read(&config.path).unwrap()).unwrap();
        assert_eq!((records.len(), header.missed, header.complete), (300, 700, false));
        std::fs::remove_file(&config.path).unwrap();
    }

    #[test]
    fn waiting_records_are_written_in_time() {
        let config = config("tick", None);
        let mut journal = Journal::create(&config, "x", 9, 1000, 2).unwrap();
        journal.record(&record(0));
        assert_eq!(journal.next_flush(), Some(1100));
        journal.tick(1099);
        assert_eq!(std::fs::read(&config.path).unwrap().len(), HEADER);
        journal.tick(1100);
        assert_eq!(read(&std::fs::read(&config.path).unwrap()).unwrap().1.len(), 1);
        std::fs::remove_file(&config.path).unwrap();
    }
}
