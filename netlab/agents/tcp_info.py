"""Watch the TCP sockets of one or several network namespaces through NETLINK_SOCK_DIAG.

    python -m netlab.agents.tcp_info --every 1ms --for 10 --out samples.jsonl

One process, one netlink socket per namespace, made there and kept, so a sample costs two dumps
and no fork. Output is one JSON object per line: a header, samples, an end. A sample holds the
sockets of one namespace, stamped before and after the dump (`at_ns`, `took_ns`) on
CLOCK_REALTIME, as captures are. Fields of tcp_info keep the kernel's names without `tcpi_`; a
kernel with a shorter struct leaves out what it does not know, a longer one is counted in
`tail`. With --busy it dumps as often as it can and writes when a socket appeared, vanished or
changed its state (and at least every period): that catches states of a millisecond; --family makes
it quicker still. Sockets that listen are left out unless --listeners asks for them.

The end line counts this program's own lateness: `late` samples began more than one period after
they were due, `missed` periods had none at all.

A single file that needs nothing but Python's library; it also runs under `python3 -I -S`.
Sources: linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import ipaddress
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

SCHEMA = 1

STATES = {
    1: "ESTAB",
    2: "SYN-SENT",
    3: "SYN-RECV",
    4: "FIN-WAIT-1",
    5: "FIN-WAIT-2",
    6: "TIME-WAIT",
    7: "UNCONN",
    8: "CLOSE-WAIT",
    9: "LAST-ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "SYN-RECV",  # a request socket: TCP_NEW_SYN_RECV
}
TIMERS = {1: "on", 2: "keepalive", 3: "timewait", 4: "persist"}
CA_STATES = {0: "open", 1: "disorder", 2: "cwr", 3: "recovery", 4: "loss"}

# struct tcp_info, linux/tcp.h, in order; the eight octets before are decoded by hand.
TCP_INFO = (
    *((name, "I") for name in (
        "rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets",
        "last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv", "pmtu",
        "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss", "reordering",
        "rcv_rtt", "rcv_space", "total_retrans",
    )),
    *((name, "Q") for name in ("pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received")),
    *((name, "I") for name in (
        "segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out",
    )),
    *((name, "Q") for name in ("delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited")),
    *((name, "I") for name in ("delivered", "delivered_ce")),
    *((name, "Q") for name in ("bytes_sent", "bytes_retrans")),
    *((name, "I") for name in (
        "dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd", "rcv_wnd", "rehash",
    )),
    *((name, "H") for name in ("total_rto", "total_rto_recoveries")),
    ("total_rto_time", "I"),
    *((name, "I") for name in (
        "received_ce", "delivered_e1_bytes", "delivered_e0_bytes", "delivered_ce_bytes",
        "received_e1_bytes", "received_e0_bytes", "received_ce_bytes",
    )),
    *((name, "H") for name in ("accecn_fail_mode", "accecn_opt_seen")),
)  # fmt: skip
SKMEM = (
    "rmem_alloc", "rcvbuf", "wmem_alloc", "sndbuf", "fwd_alloc", "wmem_queued", "optmem",
    "backlog", "drops",
)  # fmt: skip

SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
INFO, CONG, SKMEMINFO = 2, 4, 7
EXTENSIONS = (1 << (INFO - 1)) | (1 << (CONG - 1)) | (1 << (SKMEMINFO - 1))
CLONE_NEWNET = 0x40000000
EVERY_STATE = 0xFFFFFFFF
CONNECTIONS = EVERY_STATE & ~(1 << 7 | 1 << 10)  # neither unconnected nor listening
BUSY_KEEPS = 20_000  # samples that a busy sampler holds in memory, at most
FAMILIES = {
    "ipv4": (socket.AF_INET,),
    "ipv6": (socket.AF_INET6,),
    "both": (socket.AF_INET, socket.AF_INET6),
}


def _layout() -> tuple[tuple[str, struct.Struct, int], ...]:
    """Place each field of tcp_info after the one before it, aligned as C does."""
    offset = 8
    fields: list[tuple[str, struct.Struct, int]] = []
    for name, code in TCP_INFO:
        layout = struct.Struct("=" + code)
        offset = -(-offset // layout.size) * layout.size
        fields.append((name, layout, offset))
        offset += layout.size
    return tuple(fields)


LAYOUT = _layout()
KNOWN = LAYOUT[-1][2] + LAYOUT[-1][1].size


def decode_info(data: bytes) -> dict[str, Any]:
    """Return a tcp_info of any length by the kernel's names; what was cut off is not there."""
    info: dict[str, Any] = {}
    for index, name in enumerate(
        ("state", "ca_state", "retransmits", "probes", "backoff", "options")
    ):
        if index < len(data):
            info[name] = data[index]
    if "ca_state" in info:
        info["ca_state"] = CA_STATES.get(info["ca_state"], info["ca_state"])
    if "state" in info:
        info["state"] = STATES.get(info["state"], info["state"])
    if len(data) > 6:
        info["snd_wscale"], info["rcv_wscale"] = data[6] & 15, data[6] >> 4
    if len(data) > 7:
        info["delivery_rate_app_limited"] = data[7] & 1
        info["fastopen_client_fail"] = data[7] >> 1 & 3
    for name, layout, offset in LAYOUT:
        if offset + layout.size > len(data):
            break
        info[name] = layout.unpack_from(data, offset)[0]
    if len(data) > KNOWN:
        info["tail"] = len(data) - KNOWN
    return info


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the (type, payload) pairs of a run of netlink attributes; stop at a damaged one."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += -(-length // 4) * 4


def decode_socket(data: bytes) -> dict[str, Any]:
    """Return one socket: an inet_diag_msg of 72 octets and its attributes."""
    family, state, timer, retrans = struct.unpack_from("=BBBB", data)
    lport, rport = struct.unpack_from(">HH", data, 4)
    size = 16 if family == socket.AF_INET6 else 4
    cookie = struct.unpack_from("=II", data, 44)
    expires, rqueue, wqueue, uid, inode = struct.unpack_from("=IIIII", data, 52)
    found: dict[str, Any] = {
        "state": STATES.get(state, str(state)),
        "local": str(ipaddress.ip_address(data[8 : 8 + size])),
        "lport": lport,
        "remote": str(ipaddress.ip_address(data[24 : 24 + size])),
        "rport": rport,
        "rqueue": rqueue,
        "wqueue": wqueue,
        "uid": uid,
        "inode": inode,
        "cookie": cookie[0] | cookie[1] << 32,
    }
    if timer:
        found |= {"timer": TIMERS.get(timer, str(timer)), "expires_ms": expires}
        found["retrans"] = retrans
    for kind, payload in attributes(data[72:]):
        if kind == INFO:
            found["info"] = decode_info(payload)
        elif kind == CONG:
            found["congestion"] = payload.rstrip(b"\0").decode("ascii", "replace")
        elif kind == SKMEMINFO:
            values = struct.unpack(f"={len(payload) // 4}I", payload[: len(payload) // 4 * 4])
            found["skmem"] = dict(zip(SKMEM, values, strict=False))
    return found


def request(family: int, sequence: int, states: int) -> bytes:
    """Return the message that asks for the TCP sockets of one address family in some states."""
    body = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, EXTENSIONS, 0, states)
    head = struct.pack(
        "=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, sequence, 0
    )
    return head + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Return the (type, sequence, payload) of the netlink messages in a buffer."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
        if length < 16 or offset + length > len(data):
            raise OSError(f"damaged netlink message of {length} octets")
        yield kind, sequence, data[offset + 16 : offset + length]
        offset += -(-length // 4) * 4


class Namespace:
    """The sockets of one network namespace, through a netlink socket that was made inside it."""

    def __init__(self, name: str, path: str | None, families: Sequence[int], states: int) -> None:
        self.name = name
        self._states = states
        self._families = families
        self._sequence = 0
        self._socket = _socket_inside(path)

    def dump(self) -> list[bytes]:
        """Return the raw description of every TCP socket, IPv4 before IPv6."""
        found: list[bytes] = []
        for family in self._families:
            self._sequence += 1
            self._socket.send(request(family, self._sequence, self._states))
            found.extend(self._answer())
        return found

    def _answer(self) -> Iterator[bytes]:
        while True:
            for kind, sequence, payload in messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number in (2, 93, 97):  # no such address family on this kernel
                        return
                    raise OSError(number, os.strerror(number))
                if kind == SOCK_DIAG_BY_FAMILY and len(payload) >= 72:
                    yield payload


def find_namespace(identity: str) -> str:
    """Return a path to the namespace that /proc calls `net:[NUMBER]`.

    It is looked for among the open files of process 1: that is the supervisor of a lab, and every
    namespace of the lab is open there.
    """
    for entry in sorted(Path("/proc/1/fd").iterdir()):
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == identity:
                return str(entry)
    raise FileNotFoundError(2, "no such namespace", identity)


def _socket_inside(path: str | None) -> socket.socket:
    """Make the netlink socket, in the namespace at `path` if one is given.

    A short thread enters the namespace, so the program itself stays where it is.
    """

    def make() -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 4)
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        return made

    if path is None:
        return make()
    result: list[socket.socket | OSError] = []

    def enter() -> None:
        try:
            real = find_namespace(path) if path.startswith("net:[") else path
            handle = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(handle, CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), path)
            wanted, here = os.fstat(handle), Path("/proc/thread-self/ns/net").stat()
            if (wanted.st_dev, wanted.st_ino) != (here.st_dev, here.st_ino):
                raise OSError(f"could not enter the namespace {path}")
            result.append(make())
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


class Stop:
    """Becomes true at SIGTERM or SIGINT, and wakes a wait that is under way."""

    def __init__(self) -> None:
        self.asked = False
        self._reader, self._writer = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True
        os.write(self._writer, b"x")

    def wait(self, seconds: float) -> None:
        """Wait, at most until a signal comes."""
        if seconds > 0:
            select.select([self._reader], [], [], seconds)


def identity(raw: bytes) -> tuple[bytes, int]:
    """Return what must change for a busy sampler to write: which socket, in which state."""
    return raw[4:52], raw[1]


class Writer:
    """Writes whole lines, to one descriptor per node or to one for all, up to a limit."""

    def __init__(self, handles: dict[str, int], limit: int) -> None:
        self._handles = handles
        self.left = limit

    def line(self, record: dict[str, Any], node: str | None = None) -> None:
        """Write one record, about a node or (None) into every file."""
        data = (json.dumps(record, separators=(",", ":")) + "\n").encode()
        chosen = set(self._handles.values()) if node is None else {self._handles[node]}
        for handle in chosen:
            self.left -= len(data)
            rest = data
            while rest:
                rest = rest[os.write(handle, rest) :]


@dataclass(slots=True)
class Seen:
    """What a namespace looked like when it was last written down."""

    states: set[tuple[bytes, int]]
    when: float


def sample(args: argparse.Namespace, spaces: list[Namespace], out: Writer, stop: Stop) -> None:
    """Sample until told to stop, until the time is over, or until the limit is reached.

    A busy sampler keeps what it saw and writes at the end: to format a line takes longer than
    the states that it is there to catch. Told to stop it looks once more: what somebody else has
    seen before he told us is in the samples too.
    """
    every: float = args.every
    began = time.monotonic()
    due = began
    counts = dict.fromkeys(("samples", "late", "missed"), 0)
    worst = 0.0
    seen: dict[str, Seen] = {}
    kept: list[tuple[str, int, int, list[bytes]]] = []
    reason = "asked"
    last_look = False
    while not last_look:
        last_look = stop.asked
        started = time.monotonic()
        if args.duration and started - began >= args.duration:
            reason = "time is over"
            break
        if out.left <= 0:
            reason = "size limit"
            break
        if not args.busy:
            worst = max(worst, started - due)
            counts["late"] += started - due > every
        for space in spaces:
            at = time.time_ns()
            raws = space.dump()
            took = time.time_ns() - at
            if args.port:
                raws = [raw for raw in raws if set(struct.unpack_from(">HH", raw, 4)) & args.port]
            counts["samples"] += 1
            states = {identity(raw) for raw in raws}
            last = seen.get(space.name)
            now = time.monotonic()
            fresh = last is None or states != last.states
            if args.busy and not fresh and last is not None and now - last.when < every:
                continue
            seen[space.name] = Seen(states, now)
            if raws or fresh:
                kept.append((space.name, at, took, raws))
        if args.busy and len(kept) < BUSY_KEEPS:
            continue
        flush(kept, out)
        if args.busy:
            continue
        due += every
        behind = time.monotonic() - due
        if behind > every:
            skipped = int(behind / every)
            counts["missed"] += skipped
            due += skipped * every
        stop.wait(due - time.monotonic())
    flush(kept, out)
    out.line({"end_ns": time.time_ns(), "reason": reason, "worst_late_s": worst, **counts})


def flush(kept: list[tuple[str, int, int, list[bytes]]], out: Writer) -> None:
    """Write what was kept, and forget it."""
    for name, at, took, raws in kept:
        sockets = [decode_socket(raw) for raw in raws]
        out.line({"node": name, "at_ns": at, "took_ns": took, "sockets": sockets}, name)
    kept.clear()


def seconds(text: str) -> float:
    """Read "1ms", "0.5s" or plain seconds."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    number = text.rstrip("ums")
    try:
        value = float(number) * units.get(text[len(number) :] or "s", 0)
    except ValueError:
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write for example 1ms")
    return value


def period(text: str) -> float:
    """Read the sampling period, 1 ms to 1 s."""
    value = seconds(text)
    if not 0.001 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is outside 1ms…1s")
    return value


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tcp_info", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--every", type=period, default=0.001, help="period, 1ms to 1s")
    parser.add_argument("--busy", action="store_true", help="dump as often as possible")
    parser.add_argument("--for", dest="duration", type=seconds, help="stop after this time")
    parser.add_argument(
        "--out", help="file to append to (default: standard output); {node} makes one per node"
    )
    parser.add_argument("--listeners", action="store_true", help="also sockets that listen")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="both")
    parser.add_argument("--limit", type=int, default=256 << 20, help="most octets to write")
    parser.add_argument("--node", default="here", help="what to call this namespace")
    parser.add_argument("--port", type=int, action="append", help="only these ports, either side")
    parser.add_argument(
        "--netns",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a namespace to watch instead of this one (repeatable): a path, or net:[NUMBER]",
    )
    args = parser.parse_args(argv)
    if args.busy and not args.duration:
        parser.error("--busy needs --for: it uses a whole processor")
    args.port = set(args.port or ())
    return args


def descriptors(out: str | None, names: Sequence[str]) -> dict[str, int]:
    """Open the output files; return the descriptor of each node."""
    if not out:
        return dict.fromkeys(names, 1)
    opened: dict[str, int] = {}
    for name in names:
        path = out.replace("{node}", name)
        if path not in opened:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            opened[path] = os.open(path, flags, 0o644)
    return {name: opened[out.replace("{node}", name)] for name in names}


def main(argv: Sequence[str]) -> int:
    """Sample; 0 after an ordered end, 1 when the kernel or the disk said no."""
    args = parse(argv)
    stop = Stop()
    try:
        families = FAMILIES[args.family]
        states = EVERY_STATE if args.listeners else CONNECTIONS
        spaces = [
            Namespace(name, path, families, states)
            for name, _, path in (item.partition("=") for item in args.netns)
        ]
        if not spaces:
            spaces = [Namespace(args.node, None, families, states)]
        for space in spaces:
            space.dump()
        names = [space.name for space in spaces]
        out = Writer(descriptors(args.out, names), args.limit)
        header = {"schema": SCHEMA, "begin_ns": time.time_ns(), "every_s": args.every}
        out.line({**header, "busy": args.busy, "nodes": names})
        if args.out:
            print("sampling", flush=True)
        sample(args, spaces, out, stop)
    except BrokenPipeError:
        return 0
    except OSError as error:
        print(
            f"tcp_info: {error.strerror or error} {error.filename or ''}".rstrip(), file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
