"""The programs of netlab itself, as commands that run inside a node.

They are single files that need only Python's library, so they are started without site packages
and without the caller's environment (`-I -S`): quick to start and the same everywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

AGENTS = Path(__file__).resolve().parent.parent / "agents"


def python_agent(name: str) -> tuple[str, ...]:
    """Return the start of the command that runs the agent `name`."""
    path = AGENTS / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"netlab has no agent {name}")
    return (sys.executable, "-I", "-S", str(path))
