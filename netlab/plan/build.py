"""Topology → Plan: what has to be done, in an order that works.

The order is: nodes, the sysctls that interfaces inherit, links, the sysctls of single interfaces,
tunnels, bridges, offloads, addresses, up, routes, queue disciplines, wires.

A link that is impaired gets a hidden *middle node*: both ends are joined to it, a bridge passes
packets on, and queue disciplines sit on the two ports where packets leave it. With the wire as back
end (`netlab.plan.backend`) a program passes packets on, in place of bridge and disciplines:
between TAP devices in the end nodes where the machine allows these, else between packet sockets on
the two ports.
Impairing the sender's own interface would be wrong: TCP is told of a drop in its own queue and does
not retransmit, so a loss there is not a loss on the wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netlab.model.addressing import make_mac
from netlab.model.capabilities import Capabilities
from netlab.model.topology import Interface, Link, Mark, Node, Role, Route, RouteOptions, Topology
from netlab.plan.backend import Backend, choose
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
    CheckCongestion,
    OffloadsOff,
    Operation,
    Plan,
    SetFirewall,
    SetSysctl,
    SetUp,
    TuneNeighbours,
    VethEnd,
)
from netlab.plan.qdiscs import chain
from netlab.plan.wire import configuration, ring

BRIDGE = "br0"
MIDDLE = (("p0", "p1"), ".wire")  # ports of a middle node; what follows the link's name in its own

# Sysctls of every node that has addresses: quiet interfaces with addresses that work at once.
_QUIET = (
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.dad_transmits", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
)
# Of nodes without IPv6, and of switches and middle nodes, which must not speak themselves.
_NO_IPV6 = (
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
)
_FORWARD = (
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
)


def build(
    topology: Topology,
    capabilities: Capabilities | None = None,
    impair: Backend | None = None,
) -> Plan:
    """Return the plan that makes a topology; CapabilityError where the machine cannot.

    Without `capabilities` the machine is taken to be able to do everything, though a wire then has
    packet sockets, which every machine has. `impair` is the one back end that may be used.
    """
    backends = {
        link.name: choose(link, capabilities, impair)
        for link in topology.links
        if link.forward or link.backward
    }
    tun = capabilities is not None and capabilities.tun
    return Plan(topology, tuple(_operations(topology, backends, tun=tun)))


def middle_node(link: Link) -> str:
    """Return the name of the hidden node in the middle of an impaired link."""
    return f"{link.name}{MIDDLE[1]}"


def _operations(
    topology: Topology, backends: Mapping[str, Backend], *, tun: bool
) -> Iterator[Operation]:
    impaired = [link for link in topology.links if link.name in backends]
    wired = [link for link in impaired if backends[link.name] is Backend.WIRE]
    bridged = [link for link in impaired if backends[link.name] is Backend.NETEM]
    tapped = wired if tun else []
    ported = [link for link in impaired if link not in tapped]
    for node in topology.nodes:
        yield AddNode(node.name, node.mark)
    for link in impaired:
        yield AddNode(middle_node(link), link.mark)

    late: list[SetSysctl] = []
    for node in topology.nodes:
        for operation in _sysctls(node, topology):
            if _of_interface(operation.key):
                late.append(operation)
            else:
                yield operation
    for link in impaired:
        for key, value in _NO_IPV6:
            yield SetSysctl(middle_node(link), key, value, link.mark)

    for link in topology.links:
        if link in tapped or link.tunnel is not None:
            continue
        if link in ported:
            middle, mtu = middle_node(link), max(link.a.mtu, link.b.mtu)
            for end, port in zip(link.ends, MIDDLE[0], strict=True):
                inner = VethEnd(middle, port, make_mac(middle, port), mtu)
                yield AddVeth(_veth_end(end), inner, link.mark)
        else:
            yield AddVeth(_veth_end(link.a), _veth_end(link.b), link.mark)
    for link in tapped:
        for end, way in zip(link.ends, (link.forward, link.backward), strict=True):
            yield AddTap(_veth_end(end), ring(way), link.mark)
    for link in topology.links:
        if link.tunnel is not None:
            near, far = link.tunnel.ends
            yield AddTunnel(_veth_end(link.a), link.tunnel.kind, near, far, link.mark)
            yield AddTunnel(_veth_end(link.b), link.tunnel.kind, far, near, link.mark)
    yield from late
    for node in topology.nodes:
        if node.firewall:
            mark = node.firewall_mark or node.mark
            yield SetFirewall(node.name, node.firewall, mark)
            if node.firewall.nat is not None:
                for key, value in node.firewall.nat.conntrack:
                    yield SetSysctl(node.name, key, value, mark)

    for node in topology.nodes:
        if node.role is Role.SWITCH:
            ports = tuple(end.name for end in topology.interfaces(node.name))
            yield AddBridge(node.name, BRIDGE, ports, node.mark)
    for link in bridged:
        yield AddBridge(middle_node(link), BRIDGE, MIDDLE[0], link.mark)

    for link in topology.links:
        if not link.offloads:
            for end in link.ends:
                yield OffloadsOff(end.node, end.name, link.mark)
            if link in ported:
                for port in MIDDLE[0]:
                    yield OffloadsOff(middle_node(link), port, link.mark)

    for node in topology.nodes:
        for address in node.loopbacks:
            yield AddAddress(node.name, "lo", address, node.mark)
        for end in topology.interfaces(node.name):
            for address in end.addresses:
                yield AddAddress(node.name, end.name, address, end.mark)

    for node in topology.nodes:
        for end in topology.interfaces(node.name):
            if end.up:
                yield SetUp(node.name, end.name, end.mark)
        if node.role is Role.SWITCH:
            yield SetUp(node.name, BRIDGE, node.mark)
    for link in ported:
        for dev in (*MIDDLE[0], BRIDGE) if link in bridged else MIDDLE[0]:
            yield SetUp(middle_node(link), dev, link.mark)

    for node in topology.nodes:
        down = {end.name for end in topology.interfaces(node.name) if not end.up}
        for route in node.routes:
            if route.dev not in down:  # the kernel refuses a route through what is down
                options = _options(node, route)
                mark = route.mark or node.mark
                yield AddRoute(node.name, route.to, route.via, route.dev, mark, options)
    for node in topology.nodes:
        yield from _congestion(node, topology)

    for link in bridged:
        # What goes to `b` leaves the middle node by its second port, what goes to `a` by its first.
        mtu = max(link.a.mtu, link.b.mtu)
        for impairment, port in zip((link.backward, link.forward), MIDDLE[0], strict=True):
            if impairment:
                for qdisc in chain(impairment, mtu):
                    yield AddQdisc(middle_node(link), port, qdisc, link.mark)
    for link in wired:
        taps = tuple((end.node, end.name) for end in link.ends) if link in tapped else ()
        config = json.dumps(configuration(link, MIDDLE[0], taps))
        yield AddWire(middle_node(link), link.name, config, taps, link.mark)


def _options(node: Node, route: Route) -> RouteOptions:
    """Return the options of a route, with the congestion control of the node if it has none."""
    if node.congestion is None or route.options.congestion is not None:
        return route.options
    return replace(route.options, congestion=node.congestion)


def _congestion(node: Node, topology: Topology) -> Iterator[Operation]:
    """Give a node's congestion control to its links as well, and look at the result everywhere.

    The namespace's own setting would be one write, but the kernel takes only what the machine's
    administrator allows for everybody (tcp_allowed_congestion_control). A route may name any.
    """
    ends = [end for end in topology.interfaces(node.name) if end.up]
    if node.congestion is not None:
        options = RouteOptions(congestion=node.congestion)
        for end in ends:
            seen: set[object] = set()
            for address in end.addresses:
                if address.network in seen or address.network.num_addresses == 1:
                    continue
                seen.add(address.network)
                yield TuneNeighbours(node.name, end.name, address, options, node.mark)
    near = [address for end in ends for address in end.addresses]
    if node.congestion is not None:
        for address in near:
            if address.network.num_addresses > 1:
                last = max(int(address.network[-1]), int(address.network[0]) + 2)
                neighbour = address.ip + (1 if int(address.ip) + 1 < last else -1)
                yield CheckCongestion(node.name, neighbour, node.congestion, node.mark)
    up = {end.name for end in ends}
    for route in node.routes:
        wanted = _options(node, route).congestion
        if wanted is None or route.dev not in up or _beaten(route, node):
            continue
        closer = [a.network for a in near if a.network.prefixlen >= route.to.prefixlen]
        closer += [r.to for r in node.routes if r.to.prefixlen > route.to.prefixlen]
        address = _beyond(route.to, closer)
        if address is not None:
            yield CheckCongestion(node.name, address, wanted, route.mark or node.mark)


def _beaten(route: Route, node: Node) -> bool:
    """Say whether another route to the same destination has a lower metric."""
    usual = 0 if route.to.version == 4 else 1024  # IP6_RT_PRIO_USER
    metrics = [r.options.metric or usual for r in node.routes if r.to == route.to]
    return (route.options.metric or usual) > min(metrics)


def _beyond(
    network: IPv4Network | IPv6Network, others: Iterable[IPv4Network | IPv6Network]
) -> IPv4Address | IPv6Address | None:
    """Return an address that is in a network and in none of the others, if one is soon found."""
    parts = 16
    step = max(network.num_addresses // parts, 1)
    inside = [other for other in others if other.version == network.version]
    for number in range(min(parts, network.num_addresses)):
        address = network[step * number + (step > 2)]
        usable = not (address.is_multicast or address.is_loopback or address.is_unspecified)
        if usable and not any(address in other for other in inside):
            return address
    return None


def _veth_end(end: Interface) -> VethEnd:
    return VethEnd(end.node, end.name, end.mac, end.mtu)


def _of_interface(key: str) -> bool:
    """Say whether a sysctl belongs to one interface, which must exist before it can be written."""
    parts = key.split(".")
    return (
        len(parts) > 4
        and parts[2] in ("conf", "neigh")
        and parts[3] not in ("all", "default", "lo")
    )


def _sysctls(node: Node, topology: Topology) -> Iterator[SetSysctl]:
    """Return what a role implies, unless the author wrote otherwise, then what they wrote."""
    if node.role is Role.SWITCH:
        implied = _NO_IPV6
    else:
        mine = [a for end in topology.interfaces(node.name) for a in end.addresses]
        implied = _QUIET if any(a.version == 6 for a in (*mine, *node.loopbacks)) else _NO_IPV6
        if node.role.forwards:
            implied = (*implied, *(_FORWARD if implied is _QUIET else _FORWARD[:1]))
    written = dict(node.sysctls)
    for key, value in implied:
        if key not in written:
            yield SetSysctl(node.name, key, value, node.mark)
    for key, value in node.sysctls:
        yield SetSysctl(node.name, key, value, node.sysctl_marks.get(key, node.mark))


def whole(mark: Mark) -> str:
    """Return a mark as it is written in messages and comments."""
    return f"{mark.file + ':' if mark.file else ''}{mark.line}:{mark.column}"
