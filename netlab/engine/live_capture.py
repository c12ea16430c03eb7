"""Packets of a lab that runs, as they come: several interfaces in one stream, in order of time.

One tcpdump for each interface, inside its node, writes into a pipe; here the pipes are read, merged
(`netlab.engine.streams`) and written on, as pcapng or as lines. Whoever reads too slowly makes the
kernel drop packets, never makes the lab wait; how many is told by tcpdump at its end, and stands in
the stream's last blocks too.

It ends after so many packets, at Ctrl-C, when the reader has gone, and with the lab. At the first
two every packet that the interfaces had seen by then is in the stream: each tcpdump is asked for
its counters until it has written all that its filter let through.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from netlab.engine.captures import Counters, command, final_counters, live_counters
from netlab.engine.channel import Channel, ChannelClosedError
from netlab.engine.programs import spawn_on, tool
from netlab.engine.reach import check_node
from netlab.engine.state import Lab
from netlab.engine.streams import LineSplitter, Merger, Packet, PcapSplitter
from netlab.errors import CommandError, NotReadyError, UsageError
from netlab.recording import pcapng

Json = dict[str, Any]
AT_ONCE = 1 << 20
"""Octets in a pipe and in one read of it: what an unprivileged user may have."""
BUFFERS = 128 << 10
"""KiB the kernel may hold for all tcpdumps of a capture together."""
PAUSE = 0.005
"""Seconds in which packets of several interfaces gather, while they are few."""
MANY = 64 << 10
LONGEST_SNAP = 262_144
SLACK = 16
"""Octets more than wanted that tcpdump is asked for: its buffers may cut a packet some earlier."""
PATIENCE = 10.0
SETTLE = 2.0

_TYPO = re.compile(r"[A-Za-z][\w.-]*:[A-Za-z][\w.-]*")


class Place(NamedTuple):
    """An interface of a node."""

    node: str
    interface: str

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


class End(StrEnum):
    """Why a capture ended."""

    ASKED = "asked"
    COUNT = "count"
    READER = "reader"
    LAB = "lab"
    TCPDUMP = "tcpdump"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a capture; `counters` by place, for tcpdumps that could tell."""

    end: End
    packets: int
    counters: dict[str, Counters]
    failures: tuple[str, ...]

    @property
    def dropped(self) -> int:
        """Packets that should be in the stream and are not."""
        return sum(c.dropped_by_kernel + c.dropped_by_interface for c in self.counters.values())


def places(lab: Lab, words: Sequence[str]) -> tuple[list[Place], str]:
    """Tell the places at the beginning of a command line from the filter behind them.

    A node alone means all its interfaces; `any` and `lo` are interfaces too.
    """
    found: list[Place] = []
    rest = list(words)
    while rest:
        node, colon, interface = rest[0].partition(":")
        known = node in lab.nodes
        if not known and (not found or _TYPO.fullmatch(rest[0])):
            check_node(lab, node)
        if not known:
            break
        found += _interfaces(lab, node, interface if colon else None)
        del rest[0]
    if not found:
        raise UsageError("nothing to capture", hint="name an interface, for example h1:eth0")
    expression = " ".join(rest)
    if expression.startswith("-"):
        raise UsageError(f"a filter does not begin with '-': {expression}")
    return list(dict.fromkeys(found)), expression


def _interfaces(lab: Lab, node: str, interface: str | None) -> list[Place]:
    own = [found["name"] for found in lab.nodes[node]["interfaces"]]
    own = own or [device for name, device, _ in lab.state.get("indexes", ()) if name == node]
    if interface is None:
        return [Place(node, name) for name in own]
    known = [*own, "lo", "any"]
    if interface not in known:
        from difflib import get_close_matches

        close = get_close_matches(interface, known, n=1)
        hint = f"did you mean '{node}:{close[0]}'?" if close else f"it has {', '.join(known)}"
        raise UsageError(f"node {node!r} has no interface {interface!r}", hint=hint)
    return [Place(node, interface)]


class Tap:
    """One tcpdump that writes into a pipe."""

    def __init__(self, number: int, place: Place, tag: int, pipe: int, said: int) -> None:
        self.number, self.place, self.tag = number, place, tag
        self.pipe, self._said = pipe, said
        self.alive = True
        self.reaped = False

    @property
    def stderr(self) -> str:
        """What it has said until now."""
        size = os.fstat(self._said).st_size
        return os.pread(self._said, size, 0).decode(errors="replace")

    def read(self) -> bytes:
        """Return what the pipe holds, as much as can be read at once."""
        try:
            data = os.read(self.pipe, AT_ONCE)
        except BlockingIOError:
            return b""
        self.alive = bool(data)
        return data

    def complaint(self) -> str:
        """Return its own words about why it could not go on."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("tcpdump: ")]
        told = [line for line in lines if "listening on" not in line and "WARNING" not in line]
        return " ".join(told).replace("tcpdump: ", "") or "tcpdump was killed"

    def close(self) -> None:
        """Let go of pipe and words."""
        os.close(self.pipe)
        os.close(self._said)


class Form:
    """Lines of text: when, where, and tcpdump's words."""

    pcap = False

    def __init__(self, wanted: Sequence[Place]) -> None:
        width = max(len(str(place)) for place in wanted)
        self._where = [str(place).ljust(width).encode() for place in wanted]
        self._second, self._clock = -1, b""

    def begin(self, link_types: Sequence[int]) -> bytes:
        """Return what comes before the first packet."""
        return b""

    def packets(self, found: Iterable[Packet]) -> bytes:
        """Return packets as they are written."""
        lines = bytearray()
        for at_ns, source, _, words in found:
            second, rest = divmod(at_ns, 1_000_000_000)
            if second != self._second:
                self._second = second
                self._clock = time.strftime("%H:%M:%S", time.localtime(second)).encode()
            lines += b"%s.%06d %s %s\n" % (self._clock, rest // 1000, self._where[source], words)
        return bytes(lines)

    def end(self, at_ns: int, counters: dict[int, Counters]) -> bytes:
        """Return what comes after the last packet."""
        return b""


class PcapngForm(Form):
    """A pcapng section: an interface for each place, named after it."""

    pcap = True

    def __init__(
        self, wanted: Sequence[Place], *, lab: str, expression: str, snaplen: int, program: str
    ) -> None:
        self._wanted, self._lab = wanted, lab
        self._expression, self._snaplen, self._program = expression, snaplen, program

    def begin(self, link_types: Sequence[int]) -> bytes:
        """Return the section header and the interfaces."""
        system = os.uname()
        blocks = [pcapng.section(program=self._program, system=f"{system[0]} {system[2]}")]
        for place, link_type in zip(self._wanted, link_types, strict=True):
            described = pcapng.interface(
                str(place),
                link_type=link_type,
                snaplen=self._snaplen,
                expression=self._expression,
                description=f"lab {self._lab}",
            )
            blocks.append(described)
        return b"".join(blocks)

    def packets(self, found: Iterable[Packet]) -> bytes:
        """Return packet blocks."""
        make = pcapng.packet
        return b"".join([make(source, at, length, data) for at, source, length, data in found])

    def end(self, at_ns: int, counters: dict[int, Counters]) -> bytes:
        """Return the statistics of the interfaces."""
        return b"".join(
            pcapng.statistics(
                number,
                at_ns,
                received=counted.received,
                dropped_by_interface=counted.dropped_by_interface,
                dropped_by_system=counted.dropped_by_kernel,
            )
            for number, counted in counters.items()
        )


class LiveCapture:
    """Captures that run in a lab; `run` carries their packets until the end."""

    def __init__(
        self,
        connection: Channel,
        wanted: Sequence[Place],
        *,
        form: Form,
        expression: str = "",
        count: int | None = None,
        snaplen: int = LONGEST_SNAP,
    ) -> None:
        self._connection, self._form = connection, form
        self._expression, self._count = expression, count
        self._taps: list[Tap] = []
        self._packets = 0
        self._merger = Merger(range(len(wanted)))
        self._splitters = [
            PcapSplitter(number, snaplen) if form.pcap else LineSplitter(number)
            for number in range(len(wanted))
        ]
        self._failures: list[str] = []
        tool("tcpdump", "apt-get install tcpdump")
        try:
            for number, place in enumerate(wanted):
                argv = command(
                    place.interface,
                    "-" if form.pcap else None,
                    expression=expression,
                    count=count,
                    snaplen=min(snaplen + SLACK, LONGEST_SNAP),
                    root=os.geteuid() == 0,
                    buffer=max(2048, min(32768, BUFFERS // len(wanted))),
                )
                self._taps.append(self._start(number, place, argv))
            for tap in self._taps:
                self._until_listening(tap)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LiveCapture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs, by leaving the supervisor, and let go of everything."""
        self._connection.close()
        for tap in self._taps:
            tap.close()
        self._taps.clear()

    def _start(self, number: int, place: Place, argv: Sequence[str]) -> Tap:
        tag = self._connection.new_tag()
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        said = os.memfd_create("tcpdump")
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # the user may have used up what pipes may hold
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, AT_ONCE)
        tap = Tap(number, place, tag, read, said)
        ready = {"line": "listening on", "stream": "stderr"}
        name = f"capture-{place.interface}"
        try:
            spawn_on(
                self._connection, tag, place.node, name, argv, (null, write, said), ready=ready
            )
        except BaseException:
            tap.close()
            raise
        finally:
            os.close(null)
            os.close(write)
        return tap

    def _until_listening(self, tap: Tap) -> None:
        patience = PATIENCE * self._connection.patience
        event = self._connection.event(tap.tag, ("ready", "exit"), patience)
        if event is None:
            raise NotReadyError(f"tcpdump at {tap.place} was not ready after {patience:g} s")
        if event["event"] == "ready":
            return
        said = tap.complaint()
        if self._expression and not said.startswith(f"{tap.place.interface}: "):
            raise UsageError(f"the filter '{self._expression}': {said}")
        raise CommandError(f"cannot capture at {tap.place}: {said}")

    # -- carrying

    def run(self, out: int, asked: Callable[[], bool]) -> Outcome:
        """Carry packets to a descriptor until the end; OSError when it cannot be written to.

        `asked` tells whether somebody wants it to end (see `interrupts`).
        """
        try:
            self._begin(out)
            end = self._carry(out, asked)
        except BrokenPipeError:
            end = End.READER
        if end != End.LAB:
            try:
                self._finish(out, end)
            except BrokenPipeError:
                end = End.READER
            except ChannelClosedError:
                self._drain()
                end = End.LAB
        counters = self._counters()
        if end != End.READER:
            with contextlib.suppress(BrokenPipeError):
                self._emit(out, self._merger.rest())
                _write(out, self._form.end(time.time_ns(), counters))
        named = {str(self._taps[number].place): found for number, found in counters.items()}
        return Outcome(end, self._packets, named, tuple(self._failures))

    def _begin(self, out: int) -> None:
        """Write the head, which waits for the first octets of every stream."""
        deadline = time.monotonic() + PATIENCE * self._connection.patience
        link_types: list[int] = []
        for tap, splitter in zip(self._taps, self._splitters, strict=True):
            if not isinstance(splitter, PcapSplitter):
                continue
            while splitter.link_type is None and tap.alive:
                _wait([tap.pipe], deadline - time.monotonic())
                if time.monotonic() > deadline:
                    raise NotReadyError(f"tcpdump at {tap.place} wrote nothing")
                self._read(tap)
            if splitter.link_type is None:
                raise CommandError(f"the capture at {tap.place} ended early: {tap.complaint()}")
            link_types.append(splitter.link_type)
        _write(out, self._form.begin(link_types))

    def _carry(self, out: int, asked: Callable[[], bool]) -> End:
        poll = select.poll()
        poll.register(out, 0)  # that its reader has gone is told without being asked for
        poll.register(self._connection, select.POLLIN)
        for tap in self._taps:
            poll.register(tap.pipe, select.POLLIN)
        with _wakeup() as wake:
            poll.register(wake, select.POLLIN)
            while any(tap.alive for tap in self._taps):
                if asked():
                    return End.ASKED
                oldest = self._merger.oldest_ns
                events = dict(poll.poll(None if oldest is None else 1 + PAUSE * 1000))
                if events.get(out, 0) & (select.POLLERR | select.POLLHUP):
                    return End.READER
                octets = self._round(out)
                if self._count is not None and self._packets >= self._count:
                    return End.COUNT
                try:
                    if self._connection.fileno() in events:
                        self._connection.pump(0)
                    for tap in self._taps:
                        if not tap.alive and not tap.reaped:
                            poll.unregister(tap.pipe)
                            self._reap(tap)
                except ChannelClosedError:
                    self._drain()
                    return End.LAB
                if len(self._taps) > 1 and octets < MANY:
                    time.sleep(PAUSE)
        return End.TCPDUMP if self._failures else End.COUNT

    def _round(self, out: int) -> int:
        """Read what there is and pass on what may go; returns how many octets there were."""
        now = time.time_ns()
        read = {tap.number: self._read(tap) for tap in self._taps if tap.alive}
        behind = [number for number, octets in read.items() if octets == AT_ONCE]
        self._emit(out, self._merger.take(now, behind))
        return sum(read.values())

    def _read(self, tap: Tap) -> int:
        """Read from a tcpdump once; returns how many octets came."""
        data = tap.read()
        self._merger.add(self._splitters[tap.number].feed(data))
        if not tap.alive:
            self._merger.ended(tap.number)
        return len(data)

    def _emit(self, out: int, found: list[Packet]) -> None:
        if self._count is not None:
            found = found[: self._count - self._packets]
        if found:
            _write(out, self._form.packets(found))
            self._packets += len(found)

    # -- the end

    def _reap(self, tap: Tap) -> None:
        """Learn how a tcpdump ended; one that was not told to has failed, unless it was full."""
        event = self._connection.event(tap.tag, ("exit",), PATIENCE)
        tap.reaped = True
        if event is None or event["status"] != 0:
            self._failures.append(f"the capture at {tap.place} ended early: {tap.complaint()}")

    def _finish(self, out: int, end: End) -> None:
        """End the tcpdumps, at Ctrl-C once all they have received is read."""
        running = [tap for tap in self._taps if tap.alive]
        if end == End.ASKED:
            self._settle(out, running)
        self._signal(running, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        while any(tap.alive for tap in running) and time.monotonic() < deadline:
            _wait([tap.pipe for tap in running if tap.alive], deadline - time.monotonic())
            self._round_or_drain(out, end)
        for tap in running:
            self._connection.event(tap.tag, ("exit",), max(0.0, deadline - time.monotonic()))

    def _round_or_drain(self, out: int, end: End) -> None:
        if end == End.READER:
            for tap in self._taps:
                if tap.alive:
                    tap.read()
        else:
            self._round(out)

    def _settle(self, out: int, running: Sequence[Tap]) -> None:
        """Ask for counters until everything received is in the pipes, for two seconds at most."""
        deadline = time.monotonic() + SETTLE
        last: dict[int, Counters] = {}
        unsettled = list(running)
        while unsettled and time.monotonic() < deadline:
            known = {tap.number: len(live_counters(tap.stderr)) for tap in unsettled}
            self._signal(unsettled, signal.SIGUSR1)
            while time.monotonic() < deadline:
                self._round(out)
                unanswered = [
                    tap
                    for tap in unsettled
                    if tap.alive and len(live_counters(tap.stderr)) == known[tap.number]
                ]
                if not unanswered:
                    break
                _wait([tap.pipe for tap in unanswered], PAUSE)
            unsettled = [tap for tap in unsettled if tap.alive]
            for tap in list(unsettled):
                told = live_counters(tap.stderr)
                now = told[-1] if told else Counters()
                if now.settled or now == last.get(tap.number):
                    unsettled.remove(tap)
                last[tap.number] = now

    def _drain(self) -> None:
        """Take what the pipes still hold of tcpdumps that are dead or about to be."""
        deadline = time.monotonic() + PATIENCE
        while any(tap.alive for tap in self._taps) and time.monotonic() < deadline:
            _wait([tap.pipe for tap in self._taps if tap.alive], deadline - time.monotonic())
            for tap in self._taps:
                if tap.alive:
                    self._read(tap)

    def _signal(self, taps: Iterable[Tap], number: signal.Signals) -> None:
        for tap in taps:  # one that has ended meanwhile gets none
            self._connection.request({"do": "signal", "tag": tap.tag, "signal": int(number)})

    def _counters(self) -> dict[int, Counters]:
        found = {tap.number: final_counters(tap.stderr) for tap in self._taps}
        return {number: counted for number, counted in found.items() if counted is not None}


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _wait(pipes: Iterable[int], seconds: float) -> None:
    poll = select.poll()
    for pipe in pipes:
        poll.register(pipe, select.POLLIN)
    poll.poll(max(0.0, seconds) * 1000)


@contextlib.contextmanager
def interrupts() -> Generator[Callable[[], bool]]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP be a wish to end, and a second one an interrupt.

    Yields what tells whether there was such a wish.
    """
    wishes: list[int] = []

    def wish(number: int, _frame: object) -> None:
        wishes.append(number)
        if len(wishes) > 1:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, wish) for number in numbers}
    try:
        yield lambda: bool(wishes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _wakeup() -> Generator[int]:
    """Yield a descriptor that becomes readable when a signal comes."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(-1)
        os.close(read)
        os.close(write)
