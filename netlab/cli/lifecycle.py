"""`netlab up`, `down`, `status` and `inspect`: labs that stay until they are taken away."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netlab.cli.topology import impair_option, load_topology, plan_here, topology_options
from netlab.errors import UsageError

if TYPE_CHECKING:
    from netlab.model.topology import Process

Json = dict[str, Any]


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


@click.command()
@topology_options
@click.option("--name", metavar="NAME", help="Call the lab so, not as its file says.")
@click.option("--rootless/--no-rootless", default=None, help="Use a user namespace (or refuse to).")
@click.option("--named", is_flag=True, help="Give the nodes names for `ip netns` too (root).")
@click.option(
    "--external",
    "ways_out",
    multiple=True,
    metavar="[NODE=]IF[,…]",
    help="Give a node (the only nat) an interface on the network of this machine's interface IF: "
    "IF,ADDRESS/LENGTH,GATEWAY (root; repeatable).",
)
@impair_option
@click.option("--dry-run", is_flag=True, help="Print what would be done, as a script; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the lab as JSON.")
def up(
    file: Path | None,
    topo: str | None,
    settings: tuple[str, ...],
    name: str | None,
    rootless: bool | None,
    named: bool,
    ways_out: tuple[str, ...],
    impair: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build the network of a topology FILE and leave it running."""
    from netlab.plan.backend import Backend

    wanted = Backend(impair) if impair else None
    topology = load_topology(file, topo, settings)
    from netlab.engine import external, lifecycle

    out = [external.parse(text, topology) for text in ways_out]
    if dry_run:
        from netlab.plan.script import script

        plan = external.translated(plan_here(topology, wanted, rootless=rootless), out)
        click.echo(script(plan), nl=False)
        for one in out:
            click.echo(f"\n# --external {one}")
            for argv in one.commands:
                click.echo(shlex.join(argv))
        return

    began = time.monotonic()
    _check_name(name)
    lab, fresh = lifecycle.up(
        topology,
        name=name,
        rootless=rootless,
        named=named,
        impair=wanted,
        ways_out=out,
        # From here the lab stays and we say so: status 130 would be untrue.
        past_return=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    told = lifecycle.summary(lab)
    if as_json:
        _print_json({**told, "fresh": fresh})
    if fresh:
        took = time.monotonic() - began
        text = f"lab {lab.id} is up: {told['nodes']} nodes, {told['links']} links, {took:.2f} s"
    else:
        text = f"lab {lab.id} is up already; nothing changed"
    click.echo(text, err=True)


@click.command()
@topology_options
@click.option("--lab", "name", metavar="NAME", help="The lab to change; else the topology's name.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, as a script; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the operations as JSON.")
def apply(
    file: Path | None,
    topo: str | None,
    settings: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a running lab that of a topology FILE, changing only what differs.

    Links and programs that stay the same are not disturbed. What `netlab tc`, `link` and `sysctl`
    have changed is changed back.
    """
    from netlab.engine import apply as applying
    from netlab.engine import change
    from netlab.plan.script import as_data, script

    topology = load_topology(file, topo, settings)
    with applying.exclusive(name or topology.name) as lab:
        wanted = change.difference(lab, topology)
        ending = [_program("end", process) for process in wanted.programs.ending]
        beginning = [_program("start", process) for process in wanted.programs.beginning]
        if as_json:
            _print_json({**as_data(wanted.plan), "ending": ending, "beginning": beginning})
        elif dry_run:
            for word in ending:
                click.echo(f"# {word['text']}")
            click.echo(script(wanted.plan), nl=False)
            for word in beginning:
                click.echo(f"# {word['text']}")
        if dry_run:
            for link in dict.fromkeys(wish.direction.link for wish in wanted.shaped):
                click.echo(f"also as in the file again: {link}", err=True)
            return
        if wanted:
            change.change(lab, wanted)
    count = len(wanted.plan.operations)
    programs = len(ending) + len(beginning)
    told = f"{count} operations" + (f", {programs} of programs" if programs else "")
    click.echo(f"lab {lab.id}: {told}" if wanted else f"lab {lab.id} is so", err=True)


def _program(verb: str, process: Process) -> Json:
    argv = " ".join(process.command)
    return {
        "process": process.name,
        "node": process.node,
        "text": f"{verb} {process.name} in {process.node}: {argv}",
    }


def _check_name(name: str | None) -> None:
    if name is None:
        return
    if not name or len(name) > 64 or not all(c.isalnum() or c in "_.-" for c in name):
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a lab",
            hint="use at most 64 letters, digits, '-', '_' and '.'",
        )
    if name.startswith((".", "-")):
        raise UsageError(f"the name of a lab cannot begin with {name[0]!r}")


@click.command()
@click.argument("lab", required=False, metavar="[NAME|FILE]")
@click.option("--all", "everything", is_flag=True, help="All labs of yours that `up` left running.")
def down(lab: str | None, everything: bool) -> None:
    """Take a lab away: its processes, its network, all of it."""
    from netlab.engine import lifecycle, state

    running = [found for found in state.labs() if not found.state["foreground"]]
    if lab is not None and everything:
        raise UsageError("a lab and --all together make no sense")
    if everything:
        chosen = running
    elif lab is not None:
        chosen = _chosen(lab, state.labs())
    else:
        if len(running) > 1:
            names = ", ".join(found.id for found in running)
            raise UsageError(f"{len(running)} labs run ({names})", hint="say which, or --all")
        chosen = running
    if not chosen:
        what = f"lab {lab} does not run" if lab is not None else "no lab runs"
        click.echo(f"{what}; nothing to do", err=True)
    for found in chosen:
        lifecycle.down(found)
        click.echo(f"lab {found.id} is gone", err=True)


def _chosen(lab: str, running: list[Any]) -> list[Any]:
    """The labs that a name or a topology file means."""
    named = [found for found in running if found.id == lab]
    if named:
        return named
    path = Path(lab)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        return []
    real = str(path.resolve())
    same = [
        f
        for f in running
        if f.state.get("source") and str(Path(f.state["source"]).resolve()) == real
    ]
    return [found for found in same if not found.state["foreground"]]


@click.command()
def gc() -> None:
    """Remove what dead labs have left: state directories, names under /run/netns, control groups.

    Nothing of a dead lab is alive, and every other command that looks at labs does the same; this
    one only says so.
    """
    from netlab.engine import state

    dead = [path for path in state.directories() if not state.is_alive(path)]
    for path in dead:
        if state.sweep(path):
            click.echo(f"removed {path}", err=True)
    orphans = state.sweep_outside()
    for lab, removed in orphans:
        rest = "" if removed else ", but for names and groups that processes live in"
        click.echo(f"removed what was left of {lab}{rest}", err=True)
    if not dead and not orphans:
        click.echo("nothing to remove", err=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """List the labs that run."""
    from netlab.engine import lifecycle

    found = lifecycle.status()
    if as_json:
        _print_json(found)
        return
    if not found:
        click.echo("no lab runs", err=True)
        return
    rows: list[tuple[str, ...]] = [
        ("NAME", "NODES", "LINKS", "PID", "KIND", "UP SINCE", "TOPOLOGY")
    ]
    for lab in found:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lab["created_ns"] / 1e9))
        kind = "foreground" if lab["foreground"] else "rootless" if lab["rootless"] else "root"
        numbers = (str(lab["nodes"]), str(lab["links"]), str(lab["pid"]))
        rows.append((lab["name"], *numbers, kind, since, lab["topology"]))
    _table(rows)
    for lab in found:
        _tell_trouble(lab)


def _tell_trouble(lab: Json) -> None:
    for link in lab["broken"]:
        text = f"warning: lab {lab['name']}: the wire of link '{link}' has ended; nothing passes it"
        click.echo(text, err=True)
    for program in lab["out_of_memory"]:
        node, _, name = program.partition(".")
        text = f"warning: lab {lab['name']}: process {name!r} in node {node!r} ran out of memory"
        click.echo(text, err=True)


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@click.command()
@click.argument("lab", required=False, metavar="[NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(lab: str | None, as_json: bool) -> None:
    """Show nodes, interfaces and processes of a running lab."""
    from netlab.engine import lifecycle

    found = lifecycle.inspect(lab)
    if as_json:
        _print_json(found)
        return
    click.echo(f"{found['name']}: {len(found['nodes'])} nodes, process {found['pid']}")
    _tell_trouble(found)
    rows: list[tuple[str, ...]] = [("NODE", "ROLE", "INTERFACE", "ADDRESSES", "PEER", "MAC", "MTU")]
    for name, node in found["nodes"].items():
        for interface in node["interfaces"] or [None]:
            rows.append(_interface_row(name, node, interface))
    _table(rows)
    if found["processes"]:
        click.echo()
        processes: list[tuple[str, ...]] = [("NODE", "PID", "NAME", "COMMAND")]
        for process in found["processes"]:
            argv = " ".join(process["argv"])
            processes.append((process["node"], str(process["pid"]), process["name"], argv))
        _table(processes)


def _interface_row(name: str, node: Json, interface: Json | None) -> tuple[str, ...]:
    if interface is None:
        return name, node["role"], "-", "-", "-", "-", "-"
    addresses = " ".join(interface["addresses"]) or "-"
    peer, mac, mtu = interface["peer"], interface["mac"], str(interface["mtu"])
    return name, node["role"], interface["name"], addresses, peer, mac, mtu
