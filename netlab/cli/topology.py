"""`netlab plan`, `graph` and `schema`: what can be said of a topology without building it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from netlab.model.topology import Topology

FILE = click.Path(path_type=Path)


def _load(file: Path) -> Topology:
    """Load a topology and tell its warnings on stderr."""
    from netlab.model.yaml import load

    topology = load(file)
    for warning in topology.warnings:
        place = f"{warning.file or file}:{warning.line}:{warning.column}"
        click.echo(f"{place}: warning: {warning.message}", err=True)
    return topology


@click.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the operations as JSON.")
def plan(file: Path, as_json: bool) -> None:
    """Print what `up FILE` would do, as a commented shell script.

    The script is complete: run as root it builds the same network with ip, tc, ethtool and sysctl.
    """
    from netlab.plan.build import build
    from netlab.plan.script import as_data, script

    result = build(_load(file))
    click.echo(json.dumps(as_data(result), indent=1) if as_json else script(result), nl=as_json)


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    show_default=True,
)
@click.option("-o", "--output", type=FILE, help="Write to this file, not to stdout.")
def graph(file: Path, kind: str, output: Path | None) -> None:
    """Draw the topology in FILE."""
    from netlab.model import graph as drawing

    draw = {"mermaid": drawing.mermaid, "dot": drawing.dot, "svg": drawing.svg}[kind]
    text = draw(_load(file))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        click.echo(f"wrote {output}", err=True)


@click.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of topology files, for editors and other programs."""
    from netlab.model.yaml import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
