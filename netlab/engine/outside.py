"""What labs of root have outside their directories: found again even without those.

Names under /run/netns and control groups outlive every process. They are listed in a folder of a
register, to which the lab's directory has a link:

    LAB-DIRECTORY/outside -> REGISTER/MOUNTS-RANDOM/lab -> LAB-DIRECTORY
                                                   /names, /cgroup

Whoever sweeps the directory of a dead lab takes that away too. When somebody has removed the
directory by hand (the lab ends with it), the next command finds a folder to which no directory
leads any more. It takes away only what is listed there and only what nobody lives in, and leaves
folders alone that were made in another mount namespace: their labs may be where it cannot look.
"""

# Pathlib would be most of what commands import.
# ruff: noqa: PTH100, PTH102, PTH103, PTH108, PTH115, PTH208, PTH211
from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

REGISTER = "/run/netlab.outside"
LINK = "outside"


def _mounts() -> str:
    """The number of our mount namespace."""
    return os.readlink("/proc/self/ns/mnt").strip("mnt:[]")


def make(lab: str) -> str:
    """Return the way to a lab's folder of the register, made if needed."""
    link = f"{lab}/{LINK}"
    if os.path.lexists(link):
        return link
    try:
        os.makedirs(REGISTER, 0o700, exist_ok=True)
    except OSError:
        os.mkdir(link)  # there is no other place: it is lost with the directory
        return link
    folder = f"{REGISTER}/{_mounts()}-{os.urandom(8).hex()}"
    os.symlink(folder, link)  # first, so that the folder is never without a lab
    os.mkdir(folder, 0o700)
    os.symlink(os.path.abspath(lab), f"{folder}/lab")
    return link


def remove(lab: str) -> None:
    """Take away what a dead lab has outside its directory, and the folder that lists it."""
    from shutil import rmtree

    from netlab.engine import cgroups, named

    link = f"{lab}/{LINK}"
    named.remove(link)
    cgroups.remove(link)
    rmtree(os.path.realpath(link), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)


class Orphan(NamedTuple):
    """What a lab whose directory is gone had outside; `removed` unless processes live in it."""

    lab: str
    removed: bool


def sweep() -> list[Orphan]:
    """Take away what labs without a directory have left, as far as nobody lives in it."""
    found: list[Orphan] = []
    try:
        folders = [name for name in os.listdir(REGISTER) if name.startswith(f"{_mounts()}-")]
    except OSError:
        return found
    for name in sorted(folders):
        folder = f"{REGISTER}/{name}"
        with contextlib.suppress(FileNotFoundError):  # another command was faster
            lab = os.readlink(f"{folder}/lab")
            if not _leads(lab, folder):
                found.append(Orphan(lab, _remove_unused(folder)))
    return found


def _leads(lab: str, folder: str) -> bool:
    try:
        return os.readlink(f"{lab}/{LINK}") == folder
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove_unused(folder: str) -> bool:
    from shutil import rmtree

    from netlab.engine import cgroups, named

    removed = all([named.remove_unused(folder), cgroups.remove_unused(folder)])
    if removed:
        rmtree(folder, ignore_errors=True)
    return removed
