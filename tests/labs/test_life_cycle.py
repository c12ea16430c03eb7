"""The labs on the life of a connection run here; their recordings: test_recordings.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.engine.probe import probe
from netlab.labs import discovery, runner
from netlab.model.capabilities import Capabilities
from tests.labs.believed import believe

QUICK = {
    "resets": (),
    "silent-drop": ("retries-1", "reject", "reset"),
    "port-exhaustion": (),
    "keepalive": ("dead-peer", "60-10-3", "defaults"),
    "nat-timeout": ("server-first", "reset"),
    "eleven-states": ("simultaneous-close", "simultaneous-open"),
    "isn": ("timestamps",),
    "four-tuple": ("narrow", "same-port", "port-80", "port-80-allowed"),
    "syn-flood": ("cookies-on", "cookies-always", "no-timestamps"),
    "fast-open": ("client-only", "both"),
}
"""Variations that do not wait long; () is all but those on request."""


@pytest.fixture(scope="module")
def machine() -> Capabilities:
    return probe()


@pytest.mark.needs("netns", "tcpdump", "nft", "ss")
@pytest.mark.parametrize("name", list(QUICK))
def test_it_runs_here(
    name: str, machine: Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETLAB_STATE_DIR", str(tmp_path / "state"))
    lab = discovery.find(name)
    chosen = QUICK[name] or [key for key, each in lab.variations.items() if not each.takes]
    settings = runner.Settings(tmp_path / "results", machine, budget=8)
    runner.run(lab, settings, variations=chosen)
    believe(settings.root, name)
