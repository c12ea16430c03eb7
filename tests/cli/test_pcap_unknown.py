"""A capture of a link type that nobody here reads: every command says so, and counts once."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from netlab.cli import cli
from netlab.errors import UsageError
from tests.capture import pcaps

LINK = 195  # IEEE 802.15.4


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "unknown.pcap"
    path.write_bytes(pcaps.pcap([pcaps.Packet(1, bytes(60))], linktype=LINK))
    return path


def test_a_summary_counts_what_it_did_not_read_once(capture: Path) -> None:
    told = CliRunner().invoke(cli, ["pcap", "summary", str(capture)], catch_exceptions=False)
    assert f"packets: 1 not decoded (link type {LINK} unknown)" in told.output


@pytest.mark.parametrize("command", ["diagram", "states"])
def test_no_ladder_without_segments_and_why(capture: Path, command: str) -> None:
    with pytest.raises(UsageError, match="no TCP segments") as refused:
        cli.main(["pcap", command, str(capture)], standalone_mode=False)
    assert refused.value.hint == f"netlab does not read packets of link type {LINK}"
