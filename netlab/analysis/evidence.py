"""Evidence: a lazy, typed, read-only view of a Recording.

What is not there raises `NoEvidenceError`, which a judge turns into "inconclusive": a check need
not ask whether a file exists before it looks into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from netlab.analysis import calibration, conntrack, counters, frames, output, samples, segments, ss
from netlab.analysis.frames import Frame
from netlab.analysis.output import Step
from netlab.analysis.samples import Samples
from netlab.analysis.segments import Segment
from netlab.errors import NetlabError, RecordingError, TopologyError
from netlab.model import yaml
from netlab.recording import Recording
from netlab.recording.directory import TOPOLOGY
from netlab.recording.timeline import Event, Phase

if TYPE_CHECKING:
    from netlab.analysis.states import History

_T = TypeVar("_T")


class NoEvidenceError(NetlabError):
    """A recording does not hold what a check wants to look at."""

    exit_code = 6


class CaptureEvidence:
    """One capture of a recording."""

    def __init__(self, name: str, path: Path, counts: Mapping[str, Any]) -> None:
        self.name = name
        self.path = path
        self.counts = counts

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The TCP segments in the order in which they were captured."""
        return segments.load(self.path)

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """Every frame with its octets, TCP or not, to be decoded by `Frame.packet`."""
        return tuple(frames.read(self.path))

    @property
    def dropped(self) -> int:
        """Packets that passed the filter and are not in the file."""
        return int(self.counts.get("dropped_by_kernel", 0)) + int(
            self.counts.get("dropped_by_interface", 0)
        )

    def on_port(self, port: int) -> tuple[Segment, ...]:
        """Return the segments from or to a port; NoEvidenceError if there is none."""
        found = segments.of_port(self.segments, port)
        if not found:
            raise NoEvidenceError(f"the capture {self.name} has no segment of port {port}")
        return found


class Evidence:
    """What one run left behind, for checks to look at."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    @property
    def variation(self) -> str:
        """The variation that ran."""
        return self.recording.manifest.variation or ""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options the scenario was given."""
        return self.recording.manifest.options

    @property
    def pace(self) -> int:
        """By what the rates of the lab's links were divided, for the sake of a slow machine."""
        return self.recording.manifest.pace

    @staticmethod
    def first(items: Iterable[_T], what: str) -> _T:
        """Return the first of `items`; NoEvidenceError, which names `what`, if there is none."""
        for item in items:
            return item
        raise NoEvidenceError(f"the recording does not show {what}")

    def option(self, name: str) -> Any:
        """Return an option of the scenario; NoEvidenceError if it was not given."""
        if name not in self.options:
            raise NoEvidenceError(f"the run had no option '{name}'")
        return self.options[name]

    @cached_property
    def timeline(self) -> tuple[Event, ...]:
        """What happened, in order."""
        return self.recording.timeline()

    def events(self, kind: str, **fields: object) -> tuple[Event, ...]:
        """Return the events of a kind whose fields are as given."""
        return tuple(
            event
            for event in self.timeline
            if event.kind == kind
            and all(event.fields.get(name) == value for name, value in fields.items())
        )

    def event(self, kind: str, **fields: object) -> Event:
        """Return the first such event; NoEvidenceError if there is none."""
        return _first(self.events(kind, **fields), f"the timeline has no {kind} {fields or ''}")

    def phase(self, name: str) -> Phase:
        """Return a phase; NoEvidenceError if the run never came to it."""
        found = tuple(phase for phase in self.recording.phases() if phase.name == name)
        return _first(found, f"the run has no phase '{name}'")

    def capture(self, name: str) -> CaptureEvidence:
        """Return the capture called `name`, such as "client:eth0"."""
        stem = name.replace(":", ".")
        try:
            path = self.recording.file(f"captures/{stem}.pcap")
        except RecordingError as error:
            raise NoEvidenceError(error.message) from None
        return CaptureEvidence(name, path, self._json(f"captures/{stem}.json"))

    def idle_round_trip(self, link: str) -> float:
        """Return the seconds there and back over a link that nobody else used, before the run.

        NoEvidenceError where that was not measured: the link is not impaired, or somebody said
        --no-calibrate.
        """
        try:
            ways = calibration.read(self.recording).get(link)
            topology = yaml.loads(self.recording.text(TOPOLOGY), TOPOLOGY)
            found = next((one for one in topology.links if one.name == link), None)
            took = calibration.round_trip(ways, found.ways) if ways and found else None
        except (RecordingError, TopologyError) as error:
            raise NoEvidenceError(error.message) from None
        if took is None:
            raise NoEvidenceError(f"the idle round trip of link '{link}' was not measured")
        return took

    def snapshot(self, label: str, node: str) -> tuple[ss.Socket, ...]:
        """Return what `ss` showed on a node when the snapshot `label` was taken."""
        name = f"snapshots/{label}.{node}.ss.txt"
        try:
            return ss.parse(self._text(name))
        except ValueError as error:
            raise NoEvidenceError(f"{name}: {error}") from None

    def snapshots(self, node: str) -> Mapping[str, tuple[ss.Socket, ...]]:
        """Return every snapshot of a node by its label, in the order in which they were taken."""
        labels = (str(event.fields.get("label")) for event in self.events("snapshot", node=node))
        return {label: self.snapshot(label, node) for label in labels}

    def samples(self, node: str) -> Samples:
        """Return the tcp_info samples of a node."""
        name = f"tcp_info/{node}.jsonl"
        try:
            return samples.parse(self._text(name), node)
        except (ValueError, KeyError, TypeError) as error:
            raise NoEvidenceError(f"{name}: {error}") from None

    def counters(self, label: str, node: str) -> Mapping[str, int]:
        """Return the kernel's counters of a node as they were at `label`."""
        return counters.parse(self._text(f"counters/{label}.{node}.txt"))

    def counted(
        self, node: str, name: str, *, since: str = "before", until: str = "after"
    ) -> int | None:
        """Return by how much a counter grew between two labels; None if the kernel has none."""
        first, last = self.counters(since, node), self.counters(until, node)
        if name not in last:
            return None
        return last[name] - first.get(name, 0)

    def conntrack(self, label: str, node: str) -> tuple[conntrack.Entry, ...]:
        """Return the TCP connections that a node tracked at `label`."""
        return conntrack.parse(self._text(f"conntrack/{label}.{node}.txt"))

    def states(self, node: str, port: int) -> frozenset[str]:
        """Return every state in which a connection of `port` was seen on a node.

        By `ss` snapshots and by the sampler, whichever there are; NoEvidenceError if neither.
        """
        seen: set[str] = set()
        looked = False
        for sockets in self.snapshots(node).values():
            looked = True
            seen |= {s.state for s in sockets if port in (s.local.port, s.peer.port)}
        if self.recording.has(f"tcp_info/{node}.jsonl"):
            looked = True
            seen |= {state for _, state in self.samples(node).states(port)} - {"CLOSED"}
        if not looked:
            raise NoEvidenceError(f"nobody looked at the sockets of {node}")
        return frozenset(seen - {"LISTEN"})

    def history(self, port: int, connection: int = 0) -> History:
        """Return the states of both ends of a connection of `port`, numbered from 0, over time.

        From every capture of a node's interface, every snapshot and every sample, together.
        NoEvidenceError if no capture shows the connection.
        """
        from netlab.analysis import histories

        found = histories.history(self, self._captured(), self._nodes, port, connection)
        if found is None:
            raise NoEvidenceError(f"no capture shows connection {connection} of port {port}")
        return found

    def text(self, node: str, program: str, stream: str = "stdout") -> str:
        """Return what a program printed."""
        return self._text(f"nodes/{node}/{program}.{stream}.log")

    def steps(self, node: str, program: str) -> tuple[Step, ...]:
        """Return the steps that one of netlab's own programs printed."""
        return output.parse(self.text(node, program))

    def step(self, node: str, program: str, word: str) -> Step:
        """Return the first step that begins with `word`; NoEvidenceError if it never came."""
        found = tuple(step for step in self.steps(node, program) if step.word == word)
        return _first(found, f"{program} on {node} never said '{word}'")

    def _captured(self) -> dict[str, Sequence[Segment]]:
        """Return the segments of the first capture of each node that is called after its place."""
        found: dict[str, Sequence[Segment]] = {}
        for event in self.events("capture-start"):
            node, colon, _ = str(event.fields["name"]).partition(":")
            if colon:
                found.setdefault(node, self.capture(str(event.fields["name"])).segments)
        return found

    @cached_property
    def _nodes(self) -> dict[str, str]:
        from netlab.analysis import histories

        return histories.nodes_of(self._text("topology.resolved.json"))

    def _text(self, name: str) -> str:
        try:
            return self.recording.text(name)
        except RecordingError as error:
            raise NoEvidenceError(str(error)) from None

    def _json(self, name: str) -> Mapping[str, Any]:
        try:
            return json.loads(self._text(name))
        except (NoEvidenceError, ValueError):
            return {}


def _first(found: tuple[_T, ...], otherwise: str) -> _T:
    if not found:
        raise NoEvidenceError(otherwise)
    return found[0]
