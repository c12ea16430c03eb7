"""What a lab consists of in the kernel, and whether any of it is left.

Other labs may run on the machine at the same time, so nothing here compares whole listings: while a
lab lives, the processes in its namespaces are taken down; afterwards those must be dead, and
nothing of its state directory may be mounted.
"""

# Pathlib would take most of the time of the kill matrix.
# ruff: noqa: PTH115, PTH208
from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

KINDS = ("net", "mnt", "pid", "user")


@dataclass(frozen=True)
class Footprint:
    """The processes and namespaces of a lab at one moment, and where it is written down."""

    pids: frozenset[int]
    namespaces: frozenset[str]
    directory: Path


def _namespaces_of(pid: int | str) -> set[str]:
    """Those it is in and those it holds by a descriptor; thousands of links are read per test."""
    found: set[str] = set()
    for kind in KINDS:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for fd in fds:
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("net:["):
                found.add(link)
    return found


def footprint(supervisor: int, directory: Path) -> Footprint:
    """Take down what belongs to the lab of a supervisor."""
    mine = _namespaces_of(os.getpid())
    theirs = frozenset(_namespaces_of(supervisor) - mine)
    return Footprint(frozenset(living(theirs)) | {supervisor}, theirs, directory)


def living(namespaces: frozenset[str]) -> set[int]:
    """Processes that are in one of these namespaces or hold one; a zombie is not alive."""
    return {
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and namespaces & _namespaces_of(name) and not is_dead(int(name))
    }


def is_dead(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def mounts(directory: Path) -> list[str]:
    """Mounts of the machine's own mount namespace that come from a lab's directory."""
    text = Path("/proc/self/mountinfo").read_text()
    return [line for line in text.splitlines() if str(directory) in line]


def remains(taken: Footprint, patience: float = 30.0) -> list[str]:
    """Wait until nothing of a lab is left alive; what still is after `patience` is returned."""
    end = time.monotonic() + patience
    while True:
        # Only these could hold the namespaces. Their inode numbers say nothing any more: the kernel
        # gives freed ones away at once, to labs of others that are built in the same moment.
        left = [f"process {pid}" for pid in taken.pids if not is_dead(pid)]
        left += [f"mount {line}" for line in mounts(taken.directory)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.002)
