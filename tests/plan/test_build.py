from __future__ import annotations

from pathlib import Path

import pytest

from netlab.errors import CapabilityError
from netlab.model.capabilities import Capabilities
from netlab.model.yaml import load, loads
from netlab.plan.build import build
from netlab.plan.operations import (
    AddAddress,
    AddBridge,
    AddNode,
    AddQdisc,
    AddRoute,
    AddTunnel,
    AddVeth,
    OffloadsOff,
    SetSysctl,
    SetUp,
)
from netlab.plan.script import as_data, script

TOPOLOGIES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"


def operations(text: str, kind: type | tuple[type, ...]) -> list:
    return [op for op in build(loads(text)).operations if isinstance(op, kind)]


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_every_example_has_its_script(path: Path, golden) -> None:
    golden(GOLDEN / f"{path.stem}.sh", script(build(load(path))))


def test_equal_topologies_give_equal_plans() -> None:
    one = loads("nodes: [a, b]\nlinks: [a-b]\n")
    other = loads("\n\nnodes:\n  - a\n  - b\nlinks:\n  - a-b\n")
    assert build(one).operations == build(other).operations


def test_nothing_is_done_to_what_does_not_exist_yet() -> None:
    for path in TOPOLOGIES:
        nodes: set[str] = set()
        devices: set[tuple[str, str]] = set()
        for op in build(load(path)).operations:
            match op:
                case AddNode(node=node):
                    nodes.add(node)
                    devices.add((node, "lo"))
                case AddVeth(a=a, b=b):
                    assert {a.node, b.node} <= nodes
                    assert not {(a.node, a.name), (b.node, b.name)} & devices
                    devices |= {(a.node, a.name), (b.node, b.name)}
                case AddTunnel(end=end):
                    assert end.node in nodes
                    devices.add((end.node, end.name))
                case AddBridge(node=node, name=name, ports=ports):
                    assert {(node, port) for port in ports} <= devices
                    devices.add((node, name))
                case SetUp() | OffloadsOff() | AddAddress() | AddQdisc() | AddRoute():
                    assert (op.node, op.dev) in devices
                case SetSysctl(node=node):
                    assert node in nodes


def test_routers_forward_and_hosts_do_not() -> None:
    text = "nodes: {h: , r: router, k: }\nlinks: [h-r, r-k]\n"
    forwarding = [
        op for op in operations(text, SetSysctl) if op.key.endswith(("ip_forward", "forwarding"))
    ]
    assert {op.node for op in forwarding} == {"r"}
    assert {op.value for op in forwarding} == {"1"}


def test_what_the_author_wrote_replaces_what_the_role_implies() -> None:
    text = "nodes: {r: {role: router, sysctls: {net.ipv4.ip_forward: 0}}, k: }\nlinks: [r-k]\n"
    written = [op for op in operations(text, SetSysctl) if op.key == "net.ipv4.ip_forward"]
    assert [(op.value, op.mark.line, op.mark.column) for op in written] == [("0", 1, 58)]


def test_a_sysctl_of_an_interface_comes_after_the_interface() -> None:
    text = (
        "nodes:\n  a:\n    sysctls:\n"
        "      net.ipv4.conf.eth0.rp_filter: 0\n      net.ipv4.conf.all.rp_filter: 0\n"
        "  b:\nlinks: [a-b]\n"
    )
    kinds = [
        op.key if isinstance(op, SetSysctl) else "veth"
        for op in operations(text, (SetSysctl, AddVeth))
        if isinstance(op, AddVeth) or "rp_filter" in op.key
    ]
    assert kinds == ["net.ipv4.conf.all.rp_filter", "veth", "net.ipv4.conf.eth0.rp_filter"]


def test_without_ipv6_there_is_none() -> None:
    text = "defaults: {addressing: {ipv6: false}}\nnodes: [a, b]\nlinks: [a-b]\n"
    assert {op.key for op in operations(text, SetSysctl)} == {
        "net.ipv6.conf.all.disable_ipv6",
        "net.ipv6.conf.default.disable_ipv6",
    }


def test_offloads_stay_where_they_were_asked_for() -> None:
    text = "nodes: [a, b]\nlinks: [{ends: a-b, offloads: true}]\n"
    assert operations(text, OffloadsOff) == []


def test_an_interface_that_is_down_is_not_set_up_and_has_no_routes() -> None:
    text = "nodes: {a: , r: router, b: }\nlinks: [{ends: [{node: a, up: false}, r]}, r-b]\n"
    assert ("a", "eth0") not in {(op.node, op.dev) for op in operations(text, SetUp)}
    assert "a" not in {op.node for op in operations(text, AddRoute)}


def test_each_direction_is_impaired_where_it_leaves_the_middle_node() -> None:
    text = "nodes: [a, b]\nlinks: [{ends: a-b, a->b: {delay: 10ms}, b->a: {loss: 1%}}]\n"
    qdiscs = operations(text, AddQdisc)
    veths = operations(text, AddVeth)
    port = {veth.a.node: veth.b.name for veth in veths}
    assert {veth.b.node for veth in veths} == {"a-b.wire"}
    words = {op.dev: " ".join(op.qdisc.words) for op in qdiscs}
    assert "delay 10ms" in words[port["b"]]
    assert "loss 1%" in words[port["a"]]


def test_a_perfect_link_has_no_middle_node() -> None:
    assert len(operations("nodes: [a, b]\nlinks: [a-b]\n", AddNode)) == 2


def test_without_netem_an_impaired_topology_is_refused_with_the_remedy() -> None:
    topology = loads("nodes: [a, b]\nlinks: [{name: slow, ends: a-b, delay: 1ms}]\n")
    build(topology, Capabilities(qdiscs=frozenset({"netem"})))
    with pytest.raises(CapabilityError, match=r"link 'slow': .*no netem.*linux-modules-extra"):
        build(topology, Capabilities(qdiscs=frozenset({"tbf"})))
    build(loads("nodes: [a, b]\nlinks: [a-b]\n"), Capabilities())


def test_operations_know_their_line() -> None:
    marks = {
        type(op).__name__: op.mark.line
        for op in build(loads("nodes:\n - a\n - b\nlinks:\n - a-b\n")).operations
    }
    assert marks["AddVeth"] == 5
    assert marks["AddAddress"] == 5
    assert marks["AddNode"] == 3


def test_the_plan_as_data_is_complete() -> None:
    plan = build(load(TOPOLOGIES[0]))
    data = as_data(plan)
    assert len(data["operations"]) == len(plan.operations)
    assert all(entry["commands"] for entry in data["operations"])


@pytest.mark.needs("root", "netns")
@pytest.mark.parametrize("name", ["two-hosts", "lan", "ipv6-only", "chain-4-routers"])
def test_the_script_runs_and_the_ends_reach_each_other(name: str) -> None:
    """In a mount namespace of its own, so that the names under /run/netns are nobody else's."""
    import subprocess

    topology = load(next(path for path in TOPOLOGIES if path.stem == name))
    hosts = [node.name for node in topology.nodes if node.role.value == "host"]
    target = topology.addresses(hosts[-1])[0]
    body = script(build(topology)) + f"ip netns exec {hosts[0]} ping -c1 -w5 {target}\n"
    argv = ["unshare", "-mn", "sh", "-ec", "mount -t tmpfs none /run\n" + body]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "0% packet loss" in done.stdout  # of one packet, or two where the first took a second
