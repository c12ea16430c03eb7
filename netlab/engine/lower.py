"""A plan becomes a program: bytes and lists that the supervisor applies without understanding them.

Theory of operation
-------------------
Operations of one node must stay in order; operations of different nodes do not care about each
other, save that a link needs both its nodes. So the plan is cut into runs, and each run is a stage:

* `nodes`: namespaces, each with the sysctls that follow it before any link;
* `take`: interfaces that move from a node's former namespace into its new one;
* `end`: what is left in former namespaces, and these with it;
* `links`: veth pairs, sent from the supervisor's own namespace in bursts;
* `remove`: namespaces that go;
* `config`: all the rest, grouped by node: one burst of netlink per node, interrupted only where a
  sysctl or an ioctl stands between;
* `settle`: at the end, what the kernel does later in work of its own and is waited for, because
  the first packets would be lost: the carriers of interfaces that were set up, and the groups of
  IPv6 addresses that are new.

In a burst only the last message asks for an acknowledgement. The sequence number of a message is
one more than the index of its operation: that is how an error finds its line in the file.

The encoder chooses interface indexes, so no request has to wait for an answer to learn a number.
They begin at 100, because low ones may be taken by fallback tunnels, and no two of a lab are equal:
where the ends of a veth have the same index, the kernel takes the interface for a physical one,
whose news of a carrier may wait for a second (linkwatch_urgent_event in net/core/link_watch.c), and
until then nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from netlab.engine import netem, netlink
from netlab.model.topology import RouteOptions
from netlab.plan import firewall
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
    EndFormerNode,
    OffloadsOff,
    Operation,
    RemoveAddress,
    RemoveLink,
    RemoveNode,
    RemoveQdiscs,
    RemoveRoute,
    RenewNode,
    ReplaceRoute,
    ResetSysctl,
    SetDown,
    SetFirewall,
    SetRing,
    SetSysctl,
    SetUp,
    TakeInterface,
    TuneNeighbours,
    VethEnd,
)
from netlab.plan.qdiscs import Qdisc

FIRST_INDEX = 100
BURST_BYTES = 64 * 1024  # well under the default socket buffer of 208 KiB
BURST_MESSAGES = 200


@dataclass(slots=True)
class Program:
    """What the supervisor is sent: `stages` as JSON, `blob` as raw bytes beside it."""

    stages: list[Any] = field(default_factory=list[Any])
    blob: bytearray = field(default_factory=bytearray)


class Indexes:
    """Interface indexes by (node, device); new ones are given out, never twice in a lab."""

    def __init__(self, known: Iterable[tuple[str, str, int]] = ()) -> None:
        self.of = {(node, device): index for node, device, index in known}
        self._last = max(self.of.values(), default=FIRST_INDEX - 1)

    def new(self, node: str, device: str) -> int:
        """Give out the next index."""
        self._last += 1
        self.of[node, device] = self._last
        return self._last

    def forget(self, node: str, device: str) -> int:
        """Return the index of an interface that goes; both ends of a link are forgotten apart."""
        return self.of.pop((node, device))

    def __getitem__(self, key: tuple[str, str]) -> int:
        return 1 if key[1] == "lo" else self.of[key]


@lru_cache
def sysctl_path(key: str) -> str:
    """Return the file of a dotted sysctl key; as for sysctl(8) a slash is a dot in a name."""
    return "/proc/sys/" + key.replace(".", "\0").replace("/", ".").replace("\0", "/")


class _Burst:
    """Messages gathered until their burst is full or something else has to happen."""

    __slots__ = ("blob", "count", "forgiven", "last", "patches", "sequence", "start")

    def __init__(self, blob: bytearray) -> None:
        self.blob = blob
        self.start = len(blob)
        self.count = 0
        self.last = b""
        self.sequence = 0
        self.patches: list[tuple[int, str]] = []
        self.forgiven: list[int] = []

    def add(self, message: bytes, sequence: int, patches: tuple[tuple[int, str], ...] = ()) -> None:
        """Append a message; `patches` are places for descriptors, relative to it."""
        self.blob += self.last
        self.last, self.sequence = message, sequence
        self.count += 1
        self.patches += [(len(self.blob) + offset, node) for offset, node in patches]

    @property
    def full(self) -> bool:
        return self.count >= BURST_MESSAGES or len(self.blob) - self.start > BURST_BYTES

    def end(self) -> tuple[int, int, int]:
        """Finish: the last message asks for an answer. Returns start, end, sequence number."""
        self.blob += netlink.acknowledged(self.last)
        return self.start, len(self.blob), self.sequence


class _Config:
    """What one node has to do, in order, and the bytes of its messages."""

    __slots__ = ("blob", "burst", "items")

    def __init__(self) -> None:
        self.items: list[list[Any]] = []
        self.blob = bytearray()
        self.burst: _Burst | None = None

    def message(self, message: bytes, sequence: int, *, forgiven: bool) -> None:
        """Append a message; what is `forgiven` may find its object gone already."""
        if self.burst is None or self.burst.full:
            self.flush()
            self.burst = _Burst(self.blob)
        self.burst.add(message, sequence)
        if forgiven:
            self.burst.forgiven.append(sequence)

    def other(self, item: list[Any]) -> None:
        """Append what is no message: the messages so far come before it."""
        self.flush()
        self.items.append(item)

    def flush(self) -> None:
        """End the burst that is open, if one is."""
        if self.burst is not None:
            self.items.append(["netlink", *self.burst.end(), self.burst.forgiven])
            self.burst = None

    def written(self, blob: bytearray) -> list[list[Any]]:
        """Write all messages behind others, so that one node's lie together; return the items."""
        self.flush()
        for item in self.items:
            if item[0] == "netlink":
                item[1] += len(blob)
                item[2] += len(blob)
        blob += self.blob
        return self.items


class _Lowering:
    def __init__(self, indexes: Indexes) -> None:
        self.indexes = indexes
        self.program = Program()
        self.kind = ""
        self.links: _Burst | None = None
        self.nodes: dict[str, list[Any]] = {}
        self.loopbacks: list[tuple[str, int]] = []
        self.config: dict[str, _Config] = {}
        self.removed: list[Any] = []
        self.taken: list[Any] = []
        self.ended: list[Any] = []
        self.touched: dict[str, dict[str, set[str]]] = {}

    def stage(self, kind: str) -> None:
        """Begin a stage of another kind; the one before is complete."""
        if kind == self.kind:
            return
        blob = self.program.blob
        if self.kind == "nodes":
            self.program.stages.append(["nodes", list(self.nodes.values())])
            self.nodes = {}
        elif self.kind == "config":
            body = [[node, self.config.pop(node).written(blob)] for node in [*self.config]]
            self.program.stages.append(["config", body])
        elif self.kind == "links":
            self.end_links()
        elif self.kind == "remove":
            self.program.stages.append(["remove", self.removed])
            self.removed = []
        elif self.kind == "take":
            self.program.stages.append(["take", self.taken])
            self.taken = []
        elif self.kind == "end":
            self.program.stages.append(["end", self.ended])
            self.ended = []
        if kind == "links":
            self.program.stages.append(["links", []])
            self.links = _Burst(blob)
        self.kind = kind
        if kind == "config":  # a loopback goes up in the first burst of its node
            for node, sequence in self.loopbacks:
                self.send(node, netlink.set_up(sequence, 1), sequence)
            self.loopbacks = []

    def end_links(self) -> None:
        assert self.links is not None
        if self.links.count:
            start, end, last = self.links.end()
            self.program.stages[-1][1].append([start, end, last, self.links.patches])
        self.links = None

    def of(self, node: str) -> _Config:
        """Return what a node has to do in this stage so far."""
        found = self.config.get(node)
        if found is None:
            found = self.config[node] = _Config()
        return found

    def send(self, node: str, message: bytes, sequence: int, *, forgiven: bool = False) -> None:
        """Append to a node's burst."""
        self.of(node).message(message, sequence, forgiven=forgiven)

    def other(self, node: str, item: list[Any]) -> None:
        self.of(node).other(item)

    def veth(self, a: VethEnd, b: VethEnd, sequence: int) -> None:
        assert self.links is not None
        if self.links.full:
            self.end_links()
            self.links = _Burst(self.program.blob)
        first = (self.indexes.new(a.node, a.name), a.name, a.mac, a.mtu)
        second = (self.indexes.new(b.node, b.name), b.name, b.mac, b.mtu)
        message, fd_a, fd_b = netlink.veth(sequence, first, second)
        self.links.add(message, sequence, ((fd_a, a.node), (fd_b, b.node)))

    def take(self, node: str, index: int, sequence: int) -> None:
        """Append a burst of one message, for the one descriptor in it and the error it forgives."""
        message, offset = netlink.move(sequence, index)
        burst = _Burst(self.program.blob)
        burst.add(message, sequence, ((offset, node),))
        self.taken.append([node, *burst.end(), [sequence], burst.patches])

    def operation(self, number: int, operation: Operation) -> None:
        """Lower one operation; its number is its index in the plan."""
        sequence = number + 1
        match operation:
            case AddNode(node) | RenewNode(node):
                self.stage("nodes")
                self.nodes[node] = [node, number, [], isinstance(operation, RenewNode)]
                self.loopbacks.append((node, sequence))
            case TakeInterface(node, dev):
                self.stage("take")
                self.take(node, self.indexes[node, dev], sequence)
            case EndFormerNode(node):
                self.stage("end")
                self.ended.append([node, number])
            case SetSysctl(node, key, value) if node in self.nodes:
                self.nodes[node][2].append([sysctl_path(key), value, number])
            case SetSysctl(node, key, value):
                self.stage("config")
                self.other(node, ["sysctl", sysctl_path(key), value, number])
            case AddVeth(a, b):
                self.stage("links")
                self.veth(a, b, sequence)
            case AddWire():
                pass  # a program: netlab.engine.wires starts it once the network is there
            case RemoveNode(node):
                self.remove_node(node, number)
            case _:
                self.stage("config")
                self.configure(sequence, operation)

    def remove_node(self, node: str, number: int) -> None:
        """Delete a node's interfaces before the node.

        The kernel reaps a namespace at its leisure, and until then the far ends of its links would
        still have their names.
        """
        self.stage("config")
        self.touched.pop(node, None)
        for device in [dev for owner, dev in self.indexes.of if owner == node]:
            index = self.indexes.forget(node, device)
            self.send(node, netlink.delete_link(number + 1, index), number + 1, forgiven=True)
        self.stage("remove")
        self.removed.append([node, number])

    def groups(self, node: str, dev: str) -> set[str]:
        """Note that an interface is to be waited for; the groups it is to be in, to add to."""
        return self.touched.setdefault(node, {}).setdefault(dev, set())

    def settled(self) -> list[Any]:
        """Return what is waited for: per node, device, index and the last octets of groups."""
        return [
            [node, [[dev, self.indexes[node, dev], sorted(groups)] for dev, groups in own.items()]]
            for node, own in self.touched.items()
        ]

    def configure(self, sequence: int, operation: Operation) -> None:
        match operation:
            case AddTap(VethEnd(node, name, mac, mtu), ring):
                index = self.indexes.new(node, name)
                self.other(node, ["tap", name, index, sequence - 1])
                self.send(node, netlink.born(sequence, index, mac, mtu, ring), sequence)
            case AddTunnel(VethEnd(node, name, mac, mtu), kind, local, remote):
                # After a reboot it has the index it had.
                index = self.indexes.of.get((node, name)) or self.indexes.new(node, name)
                end = (index, name, mac, mtu)
                self.send(node, netlink.tunnel(sequence, end, kind, local, remote), sequence)
            case AddBridge(node, name, ports):
                index = self.indexes.new(node, name)
                self.send(node, netlink.bridge(sequence, index, name), sequence)
                for port in ports:
                    request = netlink.set_master(sequence, self.indexes[node, port], index)
                    self.send(node, request, sequence)
            case SetUp(node, dev):
                self.send(node, netlink.set_up(sequence, self.indexes[node, dev]), sequence)
                self.groups(node, dev)
            case AddAddress(node, dev, address):
                index = self.indexes[node, dev]
                self.send(node, netlink.address(sequence, index, address), sequence)
                if address.version == 6:
                    self.groups(node, dev).add(group_of(address))
            case AddRoute(node, to, via, dev):
                index = self.indexes[node, dev]
                self.send(
                    node,
                    netlink.route(sequence, to, via, index, options=operation.options),
                    sequence,
                )
            case TuneNeighbours(node, dev, address, options):
                index = self.indexes[node, dev]
                request = netlink.neighbours(sequence, index, address, options)
                self.send(node, request, sequence)
            case SetFirewall(node, wanted):
                legacy = [firewall.iptables(wanted, version) for version in (4, 6)]
                self.other(node, ["firewall", firewall.nft(wanted), legacy, sequence - 1])
            case CheckCongestion(node, address, congestion):
                self.other(node, ["congestion", str(address), congestion, sequence - 1])
            case AddQdisc(node, dev, qdisc):
                index = self.indexes[node, dev]
                self.send(node, place(sequence, index, qdisc), sequence)
            case ChangeQdisc(node, dev, qdisc):
                index = self.indexes[node, dev]
                self.send(node, place(sequence, index, qdisc, change=True), sequence)
            case RemoveQdiscs(node, dev):
                index = self.indexes[node, dev]
                self.send(node, netlink.delete_qdisc(sequence, index), sequence)
            case RemoveLink(node, dev):
                self.touched.get(node, {}).pop(dev, None)
                self.send(
                    node, netlink.delete_link(sequence, self.indexes.forget(node, dev)), sequence
                )
            case AddPort(node, bridge, dev):
                master = self.indexes[node, bridge]
                request = netlink.set_master(sequence, self.indexes[node, dev], master)
                self.send(node, request, sequence)
            case SetRing(node, dev, ring):
                index = self.indexes[node, dev]
                self.send(node, netlink.born(sequence, index, "", 0, ring), sequence)
            case SetDown(node, dev):
                index = self.indexes[node, dev]
                self.send(node, netlink.set_up(sequence, index, up=False), sequence)
            case RemoveAddress(node, dev, address):
                if address.version == 6:
                    self.touched.get(node, {}).get(dev, set[str]()).discard(group_of(address))
                index = self.indexes[node, dev]
                request = netlink.address(sequence, index, address, remove=True)
                self.send(node, request, sequence, forgiven=True)
            case ReplaceRoute(node, to, via, dev):
                index = self.indexes[node, dev]
                request = netlink.route(
                    sequence, to, via, index, options=operation.options, replace=True
                )
                self.send(node, request, sequence)
            case RemoveRoute(node, to, via, dev):
                index = self.indexes[node, dev]
                options = RouteOptions(metric=operation.metric)
                request = netlink.route(sequence, to, via, index, options=options, remove=True)
                self.send(node, request, sequence, forgiven=True)
            case ResetSysctl(node, key):
                self.other(node, ["sysctl-reset", sysctl_path(key), sequence - 1])
            case OffloadsOff(node, dev):
                self.other(node, ["offloads", dev, sequence - 1])
            case _:
                raise TypeError(f"no lowering for {operation!r}")


def group_of(address: IPv4Interface | IPv6Interface) -> str:
    """The last three octets of an address, which name its group (RFC 4291 section 2.7.1)."""
    return address.packed[-3:].hex()


def place(sequence: int, index: int, qdisc: Qdisc, *, change: bool = False) -> bytes:
    """Encode the request that puts a queue discipline in its place, or changes it there."""
    options = netem.options(qdisc.discipline, change=change)
    where = {"handle": qdisc.handle, "parent": qdisc.parent}
    return netlink.qdisc(sequence, index, qdisc.kind, options, **where, change=change)


def lower(operations: Iterable[Operation], indexes: Indexes | None = None) -> Program:
    """Encode operations; `indexes` knows the interfaces that exist and learns the new ones."""
    lowering = _Lowering(indexes or Indexes())
    for number, operation in enumerate(operations):
        lowering.operation(number, operation)
    if lowering.loopbacks:
        lowering.stage("config")
    lowering.stage("")
    if any(lowering.touched.values()):
        lowering.program.stages.append(["settle", lowering.settled()])
    return lowering.program
