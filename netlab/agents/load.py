"""Watch how busy the machine is while something is measured on it, and how late processes are.

    python -m netlab.agents.load --out load.jsonl

Every 10 ms it wants to be woken, and notes how late it was: it is an ordinary process, so what it
waits for a processor, the programs of a lab wait too. A moment that passed while it slept counts
as late as well, or else the longest waits would count least. Twice a second it writes a row with
the lateness (a histogram), what /proc/stat says of each processor, the share of the time in which
somebody waited for one (/proc/pressure/cpu, where the kernel has it), and packets that the kernel
dropped between two interfaces because its backlog was full (/proc/net/softnet_stat).

Standard input may hold JSON: `{"nodes": {NAME: "net:[NUMBER]"}, "programs": {...}}`, both network
namespaces of a lab by node. The counters of the queue disciplines in `nodes` are in the last line,
written at SIGTERM or SIGINT. With `programs` every thread of this PID namespace is looked at each
10 ms as well, for a busy program may wait long where an idle one is served at once: a row then has
the long waits for a processor that ended in it, of which program of which node.

One object of JSON a line: a header, rows, an end. Times are CLOCK_REALTIME nanoseconds (`_ns`) or
seconds (`_s`). Bucket i of a histogram counts lateness in [2^i, 2^(i+1)) microseconds, bucket 0
also what was earlier.

A single file that needs nothing but Python's library; it also runs under `python3 -I -S`. Sources:
proc(5), Documentation/accounting/psi.rst, Documentation/scheduler/sched-stats.rst,
kernel/sched/stats.h, net/core/net-procfs.c, linux/rtnetlink.h, linux/gen_stats.h.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

SCHEMA = 1
EVERY = 0.01
ROW = 0.5
LONG = 0.0082
CLONE_NEWNET = 0x40000000
RTM_NEWQDISC, RTM_GETQDISC = 36, 38
DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
TCA_KIND, TCA_STATS2 = 1, 7
BASIC, QUEUE = 1, 3  # TCA_STATS_BASIC, TCA_STATS_QUEUE
IDLE = (3, 4)  # idle and iowait among the columns of /proc/stat
STEAL = 7


def read(path: str) -> str:
    """Return a file of /proc; empty where the kernel has none."""
    try:
        with open(path, errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


def processors(text: str) -> list[tuple[int, int, int]]:
    """Return (all, idle, stolen) ticks of each processor in /proc/stat."""
    found: list[tuple[int, int, int]] = []
    for line in text.splitlines():
        if not line.startswith("cpu"):
            break
        if line[3] == " ":
            continue
        ticks = [int(word) for word in line.split()[1:9]]  # guest time is in user time already
        ticks += [0] * (8 - len(ticks))
        found.append((sum(ticks), sum(ticks[i] for i in IDLE), ticks[STEAL]))
    return found


def waited(text: str) -> int | None:
    """Return for how many microseconds somebody has waited for a processor; None if unknown."""
    for line in text.splitlines():
        if line.startswith("some"):
            return int(line.rpartition("total=")[2])
    return None


def dropped(text: str) -> int:
    """Return how many packets /proc/net/softnet_stat says were dropped, over all processors."""
    return sum(int(line.split()[1], 16) for line in text.splitlines())


class Glance:
    """The machine at one instant."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.processors = processors(read("/proc/stat"))
        self.waited = waited(read("/proc/pressure/cpu"))
        self.dropped = dropped(read("/proc/net/softnet_stat"))

    def since(self, before: Glance) -> dict[str, Any]:
        """Return what happened between two glances."""
        span = self.at - before.at
        busy: list[float] = []
        stolen: list[float] = []
        for (ticks, idle, steal), (ticks0, idle0, steal0) in zip(
            self.processors, before.processors, strict=False
        ):
            passed = max(1, ticks - ticks0)
            busy.append(round(1 - (idle - idle0) / passed, 3))
            stolen.append(round((steal - steal0) / passed, 3))
        row: dict[str, Any] = {"span_s": round(span, 3), "busy": busy, "steal": stolen}
        if self.waited is not None and before.waited is not None and span > 0:
            row["waiting"] = round(min(1.0, (self.waited - before.waited) / 1e6 / span), 3)
        row["dropped"] = self.dropped - before.dropped
        return row


class Lateness:
    """How late this process was woken at moments 10 ms apart, as a histogram."""

    def __init__(self) -> None:
        self.due = time.monotonic() + EVERY
        self.counts: Counter[int] = Counter()
        self.worst = 0.0

    def note(self) -> float:
        """Count the moments that have come; return the seconds until the next."""
        now = time.monotonic()
        while self.due <= now:
            late = now - self.due
            self.worst = max(self.worst, late)
            self.counts[max(0, int(late * 1e6).bit_length() - 1)] += 1
            self.due += EVERY
        return self.due - now

    def take(self) -> dict[str, Any]:
        """Return what was counted since the last time."""
        counts, worst = dict(sorted(self.counts.items())), self.worst
        self.counts.clear()
        self.worst = 0.0
        return {"late_log2_us": counts, "late_max_s": round(worst, 6)}


class Thread:
    """A thread of the lab's: whose it is, and what its /proc/PID/task/TID/schedstat said last."""

    def __init__(self, program: Program, schedstat: int) -> None:
        self.program = program
        self.schedstat = schedstat
        self.waited_ns, self.turns = 0, 0
        self.pending_ns = 0

    def wait(self, span: float) -> float:
        """Return how long it waited when that ended since the last call, `span` seconds ago; or 0.

        The kernel adds a wait up when it ends, and counts turns on a processor. So of what was
        added to turns that are more than one, all but `span` was one wait for certain, and no
        less than the mean of them. Only where that is long, everything is returned.
        """
        words = os.pread(self.schedstat, 64, 0).split()
        waited_ns, turns = int(words[1]), int(words[2])
        grown, added = waited_ns - self.waited_ns, turns - self.turns
        self.waited_ns, self.turns = waited_ns, turns
        if not grown and not added:
            return 0.0
        grown += self.pending_ns
        # Moved to the queue of another processor it goes on waiting, and had no turn.
        self.pending_ns = 0 if added else grown
        seconds = grown / 1e9
        return seconds if added and max(seconds / added, seconds - span) >= LONG else 0.0


class Program:
    """A process of the lab: its node and its name, as far as they are known."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.namespace = self.name = ""

    def identify(self) -> None:
        """Learn what it is now; a process that has ended keeps what was known."""
        if self.pid != 1:  # the supervisor visits all nodes and belongs to none
            with contextlib.suppress(OSError):
                self.namespace = os.readlink(f"/proc/{self.pid}/ns/net")  # noqa: PTH115
        name = program(read(f"/proc/{self.pid}/cmdline"))
        self.name = name or self.name


def program(command: str) -> str:
    """Return the name of a program from its /proc/PID/cmdline; of a Python file, the file's."""
    words = command.split("\0")
    name = os.path.basename(words[0])  # noqa: PTH119
    if name.startswith("python"):
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        if script.endswith(".py"):
            return os.path.basename(script).removesuffix(".py")  # noqa: PTH119
    return name


class Programs:
    """Every thread of the PID namespace but our own, and the long waits of each."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self.nodes = {identity: name for name, identity in nodes.items()}
        self.newest = b""
        self.threads: dict[int, Thread] = {}
        self.fresh: list[Program] = []
        self.waits: dict[Program, list[float]] = {}
        self.loadavg = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        self.at = time.monotonic()
        self.look()
        self.waits.clear()  # of the time before

    def look(self) -> None:
        """Note the long waits that have ended since the last look, and who is there now."""
        now = time.monotonic()
        span, self.at = now - self.at, now
        for program in self.fresh:  # it may have been about to become what it is
            program.identify()
        self.fresh.clear()
        newest = os.pread(self.loadavg, 128, 0).rpartition(b" ")[2]  # the youngest process's id
        if newest != self.newest:
            self.newest = newest
            self.find()
        for number, thread in list(self.threads.items()):
            try:
                wait = thread.wait(span)
            except OSError:  # it has ended
                os.close(self.threads.pop(number).schedstat)
                continue
            if wait:
                thread.program.identify()
                self.waits.setdefault(thread.program, []).append(round(wait, 4))

    def find(self) -> None:
        """Find the threads that are new."""
        known = {thread.program.pid: thread.program for thread in self.threads.values()}
        for name in os.listdir("/proc"):  # noqa: PTH208
            pid = int(name) if name.isdigit() else 0
            if pid in (0, os.getpid()):
                continue
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                    if int(task) in self.threads:
                        continue
                    if pid not in known:
                        known[pid] = Program(pid)
                        known[pid].identify()
                        self.fresh.append(known[pid])
                    path = f"/proc/{pid}/task/{task}/schedstat"
                    schedstat = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    self.threads[int(task)] = Thread(known[pid], schedstat)

    def take(self) -> dict[str, Any]:
        """Return what was noted since the last time."""
        rows = [
            {
                "node": self.nodes.get(who.namespace, ""),
                "program": who.name,
                "pid": who.pid,
                "waited_s": waits,
            }
            for who, waits in self.waits.items()
        ]
        self.waits.clear()
        return {"waits": rows} if rows else {}


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the (type, payload) pairs of a run of netlink attributes."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += -(-length // 4) * 4


def discipline(data: bytes) -> dict[str, Any]:
    """Return the counters of one queue discipline: a tcmsg of 20 octets and its attributes."""
    index, handle, parent = struct.unpack_from("=iII", data, 4)
    found: dict[str, Any] = {"index": index, "handle": handle >> 16, "parent": parent}
    for kind, payload in attributes(data[20:]):
        if kind == TCA_KIND:
            found["kind"] = payload.rstrip(b"\0").decode()
        elif kind == TCA_STATS2:
            for part, value in attributes(payload):
                if part == BASIC:
                    found["bytes"], found["packets"] = struct.unpack_from("=QI", value)
                elif part == QUEUE:
                    names = ("waiting_packets", "waiting_bytes", "dropped")
                    found |= zip(names, struct.unpack_from("=3I", value), strict=True)
    return found


def disciplines(route: socket.socket) -> list[dict[str, Any]]:
    """Return every queue discipline of the namespace that a netlink socket was made in."""
    route.send(struct.pack("=IHHII20x", 36, RTM_GETQDISC, DUMP, 1, 0))
    found: list[dict[str, Any]] = []
    while True:
        data, at = route.recv(1 << 17), 0
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind != RTM_NEWQDISC:
                return found
            found.append(discipline(data[at + 16 : at + length]))
            at += -(-length // 4) * 4


def find_namespace(identity: str) -> str:
    """Return a path to the namespace that /proc calls `net:[NUMBER]`, open in process 1."""
    for entry in sorted(Path("/proc/1/fd").iterdir()):
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == identity:
                return str(entry)
    raise FileNotFoundError(2, "no such namespace", identity)


def routes(nodes: dict[str, str]) -> dict[str, socket.socket]:
    """Open a netlink socket in each namespace; a thread enters them and ends."""
    found: dict[str, socket.socket] = {}
    errors: list[OSError] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            for name, identity in nodes.items():
                handle = os.open(find_namespace(identity), os.O_RDONLY | os.O_CLOEXEC)
                if libc.setns(handle, CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), identity)
                wanted, here = os.fstat(handle), Path("/proc/thread-self/ns/net").stat()
                os.close(handle)
                if (wanted.st_dev, wanted.st_ino) != (here.st_dev, here.st_ino):
                    raise OSError(f"could not enter the namespace {identity}")
                found[name] = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found


def watch(out: int, nodes: dict[str, socket.socket], programs: Programs | None, stop: int) -> None:
    """Watch until something can be read from `stop`."""

    def line(record: dict[str, Any]) -> None:
        rest = (json.dumps(record, separators=(",", ":")) + "\n").encode()
        while rest:
            rest = rest[os.write(out, rest) :]

    before = Glance()
    line({
        "schema": SCHEMA, "begin_ns": time.time_ns(), "every_s": EVERY,
        "processors": len(before.processors), "tick_s": 1 / os.sysconf("SC_CLK_TCK"),
        **({} if programs is None else {"long_s": LONG}),
    })  # fmt: skip
    lateness = Lateness()
    if out != 1:
        print("watching", flush=True)
    asked = False
    while not asked:
        asked = bool(select.select([stop], [], [], lateness.note())[0])
        lateness.note()
        if programs is not None:
            programs.look()
        if asked or time.monotonic() - before.at >= ROW:
            now = Glance()
            waits = {} if programs is None else programs.take()
            line({"at_ns": time.time_ns(), **now.since(before), **lateness.take(), **waits})
            before = now
    line({
        "end_ns": time.time_ns(),
        "disciplines": {name: disciplines(route) for name, route in nodes.items()},
    })  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Watch; 0 after an ordered end, 1 when the kernel or the disk said no."""
    parser = argparse.ArgumentParser(prog="load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", help="file to write (default: standard output)")
    args = parser.parse_args(argv)
    stop, bell = os.pipe()

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        os.write(bell, b"x")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ring)
    try:
        told = json.loads((not sys.stdin.isatty() and sys.stdin.read()) or "{}")
        nodes = routes(told.get("nodes", {}))
        programs = Programs(told["programs"]) if "programs" in told else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        out = os.open(args.out, flags, 0o644) if args.out else 1
        watch(out, nodes, programs, stop)
    except OSError as error:
        print(f"load: {error.strerror or error} {error.filename or ''}".rstrip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
