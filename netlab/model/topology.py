"""Topology: what the author wrote, completed (addresses, MACs, routes) and validated.

Nothing in it is a handle of the kernel; two equal topologies give the same plan. A LAN of more
than two ends has become a hidden switch node and one link per end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from netlab.model.impairment import Impairment


class Role(StrEnum):
    """What a node is: a host ends packets, a router forwards them, a switch joins its links."""

    HOST = "host"
    ROUTER = "router"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Mark:
    """Where in the author's file a thing was written, 1-based; (0, 0) for what netlab added."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a link; `name` is unique in its node and at most 15 characters long."""

    node: str
    name: str
    mac: str
    mtu: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    up: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """Two interfaces joined; `forward` is what happens from `a` to `b`, `backward` the other way."""

    name: str
    a: Interface
    b: Interface
    forward: Impairment = Impairment()
    backward: Impairment = Impairment()
    offloads: bool = False
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class Route:
    """A static route of a node: `to` through the neighbour `via` on interface `dev`."""

    to: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address
    dev: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `sysctls` are (dotted key, value) pairs in the order written."""

    name: str
    role: Role
    sysctls: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()
    hidden: bool = False
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab network; nodes and links in the order written, hidden ones after them."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    source: str = ""

    def node(self, name: str) -> Node:
        """Return the node called `name`; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def link(self, name: str) -> Link:
        """Return the link called `name`; KeyError if there is none."""
        for link in self.links:
            if link.name == name:
                return link
        raise KeyError(name)

    def interfaces(self, node: str) -> tuple[Interface, ...]:
        """Return the interfaces of a node in the order of the links."""
        ends = (end for link in self.links for end in (link.a, link.b))
        return tuple(end for end in ends if end.node == node)
