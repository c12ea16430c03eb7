"""A supervisor that goes in the middle of a conversation."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import pytest

from netlab.engine import apply, state
from netlab.engine.channel import Channel, ChannelClosedError, connect
from netlab.engine.state import Claim
from netlab.errors import EngineError


def test_what_was_told_before_the_end_is_known_after_it() -> None:
    """A command that ends right before its lab has ended all the same."""
    ours, theirs = socket.socketpair()
    text = json.dumps({"event": "exit", "tag": 7, "status": 3}).encode()
    with theirs:
        theirs.sendall(struct.pack("!II", len(text), 0) + text)
    channel = Channel(ours)
    for _ in range(2):
        found = channel.peek(7, "exit")
        assert found is not None
        assert found["status"] == 3
    with pytest.raises(ChannelClosedError, match="the supervisor of the lab is gone"):
        channel.peek(8, "exit")
    channel.close()


@pytest.mark.parametrize("left", ["nothing", "a directory", "a socket"])
def test_a_lab_that_ended_just_now_is_told_so(tmp_path: Path, left: str) -> None:
    folder = tmp_path / "mine"
    if left != "nothing":
        folder.mkdir()
    if left == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "control"))
            listener.listen()
    with pytest.raises(ChannelClosedError, match="the lab 'mine' ended just now"):
        connect(folder)


def test_a_lab_that_cannot_be_reached_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(EngineError, match="cannot reach the lab 'mine': Not a directory"):
        connect(tmp_path / "mine")


def alive(folder: Path) -> Claim:
    """A directory that looks like that of a lab that runs, as long as its lock is held."""
    state.make_root()
    held = state.claim(folder)
    assert held is not None
    (folder / "state.json").write_text('{"phase": "up", "foreground": false}')
    return held


@pytest.mark.parametrize("swept", [True, False])
def test_a_change_that_the_end_of_the_lab_overtakes_says_so(state_dir: Path, swept: bool) -> None:
    held = alive(state_dir / "mine")
    with (  # noqa: PT012
        pytest.raises(ChannelClosedError, match="the lab 'mine' ended just now"),
        apply.exclusive("mine") as lab,
    ):
        if swept:
            held.remove()
        (lab.path / "torn").unlink()  # else whoever sweeps has come as far as this, lock in hand
    held.remove()


def test_a_file_that_is_missing_in_a_lab_that_lives_is_another_matter(state_dir: Path) -> None:
    held = alive(state_dir / "mine")
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(held.path / "control"))
        supervisor.listen()
        with pytest.raises(FileNotFoundError), apply.exclusive("mine") as lab:
            (lab.path / "torn").unlink()
    held.remove()
