"""How true a recording is: `ok`, `suspect` or `invalid`, with the reasons, from what it holds.

A pure function of the recorded figures, so that a stamp can be computed again years later. Limits
and their arithmetic are in docs/fidelity.md. Where nobody watched the machine the stamp is
`unknown`, unless something else speaks against the recording.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from netlab.analysis import calibration, frames
from netlab.errors import CaptureError, RecordingError, TopologyError
from netlab.model import yaml
from netlab.model.topology import Link, Topology
from netlab.recording import Recording
from netlab.recording.directory import TOPOLOGY

Level = Literal["ok", "suspect", "invalid", "unknown"]
Json = Mapping[str, Any]

LOAD = "machine/load.jsonl"
FEW = 0.01
"""A share of packets, or of moments, up to which a recording is suspect and not yet invalid."""
CHAIN_LOG2_US = 13
"""8.2 ms: six processes that wait so long one after the other use up what labs allow (50 ms)."""
ALLOWED_S = 0.05
"""What labs allow for everything but the kernel's own timers (netlab.analysis.timing.latest)."""
STALLED_LOG2_US = 16
"""65 ms: a process that waits so long uses up, alone, more than labs allow."""
STALLED_SHARE = 0.1
NO_PART = frozenset({"calibrate", "tcpdump"})
"""Programs that may wait: the kernel stamps what they look at, and what they miss is doubted."""
STOLEN = (0.05, 0.5)
"""Shares of a processor's time that something outside took: suspect, invalid."""
MISSED = 0.1
"""Share of its moments that a sampler may miss."""
FIXED_S, RELATIVE = 0.5e-3, 0.02
"""Labs measure a round trip to 0.5 ms + 2 %."""
OUTLIER, GROSS = 2, 10
"""How late packets may be, in tolerances: one in a hundred; one in ten, or all is invalid."""
ETHERNET = 14 + 4
"""Octets of an Ethernet header with a VLAN tag."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One reason not to believe a recording."""

    level: Literal["suspect", "invalid"]
    reason: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """The worst of all doubts, and what they are."""

    level: Level
    reasons: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The stamp in one line."""
        return f"fidelity {self.level}" + (f": {'; '.join(self.reasons)}" if self.reasons else "")


def stamp(recording: Recording) -> Stamp:
    """Return the stamp of a recording."""
    topology = _topology(recording)
    doubts = (
        *_calibration(recording, topology),
        *_captures(recording, topology),
        *_wires(recording, topology),
        *_samplers(recording),
    )
    load = Load.of(recording)
    if load is not None:
        doubts += (*_machine(load), *_programs(load), *_disciplines(load, topology))
    return sum_up(doubts, watched=load is not None)


def sum_up(doubts: Iterable[Doubt], *, watched: bool) -> Stamp:
    """Return the stamp that doubts make; the worst ones come first."""
    ranked = sorted(doubts, key=lambda doubt: doubt.level)  # "invalid" before "suspect"
    if ranked:
        return Stamp(ranked[0].level, tuple(doubt.reason for doubt in ranked))
    return Stamp("ok") if watched else Stamp("unknown", ("nobody watched the machine",))


@dataclass(frozen=True)
class Load:
    """What the agent `load` saw of the machine: its rows, and the counters of its last line."""

    rows: tuple[Json, ...]
    end: Json = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, recording: Recording) -> Load | None:
        """Read it; None where it is missing, and a torn last line is left out."""
        if not recording.has(LOAD):
            return None
        lines = tuple(_objects(recording.text(LOAD)))
        rows = tuple(line for line in lines if "span_s" in line)
        if not rows:
            return None
        return cls(rows, lines[-1] if "end_ns" in lines[-1] else {})

    @cached_property
    def lateness(self) -> Counter[int]:
        """How many moments were late by [2^i, 2^(i+1)) microseconds."""
        found: Counter[int] = Counter()
        for row in self.rows:
            found.update({int(i): count for i, count in row["late_log2_us"].items()})
        return found

    @property
    def worst_s(self) -> float:
        """The latest that anything was."""
        return max(float(row["late_max_s"]) for row in self.rows)

    def share_later(self, log2_us: int) -> float:
        """Return the share of moments that were late by 2^`log2_us` microseconds or more."""
        late = sum(count for i, count in self.lateness.items() if i >= log2_us)
        return late / max(1, self.lateness.total())

    def waits(self) -> dict[str, dict[int, tuple[float, ...]]]:
        """Return the long waits of each program of the lab, by the row they ended in."""
        found: dict[str, dict[int, tuple[float, ...]]] = {}
        for number, row in enumerate(self.rows):
            for one in row.get("waits", ()):
                if one["program"] not in NO_PART:
                    where = f" of node '{one['node']}'" if one["node"] else ""
                    name = f"'{one['program']}' (pid {one['pid']}){where}"
                    found.setdefault(name, {})[number] = tuple(map(float, one["waited_s"]))
        return found

    def mean(self, name: str) -> tuple[float, ...]:
        """Return the mean of a column over time, for each processor."""
        spans = [float(row["span_s"]) for row in self.rows]
        columns = zip(*(row[name] for row in self.rows), strict=False)
        total = sum(spans) or 1.0
        return tuple(
            sum(s * v for s, v in zip(spans, column, strict=True)) / total for column in columns
        )


def _few(count: int, total: int, what: str) -> Iterator[Doubt]:
    """Doubt what should not happen at all: suspect from the first, invalid above a hundredth."""
    if count:
        yield Doubt("invalid" if count > FEW * total else "suspect", what)


def _calibration(recording: Recording, topology: Topology | None) -> Iterator[Doubt]:
    known = {link.name: link for link in (topology.links if topology else ())}
    try:
        measured = calibration.read(recording)
    except RecordingError:
        return  # a check that wants to look into it says so
    for name, ways in measured.items():
        if name in known:
            allowed = tolerance(round_trip(known[name]))
            for times, what in calibration.deviations(ways, known[name].ways, allowed):
                level = "invalid" if times > GROSS else "suspect"
                yield Doubt(level, f"link '{name}' before the run: {what}")


def _captures(recording: Recording, topology: Topology | None) -> Iterator[Doubt]:
    longest = _longest_frames(topology)
    for name in recording.files("captures/*.json"):
        counts = _record(recording, name)
        where = str(counts.get("where", ""))
        kept = int(counts.get("captured", 0))
        lost = int(counts.get("dropped_by_kernel", 0)) + int(counts.get("dropped_by_interface", 0))
        yield from _few(lost, kept + lost, f"the capture {where} lost {lost} packets")
        if where in longest:
            large = _longer(recording, name.replace(".json", ".pcap"), longest[where])
            what = f"the capture {where} has {large} frames larger than the MTU: an offload is on"
            yield from _few(large, kept, what)


def _longest_frames(topology: Topology | None) -> dict[str, int]:
    """Return how long a frame can be at "node:interface" where offloads are off."""
    return {
        f"{end.node}:{end.name}": end.mtu + ETHERNET
        for link in (topology.links if topology else ())
        if not link.offloads
        for end in link.ends
    }


def _longer(recording: Recording, name: str, limit: int) -> int:
    try:
        found = frames.read(recording.file(name), snap=0)
        return sum(frame.length > limit for frame in found)
    except (CaptureError, RecordingError):
        return 0  # a check that wants to look into it says so


def _wires(recording: Recording, topology: Topology | None) -> Iterator[Doubt]:
    known = {link.name: link for link in (topology.links if topology else ())}
    for name in recording.files("wire/*.json"):
        for link, counters in _record(recording, name).get("links", {}).items():
            for doubt in _strains(counters, round_trip(known.get(link))):
                yield Doubt(doubt.level, f"the wire of link '{link}': {doubt.reason}")


def round_trip(link: Link | None) -> float:
    """Return the seconds that a link's delays take there and back; 0 for a link unknown."""
    return link.forward.delay + link.backward.delay if link else 0.0


def tolerance(rtt: float) -> float:
    """Return by how many seconds a measured round trip may differ from what was asked."""
    return FIXED_S + RELATIVE * rtt


def _strains(counters: Json, rtt: float) -> Iterator[Doubt]:
    """Doubt what a wire did that nobody asked for (crates/netlab-wire/README.md, Counters)."""
    ways = ("a_to_b", "b_to_a")
    total = sum(counters[way]["received_packets"] for way in ways)
    for port in ("a", "b"):
        for name in ("kernel_drops", "oversize", "partial_checksum"):
            count = counters[port][name]
            yield from _few(count, total, f"{count} packets {name.replace('_', ' ')} at one end")
    for way in ways:
        count = counters[way]["dropped_overflow"]
        yield from _few(count, total, f"{count} packets dropped for want of room")
    allowed = tolerance(rtt)
    mean = sum(counters[way]["lateness"]["mean_ns"] for way in ways) / 1e9
    if mean > allowed:
        bad = "invalid" if mean > GROSS * allowed else "suspect"
        yield Doubt(bad, f"a round trip takes {mean * 1e3:.1f} ms too long on average")
    for way in ways:
        lateness = counters[way]["lateness"]
        total = max(1, lateness["count"])
        late = _later(lateness, OUTLIER * allowed)
        if late > max(1, FEW * total):
            bad = _later(lateness, GROSS * allowed) > STALLED_SHARE * total
            yield Doubt(
                "invalid" if bad else "suspect",
                f"{late} of {total} packets left more than {OUTLIER * allowed * 1e3:.1f} ms late"
                f" (one {lateness['max_ns'] / 1e6:.1f} ms)",
            )


def _later(lateness: Json, seconds: float) -> int:
    """Return how many packets were later for certain; buckets are powers of two of 1 ns."""
    return sum(n for i, n in enumerate(lateness["log2_ns"]) if 2**i >= seconds * 1e9)


def _machine(load: Load) -> Iterator[Doubt]:
    late = load.share_later(CHAIN_LOG2_US)
    if late > FEW or load.worst_s > ALLOWED_S:
        stalled = load.share_later(STALLED_LOG2_US) > STALLED_SHARE
        busy = load.mean("busy")
        yield Doubt(
            "invalid" if stalled else "suspect",
            f"processes waited for a processor: {late:.0%} of the time more than 8 ms, "
            f"once {load.worst_s * 1e3:.0f} ms; the {len(busy)} processors were "
            f"{sum(busy) / max(1, len(busy)):.0%} busy",
        )
    stolen = max(load.mean("steal"), default=0.0)
    if stolen > STOLEN[0]:
        level = "invalid" if stolen > STOLEN[1] else "suspect"
        yield Doubt(level, f"{stolen:.0%} of a processor's time went to something outside")
    dropped = sum(int(row["dropped"]) for row in load.rows)
    if dropped:
        yield Doubt("suspect", f"the kernel dropped {dropped} packets between interfaces")


def _programs(load: Load) -> Iterator[Doubt]:
    """Doubt what waited for a processor longer than labs allow: one program alone, or in turns."""
    programs = load.waits()
    for name, rows in programs.items():
        longest = max(max(row) for row in rows.values())
        if longest > ALLOWED_S:
            yield Doubt("suspect", f"{name} waited {longest * 1e3:.0f} ms for a processor")
    # One after the other, as one message passes from each to the next: within a row, or across the
    # border of two. A program that waits again and again, as while it starts, is in it once.
    moments = sorted({number for rows in programs.values() for number in rows})
    chains = [
        {
            name: max((*rows.get(number - 1, ()), *rows.get(number, ())))
            for name, rows in programs.items()
            if number in rows or number - 1 in rows
        }
        for number in moments
    ]
    worst = max(chains, key=lambda chain: sum(chain.values()), default=dict[str, float]())
    if sum(worst.values()) > ALLOWED_S:
        yield Doubt(
            "suspect",
            f"programs waited {sum(worst.values()) * 1e3:.0f} ms for a processor within a second,"
            f" one after the other: {', '.join(worst)}",
        )


def _disciplines(load: Load, topology: Topology | None) -> Iterator[Doubt]:
    """Doubt drops of queue disciplines on links that were asked to lose nothing."""
    for link in topology.links if topology else ():
        asked = any(
            i.loss or i.loss_model or i.ecn or i.rate or i.trace or i.limit or i.drops
            for way in (link.forward, link.backward)
            for i in (way, *(episode.becomes for episode in way.schedule))
        )
        found = load.end.get("disciplines", {}).get(f"{link.name}.wire", ())
        if asked or not found:
            continue
        dropped = max(int(one.get("dropped", 0)) for one in found)
        packets = sum(int(one.get("packets", 0)) for one in found)
        what = f"a queue of link '{link.name}' dropped {dropped} packets that should all pass"
        yield from _few(dropped, packets, what)


def _samplers(recording: Recording) -> Iterator[Doubt]:
    seen: set[int] = set()
    for name in recording.files("tcp_info/*.jsonl"):
        lines = tuple(_objects(recording.text(name)))
        if not lines or "end_ns" not in lines[-1] or lines[0].get("busy"):
            continue
        end, nodes = lines[-1], len(lines[0].get("nodes", ())) or 1
        if end["end_ns"] in seen:  # one sampler writes a file for each of its nodes
            continue
        seen.add(end["end_ns"])
        moments = end["samples"] / nodes + end["missed"]
        if end["missed"] > MISSED * moments:
            share = end["missed"] / moments
            yield Doubt("suspect", f"the tcp_info sampler missed {share:.0%} of its moments")


def _topology(recording: Recording) -> Topology | None:
    try:
        return yaml.loads(recording.text(TOPOLOGY), TOPOLOGY)
    except (RecordingError, TopologyError):
        return None


def _record(recording: Recording, name: str) -> Json:
    try:
        found: object = json.loads(recording.text(name))
    except (RecordingError, ValueError):
        return {}
    return cast("Json", found) if isinstance(found, dict) else {}


def _objects(text: str) -> Iterator[Json]:
    """Yield the objects of JSON lines; nothing after a damaged one."""
    for line in text.splitlines():
        try:
            found: object = json.loads(line)
        except ValueError:
            return
        if isinstance(found, dict):
            yield cast("Json", found)
