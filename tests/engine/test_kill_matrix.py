"""SIGKILL after every operation of a plan, to every process: nothing of the lab is left.

The controller is a child of the test that builds a lab in step mode and stops after a number of
operations; the test then kills one of: the controller, the supervisor, its anchor, or both of the
first two. Afterwards no process, no namespace and no mount of the lab may exist, and the next
command must find no trace of it either.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from netlab.engine import lifecycle, state
from netlab.engine.stage import open_stage
from netlab.plan.build import build
from tests.engine.conftest import Notebook
from tests.engine.leftovers import Footprint, footprint, remains
from tests.engine.networks import two_hosts

pytestmark = pytest.mark.needs("netns", "userns")

TOPOLOGY = two_hosts()
PLAN = build(TOPOLOGY)
VICTIMS = ("controller", "supervisor", "anchor", "controller and supervisor")
Way = Callable[[Callable[[int], None], bool, Path], None]


def detached(step: Callable[[int], None], rootless: bool, _scratch: Path) -> None:
    lifecycle.up(TOPOLOGY, plan=PLAN, rootless=rootless, step=step)


def foreground(step: Callable[[int], None], rootless: bool, scratch: Path) -> None:
    with open_stage(TOPOLOGY, Notebook(scratch), plan=PLAN, rootless=rootless, step=step):
        pass


@contextlib.contextmanager
def controller_paused_after(
    count: int, way: Way, rootless: bool, scratch: Path
) -> Generator[tuple[int, Footprint]]:
    """Run a controller up to an operation; yields its pid and what belongs to its lab."""
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
            way(step, rootless, scratch)
        finally:
            os._exit(3)
    os.close(write)
    try:
        assert os.read(read, 1), f"the plan has no operation number {count}"
        (directory,) = state.directories()
        found = state.read(directory)
        assert found is not None
        assert found["phase"] == "building"
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


def count_steps(way: Way, rootless: bool, scratch: Path) -> int:
    """How often a controller could be stopped, counted by running one to its end."""
    seen: list[int] = []
    way(seen.append, rootless, scratch)
    for lab in state.labs():
        lifecycle.down(lab)
    return len(seen)


@pytest.mark.parametrize("way", [detached, foreground])
def test_sigkill_after_any_operation_leaves_nothing(
    way: Way, rootless: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = count_steps(way, rootless, tmp_path / "scratch")
    assert steps >= len(PLAN.operations)
    # A foreground lab is built by the same code: every third operation will do.
    points = range(1, steps + 1, 1 if way is detached else 3)
    for count in points:
        for victim in VICTIMS:
            with controller_paused_after(count, way, rootless, tmp_path / "scratch") as paused:
                controller, taken = paused
                assert len(taken.namespaces) >= 3  # mount, PID and one network at least
                kill(victim, controller, supervisor_of(taken))
                assert remains(taken) == [], f"after operation {count}, {victim} killed"
            assert state.labs() == []
            assert list(state.directories()) == []
    with capsys.disabled():
        mode = "user namespace" if rootless else "direct"
        print(f"\n{way.__name__}, {mode}: {len(points) * len(VICTIMS)} kill points, nothing left")


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
    for way, survives in ((detached, True), (foreground, False)):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                if way is detached:
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
