"""Static routes over a whole network: shortest paths, few routes, no loops.

Theory of operation. One family at a time. The *destinations* are the subnets, sorted by address;
a set of destinations is a Python int with one bit for each, so sets of a thousand are united by
one machine-speed operation. Two routers are neighbours when they share a subnet. Hosts do not
forward: a host with one router hangs on it; a host with several (*multihomed*) takes part in the
search for paths, but no path leads through it.

1. *Peel.* Routers with one neighbour are taken off again and again. What is behind such a router
   can only be reached through it, so each peeled router needs a default route towards its parent
   and routes to what its own peeled children stand for. Trees and chains are finished here, in
   time proportional to their size.
2. *Root.* What remains (the core) has cycles, or is the one last router. The router in its
   middle is the root: everyone's default route leads towards it by a shortest path. The root
   itself has none, so packets to an address that does not exist come to an end there, instead of
   circling between two defaults.
3. *Flood.* Sets of destinations spread through the core from neighbour to neighbour in rounds; the
   neighbour from which a destination is first heard is the next hop to it: breadth-first search
   from everywhere at once. In case of a tie it is the default next hop, then the first by name.
4. *Prefixes.* Destinations with another next hop than the default get explicit routes, adjacent
   subnets joined into larger prefixes. While that makes a small table the prefixes cover
   nothing but subnets that exist; a larger table may also cover unused addresses in between, and
   subnets with another next hop if a longer prefix for those costs less than leaving them out.

Unsatisfactory: every hop counts one, whatever its delay or rate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netlab.model.topology import Route

# Tables with more explicit routes than this are joined more boldly.
SMALL_TABLE = 8
# With more stretches of neighbours with one next hop than this (a large grid), trying to join them
# takes longer than it is worth.
HOPELESS = 40


@dataclass(frozen=True, slots=True)
class Member:
    """A node's interface in a subnet."""

    node: str
    dev: str
    address: int


@dataclass(frozen=True, slots=True)
class Subnet:
    """A destination: a network as (first address, prefix length), and who is attached to it."""

    first: int
    prefixlen: int
    members: tuple[Member, ...]


_Hop = tuple[str, int]  # interface, address of the neighbour


def static_routes(
    families: Mapping[int, Sequence[Subnet]],
    forwards: Mapping[str, bool],
    root: str | None = None,
    *,
    aggregate: bool = False,
) -> dict[str, list[Route]]:
    """Return the routes of every node that needs some.

    `families` are the subnets for each number of bits of an address (32, 128), none overlapping
    another of its family; `forwards` says of each node whether it is a router. A `root` replaces
    the one that would be chosen. With `aggregate` small tables are joined boldly too.
    """
    routes: dict[str, list[Route]] = {}
    known: dict[tuple[tuple[str, ...], ...], _Tables] = {}
    for bits, subnets in families.items():
        graph = _Graph(subnets, forwards, bits)
        # Both families usually have the same shape, and then the same paths.
        shape = tuple(tuple(m.node for m in subnet.members) for subnet in graph.table.subnets)
        tables = known.get(shape)
        if tables is None:
            tables = known[shape] = _Paths(graph, root).tables
        for name, (default, others) in tables.items():
            found = graph.emit(name, default, others, aggregate)
            if found:
                routes.setdefault(name, []).extend(found)
    return routes


# For each node its default next hop, and sets of destinations with another one.
_Tables = dict[str, tuple[str | None, dict[str, int]]]


class _Graph:
    """Who can reach whom in one family, and how routes are written there."""

    def __init__(self, subnets: Sequence[Subnet], forwards: Mapping[str, bool], bits: int) -> None:
        self.bits = bits
        self.table = _Destinations(sorted(subnets, key=lambda n: n.first), bits)
        self.own: dict[str, int] = {}
        self.single = 0  # destinations with one member, such as loopbacks: it leads there itself
        self.hops: dict[str, dict[str, _Hop]] = {name: {} for name, yes in forwards.items() if yes}
        self.gateways: dict[str, dict[str, _Hop]] = {}
        self._networks: dict[tuple[int, int], IPv4Network | IPv6Network] = {}
        self._addresses: dict[int, IPv4Address | IPv6Address] = {}
        index = {id(subnet): bit for bit, subnet in enumerate(self.table.subnets)}
        for subnet in subnets:
            self._join(subnet, 1 << index[id(subnet)], forwards)

    def _join(self, subnet: Subnet, bit: int, forwards: Mapping[str, bool]) -> None:
        """Note who can reach whom through a subnet; the first common subnet is used."""
        routers: list[Member] = []
        hosts: list[Member] = []
        if len(subnet.members) == 1:
            self.single |= bit
        for member in subnet.members:
            self.own[member.node] = self.own.get(member.node, 0) | bit
            (routers if forwards[member.node] else hosts).append(member)
        for router in routers:
            hops = self.hops[router.node]
            for member in (*routers, *hosts):
                if member.node != router.node and member.node not in hops:
                    hops[member.node] = (router.dev, member.address)
        for host in hosts:
            hops = self.gateways.setdefault(host.node, {})
            for router in routers:
                if router.node not in hops:
                    hops[router.node] = (host.dev, router.address)

    def emit(
        self, name: str, default: str | None, tables: Mapping[str, int], aggregate: bool
    ) -> list[Route]:
        """Return the routes of a node: the default first, then the rest by address."""
        hops = self.hops.get(name) or self.gateways.get(name, {})
        routes: list[Route] = []
        if default is not None:
            routes.append(self._route(0, 0, hops[default]))
        own = self.own.get(name, 0)
        wanted = {hop: mask & ~own for hop, mask in tables.items() if hop != default}
        wanted = {hop: mask for hop, mask in wanted.items() if mask}
        if wanted:
            found: list[tuple[int, int, str]] = []
            for hop, mask in wanted.items():
                found += [(first, length, hop) for first, length in self.table.exact(mask)]
            stretches = sum((m & ~(m << 1)).bit_count() for m in wanted.values())
            if (aggregate or len(found) > SMALL_TABLE) and stretches < HOPELESS:
                found = self._aggregated(wanted, own, default)
            found.sort()
            routes += [self._route(first, length, hops[hop]) for first, length, hop in found]
        return routes

    def _aggregated(
        self, wanted: Mapping[str, int], own: int, default: str | None
    ) -> list[tuple[int, int, str]]:
        """Return few routes: large blocks, and inside them exceptions with another next hop."""
        masks = dict(wanted)
        if default is not None:
            every = (1 << len(self.table.subnets)) - 1
            rest = every & ~own
            for mask in wanted.values():
                rest &= ~mask
            masks[default] = rest
        found: dict[tuple[int, int], str] = {}
        for hop, mask in wanted.items():
            blocks, exceptions = self.table.nested(mask, own, masks)
            if any(found.get(block, hop) != hop for block in blocks):  # two want the same block
                blocks, exceptions = list(self.table.exact(mask)), 0
            found |= dict.fromkeys(blocks, hop)
            for other, theirs in masks.items():
                if exceptions & theirs:
                    found |= dict.fromkeys(self.table.exact(exceptions & theirs), other)
        return [(first, length, hop) for (first, length), hop in found.items()]

    def _route(self, first: int, prefixlen: int, hop: _Hop) -> Route:
        network = self._networks.get((first, prefixlen))
        if network is None:
            make = IPv4Network if self.bits == 32 else IPv6Network
            network = self._networks[first, prefixlen] = make((first, prefixlen))
        dev, address = hop
        via = self._addresses.get(address)
        if via is None:
            via = IPv4Address(address) if self.bits == 32 else IPv6Address(address)
            self._addresses[address] = via
        return Route(network, via, dev)


class _Paths:
    """The next hop of every node to every destination, as sets."""

    def __init__(self, graph: _Graph, root: str | None) -> None:
        self.wanted_root = root
        self.own = graph.own
        self.single = graph.single
        self.near = {  # of routers, the routers next to them
            name: [n for n in hops if n in graph.hops] for name, hops in graph.hops.items()
        }
        self.behind = {name: self.own.get(name, 0) for name in self.near}
        self.children: dict[str, list[str]] = {}
        self.parent: dict[str, str] = {}
        self.tables: _Tables = {}
        multihomed = self._hang_hosts(graph.gateways)
        kept = {router for routers in multihomed.values() for router in routers}
        core = self._peel(kept | {root} if root else kept)
        self._route_core(core, multihomed)
        for name, above in self.parent.items():
            self.tables[name] = (above, self._downwards(name))

    def _hang_hosts(self, gateways: Mapping[str, Mapping[str, _Hop]]) -> dict[str, list[str]]:
        """Hang the hosts with one router on it; return the others with their routers."""
        multihomed: dict[str, list[str]] = {}
        for name, hops in gateways.items():
            if len(hops) == 1:
                (router,) = hops
                self.tables[name] = (router, {})
                beyond = self.own[name] & self.single
                if beyond:
                    self.behind[router] |= beyond
                    self.behind[name] = beyond
                    self.children.setdefault(router, []).append(name)
            elif hops:
                multihomed[name] = sorted(hops)
        return multihomed

    def _downwards(self, name: str) -> dict[str, int]:
        return {child: self.behind[child] for child in self.children.get(name, ())}

    def _peel(self, kept: Set[str]) -> list[str]:
        """Take off routers with one neighbour until none is left; return the rest, by name.

        `self.parent` then holds the peeled ones in the order in which they went.
        """
        degree = {name: len(near) for name, near in self.near.items()}
        layer = sorted((n for n, d in degree.items() if d == 1 and n not in kept), reverse=True)
        while layer:
            following: set[str] = set()
            for name in layer:
                if degree[name] != 1:
                    continue  # its last neighbour went in this very round: it is a root
                above = next(n for n in self.near[name] if n not in self.parent)
                self.parent[name] = above
                self.children.setdefault(above, []).append(name)
                self.behind[above] |= self.behind[name]
                degree[name] = 0
                degree[above] -= 1
                if degree[above] == 1 and above not in kept:
                    following.add(above)
            layer = sorted(following, reverse=True)
        return sorted(name for name in self.near if name not in self.parent)

    def _route_core(self, core: list[str], multihomed: Mapping[str, list[str]]) -> None:
        names = [*core, *multihomed]
        index = {name: i for i, name in enumerate(names)}
        routers = [sorted(index[n] for n in self.near[name] if n in index) for name in core]
        routers += [[index[n] for n in multihomed[name]] for name in multihomed]
        towards = self._towards_roots(core, routers)
        # Whom a vertex hears: routers hear hosts too, the neighbour towards the root first.
        hears = [list(mine) for mine in routers]
        for host in multihomed:
            for i in routers[index[host]]:
                hears[i].append(index[host])
        for i, mine in enumerate(hears):
            up = towards[i]
            mine.sort(key=lambda n: names[n])
            if up is not None:
                mine.remove(up)
                mine.insert(0, up)
        known = [self.behind[name] for name in core] + [self.own[name] for name in multihomed]
        told = known[: len(core)] + [self.own[name] & self.single for name in multihomed]
        via = _flood(hears, known, told, len(core))
        for i, name in enumerate(names):
            tables = {names[n]: mask for n, mask in zip(hears[i], via[i], strict=True)}
            up = towards[i]
            self.tables[name] = (None if up is None else names[up], tables | self._downwards(name))

    def _towards_roots(self, core: list[str], routers: list[list[int]]) -> dict[int, int | None]:
        """Return for each vertex the neighbour towards the root of its part, None for the root."""
        towards: dict[int, int | None] = {}
        for first in range(len(core)):
            if first in towards:
                continue
            part = _search(first, routers, len(core))
            root = next((i for i in part if core[i] == self.wanted_root), None)
            if root is None:
                root = _middle(part, routers, len(core), core)
            towards |= {i: before for i, (_, before) in _search(root, routers, len(core)).items()}
        for host in range(len(core), len(routers)):
            # Its routers are all in parts with a root; the one nearest to it, then by name.
            depth = {i: _depth(i, towards) for i in routers[host]}
            towards[host] = min(routers[host], key=lambda i: (depth[i], core[i]))
        return towards


def _depth(vertex: int, towards: Mapping[int, int | None]) -> int:
    depth = 0
    while (up := towards[vertex]) is not None:
        vertex, depth = up, depth + 1
    return depth


def _search(start: int, near: list[list[int]], count: int) -> dict[int, tuple[int, int | None]]:
    """Return for the vertices below `count` in reach their distance and who led to them."""
    found: dict[int, tuple[int, int | None]] = {start: (0, None)}
    queue = [start]
    for i in queue:
        distance = found[i][0] + 1
        for n in near[i]:
            if n < count and n not in found:
                found[n] = (distance, i)
                queue.append(n)
    return found


def _middle(
    part: Mapping[int, tuple[int, int | None]],
    near: list[list[int]],
    count: int,
    names: Sequence[str],
) -> int:
    """Return the vertex in the middle of a longest way through a part, as two searches find it."""

    def farthest(found: Mapping[int, tuple[int, int | None]]) -> int:
        return min(found, key=lambda i: (-found[i][0], names[i]))

    found = _search(farthest(part), near, count)
    vertex = farthest(found)
    for _ in range(found[vertex][0] // 2):
        before = found[vertex][1]
        vertex = vertex if before is None else before
    return vertex


def _flood(
    hears: list[list[int]], known: list[int], told: list[int], forwarding: int
) -> list[list[int]]:
    """Spread sets over a graph, one hop in each round.

    `hears` lists for each vertex those it hears, `known` what it knows at first and `told` what of
    it the others may hear; the vertices from `forwarding` on tell no more than that. Return for
    each vertex what it first heard from each of those it hears (from the first in order where
    several bring the same in the same round).
    """
    reached = list(known)
    via = [[0] * len(mine) for mine in hears]
    everything = 0
    for mask in known:
        everything |= mask
    fresh = list(told)
    active = [i for i, mine in enumerate(hears) if mine]
    while active:
        gained = [0] * len(fresh)
        still: list[int] = []
        progress = False
        for i in active:
            before = seen = reached[i]
            missing = ~before
            table = via[i]
            for position, neighbour in enumerate(hears[i]):
                news = fresh[neighbour] & missing
                if news:
                    table[position] |= news
                    seen |= news
                    missing = ~seen
            if seen != before:
                progress = True
                reached[i] = seen
                if i < forwarding:
                    gained[i] = seen ^ before
                if seen == everything:
                    continue  # it has heard of all there is
            still.append(i)
        if not progress:
            break  # the rest is out of reach
        fresh = gained
        active = still
    return via


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class _Destinations:
    """Subnets in the order of their addresses, and the prefixes that cover sets of them."""

    def __init__(self, subnets: list[Subnet], bits: int) -> None:
        self.subnets = subnets
        self.bits = bits
        self.firsts = [subnet.first for subnet in subnets]
        self.lasts = [subnet.first + (1 << (bits - subnet.prefixlen)) - 1 for subnet in subnets]
        self.gaps = 0  # bit i: subnet i does not begin where subnet i-1 ends
        for i in range(len(subnets)):
            if i == 0 or self.firsts[i] != self.lasts[i - 1] + 1:
                self.gaps |= 1 << i

    def exact(self, mask: int) -> Iterator[tuple[int, int]]:
        """Return the fewest prefixes that cover the subnets of the set and no other address."""
        starts = mask & (~(mask << 1) | self.gaps)
        ends = mask & (~(mask >> 1) | (self.gaps >> 1))
        for i, j in zip(_bits(starts), _bits(ends), strict=True):
            yield from self._aligned(self.firsts[i], self.lasts[j])

    def nested(
        self, mask: int, free: int, masks: Mapping[str, int]
    ) -> tuple[list[tuple[int, int]], int]:
        """Return few prefixes that cover the set, and the subnets of others that they cover too.

        Those are the exceptions, which need longer prefixes of their own: whoever asks for a block
        pays for them. `free` are subnets that may be covered for nothing: the node is attached
        to them, and its own longer prefix wins. `masks` are the sets of all next hops; subnets
        in none of them are out of reach and may not be covered.
        """
        reachable = free
        for theirs in masks.values():
            reachable |= theirs
        _, blocks, exceptions = self._nest(mask, free, masks, reachable)
        return blocks, exceptions

    def _nest(
        self, mask: int, free: int, masks: Mapping[str, int], reachable: int
    ) -> tuple[int, list[tuple[int, int]], int]:
        """Return the number of routes of the cheapest cover, its blocks and its exceptions."""
        i, j = (mask & -mask).bit_length() - 1, mask.bit_length() - 1
        first, last = self.firsts[i], self.lasts[j]
        span = (first ^ last).bit_length()
        block = first >> span << span
        low = bisect_left(self.firsts, block)
        high = bisect_left(self.firsts, block + (1 << span))
        inside = (1 << high) - (1 << low)
        foreign = inside & ~mask & ~free
        whole_world = span == self.bits  # that would be a second default route
        if not foreign and not whole_world:
            return 1, [(block, self.bits - span)], 0
        middle = bisect_left(self.firsts, block + (1 << (span - 1)))
        below = (1 << middle) - 1
        cost, blocks, exceptions = 0, list[tuple[int, int]](), 0
        for half in (mask & below, mask & ~below):
            if half:
                more, others, also = self._nest(half, free, masks, reachable)
                cost, blocks, exceptions = cost + more, blocks + others, exceptions | also
        if not whole_world and not foreign & ~reachable and 1 + self._pieces(foreign) < cost:
            whole = 1 + sum(self._pieces(foreign & theirs) for theirs in masks.values())
            if whole < cost:
                return whole, [(block, self.bits - span)], foreign
        return cost, blocks, exceptions

    def _pieces(self, mask: int) -> int:
        """Return how many stretches a set has: its exact cover has at least as many prefixes."""
        return (mask & (~(mask << 1) | self.gaps)).bit_count()

    def _aligned(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Split an interval of addresses into the fewest prefixes."""
        while first <= last:
            size = min(
                (first & -first).bit_length() - 1 if first else self.bits,
                (last - first + 1).bit_length() - 1,
            )
            yield first, self.bits - size
            first += 1 << size
