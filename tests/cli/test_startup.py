"""The command line is felt at every TAB: it starts quickly and fails in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netlab.cli import COMMANDS

HEAVY = ("pydantic", "rich", "yaml", "netlab._core", "netlab.engine", "netlab.labs", "asyncio")


def netlab(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "netlab", *arguments],
        capture_output=True, text=True, timeout=30, cwd=cwd, check=False,
    )  # fmt: skip


def test_help_loads_no_heavy_module() -> None:
    code = (
        "import sys\nfrom netlab.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "print([m for m in " + repr(HEAVY) + " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_lists_every_command() -> None:
    done = netlab("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = netlab(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_an_unknown_command_gets_a_hint_and_status_2() -> None:
    done = netlab("pacp")
    assert done.returncode == 2
    assert "did you mean 'pcap'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_a_usage_error() -> None:
    done = netlab("version", "--nonsense")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
