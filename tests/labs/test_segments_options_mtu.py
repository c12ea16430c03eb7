"""The labs on segments, options and MTU: their recordings still pass, and they run here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.analysis.verdict import Outcome
from netlab.labs import discovery, guide, judge, runner
from netlab.recording import Recording
from tests.guest import in_guest

NAMES = (
    "segment-anatomy", "raw-syn", "mss", "path-mtu", "pmtu-black-hole", "fragmentation",
    "timestamps", "window-scaling", "sack",
)  # fmt: skip
QUICK = {
    "segment-anatomy": (),
    "raw-syn": (),
    "mss": ("mtu-1500", "unequal", "ipv6", "clamped", "no-timestamps"),
    "path-mtu": (),
    "pmtu-black-hole": ("black-hole", "clamp", "allow-icmp", "probing-2"),
    "fragmentation": (),
    "timestamps": (),
    "sack": ("sack", "no-sack", "duplicate", "no-dsack"),
}
"""Variations that take about a second each; () is all."""


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
    assert sum(path.stat().st_size for path in files) < 300_000
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


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runner.Settings:
    monkeypatch.setenv("NETLAB_STATE_DIR", str(tmp_path / "state"))
    return runner.Settings(tmp_path / "results")


@pytest.mark.needs("netns", "tcpdump", "nft", "ss")
@pytest.mark.parametrize("name", list(QUICK))
def test_it_runs_here(name: str, settings: runner.Settings) -> None:
    result = runner.run(discovery.find(name), settings, variations=QUICK[name])
    bad = [(v.name, v.status, v.reason) for v in result.variations if v.status != "ran"]
    assert bad == []
    wrong = [
        (c.check, c.variations, c.verdict)
        for c in result.checks
        if c.verdict.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
    ]
    assert wrong == []


@pytest.mark.needs("uml")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variations"),
    [("window-scaling", ("off",)), ("sack", ("rtt-50ms", "rtt-50ms-no-sack"))],
)
def test_it_runs_in_the_guest(name: str, variations: tuple[str, ...], tmp_path: Path) -> None:
    chosen = [word for variation in variations for word in ("--variation", variation)]
    argv = ["python", "-m", "netlab", "lab", "run", name, *chosen, "--results", str(tmp_path)]
    done = in_guest(argv, writable=(tmp_path,))
    assert done.status == 0, done.stderr.decode() + done.stdout.decode()


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
