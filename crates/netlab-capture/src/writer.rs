//! Writes pcapng: one section, interfaces described when first used, nanosecond stamps.
//!
//! Comments and other blocks of the input are not carried over.

use std::io::{self, Write};

use crate::reader::Interface;

/// A pcapng being written.
pub struct Writer<W: Write> {
    out: W,
    interfaces: u32,
    block: Vec<u8>,
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    block.extend_from_slice(&code.to_le_bytes());
    block.extend_from_slice(&(value.len() as u16).to_le_bytes());
    block.extend_from_slice(value);
    block.resize(block.len().next_multiple_of(4), 0);
}

impl<W: Write> Writer<W> {
    /// Begin a section.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, interfaces: 0, block: Vec::new() };
        let mut body = Vec::new();
        body.extend_from_slice(&0x1a2b_3c4du32.to_le_bytes());
        body.extend_from_slice(&[1, 0, 0, 0]);
        body.extend_from_slice(&u64::MAX.to_le_bytes());
        option(&mut body, 4, concat!("netlab ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, 0, &[]);
        writer.put(0x0a0d_0d0a, &[&body])?;
        Ok(writer)
    }

    fn put(&mut self, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let total = (size.next_multiple_of(4) + 12) as u32;
        self.block.clear();
        self.block.extend_from_slice(&kind.to_le_bytes());
        self.block.extend_from_slice(&total.to_le_bytes());
        parts.iter().for_each(|part| self.block.extend_from_slice(part));
        self.block.resize(total as usize - 4, 0);
        self.block.extend_from_slice(&total.to_le_bytes());
        self.out.write_all(&self.block)
    }

    /// Describe an interface; its number.
    pub fn interface(&mut self, from: &Interface) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend_from_slice(&from.link.to_le_bytes());
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&from.snaplen.to_le_bytes());
        for (code, text) in [(2, &from.name), (3, &from.description)] {
            if !text.is_empty() {
                option(&mut body, code, text.as_bytes());
            }
        }
        option(&mut body, 9, &[9]);
        option(&mut body, 0, &[]);
        self.put(1, &[&body])?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Append a packet; `ts` in ns since 1970, `original` its length on the wire.
    pub fn packet(&mut self, interface: u32, ts: i64, original: u32, data: &[u8]) -> io::Result<()> {
        let stamp = ts as u64;
        let mut head = [0; 20];
        let fields = [interface, (stamp >> 32) as u32, stamp as u32, data.len() as u32, original];
        for (place, field) in head.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        self.put(6, &[&head, data])
    }

    /// Write out what is buffered below.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}
