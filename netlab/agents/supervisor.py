"""The process on which a whole lab hangs. One stdlib-only file: `python3 -I -S supervisor.py`.

Theory of operation
-------------------
The controller (a `netlab` command, or a test) starts this file with a stream socket. The first
process, the *anchor*, makes fresh user (rootless only), mount, PID and network namespaces and forks
once: the child is process 1 of the PID namespace and is *the supervisor*. Everything of the lab
lives because the supervisor lives:

* node namespaces have no name; only descriptors held here keep them. Supervisor dead, descriptors
  closed, namespaces and their interfaces gone;
* processes are children of the supervisor in its PID namespace: the kernel kills them with it;
* mounts are in its mount namespace, which nobody else is in once they are dead.

A lab whose directory is removed could no longer be found by anybody, so it ends with it: the
supervisor watches for its lock file to be unlinked (inotify(7)).

So nothing has to be cleaned up by a program, whoever gets SIGKILL and whenever. The other half is
that the supervisor must not outlive the one who wanted it: until `commit` (and for ever in a
foreground lab) the anchor dies with the controller (PR_SET_PDEATHSIG), the supervisor with the
anchor, and end-of-file on the first connection ends the supervisor as well.

There is one thread. To do something in a node it enters the node's namespace, *checks that it
arrived*, acts, and goes back; nothing else can run meanwhile. The supervisor's own network
namespace is an empty one, never the machine's, so even a forgotten `setns` cannot reach the
machine's interfaces; `Namespaces.enter` refuses on top of that.

Frames, both ways: two big-endian u32 (length of the JSON text, length of the raw bytes), then both.
Descriptors travel beside the first byte of a frame, as many as its `fds` says. A request has an
`id`, its answer has the same one; frames with `event` come unasked.

Unsatisfactory still: readiness of a port is polled (every 2 ms), for lack of an event the kernel
would send to us.
"""

# No pathlib in a program whose start-up is part of every bring-up.
# ruff: noqa: PTH105, PTH108, PTH110, PTH115, PTH116, PTH118, PTH123, PTH208
from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import heapq
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 47, 2
SIOCGIFFLAGS, SIOCETHTOOL = 0x8913, 0x8946
# ETHTOOL_GLINK, ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO, ETHTOOL_SFEATURES and ETH_SS_FEATURES of
# <linux/ethtool.h>.
GET_LINK, GET_STRINGS, GET_SIZES, SET_FEATURES, FEATURE_NAMES = 0x0A, 0x1B, 0x37, 0x3B, 4
# What `ethtool -K DEV tso off gso off gro off tx off rx off` turns off.
OFFLOADS = re.compile(
    r"tx-tcp.*-segmentation|tx-generic-segmentation|rx-gro|tx-checksum-.*|rx-checksum"
)
# TUNSETIFF, TUNSETPERSIST and TUNSETIFINDEX of <linux/if_tun.h>, and the flags of a device.
TUN_SET_DEVICE, TUN_SET_PERSISTENT, TUN_SET_INDEX = 0x400454CA, 0x400454CB, 0x400454DA
IFF_TAP, IFF_NAPI, IFF_NO_PI = 0x0002, 0x0010, 0x1000
# System calls that have the same number everywhere, and MOUNT_ATTR_{NOSUID,NODEV,NOEXEC}.
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT, HARMLESS = 430, 431, 432, 2 | 4 | 8
LOWEST_NAMESPACE_FD = 256  # low numbers stay free for what clients pass: see `spawn`
HEADER = struct.Struct("!II")
NLMSG = struct.Struct("=IHHII")
POLL_SECONDS = 0.002
SETTLE_SECONDS = 1.0
SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")
ENTER_CGROUP = 'echo 0 > "$0" && exec "$@"'

_libc = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """A request that cannot be done; `fields` go into the answer as they are."""

    def __init__(self, kind: str, **fields: Any) -> None:
        super().__init__(kind, fields)
        self.fields: Json = {"kind": kind, **fields}


def system_call(what: str, result: int) -> None:
    """Raise OSError for a C function that returned a negative number."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """Mount something."""
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)
    system_call(f"mount {target}", _libc.mount(*arguments))


def unshare(what: str, flag: int) -> None:
    """Leave a namespace for a new one; a refusal names its kind, which decides the remedy."""
    try:
        system_call(f"unshare {what}", _libc.unshare(flag))
    except OSError as error:
        raise RefusedError("namespace", what=what, errno=error.errno) from error


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent dies; 0 takes the wish back."""
    system_call("prctl", _libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0))


def network_identity(path: str = "/proc/thread-self/ns/net") -> tuple[int, int]:
    """Which network namespace a /proc path leads to, as numbers that compare."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def keep_capabilities() -> None:
    """Hand the capabilities of a user namespace on to programs although the uid is not 0."""
    header = struct.pack("=Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    system_call("capget", _libc.capget(header, data))
    low_effective, low_permitted, _, high_effective, high_permitted, _ = struct.unpack("=6I", data)
    wanted = struct.pack(
        "=6I",
        low_effective, low_permitted, low_permitted,
        high_effective, high_permitted, high_permitted,
    )  # fmt: skip
    system_call("capset", _libc.capset(header, wanted))
    permitted = low_permitted | high_permitted << 32
    for number in range(64):
        if permitted >> number & 1:
            _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, ctypes.c_ulong(number), 0, 0)


class Namespaces:
    """The network namespaces of the lab: how to make, enter and leave one, never the machine's."""

    def __init__(self, machine: tuple[int, int]) -> None:
        self.machine = machine
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.nodes: dict[str, int] = {}
        self.former: dict[str, int] = {}
        self.taps: dict[tuple[str, str], int] = {}
        self.guard("the supervisor")

    def guard(self, what: str) -> None:
        """Refuse to go on in the machine's own network namespace."""
        if network_identity() == self.machine:
            raise RefusedError(
                "guard", what=f"{what} would run in the machine's own network namespace"
            )

    def enter(self, fd: int, what: str) -> None:
        """setns(2) to a namespace, then look whether that is where we are."""
        system_call(f"setns {what}", _libc.setns(fd, CLONE_NEWNET))
        self.guard(what)
        here, there = network_identity(), os.fstat(fd)
        if here != (there.st_dev, there.st_ino):
            raise RefusedError("guard", what=f"{what}: setns led to another namespace")

    def leave(self) -> None:
        """Go back to the supervisor's own, empty namespace; nothing can go on if that fails."""
        if _libc.setns(self.home, CLONE_NEWNET) < 0:
            os._exit(70)

    @contextlib.contextmanager
    def inside(self, node: str) -> Any:
        """Be in a node's namespace for the length of a block; "" is our own, which is empty."""
        fd = self.nodes.get(node) if node else self.home
        if fd is None:
            raise RefusedError("unknown", what=f"node {node!r}")
        try:
            self.enter(fd, f"node {node!r}")
            yield
        finally:
            self.leave()

    def create(self, node: str, *, renew: bool = False) -> None:
        """Make the namespace of a node and stay in it; the caller leaves.

        With `renew` the node has one, which is put aside among the `former`.
        """
        if renew != (node in self.nodes) or node in self.former:
            raise RefusedError("unknown" if renew else "exists", what=f"node {node!r}")
        unshare("network", CLONE_NEWNET)
        self.guard(f"node {node!r}")
        low = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, LOWEST_NAMESPACE_FD)
        finally:
            os.close(low)
        if renew:
            self.former[node] = self.nodes[node]
        self.nodes[node] = fd

    @staticmethod
    def kill(fd: int) -> None:
        """SIGKILL every process that is in a namespace, until there is none."""
        wanted = os.fstat(fd)
        while True:
            found = [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
            living = [pid for pid in found if Namespaces.is_in(pid, wanted)]
            if not living:
                return
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    @staticmethod
    def is_in(pid: int, namespace: os.stat_result) -> bool:
        """Tell whether a process that is not dead is in a network namespace."""
        try:
            found = os.stat(f"/proc/{pid}/ns/net")
        except OSError:
            return False  # a zombie has none
        return (found.st_dev, found.st_ino) == (namespace.st_dev, namespace.st_ino)

    def remove(self, node: str, *, former: bool = False) -> None:
        """Forget a node, or only the namespace it had; that goes once its last process has."""
        os.close((self.former if former else self.nodes).pop(node))
        for key in [key for key in self.taps if key[0] == node and not former]:
            os.close(self.taps.pop(key))

    def add_tap(self, node: str, device: str, index: int) -> None:
        """Make a TAP device in a node; its other side stays here until `take_tap`.

        It has a carrier as long as somebody holds that side, and stays without one afterwards, like
        an interface whose cable is cut. On a machine with several processors what is written to it
        is received by a kernel thread of its own: the writer would else do the receiver's work.
        """
        threads = len(os.sched_getaffinity(0)) > 1
        with self.inside(node):
            tap = open_tap(device, index, IFF_NAPI if threads else 0)
            if threads and not thread_napi(device):
                os.close(tap)  # NAPI without a thread of its own is slower than none
                tap = open_tap(device, index, 0)
            fcntl.ioctl(tap, TUN_SET_PERSISTENT, 1)
        self.taps[node, device] = tap

    def take_tap(self, node: str, device: str) -> int:
        """Hand the other side of a TAP device over; who takes it closes it."""
        try:
            return self.taps.pop((node, device))
        except KeyError:
            raise RefusedError("unknown", what=f"TAP device {device!r} of {node!r}") from None


def open_tap(device: str, index: int, flags: int) -> int:
    """Make a TAP device where we are and return the descriptor of its other side."""
    low = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(low, TUN_SET_INDEX, struct.pack("=I", index))
        asked = struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI | flags)
        fcntl.ioctl(low, TUN_SET_DEVICE, asked)
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, LOWEST_NAMESPACE_FD)
    finally:
        os.close(low)


def thread_napi(device: str) -> bool:
    """Give an interface of the namespace we are in a kernel thread that receives; False: refused.

    Documentation/networking/napi.rst, "Threaded NAPI". The switch is a file of sysfs, which shows
    the interfaces of the namespace it was mounted from: so we have one of our own, nowhere mounted.
    """
    fds: list[int] = []
    try:
        fds.append(_libc.syscall(SYS_FSOPEN, b"sysfs", 1))  # FSOPEN_CLOEXEC
        system_call("fsopen sysfs", fds[0])
        create = _libc.syscall(SYS_FSCONFIG, fds[0], 6, None, None, 0)  # FSCONFIG_CMD_CREATE
        system_call("fsconfig sysfs", create)
        fds.append(_libc.syscall(SYS_FSMOUNT, fds[0], 1, HARMLESS))  # FSMOUNT_CLOEXEC
        system_call("fsmount sysfs", fds[1])
        path = f"class/net/{device}/threaded"
        fds.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=fds[1]))
        return os.write(fds[2], b"1") == 1
    except OSError:
        return False
    finally:
        for fd in fds:
            if fd >= 0:
                os.close(fd)


# --- applying a plan ------------------------------------------------------------------------


def netlink_socket() -> socket.socket:
    """An rtnetlink socket of the namespace we are in; it stays there when we leave."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    for option in (10, 11):  # NETLINK_CAP_ACK, NETLINK_EXT_ACK: short answers, with a reason
        made.setsockopt(270, option, 1)
    return made


def _extended_ack(frame: memoryview) -> str:
    """The kernel's sentence in an NLMSG_ERROR, or the empty string."""
    offset = 36  # nlmsghdr, error, the request's header (capped)
    while offset + 4 <= len(frame):
        length, kind = struct.unpack_from("=HH", frame, offset)
        if length < 4:
            break
        if kind & 0x3FFF == 1:  # NLMSGERR_ATTR_MSG
            return bytes(frame[offset + 4 : offset + length]).rstrip(b"\0").decode(errors="replace")
        offset += length + 3 & ~3
    return ""


GONE = (errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)  # what is to be removed is not there


def transact(
    sock: socket.socket,
    requests: bytes | bytearray | memoryview,
    last: int,
    forgiven: Sequence[int] = (),
) -> None:
    """Send a burst whose last message alone is acknowledged, and wait for that acknowledgement.

    The kernel answers every failed message whether asked or not, and goes on with the rest, so the
    first failure is remembered and raised once the last message has been answered. Messages that
    are `forgiven` may find that what they remove has gone already.
    """
    sock.send(requests)
    failure: RefusedError | None = None
    while True:
        answer = memoryview(sock.recv(1 << 16))
        while len(answer) >= 16:
            length, kind, _, sequence, _ = NLMSG.unpack_from(answer)
            if kind == 2:
                (code,) = struct.unpack_from("=i", answer, 16)
                excused = sequence in forgiven and -code in GONE
                if code and failure is None and not excused:
                    failure = RefusedError(
                        "operation",
                        operation=sequence - 1,
                        errno=-code,
                        detail=_extended_ack(answer[:length]),
                    )
                if sequence == last:
                    if failure is not None:
                        raise failure
                    return
            answer = answer[length + 3 & ~3 :]


def write_sysctl(path: str, value: str, operation: int) -> None:
    """Write a sysctl of the namespace we are in and read it back."""
    if not path.startswith("/proc/sys/net/") or ".." in path:
        raise RefusedError(
            "operation", operation=operation, errno=errno.EPERM, detail="outside net."
        )
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
            got = os.pread(fd, 65536, 0).decode()
        finally:
            os.close(fd)
    except OSError as error:
        raise RefusedError(
            "operation", operation=operation, errno=error.errno, detail=""
        ) from error
    if got.split() != value.split():
        raise RefusedError("operation", operation=operation, errno=0, got=got.strip())


def read_sysctl(path: str) -> str | None:
    """Read a sysctl of the namespace we are in; None where there is none, or none to be read."""
    if not path.startswith("/proc/sys/net/") or ".." in path:
        return None
    try:
        with open(path) as file:
            return " ".join(file.read().split())
    except OSError:
        return None


def check_congestion(address: str, wanted: str, operation: int) -> None:
    """See which congestion control a new connection has, in the namespace we are in.

    A socket that is in repair (see tcp(7)) is connected without a packet.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR
            sock.connect((address, 9))
            found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    except OSError as error:
        raise RefusedError(
            "operation", operation=operation, errno=error.errno, detail=""
        ) from error
    got = found.rstrip(b"\0").decode()
    if got != wanted:
        raise RefusedError("operation", operation=operation, errno=0, got=got)


def feed(argv: list[str], text: str) -> str | None:
    """Run a command on a text in the namespace we are in; what it complains of, None if nothing."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    env["XTABLES_LOCKFILE"] = os.devnull  # the namespace is ours alone
    given, told = os.memfd_create("given"), os.memfd_create("told")
    try:
        os.write(given, text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        try:
            pid = spawn(argv, env, [given, told, told], terminal=False)
        except OSError as error:
            return f"{argv[0]}: {os.strerror(error.errno or 0)}"
        watched = os.pidfd_open(pid)
        try:
            if not select.select([watched], [], [], 30)[0]:
                signal.pidfd_send_signal(watched, signal.SIGKILL)
        finally:
            os.close(watched)
        _, status = os.waitpid(pid, 0)
        if status == 0:
            return None
        said = os.pread(told, 4096, 0).decode(errors="replace").strip()
        return f"{argv[0]}: {' '.join(said.split()) or 'no answer'}"
    finally:
        os.close(given)
        os.close(told)


def set_firewall(rules: str, legacy: list[str | None], operation: int) -> None:
    """Replace the firewall of the namespace we are in; `legacy` is for kernels without nftables.

    It holds the same for IPv4 and IPv6, or None where that cannot be said.
    """
    refusal = feed(["nft", "-f", "-"], rules)
    if refusal is None:
        return
    for text, command in zip(legacy, ("iptables", "ip6tables"), strict=True):
        if text is None:
            detail = f"{refusal}; and iptables cannot say it"
        else:
            second = feed([f"{command}-legacy-restore", "-w"], text)
            if second is None:
                continue
            detail = f"{refusal}; {second}"
        raise RefusedError("operation", operation=operation, errno=0, detail=detail)


class Offloads:
    """Turns segmentation, receive and checksum offloads off: one call for each interface.

    Which bit means which feature differs between kernels, so the first call asks for the names.
    """

    def __init__(self) -> None:
        self.request: ctypes.Array[ctypes.c_char] | None = None

    def off(self, sock: socket.socket, device: str, operation: int) -> None:
        """Turn the offloads of an interface off, in the namespace of a socket."""
        name = device.encode()
        try:
            if self.request is None:
                self.request = self.make_request(sock, name)
            ethtool(sock, name, self.request)
        except OSError as error:
            raise RefusedError(
                "operation", operation=operation, errno=error.errno, detail="ethtool"
            ) from error

    @staticmethod
    def make_request(sock: socket.socket, device: bytes) -> ctypes.Array[ctypes.c_char]:
        """Ask an interface for the names of its features and make the request that clears ours."""
        sizes = ctypes.create_string_buffer(
            struct.pack("=IIQI", GET_SIZES, 0, 1 << FEATURE_NAMES, 0)
        )
        ethtool(sock, device, sizes)
        (count,) = struct.unpack_from("=I", sizes, 16)
        head = struct.pack("=III", GET_STRINGS, FEATURE_NAMES, count)
        names = ctypes.create_string_buffer(head, 12 + 32 * count)
        ethtool(sock, device, names)
        words = [0] * ((count + 31) // 32)
        for number in range(count):
            raw = names.raw[12 + 32 * number : 44 + 32 * number]
            if OFFLOADS.fullmatch(raw.rstrip(b"\0").decode()):
                words[number // 32] |= 1 << number % 32
        blocks = b"".join(struct.pack("=II", word, 0) for word in words)  # valid, requested
        return ctypes.create_string_buffer(struct.pack("=II", SET_FEATURES, len(words)) + blocks)


def ethtool(sock: socket.socket, device: bytes, data: ctypes.Array[ctypes.c_char]) -> None:
    """Do an ethtool ioctl, whose answer replaces `data`."""
    fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", device, ctypes.addressof(data)))


def ask_carrier(sock: socket.socket, device: str) -> None:
    """Ask an interface, in the namespace of a socket, whether it has a carrier.

    The end of a link that is set up first gets its carrier with the second one, but drops what it
    is given until a work item of the kernel has been there; a request of ARP lost in it costs a
    second. Since Linux 6.8 the answer comes after that work (linkwatch_sync_dev in
    net/core/link_watch.c).
    """
    with contextlib.suppress(OSError):  # a kind of interface that cannot tell
        ethtool(sock, device.encode(), ctypes.create_string_buffer(struct.pack("=II", GET_LINK, 0)))


def resolves_neighbours(sock: socket.socket, device: str) -> bool:
    """Tell whether an interface is up and finds its neighbours by asking.

    One that is down is in no groups, loopbacks and tunnels of IP need none (IFF_UP, IFF_LOOPBACK
    and IFF_NOARP of linux/if.h).
    """
    try:
        answer = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16s24x", device.encode()))
    except OSError:  # somebody took it away just now
        return False
    (flags,) = struct.unpack_from("h", answer, 16)
    return flags & 0x89 == 0x01


def solicited_groups(sock: socket.socket) -> set[tuple[int, bytes]]:
    """Return index and last three octets of the groups ff02::1:ff00:0/104 that interfaces are in.

    A neighbour is asked for by such a group (RFC 4291 section 2.7.1, RFC 4861 section 4.3), and the
    kernel joins it some time after the address is there (addrconf_dad_work in net/ipv6/addrconf.c).
    """
    # RTM_GETMULTICAST as a dump; answers are an ifaddrmsg, and IFA_MULTICAST among its attributes.
    sock.send(NLMSG.pack(24, 58, 0x301, 0, 0) + struct.pack("=BBBBi", socket.AF_INET6, 0, 0, 0, 0))
    found: set[tuple[int, bytes]] = set()
    while True:
        answer = memoryview(sock.recv(1 << 16))
        while len(answer) >= 16:
            length, kind, *_ = NLMSG.unpack_from(answer)
            if kind in (2, 3):  # an error, the end
                return found
            (index,) = struct.unpack_from("=i", answer, 20)
            offset = 24
            while offset + 4 <= length:
                size, attribute = struct.unpack_from("=HH", answer, offset)
                if attribute == 7 and bytes(answer[offset + 4 : offset + 17]) == SOLICITED_NODE:
                    found.add((index, bytes(answer[offset + 17 : offset + 20])))
                offset += max(4, size + 3 & ~3)
            answer = answer[length + 3 & ~3 :]


class Builder:
    """Applies an encoded program: `netlab.engine.lower` makes it and describes its form."""

    def __init__(
        self,
        namespaces: Namespaces,
        step: Callable[[int], None] | None,
        abandon: Callable[[str], None],
    ) -> None:
        self.namespaces = namespaces
        self.step = step
        self.abandon = abandon
        self.sockets: dict[str, socket.socket] = {}
        self.offloads = Offloads()

    def run(self, program: list[Any], blob: bytearray) -> None:
        """Apply all stages; RefusedError at the first operation that fails."""
        try:
            for kind, body in program:
                if kind == "nodes":
                    self.nodes(body)
                elif kind == "links":
                    self.links(body, blob)
                elif kind == "remove":
                    self.remove(body)
                elif kind == "take":
                    self.take(body, blob)
                elif kind == "end":
                    self.end(body)
                elif kind == "settle":
                    self.settle(body)
                else:
                    self.config(body, blob)
        finally:
            for node in [*self.namespaces.former]:  # where something failed on the way
                self.end_former(node)
            for sock in self.sockets.values():
                sock.close()

    def done(self, operation: int) -> None:
        """Tell the controller, if it wants to know, and wait for its leave to go on."""
        if self.step is not None:
            self.step(operation)

    def socket_of(self, node: str) -> socket.socket:
        """Return the rtnetlink socket of a node, made when first wanted."""
        found = self.sockets.get(node)
        if found is None:
            with self.namespaces.inside(node):
                found = self.sockets[node] = netlink_socket()
        return found

    def nodes(self, body: list[Any]) -> None:
        """Make namespaces, one after the other, and write the sysctls that come before links."""
        namespaces = self.namespaces
        try:
            for name, operation, sysctls, renew in body:
                namespaces.create(name, renew=renew)
                self.sockets[name] = netlink_socket()
                self.done(operation)
                for path, value, number in sysctls:
                    write_sysctl(path, value, number)
                    self.done(number)
        finally:
            namespaces.leave()

    def links(self, body: list[Any], blob: bytearray) -> None:
        """Join nodes: every message names two namespaces, whose descriptors are put in here."""
        with netlink_socket() as sock:
            for start, end, last, patches in body:
                for offset, node in patches:
                    fd = self.namespaces.nodes.get(node)
                    if fd is None:
                        raise RefusedError("unknown", what=f"node {node!r}")
                    struct.pack_into("=i", blob, offset, fd)
                self.burst(sock, blob, (start, end, last))

    def config(self, body: list[Any], blob: bytearray) -> None:
        """Everything that concerns one node: bursts of netlink, sysctls, offloads."""
        for node, items in body:
            for item in items:
                if item[0] == "netlink":
                    self.burst(self.socket_of(node), blob, item[1:])
                elif item[0] == "offloads":
                    self.offloads.off(self.socket_of(node), item[1], item[2])
                    self.done(item[2])
                elif item[0] == "tap":
                    self.tap(node, item[1], item[2], item[3])
                elif item[0] == "sysctl-reset":
                    value = self.fresh_value(item[1])
                    with self.namespaces.inside(node):
                        write_sysctl(item[1], value, item[2])
                    self.done(item[2])
                elif item[0] == "sysctl":
                    with self.namespaces.inside(node):
                        write_sysctl(item[1], item[2], item[3])
                    self.done(item[3])
                elif item[0] == "firewall":
                    with self.namespaces.inside(node):
                        set_firewall(item[1], item[2], item[3])
                    self.done(item[3])
                elif item[0] == "congestion":
                    with self.namespaces.inside(node):
                        check_congestion(item[1], item[2], item[3])
                    self.done(item[3])

    def settle(self, body: list[Any]) -> None:
        """See to it that the first packet of the interfaces that were set up is not lost.

        A kernel that takes longer than SETTLE_SECONDS is left to it: the lab is right, only its
        first packets may come late.
        """
        wanted: dict[str, set[tuple[int, bytes]]] = {}
        for node, interfaces in body:
            sock = self.socket_of(node)
            for device, index, groups in interfaces:
                ask_carrier(sock, device)
                if groups and resolves_neighbours(sock, device):
                    own = wanted.setdefault(node, set())
                    own.update((index, bytes.fromhex(group)) for group in groups)
        deadline = time.monotonic() + SETTLE_SECONDS
        for node, groups in wanted.items():
            while not groups <= solicited_groups(self.sockets[node]):
                if time.monotonic() > deadline:
                    return
                time.sleep(POLL_SECONDS)

    def tap(self, node: str, device: str, index: int, operation: int) -> None:
        """Make a TAP device; the netlink message that follows belongs to the same operation."""
        try:
            self.namespaces.add_tap(node, device, index)
        except OSError as error:
            raise RefusedError(
                "operation", operation=operation, errno=error.errno, detail=""
            ) from error

    def remove(self, body: list[Any]) -> None:
        """Take namespaces away: what runs in one would keep it, so that dies first."""
        for node, operation in body:
            sock = self.sockets.pop(node, None)
            if sock is not None:
                sock.close()
            fd = self.namespaces.nodes.get(node)
            if fd is None:
                raise RefusedError("unknown", what=f"node {node!r}")
            self.namespaces.kill(fd)
            self.abandon(node)
            self.namespaces.remove(node)
            self.done(operation)

    def take(self, body: list[Any], blob: bytearray) -> None:
        """Move interfaces of renewed nodes: the message goes to the namespace they leave."""
        for node, start, end, last, forgiven, patches in body:
            for offset, owner in patches:
                struct.pack_into("=i", blob, offset, self.namespaces.nodes[owner])
            try:
                self.namespaces.enter(self.namespaces.former[node], f"node {node!r}")
                sock = netlink_socket()
            finally:
                self.namespaces.leave()
            with sock:
                transact(sock, memoryview(blob)[start:end], last, forgiven)
            self.done(last - 1)

    def end(self, body: list[Any]) -> None:
        """Do away with former namespaces and all that runs in them."""
        for node, operation in body:
            self.end_former(node)
            self.done(operation)

    def end_former(self, node: str) -> None:
        """Kill what is in a former namespace: nothing of it can reach an interface any more."""
        self.namespaces.kill(self.namespaces.former[node])
        self.abandon(node)
        self.namespaces.remove(node, former=True)

    def fresh_value(self, path: str) -> str:
        """Read what a sysctl is in a namespace that nobody has touched."""
        if not path.startswith("/proc/sys/net/") or ".." in path:
            return ""
        parts = path.split("/")
        of_interface = len(parts) > 7 and parts[5] in ("conf", "neigh")
        if of_interface and parts[6] not in ("all", "default", "lo"):
            parts[6] = "default"  # an interface begins with these values
        try:
            unshare("network", CLONE_NEWNET)
            self.namespaces.guard("a fresh namespace")
            with open("/".join(parts)) as file:
                return file.read().strip()
        except OSError:
            return ""
        finally:
            self.namespaces.leave()

    def burst(self, sock: socket.socket, blob: bytearray, extent: Sequence[Any]) -> None:
        """Send messages in one go; in step mode one at a time, each acknowledged."""
        start, end, last = extent[:3]
        forgiven: Sequence[int] = extent[3] if len(extent) > 3 else ()
        view = memoryview(blob)[start:end]
        if self.step is None:
            transact(sock, view, last, forgiven)
            return
        offset = 0
        while offset < len(view):
            length, _, flags, sequence, _ = NLMSG.unpack_from(view, offset)
            single = bytearray(view[offset : offset + length])
            struct.pack_into("=H", single, 6, flags | 4)  # NLM_F_ACK
            transact(sock, single, sequence, forgiven)
            offset += length + 3 & ~3
            following = NLMSG.unpack_from(view, offset)[3] if offset < len(view) else 0
            if following != sequence:
                self.done(sequence - 1)


# --- processes ------------------------------------------------------------------------------


class Launch:
    """How to start a program, so that it can be done again; the descriptors are our own copies."""

    def __init__(self, message: Json, fds: list[int]) -> None:
        self.node: str = message["node"]
        self.name: str = message.get("name") or ""
        self.argv: list[str] = message["argv"]
        self.env: dict[str, str] = dict(message.get("env") or {})
        self.cwd: str = message.get("cwd") or "/"
        self.umask = int(message.get("umask", 0o022))
        self.terminal = bool(message.get("terminal"))
        self.restart: str = message.get("restart") or "no"
        self.ready: Json = message.get("ready") or {}
        self.cgroup: str = message.get("cgroup") or ""
        self.fds = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in fds]

    def close(self) -> None:
        """Close the copies; nothing can be started any more."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def command(self) -> list[str]:
        """What to execute: a program of a control group enters it before it becomes itself."""
        if not self.cgroup:
            return self.argv
        if not any(os.access(path, os.X_OK) for path in executable(self.argv, self.env)):
            raise FileNotFoundError(errno.ENOENT, "", self.argv[0])
        return ["/bin/sh", "-c", ENTER_CGROUP, f"{self.cgroup}/cgroup.procs", *self.argv]

    def kill_cgroup(self) -> None:
        """SIGKILL everything in its control group, if it has one and the kernel can (5.14)."""
        if self.cgroup:
            with contextlib.suppress(OSError), open(f"{self.cgroup}/cgroup.kill", "w") as file:
                file.write("1")

    def out_of_memory(self) -> bool:
        """Tell whether the kernel has killed in its control group for want of memory."""
        if not self.cgroup:
            return False
        try:
            with open(f"{self.cgroup}/memory.events") as events:
                return any(line.startswith("oom_kill ") and line[9:] != "0\n" for line in events)
        except OSError:
            return False

    def wanted_again(self, status: int) -> bool:
        """Tell whether a program that ended so is to be started anew."""
        return self.restart == "always" or (self.restart == "on-failure" and status != 0)


class Process:
    """A child of the supervisor that somebody asked for.

    It dies with its `owner`, if it has one; what happens to it is told to its `listener`.
    """

    def __init__(self, pid: int, outer: int, launch: Launch) -> None:
        self.pid, self.outer, self.launch = pid, outer, launch
        self.node, self.name, self.argv = launch.node, launch.name, launch.argv
        self.started_ns = time.time_ns()
        self.ended_ns = 0
        self.status: int | None = None
        self.owner: Connection | None = None
        self.listener: Connection | None = None
        self.tag: Any = None
        self.look: Callable[[], None] | None = None
        self.restarts = 0
        self.ending = False

    def tell(self, event: str, **fields: Any) -> None:
        """Send an event about it to whoever listens."""
        if self.listener is not None and self.listener.open:
            self.listener.send({"event": event, "tag": self.tag, **fields})

    def describe(self) -> Json:
        """What others may know of it."""
        return {
            "node": self.node,
            "name": self.name,
            "argv": self.argv,
            "pid": self.outer,
            "status": self.status,
            "started_ns": self.started_ns,
            "ended_ns": self.ended_ns,
            "restarts": self.restarts,
            "out_of_memory": self.launch.out_of_memory(),
        }


def executable(argv: list[str], env: dict[str, str]) -> list[str]:
    """The files that execvp(3) would try for a command, in order."""
    if "/" in argv[0]:
        return [argv[0]]
    path = env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return [os.path.join(folder or ".", argv[0]) for folder in path.split(":")]


def spawn(argv: list[str], env: dict[str, str], fds: list[int], *, terminal: bool) -> int:
    """Start a program where we are, in a session of its own; vfork inside, so it costs little.

    With `terminal` the first descriptor becomes the controlling terminal: a session leader that
    has none gets the one it opens (the child opens its copy anew, through /proc).
    """
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(fds)]
    if terminal:
        actions.insert(0, (os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{fds[0]}", os.O_RDWR, 0))
        actions[1:2] = []
    wanted = [number for number in signal.valid_signals() if number not in (9, 19, 32, 33)]
    refusal: OSError | None = None
    for path in executable(argv, env):
        try:
            return os.posix_spawn(
                path,
                argv,
                env,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=wanted,
            )
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise
            # A folder of PATH that we may not look into has not refused the program.
            if refusal is None or (error.errno == errno.EACCES and os.path.exists(path)):
                refusal = error
    assert refusal is not None
    if "/" not in argv[0] and not os.path.exists(str(refusal.filename)):
        refusal.errno = errno.ENOENT
    raise refusal


def listening(port: int, protocol: str, directory: str) -> set[str]:
    """Inodes of the sockets that wait on a port, read from a /proc/.../net directory."""
    found: set[str] = set()
    wanted = "0A" if protocol == "tcp" else "07"
    for name in (protocol, f"{protocol}6"):
        try:
            with open(f"{directory}/{name}") as table:
                rows = table.readlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == wanted and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


IN_DELETE, IN_MOVED_FROM, IN_NONBLOCK = 0x200, 0x40, os.O_NONBLOCK
INOTIFY_EVENT = struct.Struct("=iIII")


def watch_deletions(folder: str) -> int:
    """A descriptor that tells when a name goes from a directory."""
    watched = _libc.inotify_init1(os.O_CLOEXEC | IN_NONBLOCK)
    system_call("inotify_init1", watched)
    events = ctypes.c_uint32(IN_DELETE | IN_MOVED_FROM)
    system_call(f"watch {folder}", _libc.inotify_add_watch(watched, folder.encode(), events))
    return watched


def deleted_names(events: bytes) -> set[str]:
    """The names that events of `watch_deletions` speak of."""
    found: set[str] = set()
    offset = 0
    while offset < len(events):
        _, _, _, length = INOTIFY_EVENT.unpack_from(events, offset)
        offset += INOTIFY_EVENT.size
        found.add(events[offset : offset + length].rstrip(b"\0").decode(errors="replace"))
        offset += length
    return found


# --- the event loop -------------------------------------------------------------------------


class Connection:
    """A client: the controller that started us, or one that came through the control socket."""

    def __init__(self, sock: socket.socket, *, first: bool) -> None:
        self.sock, self.first = sock, first
        self.received = bytearray()
        self.fds: list[int] = []
        self.open = True

    def send(self, message: Json) -> None:
        """Send a frame; a client that does not read is dropped."""
        text = json.dumps(message).encode()
        frame = HEADER.pack(len(text), 0) + text
        try:
            self.sock.settimeout(5)
            self.sock.sendall(frame)
        except OSError:
            self.open = False
        finally:
            with contextlib.suppress(OSError):
                self.sock.settimeout(0)

    def receive(self) -> bool:
        """Take what has come; False at end of file."""
        try:
            data, ancillary, _, _ = self.sock.recvmsg(1 << 20, socket.CMSG_SPACE(64 * 4))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                for fd in fds:
                    os.set_inheritable(fd, False)
                self.fds.extend(fds)
        self.received += data
        return bool(data)

    def frame(self) -> tuple[Json, bytearray] | None:
        """Return the next whole frame."""
        if len(self.received) < HEADER.size:
            return None
        text, raw = HEADER.unpack_from(self.received)
        end = HEADER.size + text + raw
        if len(self.received) < end:
            return None
        message = json.loads(self.received[HEADER.size : HEADER.size + text])
        blob = self.received[HEADER.size + text : end]
        del self.received[:end]
        return message, blob

    def take(self, count: int) -> list[int]:
        """Return the descriptors that came with a frame; they are now the caller's."""
        taken, self.fds = self.fds[:count], self.fds[count:]
        if len(taken) < count:
            raise RefusedError("protocol", what="descriptors missing")
        return taken

    def close(self) -> None:
        """Close the socket and every descriptor nobody took."""
        self.open = False
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.sock.close()


class Request:
    """What a client asks for, and who it is; descriptors are closed when it has been answered."""

    def __init__(self, connection: Connection, message: Json, blob: bytearray) -> None:
        self.connection, self.message, self.blob = connection, message, blob
        self.fds: list[int] = []


class Supervisor:
    """Process 1 of a lab: serves requests, reaps children, keeps the namespaces."""

    def __init__(self, options: Json, control: socket.socket, anchor: int) -> None:
        self.options = options
        self.anchor = anchor
        self.namespaces = Namespaces(tuple(options["machine"]))
        self.processes: dict[int, Process] = {}
        self.resting: set[Process] = set()
        self.ended: list[Process] = []
        self.connections: dict[int, Connection] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.timer_number = 0
        self.committed = False
        self.stopping = False
        self.describe: Json = {}
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.poll = select.epoll()
        self.listener: socket.socket | None = None
        self.hosts_mounted = False
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self.on_child)
        signal.signal(signal.SIGTERM, self.on_terminate)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.limits[1], self.limits[1]))
        self.poll.register(self.wake_read, select.EPOLLIN)
        self.watch_fd = -1
        # A user has 128 such descriptors by default; a lab more than that does without.
        with contextlib.suppress(OSError):
            self.watch_fd = watch_deletions(options["state"])
            self.poll.register(self.watch_fd, select.EPOLLIN)
        self.adopt(control, first=True)

    # -- plumbing

    def on_child(self, _number: int, _frame: object) -> None:
        """Nothing: the byte that Python writes to the wake-up descriptor is what counts."""

    def on_terminate(self, _number: int, _frame: object) -> None:
        """End the lab in good order."""
        self.stop()

    def adopt(self, sock: socket.socket, *, first: bool) -> None:
        """Serve one more connection."""
        sock.setblocking(False)
        self.connections[sock.fileno()] = Connection(sock, first=first)
        self.poll.register(sock.fileno(), select.EPOLLIN)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while."""
        self.timer_number += 1
        entry = (time.monotonic() + seconds, self.timer_number, action)
        heapq.heappush(self.timers, entry)

    def serve(self) -> None:
        """Run until stopped."""
        while not self.stopping:
            timeout = -1.0
            if self.timers:
                timeout = max(0.0, self.timers[0][0] - time.monotonic())
            for fd, _ in self.poll.poll(timeout):
                if fd == self.wake_read:
                    self.reap()
                elif fd == self.watch_fd:
                    if "lock" in deleted_names(os.read(fd, 4096)):
                        self.stop()
                elif self.listener is not None and fd == self.listener.fileno():
                    with contextlib.suppress(OSError):
                        self.adopt(self.listener.accept()[0], first=False)
                elif fd in self.connections:
                    self.hear(self.connections[fd])
            while self.timers and self.timers[0][0] <= time.monotonic():
                action = heapq.heappop(self.timers)[2]
                try:
                    action()
                except Exception:  # as for requests: what one client wanted must not end the lab
                    import traceback

                    traceback.print_exc()
            for connection in [c for c in self.connections.values() if not c.open]:
                self.drop(connection)

    def hear(self, connection: Connection) -> None:
        """Read from a client and answer every whole request."""
        alive = connection.receive()
        while connection.open and (frame := connection.frame()) is not None:
            message, blob = frame
            request = Request(connection, message, blob)
            answer: Json
            try:
                request.fds = connection.take(int(message.get("fds", 0)))
                handler = getattr(self, f"do_{message['do']}", None)
                if handler is None:
                    raise RefusedError("protocol", what=f"no request {message['do']!r}")
                answer = handler(request) or {}
            except RefusedError as refusal:
                answer = {"error": refusal.fields}
            except OSError as error:
                what = str(error.filename or f"the lab's part of '{message['do']}'")
                answer = {"error": {"kind": "system", "errno": error.errno, "what": what}}
            except Exception:  # whatever one client made us do, the lab of the others goes on
                import traceback

                answer = {"error": {"kind": "bug", "what": traceback.format_exc()}}
            finally:
                for fd in request.fds:
                    os.close(fd)
            if connection.open:
                connection.send({"id": message.get("id"), **answer})
        if not alive:
            connection.open = False

    def drop(self, connection: Connection) -> None:
        """A client is gone: so are the commands that ran for it, and maybe the lab."""
        fd = connection.sock.fileno()
        del self.connections[fd]
        self.poll.unregister(fd)
        connection.close()
        for process in self.processes.values():
            if process.listener is connection:
                process.listener = None
            if process.owner is connection:
                process.owner = None
                self.end(process, grace=0.5, number=signal.SIGHUP)
        if connection.first and (not self.committed or self.options["foreground"]):
            os._exit(0)

    def reap(self) -> None:
        """Collect every dead child, ours or an orphan that became ours."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self.processes.pop(pid, None)
            if process is not None:
                self.bury(process, os.waitstatus_to_exitcode(status))

    def bury(self, process: Process, status: int) -> None:
        """Tell of the end of a program, and start it anew if that is wanted."""
        if process.look is not None:
            process.look()  # it may have become ready and ended since we looked last
        process.ended_ns, process.status = time.time_ns(), status
        launch = process.launch
        process.tell("exit", **process.describe())
        if process.owner is None and process.name:
            self.ended.append(process)
            del self.ended[:-100]
        if process.ending or self.stopping or not launch.wanted_again(status):
            launch.close()
            return
        # Twice as long after each time, so that a program that cannot work does no harm.
        pause = min(0.1 * 2**process.restarts, 10.0)
        self.resting.add(process)
        self.later(pause, lambda: self.start_again(process))

    def start_again(self, old: Process) -> None:
        """Start a program whose last run has ended, unless it has been ended meanwhile.

        What is left of that run ends now.
        """
        if old not in self.resting:
            return
        self.resting.remove(old)
        old.launch.kill_cgroup()
        try:
            process = self.launch(old.launch)
        except (RefusedError, OSError) as error:
            print(f"cannot start {old.name!r} again: {error}", file=sys.stderr, flush=True)
            old.launch.close()
            return
        process.owner, process.listener, process.tag = old.owner, old.listener, old.tag
        # A program that has run for long enough is forgiven its past.
        lasted = old.ended_ns - old.started_ns > 60e9
        process.restarts = 1 if lasted else old.restarts + 1

    def stop(self) -> None:
        """End the lab; processes that are not somebody's command get a second to end well."""
        self.stopping = True
        background = [p for p in self.processes.values() if p.owner is None]
        for process in background:
            self.kill_group(process, signal.SIGTERM)
        deadline = time.monotonic() + 1.0
        while background and time.monotonic() < deadline:
            self.reap()
            background = [p for p in background if p.pid in self.processes]
            if background:
                select.select([self.wake_read], [], [], 0.01)

    # -- requests

    def do_build(self, request: Request) -> Json | None:
        """Apply an encoded program."""
        connection, message, blob = request.connection, request.message, request.blob

        def step(operation: int) -> None:
            connection.send({"event": "step", "operation": operation})
            connection.sock.setblocking(True)
            go = connection.sock.recv(1)
            connection.sock.setblocking(False)
            if not go and connection.first:
                os._exit(0)

        began = time.monotonic_ns()
        stepping = step if message.get("step") else None
        Builder(self.namespaces, stepping, self.abandon).run(message["program"], blob)
        self.describe.update(message.get("describe") or {})
        if self.committed:
            self.write_state("up")
        return {"ns": time.monotonic_ns() - began}

    def do_hosts(self, request: Request) -> None:
        """Show the processes of this lab the names of its nodes, and no name server."""
        message = request.message
        texts = {"hosts": message["text"], "resolv.conf": "# a lab has no name server\n"}
        for name, text in texts.items():
            path = f"{self.options['state']}/{name}"
            with open(path, "w") as file:
                file.write(text)
            if not self.hosts_mounted and os.path.exists(f"/etc/{name}"):
                mount(path, f"/etc/{name}", "", MS_BIND)
        self.hosts_mounted = True

    def do_commit(self, request: Request) -> Json:
        """The lab is whole: say so in its state file, serve others, and stay if we are to stay."""
        self.listen()
        self.describe.update(request.message.get("describe") or {})
        self.write_state("up")
        self.committed = True
        if not self.options["foreground"]:
            die_with_parent(0)
            os.write(self.anchor, b"x")
        return {"inodes": self.inodes()}

    def do_try(self, request: Request) -> Json:
        """Send netlink messages in the supervisor's own namespace, and say how each one fared.

        That namespace has nothing but a loopback that nobody uses: the place to try things in.
        """
        message, blob = request.message, request.blob
        results: list[Json] = []
        with netlink_socket() as sock:
            for start, end, last in message["messages"]:
                try:
                    transact(sock, blob[start:end], last)
                    results.append({"errno": 0})
                except RefusedError as refusal:
                    results.append(refusal.fields)
        return {"results": results}

    def do_state(self, _request: Request) -> Json:
        """What runs just now."""
        running = [p.describe() for p in self.processes.values()]
        return {"processes": running, "ended": [p.describe() for p in self.ended]}

    def do_sysctls(self, request: Request) -> Json:
        """Read sysctls of a node, null for what is not there; then also what there is."""
        values: dict[str, str | None] = {}
        known: list[str] = []
        with self.namespaces.inside(request.message["node"]):
            for path in request.message["paths"]:
                values[path] = read_sysctl(path)
            if None in values.values():
                for folder, _, names in os.walk("/proc/sys/net"):
                    known += [f"{folder}/{name}" for name in names]
        return {"values": values, "known": known}

    def do_namespaces(self, _request: Request) -> Json:
        """Where a privileged client finds the namespaces: our descriptors, seen through /proc."""
        pid = self.options["pid"]
        return {"pid": pid, "fds": self.namespaces.nodes, "inodes": self.inodes()}

    def do_clock(self, _request: Request) -> Json:
        """The machine's clock, as captures stamp packets with it."""
        return {"now_ns": time.time_ns()}

    def do_sleep(self, request: Request) -> None:
        """Tell the client when a time has passed on this machine's clock."""
        connection, message = request.connection, request.message
        tag = message["tag"]

        def tell() -> None:
            if connection.open:
                connection.send({"event": "slept", "tag": tag, "now_ns": time.time_ns()})

        self.later(float(message["seconds"]), tell)

    def do_stop(self, _request: Request) -> Json:
        """End the lab."""
        self.stop()
        return {"stopping": True}

    def do_spawn(self, request: Request) -> Json:
        """Start a program in a node with the client's three descriptors, and TAP devices behind."""
        connection, message = request.connection, request.message
        launch = Launch(message, request.fds)
        env = launch.env
        env |= {"NETLAB_NODE": launch.node, "NETLAB_LAB": self.options["lab"]}
        env["NETLAB_FOLDER"] = self.options["state"]
        # What a program that makes traffic compares its own namespace with before it starts.
        env["NETLAB_MACHINE_NETNS"] = str(self.namespaces.machine[1])
        # iptables would wait for, and as an ordinary user fail at, a lock file of the machine.
        env["XTABLES_LOCKFILE"] = f"{self.options['state']}/xtables.lock"
        ready = launch.ready
        try:
            for node, device in message.get("taps") or ():
                launch.fds.append(self.namespaces.take_tap(node, device))
            condition = self.condition(launch) if ready else None
            process = self.launch(launch)
        except BaseException:
            launch.close()
            raise
        process.tag = message.get("tag")
        process.listener = connection
        process.owner = None if message.get("keep") else connection
        if condition is not None:
            self.watch(process, condition)
        return {"pid": process.outer, "started_ns": process.started_ns}

    def do_signal(self, request: Request) -> Json:
        """Send a signal to the process group of a program; whose end came before is told first."""
        connection, message = request.connection, request.message
        self.reap()
        process = self.find(connection, message)
        return {"sent": self.kill_group(process, int(message["signal"]))}

    def do_end(self, request: Request) -> Json:
        """Stop a program: TERM now, KILL to all of its session after a grace.

        `tell` is the tag under which the client wants to hear of the end.
        """
        connection, message = request.connection, request.message
        for process in [*self.resting]:
            if (process.node, process.name) == (message.get("node"), message.get("name")):
                self.rest_in_peace(process)
                return {"ended": True}
        process = self.find(connection, message)
        if "tell" in message:
            process.listener, process.tag = connection, message["tell"]
        self.end(process, float(message.get("grace", 2.0)), signal.SIGTERM)
        return {}

    # -- processes

    def launch(self, launch: Launch) -> Process:
        """Start a program in its node, with the limits and the umask its caller had."""
        mask = os.umask(launch.umask)
        try:
            with self.namespaces.inside(launch.node):
                os.chdir(launch.cwd)
                # posix_spawn refuses descriptors above the soft limit.
                if all(fd < self.limits[0] for fd in launch.fds):
                    resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
                try:
                    pid = spawn(launch.command(), launch.env, launch.fds, terminal=launch.terminal)
                except OSError as error:
                    raise RefusedError("exec", errno=error.errno, what=launch.argv[0]) from error
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.limits[1], self.limits[1]))
            os.umask(mask)
            os.chdir("/")
        process = self.processes[pid] = Process(pid, self.outer_pid(pid), launch)
        return process

    def find(self, connection: Connection, message: Json) -> Process:
        """The process a request speaks of: by the tag its owner gave it, or by node and name."""
        for process in self.processes.values():
            if "tag" in message:
                if process.listener is connection and process.tag == message["tag"]:
                    return process
            elif process.node == message.get("node") and process.name == message.get("name"):
                return process
        raise RefusedError("gone", what="the process has ended")

    def outer_pid(self, pid: int) -> int:
        """The number a process of ours has on the machine: its pidfd's, seen in the old /proc."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return 0
        try:
            fd = os.open(f"self/fdinfo/{pidfd}", os.O_RDONLY, dir_fd=self.options["proc"])
            try:
                found = re.search(rb"^Pid:\s*(\d+)", os.read(fd, 4096), re.MULTILINE)
            finally:
                os.close(fd)
        except OSError:
            return 0
        finally:
            os.close(pidfd)
        return int(found[1]) if found else 0

    def kill_group(self, process: Process, number: int) -> bool:
        """Signal the group a program leads; False when it is gone."""
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def end(self, process: Process, grace: float, number: int) -> None:
        """Ask a program to end, and make sure of it after `grace` seconds."""
        process.ending = True
        self.kill_group(process, number)
        self.kill_group(process, signal.SIGCONT)

        def certain() -> None:
            if process.pid in self.processes:
                process.launch.kill_cgroup()
                self.kill_session(process.pid)

        self.later(grace, certain)

    def kill_session(self, leader: int) -> None:
        """SIGKILL every process of a session, whatever groups it has made."""
        for name in os.listdir("/proc"):
            if not name.isdigit() or name == "1":
                continue
            try:
                if os.getsid(int(name)) == leader:
                    os.kill(int(name), signal.SIGKILL)
            except ProcessLookupError:
                continue

    def abandon(self, node: str) -> None:
        """Forget the programs of a node, whose namespace has been cleared, once all are reaped."""
        for process in [p for p in self.resting if p.node == node]:
            self.rest_in_peace(process)
        for process in [p for p in self.processes.values() if p.node == node]:
            process.ending = True
            self.kill_session(process.pid)  # what had gone to another namespace
        while any(process.node == node for process in self.processes.values()):
            self.reap()
            select.select([self.wake_read], [], [], 0.001)

    def rest_in_peace(self, process: Process) -> None:
        """Do not start a program again that waits for its time to come."""
        self.resting.discard(process)
        process.launch.close()

    def watch(self, process: Process, condition: Callable[[], bool]) -> None:
        """Look again and again whether a program is ready, and tell its listener once it is."""

        def look() -> None:
            if process.look is None:
                return
            if condition():
                process.look = None
                process.tell("ready", now_ns=time.time_ns())
            elif process.status is None:
                self.later(POLL_SECONDS, look)

        process.look = look
        look()

    def condition(self, launch: Launch) -> Callable[[], bool]:
        """Return what tells that a program is ready; called before it is started."""
        ready = launch.ready
        if "port" in ready:
            port, protocol = int(ready["port"]), ready.get("protocol", "tcp")
            # The same table as /proc/PID/net of a process in the node, read from inside.
            before = self.listening_in(launch.node, port, protocol)
            return lambda: bool(self.listening_in(launch.node, port, protocol) - before)
        if "line" in ready:
            try:
                pattern = re.compile(ready["line"].encode(), re.MULTILINE)
            except re.error as error:
                raise RefusedError(
                    "protocol", what=f"pattern {ready['line']!r}: {error}"
                ) from error
            number = 2 if ready.get("stream") == "stderr" else 1
            start = os.fstat(launch.fds[number]).st_size

            def printed() -> bool:
                if not launch.fds:
                    return False
                return pattern.search(os.pread(launch.fds[number], 1 << 20, start)) is not None

            return printed
        if "file" in ready:
            return lambda: os.path.exists(ready["file"])
        return self.command_condition(launch)

    def listening_in(self, node: str, port: int, protocol: str) -> set[str]:
        """Inodes of the sockets in a node that wait on a port."""
        with self.namespaces.inside(node):
            return listening(port, protocol, "/proc/thread-self/net")

    def command_condition(self, launch: Launch) -> Callable[[], bool]:
        """Return a condition that holds once a command in the node ends with status 0."""
        current: list[Process] = []
        message = {"node": launch.node, "argv": launch.ready["command"], "cwd": launch.cwd}
        pause, due = 0.01, 0.0

        def succeeded() -> bool:
            nonlocal pause, due
            if current and current[0].status is None:
                return False
            if current and current[0].status == 0:
                return True
            if current and not due:  # one that needs long is asked ever more seldom
                pause, due = min(1.5 * pause, 0.25), time.monotonic() + pause
            if time.monotonic() < due:
                return False
            due = 0.0
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            trial = Launch({**message, "env": launch.env}, [null] * 3)
            os.close(null)
            try:
                current[:] = [self.launch(trial)]
            except (RefusedError, OSError):
                trial.close()  # it may be there the next time
            return False

        return succeeded

    # -- state

    def inodes(self) -> dict[str, int]:
        """The inode number of each node's namespace."""
        return {name: os.fstat(fd).st_ino for name, fd in self.namespaces.nodes.items()}

    def write_state(self, phase: str) -> None:
        """Write state.json by rename: readers see the old one or the new one, never half."""
        options = self.options
        state = {
            "schema": 1,
            "lab": options["lab"],
            "phase": phase,
            "pid": options["pid"],
            "start": options["start"],
            "boot": options["boot"],
            "foreground": options["foreground"],
            "rootless": options["userns"],
            "created_ns": options["created_ns"],
            "machine": self.namespaces.machine[1],
            "inodes": self.inodes(),
            **self.describe,
        }
        path = f"{options['state']}/state.json"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(f"{path}.new", flags, 0o600), "w") as file:
                json.dump(state, file)
            os.replace(f"{path}.new", path)
        except OSError as error:  # a full disk, most of all
            raise RefusedError("system", errno=error.errno, what=path) from error

    def listen(self) -> None:
        """Open the control socket, which only the owner of its directory can reach."""
        if self.listener is not None:
            return
        folder = os.open(self.options["state"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # A path through /proc is short, however long the state directory's is (limit 108).
            path = f"/proc/self/fd/{folder}/control"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self.listener.bind(path)
            self.listener.listen(64)
            self.listener.setblocking(False)
        finally:
            os.close(folder)
        self.poll.register(self.listener.fileno(), select.EPOLLIN)


# --- start-up -------------------------------------------------------------------------------


def id_map(name: str) -> str:
    """The ids that exist here, each mapped to itself."""
    with open(f"/proc/self/{name}") as file:
        ranges = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in ranges)


def write_maps(process: str, uid_map: str, gid_map: str, groups: str) -> None:
    """Write the maps of a user namespace; `process` is a folder of /proc."""
    for name, text in (("setgroups", groups), ("uid_map", uid_map), ("gid_map", gid_map)):
        with open(f"{process}/{name}", "w") as file:
            file.write(text)


def new_user_namespace() -> None:
    """Make a user namespace in which the caller stays who it is: files and tools keep their owner.

    Only root may map others than itself, and only from outside: a helper does it.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        unshare("user", CLONE_NEWUSER)
        write_maps("/proc/self", f"{uid} {uid} 1", f"{gid} {gid} 1", "deny")
        keep_capabilities()
        return
    read, write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    maps = id_map("uid_map"), id_map("gid_map")
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(write)  # so that our end of file comes if the parent fails
            if os.read(read, 1):
                write_maps(f"/proc/{parent}", *maps, "allow")
                status = 0
        finally:
            os._exit(status)
    try:
        unshare("user", CLONE_NEWUSER)
        os.write(write, b"x")
    finally:
        os.close(read)
        os.close(write)
        _, failed = os.waitpid(helper, 0)
    if failed:
        raise RefusedError("namespace", what="user map", errno=errno.EPERM)


def new_world(options: Json) -> None:
    """Leave the machine's namespaces, all but the PID namespace, which begins with a child."""
    if options["userns"]:
        try:
            new_user_namespace()
        except OSError as error:
            raise RefusedError("namespace", what="user map", errno=error.errno) from error
        die_with_parent()  # a change of credentials took the first wish away
    unshare("mount", CLONE_NEWNS)
    mount("", "/", "", MS_REC | MS_PRIVATE)
    unshare("PID", CLONE_NEWPID)
    unshare("network", CLONE_NEWNET)


def start_of(stat: bytes) -> int:
    """Field 22 of /proc/PID/stat: the start time in clock ticks since boot."""
    return int(stat.rpartition(b")")[2].split()[19])


def be_supervisor(options: Json, control: socket.socket, anchor: int) -> None:
    """What process 1 of the lab does."""
    die_with_parent()
    if select.select([], [], [anchor], 0)[2]:
        os._exit(0)  # the anchor died before we asked to die with it
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with open("/proc/self/stat", "rb") as file:
        options["start"] = start_of(file.read())
    options["pid"] = int(os.readlink("/proc/self"))
    options["proc"] = proc
    try:
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError as error:
        raise RefusedError("namespace", what="/proc", errno=error.errno) from error
    os.chdir("/")
    supervisor = Supervisor(options, control, anchor)
    supervisor.write_state("building")
    first = next(iter(supervisor.connections.values()))
    first.send({"event": "hello", "pid": options["pid"], "start": options["start"]})
    supervisor.serve()


def main(arguments: list[str]) -> int:
    """Make the namespaces and become the supervisor; the one argument is JSON."""
    options: Json = json.loads(arguments[0])
    control = socket.socket(fileno=options["control"])
    os.set_inheritable(control.fileno(), False)
    os.set_inheritable(options["lock"], False)
    connection = Connection(control, first=True)
    try:
        die_with_parent()
        options["machine"] = network_identity()
        options["created_ns"] = time.time_ns()
        with open("/proc/sys/kernel/random/boot_id") as file:
            options["boot"] = file.read().strip()
        new_world(options)
        anchor_read, anchor_write = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
    except RefusedError as refusal:
        connection.send({"event": "failed", "error": refusal.fields})
        return 1
    except OSError as error:
        what = str(error.filename or "the lab could not be started")
        fields = {"kind": "system", "errno": error.errno, "what": what}
        connection.send({"event": "failed", "error": fields})
        return 1
    if child == 0:
        os.close(anchor_read)
        try:
            be_supervisor(options, control, anchor_write)
        except RefusedError as refusal:
            connection.send({"event": "failed", "error": refusal.fields})
            os._exit(1)
        except BaseException:
            import traceback

            connection.send(
                {"event": "failed", "error": {"kind": "bug", "what": traceback.format_exc()}}
            )
            os._exit(70)
        os._exit(0)
    control.close()
    os.close(options["lock"])
    os.close(anchor_write)
    if os.read(anchor_read, 1):
        return 0
    _, status = os.waitpid(child, 0)
    return 0 if status == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
