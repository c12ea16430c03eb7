"""`netlab claims`: a ledger on stdout in three forms, and bad calls in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from netlab.cli.claims import claims
from netlab.errors import UsageError


def call(tmp_path: Path, *words: str) -> Result:
    return CliRunner().invoke(claims, ["--results", str(tmp_path), *words])


def test_text_ends_with_the_totals(tmp_path: Path) -> None:
    result = call(tmp_path, "--lab", "segment-anatomy")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "1 holds, 1 does not hold, 1 depends, 0 untested"
    assert "C41  DOES NOT HOLD" in result.output
    assert "\n     evidence: labs/segment-anatomy/recording: " in result.output


def test_json_has_all_seventy(tmp_path: Path) -> None:
    rows = json.loads(call(tmp_path, "--json").output)
    assert len(rows) == 70
    assert set(rows[0]) == {
        "id", "sources", "claim", "lab", "ruling", "measured", "reason", "kernel", "recording",
        "variations",
    }  # fmt: skip


def test_markdown_of_one_lab(tmp_path: Path) -> None:
    lines = call(tmp_path, "--markdown", "--lab", "mss").output.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| C23 |")


@pytest.mark.parametrize("words", [["--lab", "nothing"], ["--json", "--markdown"]])
def test_bad_calls(tmp_path: Path, words: list[str]) -> None:
    result = call(tmp_path, *words)
    assert isinstance(result.exception, UsageError)
