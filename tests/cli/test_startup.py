"""The command line is felt at every TAB: it starts quickly and fails in one sentence."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from netlab.cli import ALIASES, COMMANDS
from tests.conftest import ROOT

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
    for name in (*COMMANDS, *ALIASES):
        assert done.stdout.count(f"\n  {name} ") == 1


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


def test_ctrl_c_while_the_command_line_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("netlab", "netlab-tcpip"):
        module, _, function = project["scripts"][name].partition(":")
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        code += f"from {module} import {function}; {function}()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (130, "")


def test_a_closed_standard_output_is_no_traceback() -> None:
    command = [sys.executable, "-m", "netlab", "lab", "list"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
