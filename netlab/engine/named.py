"""Names under /run/netns for the nodes of a lab, so that `ip netns` finds them; only on request.

A name is a bind mount, which lives as long as the machine whatever happens to the lab. So the names
are written down (`outside`) before the first one is made, each with the inode number of its
namespace, and whoever sweeps the directory of a dead lab takes them away: only mounts of those very
namespaces, never by pattern.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from netlab.engine import outside
from netlab.engine.channel import Channel
from netlab.errors import CapabilityError, EngineError, UsageError

FOLDER = Path("/run/netns")
LIST = "names"
_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 4096, 16384, 1 << 20, 2


def refuse_impossible(nodes: Iterable[str], *, rootless: bool) -> None:
    """Raise, before anything is built, when the names cannot be made or are taken."""
    if rootless or os.geteuid() != 0:
        raise CapabilityError(
            "names under /run/netns take root", hint="run netlab as root, or leave --named out"
        )
    taken = [name for name in nodes if (FOLDER / name).exists()]
    if taken:
        names = ", ".join(taken[:5]) + (", ..." if len(taken) > 5 else "")
        raise UsageError(
            f"{FOLDER} has {names} already", hint="take the other one down, or leave --named out"
        )


def refuse_new(folder: str, nodes: Iterable[str]) -> None:
    """Raise when a lab whose nodes have names is to get nodes whose names are taken."""
    register = Path(folder, outside.LINK)
    if (register / LIST).exists():
        mine = _listed(register)
        refuse_impossible((name for name in nodes if name not in mine), rootless=False)


def make(folder: str, supervisor: int, fds: Mapping[str, int], inodes: Mapping[str, int]) -> None:
    """Name the namespaces that a supervisor holds by these descriptors."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(outside.make(folder), LIST).open("a") as file:
        file.write(_lines(fds, inodes))
    _prepare(libc)
    for name, fd in fds.items():
        path = FOLDER / name
        path.touch(mode=0o444, exist_ok=False)
        source = f"/proc/{supervisor}/fd/{fd}".encode()
        if libc.mount(source, str(path).encode(), None, ctypes.c_ulong(_MS_BIND), None) < 0:
            number = ctypes.get_errno()
            raise EngineError(f"cannot name {path}: {os.strerror(number)}")


def _prepare(libc: ctypes.CDLL) -> None:
    """Make the folder a shared mount, and leave it so, as `ip netns add` does (ip-netns(8)).

    Should it do that after us, each of our names would be mounted a second time, above the first,
    which nobody could reach any more.
    """
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    folder = str(FOLDER).encode()

    def mount(source: bytes | None, flags: int) -> bool:
        return libc.mount(source, folder, None, ctypes.c_ulong(flags | _MS_REC), None) == 0

    lock = os.open(FOLDER, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as iproute2 does, so that it is done once
        if not (mount(None, _MS_SHARED) or (mount(folder, _MS_BIND) and mount(None, _MS_SHARED))):
            raise EngineError(f"cannot make {FOLDER} shared: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(lock)


def renew(folder: str, connection: Channel) -> None:
    """Name the nodes as they are now, if the lab is one whose nodes have names."""
    register = Path(folder, outside.LINK)
    if not (register / LIST).exists():
        return
    held = connection.request({"do": "namespaces"})
    inodes: dict[str, int] = held["inodes"]
    there = {name for name, inode in inodes.items() if _names(name, inode)}
    remove(register, keep=there)
    fds = {name: fd for name, fd in held["fds"].items() if name not in there}
    make(folder, held["pid"], fds, inodes)
    listed = register / f"{LIST}.new"
    listed.write_text(_lines(held["fds"], inodes))
    listed.replace(register / LIST)


def _lines(names: Iterable[str], inodes: Mapping[str, int]) -> str:
    return "".join(f"{inodes[name]} {name}\n" for name in names)


def _names(name: str, inode: int) -> bool:
    path = FOLDER / name
    return path.exists() and path.stat().st_ino == inode


def _listed(register: str | Path) -> dict[str, int]:
    try:
        lines = Path(register, LIST).read_text().splitlines()
    except FileNotFoundError:
        return {}
    parts = (line.partition(" ") for line in lines)
    return {name: int(inode) for inode, _, name in parts}


def remove_unused(register: str) -> bool:
    """Take away the names that `register` lists; False when processes live in some, which stay."""
    lived_in: set[int] = set()
    for namespace in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):  # it has just ended
            lived_in.add(namespace.stat().st_ino)
    used = {name for name, inode in _listed(register).items() if inode in lived_in}
    remove(register, keep=used)
    return not used


def remove(register: str | Path, keep: Collection[str] = ()) -> None:
    """Take away the names that `register` lists, where they still are what they were."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name, inode in _listed(register).items():
        if name in keep:
            continue
        path = FOLDER / name
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if found.st_ino == inode and os.path.ismount(path):
                libc.umount2(str(path).encode(), _MNT_DETACH)
                path.unlink()
            elif found.st_size == 0 and not os.path.ismount(path):
                path.unlink()  # made, but killed before the mount
