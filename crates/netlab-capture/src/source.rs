//! Where the bytes come from: a mapped file, or anything that can only be read forward.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use netlab_mem::Mapping;

use crate::error::Error;

/// Bytes of a capture.
pub enum Source {
    /// A whole regular file.
    Mapped(Mapping),
    /// A pipe, standard input, a compressed file, a file that grows.
    Stream(Stream),
}

/// Bytes that come once, in order.
pub struct Stream {
    inner: Box<dyn Read + Send>,
    /// "gzip", "zstd" or "".
    pub compression: &'static str,
    /// Size of the file behind it, if it has one.
    pub size: Option<u64>,
    /// Wait for more at the end instead of stopping.
    pub follow: bool,
}

impl Stream {
    /// Anything that reads.
    pub fn new(inner: impl Read + Send + 'static) -> Self {
        Self { inner: Box::new(inner), compression: "", size: None, follow: false }
    }

    /// Read some bytes; 0 at the end.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

/// Bytes already taken to recognise a stream, then the rest.
struct Rejoined<R> {
    head: io::Cursor<Vec<u8>>,
    rest: R,
}

impl<R: Read> Read for Rejoined<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.head.read(into)? {
            0 => self.rest.read(into),
            n => Ok(n),
        }
    }
}

impl Source {
    /// Open a path; "-" is standard input. With `follow` a regular file is read as it grows.
    pub fn open(path: &Path, follow: bool) -> Result<Self, Error> {
        let say = |error: io::Error| Error::Io(format!("cannot read {}", path.display()), error);
        if path.as_os_str() == "-" {
            return recognise(Box::new(io::stdin()), None, follow).map_err(say);
        }
        let file = File::open(path).map_err(say)?;
        let about = file.metadata().map_err(say)?;
        if about.is_dir() {
            return Err(Error::NotACapture(format!("{} is a directory, not a capture", path.display())));
        }
        let size = about.is_file().then_some(about.len());
        if follow || size.is_none() {
            return recognise(Box::new(file), size, follow).map_err(say);
        }
        let mut magic = [0; 4];
        let got = read_up_to(&file, &mut magic).map_err(say)?;
        let compressed = !compression(&magic[..got]).is_empty();
        let length = usize::try_from(about.len()).unwrap_or(usize::MAX);
        let file = File::open(path).map_err(say)?;
        if !compressed && length > 0 {
            let again = file.try_clone().map_err(say)?;
            if let Ok(mapping) = Mapping::new(again, length) {
                return Ok(Self::Mapped(mapping));
            }
        }
        recognise(Box::new(file), size, false).map_err(say)
    }
}

fn read_up_to(mut from: impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match from.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn compression(head: &[u8]) -> &'static str {
    match head {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => "",
    }
}

fn recognise(mut inner: Box<dyn Read + Send>, size: Option<u64>, follow: bool) -> io::Result<Source> {
    let mut head = vec![0; 4];
    let got = read_up_to(&mut inner, &mut head)?;
    head.truncate(got);
    let compression = compression(&head);
    let whole = Rejoined { head: io::Cursor::new(head), rest: inner };
    let inner: Box<dyn Read + Send> = match compression {
        "gzip" => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(256 << 10, whole))),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    };
    Ok(Source::Stream(Stream { inner, compression, size, follow: follow && compression.is_empty() }))
}
