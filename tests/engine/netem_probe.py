"""Puts impairments on a link, sends packets through it, writes what came.

    python -m tests.engine.netem_probe netem|wire RESULTS.json

One process does it all (a process start is dear in a guest): namespaces `a` and `b` joined through
`m`; one socket in `a` sends numbered datagrams, one in `b` notes when each arrives. With netem `m`
is a bridge whose second port carries the qdiscs, sent as bytes of the engine's own encoder; with
the wire a program runs there. Run it where namespaces may be named: in a guest, or after `unshare`.

Beside the measurements runs a *witness*: a process that sleeps for `STEP` and notes how late it was
woken. What was measured while it was late says more of the computer than of the link, so such a
measurement is made again, at most `ATTEMPTS` times, and the one with the least lateness is kept.
The measurement itself has no say in that, and the witness none where packets are only counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netlab.engine import lower, netlink, wire_main
from netlab.model.impairment import (
    PERFECT,
    Bfifo,
    Codel,
    Distribution,
    DropRule,
    Fq,
    FqCodel,
    GilbertElliott,
    Impairment,
    LossStates,
    Match,
    Pfifo,
    Red,
    Slot,
    Tbf,
    Trace,
)
from netlab.plan import wire
from netlab.plan.qdiscs import Netem, Qdisc, chain, refusal, transition, words
from netlab.units import mbit, ms
from tests.engine.tc_cases import DISCIPLINES

PORT, OTHER_PORT = 9, 10
LOOK, QUIET = 0.05, 1.0  # seconds of silence after which to look at the link, and to give it up
HEADERS = 14 + 20 + 8
STAMP = struct.Struct("=IQ")
_libc = ctypes.CDLL(None, use_errno=True)

SETUP = """
netns add a
netns add m
netns add b
link add name e netns a type veth peer name p0 netns m
link add name e netns b type veth peer name p1 netns m
"""


def run(*argv: str, text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


@contextmanager
def namespace(name: str) -> Generator[None]:
    """Be in a namespace; sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert _libc.setns(there, 0x40000000) == 0
        yield
    finally:
        assert _libc.setns(home, 0x40000000) == 0
        os.close(there)
        os.close(home)


def place(qdisc: Qdisc, index: int, *, change: bool = False) -> bytes:
    """The request that puts a qdisc in its place, in the engine's bytes."""
    return lower.place(1, index, qdisc, change=change)


def request(route: socket.socket, message: bytes) -> int:
    """Send a request and return the kernel's error number."""
    route.send(netlink.acknowledged(message))
    return -struct.unpack_from("=i", route.recv(1 << 16), 16)[0]


class Bench:
    """The little network, and one socket at each end of it."""

    def __init__(self) -> None:
        self.sent = 0
        for line in SETUP.strip().splitlines()[:3]:
            run("ip", *line.split())
        for name in "amb":  # neighbour discovery would be counted, queued and lost like our packets
            with namespace(name):
                Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        self.join()
        with namespace("a"):
            self.senders = {port: self._sender(port) for port in (PORT, OTHER_PORT)}
        with namespace("b"):
            self.receivers = {port: self._receiver(port) for port in (PORT, OTHER_PORT)}
        macs = {n: run("ip", "netns", "exec", n, "cat", "/sys/class/net/e/address") for n in "ab"}
        run("ip", "-n", "a", "neigh", "add", "10.9.9.2", "lladdr", macs["b"].strip(), "dev", "e")
        run("ip", "-n", "b", "neigh", "add", "10.9.9.1", "lladdr", macs["a"].strip(), "dev", "e")

    def join(self) -> None:
        """Join the two nodes through the middle one."""
        run("ip", "-batch", "-", text="\n".join(SETUP.strip().splitlines()[3:]) + "\n")
        commands = {
            "a": ["address add 10.9.9.1/24 dev e", "link set dev lo up", "link set dev e up"],
            "b": ["address add 10.9.9.2/24 dev e", "link set dev lo up", "link set dev e up"],
            "m": [
                "link add name br type bridge stp_state 0 mcast_snooping 0",
                "link set dev p0 master br", "link set dev p1 master br",
                "link set dev br up", "link set dev p0 up", "link set dev p1 up",
            ],
        }  # fmt: skip
        for name, lines in commands.items():
            run("ip", "-n", name, "-batch", "-", text="\n".join(lines) + "\n")
        off = [word for what in ("tso", "gso", "gro", "tx", "rx") for word in (what, "off")]
        for name, dev in (("a", "e"), ("b", "e"), ("m", "p0"), ("m", "p1")):
            run("ip", "netns", "exec", name, "ethtool", "-K", dev, *off)
        with namespace("m"):
            self.route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            self.index = socket.if_nametoindex("p1")

    def _sender(self, port: int) -> socket.socket:
        handle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        handle.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK: corrupted payload is delivered
        handle.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)  # ECT(0)
        handle.connect(("10.9.9.2", port))
        return handle

    def _receiver(self, port: int) -> socket.socket:
        handle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.suppress(PermissionError):  # a user namespace may not
            handle.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        handle.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS: the kernel's arrival times
        handle.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        handle.bind(("10.9.9.2", port))
        handle.setblocking(False)
        return handle

    # -- qdiscs ---------------------------------------------------------------------------

    def impair(self, impairment: Impairment) -> None:
        request(self.route, netlink.delete_qdisc(1, self.index))
        refused = refusal(impairment) is not None
        for qdisc in [Qdisc(1, 0, Netem(impairment, 1000))] if refused else chain(impairment, 1500):
            number = request(self.route, place(qdisc, self.index))
            assert number == 0, (qdisc, os.strerror(number))

    def show(self) -> Any:
        with namespace("m"):
            return json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", "p1"))

    def is_empty(self) -> bool:
        """Say whether nothing is under way: what was sent has arrived or is lost."""
        return all(qdisc["qlen"] == 0 for qdisc in self.show())

    def refuses(self, _impairment: Impairment) -> bool:
        """Say whether there is no point in trying: the kernel is tried with everything."""
        return False

    # -- packets --------------------------------------------------------------------------

    def send(self, number: int, size: int, port: int = PORT) -> None:
        head = STAMP.pack(number, time.clock_gettime_ns(time.CLOCK_REALTIME))
        self.senders[port].send(head + bytes(size - HEADERS - len(head)))
        self.sent += 1

    def received(self, port: int = PORT) -> list[list[int]]:
        """What came until the link is empty: number, delay (ns), when, CE, damage.

        A link that keeps packets for longer than `QUIET` after the last one is not waited for.
        """
        handle = self.receivers[port]
        rows: list[list[int]] = []
        last, done = time.monotonic(), False
        while True:
            if not select.select([handle], [], [], LOOK)[0]:
                if done or time.monotonic() - last > QUIET:
                    return rows
                done = self.is_empty()  # what it has just delivered is read in another round
                continue
            last = time.monotonic()
            data, extra, _, _ = handle.recvmsg(2048, 256)
            number, sent = STAMP.unpack_from(data)
            stamp, mark = 0, 0
            for level, kind, value in extra:
                if (level, kind) == (socket.SOL_SOCKET, 35):
                    seconds, fraction = struct.unpack("=qq", value)
                    stamp = seconds * 10**9 + fraction
                elif (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS):
                    mark = int(value[0] & 3 == 3)
            damaged = int(any(data[STAMP.size :]) or not 0 <= stamp - sent < 60 * 10**9)
            rows.append([number, stamp - sent, stamp, mark, damaged])

    def forget(self) -> None:
        """Leave aside what came after an earlier measurement had ended."""
        for handle in self.receivers.values():
            with contextlib.suppress(BlockingIOError):
                while handle.recv(2048):
                    pass

    def probe(self, count: int, interval: float, size: int = 200) -> list[list[int]]:
        """Numbered datagrams at a steady pace."""
        due = time.monotonic()
        for number in range(count):
            due += interval
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            self.send(number, size)
        return self.received()

    def burst(self, count: int, size: int) -> list[list[int]]:
        """Numbered datagrams, all at once."""
        for number in range(count):
            self.send(number, size)
        return self.received()

    def load(self, seconds: float, interval: float, size: int) -> dict[str, list[list[int]]]:
        """A steady load on one port, and beside it a sparse flow on the other."""
        began = due = time.monotonic()
        number = 0
        while due - began < seconds:
            due += interval
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            self.send(number, size)
            if number % 20 == 0:
                self.send(number, 100, OTHER_PORT)
            number += 1
        sent = [[number]]
        return {"load": self.received(), "sparse": self.received(OTHER_PORT), "sent": sent}


class WireBench(Bench):
    """The same with the wire in the middle: between TAP devices, else packet sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = Path("/proc/self/ns/net").stat().st_ino
        self.process: subprocess.Popen[bytes] | None = None
        super().__init__()

    def join(self) -> None:
        self.taps = os.access("/dev/net/tun", os.R_OK | os.W_OK)
        if self.taps:
            for name in "ab":
                run("ip", "-n", name, "tuntap", "add", "dev", "e", "mode", "tap")
        else:
            run("ip", "-batch", "-", text="\n".join(SETUP.strip().splitlines()[3:]) + "\n")
            run("ip", "-n", "m", "-batch", "-", text="link set p0 up\nlink set p1 up\n")
        off = [word for what in ("tso", "gso", "gro", "tx", "rx") for word in (what, "off")]
        for number, name in enumerate("ab", 1):
            run("ip", "-n", name, "address", "add", f"10.9.9.{number}/24", "dev", "e")
            run("ip", "netns", "exec", name, "ethtool", "-K", "e", *off)
            run("ip", "-n", name, "link", "set", "e", "up")

    def impair(self, impairment: Impairment) -> None:
        self.end()
        told: dict[str, Any] = {"name": "x", "seed": 20, wire.FORWARD: wire.settings(impairment)}
        for end, port in (("a", "p0"), ("b", "p1")):
            tap = {"tap": "e", "netns": f"/run/netns/{end}"}
            told[end] = tap if self.taps else {"packet": port}
        config = json.dumps({"version": 1, "die_with_parent": False, "links": [told]})
        path = self.folder / "wire.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            with namespace("m"):
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(wire_main.__file__), config],
                    stdin=listener.fileno(),
                    env={**os.environ, "NETLAB_MACHINE_NETNS": str(self.machine)},
                )
        self.control = socket.socket(socket.AF_UNIX)
        self.control.connect(str(path))
        self.ask("stats")  # answered once it passes packets
        self.sent = 0

    def ask(self, command: str) -> Any:
        self.control.sendall(json.dumps({"cmd": command}).encode() + b"\n")
        with self.control.makefile() as replies:
            return json.loads(replies.readline())

    def end(self) -> None:
        if self.process is not None:
            self.control.close()
            self.process.terminate()
            assert self.process.wait(60) == 0
            self.process = None

    def refuses(self, impairment: Impairment) -> bool:
        return wire.refusal(impairment) is not None

    def show(self) -> Any:
        """What it has counted, in the form of tc; whatever the queue, its drops are one number."""
        way = self._way()
        drops = way["dropped_queue"] + way["dropped_codel"]
        return [{"kind": kind, "drops": drops, **way} for kind in ("pfifo", "codel", "fq_codel")]

    def _way(self) -> Any:
        return self.ask("stats")["links"]["x"][wire.FORWARD]

    def is_empty(self) -> bool:
        way = self._way()
        read = way["received_packets"] - way["chatter_packets"]
        return read == self.sent and way["backlog_packets"] == way["in_flight"] == 0


# -- what is measured ---------------------------------------------------------------------------

Measure = Callable[[Bench], Any]
PROBE = 4000


def probe(count: int = PROBE, interval: float = 0.0002, size: int = 200) -> Measure:
    return lambda bench: bench.probe(count, interval, size)


def burst(count: int, size: int) -> Measure:
    return lambda bench: bench.burst(count, size)


def load(seconds: float, interval: float, size: int) -> Measure:
    return lambda bench: bench.load(seconds, interval, size)


OVERLOAD = load(3.0, 0.005, 1514)  # 2.42 Mbit/s
EXPERIMENTS: dict[str, tuple[Impairment, Measure]] = {
    "nothing": (Impairment(), probe(500, 0.001)),
    "delay-1ms": (Impairment(delay=1 * ms), probe(300, 0.002)),
    "delay-10ms": (Impairment(delay=10 * ms), probe(300, 0.002)),
    "delay-300ms": (Impairment(delay=300 * ms), probe(300, 0.002)),
    "delay-2-6-min": (Impairment(delay=300.0, limit=5), burst(3, 100)),
    "jitter-in-order": (Impairment(delay=10 * ms, jitter=5 * ms), probe(1000, 0.001)),
    **{
        f"jitter-{shape}": (
            Impairment(delay=10 * ms, jitter=2 * ms, distribution=shape, jitter_reorders=True),
            probe(3000, 0.0005),
        )
        for shape in Distribution
    },
    "jitter-correlated": (
        Impairment(delay=10 * ms, jitter=2 * ms, delay_correlation=0.8, jitter_reorders=True),
        probe(2000, 0.0005),
    ),
    "loss-10%": (Impairment(loss=0.1), probe()),
    "loss-1%": (Impairment(loss=0.01), probe()),
    "loss-100%": (Impairment(loss=1.0), probe(50)),
    "loss-correlated-0.5": (Impairment(loss=0.5, loss_correlation=0.6), probe()),
    "loss-correlated-0.1": (Impairment(loss=0.1, loss_correlation=0.5), probe()),
    "loss-gilbert": (Impairment(loss_model=GilbertElliott(p=0.02, r=0.2)), probe()),
    "loss-elliott": (
        Impairment(loss_model=GilbertElliott(p=0.1, r=0.1, bad_loss=0.5, good_loss=0.1)), probe(),
    ),
    "loss-states": (Impairment(loss_model=LossStates(p13=0.02, p31=0.2, p23=1.0)), probe()),
    "loss-ecn": (Impairment(loss=0.5, ecn=True), probe()),
    "seed-7": (Impairment(loss=0.5, seed=7), probe(500)),
    "seed-7-again": (Impairment(loss=0.5, seed=7), probe(500)),
    "seed-8": (Impairment(loss=0.5, seed=8), probe(500)),
    "duplicate": (Impairment(duplicate=0.1), probe()),
    "duplicate-behind-rate": (Impairment(duplicate=0.1, rate=100 * mbit), probe(1000)),
    "corrupt": (Impairment(corrupt=0.1), probe(size=1400)),
    "reorder": (Impairment(delay=20 * ms, reorder=0.25), probe()),
    "reorder-gap": (Impairment(delay=20 * ms, reorder=1.0, reorder_gap=5), probe(1000)),
    "rate": (Impairment(rate=2 * mbit), burst(100, 1500)),
    "rate-overhead": (Impairment(rate=2 * mbit, overhead=100), burst(100, 900)),
    "rate-cells": (Impairment(rate=2 * mbit, cell=48, cell_overhead=5), burst(100, 960)),
    "rate-and-delay": (Impairment(rate=2 * mbit, delay=50 * ms), burst(100, 1500)),
    "rate-20mbit": (Impairment(rate=20 * mbit), burst(900, 1500)),
    "limit-of-the-line": (Impairment(delay=200 * ms, limit=20), burst(60, 200)),
    "pfifo": (Impairment(rate=1 * mbit, queue=Pfifo(20)), burst(60, 1000)),
    "pfifo-and-delay": (Impairment(rate=1 * mbit, delay=100 * ms, limit=20), burst(60, 1000)),
    "bfifo": (Impairment(rate=1 * mbit, queue=Bfifo(20_000)), burst(60, 1000)),
    "tbf": (Impairment(rate=1 * mbit, queue=Tbf(burst=20_000, limit=10_000)), burst(60, 1000)),
    "tbf-peak": (
        Impairment(rate=1 * mbit, queue=Tbf(burst=20_000, limit=40_000, peak=4 * mbit)),
        burst(30, 1000),
    ),
    "drops-nth": (Impairment(drops=(DropRule(Match.UDP, nth=(2, 5, 7)),)), probe(300)),
    "drops-every": (Impairment(drops=(DropRule(Match.UDP, every=10),)), probe(300)),
    "trace": (Impairment(trace=Trace((10, 30, 30, 40))), burst(60, 1500)),
    "slot": (Impairment(slot=Slot(20 * ms, 20 * ms)), probe(300, 0.002)),
    "load-pfifo": (Impairment(rate=2 * mbit, queue=Pfifo(1000)), OVERLOAD),
    "load-codel": (Impairment(rate=2 * mbit, queue=Codel()), OVERLOAD),
    "load-codel-ecn": (Impairment(rate=2 * mbit, queue=Codel(ecn=True)), OVERLOAD),
    "load-fq-codel": (Impairment(rate=2 * mbit, delay=5 * ms, queue=FqCodel()), OVERLOAD),
    "load-fq": (Impairment(rate=2 * mbit, queue=Fq(limit=50)), OVERLOAD),
    "load-red": (Impairment(rate=2 * mbit, queue=Red(60_000, 10_000, 30_000, 0.1)), OVERLOAD),
    "load-red-ecn": (
        Impairment(rate=2 * mbit, queue=Red(60_000, 10_000, 30_000, 0.1, ecn=True)), OVERLOAD,
    ),
}  # fmt: skip


def beside_tc() -> dict[str, Any]:
    """Every discipline once by our bytes and once by tc: what does the kernel say it has?"""
    devices = [f"d{number}" for number in range(len(DISCIPLINES))]
    makers = "".join(f"link add name {device} type dummy\n" for device in devices)
    for name in ("ours", "tc"):
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "-batch", "-", text=makers)
    with namespace("ours"):
        indexes = [socket.if_nametoindex(device) for device in devices]
        route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    errors = [
        request(route, place(Qdisc(1, 0, discipline), index))
        for discipline, index in zip(DISCIPLINES, indexes, strict=True)
    ]
    lines = [
        f"qdisc replace dev {device} root handle 1: {' '.join(words(discipline))}"
        for discipline, device in zip(DISCIPLINES, devices, strict=True)
    ]
    run("tc", "-n", "tc", "-batch", "-", text="\n".join(lines) + "\n")
    shown = {name: run("tc", "-n", name, "qdisc", "show").splitlines() for name in ("ours", "tc")}
    return {"errors": errors, "words": lines, **shown}


EVERYTHING = Impairment(
    delay=50 * ms, jitter=5 * ms, distribution=Distribution.NORMAL, jitter_reorders=True,
    delay_correlation=0.1, loss=0.1, loss_correlation=0.2, duplicate=0.1, corrupt=0.1,
    reorder=0.1, reorder_gap=3, rate=10 * mbit, ecn=True, slot=Slot(1 * ms, 2 * ms),
)  # fmt: skip


def changes(bench: Bench) -> dict[str, Any]:
    """What remains of a netem that is changed, and of the packets in it."""

    def show() -> str:
        with namespace("m"):
            return run("tc", "qdisc", "show", "dev", "p1")

    plain = Qdisc(1, 0, Netem(Impairment(delay=1 * ms), 1000))
    bench.impair(Impairment(delay=1 * ms, limit=1000))
    fresh = show()
    request(bench.route, netlink.delete_qdisc(1, bench.index))
    request(bench.route, place(Qdisc(1, 0, Netem(EVERYTHING, 500)), bench.index))
    before = show()
    error = request(bench.route, place(plain, bench.index, change=True))
    changed = show()
    after = bench.probe(500, 0.001)

    bench.impair(Impairment(delay=200 * ms))
    shapes: tuple[str, ...] = ("netem",)
    errors: list[int] = []
    for number, step in enumerate(
        (
            Impairment(delay=100 * ms),
            Impairment(delay=300 * ms, rate=20 * mbit),
            Impairment(delay=50 * ms, rate=10 * mbit, queue=Pfifo(500)),
            Impairment(delay=50 * ms),
            Impairment(),
        )
    ):
        for count in range(50):
            bench.send(number * 50 + count, 500)
        way = transition(shapes, step, 1500)
        shapes = way.shapes
        for qdisc in way.changed:
            errors.append(request(bench.route, place(qdisc, bench.index, change=True)))
        for qdisc in way.added:
            errors.append(request(bench.route, place(qdisc, bench.index)))
    for count in range(50):
        bench.send(250 + count, 500)
    return {
        "fresh": fresh, "before": before, "changed": changed, "error": error, "after": after,
        "kept": bench.received(), "errors": errors, "shapes": shapes,
    }  # fmt: skip


COUNTED = ("delay-2-6-min", "jitter-in-order", "loss-", "seed-", "duplicate", "corrupt", "drops-")
"""How the names begin of measurements of which packets come and in which order, not when."""

STEP, CALM, ATTEMPTS, SPARE = 0.005, 0.004, 3, 25.0
"""Seconds the witness sleeps; lateness that is no reason to measure again; how often to measure at
most, and how many seconds all the measuring again may take.
"""


def _witness(worst: Any) -> None:
    while True:
        before = time.monotonic()
        time.sleep(STEP)
        worst.value = max(worst.value, time.monotonic() - before - STEP)


@contextmanager
def witness() -> Generator[Any]:
    """Yield the longest lateness in seconds, in shared memory; whoever reads it may reset it."""
    worst: Any = multiprocessing.Value("d", 0.0, lock=False)
    process = multiprocessing.Process(target=_witness, args=(worst,), daemon=True)
    process.start()
    try:
        yield worst
    finally:
        process.terminate()
        process.join()


def quietest(
    bench: Bench, impairment: Impairment, measure: Measure, worst: Any, spare: float
) -> tuple[dict[str, Any], float]:
    """Measure until the witness was never late by more than `CALM`; the calmest attempt.

    Also returns the seconds that measuring again took, which begins only while some are to spare.
    """
    found: list[dict[str, Any]] = []
    again = 0.0
    while not found or (found[-1]["late"] > CALM and len(found) < ATTEMPTS and again < spare):
        began = time.monotonic()
        bench.impair(impairment)
        bench.forget()
        worst.value = 0.0
        rows = measure(bench)
        again += time.monotonic() - began if found else 0.0
        found.append({"rows": rows, "late": worst.value, "qdiscs": bench.show()})
    return {**min(found, key=lambda one: one["late"]), "attempts": len(found)}, again


def main(backend: str, target: Path) -> None:
    bench = WireBench(target.parent) if backend == "wire" else Bench()
    results: dict[str, Any] = {"kernel": os.uname().release}
    if backend == "netem":
        results |= {"beside-tc": beside_tc(), "changes": changes(bench)}
    else:
        bench.impair(PERFECT)
    bench.probe(50, 0.001)  # everything is loaded and warm
    spare = SPARE
    with witness() as worst:
        for name, (impairment, measure) in EXPERIMENTS.items():
            if bench.refuses(impairment):
                continue
            left = 0.0 if name.startswith(COUNTED) else spare
            results[name], again = quietest(bench, impairment, measure, worst, left)
            spare -= again
    if isinstance(bench, WireBench):
        bench.end()
    target.write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
