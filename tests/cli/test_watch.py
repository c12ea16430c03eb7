"""What a change of a lab's files asks for: a run, or only a judgement."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from netlab.cli import watch
from netlab.labs import discovery, runner
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "labs" / "pinned.yaml", tmp_path)
    return Path(shutil.copytree(ROOT / "labs" / "teardown", tmp_path / "teardown"))


def change(folder: Path, name: str, old: str, new: str) -> tuple[bool, bool]:
    """Whether the change concerns what is played, and whether it is noticed at all."""
    before = watch.state(folder)
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = watch.state(folder)
    return before.played != after.played, before != after


@pytest.mark.parametrize(
    ("name", "old", "new", "played"),
    [
        ("lab.py", "PORT = 8080", "PORT = 8081", True),
        ("lab.py", "apart=0.5", "apart=0.6", True),
        ("topology.yaml", "name: wire", "name: cable", True),
        ("../pinned.yaml", "mtu: 1500", "mtu: 1400", True),
        ("lab.py", "def figures(", "def figures_(", False),
        ("lab.py", "lab.fault(", "lab.fault( ", False),
    ],
)
def test_a_run_is_asked_for_by_what_is_played(
    folder: Path, name: str, old: str, new: str, played: bool
) -> None:
    assert change(folder, name, old, new) == (played, True)


def test_a_comment_is_no_reason_to_run(folder: Path) -> None:
    assert change(folder, "lab.py", "PORT = 8080", "PORT = 8080  # the usual one") == (False, True)


def test_the_guide_concerns_neither(folder: Path) -> None:
    assert change(folder, "guide.md", "# How", "# Why") == (False, False)


def test_a_broken_program_is_a_state_too(folder: Path) -> None:
    assert change(folder, "lab.py", "PORT = 8080", "PORT = = 8080") == (True, True)


def test_a_file_that_is_half_written_is_waited_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "lab.py"
    text = program.read_text()
    steps = iter(["", text.replace("def figures(", "def figures_("), None])
    asked: list[bool] = []

    def edit(_: float) -> None:
        step = next(steps, "the end")
        if step == "the end":
            raise KeyboardInterrupt
        if step is not None:
            program.write_text(step)

    def redo(_: Path, __: runner.Settings, *, again: bool, **more: object) -> None:
        asked.append(again)

    monkeypatch.setattr(time, "sleep", edit)
    monkeypatch.setattr(watch, "_redo", redo)
    with pytest.raises(KeyboardInterrupt):
        watch.follow(
            [discovery.load(folder)], runner.Settings(tmp_path), variations=(), faults=False
        )
    assert asked == [False]
