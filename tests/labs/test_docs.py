"""docs/writing-a-lab.md: its lab is whole, runs, and does what the page says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.engine.stage import Stage
from netlab.labs import discovery, expect
from netlab.labs.expect import Expectation
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "writing-a-lab.md"


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    folder = tmp_path / "labs" / "octet"
    folder.mkdir(parents=True)
    (folder / "lab.py").write_text(program)
    topology = (ROOT / "labs" / "teardown" / "topology.yaml").read_text()
    (folder / "topology.yaml").write_text(topology)
    (folder.parent / "pinned.yaml").write_text((ROOT / "labs" / "pinned.yaml").read_text())
    return folder.parent


def test_the_lab_of_the_page_is_whole(labs: Path) -> None:
    assert discovery.find("octet", labs).title == "One octet"


def test_every_word_of_the_page_exists() -> None:
    text = PAGE.read_text()
    for word in re.findall(r"`(?:with )?stage\.(\w+)\(", text):
        assert hasattr(Stage, word), word
    listed = re.search(r"one of `(.*?)`", text, re.DOTALL)
    assert listed is not None
    for word in re.findall(r"\.(\w+)", listed[1]):
        assert hasattr(Expectation, word), word
    assert expect(1).equals(1).passed


@pytest.mark.needs("netns", "userns", "tcpdump", "ss")
def test_the_lab_of_the_page_runs_and_its_first_fault_is_found_out(
    labs: Path, tmp_path: Path
) -> None:
    argv = (sys.executable, "-m", "netlab", "lab", "run", "octet", "--labs", str(labs))
    done = subprocess.run(
        (*argv, "--faults", "--json", "--results", str(tmp_path / "results")),
        capture_output=True, text=True, check=False, timeout=280, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (result,) = json.loads(done.stdout)
    assert {check["verdict"]["outcome"] for check in result["checks"]} == {"pass"}
    assert [fault["outcome"] for fault in result["faults"]] == ["fail", "pass"]
