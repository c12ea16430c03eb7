"""`believe` can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.labs.believed import believe


def results(folder: Path, outcome: str, *reasons: str) -> Path:
    newest = folder / "x" / "latest"
    newest.mkdir(parents=True)
    run: Any = {"name": "a", "status": "ran", "fidelity": "suspect" if reasons else "ok"}
    check = {"check": "c", "variations": ["a"], "verdict": {"outcome": outcome}}
    told = {"variations": [run | {"fidelity_reasons": list(reasons)}], "checks": [check]}
    (newest / "checks.json").write_text(json.dumps(told))
    return folder


def test_what_passed_is_believed(tmp_path: Path) -> None:
    believe(results(tmp_path, "pass"), "x")


@pytest.mark.parametrize(
    ("outcome", "reasons", "timed"),
    [("fail", (), ["c"]), ("inconclusive", (), []), ("fail", ("it was busy",), [])],
)
def test_a_failure_counts_and_a_doubt_needs_a_reason(
    outcome: str, reasons: tuple[str, ...], timed: list[str], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        believe(results(tmp_path, outcome, *reasons), "x", timed=timed)


@pytest.mark.parametrize(("outcome", "timed"), [("fail", ["c"]), ("inconclusive", [])])
def test_what_a_busy_machine_decided_is_skipped(
    outcome: str, timed: list[str], tmp_path: Path
) -> None:
    with pytest.raises(pytest.skip.Exception, match="inconclusive: c: it was busy"):
        believe(results(tmp_path, outcome, "it was busy"), "x", timed=timed)
