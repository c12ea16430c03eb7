"""Here: commands run as its processes, files are its files."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command on a machine ended."""

    status: int
    stdout: bytes
    stderr: bytes


class Agent(Protocol):
    """A program started on a machine that we talk with over a stream."""

    @property
    def stream(self) -> socket.socket:
        """Our end of the conversation."""
        ...

    def ended(self, timeout: float) -> int | None:
        """Wait for the first process of the agent; None while it runs."""
        ...

    def kill(self) -> None:
        """End the first process of the agent at once."""
        ...


class Machine(Protocol):
    """A place where commands run; it has not heard of nodes."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30) -> Finished:
        """Run a command to its end."""
        ...

    def spawn(
        self,
        agent: Path,
        argument: Callable[[int], str],
        *,
        descriptors: Sequence[int] = (),
        log: Path | None = None,
    ) -> Agent:
        """Start a single-file Python program that talks over a descriptor.

        `argument` makes its one argument from the number of that descriptor.
        """
        ...

    def put(self, source: Path, target: str) -> None:
        """Copy a file to the machine."""
        ...

    def get(self, source: str, target: Path) -> None:
        """Copy a file from the machine."""
        ...


@dataclass(frozen=True, slots=True)
class LocalAgent:
    """An agent that is a child of this process."""

    process: subprocess.Popen[bytes]
    stream: socket.socket

    def ended(self, timeout: float) -> int | None:
        """Wait for the child; None while it runs."""
        if self.process.poll() is not None:
            return self.process.returncode
        # Popen.wait(timeout) looks every 50 ms; the kernel tells at once.
        pidfd = os.pidfd_open(self.process.pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return self.process.wait() if poll.poll(timeout * 1000) else None
        finally:
            os.close(pidfd)

    def kill(self) -> None:
        """SIGKILL for the child."""
        self.process.kill()


class Local:
    """The machine this program runs on."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30) -> Finished:
        """Run a command to its end; subprocess.TimeoutExpired when it takes too long."""
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, check=False)
        return Finished(done.returncode, done.stdout, done.stderr)

    def spawn(
        self,
        agent: Path,
        argument: Callable[[int], str],
        *,
        descriptors: Sequence[int] = (),
        log: Path | None = None,
    ) -> LocalAgent:
        """Start an agent in a session of its own, so that Ctrl-C in a terminal is not for it."""
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as until_started:  # an interrupt may come at any moment
            until_started.enter_context(ours)
            with theirs, open(log or "/dev/null", "ab") as output:  # noqa: PTH123
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(agent), argument(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(theirs.fileno(), *descriptors),
                    start_new_session=True,
                    cwd="/",
                )
            until_started.pop_all()
        return LocalAgent(process, ours)

    def put(self, source: Path, target: str) -> None:
        """Copy a file."""
        shutil.copyfile(source, target)

    def get(self, source: str, target: Path) -> None:
        """Copy a file."""
        shutil.copyfile(source, target)
