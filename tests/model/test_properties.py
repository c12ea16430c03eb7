# ruff: noqa: PT017, SIM905, RUF005 - an error is one of two right answers; words read best as text
from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from netlab.errors import TopologyError
from netlab.model.dump import dump, dump_json
from netlab.model.topology import Role, Topology
from netlab.model.yaml import loads
from tests.model.networks import Address, Walk, texts


def neighbours(topology: Topology) -> dict[str, set[str]]:
    """Return who shares a broadcast domain with whom, switches looked through."""
    above = {node.name: node.name for node in topology.nodes}
    found: dict[str, set[str]] = {node.name: set() for node in topology.nodes}
    domains: dict[str, set[str]] = {}

    def top(name: str) -> str:
        while above[name] != name:
            name = above[name]
        return name

    switch = {node.name for node in topology.nodes if node.role is Role.SWITCH}
    for link in topology.links:
        if {link.a.node, link.b.node} <= switch:
            above[top(link.a.node)] = top(link.b.node)
    for link in topology.links:
        ends = {link.a.node, link.b.node}
        if not ends & switch:
            a, b = sorted(ends)
            found[a].add(b)
            found[b].add(a)
        else:
            for name in ends & switch:
                domains.setdefault(top(name), set()).update(ends - switch)
    for members in domains.values():
        for name in members:
            found[name] |= members - {name}
    return found


def hops(topology: Topology, source: str) -> dict[str, int]:
    """Return the shortest distance to every node, hosts not forwarding."""
    near = neighbours(topology)
    found, queue = {source: 0}, [source]
    for name in queue:
        if name != source and not topology.node(name).role.forwards:
            continue
        for other in near[name]:
            if other not in found:
                found[other] = found[name] + 1
                queue.append(other)
    return found


def bound(
    topology: Topology, distance: dict[str, int], source: str, target: str, address: Address
) -> int:
    """Return the length of a shortest way to the subnet of an address, and through it."""
    members = {
        node.name
        for node in topology.nodes
        for own in (
            *node.loopbacks,
            *(a for i in topology.interfaces(node.name) for a in i.addresses),
        )
        if address in own.network
    }
    if source in members or members == {target}:
        return distance[target]
    routers = {name for name in members if topology.node(name).role.forwards}
    return min(distance[name] for name in routers if name in distance) + 1


@given(texts())
@settings(max_examples=150)
def test_every_node_reaches_every_address_by_a_shortest_way(text: str) -> None:
    topology = loads(text)
    walk = Walk(topology)
    visible = [node.name for node in topology.nodes if node.role is not Role.SWITCH]
    for source in visible:
        distance = hops(topology, source)
        for target in visible:
            for address in topology.addresses(target):
                path = walk.path(source, address)
                if target not in distance:
                    assert path is None
                    continue
                assert path is not None, f"{source} does not reach {target} at {address}"
                assert len(path) - 1 <= bound(topology, distance, source, target, address)


@given(texts(connected=False))
@settings(max_examples=60)
def test_addresses_names_and_macs_are_unique(text: str) -> None:
    topology = loads(text)
    interfaces = [end for link in topology.links for end in link.ends]
    assert len({(end.node, end.name) for end in interfaces}) == len(interfaces)
    assert len({end.mac for end in interfaces}) == len(interfaces)
    assert all(len(end.name) <= 15 for end in interfaces)
    assert all(end.mac.startswith("02:") for end in interfaces)
    addresses = [ip for node in topology.nodes for ip in topology.addresses(node.name)]
    assert len(set(addresses)) == len(addresses)


@given(texts(connected=False))
@settings(max_examples=60)
def test_what_is_dumped_loads_as_the_same_topology(text: str) -> None:
    topology = loads(text)
    assert loads(dump(topology), topology.name) == topology
    assert loads(dump_json(topology), topology.name) == topology


@given(texts(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_addresses_by_name_do_not_depend_on_the_order_of_links(text: str, random) -> None:
    assume("allocate: name" in text)
    head, _, rest = text.partition("links:\n")
    lines = rest.splitlines()
    random.shuffle(lines)
    first, second = loads(text), loads("\n".join([head + "links:", *lines]) + "\n")
    for link in first.links:
        if not any(first.node(end.node).role is Role.SWITCH for end in link.ends):
            assert [end.addresses for end in second.link(link.name).ends] == [
                end.addresses for end in link.ends
            ]


@given(texts())
@settings(max_examples=60)
def test_a_host_with_one_router_has_one_route_per_family(text: str) -> None:
    topology = loads(text)
    near = neighbours(topology)
    for node in topology.nodes:
        routers = {name for name in near[node.name] if topology.node(name).role.forwards}
        if node.role is Role.HOST:
            versions = [route.to.version for route in node.routes]
            if len(routers) == 1:
                assert sorted(versions) == [4, 6]
                assert all(route.to.prefixlen == 0 for route in node.routes)
            if not routers:
                assert not versions


@given(texts())
@settings(max_examples=40)
def test_defaults_lead_to_one_place_and_never_in_a_circle(text: str) -> None:
    topology = loads(text)
    walk = Walk(topology)
    for node in topology.nodes:
        seen = [node.name]
        while True:
            defaults = [r for r in topology.node(seen[-1]).routes if r.to.prefixlen == 0]
            if not defaults:
                break
            following = walk._via(seen[-1], defaults[0])
            assert following is not None
            assert following not in seen
            seen.append(following)


words = st.sampled_from(
    "nodes links defaults groups sysctls name h1 r1 h1-r1 router host : - [ ] { } , ' \" | > # & * "
    "! % @ ? ~ null true 1 0 -1 1.5 20ms 10mbit 1% ends prefix delay 10.0.0.0/24 mtu \n \t "
    "processes validate ping -> include version members role routes to via address node".split(" ")
    + ["\n  ", "\n    ", ": ", "- ", "\n", "\x00", "\ufeff", "\ud800", "é"]
)


@given(st.one_of(st.text(), st.lists(words, max_size=40).map(" ".join)))
@settings(max_examples=400)
def test_any_text_gives_a_topology_or_a_topology_error(text: str) -> None:
    try:
        result = loads(text)
    except TopologyError as error:
        assert error.problems
        assert all(p.line >= 1 and p.column >= 1 for p in error.problems)
        assert "\n\n" not in str(error)
    else:
        assert isinstance(result, Topology)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**20)
    | st.floats()
    | st.sampled_from(
        ["h1", "r1", "h1-r1", "20ms", "router", "10.0.0.1/24", "a->b", "", "fd00::/64"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "name role members ends delay rate mtu node address prefix nodes links to via "
                "sysctls routes routing loopback h1 r1 h1->r1 ping command ready port ipv4".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
sections = st.sampled_from(
    "name version defaults groups nodes links sysctls processes validate include".split()
)


@given(st.dictionaries(sections, values, max_size=6))
@settings(max_examples=300)
def test_any_data_gives_a_topology_or_a_topology_error(data: dict) -> None:
    import yaml

    text = yaml.dump(data, Dumper=yaml.CSafeDumper)
    try:
        loads(text)
    except TopologyError as error:
        assert all(len(p.message) < 500 for p in error.problems)


@given(texts(), st.data())
@settings(max_examples=60)
def test_a_damaged_file_gives_a_topology_or_a_topology_error(
    text: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 6))
    new = data.draw(st.text(alphabet=" :-[]{},'\"\n#&*!|>%@0aZ.", max_size=4))
    try:
        loads(text[:cut] + new + text[cut + length :])
    except TopologyError as error:
        assert error.problems


def test_neighbours_of_the_helper_are_what_they_should_be() -> None:
    topology = loads("nodes: {a: , s: switch, t: switch, b: }\nlinks: [a-s, s-t, t-b]\n")
    assert neighbours(topology) == {"a": {"b"}, "b": {"a"}, "s": set(), "t": set()}
    assert list(pairwise(hops(topology, "a").values())) == [(0, 1)]
