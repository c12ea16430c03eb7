"""What the machine disturbed runs again: alone, then slower, as far as the lab allows.

The scenario is left out: what it would have recorded is written down by the test. All else is the
real thing, processes and judging included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from netlab.analysis.evidence import Evidence
from netlab.analysis.verdict import Verdict
from netlab.labs import Lab, expect, judge, runner, slower, sysctl, vary
from netlab.labs.result import VariationResult
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.recording import Recording

FILE = """
name: pace
nodes: [a, b, c]
links:
  - {name: fast, ends: a-b, rate: 100mbit}
  - {name: uneven, ends: b-c, rate: 10mbit, c->b: {rate: 4mbit}}
  - {name: plain, ends: a-c}
"""


def made(tmp_path: Path, **more: object) -> Lab:
    folder = tmp_path / "pace"
    folder.mkdir()
    (folder / "topology.yaml").write_text(FILE)
    variations = {"one": vary(), "two": sysctl("a", "net.ipv4.tcp_sack", 0)}
    lab = Lab("Pace", variations=variations, **more)  # type: ignore[arg-type]
    lab.folder = folder

    @lab.scenario
    def play(stage: object) -> None:
        """Nothing."""

    @lab.check
    def it_says_its_pace(each: Evidence) -> Verdict:
        """The recording knows its pace."""
        return expect(each.text("a", "x")).equals(str(each.pace))

    lab.fault(sysctl("a", "net.ipv4.tcp_sack", 0), on="one", breaks=it_says_its_pace)
    return lab


Stamps = Mapping[tuple[str, int], Sequence[str]]
"""Stamps by variation and pace, in order."""


def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lab: Lab, stamps: Stamps, *, budget: float = 1
) -> tuple[list[tuple[str, int]], dict[str, VariationResult], Path]:
    """Run a lab whose recordings are stamped in turn as told, else `ok`; return what was tried."""
    diary = tmp_path / "diary"
    diary.touch()

    def attempt(it, path: Path, settings: object, say: object) -> VariationResult:
        line = f"{it.name} {it.pace}"
        before = diary.read_text().splitlines().count(line)
        with diary.open("a") as file:
            file.write(f"{line}\n")
        level = (*stamps.get((it.name, it.pace), ()), *["ok"] * 9)[before]
        reasons = () if level == "ok" else ("it was busy",)
        more = {"fidelity": level, "fidelity_reasons": reasons, "pace": it.pace}
        with Recording.create_at(path, "pace", it.name, **more) as writer:
            writer.write_text("nodes/a/x.stdout.log", str(it.pace))
            rates = [link.forward.rate for link in it.variation.change(it.topology).links]
            writer.write_text("rates", json.dumps(rates))
        return VariationResult(
            it.name, "ran", it.variation.summary, "", path.name, 0.1, level, reasons
        )

    monkeypatch.setattr(runner, "_attempt", attempt)
    result = runner.run(lab, runner.Settings(tmp_path / "results", budget=budget))
    lines = [line.split() for line in diary.read_text().splitlines()]
    found = {one.name: one for one in result.variations}
    assert all(check.verdict.outcome == "pass" for check in result.checks)
    folder = tmp_path / "results" / "pace" / result.run
    return [(name, int(pace)) for name, pace in lines], found, folder


def test_a_machine_that_keeps_up_runs_everything_once(monkeypatch, tmp_path) -> None:
    lab = made(tmp_path, alone=True, paces=(1, 2, 5))
    attempts, found, folder = run(monkeypatch, tmp_path, lab, {})
    assert sorted(attempts) == [("one", 1), ("two", 1)]
    assert found["one"].summary == "nothing changed"
    assert json.loads((folder / "one/rates").read_text()) == [100e6, 10e6, 0]


@pytest.mark.parametrize("level", ["suspect", "invalid"])
def test_one_that_does_not_goes_slower_and_stays_so(monkeypatch, tmp_path, level: str) -> None:
    lab = made(tmp_path, alone=True, paces=(1, 2, 5, 10))
    stamps = {("one", 1): [level], ("two", 2): [level]}
    attempts, found, folder = run(monkeypatch, tmp_path, lab, stamps)
    assert attempts == [("one", 1), ("two", 2), ("one", 5), ("two", 5)]
    assert {one.fidelity for one in found.values()} == {"ok"}
    assert json.loads((folder / "one/rates").read_text()) == [20e6, 2e6, 0]
    assert Recording.open(folder / "two").manifest.pace == 5
    summary = "rate of every link divided by 5, net.ipv4.tcp_sack=0 on a"
    assert found["two"].summary == summary
    (offline,) = (v for v in judge.check_run(lab, folder).variations if v.name == "two")
    assert offline.summary == summary


def test_the_slowest_pace_is_kept_with_its_stamp(monkeypatch, tmp_path) -> None:
    lab = made(tmp_path, alone=True, paces=(1, 2))
    bad = ["suspect"]
    stamps = {("one", 1): bad, ("one", 2): bad, ("two", 2): bad}
    attempts, found, _ = run(monkeypatch, tmp_path, lab, stamps)
    assert attempts == [("one", 1), ("two", 2), ("one", 2)]
    assert {one.fidelity for one in found.values()} == {"suspect"}


def test_a_lab_without_paces_is_disturbed_once(monkeypatch, tmp_path) -> None:
    lab = made(tmp_path, alone=True)
    attempts, found, _ = run(monkeypatch, tmp_path, lab, {("one", 1): ["suspect"]})
    assert sorted(attempts) == [("one", 1), ("two", 1)]
    assert found["one"].fidelity == "suspect"


def test_what_ran_beside_another_runs_alone_before_it_runs_slower(monkeypatch, tmp_path) -> None:
    lab = made(tmp_path, paces=(1, 2))
    stamps = {("one", 1): ["suspect"]}
    attempts, found, _ = run(monkeypatch, tmp_path, lab, stamps, budget=2)
    assert sorted(attempts) == [("one", 1), ("one", 1), ("two", 1)]
    assert found["one"].fidelity == "ok"


def test_slower_divides_both_directions_of_one_link_or_of_all() -> None:
    def rates(topology: Topology) -> list[tuple[float, float]]:
        return [(link.forward.rate, link.backward.rate) for link in topology.links]

    topology = loads(FILE)
    assert rates(slower(5).change(topology)) == [(20e6, 20e6), (2e6, 0.8e6), (0, 0)]
    assert rates(slower(5, "fast").change(topology)) == [(20e6, 20e6), (10e6, 4e6), (0, 0)]
