"""Topology → topology file: everything written out, so that loading it gives the same Topology.

Used for what a recording keeps: addresses, MACs, interface names and routes are all explicit, so
a later netlab that would choose otherwise still builds the same network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import yaml

from netlab.model import conntrack, words
from netlab.model.impairment import PERFECT, Episode, Impairment
from netlab.model.topology import Interface, Link, Node, Process, Reach, Route, Topology
from netlab.units import format_rate, format_ratio, format_time


def dump(topology: Topology) -> str:
    """Return a topology file that loads as an equal Topology."""
    data = as_data(topology)
    return yaml.dump(data, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=100)


def dump_json(topology: Topology) -> str:
    """Return the same as JSON, which `load` reads as well."""
    return "".join(json_lines(topology))


def json_lines(topology: Topology) -> Iterator[str]:
    """Return the lines of that JSON, one for each node and link; they are made one by one.

    A large network need not be in memory a second time to be written down.
    """
    write = json.dumps
    yield write(_frame(topology))[:-1]
    nodes = (f"{write(name)}: {write(node)}" for name, node in _nodes(topology))
    links = (write(link) for link in _links(topology))
    for key, (opening, closing), lines in (("nodes", "{}", nodes), ("links", "[]", links)):
        yield f', "{key}": {opening}'
        before = "\n"
        for line in lines:
            yield before + line
            before = ",\n"
        yield closing
    yield "}\n"


def as_data(topology: Topology) -> dict[str, Any]:
    """Return the topology as the plain data of a topology file."""
    return _frame(topology) | {"nodes": dict(_nodes(topology)), "links": _links(topology)}


def _frame(topology: Topology) -> dict[str, Any]:
    """Return all but the nodes and links."""
    data: dict[str, Any] = {
        "name": topology.name,
        "version": 1,
        "defaults": {"addressing": {"ipv4": False, "ipv6": False}},
    }
    if topology.processes:
        data["processes"] = {process.name: _process(process) for process in topology.processes}
    if topology.validations:
        data["validate"] = [_validation(check) for check in topology.validations]
    return data


def _nodes(topology: Topology) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((node.name, _node(node)) for node in topology.nodes if not node.hidden)


def _node(node: Node) -> dict[str, Any]:
    data: dict[str, Any] = {"role": str(node.role), "routing": "none"}
    if node.sysctls:
        data["sysctls"] = dict(node.sysctls)
    if node.loopbacks:
        data["loopback"] = [str(address) for address in node.loopbacks]
    if node.congestion:
        data["congestion"] = node.congestion
    if node.firewall.rules:
        data["firewall"] = [words.RULE.write(rule) for rule in node.firewall.rules]
    if nat := node.firewall.nat:
        data["nat"] = {
            "outside": list(nat.outside),
            "unsolicited": nat.unsolicited,
            "conntrack": conntrack.write(nat.conntrack),
        }
    if node.routes:
        data["routes"] = [_route(route) for route in node.routes]
    return data


def _route(route: Route) -> dict[str, Any]:
    data: dict[str, Any] = {"to": str(route.to), "via": str(route.via), "dev": route.dev}
    if route.options:
        given = asdict(route.options)
        data |= {key: value for key, value in given.items() if value is not None}
    return data


def _links(topology: Topology) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = []
    lans: dict[str, dict[str, Any]] = {}
    for link in topology.links:
        if not topology.node(link.b.node).hidden:
            links.append(_link(link))
            continue
        lan = lans.get(link.b.node)
        if lan is None:
            name = link.b.node.removesuffix(".lan")
            lan = lans[link.b.node] = {"name": name, "ends": []}
            if link.offloads:
                lan["offloads"] = True
            links.append(lan)
        lan["ends"].append(_end(link.a))
        if link.forward:
            lan[f"{link.a.node}->{lan['name']}"] = shaping(link.forward)
        if link.backward:
            lan[f"{lan['name']}->{link.a.node}"] = shaping(link.backward)
    return links


def _link(link: Link) -> dict[str, Any]:
    data: dict[str, Any] = {"name": link.name, "ends": [_end(link.a), _end(link.b)]}
    if link.forward == link.backward:
        data |= shaping(link.forward)
    else:
        data[f"{link.a.node}->{link.b.node}"] = shaping(link.forward)
        data[f"{link.b.node}->{link.a.node}"] = shaping(link.backward)
    if link.offloads:
        data["offloads"] = True
    if link.tunnel is not None:
        data["tunnel"] = words.write_kind(words.TUNNELS, link.tunnel.kind)
    return data


def _end(end: Interface) -> dict[str, Any]:
    data: dict[str, Any] = {
        "node": end.node,
        "interface": end.name,
        "address": [str(address) for address in end.addresses],
        "mac": end.mac,
        "mtu": end.mtu,
    }
    if not end.up:
        data["up"] = False
    return data


_WRITERS: dict[str, Callable[[Any], object]] = {
    "delay": format_time,
    "jitter": format_time,
    "distribution": str,
    "rate": format_rate,
    "trace": lambda trace: list(trace.opportunities),
    "queue": lambda queue: words.write_kind(words.QUEUES, queue),
    "loss_model": lambda model: words.write_kind(words.LOSSES, model),
    "drops": lambda drops: [words.DROP.write(drop) for drop in drops],
    "slot": words.SLOT.write,
    **dict.fromkeys(("loss", "duplicate", "corrupt", "reorder"), format_ratio),
    **{f"{name}_correlation": format_ratio for name in ("delay", "loss", "duplicate")},
    **{f"{name}_correlation": format_ratio for name in ("corrupt", "reorder")},
}


def shaping(impairment: Impairment, base: Impairment = PERFECT) -> dict[str, Any]:
    """Return an impairment in the words of a topology file; what is as in `base` is left out."""
    data: dict[str, Any] = {}
    for field in fields(PERFECT):
        value = getattr(impairment, field.name)
        if field.name != "schedule" and value != getattr(base, field.name):
            write = _WRITERS.get(field.name)
            data[field.name] = value if write is None or value is None else write(value)
    if impairment.schedule:
        plain = replace(impairment, schedule=())
        data["schedule"] = [_episode(episode, plain) for episode in impairment.schedule]
    return data


def _episode(episode: Episode, base: Impairment) -> dict[str, Any]:
    data: dict[str, Any] = {"at": format_time(episode.at)}
    if episode.duration:
        data["for"] = format_time(episode.duration)
    return data | shaping(episode.becomes, base)


def _process(process: Process) -> dict[str, Any]:
    data: dict[str, Any] = {"node": process.node, "command": list(process.command)}
    if process.ready:
        ready = process.ready
        given: Mapping[str, Any] = {
            "port": ready.port,
            "line": ready.line,
            "file": ready.file,
            "command": None if ready.command is None else list(ready.command),
        }
        data["ready"] = {key: value for key, value in given.items() if value is not None}
        data["ready"]["timeout"] = format_time(ready.timeout)
    data |= {
        key: value
        for key, value in (
            ("after", list(process.after)),
            ("env", dict(process.env)),
            ("cwd", process.cwd),
            ("user", process.user),
            ("cpus", process.cpus),
            ("needs", list(process.needs)),
        )
        if value
    }
    data["restart"] = process.restart
    if process.memory is not None:
        data["memory"] = f"{process.memory}B"
    return data


def _validation(check: Reach) -> dict[str, Any]:
    data: dict[str, Any] = {"ping": f"{check.source}->{check.target}"}
    if not check.reachable:
        data["reachable"] = False
    if check.family is not None:
        data["family"] = f"ipv{check.family}"
    return data
