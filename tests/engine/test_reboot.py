"""A node is rebooted: it forgets everything, the peers are not told, nobody else notices."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from netlab.analysis.capture import summarize
from netlab.engine import channel, lifecycle, state
from netlab.engine.change import reboot
from netlab.engine.node import Ready
from netlab.engine.stage import Stage, open_stage
from netlab.engine.state import Lab
from netlab.errors import UsageError
from netlab.model.yaml import loads
from tests.engine.conftest import Notebook
from tests.engine.kernel import nodes_of, settled_differences, state_of
from tests.engine.stream import numbered

pytestmark = pytest.mark.needs("netns", "userns", "ping", "nft", "ethtool")

PYTHON = ("/usr/bin/python3", "-I", "-S", "-u", "-c")
RICH = """
name: rich
nodes:
  h1: {congestion: reno, sysctls: {net.ipv4.tcp_sack: 0, net.ipv4.conf.eth0.arp_ignore: 1}}
  h2: {loopback: 192.0.2.7/32}
  h3: {firewall: [{action: reset, port: 79}]}
  gw: {role: nat, nat: {outside: gw-r, conntrack: {tcp_loose: 0}}}
  r: router
  s: switch
links:
  - {ends: [h1, s], mtu: 1400}
  - {name: in, ends: ["h2:in0", "r:in0"], tunnel: {kind: vxlan, family: ipv6}}
  - h2-s
  - s-gw
  - gw-r
  - {ends: [r, h3], delay: 1ms}
"""


@contextlib.contextmanager
def detached(text: str, *, rootless: bool | None = None) -> Generator[Lab]:
    lab, _ = lifecycle.up(loads(dedent(text)), rootless=rootless)
    try:
        yield lab
    finally:
        for found in state.labs():
            lifecycle.down(found)


def test_afterwards_the_kernel_holds_the_same(rootless: bool, tmp_path: Path) -> None:
    with detached(RICH, rootless=rootless) as lab:
        before = state_of(lab, tmp_path)
        for name in ("h1", "h2", "h3", "gw", "r", "s"):
            reboot(state.find(lab.id), name)
        with nodes_of(lab, tmp_path) as nodes:
            assert " 1 received" in nodes["h1"].run(["ping", "-c1", "-W5", "h3"]).stdout
        assert settled_differences(lambda: state_of(lab, tmp_path), before) == []
        old, new = lab.state["inodes"], state.find(lab.id).state["inodes"]
        assert {name for name in old if old[name] != new[name]} == {
            "h1",
            "h2",
            "h3",
            "gw",
            "r",
            "s",
        }


SERVE = """
import socket
server = socket.create_server(("", 80))
while True:
    connection, _ = server.accept()
    connection.sendall(b"hello")
    kept = connection
"""
ASK = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80), timeout=30)
print(s.recv(100).decode())
sys.stdin.readline()
try:
    s.sendall(b"anybody there?")
    print(s.recv(100))
except OSError as error:
    print(type(error).__name__)
"""
SERVED = """
name: served
nodes: {client: , server: , other: , s: switch}
links: [client-s, server-s, other-s]
processes:
  web:
    node: server
    command: [/usr/bin/python3, -I, -S, -u, -c, 'WEB']
    ready: {port: 80}
  ticker: {node: server, command: [sleep, "1000"], restart: always}
  after: {node: server, command: [sleep, "1001"], after: [web]}
  elsewhere: {node: other, command: [sleep, "1002"], after: [web]}
""".replace("'WEB'", json.dumps(SERVE))


def sockets(stage: Stage, node: str) -> str:
    return stage.node(node).run(["ss", "-tanH"]).stdout


def test_the_peer_is_left_half_open_and_then_reset(notebook: Notebook, rootless: bool) -> None:
    topology = loads(SERVED)
    address = topology.addresses("server")[0]
    read_end, write_end = os.pipe()
    with open_stage(topology, notebook, rootless=rootless) as stage:
        capture = stage.capture("client:eth0", filter="tcp")
        at_server = stage.capture("server:eth0", filter="tcp")
        client, server = stage.node("client"), stage.node("server")
        argv = [*PYTHON, ASK, str(address)]
        with client.spawn("ask", argv, stdin=read_end, ready=Ready.line("hello")) as asking:
            # Three of the handshake, the greeting and its acknowledgement; the file may come later.
            stage.until(lambda: capture.packets == 5, timeout=60, what="five packets in the file")
            server.reboot()
            assert at_server.counters is not None
            assert capture.packets == 5  # nothing was said
            assert sockets(stage, "client").split()[0] == "ESTAB"
            assert "ESTAB" not in sockets(stage, "server")
            os.write(write_end, b"\n")
            assert asking.wait(60).stdout.split() == ["hello", "ConnectionResetError"]
        assert " 1 received" in client.run(["ping", "-c1", "-W5", "server"]).stdout
        assert [kind for kind, *_ in notebook.events if "reboot" in kind] == ["reboot", "rebooted"]
    flags = [
        segment.flags
        for segment in summarize(notebook.path / "captures/client.eth0.pcap").segments()
    ]
    assert flags[-1] & 4  # RST
    assert not any(value & 5 for value in flags[:-1])  # no FIN, no RST before
    os.close(read_end)
    os.close(write_end)


def running(stage: Stage) -> dict[str, tuple[str, int]]:
    told = stage._channel.request({"do": "state"})["processes"]
    return {p["name"]: (p["node"], p["pid"]) for p in told}


def test_programs_of_the_topology_start_again_and_no_other(notebook: Notebook) -> None:
    with open_stage(loads(SERVED), notebook) as stage:
        server = stage.node("server")
        before = running(stage)
        with server.spawn("mine", ["sleep", "1003"]) as mine:
            server.reboot()
            assert not mine.alive
        after = running(stage)
        assert after.keys() == before.keys() == {"web", "ticker", "after", "elsewhere"}
        assert {name for name in after if after[name] == before[name]} == {"elsewhere"}
        server.reboot()
        assert running(stage).keys() == before.keys()


def test_a_program_that_is_about_to_start_again_does_not_start_twice() -> None:
    text = """
        nodes: [a, b]
        links: [a-b]
        processes: {quick: {node: a, command: [sh, -c, "echo began; exit 1"], restart: always}}
    """
    with detached(text) as lab:
        runs_until(lab, 0, restarts=2)  # the next one is 0.4 s away
        with contextlib.closing(channel.connect(lab.folder)) as connection:
            now = connection.request({"do": "clock"})["now_ns"]
        reboot(lab, "a")
        # Had it been started by its old wish too, its fourth run would come out of turn or early.
        runs = runs_until(lab, now, restarts=3)
        assert [run["restarts"] for run in runs] == [0, 1, 2, 3]
        assert runs[3]["started_ns"] - runs[2]["ended_ns"] >= 400_000_000


def runs_until(lab: Lab, since_ns: int, restarts: int) -> list[dict[str, Any]]:
    """Runs of the program after a time, from its first to one that is so many starts later."""
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        end = time.monotonic() + 60
        while True:
            ended = connection.request({"do": "state"})["ended"]
            found = [p for p in ended if p["started_ns"] > since_ns]
            counts = [p["restarts"] for p in found]
            if 0 in counts and restarts in counts[counts.index(0) :]:
                first = counts.index(0)
                return found[first : counts.index(restarts, first) + 1]
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_node_may_stay_off_for_a_while(notebook: Notebook) -> None:
    with open_stage(loads(SERVED), notebook) as stage:
        argv = ["ping", "-D", "-i0.05", "server"]
        with stage.node("client").spawn("ping", argv, ready=Ready.line("bytes from")) as pinging:

            def answers() -> list[float]:
                stamps = re.findall(r"^\[([\d.]+)\] .*time=.*\n", pinging.stdout, re.MULTILINE)
                return [float(stamp) for stamp in stamps]

            began = time.monotonic()
            stage.node("server").reboot(off=1.0)
            assert time.monotonic() - began >= 1.0
            back = stage.now_ns() / 1e9
            stage.until(lambda: answers()[-1] > back, timeout=60, what="an answer after it")
            pinging.signal(signal.SIGINT)
            pinging.wait(60)
            # There was a second without an answer; the last before it may have been told of late.
            assert 0.75 <= max(b - a for a, b in pairwise(answers())) < 20


def test_nobody_else_loses_a_packet(notebook: Notebook, rootless: bool) -> None:
    topology = loads(SERVED)
    address = topology.addresses("other")[0]
    with open_stage(topology, notebook, rootless=rootless) as stage:
        client, other = stage.node("client"), stage.node("other")
        with numbered(client, other, address) as stream:
            for _ in range(3):
                stage.node("server").reboot()
        assert stream.sent > 0
        assert stream.complete, f"{len(stream.arrived)} of {stream.sent}"


def test_a_hold_goes_with_the_node(notebook: Notebook) -> None:
    with open_stage(loads(SERVED), notebook) as stage:
        server = stage.node("server")
        with server.hold("tcp dport 80", hook="input"):
            server.reboot()
            assert server.run(["nft", "list", "ruleset"]).stdout == ""


def test_the_middle_of_a_link_cannot_be_rebooted(notebook: Notebook) -> None:
    with detached(RICH) as lab:
        with pytest.raises(UsageError, match="is the middle of a link"):
            reboot(lab, "r-h3.wire")
        with pytest.raises(UsageError, match="did you mean 'h1'"):
            reboot(lab, "h11")
