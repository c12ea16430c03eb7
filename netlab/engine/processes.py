"""The programs that a topology asks for: started in order, each ready before those after it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, cast

from netlab.engine import cgroups
from netlab.engine.cgroups import Group
from netlab.engine.channel import Channel
from netlab.engine.node import Ready, Running, RunningNode
from netlab.engine.probe import TOOLS, which
from netlab.engine.supervisor import checked
from netlab.errors import CapabilityError, EngineError, UsageError
from netlab.model import topology as model
from netlab.model.topology import Process, Topology


def refuse_impossible(topology: Topology, *, rootless: bool) -> None:
    """CapabilityError, before anything is built, for what this machine cannot do for a program."""
    for process in topology.processes:
        place = f"{topology.source}:{process.mark.line}:{process.mark.column}: "
        if process.user is not None and (rootless or os.geteuid() != 0):
            raise CapabilityError(
                f"{place}process {process.name!r} wants to run as user {process.user!r}, "
                "which takes root",
                hint="run netlab as root, or leave `user` out",
            )
        if process.user is not None and not _exists(process.user):
            raise UsageError(f"{place}this machine has no user {process.user!r}")
        for tool in process.needs:
            if which(tool) is None:
                package = TOOLS[tool][1] if tool in TOOLS else tool
                raise CapabilityError(
                    f"{place}process {process.name!r} needs {tool!r}, which is not installed",
                    hint=f"`sudo apt-get install {package}`",
                )
        limits = _controllers(process)
        refused = cgroups.refusal(limits, rootless=rootless) if limits else None
        if refused is not None:
            reason, hint = refused
            raise CapabilityError(
                f"{place}process {process.name!r} wants limits of processors or memory, {reason}",
                hint=hint,
            )


def _controllers(process: Process) -> set[str]:
    """Return the controllers of cgroup v2 that the limits of a program need."""
    limits = {"cpu": process.cpus, "memory": process.memory}
    return {name for name, limit in limits.items() if limit is not None}


def make_group(topology: Topology, folder: str, lab: str, *, rootless: bool) -> Group | None:
    """Make the control group of a lab whose directory is `folder`, or widen the one it has.

    None where there are no programs or groups are not to be had; then nobody has asked for limits,
    or `refuse_impossible` would have told.
    """
    if not topology.processes or cgroups.refusal(rootless=rootless) is not None:
        return None
    controllers = {n for p in topology.processes for n in _controllers(p)}
    group = cgroups.find(folder)
    if group is None:
        return cgroups.make(folder, lab, controllers)
    group.offer(controllers)
    return group


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def in_order(processes: tuple[Process, ...]) -> Iterator[Process]:
    """Yield processes so that each comes after those named in its `after`."""
    waiting = {process.name: process for process in processes}
    while waiting:
        free = [p for p in waiting.values() if not set(p.after) & waiting.keys()]
        if not free:
            names = ", ".join(sorted(waiting))
            raise ValueError(f"the processes {names} wait for each other")
        for process in free:
            del waiting[process.name]
            yield process


def start(
    topology: Topology,
    nodes: Mapping[str, RunningNode],
    group: Group | None,
    *,
    keep: bool = False,
    only: Collection[str] | None = None,
    again: bool = False,
) -> Iterator[Running]:
    """Start the programs of a topology, each when those it comes after are ready; wait for all.

    With `only` just those of these names; `again` means that they have run before, and their logs
    go on.
    """
    unready: dict[str, tuple[Running, Ready]] = {}

    def wait_for(name: str) -> None:
        running, ready = unready.pop(name)
        running.until_ready(ready)

    for process in in_order(topology.processes):
        if only is not None and process.name not in only:
            continue
        for name in process.after:
            if name in unready:
                wait_for(name)
        argv = process.command
        if process.user is not None:
            user = pwd.getpwnam(process.user)
            as_user = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups")
            argv = ("setpriv", *as_user, "--", *argv)
        cgroup = None
        if group is not None:
            name = f"{process.node}.{process.name}"
            cgroup = group.add(name, cpus=process.cpus, memory=process.memory)
        ready = _ready(process.ready)
        running = nodes[process.node].spawn(
            process.name,
            argv,
            ready=ready,
            wait=False,
            env=dict(process.env),
            cwd=process.cwd,
            restart=cast(Literal["no", "on-failure", "always"], process.restart),
            cgroup=cgroup,
            keep=keep,
            again=again,
        )
        if ready is not None:
            unready[process.name] = running, ready
        yield running
    for name in list(unready):
        wait_for(name)


def stop(connection: Channel, ending: Iterable[Process], *, grace: float = 2.0) -> None:
    """End programs of a topology, one after the other; who has ended already is no error."""
    for process in ending:
        tag = connection.new_tag()
        request = {"do": "end", "node": process.node, "name": process.name, "grace": grace}
        answer = connection.request({**request, "tell": tag})
        if answer.get("error", {}).get("kind") == "gone" or checked(answer).get("ended"):
            continue
        if connection.event(tag, ("exit",), grace + 10) is None:
            raise EngineError(f"process {process.name!r} in node {process.node!r} does not end")


def _ready(wanted: model.Ready | None) -> Ready | None:
    if wanted is None:
        return None
    timeout = wanted.timeout
    if wanted.port is not None:
        return Ready.port(wanted.port, timeout=timeout)
    if wanted.line is not None:
        return Ready.line(wanted.line, timeout=timeout)
    if wanted.file is not None:
        return Ready.file(wanted.file, timeout=timeout)
    assert wanted.command is not None
    return Ready.command(wanted.command, timeout=timeout)
