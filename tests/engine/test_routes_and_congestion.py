"""Congestion control and options of routes: what the file says is what the kernel does."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from netlab.engine import channel, lifecycle
from netlab.engine.change import change, difference
from netlab.engine.node import RunningNode
from netlab.engine.stage import Stage, open_stage
from netlab.engine.state import Lab
from netlab.errors import CapabilityError, OperationError
from netlab.model.yaml import loads
from netlab.plan.build import build
from netlab.plan.diff import diff
from netlab.plan.operations import CheckCongestion, Plan
from tests.engine.conftest import Notebook

pytestmark = pytest.mark.needs("netns", "userns")

TEXT = """\
nodes:
  h1:
    congestion: reno
    routes:
      - {to: 198.51.100.0/24, via: r, metric: 50, mtu: 1400, advmss: 1000,
         initcwnd: 3, initrwnd: 7, congestion: cubic}
      - {to: 198.51.100.0/24, via: r, metric: 60}
      - {to: "2001:db8:9::/48", via: r, metric: 70, initcwnd: 4}
  r: router
  h2:
links: [h1-r, r-h2]
"""
LISTEN = "import socket; s = socket.create_server(('', 9)); s.accept()[0].recv(1)"
LISTEN_IPV6 = LISTEN.replace("9))", "9), family=socket.AF_INET6)")
CONNECT = (
    "import socket, sys; s = socket.create_connection((sys.argv[1], 9)); "
    "print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b'\\0').decode())"
)


def routes(stage: Stage, node: str, family: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    told = stage.node(node).run(["ip", family, "-j", "route", "show"]).stdout
    for route in json.loads(told):
        found.setdefault(route["dst"], []).append(route)
    return found


def test_routes_read_back_as_they_were_written(notebook: Notebook, rootless: bool) -> None:
    with open_stage(loads(TEXT), notebook, rootless=rootless) as stage:
        first, second = routes(stage, "h1", "-4")["198.51.100.0/24"]
        assert (first["metric"], second["metric"]) == (50, 60)
        assert first["metrics"] == [
            {"mtu": 1400, "advmss": 1000, "initcwnd": 3, "initrwnd": 7, "congestion": "cubic"}
        ]
        assert second["metrics"] == [{"congestion": "reno"}]
        (other,) = routes(stage, "h1", "-6")["2001:db8:9::/48"]
        assert other["metric"] == 70
        assert other["metrics"] == [{"initcwnd": 4, "congestion": "reno"}]


def test_connections_of_a_node_have_its_congestion_control(
    notebook: Notebook, rootless: bool
) -> None:
    topology = loads(TEXT)
    with open_stage(topology, notebook, rootless=rootless) as stage:
        far = topology.addresses("h2")
        near = topology.interface("r", "eth0").addresses[0].ip
        for target, node in ((far[0], "h2"), (far[1], "h2"), (near, "r")):
            listener = LISTEN if target.version == 4 else LISTEN_IPV6
            with stage.node(node).spawn("listen", ["/usr/bin/python3", "-c", listener]):
                stage.until(
                    lambda node=node: ":9 " in stage.node(node).run(["ss", "-Hltn"]).stdout,
                    timeout=60,
                    what="the listener",
                )
                told = stage.node("h1").run(["/usr/bin/python3", "-c", CONNECT, str(target)])
                assert told.stdout.strip() == "reno"


def test_looking_sends_nothing(notebook: Notebook) -> None:
    with open_stage(loads(TEXT), notebook) as stage:
        counters = stage.node("h1").run(["cat", "/proc/net/snmp"]).stdout
        tcp = [line.split() for line in counters.splitlines() if line.startswith("Tcp:")]
        assert dict(zip(*tcp, strict=True))["OutSegs"] == "0"
        assert stage.node("h1").run(["ip", "-4", "neigh"]).stdout == ""


def test_a_connection_with_another_control_fails_with_the_line(notebook: Notebook) -> None:
    topology = loads(TEXT)
    operations = tuple(
        CheckCongestion(op.node, op.address, "dctcp", op.mark)
        if isinstance(op, CheckCongestion)
        else op
        for op in build(topology).operations
    )
    wanted = r":2:3: congestion control dctcp .*: the kernel kept 'reno' instead"
    with (
        pytest.raises(OperationError, match=wanted),
        open_stage(topology, notebook, plan=Plan(topology, operations)),
    ):
        pass


def test_a_control_the_kernel_lacks_is_the_machines_fault(notebook: Notebook) -> None:
    have = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()
    if "nv" in have.split():
        pytest.skip("this kernel has all of them")
    text = TEXT.replace("congestion: reno", "congestion: nv")
    with (
        pytest.raises(CapabilityError, match=r"this kernel has .*reno"),
        open_stage(loads(text), notebook),
    ):
        pass


def read_routes(lab: Lab, notebook: Notebook) -> list[str]:
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        node = RunningNode("h1", connection, notebook.file)
        return [node.run(["ip", family, "route"]).stdout for family in ("-4", "-6")]


@pytest.mark.parametrize("word", ["    congestion: cubic\n", ""], ids=["other", "none"])
def test_a_change_reaches_every_route(notebook: Notebook, word: str) -> None:
    old = loads(TEXT, "changing")
    new = loads(TEXT.replace("    congestion: reno\n", word), "changing")
    assert not diff(new, new).operations
    found: list[list[str]] = []
    for first in (old, new):
        lab, _ = lifecycle.up(first)
        try:
            change(lab, difference(lab, new))
            found.append(read_routes(lab, notebook))
        finally:
            lifecycle.down(lab)
    assert found[0] == found[1]
