"""From the network that runs to another one, without a gap where nothing changes."""

from __future__ import annotations

import contextlib
from typing import Any

from netlab.engine import channel, supervisor
from netlab.engine.apply import apply, indexes_of
from netlab.engine.lifecycle import TOPOLOGY, digest, remember
from netlab.engine.probe import quick
from netlab.engine.state import Lab
from netlab.errors import EngineError, UsageError
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.plan.build import build
from netlab.plan.diff import diff
from netlab.plan.operations import Plan


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
    if any(link.forward or link.backward for link in wanted.links):
        connection = channel.connect(lab.folder)
        with contextlib.closing(connection):
            return diff(before, wanted, quick(connection))
    return diff(before, wanted)


def change(lab: Lab, wanted: Topology, plan: Plan) -> None:
    """Carry a difference out and write down the new network."""
    indexes = indexes_of(lab)
    whole = Plan(wanted, build(wanted).operations)
    apply(lab, plan.operations, indexes=indexes)
    told: dict[str, Any] = {"impairments": {}, **supervisor.describe(whole, indexes)}
    told["digest"] = digest(wanted)
    apply(lab, (), indexes=indexes, describe=told)
    remember(lab.folder, wanted)
    connection = channel.connect(lab.folder)
    with contextlib.closing(connection):
        supervisor.checked(connection.request({"do": "hosts", "text": supervisor.hosts(whole)}))
