"""`netlab reboot`: a lab that runs, changed by hand."""

from __future__ import annotations

import math

import click

from netlab.errors import UsageError

lab_option = click.option("--lab", "lab_name", metavar="NAME", help="Needed when several labs run.")


def seconds(option: str, text: str) -> float:
    """Return a time of the command line in seconds; UsageError names the option."""
    from netlab.units import parse_time

    try:
        found = parse_time(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
    if not 0 <= found < math.inf:
        raise UsageError(f"{option}: cannot wait for {text}")
    return found


@click.command()
@lab_option
@click.option("--off", metavar="TIME", help="Leave it switched off for so long, such as 2s.")
@click.argument("node")
def reboot(lab_name: str | None, off: str | None, node: str) -> None:
    """Switch NODE off without a word to its peers, and on again.

    Its sockets, neighbours and tracked connections are gone; MACs, addresses, routes, sysctls and
    firewall are those of the topology, whose programs start again. Other nodes go on undisturbed.
    """
    from netlab.engine import change
    from netlab.engine.apply import exclusive

    pause = seconds("--off", off) if off is not None else 0.0
    with exclusive(lab_name) as lab:
        change.reboot(lab, node, off=pause)
    click.echo(f"node {node} of lab {lab.id} has been rebooted", err=True)
