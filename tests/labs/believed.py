"""What a lab that ran here is worth: a failure counts, and a doubt must have its reason."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest


def believe(results: Path, lab: str, *, timed: Collection[str] = ()) -> None:
    """Expect that the newest run of a lab passed; skip where the machine was too busy to tell.

    A check may stay open only where the stamp of a run it judges says why. One in `timed` may even
    fail there: it allows less than a busy machine takes, and that the computer was late, and not
    the link, is not told by the outcome.
    """
    told = json.loads((results / lab / "latest" / "checks.json").read_text())
    runs = told["variations"]
    assert {run["status"] for run in runs} == {"ran"}, runs
    reasons = {run["name"]: run["fidelity_reasons"] for run in runs if run["fidelity"] != "ok"}
    doubts: list[str] = []
    for check in told["checks"]:
        outcome = check["verdict"]["outcome"]
        if outcome in ("pass", "skip"):  # what needs a variation that was not asked for is skipped
            continue
        disturbed = [reason for name in check["variations"] for reason in reasons.get(name, ())]
        assert disturbed, check
        assert outcome == "inconclusive" or check["check"] in timed, check
        doubts.append(f"{check['check']}: {', '.join(disturbed)}")
    if doubts:
        pytest.skip(f"inconclusive: {'; '.join(doubts)}")
