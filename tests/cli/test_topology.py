from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.engine.probe import quick, trial
from tests.cli import called
from tests.conftest import available

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
DUMBBELL = str(TOPOLOGIES / "dumbbell.yaml")


def netlab(*argv: str) -> subprocess.CompletedProcess[str]:
    return called.netlab(*argv)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run the command line in this process; return status, stdout and stderr."""
    from netlab.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["netlab", *argv])
        with pytest.raises(SystemExit) as caught:
            main()
    done = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, done.out, done.err


def test_plan_prints_a_script() -> None:
    done = netlab("plan", DUMBBELL)
    assert done.returncode == 0
    assert done.stdout.startswith("#!/bin/sh\n# dumbbell: 6 nodes, 5 links\n")
    assert done.stderr == ""


@pytest.mark.needs("netns", "userns")
def test_plan_shows_what_up_would_do_here_unless_told(tmp_path: Path, capsys) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text("nodes: [a, b]\nlinks: [{ends: a-b, delay: 1ms}]\n")
    with trial() as machine:
        netem = "netem" in quick(machine.channel).qdiscs
    for words in (("plan", str(file)), ("up", str(file), "--dry-run")):
        assert ("netlab.engine.wire_main" in run(capsys, *words)[1]) is not netem
        assert "qdisc replace dev p0" in run(capsys, *words, "--impair", "netem")[1]
        told = run(capsys, *words, "--impair", "wire")[1]
        assert "netlab.engine.wire_main" in told
        assert ("tuntap add" in told) is available("tun")


def test_plan_prints_json(capsys) -> None:
    data = json.loads(run(capsys, "plan", DUMBBELL, "--json")[1])
    assert data["topology"] == "dumbbell"
    assert {"operation", "line", "column", "commands"} == set(data["operations"][0])


@pytest.mark.parametrize(
    ("kind", "start"), [("mermaid", "graph LR"), ("dot", "graph "), ("svg", "<svg")]
)
def test_graph_draws(kind: str, start: str, capsys) -> None:
    assert run(capsys, "graph", DUMBBELL, "--format", kind)[1].startswith(start)


def test_graph_writes_a_file(tmp_path: Path, capsys) -> None:
    out = run(capsys, "graph", DUMBBELL, "--format", "svg", "-o", str(tmp_path / "x.svg"))[1]
    assert out == ""
    assert (tmp_path / "x.svg").read_text().startswith("<svg")


def test_schema_is_json(capsys) -> None:
    assert json.loads(run(capsys, "schema")[1])["title"] == "netlab topology"


@pytest.mark.parametrize("command", ["plan", "graph"])
def test_bad_input_is_exit_code_2_and_one_sentence(command: str, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("nodes: [h1, h1]\nlinks: [h1-h2]\n")
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / "empty.yaml").write_text("")
    for name in ("bad.yaml", "missing.yaml", "binary", "empty.yaml", "."):
        status, out, err = run(capsys, command, str(tmp_path / name))
        assert (status, out) == (2, ""), name
        assert str(tmp_path) in err
        assert len(err.splitlines()) == (2 if name == "bad.yaml" else 1)


def test_a_warning_goes_to_stderr(tmp_path: Path, capsys) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(
        "nodes: [a, b]\nlinks:\n"
        "  - ends: [{node: a, address: 10.0.0.1/24}, {node: b, address: 10.0.1.1/24}]\n"
    )
    status, _, err = run(capsys, "plan", str(path))
    assert status == 0
    assert "odd.yaml:3:5: warning: the ends of link 'a-b' share no IPv4 network" in err
