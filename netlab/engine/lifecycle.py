"""Labs that outlive the command that made them: up, down, status.

`netlab status` and `down` need nothing of the model, so it is imported where labs are built.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netlab.engine import cgroups, channel, state
from netlab.engine.reach import connect
from netlab.engine.state import Lab
from netlab.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from netlab.engine.external import External
    from netlab.engine.supervisor import Supervisor
    from netlab.model.topology import Topology
    from netlab.plan.backend import Backend
    from netlab.plan.operations import Plan

Json = dict[str, Any]
TOPOLOGY = "topology.json"


def digest(topology: Topology) -> str:
    """A short text that two equal topologies share, and no others."""
    from hashlib import sha256

    from netlab.model.dump import json_lines

    found = sha256()
    for line in json_lines(topology):
        found.update(line.encode())
    return found.hexdigest()[:16]


def remember(folder: str, topology: Topology) -> None:
    """Write down, by rename, the network a lab has, for whoever wants to change it."""
    from netlab.model.dump import json_lines

    path = f"{folder}/{TOPOLOGY}"
    with open(f"{path}.new", "w") as file:  # noqa: PTH123
        file.writelines(json_lines(topology))
    os.replace(f"{path}.new", path)  # noqa: PTH105


def up(
    topology: Topology,
    *,
    name: str | None = None,
    rootless: bool | None = None,
    named: bool = False,
    plan: Plan | None = None,
    impair: Backend | None = None,
    ways_out: Sequence[External] = (),
    step: Callable[[int], None] | None = None,
    past_return: Callable[[], object] | None = None,
) -> tuple[Lab, bool]:
    """Build a lab that stays; returns it, and whether it is new (False: it ran already).

    `past_return` is called when the lab is complete and about to stay: an interrupt that comes
    later comes too late. `impair` is the one back end that may impair links (None: the best).
    `ways_out` are interfaces on networks of this machine. UsageError when another network runs
    under the name. With `named` the nodes have names under /run/netns too.
    """
    from netlab.engine import external, processes, supervisor

    lab = name or topology.name
    root = state.make_root()
    state.sweep_outside()
    held = _claim(f"{root}/{lab}")
    if isinstance(held, Lab):
        same = held.state.get("external", []) == [str(one) for one in ways_out]
        if same and held.state.get("digest") == digest(topology):
            return held, False
        raise UsageError(
            f"a lab called {lab!r} runs already, with another network",
            hint=f"run `netlab down {lab}` first, or choose another name with --name",
        )
    with contextlib.ExitStack() as stack:
        stack.callback(held.remove)
        started = supervisor.start(held, lab, foreground=False, rootless=rootless)
        stack.pop_all()
        stack.callback(started.end)
        processes.refuse_impossible(topology, rootless=started.rootless)
        external.refuse_impossible(ways_out, topology, rootless=started.rootless)
        if plan is None:
            plan = supervisor.plan_for(started, topology, impair)
        plan = external.translated(plan, ways_out)
        if named:
            from netlab.engine import named as names

            names.refuse_impossible(_nodes(plan), rootless=started.rootless)
        started.build(plan, step=step, meanwhile=lambda: remember(held.folder, topology))
        external.attach(started, plan, ways_out)
        started.hosts(supervisor.hosts(plan))
        if named:
            _name(plan, started)
        _start_processes(topology, plan, started)
        if past_return is not None:
            past_return()
        told = [str(one) for one in ways_out]
        started.commit(digest=digest(topology), impair=impair, external=told)
        started.channel.close()
        started.agent.ended(5.0)
        held.release()
        stack.pop_all()
    del plan, started  # what they hold is written down now, and read again
    found = state.read(held.folder)
    if found is None:
        raise EngineError(f"the lab {lab!r} ended as soon as it was up")
    return Lab(held.folder, found), True


def _nodes(plan: Plan) -> list[str]:
    from netlab.plan.operations import AddNode

    return [operation.node for operation in plan.operations if isinstance(operation, AddNode)]


def _name(plan: Plan, started: Supervisor) -> None:
    from netlab.engine import named

    held = started.channel.request({"do": "namespaces"})
    fds = {name: held["fds"][name] for name in _nodes(plan)}
    named.make(started.claim.folder, held["pid"], fds, held["inodes"])


def logs(folder: Path) -> Callable[[str], Path]:
    """Return where the programs of a detached lab log: beside its state."""

    def log_file(relative: str) -> Path:
        path = folder.joinpath("logs", *relative.split("/")[1:])  # nodes/NODE/NAME
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    return log_file


def _start_processes(topology: Topology, plan: Plan, started: Supervisor) -> None:
    """Start the programs of a topology; they belong to the lab and log beside its state."""
    impaired = any(link.forward or link.backward for link in topology.links)
    if not topology.processes and not impaired:
        return
    from netlab.engine import processes, timetable, wires
    from netlab.engine.node import RunningNode

    log_file = logs(started.claim.path)
    nodes = {
        node.name: RunningNode(node.name, started.channel, log_file) for node in topology.nodes
    }
    folder, wired = started.claim.path, wires.wired(plan.operations)
    own = wires.start(plan.operations, started.channel, folder, log_file, keep=True)
    group = processes.make_group(
        topology, started.claim.folder, started.claim.path.name, rootless=started.rootless
    )
    for _ in processes.start(topology, nodes, group, keep=True):
        pass
    for _ in timetable.start(
        topology, started.indexes, started.channel, log_file, wired=wired, keep=True
    ):
        pass
    wires.start_schedules(own)


def _claim(path: str, patience: float = 30.0) -> state.Claim | Lab:
    """Claim a lab's directory, or return the lab that runs; waits for one that is being built."""
    end = time.monotonic() + patience
    while True:
        held = state.claim(path)
        if held is not None:
            return held
        found = state.read(path)
        if found is not None and found["phase"] == "up":
            return Lab(path, found)
        if time.monotonic() > end:
            raise EngineError(f"another command has been building {path!r} for {patience} s")
        time.sleep(0.02)


def down(lab: Lab, timeout: float = 5.0) -> None:
    """End a lab and wait until nothing of it is left."""
    pidfd = open_process(lab)
    try:
        with contextlib.suppress(OSError, EngineError):
            connection = channel.connect(lab.folder)
            try:
                connection.send({"do": "stop"})
                if pidfd is not None:
                    _ended(pidfd, timeout)
            finally:
                connection.close()
        if pidfd is not None and not _ended(pidfd, 0):
            # It does not answer, stopped perhaps: its death takes everything with it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _ended(pidfd, timeout)
    finally:
        if pidfd is not None:
            os.close(pidfd)
    end = time.monotonic() + timeout
    while state.is_alive(lab.folder):
        if time.monotonic() > end:
            raise EngineError(f"the lab {lab.id!r} does not end; its process is {lab.pid}")
        time.sleep(0.001)
    state.sweep(lab.folder)


def open_process(lab: Lab) -> int | None:
    """A descriptor of the lab's supervisor, sure to be that process; None when it is gone."""
    try:
        pidfd = os.pidfd_open(lab.pid)
    except ProcessLookupError:
        return None
    if _start_time(lab.pid) != lab.state["start"] or _boot() != lab.state["boot"]:
        os.close(pidfd)
        return None
    return pidfd


def _ended(pidfd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat: clock ticks since boot."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return None


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        return file.read().strip()


def status() -> list[Json]:
    """What `netlab status` lists, one mapping per lab."""
    return [summary(lab) for lab in state.labs()]


def summary(lab: Lab) -> Json:
    """A lab in a few words and numbers."""
    nodes = [node for node in lab.nodes.values() if not node["hidden"]]
    ends = sum(len(node["interfaces"]) for node in lab.nodes.values())
    return {
        "name": lab.id,
        "phase": lab.state["phase"],
        "topology": lab.state.get("source", ""),
        "nodes": len(nodes),
        "links": ends // 2,
        "foreground": lab.state["foreground"],
        "rootless": lab.state["rootless"],
        "broken": broken(lab),
        "out_of_memory": cgroups.out_of_memory(lab.folder),
        "pid": lab.pid,
        "created_ns": lab.state["created_ns"],
    }


def broken(lab: Lab) -> list[str]:
    """The links of a lab whose wire has ended although nobody wanted it to: nothing passes them."""
    known: Json = lab.state.get("impairments", {})
    wired = [link for link, told in known.items() if told.get("backend") == "wire"]
    if not wired:
        return []
    from netlab.engine import wires

    return [link for link in wired if not wires.is_alive(lab.folder, link)]


def inspect(name: str | None) -> Json:
    """Everything known of a lab that runs: its nodes and interfaces, and its processes now."""
    lab, connection = connect(name)
    try:
        live = connection.request({"do": "state"}, timeout=10)
    finally:
        connection.close()
    nodes = {
        node: {**found, "namespace": lab.state["inodes"].get(node)}
        for node, found in lab.nodes.items()
    }
    return {**summary(lab), "nodes": nodes, "processes": live["processes"], "ended": live["ended"]}
