"""The programs of netlab itself, as commands that run inside a node.

They are single files that need only Python's library, so they are started without site packages
and without the caller's environment (`-I -S`): quick to start and the same everywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netlab.errors import CapabilityError

if TYPE_CHECKING:
    from netlab.engine.channel import Channel

AGENTS = Path(__file__).resolve().parent.parent / "agents"


def python_agent(name: str) -> tuple[str, ...]:
    """Return the start of the command that runs the agent `name`."""
    path = AGENTS / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"netlab has no agent {name}")
    return (sys.executable, "-I", "-S", str(path))


@contextlib.contextmanager
def handed(value: object) -> Generator[int]:
    """Yield a descriptor from which a program can read a value as JSON, of any length."""
    descriptor = os.memfd_create("handed")
    try:
        os.write(descriptor, json.dumps(value).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def spawn_on(
    connection: Channel,
    tag: int,
    node: str,
    name: str,
    argv: Sequence[str],
    fds: Sequence[int],
    *,
    ready: Mapping[str, str] | None = None,
) -> None:
    """Start a program that ends with the connection, on descriptors of the caller's own.

    What happens to it is told under the tag. `node` may be "": where programs run that belong to
    none.
    """
    from netlab.engine.supervisor import checked

    request: dict[str, object] = {
        "do": "spawn",
        "node": node,
        "name": name,
        "argv": list(argv),
        "env": dict(os.environ),
        "tag": tag,
    }
    if ready is not None:
        request["ready"] = dict(ready)
    checked(connection.request(request, fds))


def tool(name: str, remedy: str) -> None:
    """CapabilityError with the remedy if a program of the machine is missing."""
    path = os.environ.get("PATH", "")
    if shutil.which(name, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin") is None:
        raise CapabilityError(f"{name} is not installed", hint=remedy)
