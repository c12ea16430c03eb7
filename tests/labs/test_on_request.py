"""A variation that takes long runs when it is named, and is a skip with the reason otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netlab.labs import Evidence, Lab, Verdict, expect, on_request, option, runner, vary
from netlab.labs.scene import Stage
from netlab.model.capabilities import Capabilities

TOPOLOGY = "nodes: [a, b]\nlinks: [a-b]\n"


def lab(folder: Path) -> Lab:
    made = Lab("Patience", variations={"long": on_request(127, option(seconds=127))})

    @made.scenario
    def wait(stage: Stage, *, seconds: int = 0) -> None:
        """Say how long it would take."""
        stage.recording.event("asked", seconds=seconds)

    @made.check
    def it_was_asked_for(long: Evidence) -> Verdict:
        """The scenario ran."""
        return expect(long.event("asked").fields["seconds"]).equals(127)

    made.fault(option(seconds=1), on="long", breaks=it_was_asked_for)
    made.folder = folder / "patience"
    made.folder.mkdir()
    (made.folder / "topology.yaml").write_text(TOPOLOGY)
    made.verify()
    return made


def test_nobody_waits_who_did_not_ask(tmp_path: Path) -> None:
    result = runner.run(lab(tmp_path), runner.Settings(tmp_path / "results"), faults=True)
    (variation,) = result.variations
    assert variation.status == "skipped"
    assert variation.reason == (
        "the kernel's timers take 127 s of it; `netlab lab run patience --variation long` runs it"
    )
    assert [check.verdict.outcome.value for check in result.checks] == ["skip"]
    assert result.faults == ()
    kept = json.loads((tmp_path / "results/patience/latest/checks.json").read_text())
    assert kept["variations"][0]["status"] == "skipped"


def test_an_interrupt_while_a_run_is_judged_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lab(tmp_path)
    (made.folder / "topology.yaml").write_text("nodes: [a, b]\nlinks: [{ends: a-b, loss: 1%}]\n")
    judge = runner.judging.judge

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(runner.judging, "judge", judge)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.judging, "judge", interrupted)
    unable = runner.Settings(tmp_path / "results", Capabilities())
    (result,) = runner.run_labs([made], unable, variations=["long"])
    assert result.exit_code() == 130
    assert [(v.name, v.status) for v in result.variations] == [
        ("long", "skipped"),
        ("checks", "interrupted"),
    ]
    kept = json.loads((tmp_path / "results/patience/latest/checks.json").read_text())
    assert kept["variations"][1]["status"] == "interrupted"


@pytest.mark.needs("netns", "ss")
def test_it_runs_for_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLAB_STATE_DIR", str(tmp_path / "state"))
    settings = runner.Settings(tmp_path / "results")
    result = runner.run(lab(tmp_path), settings, variations=["long"])
    assert [(v.name, v.status) for v in result.variations] == [("long", "ran")]
    assert [check.verdict.outcome.value for check in result.checks] == ["pass"]


def test_what_is_joined_with_it_takes_as_long() -> None:
    assert vary(option(a=1), on_request(60, option(b=2)), c=3).takes == 60
    assert vary(option(a=1)).takes == 0
