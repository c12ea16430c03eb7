"""A node of a running lab → the plan that reboots it: another namespace, the same network.

Theory of operation. A machine whose power fails says goodbye to nobody. So its interfaces are taken
away first, into the new namespace, and only then are its programs killed: the FINs and RSTs by
which the kernel closes their connections have no way out, and the peers are left with connections
that are open on their side alone. An interface keeps its MAC, MTU and other end when it moves; the
other end sees its carrier go and come back, as behind a cable. Everything else (addresses, routes,
queue disciplines, sysctls, the firewall) stays with the namespace and is made again from the plan.
"""

from __future__ import annotations

from collections.abc import Iterator

from netlab.model.topology import Topology
from netlab.plan.build import build
from netlab.plan.operations import (
    AddNode,
    AddTap,
    AddVeth,
    EndFormerNode,
    Operation,
    Plan,
    RenewNode,
    TakeInterface,
)


def reboot(topology: Topology, node: str) -> tuple[Plan, Plan]:
    """Return what takes a node off the network and what brings it back; KeyError if there is none.

    Between the two it is a machine that is switched off: its interfaces are down, nothing runs.
    """
    mark = topology.node(node).mark
    early, late = _own(topology, node)
    cables = [end for end in topology.interfaces(node) if end not in topology.tunnelled]
    taken = [TakeInterface(node, end.name, end.mark) for end in cables]
    off = (RenewNode(node, mark), *early, *taken, EndFormerNode(node, mark))
    return Plan(topology, off), Plan(topology, tuple(late))


def _own(topology: Topology, node: str) -> tuple[list[Operation], list[Operation]]:
    """Return what a plan does in a node before there are links (interfaces inherit it) and after.

    How links are impaired does not matter here: that is done in the nodes in their middle.
    """
    parts: tuple[list[Operation], list[Operation]] = ([], [])
    linked = False
    for operation in _operations(topology):
        if isinstance(operation, AddVeth | AddTap):
            linked = True
        elif operation.node == node:
            parts[linked].append(operation)
    return parts


def _operations(topology: Topology) -> Iterator[Operation]:
    return (op for op in build(topology).operations if not isinstance(op, AddNode))
