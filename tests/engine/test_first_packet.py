"""The first packet of a fresh lab is as quick as any other: nothing is still being settled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netlab.engine.stage import open_stage
from netlab.model.yaml import load
from tests.conftest import ROOT
from tests.engine.conftest import Notebook

pytestmark = pytest.mark.needs("netns", "ping")

SLOW_MS = 100  # a lost neighbour solicitation or a late carrier costs 1000


@pytest.mark.parametrize(
    ("topology", "from_", "to"),
    [("dumbbell", "h1", "h4"), ("two-hosts", "client", "server"), ("lan", "h1", "h3")],
)
def test_the_first_ping_of_a_fresh_lab_is_quick(
    topology: str, from_: str, to: str, tmp_path: Path
) -> None:
    path = ROOT / "topologies" / f"{topology}.yaml"
    if not path.exists():
        pytest.skip(f"no topologies/{topology}.yaml")
    loaded = load(path)
    for attempt in range(10):
        with open_stage(loaded, Notebook(tmp_path / str(attempt))) as stage:
            for version in ("-4", "-6") if attempt % 2 else ("-6", "-4"):
                told = stage.node(from_).run(["ping", version, "-c1", "-W3", to]).stdout
                found = re.search(r"time=([\d.]+) ms", told)
                assert found, told
                assert float(found[1]) < SLOW_MS, f"{version} in lab {attempt}"
