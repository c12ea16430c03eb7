"""What `conntrack -L` or /proc/net/nf_conntrack shows of TCP, as typed values.

A line has the protocol's name and number, the seconds until the entry is forgotten, the state, and
the addresses and ports of both directions; words that are not known are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"^(?:ipv[46] +\d+ +)?tcp +6 +(?P<expires>\d+) +(?P<state>[A-Z_]+) +(?P<rest>.*)$"
)
_TUPLE = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)")


@dataclass(frozen=True, slots=True)
class Way:
    """One direction: the addresses and ports of its packets as they come to the node."""

    source: str
    sport: int
    destination: str
    dport: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A TCP connection that a node tracks; it is forgotten in `expires` seconds unless it speaks.

    `reply` has the addresses after translation, seen from the other side. `flags` are words such
    as "ASSURED" and "UNREPLIED".
    """

    state: str
    expires: int
    original: Way
    reply: Way
    flags: frozenset[str] = frozenset()


def parse(text: str) -> tuple[Entry, ...]:
    """Return the TCP connections of a listing, in its order."""
    found: list[Entry] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        ways = _TUPLE.findall(match["rest"]) if match else []
        if match is None or len(ways) != 2:
            continue
        original, reply = (Way(src, int(sp), dst, int(dp)) for src, dst, sp, dp in ways)
        flags = frozenset(re.findall(r"\[([A-Z_]+)\]", match["rest"]))
        found.append(Entry(match["state"], int(match["expires"]), original, reply, flags))
    return tuple(found)
