"""The networks of the benchmark, in the forms the methods want.

star: a hub and N-1 spokes. chain: N nodes in a row. tree: every node has up to four children.
Each link is a /30; leaves have a default route towards the root (in a chain to the right, and a
route to the first link to the left); nodes of more than one link forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from netlab.model.topology import Interface, Link, Node, Role, Topology
from netlab.plan.build import build
from netlab.plan.operations import (
    AddAddress,
    AddNode,
    AddRoute,
    AddVeth,
    Plan,
    SetSysctl,
    SetUp,
    VethEnd,
)

FANOUT = 4
DEFAULT = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True)
class Wire:
    a: int
    a_name: str
    b: int
    b_name: str
    base: int

    @property
    def addresses(self) -> tuple[IPv4Interface, IPv4Interface]:
        return IPv4Interface((self.base + 1, 30)), IPv4Interface((self.base + 2, 30))


@dataclass
class Network:
    kind: str
    size: int
    wires: list[Wire] = field(default_factory=list)
    routes: list[tuple[int, IPv4Network, IPv4Address, str]] = field(default_factory=list)
    degree: list[int] = field(default_factory=list)

    def name(self, number: int) -> str:
        return f"nlb{number}"

    @property
    def forwarders(self) -> Iterator[int]:
        return (number for number in range(self.size) if self.degree[number] > 1)


def make(kind: str, size: int) -> Network:
    network = Network(kind, size, degree=[0] * size)

    def join(a: int, b: int) -> Wire:
        base = int(IPv4Address("10.0.0.0")) + 4 * len(network.wires)
        wire = Wire(a, f"e{network.degree[a]}", b, f"e{network.degree[b]}", base)
        network.degree[a] += 1
        network.degree[b] += 1
        network.wires.append(wire)
        return wire

    for number in range(1, size):
        parent = {"star": 0, "chain": number - 1, "tree": (number - 1) // FANOUT}[kind]
        wire = join(parent, number)
        near, far = (address.ip for address in wire.addresses)
        if kind == "chain":
            network.routes.append((parent, DEFAULT, far, wire.a_name))
            if number > 1:
                first = network.wires[0].addresses[0].network
                network.routes.append((number, first, near, wire.b_name))
        else:
            network.routes.append((number, DEFAULT, near, wire.b_name))
    return network


def as_text(network: Network) -> str:
    """What the C program reads."""
    lines = [f"n {network.size}"]
    for w in network.wires:
        lines.append(f"l {w.a} {w.a_name} {w.b} {w.b_name} {w.base}")
    lines += [
        f"r {node} {to.network_address} {to.prefixlen} {via}" for node, to, via, _ in network.routes
    ]
    lines += [f"f {node}" for node in network.forwarders]
    return "\n".join(lines) + "\n"


def as_plan(network: Network) -> Plan:
    """The operations of the other methods and no more: no offloads, no quiet sysctls."""
    name = network.name
    nodes = [AddNode(name(number)) for number in range(network.size)]
    sysctls = [SetSysctl(name(n), "net.ipv4.ip_forward", "1") for n in network.forwarders]
    veths, rest = [], []
    for w in network.wires:
        near, far = w.addresses
        a, b = VethEnd(name(w.a), w.a_name, "", 0), VethEnd(name(w.b), w.b_name, "", 0)
        veths.append(AddVeth(a, b))
        rest += [AddAddress(a.node, a.name, near), AddAddress(b.node, b.name, far)]
        rest += [SetUp(a.node, a.name), SetUp(b.node, b.name)]
    routes = [AddRoute(name(node), to, via, dev) for node, to, via, dev in network.routes]
    return Plan(as_topology(network), (*nodes, *sysctls, *veths, *rest, *routes))


def as_topology(network: Network) -> Topology:
    roles = dict.fromkeys(network.forwarders, Role.ROUTER)
    nodes = tuple(
        Node(network.name(number), roles.get(number, Role.HOST)) for number in range(network.size)
    )
    links = []
    for number, w in enumerate(network.wires):
        near, far = w.addresses
        mac = (0x02 << 40) + 2 * number
        macs = [":".join(f"{mac + i >> s & 255:02x}" for s in range(40, -8, -8)) for i in (0, 1)]
        a = Interface(network.name(w.a), w.a_name, macs[0], 1500, (near,))
        b = Interface(network.name(w.b), w.b_name, macs[1], 1500, (far,))
        links.append(Link(f"w{number}", a, b))
    return Topology(f"bench-{network.kind}", nodes, tuple(links))


def as_default_plan(network: Network) -> Plan:
    """What netlab does when it is left to itself: quiet, without offloads."""
    return build(as_topology(network))


def as_yaml(network: Network) -> str:
    """The file an author would write for it."""
    forwarders = set(network.forwarders)
    lines = [f"name: bench-{network.kind}", "nodes:"]
    for number in range(network.size):
        role = "router" if number in forwarders else "host"
        lines.append(f"  {network.name(number)}: {{ role: {role} }}")
    lines.append("links:")
    lines += [f"  - {network.name(w.a)}-{network.name(w.b)}" for w in network.wires]
    return "\n".join(lines) + "\n"
