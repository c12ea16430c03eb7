from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from netlab.engine import state
from netlab.engine.background import lines
from netlab.engine.state import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """The directory of a lab where two programs in each of two nodes have logged a line."""
    folder = tmp_path / "lab"
    for node in ("a", "b"):
        (folder / "logs" / node).mkdir(parents=True)
        for stream in ("stdout", "stderr"):
            (folder / "logs" / node / f"talker.{stream}.log").write_text(f"{node} {stream}\n")
    return Lab(str(folder), {})


def test_each_line_says_where_it_comes_from(lab: Lab) -> None:
    assert list(lines(lab, "b", follow=False)) == [
        "b talker stderr: b stderr",
        "b talker stdout: b stdout",
    ]
    assert len(list(lines(lab, None, follow=False))) == 4


def test_a_line_that_is_not_whole_waits_for_its_rest_as_long_as_the_lab_lives(lab: Lab) -> None:
    held = state.claim(lab.folder + "-alive")
    assert held
    alive = Lab(held.folder, {})
    path = alive.path / "logs" / "a" / "talker.stdout.log"
    path.parent.mkdir(parents=True)
    path.write_text("one\nhal")
    following = lines(alive, "a", follow=True)
    assert next(following) == "a talker stdout: one"
    path.write_text("one\nhalf\nrest")
    assert next(following) == "a talker stdout: half"
    held.release()
    assert list(following) == ["a talker stdout: rest"]


@pytest.mark.parametrize("gone", ["logs", "logs/a", "logs/b", "."])
def test_what_was_said_last_is_told_though_the_lab_is_gone(lab: Lab, gone: str) -> None:
    held = state.claim(lab.folder + "-alive")
    assert held
    shutil.copytree(lab.path / "logs", held.path / "logs")
    following = lines(Lab(held.folder, {}), None, follow=True)
    told = [next(following)]
    with (held.path / "logs" / "b" / "talker.stdout.log").open("a") as log:
        log.write("bye\n")
    shutil.rmtree(held.path / gone)
    held.release()
    told += following
    assert told[-1] == "b talker stdout: bye"
    assert len(told) == 5


def test_a_directory_that_goes_while_it_is_listed_has_no_logs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.glob

    def listed_while_it_goes(path: Path, pattern: str) -> Iterator[Path]:
        yield next(real(path, pattern))
        raise FileNotFoundError  # as pathlib does before Python 3.13

    monkeypatch.setattr(Path, "glob", listed_while_it_goes)
    assert list(lines(lab, None, follow=False)) == []


def test_a_log_that_goes_before_it_is_opened_has_no_lines(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def gone_and_then_opened(path: Path, mode: str) -> IO[Any]:
        shutil.rmtree(lab.path, ignore_errors=True)
        return real(path, mode)

    monkeypatch.setattr(Path, "open", gone_and_then_opened)
    assert list(lines(lab, None, follow=False)) == []
