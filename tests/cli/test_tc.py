from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from netlab.cli import cli
from netlab.cli.tc import _value
from netlab.engine.live import parse
from netlab.errors import UsageError
from netlab.model.impairment import Bfifo, Codel, Episode, Impairment
from netlab.plan.episodes import episodes_of
from netlab.units import mbit, ms
from tests.cli.test_machine import netlab
from tests.conftest import ROOT
from tests.pings import assert_least_rtt

TOPOLOGY = """
name: path
nodes: {a: host, r: router, b: host}
links:
  - name: near
    ends: a-r
    delay: 10ms
    r->a: { delay: 5ms }
  - name: far
    ends: r-b
"""


def test_settings_are_read_as_in_a_topology_file() -> None:
    base = Impairment(delay=10 * ms, loss=0.01)
    assert parse({"rate": "10mbit", "queue": "codel", "loss": 0}, base) == Impairment(
        delay=10 * ms, rate=10 * mbit, queue=Codel()
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dealy": "1ms"}, "did you mean 'delay'"),
        ({"delay": "1"}, "unit"),
        ({"queue": "codel"}, "needs a rate"),
        ({"loss": "200%"}, "200%"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(settings: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse(settings)


def test_an_episode_gives_way_when_it_is_over() -> None:
    base = Impairment(delay=1 * ms)
    outage, slow = Impairment(loss=1.0), Impairment(delay=50 * ms)
    whole = Impairment(
        delay=1 * ms,
        schedule=(Episode(5, outage, 2), Episode(6, slow, 4), Episode(20, outage)),
    )
    assert episodes_of(whole) == [(5, outage), (6, slow), (10, base), (20, outage)]


def test_a_word_with_parts_is_written_as_in_a_topology_file() -> None:
    queue = _value("queue", "{kind: bfifo, limit: 64KiB}")
    assert parse({"rate": "1mbit", "queue": queue}).queue == Bfifo(65_536)
    with pytest.raises(UsageError, match="no YAML mapping"):
        _value("queue", "{kind: ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("tc", "set", "--delay", "1ms"), "which link?"),
        (("tc", "set", "wire"), "nothing to set"),
        (("tc", "set", "wire", "--delay", "1ms", "--for", "5"), "--for: '5' has no unit"),
        (("tc", "set", "wire", "--set", "slot"), "WORD=VALUE"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    result = CliRunner().invoke(cli, words)
    assert sentence in str(result.exception)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "path.yaml").write_text(TOPOLOGY)
    up = netlab(tmp_path, "up", "path.yaml")
    assert up.returncode == 0, up.stderr
    yield tmp_path
    netlab(tmp_path, "down", "--all")


def assert_rtt(folder: Path, least: float, below: float = math.inf) -> None:
    """The least round trip from a to b, in milliseconds, lies there."""
    argv = ("exec", "a", "--", "ping", "-4", "-c", "5", "-i", "0.1", "-q", "b")
    assert_least_rtt(lambda: netlab(folder, *argv).stdout, least, below)


def shown(folder: Path) -> dict[tuple[str, str], Any]:
    told = json.loads(netlab(folder, "tc", "show", "--json").stdout)
    return {(row["from"].split(":")[0], row["to"].split(":")[0]): row["now"] for row in told}


@pytest.mark.needs("uml")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_impairments_change_while_the_lab_runs(folder: Path) -> None:
    assert_rtt(folder, 15, 25)
    done = netlab(folder, "tc", "set", "near", "--delay", "30ms", "--rate", "20mbit")
    assert (done.returncode, done.stderr) == (0, "")
    assert_rtt(folder, 60, 75)
    assert shown(folder)["a", "r"] == {"delay": "30ms", "rate": "20mbit"}

    assert netlab(folder, "tc", "set", "--from", "r", "--to", "a", "--delay", "0").returncode == 0
    assert_rtt(folder, 30, 40)

    far = netlab(folder, "tc", "set", "far", "--from", "r", "--delay", "40ms")
    assert (far.returncode, far.stderr) == (0, "")
    assert_rtt(folder, 70, 85)
    own = netlab(folder, "tc", "set", "far", "--from", "b", "--delay", "1ms")
    assert "b:eth0 will impair what its own node sends" in own.stderr

    assert netlab(folder, "tc", "reset").returncode == 0
    assert_rtt(folder, 15, 25)
    assert shown(folder) == {
        ("a", "r"): {"delay": "10ms"},
        ("r", "a"): {"delay": "5ms"},
        ("r", "b"): {},
        ("b", "r"): {},
    }
    assert netlab(folder, "tc", "set", "nera", "--delay", "1ms").returncode == 2


@pytest.mark.needs("uml")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_change_for_a_while_is_taken_back(folder: Path) -> None:
    done = netlab(folder, "tc", "set", "near", "--delay", "300ms", "--for", "1h")
    assert (done.returncode, done.stderr) == (0, "")
    assert_rtt(folder, 600)
    # What is for good does not end it, and stays when it is over.
    assert netlab(folder, "tc", "set", "near", "--rate", "20mbit").returncode == 0
    (row, _) = json.loads(netlab(folder, "tc", "show", "near", "--json").stdout)
    assert row["now"] == {"delay": "300ms", "rate": "20mbit"}
    assert row["then"] == {"delay": "10ms", "rate": "20mbit"}
    # A later time takes the place of the earlier one, and it is the lab that keeps it.
    assert netlab(folder, "tc", "set", "near", "--delay", "200ms", "--for", "3s").returncode == 0
    wait_until(lambda: shown(folder)["a", "r"] == {"delay": "10ms", "rate": "20mbit"}, 100)
    assert_rtt(folder, 15, 100)
    # A reset does not wait, and nothing comes later that would undo it.
    assert netlab(folder, "tc", "set", "near", "--delay", "300ms", "--for", "1h").returncode == 0
    assert netlab(folder, "tc", "reset").returncode == 0
    assert_rtt(folder, 15, 100)
    assert shown(folder)["a", "r"] == {"delay": "10ms"}
    told = netlab(folder, "inspect", "--json").stdout
    assert not [p for p in json.loads(told)["processes"] if p["name"].startswith("tc-")]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Here:
    """The command line on this machine, with a folder for its labs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ, "NETLAB_STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT)
        }  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "netlab", *words],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out

    def near(self) -> Any:
        rows = json.loads(self.run("tc", "show", "near", "--json"))
        return next(row for row in rows if row["from"].startswith("a:"))

    def lost(self) -> bool:
        argv = ("exec", "a", "--", "sh", "-c", "ping -4 -c1 -W1 r >/dev/null || echo lost")
        return "lost" in self.run(*argv)

    def passes(self) -> bool:
        """Say whether a ping is answered; the first may meet a neighbour that was given up."""
        pings = "for n in $(seq 30); do ping -4 -c1 -W1 r >/dev/null && exit; done; echo lost"
        return "lost" not in self.run("exec", "a", "--", "sh", "-c", pings)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    (tmp_path / "path.yaml").write_text(TOPOLOGY)
    found = Here(tmp_path)
    found.run("up", "path.yaml", "--impair", "wire")
    yield found
    found.run("down", "--all")


@pytest.mark.needs("netns", "userns", "ping")
def test_a_change_of_a_wire_for_a_while_is_taken_back_by_the_wire(here: Here) -> None:
    here.run("tc", "set", "near", "--loss", "100%", "--for", "1h")
    told = here.near()
    assert told["now"] == {"delay": "10ms", "loss": "100%"}
    assert told["then"] == {"delay": "10ms"}
    assert 3000 < told["seconds_left"] < 3600
    here.run("tc", "set", "near", "--delay", "1ms")
    assert here.lost()
    here.run("tc", "set", "near", "--duplicate", "1%", "--for", "1s")
    wait_until(lambda: here.near()["then"] is None, 60)
    assert here.near()["now"] == {"delay": "1ms"}
    assert here.passes()
    here.run("tc", "set", "near", "--loss", "100%", "--for", "1h")
    here.run("tc", "reset")
    assert here.near()["seconds_left"] is None
    assert here.passes()


@pytest.mark.needs("netns", "userns", "ping")
def test_a_command_that_is_killed_leaves_no_change_for_a_while(here: Here) -> None:
    pick = Random(5)
    for _ in range(6):
        with here.start("tc", "set", "near", "--loss", "100%", "--for", "1s") as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(pick.uniform(0, 0.4))
            process.kill()
    wait_until(lambda: here.near()["now"] == {"delay": "10ms"}, 60)
    assert here.passes()
