from __future__ import annotations

from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from netlab.model.impairment import Impairment
from netlab.model.topology import Mark, Role
from netlab.model.yaml import load, loads
from netlab.units import mbit, ms

TOPOLOGIES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_every_example_loads_under_its_own_name_without_a_warning(path: Path) -> None:
    topology = load(path)
    assert topology.name == path.stem
    assert topology.warnings == ()
    assert path.read_text().startswith("# yaml-language-server: $schema=")


def test_links_are_written_in_three_ways() -> None:
    topology = loads(
        "nodes: [a, b, c]\nlinks:\n  - a-b\n  - ['b:left', c]\n"
        "  - {ends: [c, {node: a, mac: '02:00:00:00:00:09'}]}\n"
    )
    ends = [(str(link.a), str(link.b)) for link in topology.links]
    assert ends == [("a:eth0", "b:eth0"), ("b:left", "c:eth0"), ("c:eth1", "a:eth1")]
    assert [link.name for link in topology.links] == ["a-b", "b-c", "c-a"]
    assert topology.links[2].b.mac == "02:00:00:00:00:09"


def test_a_dash_in_a_name_is_no_trouble_where_only_one_reading_fits() -> None:
    topology = loads("nodes: [web-1, db, a-b]\nlinks: [web-1-db, a-b-db]\n")
    assert [(link.a.node, link.b.node) for link in topology.links] == [
        ("web-1", "db"),
        ("a-b", "db"),
    ]


def test_given_names_are_left_out_of_the_counting() -> None:
    topology = loads(
        "nodes: [a, b]\nlinks:\n  - {name: x, ends: [a, b]}\n  - ['a:eth0', 'b:eth7']\n"
    )
    assert [end.name for end in topology.interfaces("a")] == ["eth1", "eth0"]
    assert [end.name for end in topology.interfaces("b")] == ["eth0", "eth7"]


def test_settings_of_a_direction_go_over_those_of_the_link() -> None:
    link = loads(
        "nodes: [a, b]\nlinks:\n  - ends: a-b\n    delay: 10ms\n    rate: 5mbit\n"
        "    a->b: {rate: 1mbit}\n    b -> a: {loss: 1%}\n"
    ).links[0]
    assert link.forward == Impairment(delay=10 * ms, rate=1 * mbit)
    assert link.backward == Impairment(delay=10 * ms, rate=5 * mbit, loss=0.01)


def test_a_lan_has_a_hidden_switch_and_one_network() -> None:
    topology = loads(
        "nodes: [a, b, c]\nlinks:\n"
        "  - {name: lan, ends: [a, b, c], a->lan: {delay: 1ms}, mtu: 1400}\n"
    )
    switch = topology.node("lan.lan")
    assert switch.hidden
    assert switch.role is Role.SWITCH
    assert [link.name for link in topology.links] == ["lan.a", "lan.b", "lan.c"]
    assert {end.mtu for end in topology.interfaces("lan.lan")} == {1400}
    assert topology.link("lan.a").forward == Impairment(delay=1 * ms)
    assert not topology.link("lan.a").backward
    networks = {link.a.addresses[0].network for link in topology.links}
    assert len(networks) == 1
    assert [int(link.a.addresses[0].ip) & 255 for link in topology.links] == [1, 2, 3]


def test_switches_that_are_joined_are_one_network() -> None:
    topology = loads("nodes: {a: , s: switch, t: switch, b: }\nlinks: [a-s, s-t, t-b]\n")
    a, b = topology.interfaces("a")[0], topology.interfaces("b")[0]
    assert a.addresses[0].network == b.addresses[0].network
    assert all(not end.addresses for end in topology.interfaces("s"))


def test_the_nearest_setting_wins_and_sysctls_add_up() -> None:
    topology = loads(
        """
sysctls: {net.a.b: 1, net.a.c: 1}
defaults: {nodes: {sysctls: {net.a.c: 2, net.a.d: 2}}}
groups:
  inner: {members: [h], sysctls: {net.a.e: 4}}
  outer: {members: [inner], role: router, sysctls: {net.a.e: 3, net.a.d: 3}}
nodes: {h: {sysctls: {net.a.b: 5}}, k: }
"""
    )
    assert dict(topology.node("h").sysctls) == {
        "net.a.b": "5",
        "net.a.c": "2",
        "net.a.d": "3",
        "net.a.e": "4",
    }
    assert topology.node("h").role is Role.ROUTER
    assert topology.node("k").role is Role.HOST
    assert topology.node("h").sysctl_marks["net.a.d"].line == 6
    assert topology.node("h").sysctl_marks["net.a.b"].line == 7


def test_a_given_prefix_is_filled_in_the_order_of_the_ends() -> None:
    topology = loads(
        "nodes: [a, b, c]\nlinks:\n"
        "  - ends: [a, {node: b, address: 10.7.0.1/24}, c]\n    prefix: 10.7.0.0/24\n"
    )
    addresses = [topology.interfaces(name)[0].addresses[0] for name in "abc"]
    assert addresses == [ip_interface(f"10.7.0.{i}/24") for i in (2, 1, 3)]


@pytest.mark.parametrize(("prefix", "hosts"), [("10.7.0.0/31", [0, 1]), ("10.7.0.0/30", [1, 2])])
def test_the_smallest_networks_are_used_up(prefix: str, hosts: list[int]) -> None:
    topology = loads(f"nodes: [a, b]\nlinks: [{{ends: a-b, prefix: {prefix}}}]\n")
    link = topology.links[0]
    assert [int(end.addresses[0].ip) & 255 for end in link.ends] == hosts


def test_no_addresses_means_none() -> None:
    topology = loads("nodes: [a, b]\nlinks: [{ends: a-b, prefix: false}]\n")
    assert all(not end.addresses for end in topology.links[0].ends)


def test_a_small_mtu_means_no_ipv6() -> None:
    topology = loads("nodes: [a, b]\nlinks: [{ends: a-b, mtu: 576}]\n")
    assert {a.version for a in topology.links[0].a.addresses} == {4}


def test_pools_are_given_and_closed() -> None:
    topology = loads(
        "defaults: {addressing: {ipv4: 172.16.0.0/12, ipv6: false}}\nnodes: [a, b]\nlinks: [a-b]\n"
    )
    (address,) = topology.links[0].a.addresses
    assert address.network.subnet_of(ip_network("172.16.0.0/12"))  # type: ignore[arg-type]


def test_an_address_by_name_survives_new_neighbours() -> None:
    old = loads("nodes: [a, b, c, d]\nlinks: [a-b, c-d]\n")
    new = loads("nodes: [a, b, c, d, e]\nlinks: [e-a, e-b, c-d, a-b, b-c]\n")
    assert new.link("a-b").a.addresses == old.link("a-b").a.addresses
    assert new.link("c-d").b.addresses == old.link("c-d").b.addresses


def test_in_order_the_nth_link_has_the_nth_subnet() -> None:
    topology = loads(
        "defaults: {addressing: {allocate: order}}\nnodes: [a, b, c]\nlinks: [a-b, b-c]\n"
    )
    assert [str(link.a.addresses[0]) for link in topology.links] == ["10.0.0.1/24", "10.0.1.1/24"]


def test_a_large_lan_gets_a_large_network() -> None:
    names = ", ".join(f"h{i}" for i in range(300))
    topology = loads(f"nodes: [{names}]\nlinks: [{{name: big, ends: [{names}]}}]\n")
    assert topology.links[0].a.addresses[0].network.prefixlen == 23


def test_ends_without_a_common_network_are_a_warning() -> None:
    topology = loads(
        "nodes: [a, b]\nlinks:\n"
        "  - ends: [{node: a, address: 10.0.0.1/24}, {node: b, address: 10.0.1.1/24}]\n"
    )
    (warning,) = topology.warnings
    assert "share no IPv4 network: 10.0.0.0/24, 10.0.1.0/24" in warning.message
    assert warning.line == 3


def test_a_written_route_takes_the_place_of_the_computed_one() -> None:
    topology = loads(
        "nodes: {h: {routes: [{to: default, via: r2}, {to: 192.0.2.0/24, via: r1}]}, "
        "r1: router, r2: router}\nlinks: [{name: lan, ends: [h, r1, r2]}]\n"
    )
    routes = [(str(r.to), r.via) for r in topology.node("h").routes if r.to.version == 4]
    address = {name: topology.interfaces(name)[0].addresses[0].ip for name in ("r1", "r2")}
    assert routes == [("0.0.0.0/0", address["r2"]), ("192.0.2.0/24", address["r1"])]


def test_a_node_may_go_without_computed_routes() -> None:
    topology = loads("nodes: {h: {routing: none}, r: router, k: }\nlinks: [h-r, r-k]\n")
    assert topology.node("h").routes == ()
    assert topology.node("k").routes != ()


def test_everything_knows_where_it_was_written() -> None:
    topology = loads("nodes:\n  a:\n  b:\nlinks:\n  - a-b\n")
    assert topology.node("b").mark == Mark(3, 3)
    assert topology.links[0].mark == Mark(5, 5)
    assert topology.links[0].b.mark == Mark(5, 7)


def test_a_topology_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text('{"nodes": ["a", "b"], "links": ["a-b"]}')
    assert load(path).name == "small"
