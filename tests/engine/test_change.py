"""`apply`: a changed lab is the same as one built so, and what stays is not disturbed."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from textwrap import dedent

import pytest

from netlab.engine import lifecycle, state
from netlab.engine.change import change, difference
from netlab.engine.live import change as shape
from netlab.engine.live import directions, wish
from netlab.engine.state import Lab
from netlab.errors import EngineError, OperationError
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from tests.engine import generated as networks
from tests.engine.kernel import nodes_of, programs_of, settled_differences, state_of
from tests.engine.stream import numbered

pytestmark = pytest.mark.needs("netns", "userns", "ping", "nft", "ethtool")

FILES = {
    "star": """
        nodes: { a: { role: router }, b: {}, c: {} }
        links: [a-b, a-c]
    """,
    "row": """
        nodes: { a: { role: router }, b: {}, d: {}, e: { role: router } }
        links: [a-b, a-e, e-d]
        processes:
          idle: { node: b, command: [sleep, "1001"] }
    """,
    "lan": """
        nodes: { a: { role: router }, b: {}, c: {}, s: { role: switch } }
        links: [a-b, a-s, s-c]
        processes:
          idle: { node: b, command: [sleep, "1002"] }
          also: { node: c, command: [sleep, "1003"], after: [idle] }
    """,
    "tuned": """
        nodes:
          a: { role: router, sysctls: { net.ipv4.ip_default_ttl: 99 } }
          b: { sysctls: { net.ipv4.tcp_fin_timeout: 7 } }
          c: { firewall: [{ action: reset, port: 79 }], congestion: reno }
        links:
          - a-b
          - { ends: [a, c], mtu: 1400 }
          - { name: in, ends: ["b:in0", "c:in0"], tunnel: vxlan }
    """,
    "slow": """
        nodes: { a: { role: nat, nat: { outside: a-c } }, b: {}, c: {} }
        links: [a-b, { ends: [a, c], delay: 3ms, rate: 10mbit }]
        processes:
          idle: { node: c, command: [sleep, "1001"] }
    """,
    "empty": "nodes: { z: {} }",
}


def topology(name: str) -> Topology:
    return loads(f"name: changing\n{dedent(FILES[name])}", f"{name}.yaml")


@pytest.fixture(autouse=True)
def no_lab_stays() -> Generator[None]:
    yield
    for running in state.labs():
        lifecycle.down(running)


def become(wanted: Topology, lab: str = "changing") -> Lab:
    found = state.find(lab)
    change(found, difference(found, wanted))
    return state.find(lab)


def walk(topologies: list[Topology], order: list[int], folder: Path, *, rootless: bool) -> int:
    """Turn a lab into one topology after the other, each compared with a lab built so."""
    fresh: dict[int, Lab] = {}
    for number in dict.fromkeys(order):
        fresh[number], _ = lifecycle.up(topologies[number], name=f"f{number}", rootless=rootless)
    lifecycle.up(topologies[order[0]], rootless=rootless)
    for before, after in pairwise(order):
        changed = become(topologies[after])
        one, other = (partial(state_of, lab, folder) for lab in (changed, fresh[after]))
        assert settled_differences(one, other) == [], f"{before} to {after}"
        assert programs_of(changed) == programs_of(fresh[after]), f"{before} to {after}"
        assert not difference(changed, topologies[after])
    _, again = lifecycle.up(topologies[order[-1]], rootless=rootless)
    assert not again
    return len(order) - 1


def test_a_changed_lab_is_as_one_built_so(tmp_path: Path) -> None:
    files = [topology(name) for name in FILES]
    count = len(files)
    # From each to each: 0 1 0 2 0 … 5 0, 1 2 1 …
    order = [k for i in range(count) for j in range(i + 1, count + 1) for k in (i, j)]
    order = [k for k in order if k < count]
    assert {(a, b) for a in range(count) for b in range(count) if a != b} <= set(pairwise(order))
    walk(files, order, tmp_path, rootless=os.geteuid() != 0)


def test_any_topology_becomes_any_other(tmp_path: Path, rootless: bool) -> None:
    random = Random(f"from one to another, rootless: {rootless}")
    topologies = [loads(networks.text(random), "generated.yaml") for _ in range(11)]
    assert walk(topologies, list(range(11)), tmp_path, rootless=rootless) == 10


def test_links_that_stay_lose_no_packet(tmp_path: Path, rootless: bool) -> None:
    first = topology("star")
    lab, _ = lifecycle.up(first, rootless=rootless)
    with nodes_of(lab, tmp_path) as nodes:
        address = first.interface("a", "eth0").addresses[0].ip
        with numbered(nodes["b"], nodes["a"], address) as stream:
            for name in ("row", "lan", "star", "row", "tuned"):
                become(topology(name))
                target = {"row": "d", "lan": "c", "star": "c", "tuned": "c"}[name]
                assert " 1 received" in nodes["b"].run(["ping", "-c1", "-W3", target]).stdout
    assert stream.sent > 100
    assert stream.complete, f"{len(stream.arrived)} of {stream.sent}"


def test_a_node_that_goes_takes_its_programs_along(tmp_path: Path) -> None:
    lab, _ = lifecycle.up(topology("star"))
    with nodes_of(lab, tmp_path) as nodes:
        running = nodes["c"].spawn("sleeper", ["sleep", "1000"])
        become(topology("row"))
        assert running.wait(60).status == -9
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


PROGRAMS = """
nodes: [a, b]
links: [a-b]
processes:
  kept: { node: a, command: [sleep, "1001"] }
  other: { node: a, command: [sh, -c, "echo ARGUMENT; exec sleep 1002"], ready: { line: ARGUMENT } }
  failing: { node: b, command: [sh, -c, "exit 1"], restart: always }
"""


def pids(lab: Lab) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in lifecycle.inspect(lab.id)["processes"]}


def test_only_programs_that_differ_start_again() -> None:
    lab, _ = lifecycle.up(loads(f"name: changing\n{PROGRAMS}"))
    before = pids(lab)
    other = PROGRAMS.replace("ARGUMENT", "ELSE").replace("restart: always", 'restart: "no"')
    lab = become(loads(f"name: changing\n{other}"))
    after = pids(lab)
    assert before["kept"] == after["kept"]
    assert before["other"] != after["other"]
    assert (lab.path / "logs/a/other.stdout.log").read_text() == "ARGUMENT\nELSE\n"
    # The one that was started again and again has been started once more, for good.
    ended = lifecycle.inspect(lab.id)["ended"]
    count = sum(p["name"] == "failing" for p in ended)
    time.sleep(0.5)  # it would have begun in less
    ended = lifecycle.inspect(lab.id)["ended"]
    assert sum(p["name"] == "failing" for p in ended) <= count + 1


def test_what_was_changed_by_hand_is_changed_back(tmp_path: Path) -> None:
    wanted = topology("slow")
    lab, _ = lifecycle.up(wanted)
    before = state_of(lab, tmp_path)
    (direction, *_) = directions(lab)
    shape(lab, [wish(direction, {"delay": "9ms"})])
    lab = state.find("changing")
    assert difference(lab, wanted)
    lab = become(wanted)
    assert settled_differences(lambda: state_of(lab, tmp_path), before) == []
    assert not difference(lab, wanted)


def test_what_the_kernel_refuses_leaves_the_lab_as_it_was(tmp_path: Path) -> None:
    lab, _ = lifecycle.up(topology("star"))
    before = state_of(lab, tmp_path)
    wrong = FILES["row"].replace("d: {}", "d: { sysctls: { net.ipv4.nonesuch: 1 } }")
    with pytest.raises(OperationError, match="has no such setting"):
        become(loads(f"name: changing\n{dedent(wrong)}"))
    assert [found.id for found in state.labs()] == ["changing"]
    lab = state.find("changing")
    assert settled_differences(lambda: state_of(lab, tmp_path), before) == []
    become(topology("row"))


def test_a_schedule_that_differs_makes_the_link_anew(tmp_path: Path) -> None:
    link = "{ends: a-b, delay: 1ms, schedule: [{at: %s, delay: 7ms}]}"
    text = f"name: changing\nnodes: [a, b]\nlinks: [{link}]"
    lab, _ = lifecycle.up(loads(text % "1000s"))
    lab = become(loads(text % "100ms"))
    with nodes_of(lab, tmp_path) as nodes:
        end = time.monotonic() + 60
        while float(nodes["a"].run(["ping", "-c1", "b"]).stdout.split("time=")[1].split()[0]) < 14:
            assert time.monotonic() < end
    assert difference(lab, loads(text % "100ms")).plan.operations == ()


def test_a_change_that_was_cut_short_is_told() -> None:
    lab, _ = lifecycle.up(topology("star"))
    (lab.path / "torn").touch()
    with pytest.raises(EngineError, match="did not come to its end; `netlab down changing`"):
        become(topology("row"))
