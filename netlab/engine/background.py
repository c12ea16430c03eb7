"""Programs that belong to a lab rather than to a command, and the logs they write."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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

    With `follow` it goes on until the lab ends.
    """
    read: dict[Path, int] = {}
    while True:
        alive = follow and is_alive(lab.folder)
        pattern = f"{node}/*.log" if node is not None else "*/*.log"
        for path in sorted((lab.path / "logs").glob(pattern)):
            program, stream, _ = path.name.rsplit(".", 2)
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                for line in file:
                    if alive and not line.endswith(b"\n"):
                        break  # half a line; the rest will come
                    read[path] = read.get(path, 0) + len(line)
                    text = line.decode(errors="replace").rstrip("\n")
                    yield f"{path.parent.name} {program} {stream}: {text}"
        if not alive:
            return
        time.sleep(EVERY)
