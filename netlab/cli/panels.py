"""What `netlab top` shows of a lab, on a screen or as text: three tables and how to sort them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from netlab.cli.tables import scaled, significant
from netlab.engine.overview import FlowRow, LinkRow, NodeRow, View

Row = LinkRow | NodeRow | FlowRow
SHOWN_STATES = ("ESTAB", "LISTEN")


class Tone(StrEnum):
    """How a cell is to be seen."""

    PLAIN = "plain"
    NAME = "name"
    RATE = "rate"
    DIM = "dim"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, least width, text, what it sorts by, and how a cell is to be seen."""

    title: str
    width: int
    text: Callable[[Any], str]
    key: Callable[[Any], Any]
    tone: Callable[[Any], Tone]
    left: bool = False

    @property
    def descending(self) -> bool:
        """Numbers are sorted from the largest, names from A."""
        return not self.left


@dataclass(frozen=True, slots=True)
class Panel:
    """A table of rows of one kind: where they are in a view, who they are, whose they are."""

    title: str
    columns: tuple[Column, ...]
    rows: Callable[[View], Sequence[Any]]
    name: Callable[[Any], str]
    nodes: Callable[[Any], Sequence[str]]
    rate: Callable[[Any], float]
    sort: int


def bits(value: float) -> str:
    """Return a rate or a count in few characters: `94.1M`."""
    return scaled(value, "").replace(" ", "")


def milliseconds(seconds: float | None) -> str:
    """Return a time as `20.4`; a dash where it is not known."""
    return "-" if seconds is None else significant(seconds * 1000)


def _number(title: str, width: int, value: Callable[[Any], float], tone: Tone) -> Column:
    """A column of numbers; zero is dim."""
    return Column(
        title, width, lambda row: bits(value(row)), value,
        lambda row: tone if value(row) >= 0.5 else Tone.DIM,
    )  # fmt: skip


def _words(title: str, width: int, value: Callable[[Any], str], tone: Tone) -> Column:
    return Column(title, width, value, value, lambda _: tone, left=True)


def load(link: LinkRow) -> float:
    """Return how full the fuller direction of a link is, 0…1; -1 where it has no limit."""
    ways = (link.forward, link.backward)
    return max((way.rate / way.limit if way.limit else -1.0 for way in ways), default=-1.0)


def _load_text(link: LinkRow) -> str:
    found = load(link)
    return f"{found:.0%}" if found >= 0 else "-"


def _load_tone(link: LinkRow) -> Tone:
    found = load(link)
    return Tone.DIM if found <= 0 else Tone.WARN if found >= 0.9 else Tone.PLAIN


def _link_name(link: LinkRow) -> str:
    return link.name if link.up else f"{link.name} (down)"


def _queue(link: LinkRow) -> int:
    return link.forward.queue_packets + link.backward.queue_packets


LINKS = Panel(
    "Links",
    (
        Column("LINK", 12, _link_name, lambda link: link.name,
               lambda link: Tone.NAME if link.up else Tone.BAD, left=True),
        _number("→ bit/s", 8, lambda link: link.forward.rate, Tone.RATE),
        _number("← bit/s", 8, lambda link: link.backward.rate, Tone.RATE),
        _number("pkt/s", 6, lambda link: link.forward.packets + link.backward.packets, Tone.PLAIN),
        Column("load", 5, _load_text, load, _load_tone),
        _number("queue", 5, _queue, Tone.PLAIN),
        _number("drop/s", 6, lambda link: link.forward.drops + link.backward.drops, Tone.BAD),
        _number("drops", 6, lambda link: link.forward.dropped + link.backward.dropped, Tone.WARN),
    ),
    rows=lambda view: view.links,
    name=lambda link: link.name,
    nodes=lambda link: [w.sender.partition(":")[0] for w in (link.forward, link.backward)],
    rate=lambda link: link.forward.rate + link.backward.rate,
    sort=0,
)  # fmt: skip


def _others(node: NodeRow) -> int:
    return sum(count for name, count in node.sockets.items() if name not in SHOWN_STATES)


def _sockets(title: str, width: int, state: str) -> Column:
    return _number(title, width, lambda node: node.sockets.get(state, 0), Tone.PLAIN)


NODES = Panel(
    "Nodes",
    (
        Column("NODE", 8, lambda node: node.name if node.present else f"{node.name} (gone)",
               lambda node: node.name, lambda node: Tone.NAME if node.present else Tone.BAD,
               left=True),
        _words("role", 6, lambda node: node.role, Tone.DIM),
        _number("in bit/s", 8, lambda node: node.rx_rate, Tone.RATE),
        _number("out bit/s", 9, lambda node: node.tx_rate, Tone.RATE),
        _number("pkt/s", 6, lambda node: node.rx_packets + node.tx_packets, Tone.PLAIN),
        _number("drops", 5, lambda node: node.dropped, Tone.WARN),
        _sockets("estab", 5, "ESTAB"),
        _sockets("listen", 6, "LISTEN"),
        _number("other", 5, _others, Tone.PLAIN),
    ),
    rows=lambda view: view.nodes,
    name=lambda node: node.name,
    nodes=lambda node: [node.name],
    rate=lambda node: node.rx_rate + node.tx_rate,
    sort=0,
)  # fmt: skip


def _connection(flow: FlowRow) -> str:
    return f"{flow.node}:{_port(flow.local)} → {flow.peer}:{_port(flow.remote)}"


def _port(endpoint: str) -> str:
    return endpoint.rpartition(":")[2]


FLOWS = Panel(
    "Connections",
    (
        _words("CONNECTION", 20, _connection, Tone.NAME),
        _words("state", 6, lambda flow: flow.state, Tone.DIM),
        _number("bit/s", 7, lambda flow: flow.rate, Tone.RATE),
        _number("cwnd", 5, lambda flow: flow.cwnd or 0, Tone.PLAIN),
        _number("ssthr", 5, lambda flow: flow.ssthresh or 0, Tone.PLAIN),
        Column("rtt ms", 6, lambda flow: milliseconds(flow.rtt), lambda flow: flow.rtt or 0,
               lambda _: Tone.PLAIN),
        _number("resent", 6, lambda flow: flow.retransmitted, Tone.WARN),
        _words("cc", 5, lambda flow: flow.congestion, Tone.DIM),
    ),
    rows=lambda view: view.flows,
    name=lambda flow: f"{flow.local}>{flow.remote}",
    nodes=lambda flow: [flow.node, flow.peer],
    rate=lambda flow: flow.rate,
    sort=2,
)  # fmt: skip

PANELS = (LINKS, FLOWS, NODES)


def chosen(panel: Panel, view: View, pattern: str) -> list[Any]:
    """Return the rows of a panel that concern nodes a filter means: a part of a name, or a glob."""
    rows = list(panel.rows(view))
    return [row for row in rows if any(matches(name, pattern) for name in panel.nodes(row))]


def matches(name: str, pattern: str) -> bool:
    """Tell whether a filter means a node; one without wildcards may be any part of the name."""
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name.lower(), pattern.lower())
    return pattern.lower() in name.lower()


def in_order(panel: Panel, rows: Sequence[Any], column: int, *, reverse: bool = False) -> list[Any]:
    """Return rows sorted by a column, the largest number first."""
    chosen = panel.columns[column]
    return sorted(rows, key=chosen.key, reverse=chosen.descending != reverse)


def states(view: View) -> str:
    """Return the sockets of all nodes by state, the most frequent first."""
    found = sorted(view.sockets.items(), key=lambda item: (-item[1], item[0]))
    return "  ".join(f"{name} {count}" for name, count in found) or "none"


def lines(view: View, pattern: str, sort: str | None) -> list[str]:
    """Return a view as plain text."""
    head = f"{view.lab}: {bits(view.rate)}bit/s over {view.span:.1f} s, TCP sockets: {states(view)}"
    found = [head]
    for panel in PANELS:
        rows = chosen(panel, view, pattern)
        titles = [column.title for column in panel.columns]
        column = titles.index(sort) if sort in titles else panel.sort
        cells = [[one.text(row) for one in panel.columns] for row in in_order(panel, rows, column)]
        widths = [max(map(len, texts)) for texts in zip(titles, *cells, strict=True)]
        found.append("")
        for texts in (titles, *cells):
            padded = (
                text.ljust(width) if one.left else text.rjust(width)
                for text, width, one in zip(texts, widths, panel.columns, strict=True)
            )
            found.append("  ".join(padded).rstrip())
    return found
