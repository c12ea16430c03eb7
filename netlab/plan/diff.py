"""Two topologies → what turns a running lab of the first into one of the second.

Theory of operation. Both are planned, and the plans compared operation by operation. What is in
the new plan and not in the old one is done; for what is in the old one alone, the reverse. Two
things are never changed but made anew: a node whose role differs, and a link whose ends, MACs, MTU,
offloads or middle node differ, which takes its wire with it. A middle node is made anew where a
schedule is concerned (its clock starts when the link does) or the back end changes. What is made
anew is *fresh*, and everything the new plan says of it is done. What is untouched in both gets no
operation at all and loses no packet.

The order is: links and nodes that go (their interface names may be wanted), then addresses that go,
then everything new in the order of a plan, routes replaced rather than removed and added, and last
the routes and interfaces that go.

Four habits of the kernel (net/ipv4/devinet.c, fib_frontend.c, net/ipv6/addrconf.c) are allowed
for. Setting an interface down takes its IPv6 addresses, so they are added again. Removing the first
address of a subnet removes the others of the same subnet on that interface, so those are added
again. Removing the last address of an interface removes all routes through it, so where
addresses go, the routes through that interface are written again. The sysctls called `default` are
for interfaces to come, so those that are there already are given the same.

Unsatisfactory: an MTU could be changed in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from netlab.model.capabilities import Capabilities
from netlab.model.firewall import NO_FIREWALL
from netlab.model.topology import PLAIN, Process, Topology
from netlab.plan.backend import Backend
from netlab.plan.build import build, middle_node
from netlab.plan.operations import (
    AddAddress,
    AddBridge,
    AddNode,
    AddPort,
    AddQdisc,
    AddRoute,
    AddTap,
    AddTunnel,
    AddVeth,
    AddWire,
    ChangeQdisc,
    CheckCongestion,
    OffloadsOff,
    Operation,
    Plan,
    RemoveAddress,
    RemoveLink,
    RemoveNode,
    RemoveQdiscs,
    RemoveRoute,
    ReplaceRoute,
    ResetSysctl,
    SetDown,
    SetFirewall,
    SetRing,
    SetSysctl,
    SetUp,
    TuneNeighbours,
    VethEnd,
)

_Device = tuple[str, str]  # node, interface
_Target = tuple[str, IPv4Network | IPv6Network, int | None]  # node, destination, metric


def diff(
    old: Topology,
    new: Topology,
    capabilities: Capabilities | None = None,
    impair: Backend | None = None,
) -> Plan:
    """Return the smallest plan that makes a running lab of `old` one of `new`.

    An empty plan if they build the same network; CapabilityError as from `build`.
    """
    before, after = (build(one, capabilities, impair).operations for one in (old, new))
    changed = _changed_roles(old, new) | _changed_schedules(old, new)
    return Plan(new, tuple(_Difference(before, after, changed).operations()))


@dataclass(frozen=True, slots=True)
class ProcessChange:
    """The programs that end before a network changes, the last to start first, and begin after."""

    ending: tuple[Process, ...]
    beginning: tuple[Process, ...]

    def __bool__(self) -> bool:
        return bool(self.ending or self.beginning)


def processes(old: Topology, new: Topology, plan: Plan) -> ProcessChange:
    """Return what a change of networks means for the programs of the topology.

    One that is the same in both goes on, unless `plan` makes its node anew: the node takes its
    programs with it.
    """
    fresh = {op.node for op in plan.operations if isinstance(op, AddNode)}
    gone = {op.node for op in plan.operations if isinstance(op, RemoveNode)}
    before = {process.name: process for process in old.processes}
    after = {process.name: process for process in new.processes}
    ending = [p for p in before.values() if after.get(p.name) != p and p.node not in gone]
    beginning = [p for p in after.values() if before.get(p.name) != p or p.node in fresh]
    return ProcessChange(tuple(reversed(ending)), tuple(beginning))


def _changed_schedules(old: Topology, new: Topology) -> set[str]:
    """Return the middle nodes of links that change and follow a schedule, before or after."""
    before = {link.name: link for link in old.links}
    found: set[str] = set()
    for link in new.links:
        was = before.get(link.name)
        if was is None or (was.forward, was.backward) == (link.forward, link.backward):
            continue
        if any(i.schedule for i in (was.forward, was.backward, link.forward, link.backward)):
            found.add(middle_node(link))
    return found


def _changed_roles(old: Topology, new: Topology) -> set[str]:
    return {
        node.name
        for node in new.nodes
        if node.name in old.by_name and old.by_name[node.name].role is not node.role
    }


class _Facts:
    """What a plan makes, by kind."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.nodes: dict[str, AddNode] = {}
        # What goes and comes together: the ends of a veth, of a wire with TAPs (True: each goes by
        # itself), one end of a tunnel.
        self.pairs: dict[frozenset[_Device], tuple[frozenset[VethEnd | AddTunnel], bool]] = {}
        self.taps: dict[_Device, AddTap] = {}
        self.sysctls: dict[tuple[str, str], SetSysctl] = {}
        self.bridges: dict[_Device, AddBridge] = {}
        self.quiet: set[_Device] = set()  # offloads off
        self.addresses: dict[_Device, list[AddAddress]] = {}
        self.up: set[_Device] = set()
        self.routes: dict[_Target, AddRoute] = {}
        self.firewalls: dict[str, SetFirewall] = {}
        self.tuned: set[TuneNeighbours | CheckCongestion] = set()
        self.qdiscs: dict[_Device, list[AddQdisc]] = {}
        self.wires: dict[str, AddWire] = {}
        for op in operations:
            match op:
                case AddNode(node):
                    self.nodes[node] = op
                case AddVeth(a, b):
                    devices = frozenset(((a.node, a.name), (b.node, b.name)))
                    self.pairs[devices] = frozenset((a, b)), False
                case AddTap(end):
                    self.taps[end.node, end.name] = op
                case AddTunnel(end):
                    self.pairs[frozenset(((end.node, end.name),))] = frozenset((op,)), True
                case SetSysctl(node, key):
                    self.sysctls[node, key] = op
                case AddBridge(node, name):
                    self.bridges[node, name] = op
                case OffloadsOff(node, dev):
                    self.quiet.add((node, dev))
                case AddAddress(node, dev):
                    self.addresses.setdefault((node, dev), []).append(op)
                case SetUp(node, dev):
                    self.up.add((node, dev))
                case AddRoute(node, to):
                    self.routes[node, to, op.options.metric] = op
                case SetFirewall(node):
                    self.firewalls[node] = op
                case TuneNeighbours() | CheckCongestion():
                    self.tuned.add(op)
                case AddQdisc(node, dev):
                    self.qdiscs.setdefault((node, dev), []).append(op)
                case AddWire(node):
                    self.wires[node] = op
                    if op.taps:
                        ends = frozenset(self.taps[device].end for device in op.taps)
                        self.pairs[frozenset(op.taps)] = ends, True
                case _:
                    raise TypeError(f"{op!r} is not in a plan that builds")

    def served(self, wire: AddWire) -> list[frozenset[_Device]]:
        """Return the pairs of interfaces between which a wire passes packets."""
        if wire.taps:
            return [frozenset(wire.taps)]
        return [pair for pair in self.pairs if any(node == wire.node for node, _ in pair)]


class _Difference:
    def __init__(
        self, before: tuple[Operation, ...], after: tuple[Operation, ...], changed: set[str]
    ) -> None:
        self.after = after
        self.old, self.new = _Facts(before), _Facts(after)
        changed = changed | (self.old.wires.keys() ^ self.new.wires.keys())
        self.gone_nodes = [n for n in self.old.nodes if n not in self.new.nodes or n in changed]
        lost = set(self.gone_nodes)
        kept = {pair for pair in self.old.pairs if self._same_link(pair, lost)}
        for node, wire in self.old.wires.items():
            if node not in lost and not kept.issuperset(self.old.served(wire)):
                lost.add(node)  # what it holds open is gone
                self.gone_nodes.append(node)
        for node, wire in self.old.wires.items():
            if node in lost:
                kept.difference_update(self.old.served(wire))
        kept = {pair for pair in kept if not any(node in lost for node, _ in pair)}
        self.fresh_nodes = {n for n in self.new.nodes if n not in self.old.nodes or n in lost}
        # The kernel takes a namespace and its links away in its own time; a link with an end that
        # stays is removed by that end, at once, because its name may be wanted.
        self.gone_links: list[_Device] = []
        for pair, (_, taps) in self.old.pairs.items():
            staying = sorted(device for device in pair if device[0] not in lost)
            if pair not in kept:
                self.gone_links += staying if taps else staying[:1]
        self.gone: set[_Device] = {
            device for pair in self.old.pairs if pair not in kept for device in pair
        }
        self.fresh: set[_Device] = {
            device for pair in self.new.pairs if pair not in kept for device in pair
        }

    def _same_link(self, pair: frozenset[_Device], lost: set[str]) -> bool:
        if self.new.pairs.get(pair) != self.old.pairs[pair] or any(
            node in lost for node, _ in pair
        ):
            return False
        return all((d in self.old.quiet) == (d in self.new.quiet) for d in pair)

    def operations(self) -> Iterator[Operation]:
        for device in self.gone_links:
            yield RemoveLink(*device)
        for node in self.gone_nodes:
            yield RemoveNode(node)
        for (node, key), op in self.old.sysctls.items():
            if (
                (node, key) not in self.new.sysctls
                and node in self.new.nodes
                and node not in self.fresh_nodes
                and not self._names_fresh(op)
            ):
                yield ResetSysctl(node, key)
                yield from (ResetSysctl(node, one) for one in self._inherit(op))
        yield from self._addresses_that_go()
        for op in self.after:
            yield from self._add(op)
        yield from self._remove()

    def _is_fresh(self, node: str, dev: str) -> bool:
        return node in self.fresh_nodes or (node, dev) in self.fresh

    def _names_fresh(self, op: SetSysctl) -> bool:
        """Say whether a sysctl belongs to an interface that is made anew or goes."""
        parts = op.key.split(".")
        device = (op.node, parts[3]) if len(parts) > 4 else None
        return device in self.fresh or device in self.gone

    def _inherit(self, op: SetSysctl) -> Iterator[str]:
        """Yield the sysctls of interfaces that were there before a default for new ones changed."""
        parts = op.key.split(".")
        if len(parts) < 5 or parts[2] not in ("conf", "neigh") or parts[3] != "default":
            return
        for dev in self._staying(op.node):
            key = ".".join((*parts[:3], dev.replace(".", "/"), *parts[4:]))
            if (op.node, key) not in self.new.sysctls:
                yield key

    def _staying(self, node: str) -> list[str]:
        """Return the interfaces of a node that stay, sorted by name."""
        devices = {device for pair in self.new.pairs for device in pair} - self.fresh
        devices |= self.new.bridges.keys()
        return sorted(dev for owner, dev in devices if owner == node and self._stays((owner, dev)))

    def _addresses_that_go(self) -> Iterator[Operation]:
        self.shaken: set[tuple[_Device, int]] = set()
        self.again: set[AddAddress] = set()
        for device, ops in self.old.addresses.items():
            if not self._stays(device):
                continue
            stay = set(self.new.addresses.get(device, ()))
            for op in ops:
                if op in stay:
                    continue
                network = op.address.network
                yield RemoveAddress(op.node, op.dev, op.address)
                self.shaken.add((device, network.version))
                self.again |= {other for other in stay if other.address.network == network}

    def _add(self, op: Operation) -> Iterator[Operation]:
        """Yield an operation of the new plan if the old network lacks what it makes."""
        match op:
            case AddNode(node):
                needed = node in self.fresh_nodes
            case AddVeth(a, b):
                needed = (a.node, a.name) in self.fresh or (b.node, b.name) in self.fresh
            case AddTap(end, ring):
                needed = (end.node, end.name) in self.fresh
                if not needed and self.old.taps[end.node, end.name].ring != ring:
                    yield SetRing(end.node, end.name, ring, op.mark)
            case AddTunnel(end):
                needed = (end.node, end.name) in self.fresh
            case SetSysctl(node, key):
                same = self.old.sysctls.get((node, key)) == op
                needed = not same or node in self.fresh_nodes or self._names_fresh(op)
                if needed and node not in self.fresh_nodes:
                    yield op
                    yield from (replace(op, key=one) for one in self._inherit(op))
                    return
            case AddBridge(node, name, ports):
                needed = node in self.fresh_nodes
                if not needed:
                    before = self.old.bridges[node, name].ports
                    for port in ports:
                        if port not in before or (node, port) in self.fresh:
                            yield AddPort(node, name, port, op.mark)
            case OffloadsOff(node, dev):
                needed = self._is_fresh(node, dev)
            case AddAddress(node, dev):
                known = op in self.old.addresses.get((node, dev), ())
                needed = not known or op in self.again or self._is_fresh(node, dev)
            case SetUp(node, dev):
                needed = (node, dev) not in self.old.up or self._is_fresh(node, dev)
            case AddRoute(node):
                needed = node in self.fresh_nodes
                if not needed and self._moved(op):
                    yield ReplaceRoute(node, op.to, op.via, op.dev, op.mark, op.options)
            case SetFirewall(node):
                needed = self.old.firewalls.get(node) != op or node in self.fresh_nodes
            case TuneNeighbours(node, dev):
                device = (node, dev)
                needed = (
                    op not in self.old.tuned
                    or device not in self.old.up
                    or self._is_fresh(node, dev)
                    or (device, op.address.version) in self.shaken
                )
            case CheckCongestion(node):
                touched = {owner for owner, _ in self.fresh} | self.fresh_nodes
                touched |= {owner for (owner, _), _ in self.shaken}
                needed = op not in self.old.tuned or node in touched
            case AddWire(node):
                needed = self.old.wires.get(node) != op or node in self.fresh_nodes
            case AddQdisc(node, dev):
                needed = self._is_fresh(node, dev) or (node, dev) not in self.old.qdiscs
                if not needed:
                    yield from self._qdisc(op)
            case _:
                needed = True
        if needed:
            yield op

    def _moved(self, op: AddRoute) -> bool:
        """Say whether a route is new, leads elsewhere, or may have gone with its interface."""
        device = (op.node, op.dev)
        return (
            self.old.routes.get((op.node, op.to, op.options.metric)) != op
            or device in self.fresh
            or (device, op.to.version) in self.shaken
            or device not in self.old.up
        )

    def _qdisc(self, op: AddQdisc) -> Iterator[Operation]:
        """Change a chain in place if it has the same links, else put the new one over it."""
        device = (op.node, op.dev)
        before, after = self.old.qdiscs[device], self.new.qdiscs[device]
        if before == after:
            return
        shape = [(q.qdisc.shape, q.qdisc.handle, q.qdisc.parent) for q in after]
        if [(q.qdisc.shape, q.qdisc.handle, q.qdisc.parent) for q in before] != shape:
            yield op
        elif op not in before:
            yield ChangeQdisc(op.node, op.dev, op.qdisc, op.mark)

    def _remove(self) -> Iterator[Operation]:
        for target, op in self.old.routes.items():
            if target not in self.new.routes and self._stays((op.node, op.dev)):
                metric = op.options.metric
                yield RemoveRoute(op.node, op.to, op.via, op.dev, metric=metric)
        yield from self._untune()
        for node in self.old.firewalls.keys() - self.new.firewalls.keys():
            if node in self.new.nodes and node not in self.fresh_nodes:
                yield SetFirewall(node, NO_FIREWALL)
        for device in sorted(self.old.qdiscs.keys() - self.new.qdiscs.keys()):
            if self._stays(device):
                yield RemoveQdiscs(*device)
        for device in sorted(self.old.up - self.new.up):
            if self._stays(device):
                yield SetDown(*device)
                for op in self.new.addresses.get(device, ()):
                    if op.address.version == 6:
                        yield op

    def _untune(self) -> Iterator[Operation]:
        """Take the congestion control from the links of nodes that no longer have one."""
        kept = {
            (op.node, op.dev, op.address) for op in self.new.tuned if isinstance(op, TuneNeighbours)
        }
        for op in self.old.tuned:
            if isinstance(op, CheckCongestion) or (op.node, op.dev, op.address) in kept:
                continue
            device = (op.node, op.dev)
            there = (a.address for a in self.new.addresses.get(device, ()))
            if self._stays(device) and device in self.new.up and op.address in there:
                yield replace(op, options=PLAIN)

    def _stays(self, device: _Device) -> bool:
        """Say whether an interface of the old network is still there, not made anew."""
        node = device[0]
        return node in self.new.nodes and node not in self.fresh_nodes and device not in self.gone
