"""A learner's progress: kept, found again, begun anew where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.labs import learner
from netlab.labs.learner import Progress


def test_progress_is_kept_and_forgotten(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    assert learner.load("mss", env) == Progress()
    kept = Progress(3, {"How much?": "1460"}, "/somewhere")
    learner.save("mss", kept, env)
    assert learner.load("mss", env) == kept
    assert learner.load("sack", env) == Progress()
    learner.forget("mss", env)
    learner.forget("mss", env)
    assert learner.load("mss", env) == Progress()


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "1", '{"schema": 99}'),
        '{"schema": 1, "step": "x", "answers": {}, "run": ""}',
        '{"schema": 1, "step": 1, "answers": [], "run": ""}',
    ],
)
def test_damaged_progress_is_a_new_beginning(tmp_path: Path, text: str) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    learner.save("mss", Progress(3), env)
    (learner.folder(env) / "mss.json").write_text(text)
    assert learner.load("mss", env) == Progress()


def test_a_relative_state_directory_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    # The XDG base directory specification: paths that are not absolute are invalid.
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = Path("/home/somebody/.local/state/netlab/learn")
    assert learner.folder({"XDG_STATE_HOME": "here"}) == expected
