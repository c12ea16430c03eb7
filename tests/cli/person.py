"""`netlab` as run by somebody: by the user who runs the tests, or by an ordinary one.

When root runs the tests, the ordinary user is uid 65534, who may not be able to run the interpreter
of the virtual environment (its home may be closed); then the system's python3 runs the same code.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT

NOBODY = 65534
CHECK = "import click, pydantic, yaml, netlab.model.yaml"


@functools.cache
def ordinary_prefix() -> tuple[str, ...] | None:
    """The command line that runs Python as an ordinary user with netlab importable."""
    if os.geteuid() != 0:
        return (sys.executable,)
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if python is None:
            continue
        env = ("env", f"PYTHONPATH={ROOT}:{packages}", "PYTHONDONTWRITEBYTECODE=1")
        prefix = (*drop, *env, python, "-W", "error")
        tried = subprocess.run((*prefix, "-c", CHECK), capture_output=True, cwd="/", check=False)
        if tried.returncode == 0:
            return prefix
    return None


def without_what_python_forgets(told: str) -> str:
    """Leave out what Python itself says of an interrupt between two of its own steps.

    It reports, and forgets, one that comes in a callback of its import lock; and under `-W error`,
    as here alone, it tells of a file or socket that was made but not yet held by a name.
    """
    known = r"(?s)Exception ignored in: .*?(?:KeyboardInterrupt: |ResourceWarning: [^\n]*)\n"
    return re.sub(known, "", told)


class Person:
    """Runs netlab commands, with labs written down in a directory of its own."""

    def __init__(self, prefix: Sequence[str], *, uid: int) -> None:
        self.prefix = tuple(prefix)
        self.ordinary = uid != 0
        self.folder = Path(tempfile.mkdtemp(prefix="netlab-test-"))
        os.chown(self.folder, uid, uid if uid == NOBODY else -1)
        self.state = self.folder / "state"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("NETLAB", "XDG"))},
            "NETLAB_STATE_DIR": str(self.state),
        }

    def argv(self, *arguments: str) -> tuple[str, ...]:
        return (*self.prefix, "-m", "netlab", *arguments)

    def run(
        self, *arguments: str, stdin: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.env,
            cwd=ROOT,
            check=False,
        )

    def ok(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=ROOT,
        )

    def close(self) -> None:
        self.run("down", "--all")
        for lock in self.state.glob("*/state.json"):  # whatever a failed test left alive
            import json

            os.kill(int(json.loads(lock.read_text())["pid"]), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
