"""Variations: one thing changed, the same scenario, results side by side.

A variation is a pure change of the Topology plus options for the scenario. `sysctl`, `delay`,
`impair` and `option` make them; `vary` joins several, `on_request` marks one that takes long. A
fault is a variation too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from netlab.errors import LabDefinitionError
from netlab.model import conntrack
from netlab.model.impairment import Impairment
from netlab.model.topology import Interface, Link, Node, Topology
from netlab.units import format_time


def _same(topology: Topology) -> Topology:
    return topology


@dataclass(frozen=True, slots=True)
class Variation:
    """What changes: `change` the network, `options` the scenario; `summary` says it in words.

    `takes` is 0, or the seconds that the kernel's own timers take of a variation that is run only
    when it is asked for by name.
    """

    change: Callable[[Topology], Topology] = _same
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    summary: str = "nothing changed"
    takes: float = 0.0


def vary(*variations: Variation, **options: Any) -> Variation:
    """Join variations, in order, and pass `options` on to the scenario."""
    parts = (*variations, option(**options)) if options else variations
    merged = {name: value for part in parts for name, value in part.options.items()}

    def change(topology: Topology) -> Topology:
        for part in parts:
            topology = part.change(topology)
        return topology

    summary = ", ".join(part.summary for part in parts)
    takes = max((part.takes for part in parts), default=0.0)
    return Variation(change, MappingProxyType(merged), summary or "nothing changed", takes)


def on_request(takes: float, variation: Variation) -> Variation:
    """Run this variation only when it is named: the kernel's own timers take so many seconds."""
    return replace(variation, takes=takes)


def option(**options: Any) -> Variation:
    """Pass keyword arguments on to the scenario."""
    text = ", ".join(f"{name}={value}" for name, value in options.items())
    return Variation(_same, MappingProxyType(options), text)


def sysctl(node: str, key: str, value: object) -> Variation:
    """Set a sysctl of a node; it replaces what the topology says. `*` means every node."""

    def one(found: Node) -> Node:
        kept = tuple(pair for pair in found.sysctls if pair[0] != key)
        return replace(found, sysctls=(*kept, (key, str(value))))

    def change(topology: Topology) -> Topology:
        if node == "*":
            nodes = tuple(n if n.hidden else one(n) for n in topology.nodes)
            return replace(topology, nodes=nodes)
        return change_node(topology, node, one)

    return Variation(change, summary=f"{key}={value} on {'every node' if node == '*' else node}")


def nat(node: str, *, unsolicited: str = "", **settings: int | str) -> Variation:
    """Change how a nat treats what it does not know, or its table: `nat("gw", tcp_loose=0)`.

    `settings` are the words of `conntrack:` in the topology file.
    """
    try:
        sysctls = dict(conntrack.read(settings))
    except ValueError as error:
        raise LabDefinitionError(f"conntrack of '{node}': {error}") from None

    def one(found: Node) -> Node:
        known = found.firewall.nat
        if known is None:
            raise LabDefinitionError(f"a variation changes the translation of '{node}', no nat")
        pairs = tuple({**dict(known.conntrack), **sysctls}.items())
        changed = replace(known, unsolicited=unsolicited or known.unsolicited, conntrack=pairs)
        return replace(found, firewall=replace(found.firewall, nat=changed))

    def change(topology: Topology) -> Topology:
        return change_node(topology, node, one)

    words = [f"unsolicited {unsolicited}"] if unsolicited else []
    words += [f"{name}={value}" for name, value in settings.items()]
    return Variation(change, summary=f"{', '.join(words)} on {node}")


def delay(link: str, one_way: float) -> Variation:
    """Delay both directions of a link by `one_way` seconds each; the RTT grows by twice that."""

    def one(found: Link) -> Link:
        return replace(
            found,
            forward=replace(found.forward, delay=one_way),
            backward=replace(found.backward, delay=one_way),
        )

    def change(topology: Topology) -> Topology:
        return change_link(topology, link, one)

    return Variation(change, summary=f"{format_time(one_way)} of delay each way on {link}")


def slower(divisor: int, link: str = "") -> Variation:
    """Divide the rates of a link, both directions, by a number; those of every link without one."""

    def one(found: Link) -> Link:
        forward, backward = found.forward, found.backward
        return replace(
            found,
            forward=replace(forward, rate=forward.rate / divisor),
            backward=replace(backward, rate=backward.rate / divisor),
        )

    def change(topology: Topology) -> Topology:
        if not link:
            return replace(topology, links=tuple(one(found) for found in topology.links))
        return change_link(topology, link, one)

    return Variation(change, summary=f"rate of {link or 'every link'} divided by {divisor}")


def at_pace(pace: int, variation: Variation) -> Variation:
    """Return a variation for a machine that needs every rate of the lab divided by `pace`."""
    return variation if pace == 1 else vary(slower(pace), variation)


def impair(
    link: str, *, forward: Impairment | None = None, backward: Impairment | None = None
) -> Variation:
    """Replace what the directions of a link do to packets; None leaves a direction as it is."""

    def one(found: Link) -> Link:
        return replace(
            found,
            forward=found.forward if forward is None else forward,
            backward=found.backward if backward is None else backward,
        )

    def change(topology: Topology) -> Topology:
        return change_link(topology, link, one)

    return Variation(change, summary=f"{link} impaired")


def mtu(link: str, octets: int) -> Variation:
    """Give both ends of a link another MTU; below 1280 its nodes lose IPv6 there (RFC 8200 §5)."""
    six = octets >= 1280

    def one(found: Link) -> Link:
        return replace(found, a=end(found.a), b=end(found.b))

    def end(found: Interface) -> Interface:
        kept = tuple(a for a in found.addresses if six or a.version == 4)
        return replace(found, mtu=octets, addresses=kept)

    def change(topology: Topology) -> Topology:
        changed = change_link(topology, link, one)
        if six:
            return changed
        gone = {a.ip for end_ in topology.link(link).ends for a in end_.addresses}
        nodes = tuple(
            replace(
                node,
                routes=tuple(r for r in node.routes if r.via.version == 4 or r.via not in gone),
            )
            for node in changed.nodes
        )
        return replace(changed, nodes=nodes)

    return Variation(change, summary=f"MTU {octets} on {link}")


def change_node(topology: Topology, name: str, one: Callable[[Node], Node]) -> Topology:
    """Return the topology with one node changed; LabDefinitionError if there is none."""
    if all(node.name != name for node in topology.nodes):
        raise LabDefinitionError(f"a variation changes node '{name}', which the topology lacks")
    nodes = tuple(one(node) if node.name == name else node for node in topology.nodes)
    return replace(topology, nodes=nodes)


def change_link(topology: Topology, name: str, one: Callable[[Link], Link]) -> Topology:
    """Return the topology with one link changed; LabDefinitionError if there is none."""
    if all(link.name != name for link in topology.links):
        raise LabDefinitionError(f"a variation changes link '{name}', which the topology lacks")
    links = tuple(one(link) if link.name == name else link for link in topology.links)
    return replace(topology, links=links)
