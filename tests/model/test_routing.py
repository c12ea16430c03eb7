from __future__ import annotations

import time

from netlab.model.topology import Topology
from netlab.model.yaml import loads


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


def test_a_thousand_nodes_do_not_take_long() -> None:
    loads(tree(50))
    for text in (tree(1000), chain(1000)):
        start = time.process_time()
        loads(text)
        assert time.process_time() - start < 2, "0.2 s where it was measured"


def test_no_block_is_a_second_default() -> None:
    hosts = "".join(f"h{i}: {{loopback: 192.0.2.{i}/32}}, " for i in range(1, 9))
    links = ", ".join(f"h{i}-r1" for i in range(1, 9))
    topology = loads(
        f"nodes: {{{hosts}k: , r1: router, r2: router}}\nlinks: [{links}, r1-k, r2-k]\n"
    )
    for node in topology.nodes:
        targets = [route.to for route in node.routes]
        assert len(set(targets)) == len(targets)
