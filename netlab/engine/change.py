"""From the network that runs to another one, without a gap where nothing changes.

A change that the kernel would refuse must not leave a lab between two networks. So the wanted one
is tried first, in a lab beside this one that nobody sees, unless all that changes is whether links
are up. What can still come in between (SIGKILL) is written down: a file says that the lab is on its
way, and while it is there the lab is not changed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from netlab.engine import (
    channel,
    live,
    named,
    processes,
    supervisor,
    timetable,
    wires,
)
from netlab.engine.apply import apply_over, indexes_of
from netlab.engine.channel import Channel
from netlab.engine.lifecycle import TOPOLOGY, digest, logs, remember
from netlab.engine.lower import Indexes
from netlab.engine.node import RunningNode
from netlab.engine.probe import quick
from netlab.engine.reach import check_node
from netlab.engine.reboot import switch_off_and_on
from netlab.engine.stage import make_claim
from netlab.engine.state import Lab
from netlab.errors import EngineError, UsageError
from netlab.model.capabilities import Capabilities
from netlab.model.topology import Node, Topology
from netlab.model.yaml import loads
from netlab.plan import diff, wire
from netlab.plan.backend import Backend
from netlab.plan.build import build
from netlab.plan.operations import (
    AddAddress,
    AddNode,
    AddWire,
    Operation,
    Plan,
    RemoveRoute,
    ReplaceRoute,
    SetDown,
    SetUp,
)

HARMLESS = SetUp | SetDown | AddAddress | ReplaceRoute | RemoveRoute
"""What the kernel did before and will do again."""
TORN = "torn"


def running(lab: Lab) -> Topology:
    """Return the network a lab has, as `up` or the last `apply` made it."""
    try:
        text = (lab.path / TOPOLOGY).read_text()
    except OSError as error:
        raise EngineError(f"the lab {lab.id!r} does not say what network it has") from error
    return loads(text, lab.id)


@dataclass(frozen=True, slots=True)
class Change:
    """What makes a lab another: its network, its programs, and what was changed by hand."""

    wanted: Topology
    plan: Plan
    programs: diff.ProcessChange
    shaped: tuple[live.Wish, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.plan.operations or self.programs or self.shaped)


def difference(lab: Lab, wanted: Topology) -> Change:
    """Return what makes a lab another; false when it is that already.

    What `netlab tc`, `link` and `sysctl` have changed is changed back, or to what is wanted now.
    """
    before = running(lab)
    plan = diff.diff(_with_sysctls(lab, before), wanted, *_means(lab, before, wanted))
    changed = (d for d in live.directions(lab) if d.now != d.asked or d.then is not None)
    shaped = tuple(live.Wish(direction, direction.asked) for direction in changed)
    return Change(wanted, plan, diff.processes(before, wanted, plan), shaped)


def _with_sysctls(lab: Lab, topology: Topology) -> Topology:
    """Return a topology with the sysctls that somebody has set since."""
    by_hand: dict[str, dict[str, str]] = lab.state.get("sysctls", {})

    def node(given: Node) -> Node:
        own = by_hand.get(given.name)
        if not own:
            return given
        return replace(given, sysctls=tuple({**dict(given.sysctls), **own}.items()))

    return replace(topology, nodes=tuple(map(node, topology.nodes)))


def _means(lab: Lab, *topologies: Topology) -> tuple[Capabilities | None, Backend | None]:
    """Return what a plan may count on here: asked of the machine if impairments are wanted."""
    impair = lab.state.get("impair")
    wanted = Backend(impair) if impair else None
    if not any(link.forward or link.backward for t in topologies for link in t.links):
        return None, wanted
    connection = channel.connect(lab.folder)
    with contextlib.closing(connection):
        return quick(connection), wanted


def change(lab: Lab, wanted: Change) -> None:
    """Make a lab another (`netlab.engine.apply.exclusive` keeps others away meanwhile)."""
    _refuse_torn(lab)
    if lab.state.get("external"):
        raise UsageError(
            f"the lab {lab.id!r} has a way out (--external), and `apply` would lose it",
            hint=f"`netlab down {lab.id}` and `up` again",
        )
    topology, plan = wanted.wanted, wanted.plan
    whole = Plan(topology, build(topology, *_means(lab, topology)).operations)
    processes.refuse_impossible(topology, rootless=lab.state["rootless"])
    named.refuse_new(lab.folder, {op.node for op in plan.operations if isinstance(op, AddNode)})
    if not all(isinstance(op, HARMLESS) for op in plan.operations):
        _try(lab, whole)
    indexes = indexes_of(lab)
    with contextlib.closing(channel.connect(lab.folder)) as connection, _on_the_way(lab):
        live.change(lab, [one for one in wanted.shaped if live.reachable(lab, one.direction)])
        processes.stop(connection, wanted.programs.ending)
        apply_over(connection, plan.operations, indexes, topology.source)
        _shape(lab, connection, indexes, plan)
        told: dict[str, Any] = {"impairments": {}, **supervisor.describe(whole, indexes)}
        told |= {"digest": digest(topology), "sysctls": {}}
        _settle(lab, connection, whole, indexes, told)
        _start(lab, connection, topology, {p.name for p in wanted.programs.beginning})


def set_links(lab: Lab, before: Topology, wanted: Topology) -> None:
    """Set interfaces up or down, where that is all that two topologies differ in.

    The lab remains one of its file: `up` and `apply` know it again.
    """
    _refuse_torn(lab)
    means = _means(lab, wanted)
    plan = diff.diff(before, wanted, *means)
    indexes = indexes_of(lab)
    with contextlib.closing(channel.connect(lab.folder)) as connection, _on_the_way(lab):
        apply_over(connection, plan.operations, indexes, wanted.source)
        remember(lab.folder, wanted)


def _settle(
    lab: Lab, connection: Channel, whole: Plan, indexes: Indexes, told: dict[str, Any]
) -> None:
    """Write down what the lab is now: its network, its state, names of its nodes."""
    apply_over(connection, (), indexes, whole.topology.source, told)
    remember(lab.folder, whole.topology)
    text = supervisor.hosts(whole)
    supervisor.checked(connection.request({"do": "hosts", "text": text}))
    named.renew(lab.folder, connection)


def _start(lab: Lab, connection: Channel, topology: Topology, names: set[str]) -> None:
    """Start some programs of a topology, in its order."""
    nodes = {
        node.name: RunningNode(node.name, connection, logs(lab.path)) for node in topology.nodes
    }
    group = processes.make_group(topology, lab.folder, lab.id, rootless=lab.state["rootless"])
    for _ in processes.start(topology, nodes, group, keep=True, only=names, again=True):
        pass


def _try(lab: Lab, whole: Plan) -> None:
    """Build the wanted network in a lab of its own and take it away; raises what `up` would."""
    held = make_claim(f"{lab.id}.trial", foreground=True)
    assert held is not None
    with contextlib.ExitStack() as stack:
        stack.callback(held.remove)
        trial = supervisor.start(
            held, lab.state["lab"], foreground=True, rootless=lab.state["rootless"]
        )
        stack.pop_all()
        stack.callback(trial.end)
        trial.build(whole)


@contextlib.contextmanager
def _on_the_way(lab: Lab) -> Generator[None]:
    """Leave a mark that only success takes away."""
    mark = lab.path / TORN
    mark.touch(mode=0o600)
    yield
    mark.unlink()


def _refuse_torn(lab: Lab) -> None:
    if (lab.path / TORN).exists():
        raise EngineError(
            f"the last change of the lab {lab.id!r} did not come to its end",
            hint=f"`netlab down {lab.id}` and `up` again",
        )


def _shape(lab: Lab, connection: Channel, indexes: Indexes, plan: Plan) -> None:
    """Start the wires and timetables that are new, and tell wires that stay their new settings."""
    fresh = {op.node for op in plan.operations if isinstance(op, AddNode)}
    new: list[Operation] = []
    for op in plan.operations:
        if not isinstance(op, AddWire):
            continue
        if op.node in fresh or not wires.is_alive(lab.folder, op.link):
            new.append(op)
            continue
        for way in (wire.FORWARD, wire.BACKWARD):
            settings = wire.settings_of(op.config, way)
            wires.ask(lab.folder, op.link, "set", direction=way, settings=settings)
    begun = wires.start(new, connection, lab.path, logs(lab.path), keep=True)
    for _ in timetable.start(
        plan.topology,
        indexes,
        connection,
        logs(lab.path),
        wired=wires.wired(_every_wire(plan)),
        middles=fresh,
        keep=True,
    ):
        pass
    wires.start_schedules(begun)


def _every_wire(plan: Plan) -> Iterable[Operation]:
    return (op for op in plan.operations if isinstance(op, AddWire))


def reboot(lab: Lab, node: str, *, off: float = 0.0) -> None:
    """Reboot a node, leaving it switched off for `off` seconds, and start its programs again.

    What `netlab exec` started there is gone for good, as it would be in any machine; so are the
    settings that `netlab sysctl` made.
    """
    check_node(lab, node)
    _refuse_torn(lab)
    topology = running(lab)
    if node not in topology.by_name:
        raise UsageError(f"{node!r} is the middle of a link, which cannot be rebooted")
    if any(way.startswith(f"{node}=") for way in lab.state.get("external", [])):
        raise UsageError(f"{node!r} has a way out (--external), which a reboot would cut off")
    shaped = live.own_qdiscs(lab, node)
    indexes = indexes_of(lab)
    by_hand = {name: kept for name, kept in lab.state.get("sysctls", {}).items() if name != node}
    with contextlib.closing(channel.connect(lab.folder)) as connection, _on_the_way(lab):
        switch_off_and_on(connection, topology, indexes, node, off=off, shaped=shaped)
        apply_over(connection, (), indexes, topology.source, {"sysctls": by_hand})
        named.renew(lab.folder, connection)
        own = {process.name for process in topology.processes if process.node == node}
        _start(lab, connection, topology, own)
