"""`apply`: a changed lab is the same as one built so, and what stays is not disturbed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from itertools import permutations
from textwrap import dedent

import pytest

from netlab.engine import channel, lifecycle, state
from netlab.engine.change import change, difference
from netlab.engine.node import Ready, RunningNode
from netlab.engine.state import Lab
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from tests.engine.conftest import Notebook

pytestmark = pytest.mark.needs("netns", "userns", "ping")

FILES = {
    "star": """
        nodes: { a: { role: router }, b: {}, c: {} }
        links: [a-b, a-c]
    """,
    "row": """
        nodes: { a: { role: router }, b: {}, d: {}, e: { role: router } }
        links: [a-b, a-e, e-d]
    """,
    "lan": """
        nodes: { a: { role: router }, b: {}, c: {}, s: { role: switch } }
        links: [a-b, a-s, s-c]
    """,
    "tuned": """
        nodes:
          a: { role: router, sysctls: { net.ipv4.ip_default_ttl: 99 } }
          b: { sysctls: { net.ipv4.tcp_fin_timeout: 7 } }
          c: {}
        links: [a-b, { ends: [a, c], mtu: 1400 }]
    """,
    "slow": """
        nodes: { a: { role: router }, b: {}, c: {} }
        links: [{ ends: [a, b], delay: 1ms, loss: 1% }, { ends: [a, c], delay: 2ms }]
    """,
    "slower": """
        nodes: { a: { role: router }, b: {}, c: {} }
        links: [{ ends: [a, b], delay: 3ms, mtu: 1400 }, { ends: [a, c], delay: 2ms }]
    """,
    "empty": "nodes: { z: {} }",
}
SYSCTLS = ("net.ipv4.ip_default_ttl", "net.ipv4.tcp_fin_timeout", "net.ipv4.ip_forward")
NOISE = {
    "ifindex", "link_index", "link_netnsid", "valid_life_time", "preferred_life_time", "txqlen",
    "operstate", "linkinfo", "parentbus", "parentdev", "num_tx_queues", "num_rx_queues",
    "cacheinfo", "master_index", "tentative", "flags", "link",
}  # fmt: skip


def topology(name: str) -> Topology:
    return loads(f"name: changing\n{dedent(FILES[name])}", f"{name}.yaml")


@contextlib.contextmanager
def nodes_of(lab: Lab, notebook: Notebook) -> Generator[dict[str, RunningNode]]:
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        yield {name: RunningNode(name, connection, notebook.file) for name in lab.nodes}


def cleaned(value: object) -> object:
    if isinstance(value, dict):
        return {key: cleaned(item) for key, item in value.items() if key not in NOISE}
    if isinstance(value, list):
        return sorted((cleaned(item) for item in value), key=lambda item: json.dumps(item))
    return value


def kernel_state(lab: Lab, notebook: Notebook) -> dict[str, object]:
    """What the kernel has in each node, without numbers that differ from lab to lab."""
    found: dict[str, object] = {}
    with nodes_of(lab, notebook) as nodes:
        for name, node in nodes.items():
            parts = {
                what: cleaned(json.loads(node.run(["ip", "-j", *what.split()]).stdout or "[]"))
                for what in ("-d address", "-4 route show table all", "-6 route show table main")
            }
            values = node.run(["sysctl", *SYSCTLS]).stdout.splitlines()
            found[name] = {**parts, "sysctls": values}
    return found


@pytest.mark.parametrize(("before", "after"), list(permutations(FILES, 2)))
def test_a_changed_lab_is_as_one_built_so(before: str, after: str, notebook: Notebook) -> None:
    wanted = topology(after)
    try:
        fresh, _ = lifecycle.up(wanted, name="fresh")
        lab, _ = lifecycle.up(topology(before), name="changing")
        change(lab, wanted, difference(lab, wanted))
        changed = state.find("changing")
        assert kernel_state(changed, notebook) == kernel_state(fresh, notebook)
        assert changed.nodes.keys() == fresh.nodes.keys()
        assert difference(changed, wanted).operations == ()
        _, again = lifecycle.up(wanted, name="changing")
        assert not again
    finally:
        for running in state.labs():
            lifecycle.down(running)


def test_links_that_stay_lose_no_packet(notebook: Notebook) -> None:
    lab, _ = lifecycle.up(topology("star"), name="changing")
    try:
        ready = Ready.line("bytes from")
        argv = ["ping", "-i", "0.005", "-c", "300", "a"]
        with (
            nodes_of(lab, notebook) as nodes,
            nodes["b"].spawn("stream", argv, ready=ready) as stream,
        ):
            for name in ("row", "lan", "star", "row"):
                wanted = topology(name)
                lab = state.find("changing")
                change(lab, wanted, difference(lab, wanted))
                target = {"row": "d", "lan": "c", "star": "c"}[name]
                assert " 1 received" in nodes["b"].run(["ping", "-c1", "-W3", target]).stdout
            told = stream.wait(30).stdout
        assert "300 packets transmitted, 300 received" in told
    finally:
        lifecycle.down(state.find("changing"))


def test_a_node_that_goes_takes_its_programs_along(notebook: Notebook) -> None:
    lab, _ = lifecycle.up(topology("star"), name="changing")
    try:
        with nodes_of(lab, notebook) as nodes:
            running = nodes["c"].spawn("sleeper", ["sleep", "1000"])
            wanted = topology("row")
            change(lab, wanted, difference(lab, wanted))
            assert running.wait(5).status == -9
        with pytest.raises(ProcessLookupError):
            os.kill(running.pid, 0)
    finally:
        lifecycle.down(state.find("changing"))
