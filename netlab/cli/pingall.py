"""`netlab pingall`: every host pings every other one."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click

from netlab.cli.live import lab_option, seconds

if TYPE_CHECKING:
    from netlab.engine.channel import Channel
    from netlab.engine.state import Lab

Json = dict[str, Any]

# One shell for each node, which starts all of its pings at once and waits for them.
_PINGS = """
wait=$1; shift
for a in "$@"; do
  { told=$(ping -n -c 1 -W "$wait" "$a" 2>&1) && echo "$a" "${told##*time=}" | head -n 1; } &
done
wait
"""


@click.command()
@lab_option
@click.option("--routers", is_flag=True, help="Routers and nats too, not only hosts.")
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), help="Else the first a node has.")
@click.option(
    "--timeout", metavar="TIME", default="2s", help="How long to wait for an answer (2s)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pingall(
    lab_name: str | None, routers: bool, family: str | None, timeout: str, as_json: bool
) -> int:
    """Ping every host from every other one, once; status 1 if one does not answer."""
    from netlab.engine.reach import connect

    wait = max(0.01, seconds("--timeout", timeout))
    lab, connection = connect(lab_name)
    with contextlib.closing(connection):
        targets = _targets(lab, routers=routers, family=family)
        pairs = [
            {"from": source, "to": target, "address": targets[target], "rtt_ms": found}
            for source in targets
            for target, found in _pings(lab, connection, source, targets, wait).items()
        ]
    answered = sum(pair["rtt_ms"] is not None for pair in pairs)
    if as_json:
        click.echo(
            json.dumps({"answered": answered, "asked": len(pairs), "pairs": pairs}, indent=2)
        )
    else:
        _show(list(targets), pairs)
    click.echo(f"{answered} of {len(pairs)} answered", err=True)
    return 0 if answered == len(pairs) else 1


def _targets(lab: Lab, *, routers: bool, family: str | None) -> dict[str, str]:
    """Return an address of each node that takes part."""
    roles = ("host", "router", "nat") if routers else ("host",)
    found: dict[str, str] = {}
    for name, node in lab.nodes.items():
        if node["hidden"] or node["role"] not in roles:
            continue
        addresses = [text for end in node["interfaces"] for text in end["addresses"]]
        wanted = {"ipv4": ".", "ipv6": ":", None: ""}[family]
        own = [text.partition("/")[0] for text in addresses if wanted in text]
        if own:
            found[name] = own[0]
    return found


def _pings(
    lab: Lab, connection: Channel, source: str, targets: dict[str, str], wait: float
) -> dict[str, float | None]:
    """Return the round-trip times in milliseconds from a node to the others, None if no answer."""
    from netlab.engine.node import RunningNode

    node = RunningNode(source, connection, lambda relative: lab.path / relative)
    others = {name: address for name, address in targets.items() if name != source}
    argv = ("bash", "-c", _PINGS, "pingall", f"{wait:g}", *others.values())
    told = node.run(argv, timeout=wait + 30).stdout.splitlines()
    times = {line.split()[0]: float(line.split()[1]) for line in told if len(line.split()) > 1}
    return {name: times.get(address) for name, address in others.items()}


def _show(names: list[str], pairs: list[Json]) -> None:
    found = {(pair["from"], pair["to"]): pair["rtt_ms"] for pair in pairs}
    width = max(7, *(len(name) for name in names)) if names else 7
    click.echo(" ".join(f"{name:>{width}}" for name in ("ms", *names)))
    for source in names:
        cells = [
            "-"
            if source == target
            else "X"
            if (rtt := found[source, target]) is None
            else f"{rtt:g}"
            for target in names
        ]
        click.echo(" ".join(f"{cell:>{width}}" for cell in (source, *cells)))
