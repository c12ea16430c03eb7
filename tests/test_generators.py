"""Programs that forge packets run inside labs alone, and each of them is known here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

AGENTS = ROOT / "netlab" / "agents"
WIRE = '{"version": 1, "links": [{"name": "x", "a": {"packet": "lo"}, "b": {"packet": "lo"}}]}'
SEND = ("send", "--source", "127.0.0.1", "--destination", "127.0.0.1")
# What forges packets, and how it is asked to do so on the loopback. Other raw sockets of ours speak
# netlink.
HERE = f"net:[{Path('/proc/self/ns/net').stat().st_ino}]"
PROBES = json.dumps({"ends": [{"namespace": HERE}], "ways": [], "afterwards": []})
FORGERS = {
    "netlab/agents/injector.py": ("-I", "-S", str(AGENTS / "injector.py"), *SEND),
    "netlab/agents/calibrate.py": ("-I", "-S", str(AGENTS / "calibrate.py")),
    "crates/netlab-wire": ("-m", "netlab.engine.wire_main", WIRE),
}
RAW = re.compile(r"AF_PACKET|socket\.(?:socket|AF_INET6?)[^\n]*SOCK_RAW")
NETLINK = re.compile(r"AF_NETLINK[^\n]*SOCK_RAW")


def forges(text: str) -> bool:
    return any(RAW.search(line) and not NETLINK.search(line) for line in text.splitlines())


def test_no_other_program_of_ours_opens_raw_or_packet_sockets() -> None:
    folders = (AGENTS, ROOT / "labs", ROOT / "netlab" / "labs", ROOT / "netlab" / "engine")
    found = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in folder.rglob("*.py")
        if forges(path.read_text())
    }
    # The doctor asks whether packet sockets can be had, in a throw-away lab, and sends nothing.
    doctor = "netlab/engine/diagnosis.py"
    assert found == {name for name in FORGERS if name.endswith(".py")} | {doctor}


@pytest.mark.parametrize("program", FORGERS)
@pytest.mark.parametrize("told", [True, False], ids=["told", "by-itself"])
def test_each_refuses_the_machines_own_namespace(program: str, told: bool) -> None:
    env = {key: value for key, value in os.environ.items() if key != "NETLAB_MACHINE_NETNS"}
    if told:
        env["NETLAB_MACHINE_NETNS"] = str(Path("/proc/self/ns/net").stat().st_ino)
    done = subprocess.run(
        [sys.executable, *FORGERS[program]],
        cwd=ROOT, env=env, input=PROBES, capture_output=True, text=True,
        timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode not in (0, None)
    assert "namespace" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
