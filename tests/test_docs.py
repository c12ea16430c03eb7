"""The documents say what is so: links lead somewhere, commands parse, examples load."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from netlab.cli import COMMANDS, cli
from tests.conftest import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("labs/*/guide.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def _command_lines() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for document in DOCUMENTS:
        for language, block in FENCE.findall(document.read_text()):
            if language in {"console", "sh", "bash"}:
                for line in block.splitlines():
                    text = line.removeprefix("$ ").split("  #")[0].strip()
                    if re.match(r"netlab(-tcpip)? ", text):
                        found.append((document.name, text))
    return found


@pytest.mark.parametrize(("document", "line"), _command_lines())
def test_every_command_line_in_the_documents_parses(document: str, line: str) -> None:
    """The click command exists at every level, and its options are known."""
    words = shlex.split(re.split(r" (?:\||&&|>) ", line)[0])[1:]
    if words[0] == "--machine":
        assert words[1] in {"local", "guest"}, f"{document}: {line}"
        words = words[2:]
    context = click.Context(cli, info_name="netlab")
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, f"{document}: {line}"
        context = click.Context(found, info_name=name, parent=context)
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    known |= {"--help", "-h"}
    for word in words:
        if word == "--":
            break
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{document}: {line}: unknown option {word}"


def test_the_readme_names_both_entry_points_and_the_other_netlab() -> None:
    readme = (ROOT / "README.md").read_text()
    first_screen = "\n".join(readme.splitlines()[:40])
    for text in ("make lab", "make test", "networklab", "netlab-tcpip", "python -m netlab"):
        assert text in first_screen


def test_every_command_of_the_command_line_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert re.search(rf"`(netlab )?{name}\b|netlab {name}\b", readme), f"README lacks {name}"


def test_no_document_or_source_names_the_machine_it_was_written_on() -> None:
    private = re.compile(r"(?<![A-Za-z0-9_.])/(?:work|root|farm)/")
    for path in [*DOCUMENTS, *ROOT.glob("netlab/**/*.py"), *ROOT.glob("crates/*/src/**/*.rs")]:
        assert not private.search(path.read_text()), path.relative_to(ROOT)
