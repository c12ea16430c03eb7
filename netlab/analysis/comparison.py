"""What differs between two recordings: their settings, their packets, and what became of those.

Theory of operation. Connections are paired by the order in which they appear at the same capture
point, and their segments one by one, in the order of the wire. Two segments are the same when
direction, flags, relative numbers, length and the options of a SYN agree; times, windows, initial
numbers, ports and time stamps differ between any two runs and count for nothing. The first pair
that is not the same is where the connections diverge: after it, what happens follows from that.
Times are relative to the first segment of the capture, and the largest difference before the
divergence is told, because that is where runs with equal segments differ.

Where several points were captured, the fates of segments are compared too (`analysis.journey`):
the first segment that was lost between the points of one run and not of the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

from netlab.analysis import journey
from netlab.analysis.evidence import Evidence
from netlab.analysis.segments import ACK, Segment
from netlab.errors import NetlabError
from netlab.recording import Recording
from netlab.recording.directory import TOPOLOGY

Shown = tuple[bool, int, int, int | None, int, int | None, int | None, bool]


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same; an empty text stands for one that is not there."""

    what: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Point:
    """A segment where two captures diverge: frame (from 1), seconds since the first segment."""

    frame: int
    seconds: float
    segment: Segment


@dataclass(frozen=True, slots=True)
class Divergence:
    """How the segments of one capture point compare.

    `same` segments agree before the first that does not; None on a side that has no more, None on
    both where none differs. `drift` is the largest difference of relative times, in seconds, over
    those that agree, at the segment of number `drift_at` (from 0).
    """

    where: str
    connection: int
    same: int
    left: Point | None
    right: Point | None
    drift: float
    drift_at: int

    @property
    def diverges(self) -> bool:
        """True where the segments are not all the same."""
        return self.left is not None or self.right is not None


@dataclass(frozen=True, slots=True)
class Fate:
    """The first segment that got lost in one run alone: after which point, on which side."""

    number: int
    left: str
    right: str
    segment: Segment


def settings(left: Recording, right: Recording) -> tuple[Difference, ...]:
    """Return every setting in which two recordings differ: machine, options, sysctls, network."""
    one, other = _settings(left), _settings(right)
    names = dict.fromkeys([*one, *other])
    pairs = ((name, one.get(name, ""), other.get(name, "")) for name in names)
    return tuple(Difference(name, a, b) for name, a, b in pairs if a != b)


def _settings(recording: Recording) -> dict[str, str]:
    m = recording.manifest
    found = {
        "variation": m.variation or "",
        "fault": m.fault or "",
        "kernel": m.kernel,
        "machine": m.machine,
        "HZ": str(m.hz or ""),
        "netlab": m.netlab,
        "backend": m.backend,
        "fidelity": m.fidelity,
    }
    found |= _flat("tool", dict(m.tools))
    found |= _flat("backend", dict(m.backends))
    found |= _flat("option", dict(m.options))
    found |= _flat("seed", dict(m.seeds))
    for node, sysctls in m.sysctls.items():
        found |= {f"{node}: {key}": value for key, value in sysctls.items()}
    return found | _flat("topology", _topology(recording, {*m.sysctls}))


def _topology(recording: Recording, told: set[str]) -> Any:
    """Return the resolved topology, links by name, without sysctls that were read in the run."""
    try:
        raw: Any = json.loads(recording.text(TOPOLOGY))
    except (NetlabError, ValueError):
        return {}
    if not isinstance(raw, dict):
        return {}
    found = cast("dict[str, Any]", raw)
    for name, node in cast("dict[str, Any]", found.get("nodes", {})).items():
        if name in told and isinstance(node, dict):
            cast("dict[str, Any]", node).pop("sysctls", None)
    return found


def _flat(name: str, value: Any) -> dict[str, str]:
    """Return the leaves of nested mappings and lists by their path; named items by their name."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[str, Any]] = (
            (str(k), v) for k, v in cast("Mapping[str, Any]", value).items()
        )
    elif isinstance(value, list):
        parts = cast("list[Any]", value)
        items = ((_name(part, number), part) for number, part in enumerate(parts))
    else:
        return {name: "" if value is None else str(value)}
    return {k: v for key, part in items for k, v in _flat(f"{name}.{key}", part).items()}


def _name(part: Any, number: int) -> str:
    if isinstance(part, Mapping):
        return str(cast("Mapping[str, Any]", part).get("name", number))
    return str(number)


def packets(left: Evidence, right: Evidence) -> tuple[Divergence, ...]:
    """Return, for each capture point that both have and each connection, where they diverge."""
    found: list[Divergence] = []
    one, other = captured(left), captured(right)
    for where in (name for name in one if name in other):
        pairs = zip_longest(_connections(one[where]), _connections(other[where]), fillvalue=())
        for number, (a, b) in enumerate(pairs):
            found.append(_diverge(where, number, a, b, one[where], other[where]))
    return tuple(found)


def captured(seen: Evidence) -> dict[str, tuple[Segment, ...]]:
    """Return the TCP segments of each capture by its point, such as "client:eth0"."""
    found: dict[str, tuple[Segment, ...]] = {}
    for file in seen.recording.files("captures/*.pcap"):
        name = file.removeprefix("captures/").removesuffix(".pcap").replace(".", ":", 1)
        try:
            found[name] = seen.capture(name).segments
        except NetlabError:
            continue
    return found


def _connections(segments: Iterable[Segment]) -> list[Sequence[Segment]]:
    streams: dict[int, list[Segment]] = {}
    for segment in segments:
        streams.setdefault(segment.stream, []).append(segment)
    return list(streams.values())


def _shown(s: Segment) -> Shown:
    """Return what makes two segments the same."""
    ack = s.ack if s.flags & ACK else None
    return (s.forward, s.flags, s.seq, ack, s.length, s.mss, s.wscale, s.sack_permitted)


def _diverge(
    where: str,
    connection: int,
    left: Sequence[Segment],
    right: Sequence[Segment],
    all_left: Sequence[Segment],
    all_right: Sequence[Segment],
) -> Divergence:
    same, drift, drift_at = 0, 0.0, 0
    for a, b in zip(left, right, strict=False):
        if _shown(a) != _shown(b):
            break
        apart = abs(_since(a, all_left) - _since(b, all_right))
        if apart > drift:
            drift, drift_at = apart, same
        same += 1
    one, other = _point(left, same, all_left), _point(right, same, all_right)
    return Divergence(where, connection, same, one, other, drift, drift_at)


def _since(segment: Segment, all_: Sequence[Segment]) -> float:
    return (segment.time_ns - all_[0].time_ns) / 1e9


def _point(segments: Sequence[Segment], number: int, all_: Sequence[Segment]) -> Point | None:
    if number >= len(segments):
        return None
    segment = segments[number]
    return Point(segment.frame, _since(segment, all_), segment)


def fates(left: Evidence, right: Evidence) -> Fate | None:
    """Return the first segment of the first conversation that was lost in one run alone.

    None where there are fewer than two capture points in common, or no such segment.
    """
    one, other = captured(left), captured(right)
    points = [name for name in one if name in other and one[name] and other[name]]
    if len(points) < 2:
        return None
    first, second = (_passages({name: seen[name] for name in points}) for seen in (one, other))
    for number, ((a, lost), (b, lost_too)) in enumerate(zip(first, second, strict=False)):
        if _shown(a) != _shown(b):
            return None  # from here on the two are different stories
        if lost != lost_too:
            return Fate(number, lost, lost_too, a)
    return None


def _passages(captures: Mapping[str, Sequence[Segment]]) -> list[tuple[Segment, str]]:
    """Return the segments of the opening side of the first conversation, and where they got lost.

    An empty text stands for a segment that arrived.
    """
    passages = journey.follow(captures).of(0)
    return [
        (passage.packet, passage.lost_after or "")
        for passage in passages
        if passage.forward and isinstance(passage.packet, Segment)
    ]
