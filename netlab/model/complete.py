"""From what an author asked for to a Topology: names, addresses, MACs, routes, all checked.

Theory of operation. Links come first: their ends are looked up, interfaces named, a LAN of more
than two ends turned into a hidden switch and one link per end. Switches then join links into
*segments*, the broadcast domains; a segment has one subnet per family, given or taken from the
pools under the segment's name. Last come the routes (`netlab.model.routing`).

Every step goes on after a problem with what is left, so that one run reports all there is, and
nothing twice: what failed in an earlier step is left out of the later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, NamedTuple

from netlab.model import ospf
from netlab.model.addressing import (
    NAMED_UP_TO,
    Address,
    AddressWithPrefix,
    Exhausted,
    Network,
    SubnetPool,
    make_mac,
)
from netlab.model.firewall import Firewall
from netlab.model.impairment import PERFECT, Episode, Impairment, InBdp
from netlab.model.names import bad_interface_name, bad_name
from netlab.model.problems import Problems, loops, quoted
from netlab.model.routing import Member, Subnet, static_routes
from netlab.model.spec import DirectionSpec, EndSpec, LinkSpec, NodeSpec, Spec
from netlab.model.topology import Interface, Link, Mark, Node, Role, Route, Topology
from netlab.model.tunnel import Tunnel, Vxlan, identifier

MIN_MTU, MAX_MTU = 68, 65535  # RFC 791; the largest IP packet
MIN_MTU_IPV6 = 1280  # RFC 8200 §5: the kernel takes IPv6 off an interface below it
BRIDGE = "br0"


def complete(spec: Spec, problems: Problems | None = None) -> Topology:
    """Return the Topology a Spec describes; TopologyError with every problem if it has some.

    A caller that passes `problems` has found some of its own; all are raised together.
    """
    problems = problems or Problems(spec.source or spec.name)
    completion = _Completion(spec, problems)
    topology = completion.run()
    problems.check()
    return topology


@dataclass(slots=True)
class _Port:
    """One end of one link while it is being completed."""

    node: str
    spec: EndSpec
    mtu: int
    name: str = ""
    mac: str = ""
    addresses: list[AddressWithPrefix] = field(default_factory=list[AddressWithPrefix])

    def interface(self) -> Interface:
        return Interface(
            self.node,
            self.name,
            self.mac,
            self.mtu,
            tuple(self.addresses),
            self.spec.up,
            self.spec.mark,
        )


@dataclass(slots=True)
class _Wire:
    """A link between exactly two ports while it is being completed."""

    name: str
    a: _Port
    b: _Port
    forward: Impairment
    backward: Impairment
    spec: LinkSpec


class _Block(NamedTuple):
    """The addresses of a network, and what it belongs to; blocks sort as they may overlap."""

    version: int
    first: int
    negated_last: int  # of those that begin alike the widest comes first
    group: int  # a segment, or beyond them a node with its loopback
    number: int
    network: Network
    mark: Mark


@dataclass(slots=True)
class _Segment:
    """A broadcast domain: the ports of hosts and routers that hear each other."""

    name: str
    ports: list[_Port]
    links: list[LinkSpec]

    @property
    def tunnelled(self) -> bool:
        """Say whether it is a tunnel, which joins two nodes and nothing else."""
        return self.links[0].tunnel is not None

    @property
    def mark(self) -> Mark:
        return self.links[0].mark


class _Completion:
    def __init__(self, spec: Spec, problems: Problems) -> None:
        self.spec = spec
        self.problems = problems
        self.processes = spec.processes
        self.nodes: dict[str, NodeSpec] = {}
        self.hidden: list[NodeSpec] = []
        self.wires: list[_Wire] = []
        self._impairments: dict[tuple[tuple[str, str], ...], Impairment] = {}

    def run(self) -> Topology:
        self._take_nodes()
        self._take_links()
        self._fit_tunnels()
        self._name_interfaces()
        self._give_macs()
        segments = self._segments()
        self._give_addresses(segments)
        self._check_addresses(segments)
        self._run_daemons(segments)
        self._check_processes()
        self._check_validations()
        routes = {} if self.problems.found else self._routes(segments)
        return self._topology(routes)

    # -- nodes and links ---------------------------------------------------------------------

    def _take_nodes(self) -> None:
        for node in self.spec.nodes:
            wrong = bad_name(node.name)
            if wrong:
                self.problems.add(node.mark, f"node name {quoted(node.name)} {wrong}")
            if node.name in self.nodes:
                first = self.nodes[node.name].mark.line
                self.problems.add(
                    node.mark, f"node {quoted(node.name)} is written twice, first on line {first}"
                )
                continue
            self.nodes[node.name] = node

    def _take_links(self) -> None:
        names: dict[str, Mark] = {}
        unnamed: dict[tuple[str, ...], LinkSpec] = {}
        for spec in self.spec.links:
            if not self._ends_exist(spec):
                continue
            ends = [end.node for end in spec.ends]
            name = spec.name
            if name is None:
                same = unnamed.setdefault(tuple(sorted(ends)), spec)
                if same is not spec:
                    what = "-".join(ends)
                    self.problems.add(
                        spec.mark,
                        f"link {quoted(what)} is written twice, first on line {same.mark.line}; "
                        "if two links are meant, give one of them a 'name'",
                    )
                    continue
                name = "-".join(ends) if len(ends) <= 3 else f"lan-{ends[0]}-{ends[-1]}"
            elif wrong := bad_name(name, dots=True):
                self.problems.add(spec.mark, f"link name {quoted(name)} {wrong}")
                continue
            if name in names:
                self.problems.add(
                    spec.mark,
                    f"two links are called {quoted(name)}, the first on line {names[name].line}; "
                    "give one of them another 'name'",
                )
                continue
            names[name] = spec.mark
            self._check_mtu(spec)
            if spec.tunnel is not None and not self._can_be_tunnel(name, spec):
                continue
            if len(ends) == 2:
                self._take_pair(name, spec)
            else:
                self._take_lan(name, spec)

    def _ends_exist(self, spec: LinkSpec) -> bool:
        good = True
        for end in spec.ends:
            if end.node not in self.nodes:
                hint = self.problems.hint(end.node, self.nodes)
                self.problems.add(
                    end.mark, f"link to {quoted(end.node)}: there is no such node{hint}"
                )
                good = False
        if good and len(spec.ends) < 2:
            self.problems.add(spec.mark, "a link needs at least two ends")
            good = False
        if good and len(spec.ends) == 2 and spec.ends[0].node == spec.ends[1].node:
            self.problems.add(spec.mark, f"this link joins {quoted(spec.ends[0].node)} to itself")
            good = False
        return good

    def _can_be_tunnel(self, name: str, spec: LinkSpec) -> bool:
        """Report what a tunnel cannot have."""
        what = f"tunnel {quoted(name)}"
        wrong = ""
        if len(spec.ends) != 2:
            wrong = f"{what} has {len(spec.ends)} ends; it can have two"
        elif spec.settings or spec.directions:
            wrong = f"{what} has the delays and losses of the links below it; write them there"
        for end in spec.ends:
            if self._role(end.node) is Role.SWITCH:
                wrong = f"{what} cannot end in {quoted(end.node)}: a switch has no address"
        if wrong:
            self.problems.add(spec.mark, wrong)
        return not wrong

    def _fit_tunnels(self) -> None:
        """Give tunnels that were given no MTU the largest with which nothing is fragmented."""
        cables = [p.mtu for w in self.wires if w.spec.tunnel is None for p in (w.a, w.b)]
        for wire in self.wires:
            if wire.spec.tunnel is None:
                continue
            fits = min(cables, default=0) - wire.spec.tunnel.overhead
            for port in (wire.a, wire.b):
                port.mtu = port.mtu or fits
            if min(wire.a.mtu, wire.b.mtu) < MIN_MTU:
                message = f"tunnel {quoted(wire.name)}: the links below it leave no room for it"
                self.problems.add(wire.spec.mark, message)

    def _check_mtu(self, spec: LinkSpec) -> None:
        given = [(spec.mtu, spec.mark), *((end.mtu, end.mark) for end in spec.ends)]
        if spec.tunnel is not None and not spec.mtu:
            del given[0]
        for mtu, mark in given:
            if mtu is not None and not MIN_MTU <= mtu <= MAX_MTU:
                self.problems.add(mark, f"mtu is {mtu}; it must be {MIN_MTU} to {MAX_MTU} bytes")

    def _take_pair(self, name: str, spec: LinkSpec) -> None:
        a, b = spec.ends
        toward: dict[tuple[str, str], DirectionSpec] = {}
        for direction in spec.directions:
            key = (direction.source, direction.target)
            if key not in ((a.node, b.node), (b.node, a.node)):
                self.problems.add(
                    direction.mark,
                    f"direction {quoted(f'{key[0]}->{key[1]}')} is not one of this link; "
                    f"it has '{a.node}->{b.node}' and '{b.node}->{a.node}'",
                )
            toward[key] = direction
        self.wires.append(
            _Wire(
                name,
                self._port(a, spec),
                self._port(b, spec),
                self._impairment(spec, toward.get((a.node, b.node))),
                self._impairment(spec, toward.get((b.node, a.node))),
                spec,
            )
        )

    def _take_lan(self, name: str, spec: LinkSpec) -> None:
        switch = f"{name}.lan"
        self.hidden.append(NodeSpec(switch, Role.SWITCH, mark=spec.mark))
        toward: dict[tuple[str, str], DirectionSpec] = {}
        members = {end.node for end in spec.ends}
        for direction in spec.directions:
            key = (direction.source, direction.target)
            ends = set(key) - {name}
            if name not in key or len(ends) != 1 or not ends <= members:
                self.problems.add(
                    direction.mark,
                    f"direction {quoted(f'{key[0]}->{key[1]}')} is not one of this LAN; "
                    f"write '{spec.ends[0].node}->{name}' or '{name}->{spec.ends[0].node}'",
                )
            toward[key] = direction
        counts: dict[str, int] = {}
        for number, end in enumerate(spec.ends, start=1):
            times = counts[end.node] = counts.get(end.node, 0) + 1
            port = _Port(switch, EndSpec(switch, f"p{number}", mark=end.mark), end.mtu or spec.mtu)
            self.wires.append(
                _Wire(
                    f"{name}.{end.node}" if times == 1 else f"{name}.{end.node}.{times}",
                    self._port(end, spec),
                    port,
                    self._impairment(spec, toward.get((end.node, name))),
                    self._impairment(spec, toward.get((name, end.node))),
                    spec,
                )
            )

    def _port(self, end: EndSpec, spec: LinkSpec) -> _Port:
        return _Port(end.node, end, spec.mtu if end.mtu is None else end.mtu)

    def _impairment(self, spec: LinkSpec, direction: DirectionSpec | None) -> Impairment:
        settings = {**spec.settings, **(direction.settings if direction else {})}
        if not settings:
            return PERFECT
        key = tuple((name, repr(value)) for name, value in settings.items())
        found = self._impairments.get(key)
        if found is None:
            try:
                found = _impairment(settings)
            except ValueError as error:
                self.problems.add(direction.mark if direction else spec.mark, str(error))
                found = Impairment()
            self._impairments[key] = found
        return found

    # -- interfaces --------------------------------------------------------------------------

    def _name_interfaces(self) -> None:
        """Give the n-th interface of a node the name ethN, unless it was given one."""
        taken: dict[str, dict[str, Mark]] = {}
        ports = [port for wire in self.wires for port in (wire.a, wire.b)]
        for port in ports:
            name = port.spec.interface
            if name is None:
                continue
            mine = taken.setdefault(port.node, {})
            wrong = bad_interface_name(name)
            if wrong:
                self.problems.add(port.spec.mark, f"interface name {quoted(name)} {wrong}")
            elif name == BRIDGE and self._role(port.node) is Role.SWITCH:
                self.problems.add(
                    port.spec.mark, f"interface name '{BRIDGE}' is that of the switch's own bridge"
                )
            elif name in mine:
                self.problems.add(
                    port.spec.mark,
                    f"interface '{port.node}:{name}' is used twice, first on line "
                    f"{mine[name].line}",
                )
            mine.setdefault(name, port.spec.mark)
            port.name = name
        following: dict[str, int] = {}
        for port in ports:
            number = following.get(port.node, 0)
            if not port.name:
                mine = taken.get(port.node, {})
                while (name := f"eth{number}") in mine:
                    number += 1
                port.name = name
            following[port.node] = number + 1

    def _role(self, node: str) -> Role:
        spec = self.nodes.get(node)
        return spec.role if spec else Role.SWITCH

    def _give_macs(self) -> None:
        taken: dict[str, Mark] = {}
        ports = [port for wire in self.wires for port in (wire.a, wire.b)]
        for port in ports:
            mac = port.spec.mac
            if mac is None:
                continue
            port.mac = mac
            if mac in taken:
                self.problems.add(
                    port.spec.mark, f"MAC {mac} is used twice, first on line {taken[mac].line}"
                )
            taken[mac] = port.spec.mark
        for port in ports:
            attempt = 0
            while not port.mac:
                mac = make_mac(port.node, port.name, attempt)
                if mac not in taken:
                    port.mac = mac
                    taken[mac] = port.spec.mark
                attempt += 1

    # -- addresses ---------------------------------------------------------------------------

    def _segments(self) -> list[_Segment]:
        """Join the wires that meet in a switch; the name is the link's, or the first switch's."""
        above: dict[str, str] = {}

        def find(name: str) -> str:
            while (up := above.setdefault(name, name)) != name:
                above[name] = name = above.setdefault(up, up)
            return name

        for wire in self.wires:
            switches = [p.node for p in (wire.a, wire.b) if self._role(p.node) is Role.SWITCH]
            if len(switches) == 2:
                a, b = find(switches[0]), find(switches[1])
                above[max(a, b)] = min(a, b)
        segments: dict[str, _Segment] = {}
        found: list[_Segment] = []
        for wire in self.wires:
            ports = [p for p in (wire.a, wire.b) if self._role(p.node) is not Role.SWITCH]
            if len(ports) == 2:
                found.append(_Segment(wire.name, ports, [wire.spec]))
                continue
            switch = wire.a.node if self._role(wire.a.node) is Role.SWITCH else wire.b.node
            key = find(switch)
            segment = segments.get(key)
            if segment is None:
                segment = segments[key] = _Segment(key.removesuffix(".lan"), [], [])
                found.append(segment)
            segment.ports += ports
            if not segment.links or segment.links[-1] is not wire.spec:
                segment.links.append(wire.spec)
            self._check_switch_ports(wire)
        return found

    def _check_switch_ports(self, wire: _Wire) -> None:
        for port in (wire.a, wire.b):
            if self._role(port.node) is Role.SWITCH and port.spec.addresses:
                self.problems.add(
                    port.spec.mark, f"'{port.node}' is a switch; its ports have no addresses"
                )

    def _give_addresses(self, segments: list[_Segment]) -> None:
        for segment in segments:
            for port in segment.ports:
                port.addresses = list(port.spec.addresses or ())
        self._give_family(segments, 4, self.spec.pools.ipv4)
        self._give_family(segments, 6, self.spec.pools.ipv6)

    def _give_family(self, segments: list[_Segment], version: int, pool: Network | None) -> None:
        """Give an address of one family to every port that has none, where there is a subnet."""
        taken: list[Network] = [
            loopback.network
            for node in self.nodes.values()
            for loopback in node.loopbacks
            if loopback.version == version
        ]
        waiting: list[tuple[_Segment, list[_Port]]] = []
        for segment in segments:
            given = [n for spec in segment.links for n in spec.prefixes if n.version == version]
            lacking: list[_Port] = []
            used: list[Network] = []
            for port in segment.ports:
                mine = [a.network for a in port.addresses if a.version == version]
                used += [n for n in mine if not n.is_link_local]
                if not mine and port.spec.addresses != ():
                    lacking.append(port)
            taken += given
            taken += used
            if not lacking:
                continue
            if networks := given or used:
                network = networks[0]
                first, prefixlen = int(network.network_address), network.prefixlen
                self._number(lacking, segment, version, first, prefixlen)
            elif pool is not None and self._wants(segment, version):
                waiting.append((segment, lacking))
        if pool is None or not waiting:
            return
        by_name = self.spec.pools.allocate == "name"
        if self.spec.pools.allocate == "auto":
            by_name = len(waiting) <= NAMED_UP_TO
        if by_name:
            waiting.sort(key=lambda item: item[0].name)
        subnets = SubnetPool(pool, (n for n in taken if n.overlaps(pool)))  # type: ignore[arg-type]
        for segment, lacking in waiting:
            try:
                first, prefixlen = subnets.allocate(
                    segment.name if by_name else None, len(segment.ports)
                )
            except Exhausted:
                self.problems.add(
                    segment.mark,
                    f"the pool {pool} has no subnet left for {len(segment.ports)} interfaces",
                )
                return
            self._number(lacking, segment, version, first, prefixlen)

    def _wants(self, segment: _Segment, version: int) -> bool:
        """Say whether a segment gets addresses from a pool."""
        if not all(link.numbered for link in segment.links):
            return False
        return version == 4 or all(port.mtu >= MIN_MTU_IPV6 for port in segment.ports)

    def _number(
        self,
        lacking: list[_Port],
        segment: _Segment,
        version: int,
        first: int,
        prefixlen: int,
    ) -> None:
        """Give ports the free addresses of a subnet, in the order of the ends."""
        make = IPv4Interface if version == 4 else IPv6Interface
        bits = 32 if version == 4 else 128
        taken = {int(a.ip) for p in segment.ports for a in p.addresses if a.version == version}
        last = first + (1 << (bits - prefixlen)) - 1
        candidate, final = first, last
        if bits - prefixlen > 1:  # /31 and /127 have neither network nor broadcast (RFC 3021, 6164)
            candidate, final = first + 1, last - (version == 4)
        for port in lacking:
            while candidate in taken:
                candidate += 1
            if candidate > final:
                network = make((first, prefixlen)).network
                self.problems.add(
                    port.spec.mark, f"{network} has no address left for {quoted(port.node)}"
                )
                return
            port.addresses.append(make((candidate, prefixlen)))
            candidate += 1

    def _check_addresses(self, segments: list[_Segment]) -> None:
        users: dict[tuple[int, int], tuple[Mark, int]] = {}
        clashes: set[frozenset[int]] = set()
        blocks: list[_Block] = []

        def check(address: AddressWithPrefix, mark: Mark, group: int) -> tuple[int, int, int]:
            """Report what is wrong with an address; return its version and network."""
            version, number = address.version, int(address)
            size = 1 << (32 if version == 4 else 128) - address.network.prefixlen
            first = number & -size
            if wrong := bad_address(address):
                self.problems.add(mark, f"address {address} {wrong}")
            elif not _link_local(version, number):
                key = version, number
                if key in users:
                    before, other = users[key]
                    self.problems.add(
                        mark, f"address {address.ip} is used twice, first on line {before.line}"
                    )
                    clashes.add(frozenset((group, other)))
                else:
                    users[key] = mark, group
            return version, first, first + size - 1

        def block(place: tuple[int, int, int], network: Network, mark: Mark, group: int) -> None:
            version, first, last = place
            blocks.append(_Block(version, first, -last, group, len(blocks), network, mark))

        for group, segment in enumerate(segments):
            found: set[tuple[int, int, int]] = set()
            ports: list[set[tuple[int, int, int]]] = []
            for port in segment.ports:
                mine: set[tuple[int, int, int]] = set()
                for address in port.addresses:
                    place = check(address, port.spec.mark, group)
                    mine.add(place)
                    if place not in found and not _link_local(*place[:2]):
                        found.add(place)
                        block(place, address.network, port.spec.mark, group)
                    if place[0] == 6 and port.mtu < MIN_MTU_IPV6:
                        self.problems.add(
                            port.spec.mark,
                            f"address {address} needs an mtu of at least {MIN_MTU_IPV6}, "
                            f"this interface has {port.mtu}",
                        )
                ports.append(mine)
            if any(mine != ports[0] for mine in ports):
                self._warn_of_strangers(segment)
        named = [*self.nodes.values()]
        for group, node in enumerate(named, start=len(segments)):
            for address in node.loopbacks:
                block(check(address, node.mark, group), address.network, node.mark, group)

        def what(group: int) -> str:
            if group < len(segments):
                return f"link {quoted(segments[group].name)}"
            return f"the loopback of {quoted(named[group - len(segments)].name)}"

        blocks.sort()
        widest: _Block | None = None
        for one in blocks:
            last = -one.negated_last
            if widest and widest.version == one.version and one.first <= -widest.negated_last:
                pair = frozenset((one.group, widest.group))
                if len(pair) == 2 and pair not in clashes:
                    clashes.add(pair)
                    self._report_overlap(one, widest, what)
            if not widest or widest.version != one.version or last > -widest.negated_last:
                widest = one

    def _report_overlap(self, one: _Block, other: _Block, what: Callable[[int], str]) -> None:
        """Report two networks of different links that overlap, where the later one is written."""
        first, second = sorted((one, other), key=lambda b: (b.mark.line, b.mark.column))
        self.problems.add(
            second.mark,
            f"network {second.network} of {what(second.group)} overlaps {first.network} of "
            f"{what(first.group)} (line {first.mark.line})",
        )

    def _warn_of_strangers(self, segment: _Segment) -> None:
        """Warn when two ends of a link have addresses of a family but no network in common."""
        for version in (4, 6):
            networks = [
                {a.network for a in port.addresses if a.version == version}
                for port in segment.ports
            ]
            networks = [mine for mine in networks if mine]
            if len(networks) > 1 and not set[Network].intersection(*networks):
                names = ", ".join(sorted(str(n) for mine in networks for n in mine)[:4])
                self.problems.warn(
                    segment.mark,
                    f"the ends of link {quoted(segment.name)} share no IPv{version} network: "
                    f"{names}",
                )

    # -- processes and expectations ----------------------------------------------------------

    def _run_daemons(self, segments: list[_Segment]) -> None:
        """Add the routing daemons to what the author runs, before it."""
        routers = {node.name: node.mark for node in self.nodes.values() if node.ospf}
        if not routers:
            return
        families = {32: self._subnets(segments, 4), 128: self._subnets(segments, 6)}
        daemons = ospf.processes(families, routers)
        taken = {process.name: process.mark for process in self.spec.processes}
        for daemon in daemons:
            if daemon.name in taken:
                self.problems.add(
                    taken[daemon.name],
                    f"process {quoted(daemon.name)} has the name of a routing daemon",
                )
        self.processes = (*daemons, *self.spec.processes)

    def _check_processes(self) -> None:
        known = {process.name: process for process in self.processes}
        for process in self.spec.processes:
            what = f"process {quoted(process.name)}"
            if wrong := bad_name(process.name):
                self.problems.add(process.mark, f"process name {quoted(process.name)} {wrong}")
            self._needs_node(process.node, process.mark, what)
            for other in process.after:
                if other not in known:
                    hint = self.problems.hint(other, known)
                    self.problems.add(
                        process.mark, f"{what} comes after {quoted(other)}: no such process{hint}"
                    )
        waits = {p.name: [n for n in p.after if n in known] for p in self.processes}
        for loop in loops(waits):
            path = " after ".join(f"'{name}'" for name in [*loop, loop[0]])
            self.problems.add(known[loop[0]].mark, f"processes wait for each other: {path}")

    def _check_validations(self) -> None:
        for check in self.spec.validations:
            for name in (check.source, check.target):
                self._needs_node(name, check.mark, f"ping {check.source}->{check.target}")

    def _needs_node(self, name: str, mark: Mark, what: str) -> None:
        node = self.nodes.get(name)
        if node is None:
            hint = self.problems.hint(name, self.nodes)
            self.problems.add(mark, f"{what}: there is no node {quoted(name)}{hint}")
        elif node.role is Role.SWITCH:
            self.problems.add(mark, f"{what}: {quoted(name)} is a switch and has no addresses")

    # -- routes ------------------------------------------------------------------------------

    def _routes(self, segments: list[_Segment]) -> dict[str, list[Route]]:
        forwards = {
            node.name: node.role.forwards
            for node in self.nodes.values()
            if node.role is not Role.SWITCH
        }
        families = {32: self._subnets(segments, 4), 128: self._subnets(segments, 6)}
        computed = static_routes(families, forwards, aggregate=self.spec.aggregate)
        routes = {name: mine for name, mine in computed.items() if self.nodes[name].computed}
        for node in self.nodes.values():
            if node.routes:
                given = self._given_routes(node, segments)
                to = {route.to for route in given}
                rest = [route for route in routes.get(node.name, ()) if route.to not in to]
                routes[node.name] = given + rest
        return routes

    def _subnets(self, segments: list[_Segment], version: int) -> list[Subnet]:
        subnets: list[Subnet] = []
        bits = 32 if version == 4 else 128
        for segment in segments:
            if segment.tunnelled:
                continue  # a way through it would lead through itself
            members: dict[tuple[int, int], list[Member]] = {}
            for port in segment.ports:
                for address in port.addresses:
                    number = int(address)
                    if address.version != version or _link_local(version, number):
                        continue
                    prefixlen = address.network.prefixlen
                    first = number >> (bits - prefixlen) << (bits - prefixlen)
                    member = Member(port.node, port.name, number)
                    members.setdefault((first, prefixlen), []).append(member)
            # A network inside another one of the same link (a warning) is part of the larger.
            for first, prefixlen in sorted(members, key=lambda network: network[1]):
                if len(members) > 1 and any(
                    s.prefixlen < prefixlen
                    and first >> (bits - s.prefixlen) == s.first >> (bits - s.prefixlen)
                    for s in subnets[-len(members) :]
                ):
                    continue
                subnets.append(Subnet(first, prefixlen, tuple(members[first, prefixlen])))
        for node in self.nodes.values():
            for address in node.loopbacks:
                if address.version == version and node.role is not Role.SWITCH:
                    member = Member(node.name, "lo", int(address.ip))
                    network = address.network
                    subnets.append(
                        Subnet(int(network.network_address), network.prefixlen, (member,))
                    )
        return subnets

    def _given_routes(self, node: NodeSpec, segments: list[_Segment]) -> list[Route]:
        """Turn the routes an author wrote into routes with an interface and an address."""
        routes: list[Route] = []
        mine = [
            (port, segment)
            for segment in segments
            for port in segment.ports
            if port.node == node.name
        ]
        written: dict[tuple[Network, int | None], Mark] = {}
        for spec in node.routes:
            found: list[tuple[str, Address]] = []
            for port, segment in mine:
                if spec.dev not in (None, port.name):
                    continue
                near = {a.network for a in port.addresses if a.version == spec.to.version}
                if isinstance(spec.via, str):
                    found += [
                        (port.name, a.ip)
                        for other in segment.ports
                        if other.node == spec.via
                        for a in other.addresses
                        if a.network in near
                    ]
                elif any(spec.via in network for network in near) or spec.via.is_link_local:
                    found.append((port.name, spec.via))
            if found:
                dev, via = found[0]
                routes.append(Route(spec.to, via, dev, spec.mark, spec.options))
                first = written.setdefault((spec.to, spec.options.metric), spec.mark)
                if first is not spec.mark:
                    self.problems.add(
                        spec.mark,
                        f"route to {spec.to} is written twice, first on line {first.line}; "
                        "two routes to one destination need different metrics",
                    )
            else:
                what = f"route to {spec.to}: {quoted(str(spec.via))} is not a neighbour"
                self.problems.add(
                    spec.mark, f"{what} of {quoted(node.name)} with IPv{spec.to.version}"
                )
        return routes

    # -- result ------------------------------------------------------------------------------

    def _firewall(self, node: NodeSpec) -> Firewall:
        """Return a node's firewall, with directions and the interfaces outside of a nat."""
        mark = node.firewall_mark or node.mark
        what = f"node {quoted(node.name)}"
        if node.rules and node.role is Role.SWITCH:
            self.problems.add(mark, f"{what} is a switch; it has no firewall")
        usual = {"clamp-mss": "out"} if not node.role.forwards else {}
        suits = "forward" if node.role.forwards else "in"
        rules = tuple(
            replace(rule, direction=rule.direction or usual.get(rule.action, suits))
            for rule in node.rules
        )
        if node.role is not Role.NAT:
            if node.nat is not None:
                self.problems.add(mark, f"{what} has 'nat' but not the role nat")
            return Firewall(rules)
        if node.nat is None:
            self.problems.add(node.mark, f"{what} is a nat and needs 'nat: {{outside: LINK}}'")
            return Firewall(rules)
        links: dict[str, str] = {}
        for wire in self.wires:
            for port in (wire.a, wire.b):
                if port.node == node.name:
                    links[wire.spec.name or wire.name] = links[wire.name] = port.name
        names = {*links.values()}
        for name in node.nat.outside:
            if name not in names and name not in links:
                hint = self.problems.hint(name, [*names, *links])
                message = f"{what}: {quoted(name)} is no interface or link of it{hint}"
                self.problems.add(mark, message)
        outside = tuple(n if n in names else links.get(n, n) for n in node.nat.outside)
        return Firewall(rules, replace(node.nat, outside=outside))

    def _tunnel(self, wire: _Wire) -> Tunnel | None:
        """Return between which addresses a tunnel runs: the first of each node below."""
        kind = wire.spec.tunnel
        if kind is None:
            return None
        if isinstance(kind, Vxlan) and kind.id is None:
            kind = replace(kind, id=identifier(wire.name))
        ends: list[Address] = []
        for port in (wire.a, wire.b):
            mine = list(self.nodes[port.node].loopbacks)
            cables = (other for other in self.wires if other.spec.tunnel is None)
            for end in (end for cable in cables for end in (cable.a, cable.b)):
                mine += end.addresses if end.node == port.node else ()
            version = 4 if kind.family == "ipv4" else 6
            found = [
                a.ip for a in mine if a.version == version and not _link_local(version, int(a))
            ]
            if not found:
                self.problems.add(
                    port.spec.mark,
                    f"tunnel {quoted(wire.name)}: {quoted(port.node)} has no IPv{version} address "
                    "below it",
                )
                return None
            ends.append(found[0])
        return Tunnel(kind, (ends[0], ends[1]))

    def _topology(self, routes: dict[str, list[Route]]) -> Topology:
        firewalls = {node.name: self._firewall(node) for node in self.nodes.values()}
        nodes = [
            Node(
                node.name,
                node.role,
                tuple(node.sysctls.items()),
                tuple(routes.get(node.name, ())),
                hidden=False,
                mark=node.mark,
                loopbacks=node.loopbacks,
                sysctl_marks=node.sysctl_marks,
                congestion=node.congestion,
                firewall=firewalls[node.name],
                firewall_mark=node.firewall_mark,
            )
            for node in self.nodes.values()
        ]
        nodes += [Node(node.name, node.role, hidden=True, mark=node.mark) for node in self.hidden]
        links = tuple(
            Link(
                wire.name,
                wire.a.interface(),
                wire.b.interface(),
                wire.forward,
                wire.backward,
                wire.spec.offloads,
                wire.spec.mark,
                self._tunnel(wire),
            )
            for wire in self.wires
        )
        return Topology(
            self.spec.name,
            tuple(nodes),
            links,
            self.spec.source,
            tuple(self.problems.warnings),
            self.processes,
            self.spec.validations,
        )


def _impairment(settings: Mapping[str, Any]) -> Impairment:
    """Return the impairment of some fields; each episode of its schedule differs in some more."""
    fields = dict(settings)
    episodes = fields.pop("schedule", ())
    schedule = tuple(
        Episode(at, _constant({**fields, **changes}), duration)
        for at, duration, changes in episodes
    )
    return replace(_constant(fields), schedule=schedule)


def _constant(fields: Mapping[str, Any]) -> Impairment:
    """Return the impairment of some fields, a queue in BDP made one in packets or bytes."""
    queue = fields.get("queue")
    if not isinstance(queue, InBdp):
        return Impairment(**fields)
    rate, delay = fields.get("rate") or 0.0, fields.get("delay") or 0.0
    settled: dict[str, Any] = {**fields, "queue": queue.queue(rate, delay)}
    return Impairment(**settled)


def bad_address(address: AddressWithPrefix) -> str:
    """Return why an interface cannot have an address, or nothing."""
    number, prefixlen, bits = int(address), address.network.prefixlen, address.max_prefixlen
    ipv4 = bits == 32
    multicast = number >> 28 == 0xE if ipv4 else number >> 120 == 0xFF
    if number == 0 or multicast:
        return "cannot be the address of an interface"
    if ipv4 and number >> 24 == 127:
        return "belongs to the loopback network 127.0.0.0/8 that every node has"
    last = (1 << bits - prefixlen) - 1
    if last > 1:
        if number & last == 0:
            first = address.ip + 1
            return f"is the address of the network itself; the first usable one is {first}"
        if ipv4 and number & last == last:
            return "is the broadcast address of its network"
    return ""


def _link_local(version: int, number: int) -> bool:
    """Say whether an address belongs to its link alone (169.254.0.0/16, fe80::/10)."""
    return number >> 16 == 0xA9FE if version == 4 else number >> 118 == 0x3FA
