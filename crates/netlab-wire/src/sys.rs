//! System calls that the standard library lacks; all unsafe code of the crate is in this file and below it.

pub mod ring;

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::pool::{Pool, Slot};
use ring::{Ring, Transfer};

/// Frames moved by one system call at most.
pub const BATCH: usize = 64;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; both clocks used here always exist.
    unsafe { libc::clock_gettime(id, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC in nanoseconds.
#[inline]
pub fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds.
pub fn realtime_ns() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

/// Descriptors to wait for, and the result of waiting.
#[derive(Debug, Default)]
pub struct Waiting {
    entries: Vec<libc::pollfd>,
}

impl Waiting {
    /// Wait for input on `descriptor` too; answers the place to ask `ready` for.
    pub fn add(&mut self, descriptor: RawFd) -> usize {
        self.entries.push(libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 });
        self.entries.len() - 1
    }

    /// Wait until something is ready, or `timeout_ns` (for ever when none) has passed.
    pub fn wait(&mut self, timeout_ns: Option<u64>) -> io::Result<usize> {
        let timeout = timeout_ns.map(|ns| libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        });
        let pointer = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (entries, count) = (self.entries.as_mut_ptr(), self.entries.len() as libc::nfds_t);
        // SAFETY: `entries` points to `count` live pollfds, `pointer` is null or to a live timespec.
        match check(unsafe { libc::ppoll(entries, count, pointer, std::ptr::null()) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.entries.iter_mut().for_each(|entry| entry.revents = 0);
                Ok(0)
            }
            other => other.map(|n| n as usize),
        }
    }

    /// Whether the descriptor at `place` has input (or an error to fetch).
    #[inline]
    pub fn ready(&self, place: usize) -> bool {
        self.entries[place].revents != 0
    }
}

/// Ask for timers without slack in this thread (`prctl(2)`, PR_SET_TIMERSLACK).
pub fn precise_timers() {
    // SAFETY: this option takes a number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}

/// Be killed when the parent dies; fails when it is already gone.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: getppid and this prctl option take numbers and touch no memory.
    unsafe {
        let parent = libc::getppid();
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0))?;
        if libc::getppid() != parent {
            return Err(io::Error::other("the parent died meanwhile"));
        }
    }
    Ok(())
}

/// SIGTERM and SIGINT as input on a descriptor; they are blocked in this thread and those it starts.
pub fn termination_signals() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is valid and is filled by sigemptyset; the pointers are to it;
    // signalfd answers a new descriptor that nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        let descriptor = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// A second descriptor of the same open file, owned by us.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl checks the number itself; the answer is a new descriptor that nobody else owns.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3))?)) }
}

/// Move this thread into a network namespace.
pub fn enter_netns(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes numbers and touches no memory of ours.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface name has 1 to 15 octets"));
    }
    // SAFETY: ifreq is plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn socket(domain: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes numbers; the answer is a new descriptor that nobody else owns.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::socket(
            domain,
            kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        ))?))
    }
}

/// Create the TAP device `name` in this thread's namespace (or attach to a persistent one).
///
/// With `napi`, a written frame is queued for the device's NAPI instead of passing through the
/// receiver's whole protocol stack inside `write`.
pub fn open_tap(name: &str, ring: i32, napi: bool) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = interface_request(name)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if napi { libc::IFF_NAPI } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, to which the pointer is.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
    let helper = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_metric = ring; // the same place as ifr_qlen
    // SAFETY: SIOCSIFTXQLEN reads one ifreq, to which the pointer is.
    check(unsafe { libc::ioctl(helper.as_raw_fd(), libc::SIOCSIFTXQLEN, &mut request) })?;
    Ok(device)
}

/// Name of the TAP device behind a descriptor, and whether its NAPI is on: who hands one over turns that on only with
/// a thread for it (`thread_napi`). Reading and writing will not block.
pub fn tap_device(device: &File) -> io::Result<(String, bool)> {
    // SAFETY: ifreq is plain data for which zero is valid; TUNGETIFF writes one, to which the pointer is;
    // fcntl takes numbers.
    let request = unsafe {
        let mut request: libc::ifreq = zeroed();
        check(libc::ioctl(device.as_raw_fd(), libc::TUNGETIFF, &mut request))?;
        let flags = check(libc::fcntl(device.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(device.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
        request
    };
    let name = request.ifr_name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect();
    // SAFETY: TUNGETIFF has filled this member of the union.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Ok((name, flags & libc::IFF_NAPI != 0))
}

/// The network namespace of the TAP device behind a descriptor.
pub fn tap_namespace(device: &File) -> io::Result<OwnedFd> {
    const TUNGETDEVNETNS: libc::c_ulong = 0x54E3;
    // SAFETY: this request takes no argument; the answer is a new descriptor that nobody else owns.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::ioctl(device.as_raw_fd(), TUNGETDEVNETNS as _))?)) }
}

/// Let a kernel thread of its own run the device's NAPI, so that the receiver's stack runs on
/// another processor where there is one (`Documentation/networking/napi.rst`, "Threaded NAPI").
///
/// The switch is a file in sysfs, which shows the devices of the namespace it was mounted from;
/// so this thread gets a mount namespace of its own with a fresh sysfs: call it in a thread that ends soon.
pub fn thread_napi(name: &str) -> io::Result<()> {
    // SAFETY: unshare takes a number; the strings are constants that end in NUL, the data pointer may be null.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let (none, null) = (c"none".as_ptr(), std::ptr::null());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(none, c"/".as_ptr(), null, private, null.cast()))?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        check(libc::mount(none, c"/sys".as_ptr(), c"sysfs".as_ptr(), flags, null.cast()))?;
    }
    std::fs::write(format!("/sys/class/net/{name}/threaded"), "1")
}

/// How a thread wants to be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Before every ordinary thread (SCHED_FIFO at its lowest priority).
    Immediate,
    /// An ordinary thread of raised priority with short slices.
    Raised,
    /// An ordinary thread with short slices: what needs no privilege.
    Plain,
}

/// Ask for this thread to be scheduled so (`sched_setattr(2)`).
pub fn schedule(urgency: Urgency) -> io::Result<()> {
    /// `struct sched_attr`, first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let (policy, nice, priority) = match urgency {
        Urgency::Immediate => (libc::SCHED_FIFO, 0, 1),
        Urgency::Raised => (libc::SCHED_OTHER, -15, 0),
        Urgency::Plain => (libc::SCHED_OTHER, 0, 0),
    };
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: policy as u32,
        flags: 0,
        nice,
        priority,
        // For SCHED_OTHER the slice in ns (Linux 6.12 and later, ignored before).
        runtime: 200_000,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` octets from the live struct; 0 means this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_option<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let (pointer, size) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the pointer is to a live T of the size given.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, size) }).map(drop)
}

/// A packet socket that sees every frame arriving at the interface `name` and none that leaves.
pub fn open_packet_socket(name: &str, octets: i32) -> io::Result<OwnedFd> {
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    const PACKET_QDISC_BYPASS: libc::c_int = 20;
    let mut request = interface_request(name)?;
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW)?;
    // SAFETY: SIOCGIFINDEX reads and writes one ifreq, to which the pointer is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &mut request) })?;
    // SAFETY: a successful SIOCGIFINDEX has filled this member of the union.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    set_option(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32)?;
    set_option(&socket, libc::SOL_PACKET, PACKET_QDISC_BYPASS, &1i32)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // The first needs CAP_NET_ADMIN over the initial namespace; the second is cut at a sysctl.
        set_option(&socket, libc::SOL_SOCKET, forced, &octets)
            .or_else(|_| set_option(&socket, libc::SOL_SOCKET, plain, &octets))?;
    }
    // SAFETY: sockaddr_ll is plain data for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    let (pointer, size) = (std::ptr::from_ref(&address).cast(), size_of_val(&address) as libc::socklen_t);
    // SAFETY: the pointer is to a live sockaddr_ll of the size given.
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, size) })?;
    Ok(socket)
}

/// Whether the interface is up and has a carrier (its other end is up too).
///
/// Asked of ethtool: the flag IFF_RUNNING follows up to a second later.
pub fn has_carrier(socket: &OwnedFd, name: &str) -> bool {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_GLINK: u32 = 10;
    let Ok(mut request) = interface_request(name) else { return false };
    // `struct ethtool_value`: a command and its answer.
    let mut value: [u32; 2] = [ETHTOOL_GLINK, 0];
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: SIOCETHTOOL reads one ifreq, whose data points to the two live words this command uses.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
    result == 0 && value[1] != 0
}

/// Frames the kernel dropped because the socket was full, since the last call.
pub fn packet_drops(socket: &OwnedFd) -> io::Result<u64> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut size = size_of_val(&stats) as libc::socklen_t;
    let pointer = std::ptr::from_mut(&mut stats).cast();
    // SAFETY: the pointer is to a live tpacket_stats of the size given.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, pointer, &mut size)
    })?;
    Ok(u64::from(stats.tp_drops))
}

/// Room for one control message with a tpacket_auxdata.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// What came with a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    /// Length of the frame, which is more than the buffer when it was cut.
    pub len: usize,
    /// VLAN protocol and tag that the kernel took out of the frame.
    pub vlan: Option<(u16, u16)>,
    /// The sender left the checksum to an offload that never happened.
    pub unfinished: bool,
}

/// Message headers for moving many frames in one system call; one for each thread.
pub struct Batch {
    messages: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    controls: Vec<Control>,
    ring: Option<Ring>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batch")
    }
}

impl Batch {
    /// With `ring` many frames of a TAP device are moved in one call too, where the kernel allows it.
    pub fn new(ring: bool) -> Self {
        Self {
            ring: if ring { Ring::new().ok() } else { None },
            // SAFETY: mmsghdr is plain data for which zero is valid.
            messages: vec![unsafe { zeroed() }; BATCH],
            vectors: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH],
            controls: vec![Control([0; 64]); BATCH],
        }
    }

    /// Whether `transfer` can do anything.
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Move frames of a TAP device, as `Ring::transfer`; none where that is not possible.
    pub fn transfer(
        &mut self,
        what: Transfer,
        device: &File,
        pool: &mut Pool,
        slots: &[Slot],
    ) -> Option<&[i32]> {
        let results = self.ring.as_mut()?.transfer(what, device, pool, slots);
        if results.first() == Some(&-libc::EOPNOTSUPP) {
            // A kernel whose TAP devices cannot promise not to wait has done nothing.
            self.ring = None;
            return None;
        }
        self.ring.as_ref().map(|ring| ring.results(slots.len()))
    }

    /// Point the headers at the buffers of `slots` (distinct, at most `BATCH`).
    fn aim(&mut self, pool: &mut Pool, slots: &[Slot], whole: bool, control: bool) -> usize {
        let size = pool.slot_size();
        let count = slots.len().min(BATCH);
        for (i, &slot) in slots[..count].iter().enumerate() {
            self.vectors[i].iov_len = if whole { size } else { pool.meta(slot).len as usize };
        }
        let region = pool.region();
        let (base, octets) = (region.as_mut_ptr(), region.len());
        for (i, &slot) in slots[..count].iter().enumerate() {
            let at = slot as usize * size;
            assert!(at + self.vectors[i].iov_len <= octets, "a slot of another pool");
            // SAFETY: the assertion keeps the pointer and the length behind it inside the region.
            self.vectors[i].iov_base = unsafe { base.add(at) }.cast();
            let header = &mut self.messages[i].msg_hdr;
            header.msg_iov = &mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control =
                if control { self.controls[i].0.as_mut_ptr().cast() } else { std::ptr::null_mut() };
            header.msg_controllen = if control { 64 } else { 0 };
        }
        count
    }

    /// Receive into `slots` without waiting; answers how many were filled.
    pub fn receive(&mut self, socket: &OwnedFd, pool: &mut Pool, slots: &[Slot]) -> io::Result<usize> {
        let count = self.aim(pool, slots, true, true);
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let messages = self.messages.as_mut_ptr();
        // SAFETY: `aim` has pointed the first `count` headers at live buffers that `pool`, borrowed
        // exclusively, keeps in place until the call returns; slots are distinct, so they do not overlap.
        let result = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), messages, count as u32, flags as _, std::ptr::null_mut())
        };
        check(result).map(|n| n as usize)
    }

    /// What came with the `i`-th frame of the last `receive`.
    pub fn received(&self, i: usize) -> Received {
        const TP_STATUS_CSUMNOTREADY: u32 = 8;
        const TP_STATUS_VLAN_VALID: u32 = 16;
        const TP_STATUS_VLAN_TPID_VALID: u32 = 64;
        let message = &self.messages[i];
        let mut received = Received { len: message.msg_len as usize, ..Received::default() };
        let raw = &self.controls[i].0;
        let u32_at = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let u16_at = |at: usize| u16::from_ne_bytes([raw[at], raw[at + 1]]);
        // cmsghdr { len: usize, level: i32, type: i32 }, then tpacket_auxdata (`packet(7)`).
        let data = size_of::<libc::cmsghdr>();
        if message.msg_hdr.msg_controllen >= data + 20
            && u32_at(data - 8) == libc::SOL_PACKET as u32
            && u32_at(data - 4) == libc::PACKET_AUXDATA as u32
        {
            let status = u32_at(data);
            received.unfinished = status & TP_STATUS_CSUMNOTREADY != 0;
            if status & TP_STATUS_VLAN_VALID != 0 {
                let protocol =
                    if status & TP_STATUS_VLAN_TPID_VALID != 0 { u16_at(data + 18) } else { 0x8100 };
                received.vlan = Some((protocol, u16_at(data + 16)));
            }
        }
        received
    }

    /// Send the frames in `slots`; answers how many were taken, an error only when none was.
    pub fn send(&mut self, socket: &OwnedFd, pool: &mut Pool, slots: &[Slot]) -> io::Result<usize> {
        let count = self.aim(pool, slots, false, false);
        let messages = self.messages.as_mut_ptr();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: as in `receive`; the kernel only reads.
        let result = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages, count as u32, flags as _) };
        check(result).map(|n| n as usize)
    }
}
