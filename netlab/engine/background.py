"""Programs that belong to a lab rather than to a command, and the logs they write."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from netlab.engine.channel import Channel
from netlab.engine.execute import Command
from netlab.engine.execute import start as ask
from netlab.engine.state import Lab, is_alive
from netlab.errors import UsageError

EVERY = 0.05


def start(lab: Lab, connection: Channel, command: Command, name: str | None) -> int:
    """Start a program that stays when we go; its name and where it logs are told on stderr."""
    name = name or Path(command.argv[0]).name
    if not name or "/" in name or name.startswith("."):
        raise UsageError(f"{name!r} cannot be the name of a log file", hint="use --name")
    running = connection.request({"do": "state"})["processes"]
    if any(p["node"] == command.node and p["name"] == name for p in running):
        raise UsageError(
            f"a program called {name!r} runs in node {command.node!r} already",
            hint="choose another name with --name",
        )
    folder = lab.path / "logs" / command.node
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fds = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    for stream in ("stdout", "stderr"):
        fds.append(os.open(folder / f"{name}.{stream}.log", flags, 0o600))
    try:
        refused = ask(connection, command, fds, background=name)
    finally:
        for fd in fds:
            os.close(fd)
    if not refused:
        print(f"{name} runs in {command.node}; see `netlab logs {command.node}`", file=sys.stderr)
    return refused


def lines(lab: Lab, node: str | None, *, follow: bool) -> Iterator[str]:
    """The lines in the logs of a lab or a node, each after `NODE PROGRAM STREAM: `.

    With `follow` it goes on until the lab ends, with what its programs said last: the files stay
    open, so they can be read when they are gone.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files: dict[Path, BinaryIO] = {}
    with contextlib.ExitStack() as stack:
        while True:
            alive = follow and is_alive(lab.folder)
            for path in _logs(lab, node):
                if path not in files:
                    with contextlib.suppress(FileNotFoundError):  # the lab has just ended
                        files[path] = stack.enter_context(path.open("rb"))
            for path, file in sorted(files.items()):
                program, stream, _ = path.name.rsplit(".", 2)
                for text in _new_lines(file, whole=alive):
                    yield f"{path.parent.name} {program} {stream}: {text}"
            if not alive:
                return
            time.sleep(EVERY)


def _logs(lab: Lab, node: str | None) -> list[Path]:
    """The logs that are there now; none when the directory goes away meanwhile."""
    try:
        return list((lab.path / "logs").glob(f"{node or '*'}/*.log"))
    except FileNotFoundError:
        return []


def _new_lines(file: BinaryIO, *, whole: bool) -> Iterator[str]:
    """The lines that were not read yet; if only whole ones, the rest of the last is for later."""
    while line := file.readline():
        if whole and not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line.decode(errors="replace").rstrip("\n")
