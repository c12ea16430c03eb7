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
   neighbours from which a destination is first heard are the next hops to it: breadth-first search
   from everywhere at once. A core that is one circle needs no rounds: half of it lies either way.
4. *Prefixes.* Of several next hops to a destination the default one is taken, else the first by
   name. What does not go the default way gets explicit routes, adjacent subnets joined into larger
   prefixes that cover nothing but subnets that exist. If that makes a large table, the table is
   the smallest one that leads everything a shortest way: any of the next hops will do, prefixes
   may cover unused addresses, and a longer one may lie inside a shorter one. It is found as in
   Draves, King, Venkatachary and Zill, "Constructing optimal IP routing tables" (1999), with one
   step for a whole level of the tree of prefixes, since a level of it is a set like all others.

Unsatisfactory: every hop counts one, whatever its delay or rate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netlab.model.topology import Route

# Tables with more explicit routes than this are made as small as they can be.
SMALL_TABLE = 8
# Trees of prefixes with more levels where they branch than this are not worked on as sets.
HIGHEST_TREE = 16


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
    the one that would be chosen. With `aggregate` small tables are made smaller too.
    """
    routes: dict[str, list[Route]] = {}
    known: dict[object, tuple[_Tables, dict[str, _Cover | None]]] = {}
    for bits, subnets in families.items():
        graph = _Graph(subnets, forwards, bits)
        # Both families usually have the same shape, and then the same paths and covers.
        shape = tuple(tuple(m.node for m in subnet.members) for subnet in graph.table.subnets)
        same = shape, tuple(graph.table.places), graph.table.boundless
        if same not in known:
            known[same] = _Paths(graph, root).tables, {}
        tables, covers = known[same]
        for name, (default, others) in tables.items():
            found = graph.emit(name, default, others, aggregate, covers)
            if found:
                routes.setdefault(name, []).extend(found)
    return routes


# For each node its default next hop, and sets of destinations with another one.
_Tables = dict[str, tuple[str | None, dict[str, int]]]
# For next hops that are no default the prefixes, in the order of their addresses.
_Cover = list[tuple["_Prefix", str]]
# A place in the tree of prefixes, with what its level lacks of the highest in the lower bits.
_Prefix = int


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
        self._covering: dict[_Prefix, IPv4Network | IPv6Network] = {}
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
        self,
        name: str,
        default: str | None,
        tables: Mapping[str, int],
        aggregate: bool,
        covers: dict[str, _Cover | None],
    ) -> list[Route]:
        """Return the routes of a node: the default first, then the rest by address.

        `covers` are those found already for another network of the same shape.
        """
        hops = self.hops.get(name) or self.gateways.get(name, {})
        routes: list[Route] = []
        if default is not None:
            routes.append(self._route(0, 0, hops[default]))
        own = self.own.get(name, 0)
        taken = own | tables.get(default, 0) if default is not None else own
        wanted: dict[str, int] = {}
        for hop, mask in tables.items():
            if hop != default and (mine := mask & ~taken):
                taken |= mine
                wanted[hop] = mine
        if not wanted:
            return routes
        few = not aggregate and self.table.pieces(wanted.values()) <= SMALL_TABLE
        exact = self._exact(wanted) if few else []
        if not few or len(exact) > SMALL_TABLE:
            if name not in covers:
                covers[name] = self.table.fewest(tables, default, own)
            cover = covers[name]
            if cover is not None:
                return routes + self._covered(cover, hops)
            if not few:
                exact = self._exact(wanted)
        exact.sort()
        return routes + [self._route(first, length, hops[hop]) for first, length, hop in exact]

    def _exact(self, wanted: Mapping[str, int]) -> list[tuple[int, int, str]]:
        exact = self.table.exact
        return [(*block, hop) for hop, mask in wanted.items() for block in exact(mask)]

    def _covered(self, cover: _Cover, hops: Mapping[str, _Hop]) -> list[Route]:
        networks, addresses = self._covering, self._addresses
        routes: list[Route] = []
        for prefix, hop in cover:
            dev, address = hops[hop]
            network, via = networks.get(prefix), addresses.get(address)
            if network is None or via is None:
                route = self._route(*self.table.block(*_level_and_place(prefix)), hops[hop])
                networks[prefix] = route.to
            else:
                route = Route(network, via, dev)
            routes.append(route)
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
        circle = None if multihomed else _circle(hears)
        if circle is not None:
            via = _around(circle, hears, known)
        else:
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
    each vertex what it first heard from each of those it hears, from all that bring the same in
    the same round.
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


def _circle(hears: list[list[int]]) -> list[int] | None:
    """Return the vertices in the order in which one circle joins all of them, if one does.

    Less than four are none: there two vertices that are no neighbours cannot be told apart.
    """
    if len(hears) < 4 or any(len(mine) != 2 for mine in hears):
        return None
    circle = [0]
    before = hears[0][1]
    while (after := next(n for n in hears[circle[-1]] if n != before)) != 0:
        before = circle[-1]
        circle.append(after)
    return circle if len(circle) == len(hears) else None


def _around(circle: list[int], hears: list[list[int]], known: list[int]) -> list[list[int]]:
    """Do what `_flood` does, for a circle of vertices, in which only neighbours know the same.

    The vertices less than half the circle away one way are heard from that side, and the opposite
    one, if there is one, from both. A union over a stretch is that of two stretches of a power
    of two that cover it.
    """
    count = len(circle)
    half = (count - 1) // 2
    sets = [known[vertex] for vertex in circle]
    length = 1
    while 2 * length <= half:
        sets = [sets[i] | sets[(i + length) % count] for i in range(count)]
        length *= 2
    via = [[0, 0] for _ in circle]
    for i, vertex in enumerate(circle):
        own = known[vertex]
        ahead = sets[(i + 1) % count] | sets[(i + 1 + half - length) % count]
        back = sets[(i - half) % count] | sets[(i - length) % count]
        both = 0
        if count % 2 == 0:
            both = known[circle[(i + half + 1) % count]] & ~(own | ahead | back)
        following = hears[vertex].index(circle[(i + 1) % count])
        via[vertex][following] = ahead & ~own | both
        via[vertex][1 - following] = back & ~own | both
    return via


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _prefix(level: int, place: int) -> _Prefix:
    return place * (HIGHEST_TREE + 1) + HIGHEST_TREE - level


def _level_and_place(prefix: _Prefix) -> tuple[int, int]:
    place, lower = divmod(prefix, HIGHEST_TREE + 1)
    return HIGHEST_TREE - lower, place


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
        self._blocks: dict[tuple[int, int], tuple[int, int]] = {}

    def exact(self, mask: int) -> Iterator[tuple[int, int]]:
        """Return the fewest prefixes that cover the subnets of the set and no other address."""
        starts = mask & (~(mask << 1) | self.gaps)
        ends = mask & (~(mask >> 1) | (self.gaps >> 1))
        for i, j in zip(_bits(starts), _bits(ends), strict=True):
            yield from self._aligned(self.firsts[i], self.lasts[j])

    def pieces(self, masks: Iterable[int]) -> int:
        """Return how many stretches sets have: no exact cover has fewer prefixes."""
        return sum((mask & (~(mask << 1) | self.gaps)).bit_count() for mask in masks)

    def fewest(self, allowed: Mapping[str, int], default: str | None, free: int) -> _Cover | None:
        """Return the fewest prefixes with which everything may take one of its next hops.

        `allowed` are the destinations that may go by each next hop; those in none of its sets go
        by `default`, or without one must not be covered. `free` may be covered for nothing: the
        node is attached to them, and its own longer prefix wins. None where the tree of prefixes
        is too high.
        """
        if self.height > HIGHEST_TREE:
            return None
        hops: list[str | None] = list(allowed)
        if default not in hops:
            hops.append(default)
        every = (1 << len(self.subnets)) - 1
        anyhow = self.heads[0] & ~self._spread(every & ~free)  # places that nobody needs, too
        rest = every & ~free
        for mask in allowed.values():
            rest &= ~mask
        sets = [anyhow | self._spread(allowed.get(hop or "", 0) & ~free) for hop in hops]
        home = hops.index(default)
        sets[home] |= self._spread(rest)
        kept = self._spread(rest) if default is None else 0  # no other route may cover these
        levels = [sets]
        for level in range(self.height):
            heads = self.heads[level + 1]
            pairs = [(one & heads, one >> (1 << level) & heads) for one in sets]
            both = [left & right for left, right in pairs]
            divided = heads  # where no next hop does for both halves
            for mask in both:
                divided &= ~mask
            sets = [
                mask | (left | right) & divided
                for mask, (left, right) in zip(both, pairs, strict=True)
            ]
            if kept:
                kept = (kept | kept >> (1 << level)) & heads
                sets = [mask & ~kept for mask in sets]
                sets[home] |= kept
            levels.append(sets)
        if self.boundless:
            levels[-1][home] |= 1  # there is no second default
        found: _Cover = []
        above = [0] * len(hops)
        above[home] = 1
        for level in range(self.height, -1, -1):
            sets = levels[level]
            chosen = [theirs & mine for theirs, mine in zip(above, sets, strict=True)]
            open_ = self.heads[level]
            for mask in chosen:
                open_ ^= mask
            for number, hop in enumerate(hops):
                if hop is not None and (taken := open_ & sets[number]):
                    open_ ^= taken
                    chosen[number] |= taken
                    found += [(_prefix(level, place), hop) for place in _bits(taken)]
            if level:
                half = 1 << (level - 1)
                above = [mask | mask << half for mask in chosen]
        found.sort()
        return found

    @cached_property
    def places(self) -> list[int]:
        """Return where each subnet stands among the leaves of a complete tree of prefixes.

        Only levels where the addresses branch count. Where every subnet is as large as the others
        and none is missing, its place is its number.
        """
        places = [0] * len(self.subnets)

        def place(low: int, high: int) -> int:
            if high - low == 1:
                return 0
            branch = (self.firsts[low] ^ self.firsts[high - 1]).bit_length() - 1
            second = self.firsts[high - 1] >> branch << branch
            middle = bisect_left(self.firsts, second, low, high)
            height = max(place(low, middle), place(middle, high))
            for i in range(middle, high):
                places[i] += 1 << height
            return height + 1

        if places:
            place(0, len(places))
        return places

    @cached_property
    def height(self) -> int:
        """Return how many levels that tree has above its leaves."""
        return self.places[-1].bit_length() if self.places else 0

    @property
    def boundless(self) -> bool:
        """Say whether a prefix that covers all subnets covers every address."""
        return bool(self.subnets) and self.block(self.height, 0)[1] == 0

    @cached_property
    def heads(self) -> list[int]:
        """Return for each level of the tree the first places of its prefixes."""
        width = 1 << self.height
        return [((1 << width) - 1) // ((1 << (1 << n)) - 1) for n in range(self.height + 1)]

    @cached_property
    def _spreads(self) -> list[dict[int, int]] | None:
        if self.places[-1] == len(self.places) - 1:
            return None
        return [{} for _ in range(0, len(self.places), 8)]

    def _spread(self, mask: int) -> int:
        """Return the places of a set of subnets, eight at a time."""
        if self._spreads is None:
            return mask
        found = 0
        for known, start, byte in zip(
            self._spreads,
            range(0, len(self.places), 8),
            mask.to_bytes(len(self._spreads), "little"),
            strict=True,
        ):
            if byte:
                part = known.get(byte)
                if part is None:
                    part = known[byte] = sum(1 << self.places[start + bit] for bit in _bits(byte))
                found |= part
        return found

    def block(self, level: int, place: int) -> tuple[int, int]:
        """Return the smallest prefix that covers the subnets below a node of the tree."""
        found = self._blocks.get((level, place))
        if found is None:
            first = self.firsts[bisect_left(self.places, place)]
            last = self.lasts[bisect_left(self.places, place + (1 << level)) - 1]
            span = (first ^ last).bit_length()
            found = self._blocks[level, place] = (first >> span << span, self.bits - span)
        return found

    def _aligned(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Split an interval of addresses into the fewest prefixes."""
        while first <= last:
            size = min(
                (first & -first).bit_length() - 1 if first else self.bits,
                (last - first + 1).bit_length() - 1,
            )
            yield first, self.bits - size
            first += 1 << size
