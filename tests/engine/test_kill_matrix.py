"""SIGKILL at every operation of a lab's making, to every process: nothing of the lab is left.

The controller is a child of the test that builds a lab in step mode; it stops after a number of
operations of the plan, or before a number of requests to the supervisor (the hosts file, each
program, the wires, the commit). The test then kills one of: the controller, the supervisor, its
anchor, or both of the first two. At once no process, no namespace and no mount of the lab may
exist, and the next command must leave no trace: no directory, no control group.

The small network is tried at each point with one of the victims in turn. The large one has a wire
in userspace, a nat, a firewall, programs and their control groups; there the points are a sample,
drawn with the seed that is printed. With `--every-kill-point` every victim dies at every point of
both.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netlab.engine import cgroups, lifecycle, state
from netlab.engine.channel import Channel
from netlab.engine.stage import open_stage
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.plan.backend import Backend
from netlab.plan.build import build
from netlab.plan.operations import Plan
from tests.engine.conftest import Notebook
from tests.engine.leftovers import Footprint, footprint, remains
from tests.engine.networks import two_hosts

pytestmark = pytest.mark.needs("netns", "userns")

TOPOLOGY = two_hosts()
PLAN = build(TOPOLOGY)
LARGE = """
name: large
nodes:
  inside:
  home: { role: nat, nat: { outside: uplink, conntrack: { udp: 30s } } }
  server: { firewall: [{ action: drop, protocol: tcp, port: 23 }] }
links:
  - inside-home
  - { name: uplink, ends: [home, server], delay: 1ms }
processes:
  sleeper: { node: server, command: [sleep, "1000"] }
  daemon:
    node: inside
    command: [sh, -c, "setsid sleep 1000 & echo running; wait"]
    ready: { line: running }
    after: [sleeper]
"""
SAMPLE, SEED = 16, 4
VICTIMS = ("controller", "supervisor", "anchor", "controller and supervisor")


@dataclass(frozen=True)
class Case:
    """A lab to be built, detached or in the foreground."""

    topology: Topology
    plan: Plan
    foreground: bool

    def run(self, step: Callable[[int], None], rootless: bool, scratch: Path) -> None:
        """Build the lab; `step` is called at each point at which we may be killed."""
        request = Channel.request

        def counted(channel: Channel, *args: Any, **more: Any) -> Any:
            step(-1)
            return request(channel, *args, **more)

        setattr(Channel, "request", counted)  # noqa: B010 - its type says less
        try:
            if not self.foreground:
                lifecycle.up(self.topology, plan=self.plan, rootless=rootless, step=step)
                return
            with open_stage(
                self.topology, Notebook(scratch), plan=self.plan, rootless=rootless, step=step
            ):
                pass
        finally:
            setattr(Channel, "request", request)  # noqa: B010

    def count(self, rootless: bool, scratch: Path) -> int:
        """How many such points there are, counted by building the lab to its end."""
        seen: list[int] = []
        self.run(seen.append, rootless, scratch)
        for lab in state.labs():
            lifecycle.down(lab)
        return len(seen)


def large() -> Topology:
    return loads(LARGE, "large.yaml")


@contextlib.contextmanager
def controller_paused_at(
    count: int, case: Case, rootless: bool, scratch: Path
) -> Generator[tuple[int, Footprint]]:
    """Run a controller up to a point; yields its pid and what belongs to its lab."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        seen = 0

        def step(_operation: int) -> None:
            nonlocal seen
            seen += 1
            if seen == count:
                os.write(write, b"x")
                signal.pause()

        try:
            case.run(step, rootless, scratch)
        finally:
            os._exit(3)
    os.close(write)
    try:
        assert os.read(read, 1), f"there is no point number {count}"
        (directory,) = state.directories()
        found = state.read(directory)
        assert found is not None
        yield pid, footprint(found["pid"], Path(directory))
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def supervisor_of(taken: Footprint) -> int:
    found = state.read(taken.directory)
    assert found is not None
    return int(found["pid"])


def kill(victim: str, controller: int, supervisor: int) -> None:
    chosen = {
        "controller": [controller],
        "supervisor": [supervisor],
        "anchor": [parent_of(supervisor)],
        "controller and supervisor": [controller, supervisor],
    }[victim]
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):  # the first death may bring the second
            os.kill(pid, signal.SIGKILL)


def try_point(count: int, victim: str, case: Case, rootless: bool, scratch: Path) -> None:
    """Kill at one point, and see that nothing is left."""
    with controller_paused_at(count, case, rootless, scratch) as (controller, taken):
        assert len(taken.namespaces) >= 2  # mount and PID at least
        group = cgroups.path_of(str(taken.directory))
        kill(victim, controller, supervisor_of(taken))
        assert remains(taken) == [], f"at point {count}, {victim} killed"
        if group is not None and Path(group).is_dir():
            assert "populated 0" in Path(group, "cgroup.events").read_text()
    assert state.labs() == []
    assert list(state.directories()) == []
    assert group is None or not Path(group).exists()


@pytest.mark.parametrize("foreground", [False, True], ids=["detached", "foreground"])
def test_sigkill_at_any_operation_leaves_nothing(
    foreground: bool, rootless: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    case = Case(TOPOLOGY, PLAN, foreground)
    steps = case.count(rootless, tmp_path / "scratch")
    assert steps >= len(PLAN.operations)
    points = list(itertools.product(range(1, steps + 1), VICTIMS))
    if not request.config.getoption("--every-kill-point"):
        # One victim at each point; in the foreground, where the same code builds, at every third.
        points = points[2::15] if foreground else points[::5]
    for count, victim in points:
        try_point(count, victim, case, rootless, tmp_path / "scratch")
    tell(request, f"small, {'foreground' if foreground else 'detached'}", rootless, points, steps)


@pytest.mark.needs("nft")
@pytest.mark.parametrize("foreground", [False, True], ids=["detached", "foreground"])
def test_sigkill_leaves_nothing_of_wires_nats_programs_and_their_groups(
    foreground: bool, rootless: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    topology = large()
    case = Case(topology, build(topology, impair=Backend.WIRE), foreground)
    steps = case.count(rootless, tmp_path / "scratch")
    points = list(itertools.product(range(1, steps + 1), VICTIMS))
    last = [point for point in points if point[0] > len(case.plan.operations)]
    assert len(last) >= 4 * 6, "clock, hosts, the wire, two programs, commit"
    if not request.config.getoption("--every-kill-point"):
        chooser = random.Random(SEED)
        points = chooser.sample(points, SAMPLE // 2) + chooser.sample(last, SAMPLE // 2)
    for count, victim in points:
        try_point(count, victim, case, rootless, tmp_path / "scratch")
    tell(request, f"large, {'foreground' if foreground else 'detached'}", rootless, points, steps)


def tell(
    request: pytest.FixtureRequest,
    what: str,
    rootless: bool,
    points: Sequence[object],
    steps: int,
) -> None:
    """Print how many kill points there were."""
    mode = "user namespace" if rootless else "direct"
    of = steps * len(VICTIMS)
    with request.getfixturevalue("capsys").disabled():
        print(f"\n{what}, {mode}: {len(points)} of {of} kill points (seed {SEED}), nothing left")


@pytest.mark.parametrize("way", ["killed", "taken down"])
def test_the_end_of_a_running_lab_leaves_nothing(rootless: bool, way: str) -> None:
    lab, fresh = lifecycle.up(TOPOLOGY, plan=PLAN, rootless=rootless)
    assert fresh
    taken = footprint(lab.pid, lab.path)
    if way == "killed":
        os.kill(lab.pid, signal.SIGKILL)
    else:
        lifecycle.down(lab)
    assert remains(taken) == []
    assert state.labs() == []
    assert list(state.directories()) == []


def test_a_detached_lab_outlives_its_controller_and_a_foreground_one_does_not(
    rootless: bool, tmp_path: Path
) -> None:
    for survives in (True, False):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                if survives:
                    lifecycle.up(TOPOLOGY, plan=PLAN, rootless=rootless)
                    os.write(write, b"x")
                    signal.pause()
                with open_stage(TOPOLOGY, Notebook(tmp_path), plan=PLAN, rootless=rootless):
                    os.write(write, b"x")
                    signal.pause()
            finally:
                os._exit(3)
        os.close(write)
        assert os.read(read, 1)
        os.close(read)
        (lab,) = state.labs()
        taken = footprint(lab.pid, lab.path)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if survives:
            assert [found.id for found in state.labs()] == ["pair"]
            lifecycle.down(lab)
        assert remains(taken) == []
        assert state.labs() == []
