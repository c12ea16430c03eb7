"""The `schedule:` of links, carried out: requests made ahead, sent in time by an agent.

Each link with a schedule has one agent in its hidden middle node. It prints what it did and when;
the clock starts when the lab is up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from netlab.engine import netlink
from netlab.engine.channel import Channel
from netlab.engine.lower import Indexes, place
from netlab.engine.node import Running, RunningNode
from netlab.engine.programs import handed, python_agent
from netlab.model.dump import shaping
from netlab.model.impairment import Impairment
from netlab.model.topology import Topology
from netlab.plan.build import MIDDLE, middle_node
from netlab.plan.episodes import episodes_of
from netlab.plan.qdiscs import chain, transition

Row = tuple[float, str, list[str]]


def rows(impairment: Impairment, mtu: int, index: int, way: str) -> Iterator[Row]:
    """Yield when which requests change one direction; `index` is of the interface it leaves by."""
    shapes: tuple[str, ...] = tuple(qdisc.shape for qdisc in chain(impairment, mtu))
    for at, becomes in episodes_of(impairment):
        step = transition(shapes, becomes, mtu)
        shapes = step.shapes
        requests = [place(1, index, qdisc, change=True) for qdisc in step.changed]
        requests += [place(1, index, qdisc) for qdisc in step.added]
        sent = [netlink.acknowledged(request).hex() for request in requests]
        yield at, f"{way}: {words(becomes)}", sent


def words(impairment: Impairment) -> str:
    """Say an impairment in a line of a log."""
    return " ".join(f"{word}={value}" for word, value in shaping(impairment).items()) or "nothing"


def follow(
    node: RunningNode,
    name: str,
    table: Sequence[Row],
    *,
    keep: bool,
    start: float | None = None,
) -> Running:
    """Let an agent in a node carry out a table; its times count from `start` (CLOCK_MONOTONIC)."""
    argv = (*python_agent("timetable"), *(() if start is None else (repr(start),)))
    with handed(table) as given:
        return node.spawn(name, argv, stdin=given, keep=keep)


def start(
    topology: Topology,
    indexes: Indexes,
    channel: Channel,
    log_file: Callable[[str], Path],
    *,
    wired: Collection[str] = (),
    middles: Collection[str] | None = None,
    keep: bool = False,
) -> Iterator[Running]:
    """Start an agent for each link that has a schedule; links that are `wired` need none.

    With `middles` just for the links with these middle nodes.
    """
    for link in topology.links:
        if middles is not None and middle_node(link) not in middles:
            continue
        if link.name in wired or not (link.forward.schedule or link.backward.schedule):
            continue
        middle, mtu = middle_node(link), max(link.a.mtu, link.b.mtu)
        back, forth = (indexes[middle, port] for port in MIDDLE[0])
        ways = (
            (link.forward, forth, f"{link.a.node}->{link.b.node}"),
            (link.backward, back, f"{link.b.node}->{link.a.node}"),
        )
        table = sorted(row for one, index, way in ways for row in rows(one, mtu, index, way))
        node = RunningNode(middle, channel, log_file)
        yield follow(node, "schedule", table, keep=keep)
