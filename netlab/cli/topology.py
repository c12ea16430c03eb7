"""`netlab plan`, `graph` and `schema`: what can be said of a topology without building it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from netlab.model.topology import Topology
    from netlab.plan.backend import Backend
    from netlab.plan.operations import Plan

FILE = click.Path(path_type=Path)
Command = Callable[..., None]


def topology_options(command: Command) -> Command:
    """Add FILE, --topo and --set to a command that begins with a topology."""
    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="Set a variable of the file, or a key of it such as defaults.links.delay=20ms.",
        ),
        click.option(
            "--topo", metavar="KIND,N,…", help="A network made by rule instead: tree,2,3 or ring,5."
        ),
        click.argument("file", type=FILE, required=False),
    ):
        command = option(command)
    return command


def load_topology(file: Path | None, topo: str | None, settings: tuple[str, ...]) -> Topology:
    """Load the topology a command was given, and tell its warnings on stderr."""
    from netlab.errors import UsageError
    from netlab.model.yaml import generated, load

    if topo is not None and file is not None:
        raise UsageError("give a topology FILE or --topo, not both")
    if topo is not None:
        topology = generated(topo, settings)
    elif file is not None:
        topology = load(file, settings)
    else:
        raise UsageError("give a topology FILE, or --topo such as --topo tree,2,3")
    for warning in topology.warnings:
        place = f"{warning.file or file}:{warning.line}:{warning.column}"
        click.echo(f"{place}: warning: {warning.message}", err=True)
    return topology


impair_option = click.option(
    "--impair",
    type=click.Choice(["netem", "wire"]),
    help="What impairs links: the kernel's netem or the userspace wire (default: whichever can).",
)


def plan_here(topology: Topology, impair: Backend | None, *, rootless: bool | None = None) -> Plan:
    """Return the plan that `up` would carry out on this machine.

    The machine is asked only if links are impaired and `impair` leaves a choice to it. Where no lab
    can be built at all, the plan is that of a machine that can do everything, with a warning.
    """
    from netlab.errors import CapabilityError
    from netlab.plan.build import build

    if str(impair) == "netem" or not any(link.forward or link.backward for link in topology.links):
        return build(topology, impair=impair)
    from netlab.engine.probe import quick, trial

    try:
        with trial(rootless=rootless) as found:
            capabilities = quick(found.channel)
    except CapabilityError as error:
        click.echo(f"warning: made without looking at this machine: {error}", err=True)
        capabilities = None
    return build(topology, capabilities, impair)


@click.command()
@topology_options
@impair_option
@click.option("--json", "as_json", is_flag=True, help="Print the operations as JSON.")
def plan(
    file: Path | None,
    topo: str | None,
    settings: tuple[str, ...],
    impair: str | None,
    as_json: bool,
) -> None:
    """Print what `up FILE` would do, as a commented shell script.

    The script is complete: run as root it builds the same network with ip, tc, ethtool and sysctl.
    What impairs links is what `up` would choose here; `--impair netem` shows netem on any machine.
    """
    from netlab.plan.backend import Backend
    from netlab.plan.script import as_data, script

    wanted = Backend(impair) if impair else None
    result = plan_here(load_topology(file, topo, settings), wanted)
    click.echo(json.dumps(as_data(result), indent=1) if as_json else script(result), nl=as_json)


@click.command()
@topology_options
@click.option(
    "--format",
    "kind",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    show_default=True,
)
@click.option("-o", "--output", type=FILE, help="Write to this file, not to stdout.")
def graph(
    file: Path | None, topo: str | None, settings: tuple[str, ...], kind: str, output: Path | None
) -> None:
    """Draw the topology in FILE."""
    from netlab.model import graph as drawing

    draw = {"mermaid": drawing.mermaid, "dot": drawing.dot, "svg": drawing.svg}[kind]
    text = draw(load_topology(file, topo, settings))
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
