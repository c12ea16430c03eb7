"""`netlab compare`: text and JSON, exit codes, series of repetitions."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from netlab.labs import chance, discovery, judge
from tests.cli import called
from tests.conftest import ROOT

KEPT = ROOT / "labs" / "sack" / "recording"
SMALL = ROOT / "labs" / "half-close" / "recording"


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return called.netlab("compare", *arguments)


def test_two_variations_are_compared_segment_by_segment() -> None:
    done = compare(KEPT / "sack", KEPT / "no-sack")
    assert done.returncode == 0, done.stderr
    assert "sack against no-sack" in done.stdout
    assert "client: net.ipv4.tcp_sack  1 -> 0" in done.stdout
    assert "client:eth0, connection 0: 0 segments are alike, then" in done.stdout
    assert "mss=1460 sack wscale=" in done.stdout


def test_a_run_and_itself_differ_in_nothing() -> None:
    done = compare(SMALL, SMALL, "--exit-code", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["differs"] is False
    assert {pair["left"] for pair in found["pairs"]} == {*discovery.find("half-close").variations}
    assert compare(KEPT / "sack", KEPT / "no-sack", "--exit-code").returncode == 1


@pytest.fixture
def series(tmp_path: Path) -> Path:
    path = tmp_path / "half-close" / "20260101T000000Z"
    results = []
    for number in ("01", "02"):
        shutil.copytree(SMALL, path / number)
        results.append(judge.check_run(discovery.find("half-close"), path / number))
    names = [f"{path.name}/{number}" for number in ("01", "02")]
    record = json.loads(chance.as_json("half-close", 7, results))
    (path / chance.FILE).write_text(json.dumps({**record, "runs": names}))
    return path


def test_repetitions_are_told_with_intervals(series: Path) -> None:
    done = compare(series, SMALL)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 pass" in done.stdout
    found = json.loads(compare(series, series, "--json").stdout)
    spreads = [check["left"]["spread"] for check in found["checks"] if check["left"]["spread"]]
    assert spreads
    assert {spread["count"] for spread in spreads} == {2}


@pytest.mark.parametrize(
    ("right", "says"),
    [
        ("labs/teardown/recording", "is a run of sack, labs/teardown/recording of teardown"),
        ("nowhere", "there is no recording at nowhere"),
        ("README.md", "README.md"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_and_2(right: str, says: str) -> None:
    done = compare(KEPT, right)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_damaged_series_is_refused(series: Path) -> None:
    (series / chance.FILE).write_text("{")
    done = compare(series, SMALL)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
