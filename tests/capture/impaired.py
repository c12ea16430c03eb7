"""A live capture over a bad path: two stacks with netlab's own wire between them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from netlab.engine.node import Ready
from netlab.engine.stage import open_stage
from netlab.errors import CommandError
from netlab.model.yaml import loads
from netlab.plan.backend import Backend
from netlab.recording import Recording
from tests.conftest import ROOT

TRAFFIC = ROOT / "benches" / "capture" / "traffic.py"
PATH = """
name: bad-path
nodes: [a, b]
links:
  - name: x
    ends: a-b
    delay: 4ms
    loss: 1%
    duplicate: 2%
    reorder: 4%
    rate: 60mbit
    seed: {seed}
"""


def record(folder: Path, seed: int) -> list[Path]:
    """Send a few megabytes each way over such a path; the captures of both ends.

    What is lost, doubled and overtaken is drawn from the seed; when the stacks send is not.
    """
    topology = loads(PATH.format(seed=seed))
    address = str(topology.interfaces("b")[0].addresses[0].ip)
    writer = Recording.create_at(folder / "recording", topology.name)
    with writer, open_stage(topology, writer, impair=Backend.WIRE) as stage:
        a, b = stage.node("a"), stage.node("b")
        serve = [sys.executable, str(TRAFFIC), "serve", address, "8080"]
        with (
            b.spawn("iperf", ["iperf3", "-s", "-p", "5201"], ready=Ready.port(5201)),
            b.spawn("serve", serve, ready=Ready.port(8080)),
        ):
            captures = [stage.capture("a:eth0"), stage.capture("b:eth0")]
            for more in (("-n", "3M", "-P", "2"), ("-n", "3M", "-R")):
                # The control connection may lose its last packets, too.
                with contextlib.suppress(CommandError):
                    a.run(["iperf3", "-c", address, *more], timeout=20)
            a.run([sys.executable, str(TRAFFIC), "visit", address, "8080", "100"], timeout=100)
            for capture in captures:
                capture.stop()
    return sorted((folder / "recording" / "captures").glob("*.pcap"))
