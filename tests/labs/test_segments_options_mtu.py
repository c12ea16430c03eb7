"""The labs on segments, options and MTU run here; their recordings: test_recordings.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.labs import discovery, runner
from tests.guest import in_guest
from tests.labs.believed import believe

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


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runner.Settings:
    monkeypatch.setenv("NETLAB_STATE_DIR", str(tmp_path / "state"))
    return runner.Settings(tmp_path / "results")


@pytest.mark.needs("netns", "tcpdump", "nft", "ss")
@pytest.mark.parametrize("name", list(QUICK))
def test_it_runs_here(name: str, settings: runner.Settings) -> None:
    runner.run(discovery.find(name), settings, variations=QUICK[name])
    believe(settings.root, name)


@pytest.mark.needs("uml")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variations"),
    [("window-scaling", ()), ("sack", ("rtt-50ms", "rtt-50ms-no-sack"))],
)
def test_it_runs_in_the_guest(name: str, variations: tuple[str, ...], tmp_path: Path) -> None:
    chosen = [word for variation in variations for word in ("--variation", variation)]
    argv = ["python", "-m", "netlab", "lab", "run", name, *chosen, "--results", str(tmp_path)]
    done = in_guest(argv, writable=(tmp_path,))
    assert done.status in (0, 3, 6), done.stderr.decode() + done.stdout.decode()
    believe(tmp_path, name)
