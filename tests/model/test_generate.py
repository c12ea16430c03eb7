from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab.errors import TopologyError, UsageError
from netlab.model.generate import KINDS, example, generate
from netlab.model.topology import Role
from netlab.model.yaml import generated, loads
from tests.model.networks import Walk

SIZES = st.one_of(
    st.tuples(st.just("star"), st.integers(1, 8)),
    st.tuples(st.just("chain"), st.integers(1, 9), st.integers(0, 2)),
    st.tuples(st.just("tree"), st.integers(1, 4), st.integers(1, 3)),
    st.tuples(st.just("ring"), st.integers(3, 9), st.integers(0, 1)),
    st.tuples(st.just("grid"), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1)),
    st.tuples(st.just("fat-tree"), st.sampled_from([2, 4])),
)


@given(SIZES)
@settings(max_examples=40)
def test_in_a_generated_network_everybody_reaches_everybody(size: tuple) -> None:
    topology = generated(",".join(map(str, size)))
    assert len(topology.nodes) == KINDS[size[0]].size(*size[1:])
    walk = Walk(topology)
    names = [node.name for node in topology.nodes]
    for source in names[:3] + names[-3:]:
        for target in names:
            for address in topology.addresses(target):
                assert walk.path(source, address) is not None, (source, target, address)


@pytest.mark.parametrize("topo", ["tree,9,2", "tree,3,10", "tree,6,3", "star,999"])
def test_in_a_large_tree_a_node_has_few_routes_besides_its_children(topo: str) -> None:
    topology = generated(topo)
    assert len(topology.nodes) >= 1000
    for node in topology.nodes:
        children = len(topology.interfaces(node.name)) - 1
        for version in (4, 6):
            routes = [route for route in node.routes if route.to.version == version]
            assert len(routes) <= 5 + children


def test_a_thousand_nodes_are_made_quickly() -> None:
    start = time.process_time()
    generated("tree,9,2")
    assert time.process_time() - start < 2, "0.16 s where it was measured"


def test_every_kind_has_an_example_that_works() -> None:
    for kind in KINDS:
        assert generated(example(kind)).nodes


def test_leaves_are_hosts_and_the_rest_routers() -> None:
    topology = generated("tree,2,3")
    roles = [node.role for node in topology.nodes]
    assert roles.count(Role.HOST) == 9
    assert roles.count(Role.ROUTER) == 4
    assert topology.name == "tree-2-3"


@pytest.mark.parametrize(
    ("topo", "message"),
    [
        ("tre,2", "'tre' is no kind of network; use one of star, .*; did you mean 'tree'?"),
        ("tree", "tree needs 'depth'; write for example 'tree,3'"),
        ("tree,two", "'two' is not a number; write for example 'tree,3'"),
        ("tree,2,3,4", "tree takes at most 2 numbers: depth, fanout"),
        ("ring,2", "'routers' of ring is 2; it must be a number from 3"),
        ("fat-tree,5", "'ports' of fat-tree is 5; it must be an even number from 2"),
        ("tree,60,9", "this tree has .* nodes; at most 20000 are possible"),
        ("", "is no kind of network"),
    ],
)
def test_a_network_that_cannot_be_made_is_explained(topo: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generated(topo)


def test_parameters_have_names() -> None:
    with pytest.raises(ValueError, match=r"tree has no 'dept'; did you mean 'depth'\?"):
        generate("tree", {"dept": 2})


def test_a_file_adds_to_what_is_generated() -> None:
    topology = loads(
        """
generate: { kind: chain, routers: 3, hosts: 0 }
groups: { middle: { members: [r2], sysctls: { net.ipv4.tcp_sack: 0 } } }
nodes: { r1: { loopback: 192.0.2.1/32 }, client: }
links: [client-r3]
"""
    )
    assert [node.name for node in topology.nodes] == ["r2", "r3", "r1", "client"]
    assert topology.node("r1").role is Role.ROUTER
    assert topology.node("r2").sysctls == (("net.ipv4.tcp_sack", "0"),)
    assert Walk(topology).path("client", topology.node("r1").loopbacks[0].ip)


def test_a_pool_that_is_too_small_is_told() -> None:
    with pytest.raises(TopologyError, match=r"the pool 10\.0\.0\.0/16 has 256 subnets"):
        loads("generate: star,300\ndefaults: {addressing: {ipv4: 10.0.0.0/16}}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generate: [tree]", "generate: .* is no kind of network"),
        ("generate: {kind: tree, depth: x}", "'depth' must be a whole number, not the text 'x'"),
        ("generate: {depth: 2}", "generate: 'None' is no kind of network"),
    ],
)
def test_a_bad_generate_is_explained(text: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        loads(text)
