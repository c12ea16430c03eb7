"""Links of a topology as a person names them, set up and down in a lab that runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from netlab.engine import channel
from netlab.engine.node import RunningNode
from netlab.engine.state import Lab
from netlab.errors import UsageError
from netlab.model.topology import Interface, Link, Topology

Json = dict[str, Any]


def choose(topology: Topology, text: str) -> tuple[Link, tuple[Interface, ...]]:
    """Return the link and the interfaces that a text means.

    `h1:eth0` is one interface; the name of a link, or its two nodes as `h1-h2`, both.
    """
    for link in topology.links:
        for end in link.ends:
            if str(end) == text:
                return link, (end,)
    named = [link for link in topology.links if link.name == text]
    joined = named or [link for link in topology.links if text in _pairs(link)]
    if len(joined) == 1:
        return joined[0], _visible(topology, joined[0])
    if joined:
        names = ", ".join(link.name for link in joined)
        raise UsageError(f"several links join {text}: {names}", hint="say which one")
    known = [link.name for link in topology.links]
    known += [str(end) for link in topology.links for end in link.ends]
    close = get_close_matches(text, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(known[:10]) or 'none'}"
    raise UsageError(f"lab '{topology.name}' has no link or interface '{text}'", hint=hint)


def _pairs(link: Link) -> tuple[str, str]:
    return f"{link.a.node}-{link.b.node}", f"{link.b.node}-{link.a.node}"


def _visible(topology: Topology, link: Link) -> tuple[Interface, ...]:
    """Return the ends of a link, save the port of a LAN's hidden switch."""
    return tuple(end for end in link.ends if not topology.node(end.node).hidden)


def with_ends(topology: Topology, ends: Collection[Interface], *, up: bool) -> Topology:
    """Return a topology in which some interfaces are up, or down."""
    chosen = {(end.node, end.name) for end in ends}

    def end(given: Interface) -> Interface:
        return replace(given, up=up) if (given.node, given.name) in chosen else given

    links = tuple(replace(link, a=end(link.a), b=end(link.b)) for link in topology.links)
    return replace(topology, links=links)


def told(lab: Lab, topology: Topology, link: Link) -> Json:
    """Return what a link is: of each end whether it is to be up, is up, and has a carrier."""
    ends: list[Json] = []
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        for end in _visible(topology, link):
            node = RunningNode(end.node, connection, lambda relative: lab.path / relative)
            found = node.run(("ip", "-j", "link", "show", "dev", end.name), check=False)
            flags: list[str] = json.loads(found.stdout)[0]["flags"] if found.status == 0 else []
            seen = {"up": "UP" in flags, "carrier": "LOWER_UP" in flags}
            ends.append({"interface": str(end), "wanted": end.up, **seen})
    return {"link": link.name, "up": all(end["up"] for end in ends), "ends": ends}
