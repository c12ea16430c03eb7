"""Many nodes in one lab, and many labs at once."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest

from netlab.engine import channel, execute, lifecycle, state
from netlab.engine.stage import open_stage
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.plan.build import build
from tests.engine.conftest import Notebook
from tests.engine.leftovers import footprint, remains
from tests.engine.networks import two_hosts

pytestmark = pytest.mark.needs("netns", "userns", "ping")


def tree(size: int, fanout: int = 4) -> Topology:
    parents = {(number - 1) // fanout for number in range(1, size)}
    lines = ["name: tree", "nodes:"]
    lines += [f"  n{n}: {{ role: {'router' if n in parents else 'host'} }}" for n in range(size)]
    lines += ["links:", *(f"  - n{(n - 1) // fanout}-n{n}" for n in range(1, size))]
    return loads("\n".join(lines), "tree.yaml")


@pytest.mark.slow
def test_a_thousand_nodes_reach_each_other_and_go(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    topology = tree(1000)
    plan = build(topology)
    generator = random.Random(7)
    # The kernel's neighbour tables hold 1024 entries for all namespaces together (gc_thresh3), so
    # not every path of so large a network can be in use within the same five seconds.
    chosen = generator.sample(range(1000), 30)
    began = time.monotonic()
    with open_stage(topology, notebook, plan=plan) as stage:
        took = time.monotonic() - began
        (lab,) = state.labs()
        taken = footprint(lab.pid, lab.path)
        assert len(taken.namespaces) >= 1000
        status = Path(f"/proc/{lab.pid}/status").read_text()
        memory = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024
        for number in range(200):
            source, target = generator.sample(chosen, 2)
            version = "-4" if number % 2 else "-6"
            argv = ["ping", version, "-c1", "-W5", f"n{target}"]
            assert " 1 received" in stage.node(f"n{source}").run(argv, timeout=20).stdout
    assert remains(taken) == []
    assert memory <= 60
    with capsys.disabled():
        print(f"\n1000 nodes up in {took:.2f} s, supervisor {memory:.0f} MiB, 200 pings answered")


def test_twenty_labs_at_once_from_one_file(rootless: bool) -> None:
    topology = two_hosts()
    plan = build(topology)
    children: list[int] = []
    for number in range(20):
        pid = os.fork()
        if pid == 0:
            try:
                lifecycle.up(topology, plan=plan, name=f"lab{number}", rootless=rootless)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 20
    labs = state.labs()
    try:
        assert len(labs) == 20
        inodes: set[int] = set()
        for lab in labs:
            connection = channel.connect(lab.folder)
            wanted = execute.Command("h1", ("ping", "-c1", "-W3", "-q", "h2"), dict(os.environ))
            null = os.open(os.devnull, os.O_RDWR)
            assert execute.start(connection, wanted, (null,) * 3) == 0
            os.close(null)
            event = connection.event(execute.TAG, ("exit",), 60)
            assert event is not None
            assert event["status"] == 0
            connection.close()
            inodes.update(lab.state["inodes"].values())
        assert len(inodes) == 40
        taken = [footprint(lab.pid, lab.path) for lab in labs]
    finally:
        for lab in labs:
            lifecycle.down(lab)
    assert [remains(each) for each in taken] == [[]] * 20
    assert list(state.directories()) == []


def test_only_one_of_many_who_build_the_same_lab_builds_it(rootless: bool) -> None:
    topology = two_hosts()
    plan = build(topology)
    children: list[int] = []
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            try:
                _, fresh = lifecycle.up(topology, plan=plan, rootless=rootless)
                os._exit(10 if fresh else 11)
            finally:
                os._exit(1)
        children.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    (lab,) = state.labs()
    lifecycle.down(lab)
    assert sorted(statuses) == [10, 11, 11, 11, 11]
