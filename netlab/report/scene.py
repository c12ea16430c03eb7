"""What a page shows of one recording, or of captures alone, as plain data.

A *scene* is made of *passages* (every packet with the points that saw it, see
`netlab.analysis.journey`), kept as columns so that a hundred thousand of them stay small, and of
what was recorded beside: samples of tcp_info, states, the journal of the wires, marks of time.
The octets of the headers travel apart, in one blob; `octets` in a passage is its place there,
their number, and which of the `links` they begin with.

Times are nanoseconds after `start_ns`, the first packet or event. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from netlab.analysis import datagrams, fates, frames, histories, journey, points, segments
from netlab.analysis.capture import Summary, summarize
from netlab.analysis.concerned import Concerned
from netlab.analysis.datagrams import Datagram
from netlab.analysis.evidence import Evidence, NoEvidenceError
from netlab.analysis.findings import Finding
from netlab.analysis.journey import Conversation, Journeys, Packet, Passage
from netlab.analysis.samples import Samples
from netlab.analysis.segments import Segment
from netlab.analysis.states import History, reconstruct
from netlab.errors import NetlabError
from netlab.recording import Recording

MOST = 120_000
"""Passages of one scene; of larger captures the connections with findings come first."""
LARGEST = 2_000_000
"""Segments of a connection that are looked at in order to show the first `MOST`."""
SNAP, TUNNELLED = 160, 320
"""Octets kept of a packet, and of a segment in a tunnel: all its headers, for the inspector."""
REBUILT = 20
"""Connections whose states are told."""
LONGEST = 5_000
"""Segments of a connection whose states are told."""
DRAWN = 4_000
"""Samples of one socket that are drawn; more are thinned out evenly."""

SAMPLED = (
    "snd_cwnd", "snd_ssthresh", "rtt", "rttvar", "rto", "unacked", "snd_wnd", "delivery_rate",
    "retrans", "lost", "sacked", "min_rtt", "notsent_bytes", "pacing_rate", "snd_mss", "rcv_space",
)  # fmt: skip
"""Figures of tcp_info that are drawn, by the kernel's names without prefix."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene as JSON-ready data, and the octets of its packets.

    `places` has the number of a passage by capture point and frame.
    """

    name: str
    data: Mapping[str, Any]
    octets: bytes
    places: Mapping[tuple[str, int], int]

    def passages(self, point: str, frames: Iterable[int]) -> list[int]:
        """Return the passages that a point saw as these frames; what is left out is not there."""
        found = (self.places.get((point, frame)) for frame in frames)
        return sorted({number for number in found if number is not None})


@dataclass(slots=True)
class Captured:
    """One capture as a scene needs it: what is in it, and rows of segments by frame number.

    `findings` stand with the frames they speak of; `octets` have the layer that they begin with.
    """

    path: Path
    findings: Sequence[tuple[Finding, tuple[int, ...]]]
    packets: Sequence[Packet]
    rows: Mapping[int, int]
    columns: Mapping[str, Sequence[Any]]
    octets: Mapping[int, tuple[str, bytes]]
    left_out: int = 0


_ROW = (
    "window", "analysis", "ack_rtt_ns", "bytes_in_flight", "sack", "dsack", "checksum", "ip_ttl",
    "frame_len", "duplicate_ack_num", "initial_rtt_ns",
)  # fmt: skip


def look(path: Path) -> Captured:
    """Read a capture as far as a scene shows it; CaptureError if it is none."""
    summary = summarize(path)
    total = sum(_counts(summary).values())
    kept: bool | list[int] = True if total <= MOST else _choose(summary)
    detailed = summarize(path, segments=kept, checksums=True)
    table = detailed.segments()
    found: Sequence[Packet] = segments.of_summary(detailed, untimed=True)
    shown = found[:MOST]
    layer = dict(zip(table.column("frame"), table.column("layer"), strict=True))
    others = datagrams.load(path) if total <= MOST else ()
    wanted = {packet.frame for packet in (*shown, *others)}
    octets = {
        frame.number: (frame.link, frame.data[: TUNNELLED if layer.get(frame.number) else SNAP])
        for frame in frames.read(path, count=max(wanted, default=0), snap=TUNNELLED)
        if frame.number in wanted
    }
    concerned = Concerned(detailed, others)
    return Captured(
        path,
        [(finding, concerned.frames(finding)) for finding in detailed.findings()],
        journey.in_order((*shown, *others), untimed=detailed.totals["untimed"] > 0),
        {frame: row for row, frame in enumerate(table.column("frame"))},
        {name: table.column(name) for name in _ROW},
        octets,
        max(0, total - len(shown)),
    )


def _choose(summary: Summary) -> list[int]:
    """Return streams of at most `MOST` segments together: those with findings, then in order."""
    count = _counts(summary)
    notable = [stream for finding in summary.findings() for stream in finding.streams]
    chosen: list[int] = []
    room = MOST
    for stream in dict.fromkeys([*notable, *count]):
        if count.get(stream, MOST + 1) <= room:
            chosen.append(stream)
            room -= count[stream]
    if not chosen and count:
        chosen = [s for s in sorted(count, key=count.__getitem__)[:1] if count[s] <= LARGEST]
    return chosen


def _counts(summary: Summary) -> dict[int, int]:
    """Return how many segments each TCP stream has."""
    names = ("proto", "stream", "orig_pkts", "resp_pkts")
    rows = zip(*map(summary.flows.column, names), strict=True)
    return {stream: orig + resp for proto, stream, orig, resp in rows if proto == "tcp"}


# -- a scene ----------------------------------------------------------------------------------


def of_captures(name: str, paths: Mapping[str, Path]) -> Scene:
    """Return the scene of one capture, or of several by the names of their points."""
    captured = {point: look(path) for point, path in paths.items()}
    return _scene(name, captured, points.Known(homes={}, ended_early=(), filters={}))


def of_recording(recording: Recording) -> Scene:
    """Return the scene of a recording; what it does not hold is not in the scene."""
    evidence = Evidence(recording)
    found = tuple(points.of(evidence))
    captured = {point.name: look(point.path) for point in found}
    start = _start(captured, evidence)
    wires, drops = _wires(recording, start)
    beside: dict[str, Any] = {
        "marks": _marks(evidence, start),
        "samples": _sampled(recording, evidence, start),
        "fates": wires,
    }
    name = recording.manifest.variation or recording.manifest.run

    def told(
        segments_by_point: Mapping[str, Sequence[Segment]], one: Conversation
    ) -> History | None:
        by_node = {point.partition(":")[0]: rows for point, rows in segments_by_point.items()}
        try:
            nodes = histories.nodes_of(recording.text("topology.resolved.json"))
            return histories.history(evidence, by_node, nodes, one.answerer[1])
        except (NetlabError, OSError, ValueError):
            return _told_by_segments(segments_by_point, one)

    return _scene(name, captured, points.known(recording, found), beside, told, drops)


def _start(captured: Mapping[str, Captured], evidence: Evidence) -> int:
    times = [one.packets[0].time_ns for one in captured.values() if one.packets]
    return min(times, default=min((e.at_ns for e in evidence.timeline), default=0))


def _scene(
    name: str,
    captured: Mapping[str, Captured],
    known: points.Known,
    beside: Mapping[str, Any] | None = None,
    told: Told | None = None,
    drops: Sequence[fates.Drop] = (),
) -> Scene:
    ways = journey.follow({point: one.packets for point, one in captured.items()}, **known)
    times = [one.packets[0].time_ns for one in captured.values() if one.packets]
    start = min(times, default=0)
    places = list(captured)
    octets = bytearray()
    links = sorted({link for one in captured.values() for link, _ in one.octets.values()})
    data: dict[str, Any] = {
        "name": name,
        "start_ns": str(start),
        "points": places,
        "links": links,
        "conversations": _conversations(ways, places, known["homes"]),
        "passages": {
            **_passages(ways, captured, places, start, links, octets),
            "why": _reasons(ways, drops),
        },
        "left_out": sum(one.left_out for one in captured.values()),
        "histories": list(_histories(ways, captured, start, told or _told_by_segments)),
        **(beside or {}),
    }
    seen = {
        (sight.point, sight.frame): number
        for number, passage in enumerate(ways.passages)
        for sight in passage.sights
    }
    made = Scene(name, data, bytes(octets), seen)
    data["findings"] = list(_findings(captured, made))
    return made


def _conversations(
    ways: Journeys, places: Sequence[str], homes: Mapping[str, str]
) -> list[dict[str, Any]]:
    count: dict[int, int] = {}
    protocol: dict[int, str] = {}
    about: dict[int, datagrams.Ends] = {}
    for passage in ways.passages:
        number, packet = passage.conversation, passage.packet
        count[number] = count.get(number, 0) + 1
        protocol.setdefault(number, packet.protocol if isinstance(packet, Datagram) else "TCP")
        if isinstance(packet, Datagram) and packet.about is not None:
            about.setdefault(number, packet.about)
    by_ends = {
        frozenset({one.opener, one.answerer}): one.number
        for one in ways.conversations
        if protocol.get(one.number) != "ICMP"
    }
    return [
        {
            "number": one.number,
            "protocol": protocol[one.number],
            "opener": _end(*one.opener),
            "answerer": _end(*one.answerer),
            "ports": [one.opener[1], one.answerer[1]],
            "points": [places.index(point) for point in one.points],
            "homes": [
                places.index(homes[end[0]]) if end[0] in homes else None
                for end in (one.opener, one.answerer)
            ],
            "stream": _stream(one),
            "count": count[one.number],
            "about": by_ends.get(about[one.number]) if one.number in about else None,
        }
        for one in ways.conversations
    ]


def _stream(one: Conversation) -> int:
    return next(iter(one.streams.values()))


def _end(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _passages(
    ways: Journeys,
    captured: Mapping[str, Captured],
    places: Sequence[str],
    start: int,
    links: Sequence[str],
    octets: bytearray,
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in (
        "conversation", "forward", "flags", "seq", "ack", "length", "window", "analysis", "rtt",
        "flight", "sack", "checksum", "repeats", "copy", "lost", "text", "sights", "octets",
    )}  # fmt: skip
    place = {point: at for at, point in enumerate(places)}
    for passage in ways.passages:
        _append(columns, passage, captured, place, start, links, octets)
    return columns


def _reasons(ways: Journeys, drops: Sequence[fates.Drop]) -> dict[int, str]:
    """Return why packets were lost, where a wire tells, by their number."""
    return {n: drop.text for n, drop in fates.explain(ways.passages, drops).items()}


def _relative(sack: Sequence[int] | None, segment: Packet) -> list[int] | None:
    """Return the edges of SACK blocks counted from the first number, as `ack` is."""
    if not sack or isinstance(segment, Datagram):
        return None
    return [segment.ack + _distance(edge, segment.ack_raw) for edge in sack]


def _distance(number: int, other: int) -> int:
    """Return how far one number is after another, modulo 2^32 (RFC 9293 §3.4)."""
    return (number - other + 2**31) % 2**32 - 2**31


def _append(
    columns: dict[str, list[Any]],
    passage: Passage,
    captured: Mapping[str, Captured],
    place: Mapping[str, int],
    start: int,
    links: Sequence[str],
    octets: bytearray,
) -> None:
    packet, first = passage.packet, passage.sights[0]
    source = captured[first.point]
    tcp = not isinstance(packet, Datagram)
    row = source.rows.get(packet.frame) if tcp else None
    link, kept = source.octets.get(packet.frame, ("", b""))

    def of(name: str) -> Any:
        return None if row is None else source.columns[name][row]

    values = {
        "conversation": passage.conversation,
        "forward": int(passage.forward),
        "flags": 0 if isinstance(packet, Datagram) else packet.flags,
        "seq": packet.seq,
        "ack": 0 if isinstance(packet, Datagram) else packet.ack,
        "length": packet.length,
        "window": of("window") or 0,
        "analysis": of("analysis") or 0,
        "rtt": of("ack_rtt_ns"),
        "flight": of("bytes_in_flight"),
        "sack": _relative(of("sack"), packet),
        "checksum": of("checksum"),
        "repeats": passage.repeats,
        "copy": passage.copy_of,
        "lost": -1 if passage.lost_after is None else place[passage.lost_after],
        "text": packet.text if isinstance(packet, Datagram) else None,
        "sights": [v for s in passage.sights for v in (place[s.point], s.time_ns - start, s.frame)],
        "octets": [len(octets), len(kept), links.index(link)] if kept else None,
    }
    octets += kept
    for name, value in values.items():
        columns[name].append(value)


def _findings(captured: Mapping[str, Captured], made: Scene) -> Iterator[dict[str, Any]]:
    """Yield what stands out in each capture, its display filter and the passages it is about."""
    for point, one in captured.items():
        for finding, concerned in one.findings:
            yield {
                "point": point,
                "severity": finding.severity,
                "sentence": finding.sentence,
                "filter": finding.filter,
                "passages": made.passages(point, concerned),
            }


Told = Callable[[Mapping[str, Sequence[Segment]], Conversation], History | None]
"""Tells the states of a conversation by its segments at each point, and what else is known."""


def _told_by_segments(
    segments_by_point: Mapping[str, Sequence[Segment]], one: Conversation
) -> History | None:
    point = next((p for p in one.points if segments_by_point.get(p)), None)
    return None if point is None else reconstruct(segments_by_point[point])


def _histories(
    ways: Journeys, captured: Mapping[str, Captured], start: int, told: Told
) -> Iterator[dict[str, Any]]:
    """Yield the states of both ends of the first conversations that are not too long."""
    for one in islice((c for c in ways.conversations if min(c.streams.values()) >= 0), REBUILT):
        rows = {
            point: [
                packet
                for packet in captured[point].packets
                if isinstance(packet, Segment) and packet.stream == stream
            ]
            for point, stream in one.streams.items()
        }
        if max(map(len, rows.values())) > LONGEST:
            continue
        history = told(rows, one)
        if history is not None:
            yield {"conversation": one.number, **_since(history.record(), start)}


def _since(record: dict[str, Any], start: int) -> dict[str, Any]:
    """Return the record of a history with times after `start`."""

    def moved(at: int | None) -> int | None:
        return None if at is None else at - start

    for span in record["spans"]:
        span["from"], span["to"] = moved(span.pop("from_ns")), moved(span.pop("to_ns"))
    for change in record["transitions"]:
        change["at"] = moved(change.pop("at_ns"))
    return record


# -- what was recorded beside -----------------------------------------------------------------


def _marks(evidence: Evidence, start: int) -> list[dict[str, Any]]:
    """Return the phases and snapshots of a run as marks of time."""
    found: list[dict[str, Any]] = []
    for phase in evidence.recording.phases():
        found.append({"at": phase.start_ns - start, "kind": "phase", "label": phase.name})
    for event in evidence.events("snapshot"):
        label = f"ss on {event.fields.get('node')}: {event.fields.get('label')}"
        found.append({"at": event.at_ns - start, "kind": "snapshot", "label": label})
    return sorted(found, key=lambda mark: mark["at"])


def _sampled(recording: Recording, evidence: Evidence, start: int) -> list[dict[str, Any]]:
    """Return the tcp_info of each connection over time, as columns."""
    found: list[dict[str, Any]] = []
    for name in recording.files("tcp_info/*.jsonl"):
        node = Path(name).stem
        try:
            found += _sockets(node, evidence.samples(node), start)
        except NoEvidenceError:
            continue
    return found


def _sockets(node: str, samples: Samples, start: int) -> list[dict[str, Any]]:
    series: dict[tuple[Any, ...], list[tuple[int, str, Mapping[str, Any]]]] = {}
    for sample in samples.samples:
        for one in sample.sockets:
            if one.state not in ("LISTEN", "UNCONN"):
                ends = (one.local, one.lport, one.remote, one.rport)
                series.setdefault(ends, []).append((sample.at_ns - start, one.state, one.info))
    found: list[dict[str, Any]] = []
    for (local, lport, remote, rport), rows in islice(series.items(), 200):
        step = -(-len(rows) // DRAWN)
        thin = rows[::step] if rows[-1] is rows[::step][-1] else [*rows[::step], rows[-1]]
        figures = {
            name: [info.get(name) for _, _, info in thin]
            for name in SAMPLED
            if any(info.get(name) is not None for _, _, info in thin)
        }
        found.append(
            {
                "node": node,
                "local": _end(local, lport),
                "remote": _end(remote, rport),
                "ports": [lport, rport],
                "at": [at for at, _, _ in thin],
                "state": [state for _, state, _ in thin],
                "figures": figures,
            }
        )
    return found


def _wires(recording: Recording, start: int) -> tuple[list[dict[str, Any]], list[fates.Drop]]:
    """Return what each userspace wire did, and every packet that one did not pass on.

    `inside` has (time, packets inside) where that number changes, thinned to `DRAWN` points.
    """
    found: list[dict[str, Any]] = []
    drops: list[fates.Drop] = []
    for book, records in fates.books(recording):
        mine = fates.drops(book, records)
        steps = [
            step
            for one in records
            if not one.dropped
            for step in ((one.arrival_ns - start, 1), (one.departure_ns - start, -1))
        ]
        inside: list[list[int]] = []
        level = 0
        for at, step in sorted(steps):
            level += step
            inside.append([at, level])
        thin = -(-len(inside) // DRAWN) or 1
        found.append(
            {
                "link": book.link,
                "seed": str(book.seed),
                "drops": [[d.at_ns - start, d.verdict.name.lower()] for d in mine[:DRAWN]],
                "inside": inside[::thin],
            }
        )
        drops += mine
    return found, drops
