"""A lab that stays up on the userspace wire: shown, changed without a loss, and its sudden end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_machine import environment
from tests.pings import assert_least_rtt

pytestmark = pytest.mark.needs("netns", "userns")

TOPOLOGY = "name: two\nnodes: [a, b]\nlinks: [{name: x, ends: a-b, WORDS}]\n"
LINK = ("ip", "-d", "-j", "link", "show", "eth0")


def netlab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "netlab", *words],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def write(folder: Path, words: str) -> None:
    (folder / "two.yaml").write_text(TOPOLOGY.replace("WORDS", words))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write(tmp_path, "delay: 9ms")
    up = netlab(tmp_path, "up", "two.yaml", "--impair", "wire")
    assert up.returncode == 0, up.stderr
    yield tmp_path
    netlab(tmp_path, "down", "--all")


def shown(folder: Path) -> list[dict[str, Any]]:
    done = netlab(folder, "tc", "show", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def assert_rtt(folder: Path, least: float, below: float) -> None:
    argv = ("exec", "a", "--", "ping", "-4", "-c", "4", "-i", "0.1", "-q", "b")
    assert_least_rtt(lambda: netlab(folder, *argv).stdout, least, below)


@pytest.mark.needs("ping")
def test_a_change_takes_hold_and_loses_nothing(folder: Path) -> None:
    assert_rtt(folder, 18, 25)
    flood = ["ping", "-4", "-c", "300", "-i", "0.01", "-q", "b"]
    argv = [sys.executable, "-m", "netlab", "exec", "a", "--", *flood]
    with subprocess.Popen(
        argv, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    ) as pings:
        for delay in ("30ms", "5ms"):
            assert netlab(folder, "tc", "set", "x", "--delay", delay).returncode == 0
        told = pings.communicate(timeout=120)[0]
    assert " 300 received" in told
    assert_rtt(folder, 10, 17)
    forth = shown(folder)[0]
    assert (forth["backend"], forth["now"], forth["asked"]) == (
        "wire",
        {"delay": "5ms"},
        {"delay": "9ms"},
    )
    assert forth["counters"]["delivered_packets"] >= 300
    assert netlab(folder, "tc", "set", "--from", "b", "--delay", "40ms").returncode == 0
    assert_rtt(folder, 45, 55)
    assert netlab(folder, "tc", "reset").returncode == 0
    assert_rtt(folder, 18, 25)


@pytest.mark.needs("ping")
def test_apply_changes_the_wire_that_runs(folder: Path) -> None:
    write(folder, "delay: 20ms")
    done = netlab(folder, "apply", "two.yaml")
    assert done.returncode == 0, done.stderr
    assert_rtt(folder, 40, 47)
    write(folder, "delay: 1ms, limit: 20000")
    assert netlab(folder, "apply", "two.yaml").returncode == 0
    (link,) = json.loads(netlab(folder, "exec", "a", "--", *LINK).stdout)
    assert link["txqlen"] == (20_000 if link["linkinfo"]["info_kind"] == "tun" else 1000)
    write(folder, "mtu: 1500")
    assert netlab(folder, "apply", "two.yaml").returncode == 0
    assert_rtt(folder, 0, 5)
    write(folder, "delay: 9ms")
    assert netlab(folder, "apply", "two.yaml").returncode == 0
    assert_rtt(folder, 18, 25)


def test_what_the_wire_cannot_do_is_refused_and_what_held_holds(folder: Path) -> None:
    done = netlab(folder, "tc", "set", "x", "--rate", "1mbit", "--queue", "fq")
    assert (done.returncode, "no queue 'fq'" in done.stderr) == (2, True)
    assert shown(folder)[0]["now"] == {"delay": "9ms"}


def test_a_wire_that_ended_is_told_of(folder: Path) -> None:
    assert json.loads(netlab(folder, "status", "--json").stdout)[0]["broken"] == []
    (wire,) = json.loads(netlab(folder, "inspect", "--json").stdout)["processes"]
    os.kill(wire["pid"], signal.SIGKILL)
    end = time.monotonic() + 60
    while not json.loads(netlab(folder, "status", "--json").stdout)[0]["broken"]:
        assert time.monotonic() < end
    assert "the wire of link 'x' has ended" in netlab(folder, "status").stderr
    done = netlab(folder, "tc", "set", "x", "--delay", "1ms")
    assert (done.returncode, "the wire of link 'x' is gone" in done.stderr) == (5, True)
    assert netlab(folder, "down").returncode == 0
    assert not [path for path in (folder / "state").glob("*") if path.name == "two"]
