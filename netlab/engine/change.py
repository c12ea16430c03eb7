"""From the network that runs to another one, without a gap where nothing changes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from netlab.engine import cgroups, channel, named, processes, supervisor, wires
from netlab.engine.apply import apply, indexes_of
from netlab.engine.lifecycle import TOPOLOGY, digest, logs, remember
from netlab.engine.live import directions, forget_agents, own_qdiscs
from netlab.engine.node import RunningNode
from netlab.engine.probe import quick
from netlab.engine.reach import check_node
from netlab.engine.reboot import switch_off_and_on
from netlab.engine.state import Lab
from netlab.errors import EngineError, UsageError
from netlab.model.capabilities import Capabilities
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.plan import wire
from netlab.plan.backend import Backend
from netlab.plan.build import build
from netlab.plan.diff import diff
from netlab.plan.operations import AddWire, Plan, RemoveNode


def running(lab: Lab) -> Topology:
    """Return the network a lab has, as `up` or the last `apply` made it."""
    try:
        text = (lab.path / TOPOLOGY).read_text()
    except OSError as error:
        raise EngineError(f"the lab {lab.id!r} does not say what network it has") from error
    return loads(text, lab.id)


def difference(lab: Lab, wanted: Topology) -> Plan:
    """Return what turns a lab's network into another: an empty plan when it is that already."""
    before = running(lab)
    if before.processes != wanted.processes:
        raise UsageError(
            "apply changes networks, not processes, and the processes differ",
            hint=f"`netlab down {lab.id}` and `up` again",
        )
    return diff(before, wanted, *_means(lab, before, wanted))


def _means(lab: Lab, *topologies: Topology) -> tuple[Capabilities | None, Backend | None]:
    """Return what a plan may count on here: asked of the machine if impairments are wanted."""
    impair = lab.state.get("impair")
    wanted = Backend(impair) if impair else None
    if not any(link.forward or link.backward for t in topologies for link in t.links):
        return None, wanted
    connection = channel.connect(lab.folder)
    with contextlib.closing(connection):
        return quick(connection), wanted


def change(lab: Lab, wanted: Topology, plan: Plan) -> None:
    """Carry a difference out and write down the new network."""
    indexes = indexes_of(lab)
    whole = Plan(wanted, build(wanted, *_means(lab, wanted)).operations)
    _refuse_schedules(lab, plan)
    forget_agents(lab, directions(lab))
    apply(lab, plan.operations, indexes=indexes)
    _wires(lab, plan)
    told: dict[str, Any] = {"impairments": {}, **supervisor.describe(whole, indexes)}
    told["digest"] = digest(wanted)
    apply(lab, (), indexes=indexes, describe=told)
    remember(lab.folder, wanted)
    connection = channel.connect(lab.folder)
    with contextlib.closing(connection):
        supervisor.checked(connection.request({"do": "hosts", "text": supervisor.hosts(whole)}))


def _refuse_schedules(lab: Lab, plan: Plan) -> None:
    """UsageError where a wire that runs would need another schedule."""
    anew = _made_anew(plan)
    for op in plan.operations:
        if not isinstance(op, AddWire) or op.node in anew:
            continue
        if not wires.is_alive(lab.folder, op.link):
            continue
        before = json.loads(wires.config_file(lab.path, op.link).read_text())["links"][0]
        after = json.loads(op.config)["links"][0]
        if before.get("schedule") != after.get("schedule"):
            raise UsageError(
                f"the schedule of link '{op.link}' differs, and it runs already",
                hint=f"`netlab down {lab.id}` and `up` again",
            )


def _made_anew(plan: Plan) -> set[str]:
    return {op.node for op in plan.operations if isinstance(op, RemoveNode)}


def _wires(lab: Lab, plan: Plan) -> None:
    """Start the wires that are new, and tell those that run their new settings."""
    new: list[AddWire] = []
    anew = _made_anew(plan)
    for op in plan.operations:
        if not isinstance(op, AddWire):
            continue
        if op.node in anew or not wires.is_alive(lab.folder, op.link):
            new.append(op)
            continue
        config: dict[str, Any] = json.loads(op.config)["links"][0]
        for way in (wire.FORWARD, wire.BACKWARD):
            wires.ask(lab.folder, op.link, "set", direction=way, settings=config[way])
    if not new:
        return
    connection = channel.connect(lab.folder)
    with contextlib.closing(connection):
        begun = wires.start(new, connection, lab.path, logs(lab.path), keep=True)
        wires.start_schedules(begun)


def reboot(lab: Lab, node: str, *, off: float = 0.0) -> None:
    """Reboot a node, leaving it switched off for `off` seconds, and start its programs again.

    What `netlab exec` started there is gone for good, as it would be in any machine.
    """
    check_node(lab, node)
    topology = running(lab)
    if node not in topology.by_name:
        raise UsageError(f"{node!r} is the middle of a link, which cannot be rebooted")
    shaped = own_qdiscs(lab, node)
    connection = channel.connect(lab.folder)
    with contextlib.closing(connection):
        switch_off_and_on(connection, topology, indexes_of(lab), node, off=off, shaped=shaped)
        named.renew(lab.folder, connection)
        nodes = {
            found.name: RunningNode(found.name, connection, logs(lab.path))
            for found in topology.nodes
        }
        group = cgroups.find(lab.folder)
        for _ in processes.start(topology, nodes, group, keep=True, only=node, again=True):
            pass
