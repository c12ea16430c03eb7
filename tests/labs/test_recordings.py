"""Every lab: its committed recording passes, is small and whole, and its guide keeps its word."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from netlab.labs import discovery, guide, judge
from netlab.recording import Recording

NAMES = discovery.names()


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_recording_passes(name: str) -> None:
    lab = discovery.find(name)
    result = judge.check_run(lab, lab.folder / "recording")
    told = [(c.check, c.variations, c.verdict) for c in result.checks if not c.verdict.passed]
    assert told == []
    assert {v.name for v in result.variations} == set(lab.variations)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_recording_is_whole_small_and_free_of_paths(name: str) -> None:
    folder = discovery.find(name).folder / "recording"
    for manifest in folder.glob("*/manifest.json"):
        assert Recording.open(manifest.parent).damaged() == ()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 600_000
    for path in files:
        assert b"/home/" not in path.read_bytes()
        assert b"/root/" not in path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_of_the_guide_is_measured(name: str) -> None:
    lab = discovery.find(name)
    _, recordings, _ = judge.open_run(lab.folder / "recording")
    figures = guide.measure(lab, recordings)
    assert set(guide.places(guide.read(lab))) <= set(figures)


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_asks_before_it_tells(name: str) -> None:
    text = guide.read(discovery.find(name))
    places = [text.index(f"\n## {word}\n") for word in ("Predict", "Run", "Compare", "Explain")]
    assert places == sorted(places)
    assert f"netlab lab run {name}" in text


def by_hand(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of the guide's part "By hand" that run in a node, as (node, words…)."""
    text = guide.read(discovery.find(name))
    for line in re.findall(r"^    netlab exec (.*)$", text, re.MULTILINE):
        node, dashes, *words = shlex.split(line)
        assert dashes == "--"
        yield (node, *words)


@pytest.mark.parametrize("name", NAMES)
def test_commands_by_hand_name_nodes_that_are_there(name: str) -> None:
    from netlab.model.yaml import load

    topology = load(discovery.find(name).folder / "topology.yaml")
    for node, *words in by_hand(name):
        assert node in topology.by_name
        if words[:2] == ["python3", "-m"]:
            agent = __import__(words[2], fromlist=["parse"])
            placeholders = {"HERE": "10.0.0.1", "THERE": "10.0.0.2", "ADDRESS": "10.0.0.2"}
            agent.parse([placeholders.get(word, word) for word in words[3:]])
