//! Many frames of a TAP device in one system call, by io_uring (`io_uring(7)`).
//!
//! The device answers at once whether it has or takes a frame (RWF_NOWAIT), so the kernel does the requests of a
//! call in their order, and all of them are over when the call returns: no buffer is lent for longer than that.

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{BATCH, check};
use crate::pool::{Pool, Slot};

/// Read into the buffers or write from them: IORING_OP_READ, IORING_OP_WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transfer {
    Read = 22,
    Write = 23,
}

/// `struct io_sqring_offsets` and `struct io_cqring_offsets`: both have eight words, and an address at the end.
#[repr(C)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    /// Submission: flags; completion: overflow.
    fifth: u32,
    /// Submission: dropped; completion: the entries.
    sixth: u32,
    /// Submission: the array; completion: flags.
    seventh: u32,
    reserved: u32,
    address: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
struct Parameters {
    submissions: u32,
    completions: u32,
    flags: u32,
    thread_cpu: u32,
    thread_idle: u32,
    features: u32,
    workqueue: u32,
    reserved: [u32; 3],
    submission: Offsets,
    completion: Offsets,
}

/// `struct io_uring_sqe`, as far as it is used here.
#[repr(C)]
struct Request {
    opcode: u8,
    flags: u8,
    priority: u16,
    descriptor: i32,
    offset: u64,
    address: u64,
    len: u32,
    how: u32,
    tag: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Answer {
    tag: u64,
    result: i32,
    flags: u32,
}

/// Memory shared with the kernel.
struct Shared {
    pointer: *mut u8,
    size: usize,
}

impl Shared {
    fn map(descriptor: &OwnedFd, size: usize, offset: libc::off_t) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping, wherever the kernel likes; it is checked below.
        let found = unsafe {
            libc::mmap(std::ptr::null_mut(), size, protection, flags, descriptor.as_raw_fd(), offset)
        };
        if found == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { pointer: found.cast(), size })
    }

    /// A place of the mapping as something else.
    fn at<T>(&self, offset: u32) -> *mut T {
        assert!(offset as usize + size_of::<T>() <= self.size, "outside of the ring");
        // SAFETY: the assertion keeps the pointer inside the mapping.
        unsafe { self.pointer.add(offset as usize) }.cast()
    }

    /// A counter that the kernel reads or writes too.
    fn counter(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the word lies in the mapping, which lives as long as `self`; both sides use it atomically.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.pointer.cast(), self.size) };
    }
}

/// A queue of requests to the kernel and one of its answers; one for each thread.
pub struct Ring {
    descriptor: OwnedFd,
    queues: Shared,
    requests: Shared,
    submission: Offsets,
    completion: Offsets,
    mask: u32,
    answer_mask: u32,
    results: [i32; BATCH],
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    /// Make one, where the kernel has it and allows it.
    pub fn new() -> io::Result<Self> {
        /// IORING_FEAT_SINGLE_MMAP, and IORING_FEAT_RW_CUR_POS, which came with the two operations (Linux 5.6).
        const NEEDED: u32 = 1 | 8;
        const ENTRIES_AT: libc::off_t = 0x1000_0000; // IORING_OFF_SQES
        // SAFETY: io_uring_params is plain data for which zero is valid.
        let mut told: Parameters = unsafe { zeroed() };
        // SAFETY: the kernel reads and writes the live struct of the layout it knows.
        let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, BATCH as libc::c_uint, &raw mut told) };
        let descriptor = check(made as libc::c_int)?;
        // SAFETY: the answer is a new descriptor that nobody else owns.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if told.features & NEEDED != NEEDED || (told.submissions as usize) < BATCH {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let array = told.submission.seventh as usize + told.submissions as usize * size_of::<u32>();
        let answers = told.completion.sixth as usize + told.completions as usize * size_of::<Answer>();
        let queues = Shared::map(&descriptor, array.max(answers), 0)?;
        let size = told.submissions as usize * size_of::<Request>();
        let requests = Shared::map(&descriptor, size, ENTRIES_AT)?;
        for number in 0..told.submissions {
            // Each place of the queue always names the request of the same number.
            queues.counter(told.submission.seventh + 4 * number).store(number, Ordering::Relaxed);
        }
        let mask = queues.counter(told.submission.mask).load(Ordering::Relaxed);
        let answer_mask = queues.counter(told.completion.mask).load(Ordering::Relaxed);
        let Parameters { submission, completion, .. } = told;
        Ok(Self {
            descriptor,
            queues,
            requests,
            submission,
            completion,
            mask,
            answer_mask,
            results: [0; BATCH],
        })
    }

    /// Read a frame into each of `slots`, or write the frame of each; at most `BATCH`, in order.
    ///
    /// Answers octets or the negative error of each.
    pub fn transfer(&mut self, what: Transfer, device: &File, pool: &mut Pool, slots: &[Slot]) -> &[i32] {
        const RWF_NOWAIT: u32 = 8;
        let count = slots.len().min(BATCH);
        let size = pool.slot_size();
        let tail = self.queues.counter(self.submission.tail).load(Ordering::Relaxed);
        for (number, &slot) in slots[..count].iter().enumerate() {
            let len = if what == Transfer::Read { size } else { pool.meta(slot).len as usize };
            let buffer = &mut pool.region()[slot as usize * size..][..len];
            let place = tail.wrapping_add(number as u32) & self.mask;
            let request = Request {
                opcode: what as u8,
                flags: 0,
                priority: 0,
                descriptor: device.as_raw_fd(),
                offset: 0,
                address: buffer.as_mut_ptr() as u64,
                len: len as u32,
                how: RWF_NOWAIT,
                tag: number as u64,
                rest: [0; 3],
            };
            // SAFETY: the place is one of the mapping; the kernel reads it only after the tail has passed it.
            unsafe { self.requests.at::<Request>(place * size_of::<Request>() as u32).write(request) };
        }
        let tail = tail.wrapping_add(count as u32);
        self.queues.counter(self.submission.tail).store(tail, Ordering::Release);
        let (mut submitted, mut answered) = (0, 0);
        while answered < count {
            submitted += self.enter(count - submitted, count - answered);
            answered += self.collect();
        }
        &self.results[..count]
    }

    /// What became of the first `count` frames of the last transfer.
    pub fn results(&self, count: usize) -> &[i32] {
        &self.results[..count.min(BATCH)]
    }

    /// Hand requests over and wait for answers; how many were taken.
    fn enter(&self, requests: usize, answers: usize) -> usize {
        const IORING_ENTER_GETEVENTS: libc::c_uint = 1;
        let (requests, answers) = (requests as libc::c_uint, answers as libc::c_uint);
        let (fd, none) = (self.descriptor.as_raw_fd(), std::ptr::null::<libc::sigset_t>());
        // SAFETY: the requests in the ring point to buffers of the pool that `transfer` has borrowed exclusively, and
        // it does not return before the kernel is done with every one; a null signal mask is allowed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                requests,
                answers,
                IORING_ENTER_GETEVENTS,
                none,
                0usize,
            )
        };
        if result >= 0 {
            return result as usize;
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) {
            // Buffers that the kernel may still write to could never be used again.
            eprintln!("io_uring_enter: {error}");
            std::process::abort();
        }
        0
    }

    /// Take the answers that are there; how many.
    fn collect(&mut self) -> usize {
        let tail = self.queues.counter(self.completion.tail).load(Ordering::Acquire);
        let first = self.queues.counter(self.completion.head).load(Ordering::Relaxed);
        let mut head = first;
        while head != tail {
            let place = (head & self.answer_mask) * size_of::<Answer>() as u32;
            // SAFETY: the place is one of the mapping, and the kernel has written it before it moved the tail.
            let answer = unsafe { self.queues.at::<Answer>(self.completion.sixth + place).read() };
            self.results[answer.tag as usize] = answer.result;
            head = head.wrapping_add(1);
        }
        self.queues.counter(self.completion.head).store(head, Ordering::Release);
        head.wrapping_sub(first) as usize
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where and stops")]

    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn filled(pool: &mut Pool, text: &[u8]) -> Slot {
        let slot = pool.take().unwrap();
        pool.buffer(slot)[..text.len()].copy_from_slice(text);
        pool.meta_mut(slot).len = text.len() as u32;
        slot
    }

    #[test]
    fn frames_go_and_come_in_order_and_an_empty_device_says_so() {
        let Ok(mut ring) = Ring::new() else {
            eprintln!("no io_uring here");
            return;
        };
        // A socket keeps the bounds of what was written, as a TAP device does.
        let (here, there) = UnixDatagram::pair().unwrap();
        let [here, there] = [here, there].map(|end| File::from(OwnedFd::from(end)));
        let mut pool = Pool::new(2 * BATCH, 64);
        for round in 0..100u8 {
            let count = 1 + usize::from(round) % 8;
            let sent: Vec<Slot> = (0..count).map(|n| filled(&mut pool, &[round; 64][..=n])).collect();
            let lengths: Vec<i32> = (1..=count as i32).collect();
            assert_eq!(ring.transfer(Transfer::Write, &here, &mut pool, &sent), lengths);
            let read: Vec<Slot> = (0..count + 2).map(|_| pool.take().unwrap()).collect();
            let results = ring.transfer(Transfer::Read, &there, &mut pool, &read);
            assert_eq!(&results[..count], lengths);
            assert_eq!(results[count..], [-libc::EAGAIN; 2]);
            for (number, &slot) in read[..count].iter().enumerate() {
                assert_eq!(pool.buffer(slot)[..=number], [round; 64][..=number]);
            }
            sent.into_iter().chain(read).for_each(|slot| pool.give(slot));
        }
    }

    #[test]
    fn each_frame_has_its_own_error() {
        let Ok(mut ring) = Ring::new() else { return };
        let (here, there) = UnixDatagram::pair().unwrap();
        let here = File::from(OwnedFd::from(here));
        let mut pool = Pool::new(4, 64);
        let slots = [b"a", b"b"].map(|text| filled(&mut pool, text));
        assert_eq!(ring.transfer(Transfer::Write, &here, &mut pool, &slots[..1]), [1]);
        drop(there);
        let refused = ring.transfer(Transfer::Write, &here, &mut pool, &slots);
        assert!(refused.iter().all(|&result| result < 0), "{refused:?}");
    }
}
