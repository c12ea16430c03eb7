//! Guarded file mapping, prefetch hints and huge-page advice: the only unsafe code of the capture engine.
//!
//! A file that shrinks while it is mapped makes the kernel send SIGBUS to whoever touches the lost
//! pages. [`Mapping`] registers its address range in a fixed table; the handler installed here finds the
//! faulting address in that table, puts zero pages over the rest of the range and notes the offset. The
//! reader then sees zeros, asks [`Mapping::readable`], and starts over with the shorter length. A SIGBUS
//! anywhere else puts the previous action back and goes to it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// Mappings alive at once; a further one is refused.
const SLOTS: usize = 64;
static STARTS: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];
static ENDS: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];
static FAULTS: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(usize::MAX) }; SLOTS];
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
static REGISTRY: Mutex<()> = Mutex::new(());

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: installed with SA_SIGINFO, so `info` is valid. Only atomics and the mmap, sigaction system
    // calls are used, which are async-signal-safe. MAP_FIXED stays inside a range this module mapped and
    // has not yet unmapped (ranges are unregistered before munmap).
    unsafe {
        let address = (*info).si_addr() as usize;
        for slot in 0..SLOTS {
            let (start, end) = (STARTS[slot].load(SeqCst), ENDS[slot].load(SeqCst));
            if start != 0 && (start..end).contains(&address) {
                let page = address & !4095;
                let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let mapped = libc::mmap(page as *mut _, end - page, libc::PROT_READ, flags, -1, 0);
                if mapped != libc::MAP_FAILED {
                    FAULTS[slot].fetch_min(page - start, SeqCst);
                    return;
                }
            }
        }
        // Not ours: put the previous action back; returning repeats the access and reaches it.
        libc::sigaction(signal, PREVIOUS.load(SeqCst), ptr::null_mut());
    }
}

/// Install the handler, or put it back in front if something replaced it; call with `REGISTRY` held.
fn install() -> io::Result<()> {
    // SAFETY: plain sigaction calls on zeroed, valid structures. The previous action is kept in a leaked
    // box, so a handler that is running can always read it.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &mut current) != 0 {
            return Err(io::Error::last_os_error());
        }
        let ours = on_bus_error as *const () as usize;
        if current.sa_sigaction == ours {
            return Ok(());
        }
        PREVIOUS.store(Box::into_raw(Box::new(current)), SeqCst);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ours;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        match libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// A whole file, mapped read-only; truncating the file meanwhile is noticed instead of fatal.
pub struct Mapping {
    start: *mut libc::c_void,
    len: usize,
    slot: usize,
    file: File,
}

// SAFETY: the mapping is read-only memory that lives until drop; sharing it is sharing a `&[u8]`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Map the first `len` bytes of `file`; fails when the kernel or the table of mappings refuses.
    pub fn new(file: File, len: usize) -> io::Result<Self> {
        let _held = REGISTRY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        install()?;
        let slot = STARTS.iter().position(|s| s.load(SeqCst) == 0).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh private read-only mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: advice about the range just mapped; it changes no contents.
        unsafe { libc::madvise(start, len, libc::MADV_SEQUENTIAL) };
        FAULTS[slot].store(usize::MAX, SeqCst);
        ENDS[slot].store(start as usize + len, SeqCst);
        STARTS[slot].store(start as usize, SeqCst);
        Ok(Self { start, len, slot, file })
    }

    /// The bytes. Another process may write the file meanwhile: readers use each value they load once
    /// and check every offset, so that changes the answer, never the safety.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: start..start+len stays mapped and readable until drop, by the file or by zero pages.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), self.len) }
    }

    /// Whether a page was found missing; one atomic load.
    pub fn faulted(&self) -> bool {
        FAULTS[self.slot].load(SeqCst) != usize::MAX
    }

    /// How many leading bytes the file still backs; asks the kernel for the file's size.
    pub fn readable(&self) -> usize {
        let size = self.file.metadata().map_or(0, |m| usize::try_from(m.len()).unwrap_or(usize::MAX));
        // A file truncated and grown again has the old size but zeros in place of the lost pages.
        size.min(FAULTS[self.slot].load(SeqCst)).min(self.len)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        STARTS[self.slot].store(0, SeqCst);
        // SAFETY: unmaps exactly what `new` mapped; the borrow checker ended every slice of it.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// Ask for the cache line `line` of `items[index]`; any index is allowed, a wrong one is a wasted hint.
#[inline(always)]
pub fn prefetch<T>(items: &[T], index: usize, line: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address neither faults nor reads; the pointer is never dereferenced.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(items.as_ptr().wrapping_add(index).cast::<i8>().wrapping_add(line * 64));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index, line);
}

/// Ask for huge pages behind the whole capacity of `items`: random access to a large table misses the TLB.
pub fn advise_huge<T>(items: &Vec<T>) {
    let start = (items.as_ptr() as usize).next_multiple_of(4096);
    let end = (items.as_ptr() as usize + items.capacity() * size_of::<T>()) & !4095;
    if end > start + (8 << 20) {
        // SAFETY: MADV_HUGEPAGE inside an allocation the vector owns; it changes no contents.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_truncated_while_mapped_reads_as_zeros_and_slots_are_reused() {
        let path = std::env::temp_dir().join(format!("netlab-mem-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![7u8; 100_000]).unwrap();
        let mapping = Mapping::new(File::open(&path).unwrap(), 100_000).unwrap();
        assert_eq!(mapping.bytes()[99_999], 7);
        assert!(!mapping.faulted() && mapping.readable() == 100_000);
        file.set_len(10_000).unwrap();
        assert_eq!(mapping.bytes()[9_999], 7);
        assert_eq!(mapping.bytes()[99_999], 0);
        assert!(mapping.faulted());
        assert_eq!(mapping.readable(), 10_000);
        drop(mapping);
        std::fs::remove_file(path).unwrap();
        // The table of mappings is bounded and its slots are used again.
        for _ in 0..3 {
            let all: Vec<_> = (0..SLOTS)
                .map_while(|_| Mapping::new(File::open("/proc/self/exe").unwrap(), 4096).ok())
                .collect();
            assert!(all.len() > SLOTS / 2);
        }
    }

    #[test]
    fn a_prefetch_outside_the_slice_is_harmless() {
        prefetch(&[1u64], usize::MAX / 16, 3);
        advise_huge(&Vec::<u64>::with_capacity(2 << 20));
    }
}
