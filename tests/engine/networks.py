"""Small topologies made by hand, so that the engine is tested without YAML."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from netlab.model.topology import Interface, Link, Mark, Node, Role, Route, Topology


def _interface(node: str, name: str, number: int, *addresses: str) -> Interface:
    found = tuple(ip_interface(address) for address in addresses)
    mac = f"02:00:00:00:00:{number:02x}"
    return Interface(node, name, mac, 1500, found, mark=Mark(6 + (number - 1) // 2, 1))


def host_router_host(name: str = "hrh") -> Topology:
    nodes = (
        Node("h1", Role.HOST, routes=_defaults("10.0.1.254", "fd00:1::fe"), mark=Mark(2, 1)),
        Node("r1", Role.ROUTER, mark=Mark(3, 1)),
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


def two_hosts(name: str = "pair") -> Topology:
    """The smallest network with an operation of every common kind."""
    beyond = Route(ip_network("192.0.2.0/24"), ip_address("10.0.1.2"), "eth0")
    nodes = (Node("h1", Role.HOST, routes=(beyond,)), Node("h2", Role.HOST))
    a = _interface("h1", "eth0", 1, "10.0.1.1/24", "fd00:1::1/64")
    b = _interface("h2", "eth0", 2, "10.0.1.2/24", "fd00:1::2/64")
    return Topology(name, nodes, (Link("h1-h2", a, b),), "pair.yaml")


def _defaults(v4: str, v6: str) -> tuple[Route, ...]:
    return (
        Route(ip_network("0.0.0.0/0"), ip_address(v4), "eth0"),
        Route(ip_network("::/0"), ip_address(v6), "eth0"),
    )
