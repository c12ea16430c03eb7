"""A lab that runs, at a glance: nodes, links and connections with their rates.

An agent in the lab (`netlab/agents/overview.py`) reads counters when asked; here two looks become
rates. Wires are asked for what they dropped over their control sockets. Nothing is forked for a
look, and nothing is measured that the kernel does not count anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netlab.engine import live, state, wires
from netlab.engine.channel import Channel, ChannelClosedError
from netlab.engine.live import FORWARD, Direction
from netlab.engine.programs import python_agent, spawn_on
from netlab.engine.reach import connect
from netlab.engine.state import Lab
from netlab.errors import EngineError, NetlabError
from netlab.plan.backend import Backend

Json = dict[str, Any]
PATIENCE = 10.0
_WAYS = {FORWARD: "a_to_b"}


class Counters(NamedTuple):
    """What the kernel counts at an interface."""

    up: bool
    carrier: bool
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    dropped: int


class Queue(NamedTuple):
    """What one direction of a link drops since it is there, and what waits in it now."""

    dropped: int = 0
    packets: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """The counters of a lab at one instant."""

    at_ns: int
    span: float
    interfaces: Mapping[tuple[str, str], Counters]
    queues: Mapping[tuple[str, str], Queue]
    sockets: Mapping[str, Mapping[str, int]]
    absent: frozenset[str]
    flows: tuple[Json, ...]
    took: float


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a link: bits and packets a second that arrive, what is dropped, and waits.

    `limit` is the rate asked for, in bit/s; None where there is none.
    """

    sender: str
    receiver: str
    rate: float
    packets: float
    drops: float
    dropped: int
    queue_packets: int
    queue_bytes: int
    limit: float | None


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link: both directions; up when both its interfaces are."""

    name: str
    up: bool
    forward: Way
    backward: Way


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node: bits and packets a second it receives and sends, drops, sockets by state."""

    name: str
    role: str
    present: bool
    interfaces: int
    rx_rate: float
    tx_rate: float
    rx_packets: float
    tx_packets: float
    drops: float
    dropped: int
    sockets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FlowRow:
    """A connection, at the end that sends most: octets acknowledged a second, in bit/s.

    Times are seconds, `cwnd` and `ssthresh` segments; None where the kernel does not tell.
    """

    node: str
    peer: str
    local: str
    remote: str
    state: str
    rate: float
    cwnd: int | None
    ssthresh: int | None
    rtt: float | None
    min_rtt: float | None
    mss: int | None
    unacked: int
    retransmitted: int
    congestion: str


@dataclass(frozen=True, slots=True)
class View:
    """What a person sees: rows of nodes, links and connections; `span` is what rates are over."""

    lab: str
    at_ns: int
    span: float
    nodes: tuple[NodeRow, ...]
    links: tuple[LinkRow, ...]
    flows: tuple[FlowRow, ...]
    sockets: Mapping[str, int] = field(default_factory=dict[str, int])
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Bits a second over all links, both directions."""
        return sum(link.forward.rate + link.backward.rate for link in self.links)

    @property
    def drops(self) -> float:
        """Packets a second dropped in links and at nodes."""
        ways = sum(link.forward.drops + link.backward.drops for link in self.links)
        return ways + sum(node.drops for node in self.nodes)


class Overview:
    """Looks at a running lab; one that changes meanwhile is followed."""

    def __init__(self, name: str | None) -> None:
        self.lab, self._connection = connect(name)
        self._pipe = _Agent(self._connection)
        self._directions: tuple[Direction, ...] = ()
        self._stamp: int = -1
        self._before: Look | None = None

    def __enter__(self) -> Overview:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the lab; the agent ends with it."""
        self._connection.close()
        self._pipe.close()

    def view(self) -> View:
        """Look, and return what has happened since the look before; ChannelClosedError: it ended.

        The first view has no rates.
        """
        look = self.look()
        before, self._before = self._before, look
        return view(self.lab, self._directions, before or look, look)

    def look(self) -> Look:
        """Return the counters of this moment."""
        asked: Json = {}
        if self._has_changed():
            asked["nodes"] = {
                name: f"net:[{inode}]" for name, inode in self.lab.state["inodes"].items()
            }
            self._directions = live.directions(self.lab)
        answer = self._pipe.ask(asked)
        return _look(answer, self._directions, self._wires())

    def _has_changed(self) -> bool:
        """Read the lab's state again when it was written anew."""
        path = f"{self.lab.folder}/state.json"
        try:
            stamp = os.stat(path).st_mtime_ns  # noqa: PTH116
        except OSError as error:
            raise ChannelClosedError("the lab has ended") from error
        if stamp == self._stamp:
            return False
        found = state.read(self.lab.folder)
        if found is not None:
            self.lab, self._stamp = Lab(self.lab.folder, found), stamp
        return True

    def _wires(self) -> dict[str, Json]:
        """Ask every wire for its counters; one that is gone has none."""
        found: dict[str, Json] = {}
        for name in {d.link for d in self._directions if d.backend == Backend.WIRE}:
            with contextlib.suppress(NetlabError):
                found[name] = wires.ask(self.lab.folder, name, "stats")["links"][name]
        return found


class _Agent:
    """The agent in the lab: a line asks, a line answers."""

    def __init__(self, connection: Channel) -> None:
        theirs, self._ask = os.pipe2(os.O_CLOEXEC)
        self._answer, answers = os.pipe2(os.O_CLOEXEC)
        self._said = os.memfd_create("overview")
        self._received = bytearray()
        try:
            argv = python_agent("overview")
            fds = (theirs, answers, self._said)
            spawn_on(connection, connection.new_tag(), "", "overview", argv, fds)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(theirs)
            os.close(answers)
        self._patience = PATIENCE * connection.patience

    def ask(self, asked: Json) -> Json:
        """Ask for a look; ChannelClosedError when the lab is gone."""
        try:
            os.write(self._ask, json.dumps(asked).encode() + b"\n")
        except BrokenPipeError:
            raise self._gone() from None
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        end = time.monotonic() + self._patience
        while (cut := self._received.find(b"\n")) < 0:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise EngineError(f"the lab did not answer within {self._patience:g} s")
            data = os.read(self._answer, 1 << 20)
            if not data:
                raise self._gone()
            self._received += data
        line = bytes(self._received[:cut])
        del self._received[: cut + 1]
        return json.loads(line)

    def _gone(self) -> EngineError:
        said = os.pread(self._said, 1 << 16, 0).decode(errors="replace").strip()
        if said:
            return EngineError(f"looking at the lab failed: {said.splitlines()[-1]}")
        return ChannelClosedError("the lab has ended")

    def close(self) -> None:
        """Let go of the pipes, which ends it."""
        for fd in (self._ask, self._answer, self._said):
            os.close(fd)


def _look(answer: Json, directions: Iterable[Direction], wired: Mapping[str, Json]) -> Look:
    interfaces: dict[tuple[str, str], Counters] = {}
    disciplines: dict[tuple[str, str], Queue] = {}
    sockets: dict[str, Json] = {}
    for node, found in answer["nodes"].items():
        if found is None:
            continue
        names: dict[int, str] = {}
        for name, index, up, carrier, *counts in found["links"]:
            names[index] = name
            interfaces[node, name] = Counters(bool(up), bool(carrier), *counts)
        for index, _, dropped, packets, octets in found["qdiscs"]:
            if index in names:
                disciplines[node, names[index]] = Queue(dropped, packets, octets)
        sockets[node] = found["sockets"]
    queues: dict[tuple[str, str], Queue] = {}
    for direction in directions:
        queue = disciplines.get((direction.node, direction.dev), Queue())
        wire = wired.get(direction.link, {}).get(_WAYS.get(direction.way, "b_to_a"))
        if wire is not None:
            dropped = sum(count for name, count in wire.items() if name.startswith("dropped_"))
            queue = Queue(dropped, wire["backlog_packets"], wire["backlog_bytes"])
        queues[direction.link, direction.way] = queue
    absent = frozenset(node for node, found in answer["nodes"].items() if found is None)
    span, took = answer["span_ns"] / 1e9, answer["took_ns"] / 1e9
    flows = tuple(answer["flows"])
    return Look(answer["at_ns"], span, interfaces, queues, sockets, absent, flows, took)


def view(lab: Lab, directions: Iterable[Direction], before: Look, now: Look) -> View:
    """Return what happened between two looks at a lab, the second of which holds the span."""
    span = now.span or 1.0
    ways: dict[str, dict[str, Way]] = {}
    for direction in directions:
        ways.setdefault(direction.link, {})[direction.way] = _way(direction, before, now, span)
    links = [
        LinkRow(name, _up(now, both), *both)
        for name, found in ways.items()
        for both in [(found.pop(FORWARD), *found.values())]
    ]
    nodes = [
        _node(name, told["role"], before, now, span)
        for name, told in lab.nodes.items()
        if not told["hidden"]
    ]
    totals: dict[str, int] = {}
    for found in now.sockets.values():
        for name, count in found.items():
            totals[name] = totals.get(name, 0) + count
    flows = _flows(lab, now, span)
    order = {name: place for place, name in enumerate(lab.nodes)}
    links.sort(key=lambda link: [order[end.partition(":")[0]] for end in _ends(link)])
    return View(lab.id, now.at_ns, now.span, tuple(nodes), tuple(links), flows, totals, now.took)


def _ends(link: LinkRow) -> tuple[str, str]:
    return link.forward.sender, link.forward.receiver


def _place(end: str) -> tuple[str, str]:
    node, _, interface = end.partition(":")
    return node, interface


def _up(now: Look, both: tuple[Way, ...]) -> bool:
    ends = [now.interfaces.get(_place(way.sender)) for way in both]
    return all(end is not None and end.up and end.carrier for end in ends)


_NOTHING = Counters(False, False, 0, 0, 0, 0, 0)


def _since(before: Look, now: Look, place: tuple[str, str]) -> Counters:
    """Return what an interface counted between two looks; one that is new began at zero."""
    last = now.interfaces.get(place, _NOTHING)
    first = before.interfaces.get(place, _NOTHING)
    if last.rx_packets < first.rx_packets or last.tx_packets < first.tx_packets:
        first = _NOTHING  # another interface of that name
    counts = (a - b for a, b in zip(last[2:], first[2:], strict=True))
    return Counters(last.up, last.carrier, *counts)


def _way(direction: Direction, before: Look, now: Look, span: float) -> Way:
    counted = _since(before, now, _place(direction.receiver))
    key = direction.link, direction.way
    queue = now.queues.get(key, Queue())
    earlier = before.queues.get(key, Queue()).dropped
    return Way(
        direction.sender,
        direction.receiver,
        rate=8 * counted.rx_bytes / span,
        packets=counted.rx_packets / span,
        drops=max(0, queue.dropped - earlier) / span,
        dropped=queue.dropped,
        queue_packets=queue.packets,
        queue_bytes=queue.octets,
        limit=direction.now.rate or None,
    )


def _node(name: str, role: str, before: Look, now: Look, span: float) -> NodeRow:
    places = [place for place in now.interfaces if place[0] == name]
    counted = [_since(before, now, place) for place in places]
    return NodeRow(
        name,
        role,
        present=name not in now.absent,
        interfaces=len(places),
        rx_rate=8 * sum(c.rx_bytes for c in counted) / span,
        tx_rate=8 * sum(c.tx_bytes for c in counted) / span,
        rx_packets=sum(c.rx_packets for c in counted) / span,
        tx_packets=sum(c.tx_packets for c in counted) / span,
        drops=sum(c.dropped for c in counted) / span,
        dropped=sum(now.interfaces[place].dropped for place in places),
        sockets=now.sockets.get(name, {}),
    )


def _flows(lab: Lab, now: Look, span: float) -> tuple[FlowRow, ...]:
    """Return a row for each connection, told by the end that has sent most, busiest first."""
    owners = {
        address.partition("/")[0]: name
        for name, told in lab.nodes.items()
        for end in told["interfaces"]
        for address in end["addresses"]
    }
    chosen: dict[frozenset[tuple[str, int]], Json] = {}
    for flow in now.flows:
        ends = (flow["local"], flow["lport"]), (flow["remote"], flow["rport"])
        key = frozenset(ends)
        other = chosen.get(key)
        if other is None or flow["acked"] > other["acked"]:
            chosen[key] = flow
    rows = [_flow(flow, owners, span) for flow in chosen.values()]
    return tuple(sorted(rows, key=lambda row: -row.rate))


def _flow(flow: Json, owners: Mapping[str, str], span: float) -> FlowRow:
    local, remote = _bare(flow["local"]), _bare(flow["remote"])
    infinite = 0x7FFFFFFF  # TCP_INFINITE_SSTHRESH
    threshold = flow.get("snd_ssthresh")
    return FlowRow(
        node=flow["node"],
        peer=owners.get(remote, remote),
        local=_endpoint(local, flow["lport"]),
        remote=_endpoint(remote, flow["rport"]),
        state=flow["state"],
        rate=8 * max(flow["acked"], 0) / span,
        cwnd=flow.get("snd_cwnd"),
        ssthresh=None if threshold == infinite else threshold,
        rtt=_seconds(flow.get("rtt")),
        min_rtt=_seconds(flow.get("min_rtt")),
        mss=flow.get("snd_mss"),
        unacked=flow.get("unacked", 0),
        retransmitted=flow.get("total_retrans", 0),
        congestion=flow.get("congestion", ""),
    )


def _bare(address: str) -> str:
    """Return an IPv4 address that an IPv6 socket uses as what it is."""
    return address.removeprefix("::ffff:") if "." in address else address


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _seconds(microseconds: int | None) -> float | None:
    if microseconds is None or not 0 < microseconds < 0xFFFFFFFF:
        return None
    return microseconds / 1e6
