from __future__ import annotations

import pytest

from netlab.errors import TopologyError
from netlab.model.dump import dump
from netlab.model.topology import Topology
from netlab.model.yaml import loads

TEXT = """
defaults:
  addressing: { allocate: order, ipv6: false }
  nodes: { routing: ospf }
nodes:
  h:
  r1: router
  r2: { role: router, loopback: 192.0.2.2/32 }
  r3: router
links:
  - h-r1
  - r1-r2
  - { name: lan, ends: [r2, r3, h] }
"""


def configuration(topology: Topology, router: str) -> str:
    (found,) = (p for p in topology.processes if p.node == router)
    return dict(found.env)["BIRD"]


def test_routers_run_bird_and_have_no_routes_of_ours_hosts_have() -> None:
    topology = loads(TEXT)
    assert [(p.name, p.node, p.needs) for p in topology.processes] == [
        ("ospf-r1", "r1", ("bird",)),
        ("ospf-r2", "r2", ("bird",)),
        ("ospf-r3", "r3", ("bird",)),
    ]
    assert [node.name for node in topology.nodes if node.routes] == ["h"]


def test_each_interface_takes_part_as_what_is_at_its_other_ends() -> None:
    text = configuration(loads(TEXT), "r2")
    assert "router id 10.0.1.2;" in text
    assert 'interface "eth0" { type ptp; cost 10; hello 1;' in text
    assert 'interface "eth1" { type broadcast; cost 10; hello 1;' in text
    assert "stubnet 192.0.2.2/32 { cost 0; };" in text
    assert "v3" not in text
    assert 'interface "eth0" { stub yes; cost 10; }' in configuration(loads(TEXT), "r1")


def test_ready_is_who_knows_every_subnet_at_its_shortest_distance() -> None:
    (first,) = (p for p in loads(TEXT).processes if p.node == "r1")
    assert first.ready is not None
    assert first.ready.command is not None
    # h-r1 and r1-r2 at 10 each, the LAN at 20, the loopback of r2 at 10.
    assert "n < 4 || s > 50" in first.ready.command[-1]


def test_what_is_dumped_runs_the_same_daemons() -> None:
    topology = loads(TEXT)
    again = loads(dump(topology), topology.name)
    assert again == topology


def test_the_name_of_a_daemon_is_taken() -> None:
    with pytest.raises(TopologyError, match="process 'ospf-r1' has the name of a routing daemon"):
        loads(TEXT + "processes: { ospf-r1: { node: h, command: [true] } }\n")


def test_a_process_may_come_after_the_routes_are_there() -> None:
    text = TEXT + "processes: { probe: { node: h, command: [id], after: [ospf-r1] } }\n"
    assert loads(text).processes[-1].after == ("ospf-r1",)
