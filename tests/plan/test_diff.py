from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings

from netlab.model.capabilities import Capabilities
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.plan.backend import Backend
from netlab.plan.build import build
from netlab.plan.diff import diff, processes
from netlab.plan.operations import (
    AddNode,
    AddVeth,
    AddWire,
    ChangeQdisc,
    Operation,
    RemoveAddress,
    RemoveLink,
    RemoveNode,
    RemoveRoute,
    ReplaceRoute,
    SetRing,
    SetSysctl,
)
from netlab.plan.script import script
from tests.model.networks import texts

BASE = "nodes: {h1: , r1: router, r2: router, h2: }\nlinks: [h1-r1, r1-r2, r2-h2]\n"


def changes(old: str, new: str) -> list[Operation]:
    return list(diff(loads(old), loads(new)).operations)


def names(operations: list[Operation]) -> list[str]:
    return [type(op).__name__ for op in operations]


@given(texts(connected=False))
@settings(max_examples=25)
def test_between_equal_topologies_there_is_nothing_to_do(text: str) -> None:
    assert changes(text, text) == []


def test_a_sysctl_is_one_operation() -> None:
    found = changes(BASE, BASE + "groups: {g: {members: [h1], sysctls: {net.ipv4.tcp_sack: 0}}}\n")
    assert found == [SetSysctl("h1", "net.ipv4.tcp_sack", "0")]


def test_a_script_that_makes_no_node_does_not_say_how_to_remove_any() -> None:
    text = BASE + "groups: {g: {members: [h1], sysctls: {net.ipv4.tcp_sack: 0}}}\n"
    told = script(diff(loads(BASE), loads(text)))
    assert "# Run as root.\nset -e\n" in told
    assert "netns del" not in told


def test_a_sysctl_no_longer_wanted_is_reset() -> None:
    text = BASE + "groups: {g: {members: [h1], sysctls: {net.ipv4.tcp_sack: 0}}}\n"
    assert names(changes(text, BASE)) == ["ResetSysctl"]


SLOW = "nodes: {a: , b: , c: router}\nlinks: [{ends: a-c, delay: 1ms}, {ends: b-c, delay: 1ms}]\n"


@pytest.mark.parametrize("tun", [False, True])
def test_a_link_made_anew_takes_its_wire_with_it_and_leaves_others_alone(tun: bool) -> None:
    machine = Capabilities(wire=True, tun=tun)
    new = SLOW.replace("a-c, delay: 1ms", "a-c, delay: 2ms, mtu: 1400")
    found = list(diff(loads(SLOW), loads(new), machine, Backend.WIRE).operations)
    assert [op.node for op in found if isinstance(op, RemoveNode)] == ["a-c.wire"]
    assert [op.link for op in found if isinstance(op, AddWire)] == ["a-c"]
    gone = [(op.node, op.dev) for op in found if isinstance(op, RemoveLink)]
    assert gone == [("a", "eth0"), ("c", "eth0")]
    assert not any(getattr(op, "node", "") in ("b", "b-c.wire") for op in found)


@pytest.mark.parametrize("tun", [False, True])
def test_new_settings_of_a_wire_touch_nothing_else(tun: bool) -> None:
    machine = Capabilities(wire=True, tun=tun)
    new = SLOW.replace("b-c, delay: 1ms", "b-c, delay: 9ms, loss: 1%")
    found = list(diff(loads(SLOW), loads(new), machine, Backend.WIRE).operations)
    assert [type(op) for op in found] == [AddWire]


def test_a_longer_queue_makes_the_rings_in_front_of_it_longer_in_place() -> None:
    machine = Capabilities(wire=True, tun=True)
    new = SLOW.replace("b-c, delay: 1ms", "b-c, delay: 1ms, limit: 9000")
    found = list(diff(loads(SLOW), loads(new), machine, Backend.WIRE).operations)
    assert [type(op) for op in found] == [SetRing, SetRing, AddWire]
    assert [" ".join(argv) for op in found[:2] for argv in op.commands] == [
        "ip -n b link set eth0 txqueuelen 9000",
        "ip -n c link set eth1 txqueuelen 9000",
    ]


def test_a_new_host_touches_no_other_link() -> None:
    new = BASE.replace("h2: }", "h2: , h3: }").replace("r2-h2]", "r2-h2, r2-h3]")
    found = changes(BASE, new)
    assert [op.node for op in found if isinstance(op, AddNode)] == ["h3"]
    assert [op.b.node for op in found if isinstance(op, AddVeth)] == ["h3"]
    assert not any(isinstance(op, RemoveLink | RemoveNode | RemoveAddress) for op in found)
    back = changes(new, BASE)
    assert [op for op in back if isinstance(op, RemoveNode)] == [RemoveNode("h3")]
    assert not any(isinstance(op, AddVeth) for op in back)


def test_another_delay_is_a_change_in_place() -> None:
    link = "nodes: [a, b]\nlinks: [{{ends: a-b, delay: {}}}]\n"
    found = changes(link.format("10ms"), link.format("20ms"))
    assert names(found) == ["ChangeQdisc", "ChangeQdisc"]
    one = "nodes: [a, b]\nlinks: [{ends: a-b, delay: 10ms, a->b: {delay: 20ms}}]\n"
    assert [op.dev for op in changes(link.format("10ms"), one) if isinstance(op, ChangeQdisc)] == [
        "p1"
    ]


def test_a_direction_that_becomes_perfect_loses_its_qdiscs() -> None:
    both = "nodes: [a, b]\nlinks: [{ends: a-b, delay: 10ms}]\n"
    one = "nodes: [a, b]\nlinks: [{ends: a-b, a->b: {delay: 10ms}}]\n"
    assert names(changes(both, one)) == ["RemoveQdiscs"]


def test_a_route_that_leads_elsewhere_is_replaced() -> None:
    old = (
        "nodes: {h: , r1: router, r2: router}\n"
        "links: [{name: lan, ends: [h, r1, r2]}]\n"
        "groups: {g: {members: [h], routes: [{to: default, via: r1}]}}\n"
    )
    found = changes(old, old.replace("via: r1", "via: r2"))
    assert names(found) == ["ReplaceRoute"]


def test_a_node_with_another_role_is_made_anew() -> None:
    found = changes(BASE, BASE.replace("h1: ,", "h1: router,"))
    assert RemoveNode("h1") in found
    assert AddNode("h1") in found


def test_addresses_that_shared_a_subnet_with_one_that_goes_are_added_again() -> None:
    link = (
        "nodes: [a, b]\nlinks:\n"
        "  - ends: [{{node: a, address: [{}]}}, {{node: b, address: 10.0.0.2/24}}]\n"
    )
    found = changes(link.format("10.0.0.1/24, 10.0.0.9/24"), link.format("10.0.0.9/24"))
    assert names(found)[:2] == ["RemoveAddress", "AddAddress"]


def test_a_link_with_a_schedule_that_changes_is_made_anew() -> None:
    link = "nodes: [a, b]\nlinks: [{{ends: a-b, delay: 1ms, schedule: [{{at: {}, delay: 2ms}}]}}]\n"
    assert changes(link.format("1s"), link.format("1s")) == []
    found = changes(link.format("1s"), link.format("2s"))
    assert RemoveNode("a-b.wire") in found
    assert AddNode("a-b.wire") in found
    assert AddNode("a") not in found


def test_a_default_for_new_interfaces_is_given_to_those_that_are_there() -> None:
    new = BASE.replace("h1: ,", "h1: {sysctls: {net.ipv6.conf.default.hop_limit: 7}},")
    assert changes(BASE, new) == [
        SetSysctl("h1", f"net.ipv6.conf.{which}.hop_limit", "7") for which in ("default", "eth0")
    ]
    assert names(changes(new, BASE)) == ["ResetSysctl"] * 2


PROGRAMS = """\
processes:
  one: {node: h1, command: sleep 1}
  two: {node: h2, command: sleep 2, after: [one]}
"""


def test_programs_end_in_the_reverse_order_and_only_where_they_differ() -> None:
    old = loads(BASE + PROGRAMS)

    def change(new: Topology) -> tuple[list[str], list[str]]:
        found = processes(old, new, diff(old, new))
        return [p.name for p in found.ending], [p.name for p in found.beginning]

    assert change(old) == ([], [])
    assert change(loads(BASE)) == (["two", "one"], [])
    assert change(loads(BASE + PROGRAMS.replace("sleep 2", "sleep 3"))) == (["two"], ["two"])
    fresh = loads(BASE.replace("h1: ,", "h1: router,") + PROGRAMS)
    assert change(fresh) == ([], ["one"])  # the node that is made anew has taken it along


# -- live ------------------------------------------------------------------------------------------


def lines(operations: Any) -> str:
    text = ""
    for op in operations:
        tail = " 2>/dev/null || :" if isinstance(op, RemoveRoute | RemoveAddress) else ""
        text += "".join(shlex.join(argv) + tail + "\n" for argv in op.commands)
    return text


def state(topology: Topology, *programs: str) -> Any:
    """Run shell text in namespaces of its own; return what the kernel then holds of each node."""
    nodes = [op.node for op in build(topology).operations if isinstance(op, AddNode)]
    asks = "".join(
        f"ip -n {node} -j address; echo; ip -n {node} -j route; echo\n"
        f"ip -n {node} -6 -j route; echo\n"
        f"ip netns exec {node} sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding "
        "net.ipv6.conf.all.disable_ipv6 | tr '\\n' ' '; echo\n"
        for node in nodes
    )
    made = "{ " + "".join(programs) + "} >/dev/null\n"
    body = f"mount -t tmpfs none /run\n{made}ls /run/netns | sort | xargs\n{asks}"
    argv = ["unshare", "-mn", "sh", "-ec", body]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{body}"
    found: list[Any] = [line for line in done.stdout.splitlines() if line]
    return [json.loads(line) if line[0] == "[" else line for line in found]


def _link_local(item: Any) -> bool:
    """The kernel makes these itself, in its own time."""
    text = str(item.get("local", item.get("dst", ""))) if isinstance(item, dict) else ""
    return text.startswith(("fe80:", "ff00:"))


def plain(value: Any) -> Any:
    """Leave out what differs from one making to the next, and the order, which means nothing."""
    if isinstance(value, list):
        kept = [item for item in value if not _link_local(item)]
        return sorted((plain(item) for item in kept), key=json.dumps)
    if not isinstance(value, dict):
        return value
    passing = ("ifindex", "link_index", "link_netnsid", "operstate", "flags", "master", "qdisc")
    kept = {key: plain(part) for key, part in value.items() if key not in passing}
    kept["flags"] = [flag for flag in value.get("flags", []) if flag == "UP"]
    return kept


TUNNEL = BASE.replace("h2]", "h2, {name: in, ends: [h1, h2], tunnel: {kind: vxlan, id: 1}}]")
PAIRS = {
    "grow": (BASE, BASE.replace("h2: }", "h2: , h3: }").replace("[h1-r1", "[r1-h3, h1-r1")),
    "shrink": (BASE, "nodes: {h1: , r1: router, h2: }\nlinks: [h1-r1, r1-h2]\n"),
    "renumber": (BASE, "defaults: {addressing: {ipv4: 172.16.0.0/12, ipv6: false}}\n" + BASE),
    "back": ("defaults: {addressing: {ipv4: 172.16.0.0/12, ipv6: false}}\n" + BASE, BASE),
    "down": (BASE, BASE.replace("[h1-r1,", "[[{node: h1, up: false}, r1],")),
    "up": (BASE.replace("[h1-r1,", "[[{node: h1, up: false}, r1],"), BASE),
    "lan": (
        "nodes: {a: , b: , r: router}\nlinks: [{name: lan, ends: [a, r]}]\n",
        "nodes: {a: , b: , r: router}\nlinks: [{name: lan, ends: [a, r, b]}]\n",
    ),
    "secondary": (
        "nodes: [a, b]\nlinks: [{ends: [{node: a, address: [10.0.0.1/24, 10.0.0.9/24]}, b]}]\n",
        "nodes: [a, b]\nlinks: [{ends: [{node: a, address: [10.0.0.9/24]}, b]}]\n",
    ),
    "tunnel": (BASE, TUNNEL),
    "no tunnel": (TUNNEL, BASE),
    "another tunnel": (TUNNEL.replace("id: 1", "id: 2"), TUNNEL),
    "tunnel moved": (
        TUNNEL.replace("nodes: {", "nodes: {h0: ,").replace("[h1-", "[h0-h1, h1-"),
        TUNNEL,
    ),
    "role": (
        BASE,
        BASE.replace("r2: router", "r2: {role: router, sysctls: {net.ipv4.ip_forward: 0}}"),
    ),
}


@pytest.mark.needs("root", "netns")
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_old_and_then_the_difference_is_the_same_as_new(name: str) -> None:
    old, new = (loads(text) for text in PAIRS[name])
    changed = state(new, lines(build(old).operations), lines(diff(old, new).operations))
    built = state(new, lines(build(new).operations))
    assert plain(changed) == plain(built)


@pytest.mark.slow
@pytest.mark.needs("root", "netns")
@given(texts(connected=False), texts(connected=False))
@settings(max_examples=3)
def test_any_topology_becomes_any_other(old_text: str, new_text: str) -> None:
    old, new = loads(old_text), loads(new_text)
    changed = state(new, lines(build(old).operations), lines(diff(old, new).operations))
    assert plain(changed) == plain(state(new, lines(build(new).operations)))


def test_replacing_a_route_is_one_command() -> None:
    (op,) = [op for op in changes(*PAIRS["grow"]) if isinstance(op, ReplaceRoute)][:1] or [None]
    assert op is None or "replace" in op.commands[0]
