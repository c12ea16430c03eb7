"""Static routes over a whole network: shortest paths, few routes, no loops.

Theory of operation. One family at a time. The *destinations* are the subnets, sorted by address;
a set of destinations is a Python int with one bit for each, so sets of a thousand are united by
one machine-speed operation. Two routers are neighbours when they share a subnet.

1. *Peel.* Routers with one neighbour are taken off again and again. What is behind such a router
   can only be reached through it, so each peeled router needs a default route towards its parent
   and routes to what its own peeled children stand for. Trees and chains are finished here, in
   time proportional to their size.
2. *Core.* What remains has cycles (or is the one last router). Sets of destinations spread
   from neighbour to neighbour in rounds; the neighbour (by name, in case of a tie) from which a
   destination is first heard is the next hop to it: breadth-first search from everywhere at once.
3. *Default.* The router from which the farthest destination is nearest (by name in case of
   a tie) is the root. Everyone's default route leads towards the root by a shortest path; the root
   itself has none, so packets to an address that does not exist come to an end there, instead of
   circling between two defaults.
4. *Prefixes.* Destinations with another next hop than the default get explicit routes, adjacent
   subnets joined into larger prefixes. While that makes a small table the prefixes cover
   nothing but subnets that exist; a larger table may also cover unused addresses in between.

Hosts do not forward. A host with one router gets one default route; a host with several gets
its default through the one nearest to the root and explicit routes to what is strictly nearer
through another.

Unsatisfactory: every hop counts one, whatever its delay or rate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netlab.model.topology import Route

# Tables with more explicit routes than this are joined more boldly.
SMALL_TABLE = 8


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
) -> dict[str, list[Route]]:
    """Return the routes of every node that needs some.

    `families` are the subnets for each number of bits of an address (32, 128), none overlapping
    another of its family; `forwards` says of each node whether it is a router. A `root` replaces
    the one that would be chosen.
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
            found = graph.emit(name, default, others)
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
        for member in subnet.members:
            self.own[member.node] = self.own.get(member.node, 0) | bit
            if forwards[member.node]:
                routers.append(member)
        for member in subnet.members:
            if forwards[member.node]:
                hops = self.hops[member.node]
            elif routers:
                hops = self.gateways.setdefault(member.node, {})
            else:
                continue
            for router in routers:
                if router.node != member.node and router.node not in hops:
                    hops[router.node] = (member.dev, router.address)

    def emit(self, name: str, default: str | None, tables: Mapping[str, int]) -> list[Route]:
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
            if len(found) > SMALL_TABLE:
                found = []
                for hop, mask in wanted.items():
                    found += [(first, n, hop) for first, n in self.table.covered(mask, own)]
            found.sort()
            routes += [self._route(first, length, hops[hop]) for first, length, hop in found]
        return routes

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
        self.own, self.hops, self.gateways = graph.own, graph.hops, graph.gateways
        self.count = len(graph.table.subnets)
        self.tables: _Tables = {}
        self.parent: dict[str, str] = {}
        self.children: dict[str, list[str]] = {}
        self.distance: dict[str, int] = {}
        self._route_core(self._peel())
        self._route_peeled()
        self._route_hosts()

    def _peel(self) -> list[str]:
        """Take off routers with one neighbour until none is left; return the rest, by name.

        `self.parent` then holds the peeled ones in the order in which they went.
        """
        degree = {name: len(hops) for name, hops in self.hops.items()}
        pinned = self.wanted_root
        layer = sorted((n for n, d in degree.items() if d == 1 and n != pinned), reverse=True)
        while layer:
            following: set[str] = set()
            for name in layer:
                if degree[name] != 1:
                    continue  # its last neighbour went in this very round: it is a root
                above = next(n for n in self.hops[name] if n not in self.parent)
                self.parent[name] = above
                self.children.setdefault(above, []).append(name)
                degree[name] = 0
                degree[above] -= 1
                if degree[above] == 1 and above != pinned:
                    following.add(above)
            layer = sorted(following, reverse=True)
        self.behind = dict(self.own)  # what a router stands for: its own and its children's
        for name, above in self.parent.items():
            self.behind[above] = self.behind.get(above, 0) | self.behind.get(name, 0)
        return sorted(name for name in self.hops if name not in self.parent)

    def _route_core(self, core: list[str]) -> None:
        index = {name: i for i, name in enumerate(core)}
        neighbours = [sorted(index[n] for n in self.hops[name] if n in index) for name in core]
        reached = [self.behind.get(name, 0) for name in core]
        via, rounds = _flood(neighbours, reached)
        towards: dict[int, int | None] = {}
        pinned = self.wanted_root
        for i in sorted(range(len(core)), key=lambda i: (core[i] != pinned, rounds[i], core[i])):
            if i not in towards:
                self._spread_default(i, core, neighbours, towards)  # the root of its component
        for i, name in enumerate(core):
            tables = {core[n]: mask for n, mask in zip(neighbours[i], via[i], strict=True)}
            for child in self.children.get(name, ()):
                tables[child] = self.behind.get(child, 0)
            up = towards[i]
            self.tables[name] = (None if up is None else core[up], tables)

    def _spread_default(
        self,
        root: int,
        core: list[str],
        neighbours: list[list[int]],
        towards: dict[int, int | None],
    ) -> None:
        """Point every router of a component towards its root, nearest first."""
        towards[root] = None
        self.distance[core[root]] = 0
        layer = [root]
        while layer:
            following: list[int] = []
            for i in sorted(layer):
                for neighbour in neighbours[i]:
                    if neighbour not in towards:
                        towards[neighbour] = i
                        self.distance[core[neighbour]] = self.distance[core[i]] + 1
                        following.append(neighbour)
            layer = following

    def _route_peeled(self) -> None:
        for name in reversed(self.parent):
            above = self.parent[name]
            self.distance[name] = self.distance[above] + 1
            tables = {child: self.behind.get(child, 0) for child in self.children.get(name, ())}
            self.tables[name] = (above, tables)

    def _route_hosts(self) -> None:
        cache: dict[str, list[int]] = {}
        for name, hops in self.gateways.items():
            default = min(hops, key=lambda router: (self.distance[router], router))
            tables: dict[str, int] = {}
            if len(hops) > 1:
                mine = self.own[name]
                others = sorted(router for router in hops if router != default)
                measured = [(r, cache.get(r) or self._distances(r, cache)) for r in others]
                usual = cache.get(default) or self._distances(default, cache)
                for bit in range(self.count):
                    if mine >> bit & 1:
                        continue
                    best, nearest = default, usual[bit]
                    for router, distances in measured:
                        if 0 <= distances[bit] < nearest or (nearest < 0 <= distances[bit]):
                            best, nearest = router, distances[bit]
                    if best != default:
                        tables[best] = tables.get(best, 0) | 1 << bit
            self.tables[name] = (default, tables)

    def _distances(self, start: str, cache: dict[str, list[int]]) -> list[int]:
        """Return the hops from a router to each destination, -1 where there is no way."""
        found = [-1] * self.count
        seen = {start}
        layer, hops = [start], 0
        while layer:
            following: list[str] = []
            for name in layer:
                for bit in _bits(self.own.get(name, 0)):
                    if found[bit] < 0:
                        found[bit] = hops
                for neighbour in self.hops[name]:
                    if neighbour not in seen:
                        seen.add(neighbour)
                        following.append(neighbour)
            layer, hops = following, hops + 1
        cache[start] = found
        return found


def _flood(neighbours: list[list[int]], start: list[int]) -> tuple[list[list[int]], list[int]]:
    """Spread the set of each vertex over a graph, one hop in each round.

    Return for each vertex what it first heard from each of its neighbours (the first in order
    where several bring the same in the same round), and the round in which it last heard news.
    """
    reached = list(start)
    via = [[0] * len(mine) for mine in neighbours]
    rounds = [0] * len(neighbours)
    everything = 0
    for mask in start:
        everything |= mask
    fresh = list(start)
    active = [i for i, mine in enumerate(neighbours) if mine]
    count = 0
    while active:
        count += 1
        gained = [0] * len(fresh)
        still: list[int] = []
        for i in active:
            known = seen = reached[i]
            missing = ~known
            table = via[i]
            for position, neighbour in enumerate(neighbours[i]):
                news = fresh[neighbour] & missing
                if news:
                    table[position] |= news
                    seen |= news
                    missing = ~seen
            if seen != known:
                gained[i] = seen ^ known
                reached[i] = seen
                rounds[i] = count
                if seen == everything:
                    continue  # it has heard of all there is
            still.append(i)
        if not any(gained):
            break  # the rest is out of reach
        fresh = gained
        active = still
    return via, rounds


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

    def covered(self, mask: int, free: int) -> Iterator[tuple[int, int]]:
        """Return few prefixes that cover the set and no subnet outside it and `free`.

        `free` are subnets that may be covered: the node is attached to them, and its own longer
        prefix wins.
        """
        allowed = mask | free
        for i, j in zip(
            _bits(allowed & ~(allowed << 1)), _bits(allowed & ~(allowed >> 1)), strict=True
        ):
            part = (mask >> i) & ((1 << (j - i + 1)) - 1)
            if not part:
                continue
            low = self.lasts[i - 1] + 1 if i else 0
            high = self.firsts[j + 1] - 1 if j + 1 < len(self.firsts) else (1 << self.bits) - 1
            start = i + (part & -part).bit_length() - 1
            yield from self._cover(start, i + part.bit_length() - 1, low, high)

    def _cover(self, i: int, j: int, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Cover subnets i to j with blocks that stay between two addresses."""
        first, last = self.firsts[i], self.lasts[j]
        span = (first ^ last).bit_length()
        block = first >> span << span
        if low <= block and block + (1 << span) - 1 <= high:
            yield block, self.bits - span
            return
        middle = block + (1 << (span - 1))
        right = bisect_left(self.firsts, middle, i, j + 1)
        yield from self._cover(i, right - 1, low, high)
        yield from self._cover(right, j, low, high)

    def _aligned(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Split an interval of addresses into the fewest prefixes."""
        while first <= last:
            size = min(
                (first & -first).bit_length() - 1 if first else self.bits,
                (last - first + 1).bit_length() - 1,
            )
            yield first, self.bits - size
            first += 1 << size
