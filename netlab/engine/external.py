"""A way out of a lab: `netlab up --external`, which gives a node an interface on a real network.

Theory of operation. The interface is a macvlan on one of the machine's: it has a MAC of its own and
is made in the machine's namespace but born in the node's, as a veth is. So it belongs to the node,
and the kernel takes it away with it, however the lab ends; nothing in the machine's namespace has
changed but the filter of addresses of the interface that was named. The machine itself cannot be
reached that way, since what a macvlan sends never comes back into its lower interface; the rest of
the network can, and other labs on the same interface.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import Any

from netlab.engine import netlink
from netlab.engine.apply import apply_over
from netlab.engine.supervisor import Supervisor
from netlab.errors import CapabilityError, EngineError, UsageError
from netlab.model.topology import Role, Topology
from netlab.plan.operations import (
    AddAddress,
    Argv,
    OffloadsOff,
    Operation,
    Plan,
    ReplaceRoute,
    SetFirewall,
    SetUp,
)

Json = dict[str, Any]
_SIOCGIFFLAGS, _IFF_UP, _IFF_LOOPBACK = 0x8913, 0x1, 0x8
_EVERYWHERE = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


@dataclass(frozen=True, slots=True)
class External:
    """A node and the machine's interface on whose network it gets one, of the same name."""

    node: str
    interface: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    gateways: tuple[IPv4Address | IPv6Address, ...] = ()

    def __str__(self) -> str:
        parts = (f"{self.node}={self.interface}", *self.addresses, *self.gateways)
        return ",".join(map(str, parts))

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Return what is done in the node once the interface is there."""
        node, dev = self.node, self.interface
        return (
            OffloadsOff(node, dev),
            *(AddAddress(node, dev, address) for address in self.addresses),
            SetUp(node, dev),
            *(ReplaceRoute(node, _EVERYWHERE[via.version], via, dev) for via in self.gateways),
        )

    @property
    def commands(self) -> tuple[Argv, ...]:
        """Return the commands that do the same."""
        born = ("ip", "link", "add", "link", self.interface, "name", self.interface)
        made = (*born, "netns", self.node, "type", "macvlan", "mode", "bridge")
        return (made, *(argv for op in self.operations for argv in op.commands))


def parse(text: str, topology: Topology) -> External:
    """Read `[NODE=]INTERFACE[,ADDRESS/LENGTH…][,GATEWAY…]`; without NODE the only nat is meant."""
    where, *rest = text.split(",")
    node, equals, interface = where.rpartition("=")
    if not equals:
        nats = [one.name for one in topology.nodes if one.role is Role.NAT]
        if len(nats) != 1:
            hint = f"write --external NODE={text}"
            raise UsageError(f"this network has {len(nats)} nats; which node is meant?", hint=hint)
        node = nats[0]
    found = topology.by_name.get(node)
    if found is None or found.hidden or found.role is Role.SWITCH:
        why = "is a switch and has no address" if found else "is no node of this network"
        raise UsageError(f"--external {text}: {node!r} {why}")
    addresses: list[IPv4Interface | IPv6Interface] = []
    gateways: list[IPv4Address | IPv6Address] = []
    for word in rest:
        try:
            if "/" in word:
                addresses.append(ip_interface(word))
            else:
                gateways.append(ip_address(word))
        except ValueError as error:
            raise UsageError(f"--external {text}: {error}") from None
    for gateway in gateways:
        if not any(gateway in address.network for address in addresses):
            reason = f"the gateway {gateway} is in no network of the addresses before it"
            raise UsageError(f"--external {text}: {reason}")
    return External(node, interface, tuple(addresses), tuple(gateways))


def refuse_impossible(wanted: Sequence[External], topology: Topology, *, rootless: bool) -> None:
    """Raise, before anything is built, where there can be no such interface."""
    if wanted and (rootless or os.geteuid() != 0):
        raise CapabilityError(
            "an interface on a network of this machine takes root",
            hint="run netlab as root, or leave --external out",
        )
    for one in wanted:
        _refuse_interface(one.interface)
        taken = {end.name for end in topology.interfaces(one.node)}
        if one.interface in taken or wanted.count(one) > 1:
            told = f"node {one.node!r} has an interface {one.interface!r} already"
            raise UsageError(told, hint="give the one in the topology another name")
        ends = (end for node in topology.nodes for end in topology.interfaces(node.name))
        for end in ends:
            for mine in end.addresses:
                for address in one.addresses:
                    if mine.version == address.version and mine.network.overlaps(address.network):
                        told = f"{address.network} overlaps {mine.network} of {end}"
                        hint = "give the lab other addresses, such as defaults.addressing.ipv4"
                        raise UsageError(f"--external {one}: {told}", hint=hint)


def _refuse_interface(name: str) -> None:
    """Raise when the machine has no such interface, or one that leads nowhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()[:15]))
        except OSError:
            known = ", ".join(found for _, found in socket.if_nameindex() if found != "lo")
            hint = f"it has {known}" if known else None
            raise UsageError(f"this machine has no interface {name!r}", hint=hint) from None
    (flags,) = struct.unpack_from("=H", answer, 16)
    if flags & _IFF_LOOPBACK:
        raise UsageError(f"the interface {name!r} leads nowhere")
    if not flags & _IFF_UP:
        hint = f"`sudo ip link set {name} up`"
        raise UsageError(f"this machine's interface {name!r} is down", hint=hint)


def translated(plan: Plan, wanted: Sequence[External]) -> Plan:
    """Return a plan whose nats take the interfaces that lead out for outside ones."""
    if not wanted:
        return plan
    out: dict[str, tuple[str, ...]] = {}
    for one in wanted:
        out[one.node] = (*out.get(one.node, ()), one.interface)

    def operation(given: Operation) -> Operation:
        if not isinstance(given, SetFirewall) or given.node not in out:
            return given
        nat = given.firewall.nat
        if nat is None:
            return given
        nat = replace(nat, outside=(*nat.outside, *out[given.node]))
        return replace(given, firewall=replace(given.firewall, nat=nat))

    return replace(plan, operations=tuple(map(operation, plan.operations)))


def attach(started: Supervisor, plan: Plan, wanted: Sequence[External]) -> None:
    """Make the interfaces in a lab whose nodes are there."""
    if not wanted:
        return
    held = started.channel.request({"do": "namespaces"})
    for one in wanted:
        index = started.indexes.new(one.node, one.interface)
        inside = os.open(
            f"/proc/{held['pid']}/fd/{held['fds'][one.node]}", os.O_RDONLY | os.O_CLOEXEC
        )
        try:
            parent = socket.if_nametoindex(one.interface)
            _ask(netlink.macvlan(1, (index, one.interface), parent, inside), one)
        finally:
            os.close(inside)
        apply_over(started.channel, one.operations, started.indexes, plan.topology.source)


def _ask(request: bytes, one: External) -> None:
    """Send a request in the machine's namespace, where the interface is that it builds on."""
    what = f"--external {one}: no interface for {one.node!r} on {one.interface!r}"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as machine:
        machine.settimeout(10)
        machine.send(netlink.acknowledged(request))
        (code,) = struct.unpack_from("=i", machine.recv(1 << 16), 16)
    if -code == errno.EOPNOTSUPP:
        raise CapabilityError(f"{what}: this kernel has no macvlan", hint="`sudo modprobe macvlan`")
    if code:
        raise EngineError(f"{what}: {os.strerror(-code).lower()}")
