"""Impairments of a lab that runs: what they are, and changing them without losing a packet.

The supervisor's state remembers for each impaired link what its file asked for, what is in force
and which queue disciplines that made (`impairments`), in the words of a topology file. A change is
a `Transition` (netlab.plan.qdiscs): disciplines that stay are changed in place. A link whose back
end is the wire is told its new settings, which hold for what arrives from then on.

A change for a while (`Wish.until`) is taken back by the lab itself, so that the command need not
live: the wire is told both settings at once; for netem an agent in the node holds the requests that
go back, and is started before anything changes. The state says what comes `then`.

A link without impairments has no hidden middle node. There the disciplines go where packets leave
the sending node itself, which is right for a router or switch; a host's own TCP is told of what is
dropped there (see docs/impairments.md), so `Direction.own_stack` says so.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netlab.engine import channel, netlink, timetable, wires
from netlab.engine.apply import apply, indexes_of
from netlab.engine.lifecycle import logs
from netlab.engine.lower import place
from netlab.engine.node import RunningNode
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
    """One direction of a link of a lab that runs; `node` and `dev` are where it is impaired.

    `then` is what comes after `until` (CLOCK_MONOTONIC, s), where `now` holds only for a while.
    """

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
    then: Impairment | None = None
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a direction shall do; with `then`, only until an instant (CLOCK_MONOTONIC, s)."""

    direction: Direction
    now: Impairment
    then: Impairment | None = None
    until: float = 0.0


def wish(
    direction: Direction,
    settings: Mapping[str, Any],
    *,
    only: bool = False,
    seconds: float | None = None,
) -> Wish:
    """Return the wish to change some settings, or with `only` all of them, for good or a while.

    What is for good also holds after what is in force for a while, and does not prolong it.
    """
    now = parse(settings, PERFECT if only else direction.now)
    if seconds is not None:
        then = direction.now if direction.then is None else direction.then
        return Wish(direction, now, then, time.monotonic() + seconds)
    if direction.then is None:
        return Wish(direction, now)
    return Wish(
        direction, now, parse(settings, PERFECT if only else direction.then), direction.until
    )


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


def reachable(lab: Lab, direction: Direction) -> bool:
    """Tell whether a direction can be changed: a wire may have ended."""
    return direction.backend != Backend.WIRE or wires.is_alive(lab.folder, direction.link)


def own_qdiscs(lab: Lab, node: str) -> tuple[AddQdisc, ...]:
    """Return what makes anew the disciplines that `change` has put on a node's own interfaces."""
    return tuple(
        AddQdisc(direction.node, direction.dev, qdisc)
        for direction in directions(lab)
        if direction.node == node and direction.shapes and not direction.hidden
        for qdisc in chain(direction.then or direction.now, direction.mtu)
    )


def _of(lab: Lab, name: str, link: Json) -> Iterable[Direction]:
    a, b = link["ends"]
    ways = ((FORWARD, a, b, MIDDLE[0][1]), (BACKWARD, b, a, MIDDLE[0][0]))
    for way, sender, receiver, port in ways:
        told = link.get(way, {"asked": {}, "now": {}, "shapes": []})
        then, until = told.get("then"), told.get("until", 0.0)
        if then is not None and until <= time.monotonic():
            told, then = {**told, **then}, None
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
            then=None if then is None else parse(then["now"]),
            until=until,
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


def change(lab: Lab, wishes: Sequence[Wish]) -> bool:
    """Put wishes into force; False when packets that waited in a queue are lost by it."""
    for wish in wishes:
        _refuse_impossible(wish)
    steps = [(wish, _step(wish)) for wish in wishes]
    state: Json = json.loads(json.dumps(lab.state.get("impairments", {})))
    for wish, step in steps:
        if wish.direction.backend == Backend.WIRE or step.operations or step.back:
            _write_down(state, wish, step)
    operations = [operation for _, step in steps for operation in step.operations]
    wired = [wish for wish in wishes if wish.direction.backend == Backend.WIRE]
    if not operations and not wired:
        return True
    forget_agents(lab, [wish.direction for wish in wishes])
    for wish, step in steps:
        if step.back:
            _start_agent(lab, wish, step.back)
    for wish in wired:
        _tell_wire(lab, wish)
    apply(lab, operations, describe={"impairments": state})
    return not any(step.loses for _, step in steps)


@dataclass(frozen=True, slots=True)
class _Step:
    """What netem needs for a wish: operations now, and those that go back."""

    operations: tuple[Operation, ...] = ()
    shapes: tuple[str, ...] = ()
    back: tuple[Operation, ...] = ()
    shapes_then: tuple[str, ...] = ()
    loses: bool = False


def _refuse_impossible(wish: Wish) -> None:
    direction = wish.direction
    reason = None
    for impairment in (wish.now, wish.then):
        if impairment is not None and reason is None:
            if direction.backend == Backend.WIRE:
                reason = wire.refusal(impairment, direction.mtu)
            else:
                reason = refusal(impairment, platform.release())
    if direction.asked.schedule:
        reason = "it follows a schedule, which would undo the change"
    if reason is not None:
        raise UsageError(f"link '{direction.link}': {reason}")


def _step(wish: Wish) -> _Step:
    if wish.direction.backend == Backend.WIRE:
        return _Step()
    operations, shapes, loses = _towards(wish.direction, wish.direction.shapes, wish.now)
    if wish.then is None:
        return _Step(operations, shapes, loses=loses)
    back, shapes_then, loses_then = _towards(wish.direction, shapes, wish.then)
    return _Step(operations, shapes, back, shapes_then, loses or loses_then)


def _towards(
    direction: Direction, shapes: tuple[str, ...], impairment: Impairment
) -> tuple[tuple[Operation, ...], tuple[str, ...], bool]:
    """Return the operations towards an impairment, the shapes there then, whether packets go."""
    node, dev = direction.node, direction.dev
    if impairment or direction.hidden:
        way = transition(shapes, impairment, direction.mtu)
        changed = [ChangeQdisc(node, dev, qdisc) for qdisc in way.changed]
        added = [AddQdisc(node, dev, qdisc) for qdisc in way.added]
        return (*changed, *added), way.shapes, way.loses
    return (RemoveQdiscs(node, dev),) if shapes else (), (), False


def _write_down(state: Json, wish: Wish, step: _Step) -> None:
    direction = wish.direction
    link = state.setdefault(
        direction.link, {"ends": [direction.sender, direction.receiver], "mtu": direction.mtu}
    )
    told: Json = {"asked": shaping(direction.asked), "now": shaping(wish.now)}
    told["shapes"] = list(step.shapes)
    if wish.then is not None:
        told["then"] = {"now": shaping(wish.then), "shapes": list(step.shapes_then)}
        told["until"] = wish.until
    link[FORWARD if link["ends"][0] == direction.sender else BACKWARD] = told


def _tell_wire(lab: Lab, wish: Wish) -> None:
    way = {FORWARD: wire.FORWARD, BACKWARD: wire.BACKWARD}[wish.direction.way]
    told: Json = {"direction": way, "settings": wire.settings(wish.now)}
    if wish.then is not None:
        left = max(0.0, wish.until - time.monotonic())
        told |= {"for_ns": round(left * 1e9), "then": wire.settings(wish.then)}
    wires.ask(lab.folder, wish.direction.link, "set", **told)


def _agent(direction: Direction) -> str:
    """Return what the program is called that takes a change of a direction back."""
    return f"tc-{direction.link}-{direction.way}"


def _start_agent(lab: Lab, wish: Wish, back: Iterable[Operation]) -> None:
    direction = wish.direction
    assert wish.then is not None
    index = indexes_of(lab)[direction.node, direction.dev]
    requests: list[bytes] = []
    for operation in back:
        match operation:
            case ChangeQdisc(_, _, qdisc):
                requests.append(place(1, index, qdisc, change=True))
            case AddQdisc(_, _, qdisc):
                requests.append(place(1, index, qdisc))
            case _:
                requests.append(netlink.delete_qdisc(1, index))
    what = f"{direction.way}: {timetable.words(wish.then)}"
    table = [(0.0, what, [netlink.acknowledged(request).hex() for request in requests])]
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        node = RunningNode(direction.node, connection, logs(lab.path))
        timetable.follow(node, _agent(direction), table, keep=True, start=wish.until)


def forget_agents(lab: Lab, changed: Iterable[Direction]) -> None:
    """End the programs that would take earlier changes of these directions back."""
    pending = [d for d in changed if d.then is not None and d.backend != Backend.WIRE]
    if not pending:
        return
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        for direction in pending:
            RunningNode(direction.node, connection, logs(lab.path)).kill(_agent(direction))
