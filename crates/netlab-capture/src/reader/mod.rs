//! Finds the packet records in the bytes of a capture file, whichever container holds them.
//!
//! A [`Reader`] is fed windows: slices of the file that begin where the last record ended. It never
//! keeps bytes, so the same code serves a mapping of a whole file and a pipe. Damage ends the reading
//! with an offset; nothing after it is guessed at.

mod pcap;
mod pcapng;

use crate::error::Error;

pub use pcap::Pcap;
pub use pcapng::Pcapng;

/// Captured length above which a record is damage, not a packet (the limit Wireshark applies).
pub const MAX_CAPTURED: u32 = 262_144;
/// The same for link types that carry large messages (D-Bus, USB, EBHSCR).
pub const MAX_CAPTURED_LARGE: u32 = 128 << 20;

/// The time stamp of a packet that was captured without one (simple packet blocks of pcapng).
pub const NO_TIME: i64 = i64::MIN;

/// One record: where it is, when and what was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// First captured byte, relative to the window.
    pub data: usize,
    /// Captured bytes.
    pub captured: u32,
    /// Length on the wire, octets of the link layer.
    pub original: u32,
    /// Time stamp, ns since 1970, or [`NO_TIME`]; wraps instead of overflowing.
    pub ts: i64,
    /// Index into [`Reader::interfaces`].
    pub interface: u32,
    /// Link type (LINKTYPE_ number of its interface).
    pub link: u16,
    /// The end of the record, relative to the window: where the next one begins.
    pub end: usize,
}

/// What a reader found at the start of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A packet.
    Packet(Record),
    /// Something else, this long.
    Skip(usize),
    /// A record of this length that is no packet but has a frame number in Wireshark.
    Other(usize),
    /// The window holds less than one record; at least this many bytes are needed.
    More(usize),
    /// What stands here is damaged; the rest of the file cannot be read.
    Damaged(Damage),
}

/// Why reading stopped before the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A record claims more captured bytes than any packet has.
    CapturedLength(u32),
    /// A pcapng block whose length is impossible.
    BlockLength(u32),
    /// The two lengths of a pcapng block differ.
    BlockLengths(u32, u32),
    /// A pcapng packet on an interface that was not described.
    UnknownInterface(u32),
    /// A section header without a valid byte-order magic.
    ByteOrder(u32),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CapturedLength(n) => write!(out, "a record claims {n} captured bytes"),
            Self::BlockLength(n) => write!(out, "a block claims an impossible length of {n} bytes"),
            Self::BlockLengths(a, b) => write!(out, "a block gives two different lengths, {a} and {b}"),
            Self::UnknownInterface(n) => {
                write!(out, "a packet belongs to interface {n}, which is not described")
            }
            Self::ByteOrder(n) => write!(out, "a section header has the byte-order magic {n:#010x}"),
        }
    }
}

/// Container of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic libpcap; the flag says whether its stamps are nanoseconds.
    Pcap {
        /// Stamps in nanoseconds instead of microseconds.
        nanoseconds: bool,
    },
    /// pcapng.
    Pcapng,
}

impl Format {
    /// The name used in totals.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcap { nanoseconds: false } => "pcap",
            Self::Pcap { nanoseconds: true } => "nsecpcap",
            Self::Pcapng => "pcapng",
        }
    }
}

/// Where packets were captured, as the file describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// LINKTYPE_ number.
    pub link: u16,
    /// Most bytes kept of a packet; 0 = no limit.
    pub snaplen: u32,
    /// Stamp units per second.
    pub resolution: u64,
    /// Seconds to add to each stamp.
    pub offset: i64,
    /// Section it was described in, from 0.
    pub section: u32,
    /// if_name, or empty.
    pub name: String,
    /// if_description, or empty.
    pub description: String,
    /// if_filter as text, or empty.
    pub filter: String,
    /// Packets received, from the last statistics block.
    pub received: Option<u64>,
    /// Packets dropped by the interface, from the last statistics block.
    pub dropped: Option<u64>,
    /// Packets dropped by the operating system, from the last statistics block.
    pub os_dropped: Option<u64>,
}

/// Most interfaces kept; more are damage (each costs memory for as long as the run lasts).
pub const MAX_INTERFACES: usize = 1 << 20;

/// Either kind of reader.
#[derive(Clone, Debug)]
pub enum Reader {
    /// Classic.
    Pcap(Pcap),
    /// Next generation.
    Pcapng(Pcapng),
}

impl Reader {
    /// Recognise a file by its first bytes. `Ok(None)` asks for more (up to 24 bytes) unless `whole`
    /// says there are none; then a cut header of a known format still makes a reader, without packets.
    pub fn recognise(head: &[u8], whole: bool) -> Result<Option<(Self, usize)>, Error> {
        if head.len() < 4 {
            if !whole {
                return Ok(None);
            }
            let what = if head.is_empty() {
                "the file is empty".into()
            } else {
                format!("{} bytes are too few", head.len())
            };
            return Err(Error::NotACapture(format!("{what}: no capture")));
        }
        if pcapng::is_section_header(head) {
            return Ok(Some((Self::Pcapng(Pcapng::default()), 0)));
        }
        match Pcap::recognise(head, whole) {
            Some(found) => Ok(found.map(|(pcap, used)| (Self::Pcap(pcap), used))),
            None => Err(Error::NotACapture(describe(head))),
        }
    }

    /// The record or block at the start of `window[at..]`.
    #[inline(always)]
    pub fn step(&mut self, window: &[u8], at: usize) -> Step {
        match self {
            Self::Pcap(pcap) if pcap.is_big_endian() => pcap.step::<true>(window, at),
            Self::Pcap(pcap) => pcap.step::<false>(window, at),
            Self::Pcapng(pcapng) => pcapng.step(window, at),
        }
    }

    /// The interfaces described so far, in file order over all sections.
    pub fn interfaces(&self) -> &[Interface] {
        match self {
            Self::Pcap(pcap) => std::slice::from_ref(pcap.interface()),
            Self::Pcapng(pcapng) => pcapng.interfaces(),
        }
    }

    /// The container.
    pub fn format(&self) -> Format {
        match self {
            Self::Pcap(pcap) => pcap.format(),
            Self::Pcapng(_) => Format::Pcapng,
        }
    }

    /// Sections of a pcapng; 1 for a pcap.
    pub fn sections(&self) -> u32 {
        match self {
            Self::Pcap(_) => 1,
            Self::Pcapng(pcapng) => pcapng.sections(),
        }
    }

    /// Comments found in a pcapng (sections, interfaces, packets).
    pub fn comments(&self) -> u64 {
        match self {
            Self::Pcap(_) => 0,
            Self::Pcapng(pcapng) => pcapng.comments(),
        }
    }
}

/// Say what bytes that are no capture look like.
fn describe(head: &[u8]) -> String {
    let head = &head[..head.len().min(24)]; // as many octets as are always asked for
    let kinds: [(&[u8], &str); 8] = [
        (b"\x7fELF", "a program"),
        (b"PK\x03\x04", "a zip archive"),
        (b"BZh", "a bzip2 file; decompress it first"),
        (b"\xfd7zXZ", "an xz file; decompress it first"),
        (b"\x04\x22\x4d\x18", "an lz4 file; decompress it first"),
        (b"snoop\0", "a snoop capture; convert it with editcap"),
        (b"%PDF", "a PDF"),
        (b"<?xml", "XML"),
    ];
    for (magic, what) in kinds {
        if head.starts_with(magic) {
            return format!("this is {what}, not a pcap or pcapng capture");
        }
    }
    let text = head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    let first: Vec<String> = head.iter().take(4).map(|b| format!("{b:02x}")).collect();
    let what = if text { "text".to_string() } else { format!("bytes beginning {}", first.join(" ")) };
    format!("this is {what}, not a pcap or pcapng capture")
}

#[inline(always)]
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>()
}
