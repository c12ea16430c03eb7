from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from netlab.engine import state
from netlab.errors import EngineError, UsageError


def test_only_one_can_hold_a_lab(tmp_path: Path) -> None:
    held = state.claim(tmp_path / "lab")
    assert held is not None
    assert state.is_alive(tmp_path / "lab")
    assert state.claim(tmp_path / "lab") is None
    held.release()
    assert not state.is_alive(tmp_path / "lab")
    again = state.claim(tmp_path / "lab")
    assert again is not None
    again.remove()
    assert not (tmp_path / "lab").exists()


def test_the_lock_passes_with_the_descriptor(tmp_path: Path) -> None:
    held = state.claim(tmp_path / "lab")
    assert held is not None
    copy = os.dup(held.fd)
    held.release()
    assert state.is_alive(tmp_path / "lab")
    os.close(copy)
    assert not state.is_alive(tmp_path / "lab")


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    held = state.claim(tmp_path / "lab")
    assert held is not None
    held.release()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            state.is_alive(tmp_path / "lab")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(300):
            found = state.claim(tmp_path / "lab")
            assert found is not None
            found.release()
    finally:
        stop.set()
        watcher.join()


def test_what_a_dead_lab_left_is_removed_by_the_next_claim(tmp_path: Path) -> None:
    (tmp_path / "lab" / "logs" / "h1").mkdir(parents=True)
    (tmp_path / "lab" / "state.json").write_text("{}")
    held = state.claim(tmp_path / "lab")
    assert held is not None
    assert [path.name for path in held.path.iterdir()] == ["lock"]
    held.remove()


def test_of_a_lab_that_is_removed_the_lock_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command may sweep what has no lock, or claim it for a lab of its own."""
    held = state.claim(tmp_path / "lab")
    assert held is not None
    lock = held.path / "lock"
    (held.path / "logs" / "h1").mkdir(parents=True)
    for name in ("control", "logs/h1/program.log", "state.json"):
        (held.path / name).touch()
    unlink, scandir = os.unlink, os.scandir
    left: list[list[str]] = []
    others: list[state.Claim | None] = []

    def sorted_scandir(fd: int) -> contextlib.nullcontext[list[os.DirEntry[str]]]:
        """A file system may list the lock anywhere."""
        return contextlib.nullcontext(sorted(scandir(fd), key=lambda entry: entry.name))

    def unlink_and_claim(path: str, **more: int) -> None:
        unlink(path, **more)
        if not lock.exists():
            left.append([path.name for path in lock.parent.iterdir()])
            others.append(state.claim(lock.parent))

    monkeypatch.setattr(os, "scandir", sorted_scandir)
    monkeypatch.setattr(os, "unlink", unlink_and_claim)
    held.remove()
    monkeypatch.undo()
    assert left == [[]]
    (other,) = others
    assert other is not None
    assert state.is_alive(tmp_path / "lab")
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_removes_by_hand_while_it_is_swept_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "state.json").touch()
    listdir = os.listdir

    def listed_and_then_gone(path: str) -> list[str]:
        found = listdir(path)
        (tmp_path / "lab" / "state.json").unlink()
        return found

    monkeypatch.setattr(os, "listdir", listed_and_then_gone)
    held = state.claim(tmp_path / "lab")
    monkeypatch.undo()
    assert held is not None
    held.remove()


def test_dead_labs_are_swept_and_half_made_ones_are_no_lab(state_dir: Path) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "dead").mkdir()
    (state_dir / "dead" / "state.json").write_text('{"phase": "up"}')
    held = state.claim(state_dir / "starting")
    assert held is not None
    assert state.labs() == []
    assert [path.name for path in state_dir.iterdir()] == ["starting"]
    held.remove()


def test_a_root_that_others_can_write_to_is_refused(state_dir: Path) -> None:
    state_dir.mkdir()
    state_dir.chmod(0o777)
    with pytest.raises(EngineError, match="not a directory that only you can write to"):
        state.make_root()


def test_a_root_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETLAB_STATE_DIR", str(tmp_path / "a" / "b"))
    with pytest.raises(
        EngineError, match=r"cannot make .*/a/b for the state of labs: No such file"
    ):
        state.make_root()


def test_finding_a_lab_needs_a_name_unless_there_is_one_only(state_dir: Path) -> None:
    state.make_root()
    with pytest.raises(UsageError, match="no lab runs; start one with `netlab up FILE`"):
        state.find(None)
    held = []
    for name, foreground in (("one", "false"), ("two~1", "true")):
        claim = state.claim(state_dir / name)
        assert claim is not None
        (claim.path / "state.json").write_text(f'{{"phase": "up", "foreground": {foreground}}}')
        held.append(claim)
    assert state.find(None).id == "one"
    assert state.find("two~1").id == "two~1"
    with pytest.raises(UsageError, match="no lab called 'three' runs; running: one, two~1"):
        state.find("three")
    for claim in held:
        claim.remove()


def test_the_state_directory_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETLAB_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run")  # somebody else's
    assert state.roots() == ("/tmp/netlab-4242",)
    monkeypatch.setattr(os, "stat", lambda _: os.stat_result([0, 0, 0, 0, 4242, 0, 0, 0, 0, 0]))
    assert state.roots() == ("/run/netlab", "/tmp/netlab-4242")
