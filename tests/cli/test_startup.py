"""The command line is felt at every TAB: it starts quickly and fails in one sentence."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from netlab.__main__ import plain_exec
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
    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "click.py").write_text(interrupt)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("netlab", "netlab-tcpip"):
        module, _, function = project["scripts"][name].partition(":")
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        code += f"from {module} import {function}; {function}()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_closed_standard_output_is_no_traceback() -> None:
    command = [sys.executable, "-m", "netlab", "lab", "list"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("exec a ls", (None, "a", ["ls"])),
        ("exec a -- ls -l", (None, "a", ["ls", "-l"])),
        ("exec --lab x a ls -- -l", ("x", "a", ["ls", "--", "-l"])),
        ("exec -t a ls", None),
        ("exec --help", None),
        ("exec a", None),
        ("exec a --", None),
        ("exec a -l", None),
        ("exec --lab x", None),
        ("--machine guest exec a ls", None),
        ("status", None),
        ("", None),
    ],
)
def test_the_plain_form_of_exec_is_told_from_all_others(words: str, found: object) -> None:
    assert plain_exec(words.split()) == found


def test_the_plain_form_of_exec_loads_no_parser_of_options() -> None:
    code = (
        "import sys\nfrom netlab.__main__ import main\n"
        "sys.argv = ['netlab', 'exec', '--lab', 'none', 'a', 'true']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 125, end.code\n"
        "print([m for m in ('click', 'dataclasses', 'pathlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "no lab called 'none' runs" in done.stderr


@pytest.mark.parametrize("module", ["netlab.cli", "click", "netlab.errors"])
def test_an_interrupt_while_modules_are_imported_is_one_word(module: str) -> None:
    code = (
        "import builtins, os, signal, sys\n"
        "import netlab.__main__ as main\n"
        "real = builtins.__import__\n"
        "def watched(name, *more):\n"
        f"    if name == {module!r}:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *more)\n"
        "builtins.__import__ = watched\n"
        "sys.argv = ['netlab', 'status']\n"
        "main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    "words", ["--help", "plan topologies/dumbbell.yaml", "schema", "lab list", "version"]
)
def test_a_full_standard_output_is_named(words: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "netlab", *words.split()],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, cwd=ROOT, check=False,
        )  # fmt: skip
    told = "error: No space left on device while writing to standard output\n"
    assert (done.returncode, done.stderr) == (2, told)
