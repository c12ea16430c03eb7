"""Packet captures of a running lab: tcpdump per interface, from its first packet to its last.

A capture is running before anything else happens: tcpdump has said "listening on". Its tail is
not lost: before it is told to end, it is asked for its counters (SIGUSR1) until it has written
every packet that its filter let through. What was dropped stands beside the file, in
`captures/NODE.IF.json`.

On the loopback interface libpcap counts every packet twice (as it leaves and as it arrives) and
keeps one; there the counters only have to come to rest.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from netlab.engine.node import Ready, Running
from netlab.engine.programs import tool
from netlab.errors import CommandError, DiskFullError, NotReadyError, UsageError

if TYPE_CHECKING:
    from netlab.engine.stage import Stage

_LIVE = re.compile(
    r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped by kernel"
    r"(?:, (\d+) packets? dropped by interface)?"
)
_ANSWER = re.compile(rf"tcpdump: {_LIVE.pattern}\n?")
_FINAL = re.compile(r"^(\d+) packets? (captured|received by filter|dropped by \w+)$", re.MULTILINE)
_LISTENING = re.compile(r"listening on (\S+), link-type (\S+)")


@dataclass(frozen=True, slots=True)
class Counters:
    """What tcpdump counted; every packet received is captured, dropped, or still on its way."""

    captured: int = 0
    received: int = 0
    dropped_by_kernel: int = 0
    dropped_by_interface: int = 0

    @property
    def settled(self) -> bool:
        """True when no packet is on its way to the file."""
        return self.captured + self.dropped_by_kernel >= self.received


def live_counters(stderr: str) -> tuple[Counters, ...]:
    """Return every answer to SIGUSR1 in what tcpdump has said."""
    return tuple(
        Counters(*(int(number or 0) for number in match.groups()))
        for match in _LIVE.finditer(stderr)
    )


def final_counters(stderr: str) -> Counters | None:
    """Return the counters that tcpdump prints when it ends; None if it has not.

    An answer to SIGUSR1 may stand in their midst, even in the midst of a line: the signal
    interrupts tcpdump wherever it is.
    """
    found = {what: int(number) for number, what in _FINAL.findall(_ANSWER.sub("", stderr))}
    if "captured" not in found:
        return None
    return Counters(
        found["captured"],
        found.get("received by filter", 0),
        found.get("dropped by kernel", 0),
        found.get("dropped by interface", 0),
    )


def command(
    interface: str,
    path: str | None,
    *,
    expression: str,
    count: int | None,
    snaplen: int,
    root: bool,
    buffer: int | None = None,
) -> tuple[str, ...]:
    """Return the tcpdump command of a capture; without a path it prints a line for each packet.

    `buffer` is what the kernel may hold for it, in KiB.
    """
    argv = ["tcpdump", "-i", interface, "-n", "-U", "--immediate-mode"]
    argv += ["--time-stamp-precision=nano", "-s", str(snaplen)]
    argv += ["-l", "-tt"] if path is None else ["-w", path]
    if buffer is not None:
        argv += ["-B", str(buffer)]
    if root:  # else it would become another user, who may not write here
        argv += ["-Z", "root"]
    if count is not None:
        argv += ["-c", str(count)]
    return (*argv, expression) if expression else tuple(argv)


class Capture:
    """A capture that runs; `stop` keeps its tail."""

    def __init__(self, stage: Stage, where: str, name: str, running: Running, file: str) -> None:
        self.where = where
        self.name = name
        self.counters: Counters | None = None
        self._stage = stage
        self._running = running
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; after an exception without waiting for the tail."""
        if error is None:
            self.stop()
        elif self.counters is None and self._running.alive:
            self._running.stop(grace=0.5)

    @property
    def node(self) -> str:
        """The node in which it runs."""
        return self._running.node

    @property
    def packets(self) -> int:
        """How many packets the file holds by now."""
        return self.counters.captured if self.counters is not None else self._ask().captured

    def wait(self, timeout: float) -> Counters:
        """Wait for a capture with a packet count to be full; NotReadyError if it is not in time."""
        try:
            self._running.wait(timeout)
        except NotReadyError:
            have = self._ask().captured
            raise NotReadyError(
                f"the capture {self.name} has {have} packets after {timeout} s, and waits for more"
            ) from None
        return self._finish()

    def stop(self) -> Counters:
        """End the capture once everything it received is in the file."""
        if self.counters is not None:
            return self.counters
        last: Counters | None = None
        for _ in range(100):
            if not self._running.alive:
                break
            now = self._ask()
            if now.settled or now == last:
                break
            last = now
        self._running.signal(signal.SIGINT)
        self._running.wait(10)
        return self._finish()

    def _ask(self) -> Counters:
        """Return the counters of this moment."""
        known = len(live_counters(self._running.stderr))
        self._running.signal(signal.SIGUSR1)
        self._stage.until(
            lambda: len(live_counters(self._running.stderr)) > known or not self._running.alive,
            timeout=10,
            what=f"the counters of the capture {self.name}",
        )
        answers = live_counters(self._running.stderr)
        return answers[-1] if len(answers) > known else Counters()

    def _finish(self) -> Counters:
        done = self._running.wait(0)
        counters = final_counters(done.stderr)
        if counters is None or done.status != 0:
            raise _failure(self.name, done.argv, done.stderr)
        listening = _LISTENING.search(done.stderr)
        record = {
            "where": self.where,
            "filter": done.argv[-1] if len(done.argv[-1].split()) > 1 else "",
            "link_type": listening[2] if listening else "",
            **asdict(counters),
            "started_ns": done.started_ns,
            "ended_ns": done.ended_ns,
        }
        path = self._stage.recording.file(f"{self._file}.json")
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self.counters = counters
        return counters


def start(
    stage: Stage,
    where: str,
    *,
    name: str | None = None,
    filter: str = "",
    count: int | None = None,
    snaplen: int = 262_144,
) -> Capture:
    """Capture at `where`, "node:interface"; returns when tcpdump is capturing.

    `filter` is a pcap filter, `count` ends the capture after so many packets; `name` tells two
    captures of one interface apart. CommandError with tcpdump's words when it cannot.
    """
    node_name, colon, interface = where.partition(":")
    known = {end.name for end in stage.topology.interfaces(node_name)} | {"lo", "any"}
    if not colon or interface not in known:
        raise UsageError(f"cannot capture at '{where}': write node:interface, for example h1:eth0")
    tool("tcpdump", "apt-get install tcpdump")
    label = name or where
    stem = label.replace(":", ".")
    path = stage.recording.file(f"captures/{stem}.pcap")
    # tcpdump gives its file to the user it runs as, which a guest of an ordinary user may not do
    # with files of the computer; it does not do so with its standard output.
    foreign = path.parent.stat().st_uid != os.geteuid()
    argv = command(
        interface,
        "-" if foreign else str(path),
        expression=filter,
        count=count,
        snaplen=snaplen,
        root=os.geteuid() == 0,
    )
    if foreign:
        argv = ("sh", "-c", 'exec "$@" >"$0"', str(path), *argv)
    try:
        running = stage.node(node_name).spawn(
            f"tcpdump-{stem}", argv, ready=Ready.line("listening on", stream="stderr")
        )
    except CommandError as error:
        if "No space left" in str(error):
            raise _failure(label, argv, str(error)) from None
        raise
    stage.recording.event("capture-start", at_ns=stage.now_ns(), name=label, filter=filter)
    return Capture(stage, where, label, running, f"captures/{stem}")


def _failure(name: str, argv: Sequence[str], stderr: str) -> CommandError | DiskFullError:
    said = " ".join(stderr.split())
    if "No space left" in stderr or "File too large" in stderr:
        return DiskFullError(f"no space left for the capture {name}", hint="free some space")
    return CommandError(f"the capture {name} ended early (`{' '.join(argv)}`): {said}")
