"""What an author asked for, before it is completed: the input of `netlab.model.complete`.

A topology file becomes a Spec (`netlab.model.yaml`), and so does a generator's network. Everything
not said is None or empty and is filled in by `complete`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any

from netlab.model.addressing import POOLS, Pools
from netlab.model.firewall import Nat, Rule
from netlab.model.topology import NOWHERE, PLAIN, Mark, Process, Reach, Role, RouteOptions
from netlab.model.tunnel import TunnelKind

DEFAULT_MTU = 1500

# Fields of Impairment that were given; `schedule` as (at, duration, fields that differ) each.
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """A route written by the author; `via` is an address or the name of a neighbour."""

    to: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address | str
    dev: str | None = None
    mark: Mark = NOWHERE
    options: RouteOptions = PLAIN


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node as written.

    `computed` says whether it gets the routes netlab computes, `ospf` whether it finds its own.
    """

    name: str
    role: Role = Role.HOST
    sysctls: Mapping[str, str] = field(default_factory=dict[str, str])
    sysctl_marks: Mapping[str, Mark] = field(default_factory=dict[str, Mark])
    loopbacks: tuple[IPv4Interface | IPv6Interface, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    computed: bool = True
    ospf: bool = False
    mark: Mark = NOWHERE
    congestion: str | None = None
    rules: tuple[Rule, ...] = ()
    nat: Nat | None = None  # its outside may still be the name of a link
    firewall_mark: Mark = NOWHERE


@dataclass(frozen=True, slots=True)
class EndSpec:
    """One end of a link as written; `addresses` None means that netlab gives them."""

    node: str
    interface: str | None = None
    addresses: tuple[IPv4Interface | IPv6Interface, ...] | None = None
    mac: str | None = None
    mtu: int | None = None
    up: bool = True
    mark: Mark = NOWHERE


@dataclass(frozen=True, slots=True)
class DirectionSpec:
    """Settings of one direction of a link, from one end to another (or to the LAN itself)."""

    source: str
    target: str
    settings: Settings
    mark: Mark = NOWHERE


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A link as written: two ends, or more for a LAN.

    `prefixes` are the subnets asked for; an empty tuple with `numbered` False means no addresses.
    The `mtu` of a tunnel may be 0: what fits into the links below.
    """

    ends: tuple[EndSpec, ...]
    name: str | None = None
    settings: Settings = field(default_factory=dict[str, Any])
    directions: tuple[DirectionSpec, ...] = ()
    prefixes: tuple[IPv4Network | IPv6Network, ...] = ()
    numbered: bool = True
    mtu: int = DEFAULT_MTU
    offloads: bool = False
    mark: Mark = NOWHERE
    tunnel: TunnelKind | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole network as written."""

    name: str
    nodes: tuple[NodeSpec, ...]
    links: tuple[LinkSpec, ...]
    pools: Pools = POOLS
    source: str = ""
    aggregate: bool = False  # routes may always cover unused addresses in between
    processes: tuple[Process, ...] = ()
    validations: tuple[Reach, ...] = ()
