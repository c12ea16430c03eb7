"""The bytes of a program: decoded by pyroute2 they say what the plan said, in its order."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from netlab.engine import netlink
from netlab.engine.lower import BURST_MESSAGES, Indexes, Program, lower, sysctl_path
from netlab.model.topology import Interface, Link, Node, Role, Topology
from netlab.model.tunnel import Vxlan
from netlab.plan.build import build
from netlab.plan.operations import (
    AddAddress,
    AddNode,
    AddRoute,
    AddVeth,
    RemoveAddress,
    RemoveLink,
    SetSysctl,
    SetUp,
)
from tests.engine.networks import host_router_host


def messages(program: Program, extent: list[int]) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, sequence number and bytes of each message of a burst."""
    offset, end, _ = extent[:3]
    while offset < end:
        length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", program.blob, offset)
        yield kind, flags, sequence, bytes(program.blob[offset : offset + length])
        offset += length + 3 & ~3
    assert offset == end


def bursts(program: Program) -> Iterator[tuple[str, list[int]]]:
    """Node (empty for links) and extent of every burst, in order."""
    for kind, body in program.stages:
        if kind == "links":
            yield from (("", extent) for extent in body)
        elif kind == "config":
            for node, items in body:
                yield from ((node, item[1:]) for item in items if item[0] == "netlink")


def test_only_the_last_message_of_a_burst_asks_for_an_answer() -> None:
    program = lower(build(host_router_host()).operations)
    for _, extent in bursts(program):
        found = list(messages(program, extent))
        assert all(not flags & netlink.ACK for _, flags, _, _ in found[:-1])
        assert found[-1][1] & netlink.ACK
        assert found[-1][2] == extent[2]


def test_every_operation_is_there_once_and_in_order_within_its_node() -> None:
    operations = build(host_router_host()).operations
    program = lower(operations)
    seen: list[int] = []
    for kind, body in program.stages:
        if kind == "nodes":
            for _, number, sysctls, _ in body:
                seen += [number, *(item[2] for item in sysctls)]
    for node, extent in bursts(program):
        numbers = [sequence - 1 for _, _, sequence, _ in messages(program, extent)]
        assert numbers == sorted(numbers)
        if node:
            assert {getattr(operations[n], "node") for n in numbers} == {node}  # noqa: B009
        seen += [n for n in numbers if not isinstance(operations[n], AddNode)]
    for kind, body in program.stages:
        if kind == "config":
            seen += [i[-1] for _, items in body for i in items if i[0] != "netlink"]
    assert sorted(seen) == list(range(len(operations)))


def test_what_is_waited_for_at_the_end_are_carriers_and_groups_of_addresses() -> None:
    operations = build(host_router_host()).operations
    indexes = Indexes()
    kind, body = lower(operations, indexes).stages[-1]
    assert kind == "settle"
    assert {n: [dev for dev, _, _ in devices] for n, devices in body} == {
        "h1": ["eth0"],
        "r1": ["eth0", "eth1"],
        "h2": ["eth0"],
    }
    assert sorted((i, g) for _, own in body for _, i, groups in own for g in groups) == sorted(
        (indexes[o.node, o.dev], f"{int(o.address.ip) & 0xFFFFFF:06x}")
        for o in operations
        if isinstance(o, AddAddress) and o.address.version == 6
    )


def test_an_address_that_an_interface_gets_later_is_waited_for_unless_it_goes_again() -> None:
    indexes = Indexes([("h", "eth0", 100), ("h", "eth1", 102)])
    first, second = (ip_interface(f"fd00::{n}:{n}/64") for n in (1, 2))
    wanted = [AddAddress("h", "eth0", first), AddAddress("h", "eth0", second)]
    assert lower(wanted, indexes).stages[-1] == [
        "settle",
        [["h", [["eth0", 100, ["010001", "020002"]]]]],
    ]
    gone = RemoveAddress("h", "eth0", first)
    assert lower([*wanted, gone], indexes).stages[-1][1] == [["h", [["eth0", 100, ["020002"]]]]]
    removed = [*wanted, AddAddress("h", "eth1", first), RemoveLink("h", "eth0")]
    left = lower(removed, Indexes([("h", "eth0", 100), ("h", "eth1", 102)])).stages[-1][1]
    assert left == [["h", [["eth1", 102, ["010001"]]]]]
    four = lower([AddAddress("h", "eth0", ip_interface("10.0.0.1/24"))], indexes)
    assert [kind for kind, _ in four.stages] == ["config"]


def test_long_configurations_are_cut_into_bursts() -> None:
    node = Node("h", Role.HOST)
    many = tuple(ip_interface(f"10.{n >> 8}.{n & 255}.1/24") for n in range(1000))
    a = Interface("h", "eth0", "02:00:00:00:00:01", 1500, many)
    b = Interface("g", "eth0", "02:00:00:00:00:02", 1500)
    topology = Topology("big", (node, Node("g", Role.HOST)), (Link("l", a, b),))
    program = lower(build(topology).operations)
    sizes = [
        len(list(messages(program, extent))) for node, extent in bursts(program) if node == "h"
    ]
    assert sum(sizes) >= 1001
    assert max(sizes) <= BURST_MESSAGES
    assert len(sizes) < 10


def test_no_two_interfaces_of_a_lab_share_an_index() -> None:
    indexes = Indexes()
    lower(build(host_router_host()).operations, indexes)
    assert len(set(indexes.of.values())) == len(indexes.of) == 4
    assert min(indexes.of.values()) == 100
    assert indexes["h1", "lo"] == 1
    again = Indexes((node, device, index) for (node, device), index in indexes.of.items())
    assert again.new("h1", "eth1") == 104


def test_descriptors_are_patched_where_the_message_has_them() -> None:
    program = lower(build(host_router_host()).operations)
    (links,) = (body for kind, body in program.stages if kind == "links")
    ((_, _, _, patches),) = links
    assert [node for _, node in patches] == ["h1", "r1", "r1", "h2"]
    for offset, _ in patches:
        length, kind = struct.unpack_from("=HH", program.blob, offset - 4)
        assert (length, kind) == (8, 28)  # IFLA_NET_NS_FD


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/5.rp_filter", "/proc/sys/net/ipv4/conf/eth0.5/rp_filter"),
    ],
)
def test_sysctl_keys_become_paths_as_for_sysctl(key: str, path: str) -> None:
    assert sysctl_path(key) == path


def decoded(message: bytes) -> Any:
    pytest.importorskip("pyroute2")
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    (found,) = MarshalRtnl().parse(message)
    return found


def test_pyroute2_reads_our_messages_as_we_mean_them() -> None:
    mac = "02:00:00:00:00:07"
    message, first, second = netlink.veth(5, (100, "eth0", mac, 1500), (101, "eth1", mac, 1400))
    found = decoded(message)
    assert found["index"] == 100
    assert found.get_attr("IFLA_IFNAME") == "eth0"
    assert found.get_attr("IFLA_ADDRESS") == mac
    assert found.get_attr("IFLA_MTU") == 1500
    info = found.get_attr("IFLA_LINKINFO")
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer["index"] == 101
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_MTU")) == ("eth1", 1400)
    assert first < second == len(message) - 4

    found = decoded(netlink.address(1, 7, ip_interface("10.1.2.3/24")))
    assert (found["prefixlen"], found["index"]) == (24, 7)
    assert found.get_attr("IFA_LOCAL") == "10.1.2.3"
    assert found.get_attr("IFA_BROADCAST") == "10.1.2.255"
    found = decoded(netlink.address(1, 7, ip_interface("fd00::1/64")))
    assert found["flags"] & 0x02  # IFA_F_NODAD
    for length in (31, 32):
        found = decoded(netlink.address(1, 7, ip_interface(f"10.1.2.2/{length}")))
        assert found.get_attr("IFA_BROADCAST") is None

    via = ip_interface("10.0.0.1").ip
    found = decoded(netlink.route(1, ip_network("192.0.2.0/24"), via, 9))
    assert (found["dst_len"], found.get_attr("RTA_DST")) == (24, "192.0.2.0")
    assert (found.get_attr("RTA_GATEWAY"), found.get_attr("RTA_OIF")) == ("10.0.0.1", 9)
    found = decoded(netlink.route(1, ip_network("0.0.0.0/0"), via, 9))
    assert found.get_attr("RTA_DST") is None


def test_a_tunnel_reads_back_as_it_was_meant() -> None:
    near, far = ip_address("fd00::1"), ip_address("fd00::2")
    end = (9, "in0", "02:00:00:00:00:07", 1430)
    found = decoded(netlink.tunnel(5, end, Vxlan(42, 4790, "ipv6"), near, far))
    assert (found["index"], found.get_attr("IFLA_MTU")) == (9, 1430)
    data = found.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    names = ("VXLAN_ID", "VXLAN_LOCAL6", "VXLAN_GROUP6", "VXLAN_PORT")
    assert [data.get_attr(f"IFLA_{name}") for name in names] == [42, "fd00::1", "fd00::2", 4790]


def test_the_kinds_of_operations_all_have_a_lowering() -> None:
    kinds = {type(operation) for operation in build(host_router_host()).operations}
    assert {AddNode, SetSysctl, AddVeth, SetUp, AddAddress, AddRoute} <= kinds
