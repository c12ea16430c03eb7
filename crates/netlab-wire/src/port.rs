//! Where frames come in and go out: TAP devices and packet sockets behind one trait.
//!
//! Segmentation, checksum and receive offloads must be off on the devices, so that each frame
//! is a packet on the wire. What slips through is seen and counted: frames longer than the MTU,
//! and frames whose checksum was left to an offload.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use serde_json::{Value, json};

use crate::config::PortConfig;
use crate::journal::Verdict;
use crate::pool::{Pool, Slot};
use crate::sys::ring::Transfer;
use crate::sys::{self, BATCH, Batch};
use crate::{Attempt, WireError};

/// Frames a TAP device holds until they are read (its transmit queue length).
const TAP_RING: i32 = 4096;
/// Octets a packet socket holds in either direction, counted as the kernel counts (about 2.3 KB a full frame).
const SOCKET_OCTETS: i32 = 16 << 20;

/// From so many frames on one call for all of them is cheaper than a call for each.
const MANY: usize = 4;

/// One end of a link.
pub trait Port: std::fmt::Debug + Send {
    /// What to wait on.
    fn descriptor(&self) -> RawFd;

    /// Read what is there, at most `BATCH` frames: fills buffers of `pool`, sets length and arrival.
    ///
    /// # Errors
    /// When the device is gone.
    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch, frames: &mut Vec<Slot>) -> io::Result<()>;

    /// Send the frames, in order; answers how many were taken or refused for good (see [`Sent`]).
    ///
    /// # Errors
    /// When the device is gone.
    fn send(&mut self, pool: &mut Pool, batch: &mut Batch, frames: &[Slot]) -> io::Result<Sent>;

    /// Frames that one `send` should be given.
    fn burst(&self, batch: &Batch) -> usize;

    /// Counters as JSON.
    fn stats(&mut self) -> Value;
}

/// What became of the frames given to `send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The first so many are on their way.
    pub taken: usize,
    /// The one after them was refused for good, and so it ends.
    pub refused: Option<Verdict>,
}

/// Troubles both kinds of port count.
#[derive(Clone, Copy, Debug, Default)]
struct Troubles {
    oversize: u64,
    unfinished: u64,
    refused: u64,
    busy: u64,
    dropped: u64,
}

impl Troubles {
    /// A TAP device that is down answers EIO, an interface that is down ENETDOWN.
    fn refuse(&mut self, error: &io::Error) -> Verdict {
        if matches!(error.raw_os_error(), Some(libc::EIO | libc::ENETDOWN)) {
            return Verdict::Down;
        }
        self.refused += 1;
        Verdict::Overflow
    }

    fn json(&self, kind: &str, device: &str) -> Value {
        json!({
            "kind": kind, "device": device, "oversize": self.oversize, "partial_checksum": self.unfinished,
            "send_refused": self.refused, "send_busy": self.busy, "kernel_drops": self.dropped,
        })
    }
}

/// A TAP device that this process created, or was handed.
#[derive(Debug)]
pub struct Tap {
    device: File,
    name: String,
    counters: Option<File>,
    largest: usize,
    threaded: bool,
    troubles: Troubles,
    /// How many frames came the last time.
    came: usize,
    /// What became of frames that were handed over, beyond what `send` has answered: octets or an error.
    done: VecDeque<i32>,
    scratch: Vec<Slot>,
}

impl Tap {
    fn new(device: File, name: String, counters: Option<File>, largest: usize, threaded: bool) -> Self {
        Self {
            device,
            name,
            counters,
            largest,
            threaded,
            troubles: Troubles::default(),
            came: 0,
            done: VecDeque::with_capacity(BATCH),
            scratch: Vec::with_capacity(BATCH),
        }
    }

    /// Take note of a frame in `slot`.
    fn keep(&mut self, slot: Slot, len: usize, pool: &mut Pool, frames: &mut Vec<Slot>) {
        if len > self.largest {
            self.troubles.oversize += 1;
            pool.give(slot);
            return;
        }
        let meta = pool.meta_mut(slot);
        meta.len = len as u32;
        meta.arrival_ns = sys::monotonic_ns();
        frames.push(slot);
    }

    /// Read a frame with a call of its own; false when there is none, or no buffer for it.
    fn read_one(&mut self, pool: &mut Pool, frames: &mut Vec<Slot>) -> io::Result<bool> {
        let Some(slot) = pool.take() else { return Ok(false) };
        match self.device.read(pool.buffer(slot)) {
            Ok(len) => {
                self.keep(slot, len, pool, frames);
                Ok(true)
            }
            Err(error) => {
                pool.give(slot);
                match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(false),
                    _ => Err(error),
                }
            }
        }
    }

    /// Read up to `wanted` frames with one call; false when there were less, none when there cannot be such a call.
    fn read_many(
        &mut self,
        wanted: usize,
        pool: &mut Pool,
        batch: &mut Batch,
        frames: &mut Vec<Slot>,
    ) -> io::Result<Option<bool>> {
        let mut slots = std::mem::take(&mut self.scratch);
        slots.extend(std::iter::from_fn(|| pool.take()).take(wanted));
        let results = batch.transfer(Transfer::Read, &self.device, pool, &slots);
        let (able, mut all, mut failure) = (results.is_some(), slots.len() == wanted, None);
        for (number, slot) in slots.drain(..).enumerate() {
            match results.map_or(-libc::EAGAIN, |results| results[number]) {
                len @ 0.. => self.keep(slot, len as usize, pool, frames),
                error => {
                    pool.give(slot);
                    all = false;
                    if !matches!(-error, libc::EAGAIN | libc::EINTR) {
                        failure = Some(io::Error::from_raw_os_error(-error));
                    }
                }
            }
        }
        self.scratch = slots;
        failure.map_or(Ok(able.then_some(all)), Err)
    }
}

impl Port for Tap {
    fn descriptor(&self) -> RawFd {
        self.device.as_raw_fd()
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch, frames: &mut Vec<Slot>) -> io::Result<()> {
        let mut asked = 0;
        while asked < BATCH {
            // As many as the last time, or as have come already: one that is not there costs a little.
            let wanted = self.came.max(2 * asked).min(BATCH) - asked;
            let many = wanted >= MANY && batch.has_ring();
            let all = if many { self.read_many(wanted, pool, batch, frames)? } else { None };
            asked += if all.is_some() { wanted } else { 1 };
            if !all.map_or_else(|| self.read_one(pool, frames), Ok)? {
                break;
            }
        }
        self.came = frames.len();
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, batch: &mut Batch, frames: &[Slot]) -> io::Result<Sent> {
        if self.done.is_empty() && frames.len() >= MANY {
            let results = batch.transfer(Transfer::Write, &self.device, pool, frames);
            self.done.extend(results.unwrap_or_default());
        }
        for (taken, &slot) in frames.iter().enumerate() {
            let error = match self.done.pop_front() {
                Some(0..) => continue,
                Some(error) => io::Error::from_raw_os_error(-error),
                None => match self.device.write(pool.frame(slot)) {
                    Ok(_) => continue,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.troubles.busy += 1;
                        return Ok(Sent { taken, refused: None });
                    }
                    Err(error) => error,
                },
            };
            return Ok(Sent { taken, refused: Some(self.troubles.refuse(&error)) });
        }
        Ok(Sent { taken: frames.len(), refused: None })
    }

    fn burst(&self, batch: &Batch) -> usize {
        // With a call for each frame, each has its own time of departure.
        if batch.has_ring() { BATCH / 4 } else { 1 }
    }

    fn stats(&mut self) -> Value {
        if let Some(dropped) = self.counters.as_ref().and_then(|file| transmit_drops(file, &self.name)) {
            self.troubles.dropped = dropped;
        }
        let mut out = self.troubles.json("tap", &self.name);
        out["threaded_napi"] = self.threaded.into();
        out
    }
}

/// The column `drop` of the transmit half of a line of /proc/net/dev.
fn transmit_drops(file: &File, name: &str) -> Option<u64> {
    let mut text = vec![0; 1 << 16];
    let mut len = 0;
    while len < text.len() {
        match file.read_at(&mut text[len..], len as u64) {
            Ok(0) | Err(_) => break,
            Ok(n) => len += n,
        }
    }
    let text = std::str::from_utf8(&text[..len]).ok()?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().nth(11)?.parse().ok()
}

/// A packet socket on an interface that somebody else made, such as one end of a veth pair.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    name: String,
    largest: usize,
    troubles: Troubles,
    scratch: Vec<Slot>,
}

impl Port for PacketSocket {
    fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch, frames: &mut Vec<Slot>) -> io::Result<()> {
        while self.scratch.len() < BATCH {
            let Some(slot) = pool.take() else { break };
            self.scratch.push(slot);
        }
        let count = match batch.receive(&self.socket, pool, &self.scratch) {
            Ok(count) => count,
            Err(error) => return patience(error).map(drop),
        };
        let now = sys::monotonic_ns();
        for (i, slot) in self.scratch.drain(..count).enumerate() {
            let received = batch.received(i);
            self.troubles.unfinished += u64::from(received.unfinished);
            if received.len > self.largest {
                self.troubles.oversize += 1;
                pool.give(slot);
                continue;
            }
            let mut len = received.len;
            if let Some((protocol, tag)) = received.vlan {
                let buffer = pool.buffer(slot);
                buffer.copy_within(12..len, 16);
                buffer[12..14].copy_from_slice(&protocol.to_be_bytes());
                buffer[14..16].copy_from_slice(&tag.to_be_bytes());
                len += 4;
            }
            let meta = pool.meta_mut(slot);
            meta.len = len as u32;
            meta.arrival_ns = now;
            frames.push(slot);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, batch: &mut Batch, frames: &[Slot]) -> io::Result<Sent> {
        match batch.send(&self.socket, pool, frames) {
            Ok(taken) => Ok(Sent { taken, refused: None }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.troubles.busy += 1;
                Ok(Sent { taken: 0, refused: None })
            }
            Err(error) => {
                // A veth end whose peer is down answers ENOBUFS, as one that is overrun does.
                let verdict = if sys::has_carrier(&self.socket, &self.name) {
                    self.troubles.refuse(&error)
                } else {
                    Verdict::Down
                };
                patience(error)?;
                Ok(Sent { taken: 0, refused: Some(verdict) })
            }
        }
    }

    fn burst(&self, _: &Batch) -> usize {
        16
    }

    fn stats(&mut self) -> Value {
        self.troubles.dropped += sys::packet_drops(&self.socket).unwrap_or(0);
        self.troubles.json("packet", &self.name)
    }
}

/// Errors of a device that may come back are not the end of it.
fn patience(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN | libc::ENOBUFS | libc::ENOMEM | libc::EMSGSIZE) => {
            Ok(())
        }
        _ => Err(error),
    }
}

/// Device and inode of this thread's network namespace.
///
/// # Errors
/// When /proc is not there.
pub fn current_netns() -> Result<(u64, u64), WireError> {
    let path = "/proc/thread-self/ns/net";
    let meta = std::fs::metadata(path).attempting(|| format!("look at {path}"))?;
    Ok((meta.dev(), meta.ino()))
}

/// Namespaces in which nothing may be opened: the machine's own.
#[derive(Clone, Copy, Debug)]
pub struct Forbidden {
    inode: u64,
}

impl Forbidden {
    /// The namespace with this inode, or process 1's.
    ///
    /// # Errors
    /// When neither is known.
    pub fn new(inode: Option<u64>) -> Result<Self, WireError> {
        if let Some(inode) = inode {
            return Ok(Self { inode });
        }
        let path = "/proc/1/ns/net";
        let meta = std::fs::metadata(path).map_err(|error| {
            let why = format!(
                "cannot tell the machine's own network namespace ({path}: {error}); give 'forbidden_ns'"
            );
            WireError::Forbidden(why)
        })?;
        Ok(Self { inode: meta.ino() })
    }

    /// Refuse when this thread is in the forbidden namespace.
    ///
    /// # Errors
    /// `WireError::Forbidden` then.
    pub fn check(self) -> Result<(), WireError> {
        if current_netns()?.1 == self.inode {
            return Err(WireError::Forbidden(
                "refusing to run in the machine's own network namespace; start the wire inside the lab"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Open a port, in its namespace when it has one.
///
/// # Errors
/// When the namespace is forbidden, or the device cannot be opened.
pub fn open(config: &PortConfig, mtu: u32, forbidden: Forbidden) -> Result<Box<dyn Port>, WireError> {
    let handed: Option<File> = match config.tap_fd {
        Some(fd) => Some(sys::duplicate(fd).attempting(|| format!("use descriptor {fd}"))?.into()),
        None => None,
    };
    let namespace: Option<OwnedFd> = match (&handed, &config.netns, config.netns_fd) {
        (Some(tap), ..) => Some(sys::tap_namespace(tap).attempting(|| "ask where the TAP device is".into())?),
        (_, Some(path), _) => Some(File::open(path).attempting(|| format!("open {path}"))?.into()),
        (_, None, Some(fd)) => Some(sys::duplicate(fd).attempting(|| format!("use descriptor {fd}"))?),
        (_, None, None) => None,
    };
    // A thread of its own, so that this one never leaves its namespace.
    let opened = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if let Some(namespace) = &namespace {
                    use std::os::fd::AsFd;
                    sys::enter_netns(namespace.as_fd()).attempting(|| "enter the port's namespace".into())?;
                }
                forbidden.check()?;
                open_here(config, handed, mtu)
            })
            .join()
    });
    opened.unwrap_or_else(|_| Err(WireError::System("open a port".into(), io::Error::other("a thread died"))))
}

fn open_here(config: &PortConfig, handed: Option<File>, mtu: u32) -> Result<Box<dyn Port>, WireError> {
    // Ethernet header and two VLAN tags.
    let largest = mtu as usize + 14 + 8;
    // The table of the namespace this thread is in, wherever it is read later.
    let counters = || File::open("/proc/thread-self/net/dev").ok();
    if let Some(device) = handed {
        let (name, threaded) = sys::tap_device(&device).attempting(|| "ask for the TAP device".into())?;
        return Ok(Box::new(Tap::new(device, name, counters(), largest, threaded)));
    }
    if let Some(name) = &config.tap {
        let create =
            |napi| sys::open_tap(name, TAP_RING, napi).attempting(|| format!("create the TAP device {name}"));
        let mut device = create(true)?;
        let threaded = sys::thread_napi(name).is_ok();
        if !threaded {
            // NAPI without its own thread is slower than none.
            drop(device);
            device = create(false)?;
        }
        return Ok(Box::new(Tap::new(device, name.clone(), counters(), largest, threaded)));
    }
    let name = config.packet.as_deref().unwrap_or_default();
    let socket = sys::open_packet_socket(name, SOCKET_OCTETS)
        .attempting(|| format!("open a packet socket on {name}"))?;
    Ok(Box::new(PacketSocket {
        socket,
        name: name.into(),
        largest,
        troubles: Troubles::default(),
        scratch: Vec::with_capacity(BATCH),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where and stops")]

    use std::os::unix::net::UnixDatagram;

    use super::*;

    const SLOT: usize = 300_000;

    /// A socket in place of the device: it keeps the bounds of frames, and refuses those of more than its buffer.
    fn tap() -> (Tap, UnixDatagram) {
        let (near, far) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (Tap::new(File::from(OwnedFd::from(near)), "x".into(), None, 100, false), far)
    }

    fn frames(pool: &mut Pool, lengths: &[usize]) -> Vec<Slot> {
        lengths
            .iter()
            .map(|&len| {
                let slot = pool.take().unwrap();
                pool.buffer(slot)[..len].fill(len as u8);
                pool.meta_mut(slot).len = len as u32;
                slot
            })
            .collect()
    }

    #[test]
    fn frames_are_read_alike_one_by_one_and_together() {
        for ring in [false, true] {
            let (mut tap, far) = tap();
            let (mut pool, mut batch) = (Pool::new(2 * BATCH, 128), Batch::new(ring));
            let mut came = Vec::new();
            // More than a batch; one is too long for the device.
            let sent: Vec<usize> = (1..=97).chain([101]).chain(1..=20).collect();
            for &len in &sent {
                far.send(&[len as u8; 128][..len]).unwrap();
            }
            let mut calls = 0;
            loop {
                let mut found = Vec::new();
                tap.receive(&mut pool, &mut batch, &mut found).unwrap();
                if found.is_empty() {
                    break;
                }
                calls += 1;
                for slot in found {
                    let frame = pool.frame(slot);
                    assert!(frame.iter().all(|&octet| usize::from(octet) == frame.len()));
                    assert!(pool.meta(slot).arrival_ns > 0);
                    came.push(frame.len());
                    pool.give(slot);
                }
            }
            assert_eq!(came, sent.iter().copied().filter(|&len| len <= 100).collect::<Vec<_>>());
            assert_eq!((tap.troubles.oversize, calls, pool.free()), (1, 2, pool.capacity()));
        }
    }

    #[test]
    fn too_few_buffers_are_no_error_and_nothing_is_lost() {
        for ring in [false, true] {
            let (mut tap, far) = tap();
            let (mut pool, mut batch) = (Pool::new(6, 128), Batch::new(ring));
            for _ in 0..10 {
                far.send(b"frame").unwrap();
            }
            let mut found = Vec::new();
            tap.receive(&mut pool, &mut batch, &mut found).unwrap();
            assert_eq!((found.len(), pool.free()), (6, 0));
            found.drain(..).for_each(|slot| pool.give(slot));
            tap.receive(&mut pool, &mut batch, &mut found).unwrap();
            assert_eq!(found.len(), 4);
        }
    }

    #[test]
    fn one_frame_that_is_refused_stops_no_other() {
        for ring in [false, true] {
            let (mut tap, far) = tap();
            let (mut pool, mut batch) = (Pool::new(8, SLOT), Batch::new(ring));
            let mut held = frames(&mut pool, &[11, 12, SLOT, 13, SLOT, 14]);
            let refused = Some(Verdict::Overflow);
            for (taken, refused) in [(2, refused), (1, refused), (2, None)] {
                if refused.is_none() {
                    held.extend(frames(&mut pool, &[15])); // what fell due meanwhile goes behind
                }
                let sent = tap.send(&mut pool, &mut batch, &held).unwrap();
                assert_eq!(sent, Sent { taken, refused });
                held.drain(..taken + usize::from(refused.is_some()));
            }
            let mut buffer = [0; 128];
            let came: Vec<usize> = std::iter::from_fn(|| far.recv(&mut buffer).ok()).collect();
            assert_eq!(came, [11, 12, 13, 14, 15]);
            assert_eq!(tap.troubles.refused, 2);
        }
    }
}
