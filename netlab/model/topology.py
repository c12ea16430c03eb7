"""Topology: what the author wrote, completed (addresses, MACs, routes) and validated.

Nothing in it is a handle of the kernel; two equal topologies give the same plan. A LAN of more
than two ends has become a hidden switch node and one link per end. Marks, the source and the
warnings say where things came from: they take no part in comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from netlab.errors import Problem
from netlab.model.firewall import NO_FIREWALL, Firewall
from netlab.model.impairment import PERFECT, Impairment
from netlab.model.tunnel import Tunnel


class Role(StrEnum):
    """What a node is.

    A host ends packets, a router forwards them, a nat forwards them under its own address, a switch
    joins its links.
    """

    HOST = "host"
    ROUTER = "router"
    SWITCH = "switch"
    NAT = "nat"

    @property
    def forwards(self) -> bool:
        """Return whether packets for others pass through such a node at the IP layer."""
        return self in (Role.ROUTER, Role.NAT)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where in the author's file a thing was written, 1-based; (0, 0) for what netlab added.

    `file` is empty for the topology file itself and names the file for what was included.
    """

    line: int = 0
    column: int = 0
    file: str = ""

    def __bool__(self) -> bool:
        return self.line > 0


NOWHERE = Mark()


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a link; `name` is unique in its node and at most 15 characters long."""

    node: str
    name: str
    mac: str
    mtu: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    up: bool = True
    mark: Mark = field(default=NOWHERE, compare=False)

    def __str__(self) -> str:
        return f"{self.node}:{self.name}"


@dataclass(frozen=True, slots=True)
class Link:
    """Two interfaces joined; `forward` is what happens from `a` to `b`, `backward` back.

    They are joined by a cable or, with `tunnel`, by the network between their nodes.
    """

    name: str
    a: Interface
    b: Interface
    forward: Impairment = PERFECT
    backward: Impairment = PERFECT
    offloads: bool = False
    mark: Mark = field(default=NOWHERE, compare=False)
    tunnel: Tunnel | None = None

    @property
    def ends(self) -> tuple[Interface, Interface]:
        """Return both interfaces, `a` first."""
        return self.a, self.b

    @property
    def ways(self) -> tuple[Impairment, Impairment]:
        """Return what happens in both directions, `forward` first."""
        return self.forward, self.backward


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """What a route says besides where it leads; None leaves it to the kernel.

    `metric` decides between routes to one destination, the lowest wins. The others are given to
    every TCP connection over the route: `mtu` and `advmss` in bytes, windows in segments.
    """

    metric: int | None = None
    mtu: int | None = None
    advmss: int | None = None
    initcwnd: int | None = None
    initrwnd: int | None = None
    congestion: str | None = None

    def __bool__(self) -> bool:
        return self != PLAIN


PLAIN = RouteOptions()


@dataclass(frozen=True, slots=True)
class Route:
    """A static route of a node: `to` through the neighbour `via` on interface `dev`."""

    to: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)
    options: RouteOptions = PLAIN


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `sysctls` are (dotted key, value) pairs in the order written.

    `congestion` is the congestion control of TCP over all its routes, None the kernel's choice.
    """

    name: str
    role: Role
    sysctls: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()
    hidden: bool = False
    mark: Mark = field(default=NOWHERE, compare=False)
    loopbacks: tuple[IPv4Interface | IPv6Interface, ...] = ()
    sysctl_marks: Mapping[str, Mark] = field(
        default_factory=dict[str, Mark], compare=False, repr=False
    )
    congestion: str | None = None
    firewall: Firewall = NO_FIREWALL
    firewall_mark: Mark = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Ready:
    """When a process counts as started: exactly one of port, line, file and command is given.

    `line` is a regular expression found in what the process prints, `timeout` seconds.
    """

    port: int | None = None
    line: str | None = None
    file: str | None = None
    command: tuple[str, ...] | None = None
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """A program that runs in a node from the start; `after` names those that must be ready first.

    `restart` is no, on-failure or always; `cpus` a number of processors, `memory` bytes; `needs`
    are programs that must be installed.
    """

    name: str
    node: str
    command: tuple[str, ...]
    ready: Ready | None = None
    after: tuple[str, ...] = ()
    restart: str = "no"
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    user: str | None = None
    cpus: float | None = None
    memory: int | None = None
    needs: tuple[str, ...] = ()
    mark: Mark = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Reach:
    """What the author says of the finished network: a ping from one node to another."""

    source: str
    target: str
    reachable: bool = True
    family: int | None = None
    mark: Mark = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Topology:
    """A whole lab network; nodes and links in the order written, hidden ones after them."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    source: str = field(default="", compare=False)
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    processes: tuple[Process, ...] = ()
    validations: tuple[Reach, ...] = ()

    def node(self, name: str) -> Node:
        """Return the node called `name`; KeyError if there is none."""
        return self.by_name[name]

    def link(self, name: str) -> Link:
        """Return the link called `name`; KeyError if there is none."""
        return self._links[name]

    def interfaces(self, node: str) -> tuple[Interface, ...]:
        """Return the interfaces of a node in the order of the links."""
        return self._interfaces.get(node, ())

    def interface(self, node: str, name: str) -> Interface:
        """Return one interface of a node; KeyError if there is none."""
        for interface in self.interfaces(node):
            if interface.name == name:
                return interface
        raise KeyError(f"{node}:{name}")

    def addresses(self, node: str) -> tuple[IPv4Address | IPv6Address, ...]:
        """Return every address of a node, those of its loopback first, those of tunnels last."""
        mine = [address.ip for address in self.by_name[node].loopbacks]
        ends = sorted(self.interfaces(node), key=lambda end: end in self.tunnelled)
        mine += [address.ip for end in ends for address in end.addresses]
        return tuple(mine)

    @cached_property
    def tunnelled(self) -> frozenset[Interface]:
        """The interfaces of tunnels: no cable ends in them."""
        return frozenset(end for link in self.links if link.tunnel for end in link.ends)

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by their name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def _links(self) -> Mapping[str, Link]:
        return {link.name: link for link in self.links}

    @cached_property
    def _interfaces(self) -> Mapping[str, tuple[Interface, ...]]:
        ends: dict[str, list[Interface]] = {}
        for link in self.links:
            ends.setdefault(link.a.node, []).append(link.a)
            ends.setdefault(link.b.node, []).append(link.b)
        return {node: tuple(interfaces) for node, interfaces in ends.items()}
