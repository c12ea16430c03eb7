from __future__ import annotations

import json
from pathlib import Path

import pytest

from netlab.engine.probe import quick, trial
from tests.cli.called import netlab
from tests.conftest import available

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
DUMBBELL = str(TOPOLOGIES / "dumbbell.yaml")


def test_plan_prints_a_script() -> None:
    done = netlab("plan", DUMBBELL)
    assert done.returncode == 0
    assert done.stdout.startswith("#!/bin/sh\n# dumbbell: 6 nodes, 5 links\n")
    assert done.stderr == ""


@pytest.mark.needs("netns", "userns")
def test_plan_shows_what_up_would_do_here_unless_told(tmp_path: Path) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text("nodes: [a, b]\nlinks: [{ends: a-b, delay: 1ms}]\n")
    with trial() as machine:
        netem = "netem" in quick(machine.channel).qdiscs
    for words in (("plan", str(file)), ("up", str(file), "--dry-run")):
        assert ("netlab.engine.wire_main" in netlab(*words).stdout) is not netem
        assert "qdisc replace dev p0" in netlab(*words, "--impair", "netem").stdout
        told = netlab(*words, "--impair", "wire").stdout
        assert "netlab.engine.wire_main" in told
        assert ("tuntap add" in told) is available("tun")


def test_plan_prints_json() -> None:
    data = json.loads(netlab("plan", DUMBBELL, "--json").stdout)
    assert data["topology"] == "dumbbell"
    assert {"operation", "line", "column", "commands"} == set(data["operations"][0])


@pytest.mark.parametrize(
    ("kind", "start"), [("mermaid", "graph LR"), ("dot", "graph "), ("svg", "<svg")]
)
def test_graph_draws(kind: str, start: str) -> None:
    assert netlab("graph", DUMBBELL, "--format", kind).stdout.startswith(start)


def test_graph_writes_a_file(tmp_path: Path) -> None:
    out = netlab("graph", DUMBBELL, "--format", "svg", "-o", str(tmp_path / "x.svg")).stdout
    assert out == ""
    assert (tmp_path / "x.svg").read_text().startswith("<svg")


def test_schema_is_json() -> None:
    assert json.loads(netlab("schema").stdout)["title"] == "netlab topology"


@pytest.mark.parametrize("command", ["plan", "graph"])
def test_bad_input_is_exit_code_2_and_one_sentence(command: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("nodes: [h1, h1]\nlinks: [h1-h2]\n")
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / "empty.yaml").write_text("")
    for name in ("bad.yaml", "missing.yaml", "binary", "empty.yaml", "."):
        done = netlab(command, tmp_path / name)
        assert (done.returncode, done.stdout) == (2, ""), name
        assert str(tmp_path) in done.stderr
        assert len(done.stderr.splitlines()) == (2 if name == "bad.yaml" else 1)


def test_a_warning_goes_to_stderr(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(
        "nodes: [a, b]\nlinks:\n"
        "  - ends: [{node: a, address: 10.0.0.1/24}, {node: b, address: 10.0.1.1/24}]\n"
    )
    done = netlab("plan", path)
    assert done.returncode == 0
    assert "odd.yaml:3:5: warning: the ends of link 'a-b' share no IPv4 network" in done.stderr
