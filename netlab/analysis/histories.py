"""The history of a connection from a whole recording: captures, snapshots and samples together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from netlab.analysis.segments import Segment
from netlab.analysis.states import History, Life, Look, State, endpoints, live

if TYPE_CHECKING:
    from netlab.analysis.evidence import Evidence

End = tuple[str, int]
Ends = tuple[End, End]
_NONE = frozenset({State.CLOSED})
_LISTENS = frozenset({State.LISTEN})
_GONE = _NONE | _LISTENS
DOUBT_NS = 50_000_000
"""How far off a snapshot may be that says only when it was kept, not how long it took."""


def nodes_of(topology: str) -> dict[str, str]:
    """Return the node of every address in a resolved topology (its JSON text)."""
    raw: dict[str, Any] = json.loads(topology)
    return {
        str(ip_interface(address).ip): str(end["node"])
        for link in raw.get("links", ())
        for end in link.get("ends", ())
        for address in end.get("address", ())
    }


def connections(segments: Iterable[Segment], port: int) -> dict[Ends, list[Segment]]:
    """Return the segments of a port by connection: its ends, the one that opened it first."""
    by_stream: dict[int, list[Segment]] = {}
    for segment in segments:
        if port in (segment.sport, segment.dport):
            by_stream.setdefault(segment.stream, []).append(segment)
    found: dict[Ends, list[Segment]] = {}
    for rows in by_stream.values():
        found.setdefault(endpoints(rows[0]), rows)  # of the same ends the first
    return found


def history(
    evidence: Evidence,
    captures: Mapping[str, Sequence[Segment]],
    nodes: Mapping[str, str],
    port: int,
    connection: int = 0,
) -> History | None:
    """Return the history of one connection of a port; None if no capture shows it.

    `captures` are segments by the node where they were captured. Each end is judged by those of
    its own node where there are any.
    """
    shown = {node: connections(segments, port) for node, segments in captures.items()}
    ends = next(
        (list(found)[connection] for found in shown.values() if len(found) > connection), None
    )
    if ends is None:
        return None
    one, other = (_life(evidence, shown, nodes, ends, forward=way) for way in (True, False))
    return History((one, other))


def _life(
    evidence: Evidence,
    shown: Mapping[str, Mapping[Ends, list[Segment]]],
    nodes: Mapping[str, str],
    ends: Ends,
    *,
    forward: bool,
) -> Life:
    local, peer = ends if forward else (ends[1], ends[0])
    turned = (ends[1], ends[0])  # where both open at once, each capture sees its own SYN first
    node = nodes.get(local[0], "")
    own = shown.get(node, {})
    here = ends in own or turned in own
    rows = own if here else next(found for found in shown.values() if ends in found)
    segments = rows[ends] if ends in rows else rows[turned]
    way = forward if ends in rows else not forward
    looks = [
        list(_snapshots(evidence, node, local, peer, segments[0].time_ns)),
        list(_samples(evidence, node, local, peer)),
    ]
    name = node or f"{local[0]}:{local[1]}"
    return live(name, local, segments, looks, forward=way, here=here)


def _snapshots(evidence: Evidence, node: str, local: End, peer: End, began: int) -> Iterator[Look]:
    """Yield what `ss` showed of a connection on a node."""
    for event in evidence.events("snapshot", node=node):
        label = str(event.fields["label"])
        sockets = [s for s in evidence.snapshot(label, node) if s.local.port == local[1]]
        doubt = 0 if "until_ns" in event.fields else DOUBT_NS
        from_ns, to_ns = event.at_ns - doubt, int(event.fields.get("until_ns", event.at_ns)) + doubt
        mine = [s.state for s in sockets if (s.peer.address, s.peer.port) == peer]
        if mine:
            states = frozenset({State.of(mine[0])})
        elif not any(s.state == "LISTEN" for s in sockets):
            states = _NONE
        else:
            states = _LISTENS if to_ns < began else _GONE
        yield Look(states, from_ns, to_ns, f"ss, snapshot {label}")


def _samples(evidence: Evidence, node: str, local: End, peer: End) -> Iterator[Look]:
    """Yield what the sampler saw of a connection on a node; it does not look for listeners."""
    if evidence.recording.has(f"tcp_info/{node}.jsonl"):
        for sample in evidence.samples(node).samples:
            found = [
                s.state
                for s in sample.sockets
                if (s.local, s.lport, s.remote, s.rport) == (*local, *peer)
            ]
            states = frozenset({State.of(found[0])}) if found else _GONE
            yield Look(states, sample.at_ns, sample.at_ns + sample.took_ns, "the sampler")
