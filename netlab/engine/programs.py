"""The programs of netlab itself, as commands that run inside a node.

They are single files that need only Python's library, so they are started without site packages
and without the caller's environment (`-I -S`): quick to start and the same everywhere.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from netlab.errors import CapabilityError

AGENTS = Path(__file__).resolve().parent.parent / "agents"


def python_agent(name: str) -> tuple[str, ...]:
    """Return the start of the command that runs the agent `name`."""
    path = AGENTS / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"netlab has no agent {name}")
    return (sys.executable, "-I", "-S", str(path))


def tool(name: str, remedy: str) -> None:
    """CapabilityError with the remedy if a program of the machine is missing."""
    path = os.environ.get("PATH", "")
    if shutil.which(name, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin") is None:
        raise CapabilityError(f"{name} is not installed", hint=remedy)
