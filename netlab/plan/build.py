"""Topology → Plan: what has to be done, in an order that works.

The order is: nodes, the sysctls that interfaces inherit, links, the sysctls of single interfaces,
bridges, offloads, addresses, up, routes, queue disciplines.

A link that is impaired gets a hidden *middle node*: both ends are joined to it, a bridge passes
packets on, and queue disciplines sit on the two ports where packets leave it. Impairing the
sender's own interface would be wrong: TCP is told of a drop in its own queue and does not
retransmit, so a loss there is not a loss on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator

from netlab.errors import CapabilityError
from netlab.model.addressing import make_mac
from netlab.model.capabilities import Capabilities
from netlab.model.topology import Interface, Link, Mark, Node, Role, Topology
from netlab.plan.operations import (
    AddAddress,
    AddBridge,
    AddNode,
    AddQdisc,
    AddRoute,
    AddVeth,
    OffloadsOff,
    Operation,
    Plan,
    SetSysctl,
    SetUp,
    VethEnd,
)
from netlab.plan.qdiscs import chain, refusal

BRIDGE = "br0"
ALWAYS = frozenset({"pfifo", "bfifo"})  # no kernel is without these
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


def build(topology: Topology, capabilities: Capabilities | None = None) -> Plan:
    """Return the plan that makes a topology; CapabilityError where the machine cannot.

    Without `capabilities` the machine is taken to be able to do everything.
    """
    if capabilities is not None:
        _check(topology, capabilities)
    return Plan(topology, tuple(_operations(topology)))


def _check(topology: Topology, capabilities: Capabilities) -> None:
    lacking: dict[str, list[str]] = {}
    for link in topology.links:
        for impairment in (link.forward, link.backward):
            reason = refusal(impairment, capabilities.kernel)
            if reason is not None:
                raise CapabilityError(f"link '{link.name}': {reason}", hint="the wire back end can")
            for qdisc in chain(impairment, link.a.mtu):
                if qdisc.kind not in capabilities.qdiscs and qdisc.kind not in ALWAYS:
                    lacking.setdefault(qdisc.kind, []).append(f"'{link.name}'")
    for kind, links in lacking.items():
        names = list(dict.fromkeys(links))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        what = "delay, loss or rate" if kind == "netem" else "queue"
        raise CapabilityError(
            f"this kernel has no {kind}, which the {what} of link "
            f"{', '.join(names[:3])}{more} needs",
            hint="install the kernel's extra modules (linux-modules-extra) or use a machine "
            f"that has sch_{kind}",
        )


def middle_node(link: Link) -> str:
    """Return the name of the hidden node in the middle of an impaired link."""
    return f"{link.name}{MIDDLE[1]}"


def _operations(topology: Topology) -> Iterator[Operation]:
    impaired = [link for link in topology.links if link.forward or link.backward]
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
        if link.forward or link.backward:
            middle, mtu = middle_node(link), max(link.a.mtu, link.b.mtu)
            for end, port in zip(link.ends, MIDDLE[0], strict=True):
                inner = VethEnd(middle, port, make_mac(middle, port), mtu)
                yield AddVeth(_veth_end(end), inner, link.mark)
        else:
            yield AddVeth(_veth_end(link.a), _veth_end(link.b), link.mark)
    yield from late

    for node in topology.nodes:
        if node.role is Role.SWITCH:
            ports = tuple(end.name for end in topology.interfaces(node.name))
            yield AddBridge(node.name, BRIDGE, ports, node.mark)
    for link in impaired:
        yield AddBridge(middle_node(link), BRIDGE, MIDDLE[0], link.mark)

    for link in topology.links:
        if not link.offloads:
            for end in link.ends:
                yield OffloadsOff(end.node, end.name, link.mark)
            if link.forward or link.backward:
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
    for link in impaired:
        for dev in (*MIDDLE[0], BRIDGE):
            yield SetUp(middle_node(link), dev, link.mark)

    for node in topology.nodes:
        down = {end.name for end in topology.interfaces(node.name) if not end.up}
        for route in node.routes:
            if route.dev not in down:  # the kernel refuses a route through what is down
                yield AddRoute(node.name, route.to, route.via, route.dev, route.mark or node.mark)

    for link in impaired:
        # What goes to `b` leaves the middle node by its second port, what goes to `a` by its first.
        mtu = max(link.a.mtu, link.b.mtu)
        for impairment, port in zip((link.backward, link.forward), MIDDLE[0], strict=True):
            if impairment:
                for qdisc in chain(impairment, mtu):
                    yield AddQdisc(middle_node(link), port, qdisc, link.mark)


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
