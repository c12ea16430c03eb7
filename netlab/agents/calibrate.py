"""Measure links before anything else uses them: delay, loss and rate, of many links at once.

Probes are Ethernet frames of type 0x88b5 (IEEE 802, for local experiments), sent out of the
interface at one end of a link and expected at the other. No IP is involved: no neighbour is looked
up, no connection tracked, no firewall asked. A wire counts such frames apart from IP packets, so
its drops stay those that its seed gives, and exact rules do not count them.

Standard input holds JSON:

    {"ends": [{"namespace": "net:[NUMBER]", "device": NAME, "mac": MAC}, ...],
     "ways": [{"from": END, "to": END, "count": 10, "gap_s": 0.002, "octets": 60,
               "travel_s": LONGEST, "burst": {"count": 40, "octets": 1514} or null}, ...],
     "patience_s": 0.1,
     "afterwards": [{"namespace": "net:[NUMBER]", "requests": [HEX, ...]}, ...]}

From each way goes a train of `count` small frames, `gap_s` apart, then a burst as fast as it can. A
frame that has not come after `travel_s` and `patience_s` is lost. `afterwards` are rtnetlink
requests, each asking for an acknowledgement, sent when all is measured (a netem with a seed begins
its numbers anew).

Standard output gets one object of JSON. For each way: `sent`, `one_way_s` (of each frame in turn,
null where it was lost), `damaged` (frames that came with a wrong checksum), `why` (a reason where
nothing could be sent) and of the burst `arrived_s` (after the first of its frames, null where lost)
and `offered_s` (how long the sending took). Both stamps of a frame are the kernel's, where a
capture takes its own.

A single file that needs nothing but Python's library; it also runs under `python3 -I -S`. Sources:
packet(7), socket(7), linux/filter.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import json
import os
import select
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
SCHEMA = 1
TYPE = 0x88B5
ETH_P_ALL = 0x0003
OUTGOING = 4  # PACKET_OUTGOING of packet(7)
SO_ATTACH_FILTER, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 26, 33, 35
CLONE_NEWNET = 0x40000000
HEADER = struct.Struct("!6s6sH")
BODY = struct.Struct("!4sIHBxI")
CHECK = struct.Struct("!I")
MAGIC = b"NLCP"
BUFFER = 8 << 20
"""Octets of probes that may wait at one end: more than come, where the kernel allows so many."""
TRAIN, BURST = 0, 1
SMALLEST = HEADER.size + BODY.size + CHECK.size
PROGRAM = b"".join(
    struct.pack("=HBBI", *step)
    for step in ((0x28, 0, 0, 12), (0x15, 0, 1, TYPE), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0))
)
"""Classic BPF: load the type of the frame; keep it if it is ours."""


class Pair(NamedTuple):
    """The sockets at one end of a link."""

    listener: socket.socket
    sender: socket.socket


@dataclass(slots=True)
class Way:
    """One direction of a link, and what was seen of it: times by kind and number of frame."""

    told: dict[str, Any]
    out: socket.socket
    head: bytes
    left: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    came: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    sent: int = 0
    damaged: int = 0
    why: str = ""
    last: float = 0.0

    @property
    def wanted(self) -> int:
        """How many frames are to come."""
        burst = self.told["burst"]
        return self.told["count"] + (burst["count"] if burst else 0)

    def over(self, now: float, patience: float) -> bool:
        """Tell whether there is nothing left to wait for."""
        if self.why or len(self.came) + self.damaged >= self.wanted:
            return True
        return bool(self.last) and now > self.last + self.told["travel_s"] + patience

    def result(self) -> dict[str, Any]:
        """Return what was measured."""
        numbers = range(self.told["count"])
        found: dict[str, Any] = {
            "sent": self.sent,
            "one_way_s": [self._took((TRAIN, n)) for n in numbers],
            "damaged": self.damaged,
        }
        if self.why:
            found["why"] = self.why
        if self.told["burst"]:
            keys = [(BURST, n) for n in range(self.told["burst"]["count"])]
            zero = min((self.came[key] for key in keys if key in self.came), default=0)
            gone = [self.left[key] for key in keys if key in self.left]
            found["arrived_s"] = [
                round((self.came[key] - zero) / 1e9, 7) if key in self.came else None
                for key in keys
            ]
            found["offered_s"] = round((max(gone) - min(gone)) / 1e9, 7) if gone else None
        return found

    def _took(self, key: tuple[int, int]) -> float | None:
        if key not in self.came or key not in self.left:
            return None
        return round((self.came[key] - self.left[key]) / 1e9, 7)


def frame(head: bytes, run: int, way: int, kind: int, number: int, octets: int) -> bytes:
    """Return a probe; its checksum covers all that says which it is."""
    body = BODY.pack(MAGIC, run, way, kind, number)
    return (head + body + CHECK.pack(zlib.crc32(body))).ljust(octets, b"\0")


def read_frame(data: bytes, run: int) -> tuple[int, int, int] | None:
    """Return (way, kind, number) of a probe; ValueError if it is damaged, None if not of ours."""
    body = data[HEADER.size : HEADER.size + BODY.size]
    if len(data) < SMALLEST:
        return None
    (check,) = CHECK.unpack_from(data, HEADER.size + BODY.size)
    magic, of, way, kind, number = BODY.unpack(body)
    if zlib.crc32(body) != check:
        raise ValueError("a damaged probe")
    return (way, kind, number) if (magic, of) == (MAGIC, run) else None


def find_namespace(identity: str) -> str:
    """Return a path to the namespace that /proc calls `net:[NUMBER]`, open in process 1."""
    for entry in sorted(Path("/proc/1/fd").iterdir()):
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == identity:
                return str(entry)
    raise FileNotFoundError(2, "no such namespace", identity)


def inside(namespaces: list[str], make: Callable[[int], T]) -> list[T]:
    """Call `make(position)` in each namespace; a thread enters them and ends."""
    made: list[T] = []
    errors: list[OSError] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            for position, identity in enumerate(namespaces):
                handle = os.open(find_namespace(identity), os.O_RDONLY | os.O_CLOEXEC)
                if libc.setns(handle, CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), identity)
                wanted, here = os.fstat(handle), Path("/proc/thread-self/ns/net").stat()
                os.close(handle)
                if (wanted.st_dev, wanted.st_ino) != (here.st_dev, here.st_ino):
                    raise OSError(f"could not enter the namespace {identity}")
                made.append(make(position))
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return made


def sender(device: str) -> socket.socket:
    """Return a socket that sends out of an interface, and hears nothing.

    The kernel does not show a socket the frames it sent itself, so it takes two to stamp them.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setblocking(False)
    sock.bind((device, 0))
    return sock


def listener(device: str) -> socket.socket:
    """Return a socket that hears, stamped by the kernel, the probes an interface sends and gets."""
    # Protocol 0 hears nothing until it is bound, so that no other packet is there first.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setblocking(False)
    steps = ctypes.create_string_buffer(PROGRAM)
    program = struct.pack("HL", len(PROGRAM) // 8, ctypes.addressof(steps))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # up to net.core.rmem_max
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.bind((device, ETH_P_ALL))
    return sock


def room(sock: socket.socket, octets: int) -> int:
    """Return how many frames may go out before those that wait at an end have to be heard.

    Its own and the other side's wait there, and each takes its octets and the kernel's own (the
    rest of a page, `struct sk_buff`), less than as much again and 1 KiB.
    """
    return max(1, sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // (4 * (octets + 1024)))


def hear(sock: socket.socket, end: int, ways: list[Way], run: int) -> None:
    """Take every probe that waits at one end, and note when it left or came."""
    while True:
        try:
            data, control, _, address = sock.recvmsg(128, 64)
        except OSError:  # nothing more, or the interface went down
            return
        stamps = [value for _, kind, value in control if kind == SO_TIMESTAMPNS]
        seconds, nanoseconds = struct.unpack("qq", stamps[0])
        at_ns = seconds * 1_000_000_000 + nanoseconds
        outgoing = address[2] == OUTGOING
        try:
            found = read_frame(data, run)
        except ValueError:
            mine = [way for way in ways if way.told["to"] == end]
            if not outgoing and mine:
                mine[0].damaged += 1
            continue
        if found is None or found[0] >= len(ways):
            continue
        way = ways[found[0]]
        if way.told["from" if outgoing else "to"] == end:
            (way.left if outgoing else way.came).setdefault(found[1:], at_ns)


def send(way: Way, number: int, run: int, kind: int, at: int, octets: int) -> None:
    """Send one probe; what the kernel says against it is noted."""
    try:
        way.out.send(frame(way.head, run, number, kind, at, octets))
    except BlockingIOError:
        return  # its queue is full: the frame counts as lost
    except OSError as error:
        way.why = error.strerror or str(error)
    way.sent += 1


def measure(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Send all trains and bursts, and return what came of them, way by way."""
    ends: list[dict[str, Any]] = told["ends"]

    def open_pair(position: int) -> Pair:
        device = str(ends[position]["device"])
        return Pair(listener(device), sender(device))

    made = inside([end["namespace"] for end in ends], open_pair)
    socks = [pair.listener for pair in made]
    macs = [bytes.fromhex(end["mac"].replace(":", "")) for end in ends]
    ways: list[Way] = [
        Way(
            way,
            made[int(way["from"])].sender,
            HEADER.pack(macs[way["to"]], macs[way["from"]], TYPE),
        )
        for way in told["ways"]
    ]
    run = int.from_bytes(os.urandom(4), "big")
    start = time.monotonic()
    due: list[tuple[float, int, int, int]] = []
    for number, way in enumerate(ways):
        gap, count = way.told["gap_s"], way.told["count"]
        due += [(start + gap * at, number, TRAIN, at) for at in range(count)]
        if way.told["burst"]:
            due.append((start + gap * count, number, BURST, 0))
    heapq.heapify(due)
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    while True:
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, number, kind, at = heapq.heappop(due)
            way = ways[number]
            if kind == BURST:
                both: list[int] = [way.told["from"], way.told["to"]]
                octets = way.told["burst"]["octets"]
                often = min(room(socks[end], octets) for end in both)
                for each in range(way.told["burst"]["count"]):
                    send(way, number, run, kind, each, octets)
                    if each % often == often - 1:
                        for end in both:
                            hear(socks[end], end, ways, run)
            else:
                send(way, number, run, kind, at, way.told["octets"])
            if not any(other == number for _, other, *_ in due):
                way.last = time.monotonic()
        for end, sock in enumerate(socks):
            hear(sock, end, ways, run)
        now = time.monotonic()
        if not due and all(way.over(now, told["patience_s"]) for way in ways):
            return [way.result() for way in ways]
        pause = min(due[0][0] - now, 0.01) if due else 0.01
        poll.poll(max(0.0, pause) * 1000)


def follow(afterwards: list[dict[str, Any]]) -> None:
    """Send what is to be sent when all is measured; OSError if the kernel refuses."""

    def ask(position: int) -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
            for request in afterwards[position]["requests"]:
                route.send(bytes.fromhex(request))
                number = -struct.unpack_from("=i", route.recv(1 << 16), 16)[0]
                if number:
                    raise OSError(number, os.strerror(number))

    inside([each["namespace"] for each in afterwards], ask)


def check_namespaces(told: dict[str, Any], machine: str | None) -> None:
    """Raise PermissionError unless everything lies in other namespaces than the machine's own."""
    if machine is None:
        raise PermissionError(1, "it cannot be told which network namespace is the machine's own")
    for place in (*told["ends"], *told["afterwards"]):
        if place["namespace"] == f"net:[{machine}]":
            raise PermissionError(1, "the machine's own network namespace is not for probes")


def main() -> int:
    """Measure what standard input says; 1 when the kernel said no."""
    try:
        told = json.load(sys.stdin)
        check_namespaces(told, os.environ.get("NETLAB_MACHINE_NETNS"))
        found = measure(told)
        follow(told["afterwards"])
    except OSError as error:
        words = f"calibrate: {error.strerror or error} {error.filename or ''}"
        print(words.rstrip(), file=sys.stderr)
        return 1
    print(json.dumps({"schema": SCHEMA, "ways": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
