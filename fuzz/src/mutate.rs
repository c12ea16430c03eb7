//! Changes to an input: blind ones, and ones that know how pcap records and pcapng blocks are cut.

/// SplitMix64: enough for choosing, and a run is repeated by its seed.
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }
}

/// Octets that mean something in captures: magics, EtherTypes, ports, options, extreme numbers.
#[rustfmt::skip]
const WORDS: &[&[u8]] = &[
    b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d",
    b"\x0a\x0d\x0d\x0a", b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd",
    b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x88\xa8", b"\x88\x47", b"\x88\x64", b"\x00\x21",
    b"\x65\x58", b"\x88\xbe", b"\x12\xb5", b"\x17\xc1", b"\x08\x68", b"\x0d\xd8", b"\xaa\xaa\x03\0\0\0",
    b"\x45\x00", b"\x4f\x00", b"\x60\x00\x00\x00", b"\x06", b"\x11", b"\x01", b"\x3a", b"\x29", b"\x2c", b"\x2f",
    b"\x04", b"\x00", b"\x2b", b"\x3c", b"\x33", b"\x84",
    b"\x02\x04\x05\xb4", b"\x03\x03\x07", b"\x03\x03\x0f", b"\x04\x02", b"\x05\x0a", b"\x05\x12", b"\x05\x22",
    b"\x08\x0a", b"\x1e\x0c\x00\x81", b"\x1e\x04\x20\x01", b"\x22\x0a", b"\x01\x01", b"\x00\x00",
    b"\x00\x00\x00\x00", b"\xff\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x01", b"\x01\x00\x00\x00", b"\x20\x00", b"\x40\x00", b"\x00\xb9", b"\x1f\xff",
    b"\x09\x00\x01\x00\x09\x00\x00\x00", b"\x09\x00\x01\x00\xff\x00\x00\x00", b"\x0e\x00\x08\x00",
];

/// The pieces of a capture: (start, end) of each record or block, as well as they can be told.
fn pieces(data: &[u8]) -> Vec<(usize, usize)> {
    let word = |at: usize| -> Option<u32> {
        data.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let big = matches!(data.first_chunk::<4>(), Some([0xa1, 0xb2, _, _]))
        || data.get(8..12) == Some(&[0x1a, 0x2b, 0x3c, 0x4d]);
    let number = |at: usize| word(at).map(|v| if big { v.swap_bytes() } else { v } as usize);
    let mut out = Vec::new();
    let blocks = data.starts_with(b"\x0a\x0d\x0d\x0a");
    let mut at = if blocks { 0 } else { 24 };
    while out.len() < 4096 {
        let size = if blocks { number(at + 4) } else { number(at + 8).map(|kept| kept.saturating_add(16)) };
        match size {
            Some(size) if size >= 12 && at + size <= data.len() => {
                out.push((at, at + size));
                at += size;
            }
            _ => break,
        }
    }
    out
}

/// Return a changed copy of `data`, perhaps with parts of `other`.
pub fn mutate(data: &[u8], other: &[u8], dice: &mut Dice, most: usize) -> Vec<u8> {
    let mut out = data.to_vec();
    for _ in 0..1 + dice.below(4) * dice.below(4) {
        once(&mut out, other, dice);
    }
    out.truncate(most);
    out
}

fn once(out: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let size = out.len();
    let at = dice.below(size);
    match dice.below(16) {
        0 if size > 0 => out[at] ^= 1 << dice.below(8),
        1 if size > 0 => out[at] = dice.next() as u8,
        2 if size > 0 => out[at] = out[at].wrapping_add(dice.below(35) as u8).wrapping_sub(17),
        3 => {
            let word = WORDS[dice.below(WORDS.len())];
            if dice.below(3) == 0 {
                out.splice(at..at, word.iter().copied());
            } else if at + word.len() <= size {
                out[at..at + word.len()].copy_from_slice(word);
            }
        }
        4 => drop(out.drain(at..(at + 1 + dice.below(16)).min(size))),
        5 => {
            let filler = vec![dice.next() as u8; 1 + dice.below(16)];
            out.splice(at..at, filler);
        }
        6 => {
            let from = dice.below(other.len());
            let some = &other[from..(from + dice.below(128)).min(other.len())];
            out.splice(at..at, some.iter().copied());
        }
        7 => out.truncate(at),
        8 if size > 0 => {
            let (from, length) = (dice.below(size), 1 + dice.below(64));
            let some = out[from..(from + length).min(size)].to_vec();
            let end = (at + some.len()).min(size);
            let fits = end - at;
            out[at..end].copy_from_slice(&some[..fits]);
        }
        kind => records(out, other, dice, kind),
    }
}

/// Changes that keep the container readable, so that they reach what lies behind it.
fn records(out: &mut Vec<u8>, other: &[u8], dice: &mut Dice, kind: usize) {
    let mine = pieces(out);
    if mine.is_empty() {
        return;
    }
    let (start, end) = mine[dice.below(mine.len())];
    let (target, _) = mine[dice.below(mine.len())];
    match kind {
        9 => {
            let copy = out[start..end].to_vec();
            out.splice(target..target, copy);
        }
        10 => drop(out.drain(start..end)),
        11 => {
            let theirs = pieces(other);
            if let Some(&(from, to)) = theirs.get(dice.below(theirs.len())) {
                out.splice(target..target, other[from..to].iter().copied());
            }
        }
        12 => {
            // Resize a record's data and say so: pcap only, in the file's own byte order.
            if out.starts_with(b"\x0a\x0d\x0d\x0a") || end - start < 16 {
                return;
            }
            let kept = dice.below(end - start - 15);
            out.drain(start + 16 + kept..end);
            let big = out[0] == 0xa1;
            let value = if big { (kept as u32).to_be_bytes() } else { (kept as u32).to_le_bytes() };
            out[start + 8..start + 12].copy_from_slice(&value);
        }
        _ => {
            // A few octets within one record, most often its headers.
            for _ in 0..1 + dice.below(4) {
                let reach = if dice.below(4) == 0 { end - start } else { (end - start).min(120) };
                let at = start + dice.below(reach);
                match dice.below(4) {
                    0 => out[at] ^= 1 << dice.below(8),
                    1 => out[at] = dice.next() as u8,
                    2 => out[at] = out[at].wrapping_add(1),
                    _ => {
                        let word = WORDS[dice.below(WORDS.len())];
                        if at + word.len() <= end {
                            out[at..at + word.len()].copy_from_slice(word);
                        }
                    }
                }
            }
        }
    }
}
