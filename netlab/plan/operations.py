"""The operations of a plan: frozen values that name what they do.

Each can be lowered to netlink (`netlab.engine.netlink`, how it is applied) and printed as a
command (`argv`, how it is explained). Node names stand where the commands want a namespace.
`mark` points to the line of the topology file that asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from netlab.model.impairment import Impairment
from netlab.model.topology import Mark, Topology


@dataclass(frozen=True, slots=True)
class AddNode:
    """Make a network namespace for a node and set its loopback up."""

    node: str
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write a sysctl in a node and read it back; `key` is dotted, as for sysctl(8)."""

    node: str
    key: str
    value: str
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a veth pair as it is born."""

    node: str
    name: str
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class AddVeth:
    """Join two nodes by a veth pair; each end appears under its own name in its own node."""

    a: VethEnd
    b: VethEnd
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class AddBridge:
    """Make a bridge without spanning tree in a node and put the named interfaces under it."""

    node: str
    name: str
    ports: tuple[str, ...]
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class SetUp:
    """Set an interface up."""

    node: str
    dev: str
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class OffloadsOff:
    """Turn TSO, GSO, GRO and checksum offload off, so that a captured packet is a wire packet."""

    node: str
    dev: str
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give an interface an address; IPv6 without duplicate address detection."""

    node: str
    dev: str
    address: IPv4Interface | IPv6Interface
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a static route to a node."""

    node: str
    to: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address
    dev: str
    mark: Mark = Mark()


@dataclass(frozen=True, slots=True)
class AddNetem:
    """Put a netem qdisc at the root of an interface: impairs what leaves by it."""

    node: str
    dev: str
    impairment: Impairment
    mark: Mark = Mark()


Operation = (
    AddNode
    | SetSysctl
    | AddVeth
    | AddBridge
    | SetUp
    | OffloadsOff
    | AddAddress
    | AddRoute
    | AddNetem
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in the order in which they are applied, for one topology."""

    topology: Topology
    operations: tuple[Operation, ...]
