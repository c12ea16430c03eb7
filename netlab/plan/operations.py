"""The operations of a plan: frozen values that name what they do.

Each can be lowered to netlink (`netlab.engine.netlink`, how it is applied) and printed as
commands (`commands`, how it is explained). Node names stand where the commands want a namespace.
`mark` points to the line of the topology file that asked for it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from netlab.model.firewall import Firewall
from netlab.model.topology import NOWHERE, PLAIN, Mark, RouteOptions, Topology
from netlab.model.tunnel import TunnelKind, Vxlan
from netlab.plan.firewall import nft
from netlab.plan.qdiscs import Qdisc

Argv = tuple[str, ...]
CONNECTED_IPV6 = 256  # metric of the route that comes with an IPv6 address (IP6_RT_PRIO_ADDRCONF)


@dataclass(frozen=True, slots=True)
class AddNode:
    """Make a network namespace for a node and set its loopback up."""

    node: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (
            ("ip", "netns", "add", self.node),
            ("ip", "-n", self.node, "link", "set", "lo", "up"),
        )


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write a sysctl in a node and read it back; `key` is dotted, as for sysctl(8)."""

    node: str
    key: str
    value: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (_in(self.node, "sysctl", "-qw", f"{self.key}={self.value}"),)


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
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        a, b = self.a, self.b
        first = ("ip", "link", "add", "name", a.name, "address", a.mac, "mtu", str(a.mtu))
        peer = ("peer", "name", b.name, "address", b.mac, "mtu", str(b.mtu))
        return ((*first, "netns", a.node, "type", "veth", *peer, "netns", b.node),)


GRE_TTL = 64
"""Of the packets outside; the kernel would take that of the packet inside."""


@dataclass(frozen=True, slots=True)
class AddTap:
    """Give a node an interface whose other side is a program: a TAP device, for a wire.

    Its `ring` holds so many frames until the wire reads them; more are dropped, and counted.
    """

    end: VethEnd
    ring: int
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        end = self.end
        ip = ("ip", "-n", end.node)
        born = ("address", end.mac, "mtu", str(end.mtu), "txqueuelen", str(self.ring))
        return (
            (*ip, "tuntap", "add", "dev", end.name, "mode", "tap"),
            (*ip, "link", "set", end.name, *born),
        )


@dataclass(frozen=True, slots=True)
class AddTunnel:
    """Give a node one end of a tunnel, between its address `local` and another node's `remote`."""

    end: VethEnd
    kind: TunnelKind
    local: IPv4Address | IPv6Address
    remote: IPv4Address | IPv6Address
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def node(self) -> str:
        """The node it is made in."""
        return self.end.node

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        end, kind = self.end, self.kind
        ip = ("ip", "-n", end.node, "link", "add", "name", end.name)
        between = ("local", str(self.local), "remote", str(self.remote))
        if isinstance(kind, Vxlan):
            told = ("type", "vxlan", "id", str(kind.id), *between, "dstport", str(kind.port))
            return ((*ip, "address", end.mac, "mtu", str(end.mtu), *told),)
        key = () if kind.key is None else ("key", str(kind.key))
        told = ("type", "gre", *between, "ttl", str(GRE_TTL), *key)
        return ((*ip, "mtu", str(end.mtu), *told),)


@dataclass(frozen=True, slots=True)
class AddBridge:
    """Make a bridge without spanning tree in a node and put the named interfaces under it."""

    node: str
    name: str
    ports: tuple[str, ...]
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        ip = ("ip", "-n", self.node, "link")
        bridge = ("type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        return (
            (*ip, "add", "name", self.name, *bridge),
            *((*ip, "set", port, "master", self.name) for port in self.ports),
        )


@dataclass(frozen=True, slots=True)
class SetUp:
    """Set an interface up."""

    node: str
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (("ip", "-n", self.node, "link", "set", self.dev, "up"),)


@dataclass(frozen=True, slots=True)
class OffloadsOff:
    """Turn TSO, GSO, GRO and checksum offload off, so that a captured packet is a wire packet."""

    node: str
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        off = tuple(word for name in ("tso", "gso", "gro", "tx", "rx") for word in (name, "off"))
        return (_in(self.node, "ethtool", "-K", self.dev, *off),)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give an interface an address; IPv6 without duplicate address detection."""

    node: str
    dev: str
    address: IPv4Interface | IPv6Interface
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        nodad = ("nodad",) if self.address.version == 6 else ()
        ip = ("ip", "-n", self.node)
        return ((*ip, "address", "add", str(self.address), "dev", self.dev, *nodad),)


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a static route to a node."""

    node: str
    to: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)
    options: RouteOptions = PLAIN

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return _route("add", self.node, self.to, self.via, self.dev, self.options)


@dataclass(frozen=True, slots=True)
class TuneNeighbours:
    """Give the route to the neighbours on a link, which came with an address, some options."""

    node: str
    dev: str
    address: IPv4Interface | IPv6Interface
    options: RouteOptions
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        to = ("route", "replace", str(self.address.network), "dev", self.dev, "proto", "kernel")
        words = _words(self.options)
        if self.address.version == 6:
            return (("ip", "-6", "-n", self.node, *to, "metric", str(CONNECTED_IPV6), *words),)
        here = ("scope", "link", "src", str(self.address.ip))
        return (("ip", "-n", self.node, *to, *here, *words),)


@dataclass(frozen=True, slots=True)
class CheckCongestion:
    """See which congestion control a new connection to some address would have; nothing is sent."""

    node: str
    address: IPv4Address | IPv6Address
    congestion: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return a command that shows it."""
        family = ("-6",) if self.address.version == 6 else ()
        look = ("ip", *family, "-n", self.node, "route", "get", "fibmatch", str(self.address))
        return (look,)


@dataclass(frozen=True, slots=True)
class SetFirewall:
    """Make this the firewall of a node, in place of the one it has."""

    node: str
    firewall: Firewall
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        script = f"nft -f - <<'END'\n{nft(self.firewall)}END"
        return (_in(self.node, "sh", "-c", script),)


@dataclass(frozen=True, slots=True)
class AddQdisc:
    """Put a queue discipline in its place on an interface: it acts on what leaves there."""

    node: str
    dev: str
    qdisc: Qdisc
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        tc = ("tc", "-n", self.node, "qdisc", "replace", "dev", self.dev)
        return ((*tc, *self.qdisc.words),)


@dataclass(frozen=True, slots=True)
class ChangeQdisc:
    """Change a queue discipline that is there, every one of its settings; it keeps its packets."""

    node: str
    dev: str
    qdisc: Qdisc
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        tc = ("tc", "-n", self.node, "qdisc", "change", "dev", self.dev)
        return ((*tc, *self.qdisc.words),)


@dataclass(frozen=True, slots=True)
class RemoveQdiscs:
    """Take all queue disciplines of an interface away, with the packets they hold."""

    node: str
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (("tc", "-n", self.node, "qdisc", "del", "dev", self.dev, "root"),)


@dataclass(frozen=True, slots=True)
class AddWire:
    """Let the userspace wire of a link run in its middle node; `config` is JSON (`plan.wire`).

    `taps` are the two TAP devices (node, interface) it serves; none: its ports are packet sockets
    on the interfaces of its own node.
    """

    node: str
    link: str
    config: str
    taps: tuple[tuple[str, str], ...] = ()
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the command that runs the same wire, until it is ended."""
        return (_in(self.node, "python3", "-m", "netlab.engine.wire_main", self.config),)


# -- changes of a running lab (`netlab.plan.diff`) ---------------------------------------------


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """Take a node away, and with it every link that ends in it."""

    node: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (("ip", "netns", "del", self.node),)


@dataclass(frozen=True, slots=True)
class RenewNode:
    """Give a node a new network namespace; the one it had is kept aside until `EndFormerNode`."""

    node: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        aside = f"/run/netns/{self.node}.former"
        return (
            ("touch", aside),
            ("mount", "--bind", f"/run/netns/{self.node}", aside),
            ("ip", "netns", "del", self.node),
            ("ip", "netns", "add", self.node),
            ("ip", "-n", self.node, "link", "set", "lo", "up"),
        )


@dataclass(frozen=True, slots=True)
class TakeInterface:
    """Move an interface from a node's former namespace into its new one; it comes out down.

    Its MAC, MTU and other end stay; it is no error if it is not there any more.
    """

    node: str
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        former = ("ip", "-n", f"{self.node}.former")
        return ((*former, "link", "set", self.dev, "netns", self.node),)


@dataclass(frozen=True, slots=True)
class EndFormerNode:
    """Kill what runs in a node's former namespace, which goes with it and with its sockets."""

    node: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        former = f"{self.node}.former"
        kill = f"ip netns pids {shlex.quote(former)} | xargs -r kill -9"
        return (("sh", "-c", kill), ("ip", "netns", "del", former))


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """Take a link away by one of its interfaces; the other end goes with it."""

    node: str
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (("ip", "-n", self.node, "link", "del", self.dev),)


@dataclass(frozen=True, slots=True)
class ResetSysctl:
    """Give a sysctl the value it has in a new namespace; `key` is dotted."""

    node: str
    key: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        parts = self.key.split(".")
        if len(parts) > 4 and parts[2] in ("conf", "neigh") and parts[3] not in ("all", "lo"):
            parts[3] = "default"  # with these values an interface begins
        fresh = f"$(unshare -n sysctl -n {shlex.quote('.'.join(parts))})"
        return (_in(self.node, "sh", "-c", f"sysctl -qw {shlex.quote(self.key)}={fresh}"),)


@dataclass(frozen=True, slots=True)
class AddPort:
    """Put an interface under a bridge that is there already."""

    node: str
    bridge: str
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (("ip", "-n", self.node, "link", "set", self.dev, "master", self.bridge),)


@dataclass(frozen=True, slots=True)
class SetRing:
    """Make the ring of a TAP device longer or shorter; frames in it stay."""

    node: str
    dev: str
    ring: int
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (("ip", "-n", self.node, "link", "set", self.dev, "txqueuelen", str(self.ring)),)


@dataclass(frozen=True, slots=True)
class SetDown:
    """Set an interface down."""

    node: str
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return (("ip", "-n", self.node, "link", "set", self.dev, "down"),)


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Take an address from an interface; it is no error if it has gone already."""

    node: str
    dev: str
    address: IPv4Interface | IPv6Interface
    mark: Mark = field(default=NOWHERE, compare=False)

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        ip = ("ip", "-n", self.node)
        return ((*ip, "address", "del", str(self.address), "dev", self.dev),)


@dataclass(frozen=True, slots=True)
class ReplaceRoute:
    """Make a static route; one to the same destination is replaced in its place, without a gap."""

    node: str
    to: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)
    options: RouteOptions = PLAIN

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        return _route("replace", self.node, self.to, self.via, self.dev, self.options)


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Remove a static route; it is no error if it has gone with its interface."""

    node: str
    to: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address
    dev: str
    mark: Mark = field(default=NOWHERE, compare=False)
    metric: int | None = None

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        options = RouteOptions(metric=self.metric)
        return _route("del", self.node, self.to, self.via, self.dev, options)


def _route(
    verb: str,
    node: str,
    network: IPv4Network | IPv6Network,
    via: IPv4Address | IPv6Address,
    dev: str,
    options: RouteOptions,
) -> tuple[Argv, ...]:
    to = "default" if network.prefixlen == 0 else str(network)
    family = ("-6",) if network.version == 6 else ()
    words = ("route", verb, to, "via", str(via), "dev", dev, *_words(options))
    return (("ip", *family, "-n", node, *words),)


def _words(options: RouteOptions) -> Argv:
    """Return the words of `ip route` for the options of a route."""
    names = {"congestion": "congctl"}
    given = ((key.name, getattr(options, key.name)) for key in fields(options))
    return tuple(w for k, v in given if v is not None for w in (names.get(k, k), str(v)))


def _in(node: str, *argv: str) -> Argv:
    return ("ip", "netns", "exec", node, *argv)


Operation = (
    AddNode
    | SetSysctl
    | AddVeth
    | AddTap
    | AddTunnel
    | AddBridge
    | SetUp
    | OffloadsOff
    | AddAddress
    | AddRoute
    | TuneNeighbours
    | SetFirewall
    | CheckCongestion
    | AddQdisc
    | ChangeQdisc
    | RemoveQdiscs
    | AddWire
    | RemoveNode
    | RenewNode
    | TakeInterface
    | EndFormerNode
    | RemoveLink
    | ResetSysctl
    | AddPort
    | SetDown
    | SetRing
    | RemoveAddress
    | ReplaceRoute
    | RemoveRoute
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in the order in which they are applied, for one topology."""

    topology: Topology
    operations: tuple[Operation, ...]
