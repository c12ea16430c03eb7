"""Where running labs are written down: one directory per lab, alive while its lock is held.

    ROOT/LAB/lock        locked by the supervisor for as long as it lives
            /state.json  written by rename: pid and start time, boot, namespaces, nodes
            /control     the supervisor's socket
            /hosts       names of the nodes
            /outside     a link to a list of what the lab has elsewhere (`outside`)
            /logs/       what background processes print

ROOT is $NETLAB_STATE_DIR where that is set, else /run/netlab for root, else
$XDG_RUNTIME_DIR/netlab, else /tmp/netlab-UID; mode 0700. A lock that is free means the lab is dead,
whatever the other files say; the next command that meets such a directory removes it. The lock is
one of an open file description (fcntl(2), F_OFD_SETLK): it passes to the supervisor with the
descriptor, and looking whether it is held does not take it.

`netlab exec` imports this module, so it is light: paths are text in here, and what is rare is
imported where it is used.
"""

# Pathlib alone takes longer to import than all the rest.
# ruff: noqa: PTH100, PTH102, PTH106, PTH108, PTH112, PTH114, PTH116, PTH119, PTH123, PTH208
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from netlab.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from netlab.engine.outside import Orphan

Json = dict[str, Any]
AnyPath = str | os.PathLike[str]
OWN_DIRECTORY = "set XDG_RUNTIME_DIR to a directory of your own"


def roots() -> tuple[str, ...]:
    """Directories that may hold this user's labs; new ones go to the first."""
    chosen = os.environ.get("NETLAB_STATE_DIR")
    if chosen:
        return (os.path.abspath(chosen),)
    uid = os.geteuid()
    if uid == 0:
        return ("/run/netlab",)
    fallback = f"/tmp/netlab-{uid}"
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and given.startswith("/"):
        with contextlib.suppress(OSError):
            if os.stat(given).st_uid == uid:
                return f"{given}/netlab", fallback
    return (fallback,)


def make_root() -> str:
    """Make the first root if it is not there; refuse one that others could write to."""
    root = roots()[0]
    try:
        os.mkdir(root, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        reason = f"cannot make {root} for the state of labs: {error.strerror}"
        raise EngineError(reason, hint=OWN_DIRECTORY) from error
    found = os.lstat(root)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        reason = f"{root} is not a directory that only you can write to"
        raise EngineError(reason, hint=OWN_DIRECTORY)
    return root


class Claim:
    """A lab's directory whose lock we hold; hand `fd` to the supervisor, or let go."""

    def __init__(self, folder: str, fd: int) -> None:
        self.folder, self.fd = folder, fd

    @property
    def path(self) -> Path:
        """The directory."""
        from pathlib import Path

        return Path(self.folder)

    def release(self) -> None:
        """Give the lock back (a supervisor that inherited it keeps it)."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Remove the directory while the lock is held, then let go.

        The lock goes last: whoever finds it gone, and makes one anew, finds nothing else either.
        """
        _remove_outside(self.folder)
        with contextlib.suppress(OSError):  # what is left is for the next one who sweeps
            _empty(self.folder)
            os.unlink(f"{self.folder}/lock")
            os.rmdir(self.folder)
        self.release()


def _empty(folder: str) -> None:
    """Remove what is in a lab's directory, all but the lock."""
    for name in os.listdir(folder):
        entry = f"{folder}/{name}"
        if name == "lock":
            continue
        if os.path.isdir(entry) and not os.path.islink(entry):
            from shutil import rmtree

            rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):  # somebody removes the lab by hand
                os.unlink(entry)


def _remove_outside(folder: str) -> None:
    """Take away what a lab has elsewhere: names under /run/netns, a folder of control groups."""
    if os.path.lexists(f"{folder}/outside"):
        from netlab.engine import outside

        outside.remove(folder)


def sweep_outside() -> Sequence[Orphan]:
    """Take away what labs had outside their directories when those were removed by hand."""
    if os.geteuid() != 0:
        return ()  # only root's labs have anything there
    from netlab.engine import outside

    return outside.sweep()


def claim(path: AnyPath) -> Claim | None:
    """Take the lock of a lab's directory, made if needed; None when the lab is alive.

    What a dead lab left in the directory is removed.
    """
    folder = os.fspath(path)
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        try:
            fd = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # removed between the two calls
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except (BlockingIOError, PermissionError):
            os.close(fd)
            return None
        if _same_file(fd, f"{folder}/lock"):
            break
        os.close(fd)  # somebody swept the directory and it was made anew
    _remove_outside(folder)
    _empty(folder)
    return Claim(folder, fd)


def _whole_file(kind: int) -> bytes:
    """A `struct flock` of 64-bit Linux that covers the whole file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def _same_file(fd: int, path: str) -> bool:
    try:
        here, there = os.fstat(fd), os.stat(path)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def is_alive(path: AnyPath) -> bool:
    """Tell whether somebody holds the lock of a lab's directory."""
    try:
        fd = os.open(f"{os.fspath(path)}/lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    finally:
        os.close(fd)
    return struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK


class Lab(NamedTuple):
    """A lab that runs, as its directory tells."""

    folder: str
    state: Json

    @property
    def path(self) -> Path:
        """The directory."""
        from pathlib import Path

        return Path(self.folder)

    @property
    def id(self) -> str:
        """The name that commands take: the lab's own, with a number for a foreground one."""
        return os.path.basename(self.folder)

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return int(self.state["pid"])

    @property
    def nodes(self) -> dict[str, Json]:
        """The nodes by name, hidden ones too."""
        return self.state.get("nodes", {})


def read(path: AnyPath) -> Json | None:
    """Return the state of a lab's directory, or None when it has none yet."""
    try:
        with open(f"{os.fspath(path)}/state.json") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def directories() -> Iterator[str]:
    """Every lab directory of this user, dead or alive."""
    for root in roots():
        try:
            if os.lstat(root).st_uid != os.geteuid():
                continue
            names = sorted(os.listdir(root))
        except OSError:
            continue
        yield from (f"{root}/{name}" for name in names)


def labs() -> list[Lab]:
    """Return the labs that run; sweeps what dead ones left."""
    sweep_outside()
    found: list[Lab] = []
    for path in directories():
        if not is_alive(path):
            sweep(path)
            continue
        state = read(path)
        if state is not None:
            found.append(Lab(path, state))
    return found


def sweep(path: AnyPath) -> bool:
    """Remove the directory of a dead lab; False when it is alive."""
    if not os.path.isdir(path):
        return False
    held = claim(path)
    if held is None:
        return False
    held.remove()
    return True


def find(name: str | None) -> Lab:
    """Return the lab of a name, or the only one that runs."""
    running = [lab for lab in labs() if lab.state["phase"] == "up"]
    names = ", ".join(lab.id for lab in running)
    if name is not None:
        for lab in running:
            if lab.id == name:
                return lab
        raise UsageError(
            f"no lab called {name!r} runs", hint=f"running: {names or 'none'}; see `netlab status`"
        )
    detached = [lab for lab in running if not lab.state["foreground"]]
    if len(detached) == 1:
        return detached[0]
    if len(running) == 1:
        return running[0]
    if not running:
        raise UsageError("no lab runs", hint="start one with `netlab up FILE`")
    raise UsageError(f"{len(running)} labs run ({names})", hint="say which with --lab NAME")
