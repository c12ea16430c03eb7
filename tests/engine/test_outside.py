"""What a lab has outside its directory goes even when that was removed by hand, and only then."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from netlab.cli.lifecycle import gc
from netlab.engine import cgroups, lifecycle, outside, state
from netlab.engine.named import FOLDER
from netlab.engine.state import Lab
from netlab.model.yaml import loads
from tests.engine.leftovers import footprint, remains

pytestmark = pytest.mark.needs("root", "netns", "cgroup2")

A, B = f"netlaboutside{os.getpid()}a", f"netlaboutside{os.getpid()}b"
TEXT = f"""
name: outside
nodes: {{ {A}: {{}}, {B}: {{}} }}
links: [{A}-{B}]
processes: {{ sleeper: {{ node: {A}, command: [sleep, '1000'] }} }}
"""


@pytest.fixture(autouse=True)
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of our own: other commands on this machine sweep theirs."""
    folder = tmp_path / "register"
    monkeypatch.setattr(outside, "REGISTER", str(folder))
    return folder


def up() -> Lab:
    return lifecycle.up(loads(TEXT, "outside.yaml"), named=True, rootless=False)[0]


def removed_by_hand(lab: Lab) -> str:
    """Remove the directory, and wait until the lab has ended by it; return its control group."""
    group = cgroups.path_of(lab.folder)
    assert group is not None
    taken = footprint(lab.pid, lab.path)
    shutil.rmtree(lab.folder)
    assert remains(taken) == []
    assert Path(group).is_dir()
    assert os.path.ismount(FOLDER / A)
    return group


def test_down_leaves_nothing_in_the_register(register: Path) -> None:
    lab = up()
    (folder,) = register.iterdir()
    assert sorted(entry.name for entry in folder.iterdir()) == ["cgroup", "lab", "names"]
    lifecycle.down(lab)
    assert list(register.iterdir()) == []


def test_what_is_left_when_the_directory_is_removed_goes_with_the_next_command(
    register: Path,
) -> None:
    group = removed_by_hand(up())
    assert state.labs() == []
    assert not Path(group).exists()
    assert not (FOLDER / A).exists()
    assert not (FOLDER / B).exists()
    assert A not in Path("/proc/self/mountinfo").read_text()
    assert list(register.iterdir()) == []


def test_gc_says_what_it_has_taken_away(state_dir: Path) -> None:
    group = removed_by_hand(up())
    said = CliRunner().invoke(gc)
    assert said.exit_code == 0
    assert said.stderr == f"removed what was left of {state_dir / 'outside'}\n"
    assert not Path(group).exists()
    assert CliRunner().invoke(gc).stderr == "nothing to remove\n"


def test_a_lab_of_the_same_name_can_be_brought_up_at_once(register: Path) -> None:
    group = removed_by_hand(up())
    lab = up()
    assert not Path(group).exists()
    assert len(list(register.iterdir())) == 1
    lifecycle.down(lab)


def test_the_lab_that_runs_keeps_everything_when_commands_sweep() -> None:
    lab = up()
    group = cgroups.path_of(lab.folder)
    assert [found.id for found in state.labs()] == ["outside"]
    assert state.sweep_outside() == []
    assert Path(f"{group}/{A}.sleeper").is_dir()
    assert os.path.ismount(FOLDER / A)
    lifecycle.down(lab)


def test_what_processes_live_in_is_left_until_they_have_gone(register: Path) -> None:
    lab = up()
    taken = footprint(lab.pid, lab.path)
    argv = ["ip", "netns", "exec", A, "sh", "-c", "echo; exec sleep 1000"]
    visitor = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert visitor.stdout is not None
        visitor.stdout.readline()
        group = cgroups.path_of(lab.folder)
        os.kill(lab.pid, signal.SIGKILL)
        assert remains(taken) == []
        Path(f"{group}/{A}.sleeper/cgroup.procs").write_text(str(visitor.pid))
        shutil.rmtree(lab.folder)
        assert state.sweep_outside() == [(lab.folder, False)]
        assert Path(f"{group}/{A}.sleeper/cgroup.procs").read_text() == f"{visitor.pid}\n"
        assert os.path.ismount(FOLDER / A)
        assert not (FOLDER / B).exists()
        assert visitor.poll() is None
    finally:
        visitor.kill()
        visitor.communicate()
    assert state.sweep_outside() == [(lab.folder, True)]
    assert not Path(f"{group}").exists()
    assert not (FOLDER / A).exists()
    assert list(register.iterdir()) == []


def test_a_folder_made_in_another_mount_namespace_is_left_alone(register: Path) -> None:
    elsewhere = (
        "import sys; from netlab.engine import outside;"
        "outside.REGISTER = sys.argv[1]; print(outside.make(sys.argv[2]))"
    )
    lab = register.parent / "lab"
    lab.mkdir()
    argv = ["unshare", "--mount", sys.executable, "-c", elsewhere, str(register), str(lab)]
    subprocess.run(argv, check=True)
    shutil.rmtree(lab)
    assert state.sweep_outside() == []
    assert len(list(register.iterdir())) == 1


def test_without_a_register_the_directory_itself_lists(
    register: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register.touch()
    monkeypatch.setattr(outside, "REGISTER", str(register / "none"))
    lab = up()
    listing = lab.path / outside.LINK
    assert listing.is_dir()
    assert not listing.is_symlink()
    lifecycle.down(lab)
    assert not (FOLDER / A).exists()
