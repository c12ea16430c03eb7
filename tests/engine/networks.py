"""Small topologies and plans made by hand, so that the engine is tested without YAML."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from netlab.model.topology import Interface, Link, Mark, Node, Role, Route, Topology
from netlab.plan.operations import (
    AddAddress,
    AddNode,
    AddRoute,
    AddVeth,
    OffloadsOff,
    Operation,
    Plan,
    SetSysctl,
    SetUp,
    VethEnd,
)


def _interface(node: str, name: str, number: int, *addresses: str) -> Interface:
    found = tuple(ip_interface(address) for address in addresses)
    return Interface(node, name, f"02:00:00:00:00:{number:02x}", 1500, found)


def host_router_host(name: str = "hrh") -> Topology:
    forwarding = (("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1"))
    nodes = (
        Node("h1", Role.HOST, routes=_defaults("10.0.1.254", "fd00:1::fe"), mark=Mark(2, 1)),
        Node("r1", Role.ROUTER, sysctls=forwarding, mark=Mark(3, 1)),
        Node("h2", Role.HOST, routes=_defaults("10.0.2.254", "fd00:2::fe"), mark=Mark(4, 1)),
    )
    links = (
        Link(
            "h1-r1",
            _interface("h1", "eth0", 1, "10.0.1.1/24", "fd00:1::1/64"),
            _interface("r1", "eth0", 2, "10.0.1.254/24", "fd00:1::fe/64"),
            mark=Mark(6, 1),
        ),
        Link(
            "r1-h2",
            _interface("r1", "eth1", 3, "10.0.2.254/24", "fd00:2::fe/64"),
            _interface("h2", "eth0", 4, "10.0.2.1/24", "fd00:2::1/64"),
            mark=Mark(7, 1),
        ),
    )
    return Topology(name, nodes, links, "hrh.yaml")


def _defaults(v4: str, v6: str) -> tuple[Route, ...]:
    return (
        Route(ip_network("0.0.0.0/0"), ip_address(v4), "eth0"),
        Route(ip_network("::/0"), ip_address(v6), "eth0"),
    )


def plan_of(topology: Topology, *, offloads_off: bool = True) -> Plan:
    """The plan of a topology without switches and impairments."""
    operations: list[Operation] = [AddNode(node.name, node.mark) for node in topology.nodes]
    for node in topology.nodes:
        operations += [SetSysctl(node.name, k, v, node.mark) for k, v in node.sysctls]
    ends = [(end, link) for link in topology.links for end in (link.a, link.b)]
    for link in topology.links:
        a, b = (VethEnd(e.node, e.name, e.mac, e.mtu) for e in (link.a, link.b))
        operations.append(AddVeth(a, b, link.mark))
    for end, link in ends:
        if offloads_off and not link.offloads:
            operations.append(OffloadsOff(end.node, end.name, link.mark))
    for end, link in ends:
        operations += [AddAddress(end.node, end.name, a, link.mark) for a in end.addresses]
    operations += [SetUp(end.node, end.name, link.mark) for end, link in ends]
    for node in topology.nodes:
        operations += [AddRoute(node.name, r.to, r.via, r.dev, node.mark) for r in node.routes]
    return Plan(topology, tuple(operations))
