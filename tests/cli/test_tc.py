from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
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
from tests.cli.test_machine import command, environment, netlab

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


def rtt(folder: Path) -> float:
    """The least of a few pings from a to b, in milliseconds."""
    argv = ("exec", "a", "--", "ping", "-4", "-c", "5", "-i", "0.1", "-q", "b")
    return float(netlab(folder, *argv).stdout.split("=")[-1].split("/")[0])


def shown(folder: Path) -> dict[tuple[str, str], Any]:
    told = json.loads(netlab(folder, "tc", "show", "--json").stdout)
    return {(row["from"].split(":")[0], row["to"].split(":")[0]): row["now"] for row in told}


@pytest.mark.needs("uml")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_impairments_change_while_the_lab_runs(folder: Path) -> None:
    assert 15 <= rtt(folder) < 25
    done = netlab(folder, "tc", "set", "near", "--delay", "30ms", "--rate", "20mbit")
    assert (done.returncode, done.stderr) == (0, "")
    assert 60 <= rtt(folder) < 75
    assert shown(folder)["a", "r"] == {"delay": "30ms", "rate": "20mbit"}

    assert netlab(folder, "tc", "set", "--from", "r", "--to", "a", "--delay", "0").returncode == 0
    assert 30 <= rtt(folder) < 40

    far = netlab(folder, "tc", "set", "far", "--from", "r", "--delay", "40ms")
    assert (far.returncode, far.stderr) == (0, "")
    assert 70 <= rtt(folder) < 85
    own = netlab(folder, "tc", "set", "far", "--from", "b", "--delay", "1ms")
    assert "b:eth0 will impair what its own node sends" in own.stderr

    assert netlab(folder, "tc", "reset").returncode == 0
    assert 15 <= rtt(folder) < 25
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
    for_a_while = command("tc", "set", "near", "--loss", "100%", "--for", "8s")
    with subprocess.Popen(for_a_while, cwd=folder, env=environment(folder)) as change:
        deadline = time.monotonic() + 8
        while shown(folder)["a", "r"] != {"delay": "10ms", "loss": "100%"}:
            assert time.monotonic() < deadline
        assert change.wait(60) == 0
    assert shown(folder)["a", "r"] == {"delay": "10ms"}
    assert 15 <= rtt(folder) < 25
