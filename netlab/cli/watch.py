"""`netlab lab run --watch`: when a lab's files change, do again what they concern, and no more.

A change of the topology or of the scenario needs a run. One of checks, figures or claims needs
only the recording that is there. What a change concerns is read from the program itself: two
versions of `lab.py` whose code is equal without the functions of checks, figures and claims, and
without the planted faults, play the same scenario.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netlab.errors import NetlabError

if TYPE_CHECKING:
    from netlab.labs.lab import Lab
    from netlab.labs.runner import Settings

JUDGING = frozenset({"check", "figure", "claim"})
EVERY = 0.3  # seconds between two looks at the files


@dataclass(frozen=True, slots=True)
class State:
    """What a lab's files say: `played` changes what a run does, `judged` what is made of it."""

    played: str
    judged: str


def state(folder: Path) -> State:
    """Return the state of a lab's folder; unreadable files are a state too."""
    program = _text(folder / "lab.py")
    networks = [_network(path) for path in sorted(folder.glob("*.y*ml"))]
    return State("\0".join([scenario(program), *networks]), program)


def scenario(program: str) -> str:
    """Return the code of a `lab.py` without what only judges; all of it if it is no Python."""
    try:
        tree = ast.parse(program)
    except SyntaxError:
        return program
    tree.body = [part for part in tree.body if not _judges(part)]
    return ast.dump(tree)


def _network(path: Path) -> str:
    """Return the network of a topology file, included files and all; its text if it is none."""
    from netlab.model.dump import dump_json
    from netlab.model.yaml import load

    try:
        return dump_json(load(path))
    except NetlabError:
        return _text(path)


def _judges(part: ast.stmt) -> bool:
    """Tell whether a statement is a check, a figure, a claim, or plants a fault."""
    if isinstance(part, ast.FunctionDef):
        return any(_method(decorator) in JUDGING for decorator in part.decorator_list)
    return isinstance(part, ast.Expr) and _method(part.value) == "fault"


def _method(node: ast.expr) -> str:
    """Return "check" for `lab.check`, `lab.check(...)`; "" for anything else."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "lab" else ""
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def follow(
    labs: Sequence[Lab], settings: Settings, *, variations: Sequence[str], faults: bool
) -> None:
    """Look at the folders of labs until an interrupt, and do again what changed.

    A change counts when two looks have seen the same.
    """
    folders = [lab.folder for lab in labs]
    known = {folder: state(folder) for folder in folders}
    last = dict(known)
    click.echo(f"watching {', '.join(lab.name for lab in labs)}; Ctrl-C ends it", err=True)
    while True:
        time.sleep(EVERY)
        for folder in folders:
            before, now = last[folder], state(folder)
            last[folder] = now
            if now == known[folder] or now != before:  # an editor may be half done
                continue
            again = now.played != known[folder].played
            known[folder] = now
            try:
                _redo(folder, settings, again=again, variations=variations, faults=faults)
            except NetlabError as error:
                click.echo(f"error: {error}", err=True)


def _redo(
    folder: Path, settings: Settings, *, again: bool, variations: Sequence[str], faults: bool
) -> None:
    from netlab.cli.lab import play, print_result, report
    from netlab.labs import discovery, judge

    lab = discovery.load(folder)
    if again:
        click.echo(f"{lab.name} has changed: running it", err=True)
        done = play([lab], settings, variations=variations, faults=faults)
        report([lab], done, settings.root)
    else:
        click.echo(f"the checks of {lab.name} have changed: judging the last run", err=True)
        print_result(judge.check_run(lab, settings.root / lab.name / "latest"))
