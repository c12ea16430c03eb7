"""The labs on segments, options and MTU run here; their recordings: test_recordings.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.analysis.verdict import Outcome
from netlab.labs import discovery, runner
from tests.guest import in_guest

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
    # 3: all passed, and the guest's only processor was busy (fidelity `suspect`).
    assert done.status in (0, 3), done.stderr.decode() + done.stdout.decode()
