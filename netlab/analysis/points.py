"""Where a run was captured: its capture points, and what is known of them beside their packets."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from netlab.errors import RecordingError

if TYPE_CHECKING:
    from netlab.analysis.evidence import Evidence
    from netlab.recording import Recording


@dataclass(frozen=True, slots=True)
class Point:
    """A captured interface, such as "client:eth0"; `ended_early` when a packet limit stopped it.

    `filter` is what it was asked to capture, "" for everything.
    """

    name: str
    path: Path
    ended_early: bool = False
    filter: str = ""


class Known(TypedDict):
    """What a recording says of its points: what `netlab.analysis.journey.follow` wants to know."""

    homes: Mapping[str, str]
    ended_early: Collection[str]
    filters: Mapping[str, str]


def of(evidence: Evidence) -> Iterator[Point]:
    """Yield the captures of a recording, one for each interface: that with its name comes first."""
    known: set[str] = set()
    files = evidence.recording.files("captures/*.pcap*")
    stems = [name.removeprefix("captures/").rpartition(".pcap")[0] for name in files]
    for stem in sorted(stems, key=lambda stem: ("." not in stem, stem)):
        capture = evidence.capture(stem)
        counts: Mapping[str, Any] = capture.counts
        where = str(counts.get("where", stem.replace(".", ":", 1)))
        if where not in known:
            known.add(where)
            limit = counts.get("count")
            early = bool(limit) and counts.get("captured") == limit
            yield Point(where, capture.path, early, str(counts.get("filter", "")))


def known(recording: Recording, found: Iterable[Point]) -> Known:
    """Return what is known of the points of a recording."""
    found = tuple(found)
    return Known(
        homes=homes(recording, [point.name for point in found]),
        ended_early=[point.name for point in found if point.ended_early],
        filters={point.name: point.filter for point in found},
    )


def homes(recording: Recording, points: Collection[str]) -> dict[str, str]:
    """Return at which of `points` the traffic of each address must be seen: its own interface.

    Empty where the recording does not say what its network was.
    """
    try:
        topology = json.loads(recording.text("topology.resolved.json"))
        ends = [end for link in topology["links"] for end in link["ends"]]
        return {
            address.partition("/")[0]: f"{end['node']}:{end['interface']}"
            for end in ends
            for address in end["address"]
            if f"{end['node']}:{end['interface']}" in points
        }
    except (RecordingError, OSError, ValueError, KeyError, TypeError):
        return {}
