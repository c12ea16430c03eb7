"""`netlab link`, `sysctl` and `reboot`: a lab that runs, changed by hand."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import click

from netlab.errors import UsageError

if TYPE_CHECKING:
    from netlab.engine.state import Lab

Json = dict[str, Any]

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


@click.command()
@lab_option
@click.option("--for", "duration", metavar="TIME", help="With down: set it up again after this.")
@click.option("--times", type=click.IntRange(1, 1000), default=3, help="With flap: how often (3).")
@click.option("--down", "low", metavar="TIME", default="1s", help="With flap: how long down (1s).")
@click.option("--up", "high", metavar="TIME", default="1s", help="With flap: how long up (1s).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("link", required=False)
@click.argument("action", required=False, type=click.Choice(["up", "down", "flap"]))
def link(
    lab_name: str | None,
    duration: str | None,
    times: int,
    low: str,
    high: str,
    as_json: bool,
    link: str | None,
    action: str | None,
) -> None:
    """Set LINK (a name, h1-h2, or one interface, h1:eth0) up or down, or show it.

    Down means both its interfaces, or the one named. Up again it has the addresses and routes it
    had; addresses and routes made by hand are the kernel's to forget.
    """
    from netlab.engine import change, links, state

    if duration is not None and action != "down":
        raise UsageError("--for goes with down")
    pauses = [seconds("--for", duration)] if duration is not None else []
    if action == "flap":
        pauses = [seconds("--down", low), seconds("--up", high)]
    if link is None or action is None:
        lab = state.find(lab_name)
        topology = change.running(lab)
        chosen = topology.links if link is None else [links.choose(topology, link)[0]]
        _show_links([links.told(lab, topology, one) for one in chosen], as_json=as_json)
        return
    _set_link(lab_name, link, up=action == "up")
    try:
        if action == "flap":
            for _ in range(times - 1):
                time.sleep(pauses[0])
                _set_link(lab_name, link, up=True)
                time.sleep(pauses[1])
                _set_link(lab_name, link, up=False)
        if pauses:
            time.sleep(pauses[0])
    finally:
        if pauses:
            _set_link(lab_name, link, up=True)
    lab = state.find(lab_name)
    topology = change.running(lab)
    if as_json:
        one, _ = links.choose(topology, link)
        _show_links([links.told(lab, topology, one)], as_json=True)


def _set_link(lab_name: str | None, text: str, *, up: bool) -> None:
    from netlab.engine import change, links
    from netlab.engine.apply import exclusive

    with exclusive(lab_name) as lab:
        before = change.running(lab)
        _, ends = links.choose(before, text)
        change.set_links(lab, before, links.with_ends(before, ends, up=up))


def _show_links(told: list[Json], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for one in told:
        ends = ", ".join(
            f"{end['interface']} {'up' if end['up'] else 'down'}"
            f"{'' if end['carrier'] or not end['up'] else ' (no carrier)'}"
            for end in one["ends"]
        )
        click.echo(f"{one['link']}: {ends}")


@click.command()
@lab_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("node")
@click.argument("keys", nargs=-1, metavar="[KEY[=VALUE]]...")
def sysctl(lab_name: str | None, as_json: bool, node: str, keys: tuple[str, ...]) -> None:
    """Show the sysctl KEY of NODE, or set it to VALUE and verify it.

    Without a KEY: those that the topology or you have set. What is set holds until the node is
    rebooted or `apply` changes it back.
    """
    from netlab.engine import sysctls
    from netlab.engine.apply import exclusive

    pairs = [key.partition("=") for key in keys]
    wanted = {sysctls.key_of(key): value.strip() for key, equals, value in pairs if equals}
    with exclusive(lab_name) as lab:
        if wanted:
            sysctls.write(lab, node, wanted)
        shown = [sysctls.key_of(key) for key, _, _ in pairs] or _own_sysctls(lab, node)
        values = sysctls.read(lab, node, shown)
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    for key, value in values.items():
        click.echo(f"{key} = {value}")


def _own_sysctls(lab: Lab, node: str) -> list[str]:
    """Return the sysctls of a node that are not what they are in every namespace."""
    from netlab.engine import change, reach
    from netlab.plan.build import build
    from netlab.plan.operations import SetSysctl

    reach.check_node(lab, node)
    found = [
        operation.key
        for operation in build(change.running(lab)).operations
        if isinstance(operation, SetSysctl) and operation.node == node
    ]
    return list(dict.fromkeys([*found, *lab.state.get("sysctls", {}).get(node, ())]))
