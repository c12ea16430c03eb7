"""`netlab lab new`: what it makes runs, passes and finds its fault at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.errors import UsageError
from netlab.labs import discovery, guide, scaffold
from netlab.model.yaml import load
from tests.conftest import ROOT


def netlab(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-W", "error", "-m", "netlab", "lab", *arguments),
        capture_output=True, text=True, check=False, timeout=280, cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip


def test_a_new_lab_is_whole(tmp_path: Path) -> None:
    folder = scaffold.new("my-lab", tmp_path)
    lab = discovery.load(folder)
    assert (lab.name, lab.title) == ("my-lab", "My lab")
    assert load(folder / "topology.yaml").name == "my-lab"
    assert guide.load(lab).title == "My lab"


@pytest.mark.parametrize("name", discovery.names())
def test_a_copy_of_any_lab_is_whole(name: str, tmp_path: Path) -> None:
    folder = scaffold.new("copy", tmp_path, discovery.find(name))
    lab = discovery.load(folder)
    assert load(folder / lab.topology).name == "copy"
    assert guide.load(lab).steps
    assert not (folder / "recording").exists()


@pytest.mark.parametrize("name", ["", "My", "a--b", "../x", "-a", "a_b"])
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name for a lab"):
        scaffold.new(name, tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    scaffold.new("mine", tmp_path)
    with pytest.raises(UsageError, match="exists"):
        scaffold.new("mine", tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        scaffold.new("mine", tmp_path / "nowhere")


@pytest.mark.needs("netns", "tcpdump")
def test_what_is_printed_runs_and_passes_with_its_fault(tmp_path: Path) -> None:
    made = netlab("new", "mine", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    words = made.stdout.splitlines()[-1].split()
    assert words[:3] == ["netlab", "lab", "run"]
    done = netlab(*words[2:], "--json", cwd=tmp_path)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    (result,) = json.loads(done.stdout)
    assert {check["verdict"]["outcome"] for check in result["checks"]} == {"pass"}
    assert [fault["outcome"] for fault in result["faults"]] == ["pass"]
