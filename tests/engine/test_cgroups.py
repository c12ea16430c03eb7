"""The control groups of a lab's programs: made, used to end everything in them, never left.

What the limits do is measured in a guest (tests/machine/test_guest_limits.py), whose kernel hands
controllers to version 2 on any machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from netlab.engine import cgroups, lifecycle, outside, state
from netlab.engine.stage import open_stage
from netlab.errors import CapabilityError, EngineError
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from tests.engine.conftest import Notebook
from tests.engine.leftovers import footprint, remains

HEAD = "name: groups\nnodes: { a: {}, b: {} }\nlinks: [a-b]\nprocesses:\n"
SLEEPS = (
    "  first: { node: a, command: [sleep, '1000'] }\n"
    "  second: { node: b, command: [sleep, '1000'] }\n"
)
grouped = pytest.mark.needs("netns", "cgroup2")


def topology(processes: str) -> Topology:
    return loads(HEAD + processes, "groups.yaml")


def members(group: str | None, name: str) -> list[int]:
    return [int(pid) for pid in Path(f"{group}/{name}/cgroup.procs").read_text().split()]


@grouped
def test_each_program_of_a_lab_has_a_group_and_none_is_left() -> None:
    lab, _ = lifecycle.up(topology(SLEEPS), rootless=False)
    group = cgroups.path_of(lab.folder)
    assert group is not None
    try:
        running = {p["name"]: p["pid"] for p in lifecycle.inspect("groups")["processes"]}
        end = time.monotonic() + 60
        for pid in running.values():  # it enters its group and then becomes the program
            while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
                assert time.monotonic() < end
                time.sleep(0.01)
        assert members(group, "a.first") == [running["first"]]
        assert members(group, "b.second") == [running["second"]]
    finally:
        lifecycle.down(lab)
    assert not Path(group).exists()


@grouped
def test_the_empty_folders_of_a_killed_lab_go_with_the_next_command() -> None:
    lab, _ = lifecycle.up(topology(SLEEPS), rootless=False)
    group = cgroups.path_of(lab.folder)
    taken = footprint(lab.pid, lab.path)
    os.kill(lab.pid, signal.SIGKILL)
    assert remains(taken) == []
    assert Path(f"{group}/a.first").is_dir()
    assert members(group, "a.first") == []
    assert state.labs() == []
    assert not Path(f"{group}").exists()


@grouped
def test_what_a_program_leaves_behind_ends_when_it_is_started_again() -> None:
    """A daemon in a session of its own is in no group or session that a signal could name."""
    script = "setsid sleep 1000 >/dev/null 2>&1 & echo run; sleep 0.2; exit 1"
    lab, _ = lifecycle.up(
        topology(f"  daemon: {{ node: a, command: [sh, -c, {script!r}], restart: on-failure }}\n"),
        rootless=False,
    )
    try:
        said = lab.path / "logs/a/daemon.stdout.log"
        end = time.monotonic() + 60
        while said.read_text().count("run") < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        mine = members(cgroups.path_of(lab.folder), "a.daemon")
        argv: list[bytes] = []
        for pid in mine:
            with contextlib.suppress(OSError):  # the short sleep of the script may just have ended
                argv.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        assert sum(b"1000" in words.split(b"\0") for words in argv) <= 1
    finally:
        lifecycle.down(lab)


@grouped
def test_a_program_that_does_not_exist_is_refused_as_outside_a_group(notebook: Notebook) -> None:
    given = topology("  none: { node: a, command: [no-such-program] }\n")
    with (
        pytest.raises(EngineError, match=r"cannot run 'no-such-program'.*No such file"),
        open_stage(given, notebook, rootless=False),
    ):
        pytest.fail("it was started")


@grouped
def test_only_a_control_group_is_removed(tmp_path: Path) -> None:
    folder, other = tmp_path / "lab", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / cgroups.LIST).write_text(str(other))
    with pytest.raises(EngineError, match="is no control group"):
        cgroups.remove(str(folder))
    assert other.is_dir()


@grouped
def test_a_living_process_in_a_dead_labs_group_is_killed(tmp_path: Path) -> None:
    group = cgroups.make(str(tmp_path), "trial")
    inside = group.add("a.sleeper")
    pid = os.fork()
    if pid == 0:
        try:
            Path(inside, "cgroup.procs").write_text("0")
            os.execvp("sleep", ["sleep", "1000"])
        finally:
            os._exit(1)
    end = time.monotonic() + 60
    while not members(group.path, "a.sleeper"):
        assert time.monotonic() < end
    outside.remove(str(tmp_path))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not Path(group.path).exists()


LIMITED = "  busy: { node: a, command: [sleep, '9'], cpus: 0.5, memory: 64MiB }\n"


@pytest.mark.needs("netns", "userns")
def test_limits_without_root_are_refused_before_anything_is_built(
    notebook: Notebook, state_dir: Path
) -> None:
    def never(_operation: int) -> None:
        pytest.fail("something was built")

    with (
        pytest.raises(
            CapabilityError, match=r"groups.yaml:5:\d+: process 'busy' wants limits.*takes root"
        ),
        open_stage(topology(LIMITED), notebook, rootless=True, step=never),
    ):
        pytest.fail("it was built")
    assert list(state_dir.iterdir()) == []


@grouped
def test_limits_are_set_or_refused_with_a_remedy(notebook: Notebook, state_dir: Path) -> None:
    refused = cgroups.refusal({"cpu", "memory"})
    if refused is None:
        with open_stage(topology(LIMITED), notebook, rootless=False) as stage:
            assert stage.group is not None
            inside = Path(stage.group.path, "a.busy")
            assert (inside / "cpu.max").read_text() == "50000 100000\n"
            assert (inside / "memory.max").read_text() == f"{64 << 20}\n"
        return
    reason, hint = refused
    assert "cpu and memory" in reason
    assert "cgroup" in hint
    with (
        pytest.raises(CapabilityError, match=r"groups.yaml:5:\d+: process 'busy' wants limits"),
        open_stage(topology(LIMITED), notebook, rootless=False),
    ):
        pytest.fail("it was built")
    assert list(state_dir.iterdir()) == []
