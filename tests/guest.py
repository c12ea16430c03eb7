"""Running things in the guest kernel from tests: whole netlab commands, or crude shell scripts.

Booting costs two seconds and a process start 50 ms, so a test module boots one guest and puts many
claims into each script.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from netlab.machine.guest import Completed, GuestMachine
from tests.conftest import ROOT


def environment() -> dict[str, str]:
    """The caller's environment with the checkout's virtual environment first."""
    binaries = Path(sys.prefix) / "bin"
    return {
        **os.environ,
        "PATH": f"{binaries}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
    }


def in_guest(
    argv: Sequence[str],
    *,
    cwd: Path = ROOT,
    writable: Sequence[Path] = (),
    mem: str = "512M",
    nice: int = 0,
    timeout: float = 300,
) -> Completed:
    """Run a project command in a guest of its own, with the interpreter that runs the tests.

    "python" as the first word stands for that interpreter. What is written below `writable` is on
    the computer afterwards; everything else is gone.
    """
    words = [sys.executable if argv[0] == "python" else argv[0], *argv[1:]]
    with GuestMachine(mem=mem, nice=nice, writable=writable) as guest:
        return guest.run(words, cwd=cwd, env=environment(), timeout=timeout)


def script(guest: GuestMachine, text: str, *, timeout: float = 60) -> str:
    """Run a shell script that stops at the first failing command; return what it printed."""
    done = guest.run(["sh", "-euc", text], cwd="/", timeout=timeout)
    assert done.status == 0, (done.status, done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode()
