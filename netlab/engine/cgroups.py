"""Control groups (version 2) for the programs of a lab: limits, and an end that nobody escapes.

    MOUNT/netlab-LAB-RANDOM/            the lab's own folder, gone with the lab
                           /NODE.NAME/  one for each program of the topology

A folder outlives the processes in it, so its path is written down (`outside`) before it is made,
and whoever sweeps the directory of a dead lab removes it: that very folder, never by pattern.
Nothing else of the hierarchy is changed; controllers that the machine's administrator has not
handed out are asked for, not taken. See Documentation/admin-guide/cgroup-v2.rst of the kernel.

`netlab status` imports this module, so it is light.
"""

# ruff: noqa: PTH102, PTH106, PTH110, PTH112, PTH123, PTH208
from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Iterable

from netlab.engine import outside
from netlab.errors import EngineError

LIST = "cgroup"
PERIOD = 100_000  # microseconds in which the processor time of a group is counted


def mount_point() -> str | None:
    """Where version 2 of the hierarchy is mounted, if anywhere."""
    with open("/proc/self/mountinfo") as table:
        for line in table:
            fields = line.split()
            if fields[fields.index("-") + 1] == "cgroup2":
                return fields[4]
    return None


def _words(path: str) -> set[str]:
    try:
        with open(path) as file:
            return set(file.read().split())
    except OSError:
        return set()


def refusal(controllers: Iterable[str] = (), *, rootless: bool = False) -> tuple[str, str] | None:
    """Why programs cannot have groups with these controllers here, and the remedy; None: they can.

    Found by making a folder and looking what it offers.
    """
    if rootless or os.geteuid() != 0:
        return "which takes root", "run netlab as root, or leave `cpus` and `memory` out"
    mount = mount_point()
    if mount is None:
        return "and no cgroup v2 is mounted", "`sudo mount -t cgroup2 none /sys/fs/cgroup`"
    trial = f"{mount}/netlab-probe-{os.urandom(8).hex()}"
    try:
        os.mkdir(trial)
    except OSError as error:
        hint = "give the container a writable cgroup v2 of its own"
        return f"and no folder can be made in {mount}: {error.strerror}", hint
    try:
        offered = _words(f"{trial}/cgroup.controllers")
    finally:
        os.rmdir(trial)
    lacking = sorted(set(controllers) - offered)
    if not lacking:
        return None
    names = " and ".join(lacking)
    if set(lacking) <= _words(f"{mount}/cgroup.controllers"):
        wanted = " ".join(f"+{name}" for name in lacking)
        hint = f"`echo {wanted} | sudo tee {mount}/cgroup.subtree_control`"
        return f"and {mount} does not hand out {names}", hint
    hint = "boot with `cgroup_no_v1=all`; in a guest (`--machine guest`) it works too"
    return f"and this machine's cgroup v2 has no controller {names}", hint


class Group:
    """The folder of a lab."""

    def __init__(self, path: str) -> None:
        self.path = path

    def offer(self, controllers: Iterable[str]) -> None:
        """Let the folders of programs have limits of these kinds."""
        wanted = " ".join(f"+{name}" for name in sorted(controllers))
        if wanted:
            _write(f"{self.path}/cgroup.subtree_control", wanted)

    def add(self, name: str, *, cpus: float | None = None, memory: int | None = None) -> str:
        """Make the folder of a program, with its limits: processors, bytes; return its path.

        It may be there already: the program is started again.
        """
        path = f"{self.path}/{name}"
        with contextlib.suppress(OSError):
            os.rmdir(path)  # it had other limits perhaps
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        if cpus is not None:
            _write(f"{path}/cpu.max", f"{max(1000, round(cpus * PERIOD))} {PERIOD}")
        if memory is not None:
            _write(f"{path}/memory.max", str(memory))
            # All of the program dies rather than a part of it, and swap is memory too.
            _write(f"{path}/memory.oom.group", "1")
            if os.path.exists(f"{path}/memory.swap.max"):
                _write(f"{path}/memory.swap.max", "0")
        return path


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise EngineError(f"cannot write {text!r} to {path}: {error.strerror}") from error


def make(folder: str, lab: str, controllers: Iterable[str] = ()) -> Group:
    """Make the folder of a lab, whose directory is `folder`; `refusal` has been asked before."""
    path = f"{mount_point()}/netlab-{lab}-{os.urandom(8).hex()}"
    with open(f"{outside.make(folder)}/{LIST}", "w") as file:
        file.write(path)
    os.mkdir(path)
    group = Group(path)
    group.offer(controllers)
    return group


def path_of(folder: str) -> str | None:
    """Where the folder of a lab is, or was to be; None when it has none."""
    return _listed(f"{folder}/{outside.LINK}")


def _listed(register: str) -> str | None:
    try:
        with open(f"{register}/{LIST}") as file:
            return file.read() or None
    except OSError:
        return None


def find(folder: str) -> Group | None:
    """Return the group of a lab that runs, if it has one."""
    path = path_of(folder)
    return None if path is None else Group(path)


def remove(register: str, patience: float = 5.0) -> None:
    """Kill what is in the folder that `register` lists, if there is anything, and remove it."""
    path = _listed(register)
    if path is None or not os.path.isdir(path):
        return
    if not os.path.exists(f"{path}/cgroup.procs"):
        raise EngineError(f"{path}, which {register}/{LIST} names, is no control group")
    with contextlib.suppress(FileNotFoundError):  # before Linux 5.14 the PID namespace has to do
        _kill(path)
    _wait_until_empty(path, patience)
    _remove_folders(path)


def remove_unused(register: str) -> bool:
    """Remove the folder that `register` lists; False when processes are in it, and it stays."""
    path = _listed(register)
    if path is None or not os.path.exists(f"{path}/cgroup.procs"):
        return True
    try:
        _remove_folders(path)
    except FileNotFoundError:
        pass  # another command was faster
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _remove_folders(path: str) -> None:
    for name in os.listdir(path):
        if os.path.isdir(f"{path}/{name}"):
            os.rmdir(f"{path}/{name}")
    os.rmdir(path)


def _kill(path: str) -> None:
    with open(f"{path}/cgroup.kill", "w") as file:
        file.write("1")


def _wait_until_empty(path: str, patience: float) -> None:
    """Wait until no process is left; the kernel tells when that changes."""
    end = time.monotonic() + patience
    poll = select.poll()
    with open(f"{path}/cgroup.events") as events:
        poll.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            if time.monotonic() > end:
                raise EngineError(f"processes in {path} do not end")
            poll.poll(max(0.0, end - time.monotonic()) * 1000)
            events.seek(0)


def out_of_memory(folder: str) -> list[str]:
    """Return which programs of a lab, as NODE.NAME, the kernel has killed for their memory."""
    path = path_of(folder)
    if path is None:
        return []
    with contextlib.suppress(FileNotFoundError):
        return [name for name in sorted(os.listdir(path)) if kills(f"{path}/{name}")]
    return []


def kills(group: str) -> int:
    """Return how often the kernel has killed in a group because its memory was used up."""
    with contextlib.suppress(OSError), open(f"{group}/memory.events") as events:
        counts = dict(line.split() for line in events)
        return int(counts.get("oom_kill", 0))
    return 0
