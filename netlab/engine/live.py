"""Impairments of a lab that runs: what they are, and changing them without losing a packet.

The supervisor's state remembers for each impaired link what its file asked for, what is in force
and which queue disciplines that made (`impairments`), in the words of a topology file. A change is
a `Transition` (netlab.plan.qdiscs): disciplines that stay are changed in place. A link whose back
end is the wire is told its new settings, which hold for what arrives from then on.

A link without impairments has no hidden middle node. There the disciplines go where packets leave
the sending node itself, which is right for a router or switch; a host's own TCP is told of what is
dropped there (see docs/impairments.md), so `Direction.own_stack` says so.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netlab.engine import wires
from netlab.engine.apply import apply
from netlab.engine.state import Lab
from netlab.errors import TopologyError, UsageError
from netlab.model.dump import shaping
from netlab.model.impairment import PERFECT, Impairment
from netlab.model.topology import Link, Topology
from netlab.model.yaml import loads
from netlab.plan import wire
from netlab.plan.backend import Backend
from netlab.plan.build import MIDDLE, middle_node
from netlab.plan.operations import AddQdisc, ChangeQdisc, Operation, RemoveQdiscs
from netlab.plan.qdiscs import chain, refusal, transition

Json = dict[str, Any]
FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a link of a lab that runs; `node` and `dev` are where it is impaired."""

    link: str
    way: str
    sender: str
    receiver: str
    node: str
    dev: str
    mtu: int
    asked: Impairment
    now: Impairment
    shapes: tuple[str, ...]
    own_stack: bool
    hidden: bool
    backend: str


def remember(topology: Topology, wired: Collection[str] = ()) -> Json:
    """Return what a lab's state keeps of the impaired links of its topology.

    `wired` are those whose back end is the wire, the others have netem's.
    """
    return {
        link.name: _link(link, wire=link.name in wired)
        for link in topology.links
        if link.forward or link.backward
    }


def _link(link: Link, *, wire: bool) -> Json:
    mtu = max(link.a.mtu, link.b.mtu)
    return {
        "backend": str(Backend.WIRE if wire else Backend.NETEM),
        "ends": [f"{end.node}:{end.name}" for end in link.ends],
        "mtu": mtu,
        "middle": middle_node(link),
        FORWARD: _told(link.forward, link.forward, mtu, wire=wire),
        BACKWARD: _told(link.backward, link.backward, mtu, wire=wire),
    }


def _told(asked: Impairment, now: Impairment, mtu: int, *, wire: bool = False) -> Json:
    shapes = [] if wire or refusal(now) else [qdisc.shape for qdisc in chain(now, mtu)]
    return {"asked": shaping(asked), "now": shaping(now), "shapes": shapes}


def directions(lab: Lab) -> tuple[Direction, ...]:
    """Return both directions of every link, those of impaired links first."""
    known: Json = lab.state.get("impairments", {})
    found = [direction for name, link in known.items() for direction in _of(lab, name, link)]
    plain: dict[str, Json] = {}
    for node, told in lab.nodes.items():
        for end in told["interfaces"]:
            if end.get("link") and end["link"] not in known:
                link = plain.setdefault(end["link"], {"ends": [], "mtu": 0})
                link["ends"].append(f"{node}:{end['name']}")
                link["mtu"] = max(link["mtu"], end["mtu"])
    return (*found, *(d for name, link in plain.items() for d in _of(lab, name, link)))


def own_qdiscs(lab: Lab, node: str) -> tuple[AddQdisc, ...]:
    """Return what makes anew the disciplines that `change` has put on a node's own interfaces."""
    return tuple(
        AddQdisc(direction.node, direction.dev, qdisc)
        for direction in directions(lab)
        if direction.node == node and direction.shapes and not direction.hidden
        for qdisc in chain(direction.now, direction.mtu)
    )


def _of(lab: Lab, name: str, link: Json) -> Iterable[Direction]:
    a, b = link["ends"]
    ways = ((FORWARD, a, b, MIDDLE[0][1]), (BACKWARD, b, a, MIDDLE[0][0]))
    for way, sender, receiver, port in ways:
        told = link.get(way, {"asked": {}, "now": {}, "shapes": []})
        middle = link.get("middle")
        node, _, dev = sender.partition(":")
        yield Direction(
            name, way, sender, receiver,
            node=middle or node,
            dev=port if middle else dev,
            mtu=link["mtu"],
            asked=parse(told["asked"]),
            now=parse(told["now"]),
            shapes=tuple(told["shapes"]),
            own_stack=not middle and lab.nodes[node]["role"] == "host",
            hidden=bool(middle),
            backend=link.get("backend", str(Backend.NETEM)),
        )  # fmt: skip


def counters(lab: Lab, links: Collection[str]) -> Json:
    """Return what the wires of some links have counted, by link and way; others count nothing."""
    known: Json = lab.state.get("impairments", {})
    found: Json = {}
    for link in links:
        if known.get(link, {}).get("backend") == Backend.WIRE:
            told = wires.ask(lab.folder, link, "stats")["links"][link]
            found[link] = {FORWARD: told[wire.FORWARD], BACKWARD: told[wire.BACKWARD]}
    return found


def parse(settings: Mapping[str, Any], base: Impairment = PERFECT) -> Impairment:
    """Return `base` with settings in the words of a topology file; UsageError with each reason."""
    if not settings:
        return base
    ends = {"ends": "a-b", **shaping(base), **settings}
    text = json.dumps({"name": "x", "nodes": ["a", "b"], "links": [ends]})
    try:
        return loads(text, "settings").links[0].forward
    except TopologyError as error:
        reasons = (problem.message.replace(" of link 'a-b'", "") for problem in error.problems)
        raise UsageError("; ".join(reasons)) from error


def change(lab: Lab, wanted: Sequence[tuple[Direction, Impairment]]) -> bool:
    """Put impairments into force; False when packets that waited in a queue were lost by it."""
    operations: list[Operation] = []
    state: Json = json.loads(json.dumps(lab.state.get("impairments", {})))
    lost = False
    told_wires: list[tuple[Direction, Json]] = []
    for direction, impairment in wanted:
        if direction.backend == Backend.WIRE:
            reason = wire.refusal(impairment, direction.mtu)
        else:
            reason = refusal(impairment, platform.release())
        if direction.asked.schedule:
            reason = "it follows a schedule, which would undo the change"
        if reason is not None:
            raise UsageError(f"link '{direction.link}': {reason}")
        shapes: list[str] = []
        if direction.backend == Backend.WIRE:
            told_wires.append((direction, wire.settings(impairment)))
        elif impairment or direction.hidden:
            way = transition(direction.shapes, impairment, direction.mtu)
            node, dev, shapes = direction.node, direction.dev, list(way.shapes)
            operations += [ChangeQdisc(node, dev, qdisc) for qdisc in way.changed]
            operations += [AddQdisc(node, dev, qdisc) for qdisc in way.added]
            lost = lost or way.loses
        elif direction.shapes:
            operations.append(RemoveQdiscs(direction.node, direction.dev))
        else:
            continue
        link = state.setdefault(
            direction.link, {"ends": [direction.sender, direction.receiver], "mtu": direction.mtu}
        )
        same_way = link["ends"][0] == direction.sender
        told = _told(
            direction.asked, impairment, direction.mtu, wire=direction.backend == Backend.WIRE
        )
        told["shapes"] = shapes
        link[FORWARD if same_way else BACKWARD] = told
    for direction, settings in told_wires:
        ways = {FORWARD: wire.FORWARD, BACKWARD: wire.BACKWARD}
        way = ways[direction.way]
        wires.ask(lab.folder, direction.link, "set", direction=way, settings=settings)
    if operations or told_wires:
        apply(lab, operations, describe={"impairments": state})
    return not lost
