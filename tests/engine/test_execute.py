from __future__ import annotations

import socket
from pathlib import Path

import pytest

from netlab.engine import execute
from netlab.engine.channel import Channel
from netlab.errors import EngineError


def test_a_command_from_a_directory_that_is_gone_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    ours, theirs = socket.socketpair()
    with theirs, ours, pytest.raises(EngineError, match="the current directory is gone; change to"):
        execute.start(Channel(ours), execute.Command("h1", ("true",), {}), (0, 1, 2))
