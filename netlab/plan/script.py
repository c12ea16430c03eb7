"""Plan → a commented shell script: what `up` does, in the words of ip, tc, ethtool and sysctl.

Run as root it makes the same network under /run/netns; the engine does the same by netlink, without
a process for each line.
"""

from __future__ import annotations

import shlex
from itertools import groupby
from typing import Any

from netlab.model.topology import Topology
from netlab.plan.operations import (
    AddAddress,
    AddBridge,
    AddNode,
    AddQdisc,
    AddRoute,
    AddTap,
    AddTunnel,
    AddVeth,
    AddWire,
    ChangeQdisc,
    CheckCongestion,
    OffloadsOff,
    Operation,
    Plan,
    RemoveQdiscs,
    SetFirewall,
    SetSysctl,
    SetUp,
    TuneNeighbours,
)

_TITLES: dict[type[Operation], str] = {
    AddNode: "Nodes: a network namespace each, loopback up",
    SetSysctl: "Kernel settings",
    AddVeth: "Links: veth pairs, both ends born in their nodes",
    AddTap: "Links through a wire: a TAP device at each end",
    AddTunnel: "Tunnels: packets inside packets, between addresses of two nodes",
    AddBridge: "Bridges: inside switches, and in the middle of impaired links",
    OffloadsOff: "Offloads off: a captured packet is a packet on the wire",
    AddAddress: "Addresses",
    SetUp: "Interfaces up",
    AddRoute: "Routes",
    SetFirewall: "Firewalls",
    TuneNeighbours: "Congestion control towards the neighbours",
    CheckCongestion: "Congestion control as a new connection finds it",
    ChangeQdisc: "Impairments changed",
    RemoveQdiscs: "Impairments removed",
    AddWire: "Impairments: a program in the middle of a link passes packets on (the wire)",
    AddQdisc: "Impairments: queue disciplines where packets leave the middle of a link",
}


def script(plan: Plan) -> str:
    """Return a shell script that does what the plan says, with the reason of each part."""
    topology, nodes = plan.topology, _nodes(plan)
    lines = [
        "#!/bin/sh",
        f"# {topology.name}: {_count(topology)}",
        "# Run as root" + ("; to take it away again:" if nodes else "."),
        *([f'#   for n in {nodes}; do ip netns del "$n"; done'] if nodes else []),
        "set -e",
    ]
    for kind, operations in groupby(plan.operations, key=type):
        lines += ["", f"# {_TITLES.get(kind, 'Changes of a running lab')}"]
        for operation in operations:
            background = " &" if isinstance(operation, AddWire) else ""
            lines += [shlex.join(argv) + background for argv in operation.commands]
    return "\n".join(lines) + "\n"


def _count(topology: Topology) -> str:
    visible = sum(not node.hidden for node in topology.nodes)
    return f"{visible} node{'s' * (visible != 1)}, {len(topology.links)} links"


def _nodes(plan: Plan) -> str:
    return " ".join(op.node for op in plan.operations if isinstance(op, AddNode))


def as_data(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data for JSON: operations, their place in the file, commands."""
    return {
        "topology": plan.topology.name,
        "source": plan.topology.source,
        "operations": [
            {
                "operation": type(operation).__name__,
                "line": operation.mark.line,
                "column": operation.mark.column,
                "commands": [list(argv) for argv in operation.commands],
            }
            for operation in plan.operations
        ],
    }
