from __future__ import annotations

import random
import sys
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab.model.routing import (
    Member,
    Subnet,
    _around,  # pyright: ignore[reportPrivateUsage]
    _circle,  # pyright: ignore[reportPrivateUsage]
    _Destinations,  # pyright: ignore[reportPrivateUsage]
    _flood,  # pyright: ignore[reportPrivateUsage]
    static_routes,
)
from netlab.model.topology import Route, Topology
from netlab.model.yaml import loads
from netlab.plan.build import build


def routes(topology: Topology, node: str) -> list[str]:
    near = {
        address.ip: end.node
        for link in topology.links
        for end in link.ends
        for address in end.addresses
    }
    return [
        f"{route.to} {near[route.via]}"
        for route in topology.node(node).routes
        if route.to.version == 4
    ]


ORDER = "defaults: {addressing: {allocate: order, ipv6: false}}\n"


def test_the_root_in_the_middle_has_no_default_and_the_others_lead_to_it() -> None:
    topology = loads(
        ORDER + "nodes: {h: , r1: router, r2: router, r3: router, k: }\n"
        "links: [h-r1, r1-r2, r2-r3, r3-k]\n"
    )
    assert routes(topology, "h") == ["0.0.0.0/0 r1"]
    assert routes(topology, "r1") == ["0.0.0.0/0 r2"]
    assert routes(topology, "r2") == ["10.0.0.0/24 r1", "10.0.3.0/24 r3"]
    assert routes(topology, "r3") == ["0.0.0.0/0 r2"]


def test_neighbouring_subnets_become_one_prefix() -> None:
    names = "".join(f", h{i}: " for i in range(4))
    links = ", ".join(f"h{i}-r1" for i in range(4))
    topology = loads(ORDER + f"nodes: {{r0: router, r1: router{names}}}\nlinks: [{links}, r0-r1]\n")
    assert routes(topology, "r0") == ["10.0.0.0/22 r1"]


def test_ties_go_to_the_default_and_then_to_the_first_by_name() -> None:
    topology = loads(
        ORDER + "nodes: {a: router, b: router, c: router, d: router, h: }\n"
        "links: [a-b, b-d, a-c, c-d, d-h]\n"
    )
    # b is the root; the subnet behind d is as near to a by b as by c.
    assert routes(topology, "a") == ["0.0.0.0/0 b", "10.0.3.0/24 c"]
    assert routes(topology, "c") == ["0.0.0.0/0 a", "10.0.1.0/24 d", "10.0.4.0/24 d"]
    assert routes(topology, "b") == ["10.0.2.0/24 a", "10.0.3.0/24 d", "10.0.4.0/24 d"]


def test_a_host_with_two_routers_uses_the_nearer_one_for_what_is_behind_it() -> None:
    topology = loads(
        ORDER + "nodes: {h: , r1: router, r2: router, k1: , k2: }\n"
        "links: [{name: lan, ends: [h, r1, r2]}, r1-k1, r2-k2]\n"
    )
    assert routes(topology, "h") == ["0.0.0.0/0 r1", "10.0.2.0/24 r2"]


def test_packets_do_not_pass_through_hosts() -> None:
    topology = loads(ORDER + "nodes: {r1: router, h: , r2: router}\nlinks: [r1-h, h-r2]\n")
    assert routes(topology, "r1") == []
    assert routes(topology, "h") == ["0.0.0.0/0 r1"]


def test_a_loopback_is_reached_through_its_node() -> None:
    topology = loads(
        ORDER + "nodes: {h: {loopback: 192.0.2.1/32}, r: router, k: }\nlinks: [h-r, r-k]\n"
    )
    assert routes(topology, "r") == ["192.0.2.1/32 h"]


def test_separate_networks_have_no_routes_to_each_other() -> None:
    topology = loads(
        ORDER + "nodes: {a: , r: router, b: , c: , s: router, d: }\nlinks: [a-r, r-b, c-s, s-d]\n"
    )
    assert routes(topology, "r") == []
    assert routes(topology, "s") == []


def tree(count: int) -> str:
    roles = "".join(f"  n{i}: {'router' if 2 * i + 1 < count else ''}\n" for i in range(count))
    return f"nodes:\n{roles}links:\n" + "".join(
        f"  - n{(i - 1) // 2}-n{i}\n" for i in range(1, count)
    )


def chain(count: int) -> str:
    roles = "".join(f"  r{i}: router\n" for i in range(count))
    return f"nodes:\n{roles}links:\n" + "".join(f"  - r{i}-r{i + 1}\n" for i in range(count - 1))


def test_a_long_chain_has_few_routes() -> None:
    topology = loads(chain(1000))
    assert max(len(node.routes) for node in topology.nodes) < 40


def calls(text: str) -> int:
    """Count the functions that are called on the way from a topology's text to its plan."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        build(loads(text))
    finally:
        sys.setprofile(None)
    return count


def grid(side: int) -> str:
    return f"generate: {{kind: grid, rows: {side}, columns: {side}, hosts: 0}}\n"


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (tree(150), tree(600)),
        (chain(150), chain(600)),
        ("generate: star,149\n", "generate: star,599\n"),
        ("generate: ring,150,0\n", "generate: ring,600,0\n"),
        (grid(12), grid(24)),
    ],
    ids=["tree", "chain", "star", "ring", "grid"],
)
def test_four_times_the_nodes_are_not_sixteen_times_the_work(small: str, large: str) -> None:
    """What a plan of a thousand nodes takes is in benches/README.md; here it is counted."""
    loads(small)
    assert calls(large) < 6 * calls(small)


def test_no_block_is_a_second_default() -> None:
    hosts = "".join(f"h{i}: {{loopback: 192.0.2.{i}/32}}, " for i in range(1, 9))
    links = ", ".join(f"h{i}-r1" for i in range(1, 9))
    topology = loads(
        f"nodes: {{{hosts}k: , r1: router, r2: router}}\nlinks: [{links}, r1-k, r2-k]\n"
    )
    for node in topology.nodes:
        targets = [route.to for route in node.routes]
        assert len(set(targets)) == len(targets)


def next_hop(routes: list[Route], address: int) -> Route | None:
    """Return the route with the longest prefix that holds an address, as the kernel does."""
    near = [r for r in routes if IPv4Address(address) in r.to]
    return max(near, key=lambda r: r.to.prefixlen, default=None)


@st.composite
def graphs(draw: st.DrawFn) -> list[Subnet]:
    """Networks of routers in which ties are frequent, with subnets of several sizes anywhere."""
    count = draw(st.integers(2, 9))
    pairs = [(i, draw(st.integers(0, i - 1))) for i in range(1, count)]
    pairs += draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))))
    pairs += [(i, i) for i in range(count)]  # a subnet behind each
    places = draw(
        st.lists(
            st.integers(0, 4 * len(pairs)), unique=True, min_size=len(pairs), max_size=len(pairs)
        )
    )
    top = draw(st.sampled_from([0x0A000000, 0x7FFFF000]))
    subnets: list[Subnet] = []
    for (a, b), place in zip(pairs, places, strict=True):
        first = top + 256 * place
        length = draw(st.integers(24, 28))
        ends = [Member(f"r{n}", f"e{place}", first + 1 + i) for i, n in enumerate({a: 0, b: 0})]
        subnets.append(Subnet(first, length, tuple(ends)))
    return subnets


@given(graphs())
@settings(max_examples=200)
def test_the_smallest_tables_lead_everything_a_shortest_way(subnets: list[Subnet]) -> None:
    names = sorted({m.node for s in subnets for m in s.members})
    tables = static_routes({32: subnets}, dict.fromkeys(names, True), aggregate=True)
    plain = static_routes({32: subnets}, dict.fromkeys(names, True))
    owner = {m.address: m.node for s in subnets for m in s.members}
    near: dict[str, set[str]] = {name: set() for name in names}
    for subnet in subnets:
        members = {m.node for m in subnet.members}
        for node in members:
            near[node] |= members - {node}
    for source in names:
        assert len(tables.get(source, ())) <= len(plain.get(source, ()))
        distance, queue = {source: 0}, [source]
        for node in queue:
            for other in sorted(near[node] - distance.keys()):
                distance[other] = distance[node] + 1
                queue.append(other)
        for subnet in subnets:
            members = {m.node for m in subnet.members}
            node, hops = source, 0
            while node not in members:
                route = next_hop(tables.get(node, []), subnet.first + 1)
                assert route is not None, f"{node} has no route to {subnet}"
                node, hops = owner[int(route.via)], hops + 1
                assert hops <= len(names)
            assert hops == min(distance[name] for name in members)


def fewest(table: _Destinations, allowed: dict[str, int], default: str | None, free: int) -> int:
    """Count the routes of a smallest table by trying every next hop at every branch."""
    anyhow = [*allowed, default]

    def may(i: int) -> list[str | None]:
        if free >> i & 1:
            return anyhow
        found: list[str | None] = [hop for hop, mask in allowed.items() if mask >> i & 1]
        return found or [default]

    def cost(low: int, high: int, above: str | None) -> int:
        """Return the fewest routes for the subnets from `low` to `high`, below a route `above`."""

        def split(hop: str | None) -> int:
            if high - low == 1:
                return 0 if hop in may(low) else 1000
            branch = (table.firsts[low] ^ table.firsts[high - 1]).bit_length() - 1
            second = table.firsts[high - 1] >> branch << branch
            middle = next(i for i in range(low, high) if table.firsts[i] >= second)
            return cost(low, middle, hop) + cost(middle, high, hop)

        span = (table.firsts[low] ^ table.lasts[high - 1]).bit_length()
        chosen = [] if span == table.bits else [hop for hop in allowed if hop != above]
        return min([split(above), *(1 + split(hop) for hop in chosen)])

    return cost(0, len(table.subnets), default)


@given(st.data())
@settings(max_examples=150)
def test_a_smallest_table_is_as_small_as_a_search_finds(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 7))
    places = data.draw(st.lists(st.integers(0, 40), unique=True, min_size=count, max_size=count))
    top = data.draw(st.sampled_from([0x0A000000, 0x7FFFF000]))
    table = _Destinations([Subnet(top + 256 * p, 24, ()) for p in sorted(places)], 32)
    masks = st.integers(0, (1 << count) - 1)
    free = data.draw(masks)
    allowed = {hop: data.draw(masks) & ~free for hop in "abc"}
    default = data.draw(st.sampled_from(["a", None]))
    found = table.fewest(allowed, default, free)
    assert found is not None
    assert len(found) == fewest(table, allowed, default, free)


@pytest.mark.parametrize("count", range(4, 14))
def test_a_circle_is_searched_as_any_other_core(count: int) -> None:
    order = random.Random(count).sample(range(count), count)
    place = {vertex: i for i, vertex in enumerate(order)}
    hears = [
        [order[place[v] - 1], order[(place[v] + 1) % count]][:: 1 if v % 2 else -1]
        for v in range(count)
    ]
    # Each vertex has two subnets of its own and shares one with each of its neighbours.
    known = [0b11 << 2 * v | 0b1 << 2 * count + place[v] for v in range(count)]
    for i, v in enumerate(order):
        known[order[(i + 1) % count]] |= 1 << 2 * count + place[v]
    circle = _circle(hears)
    assert circle is not None
    assert _around(circle, hears, known) == _flood(hears, known, known, count)


def test_what_is_no_circle_is_not_taken_for_one() -> None:
    assert _circle([[1, 2], [2, 0], [0, 1]]) is None
    assert _circle([[1, 3], [0, 2], [1, 3], [2, 0, 4], [3]]) is None
    two = [[1, 2], [2, 0], [0, 1], [4, 5], [5, 3], [3, 4]]
    assert _circle(two) is None


def test_a_node_of_a_grid_has_few_routes_whatever_its_size() -> None:
    topology = loads(grid(31))
    # Rows are consecutive: what is above goes up, below down, the rest left and right, so a table
    # is at most three stretches of the 1860 subnets, each of at most two prefixes a level.
    levels = (1860).bit_length()
    assert max(len(node.routes) for node in topology.nodes) <= 2 * (1 + 3 * 2 * levels)
    assert sum(len(node.routes) for node in topology.nodes) < 30_000
