"""Repetitions: seeds that follow from one, medians with honest intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median

import pytest

from netlab.analysis.verdict import Outcome, Verdict
from netlab.labs import chance, delay, impair
from netlab.labs.result import CheckResult, LabResult
from netlab.model.impairment import Impairment
from netlab.model.yaml import load
from netlab.units import ms
from tests.conftest import ROOT

TOPOLOGY = load(ROOT / "labs" / "sack" / "topology.yaml")


def test_seeds_follow_from_seed_repetition_and_direction() -> None:
    seeds = {chance.derived(s, r, n) for s in (1, 2) for r in (1, 2) for n in ("a", "b")}
    assert len(seeds) == 8
    assert chance.derived(1, 2, "a") == chance.derived(1, 2, "a")
    assert all(0 <= seed < 1 << 32 for seed in seeds)


def test_only_directions_with_chance_get_a_seed() -> None:
    lossy = impair("far", forward=Impairment(loss=0.01)).change(TOPOLOGY)
    changed, seeds = chance.seeded(lossy, 7, 1)
    assert list(seeds) == ["far:forward"]
    assert changed.link("far").forward.seed == seeds["far:forward"]
    assert changed.link("far").backward.seed is None
    delayed = delay("far", 5 * ms).change(TOPOLOGY)
    assert chance.seeded(delayed, 7, 1) == (delayed, {})


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # k of the order statistics for n = 6, 9, 12, 20 as in tables of the sign test at 95 %.
    [(5, 1, 5), (6, 1, 6), (8, 1, 8), (9, 2, 8), (12, 3, 10), (20, 6, 15)],
)
def test_the_interval_is_that_of_the_tables(count: int, low: int, high: int) -> None:
    found = chance.spread(range(1, count + 1))
    assert (found.low, found.high) == (low, high)
    assert (found.level >= 0.95) is (count >= 6)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    draw = Random(11)
    series = [chance.spread([draw.expovariate(1) for _ in range(9)]) for _ in range(2000)]
    truth = 0.6931471805599453  # ln 2
    held = sum(s.low <= truth <= s.high for s in series) / len(series)
    # The level for 9 values is 0.961; three standard deviations of 2000 trials are 0.013.
    assert held == pytest.approx(series[0].level, abs=0.013)


def test_one_value_is_its_own_median() -> None:
    assert chance.spread([4.0]) == chance.Spread(4.0, 4.0, 4.0, 1, 0.0)


def result(run: str, value: object, outcome: Outcome = Outcome.PASS) -> LabResult:
    verdict = Verdict(outcome, value=value, unit="s")
    return LabResult("x", "X", run, (), (CheckResult("c", "C", "claim", ("a",), verdict),))


def test_a_series_says_how_often_it_passed_and_what_was_measured() -> None:
    values = [0.5, 0.7, 0.6, 0.9, 0.8, 0.4]
    results = [result(f"t/{n:02}", value) for n, value in enumerate(values, 1)]
    results[3] = replace(results[3], checks=(result("", 0.9, Outcome.FAIL).checks[0],))
    (item,) = chance.summary(results)
    assert item.outcomes.count("pass") == 5
    assert item.spread is not None
    assert item.spread.median == pytest.approx(median(values))
    assert item.unit == "s"
    assert chance.summary([result("a", "text"), result("b", "text")])[0].spread is None


def test_a_series_is_written_and_found(tmp_path: Path) -> None:
    assert chance.runs(tmp_path) is None
    text = chance.as_json("x", 7, [result("t/01", 1.0), result("t/02", 2.0)])
    (tmp_path / chance.FILE).write_text(text)
    assert chance.runs(tmp_path) == ("t/01", "t/02")
    assert json.loads(text)["checks"][0]["spread"]["median"] == 1.5
    (tmp_path / chance.FILE).write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="no series of this version"):
        chance.runs(tmp_path)
