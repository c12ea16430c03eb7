"""A ladder: the segments of one connection as arrows between its two ends.

      time   10.0.0.1:40000                                   10.0.0.2:8080
  0.000000   ├── SYN  seq=0 win=64240 ──────────────────────────────────▶│
             │   seq 1551247313  mss=1460 sack ts wscale=10              │

Numbers in the arrows count from the initial sequence numbers, those below are what the wire
said. Everything fits the width given; where the labels do not fit into the arrows (below about
60 columns) they stand above them. What is sent again has a `*`. Text in, text out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netlab.analysis.segments import ACK, Segment

HEAD, TAIL = 2, 1  # of a run that is folded
MINIMUM = 30
TIME = 12  # columns of the time, with the gap after it


@dataclass(frozen=True, slots=True)
class Strokes:
    """What a ladder is drawn with."""

    rail: str
    line: str
    right: str
    left: str
    ellipsis: str


UNICODE = Strokes("│", "─", "▶", "◀", "…")
ASCII = Strokes("|", "-", ">", "<", "~")


def ladder(
    segments: Iterable[Segment],
    *,
    width: int = 80,
    unicode: bool = True,
    raw: bool = True,
    names: tuple[str, str] | None = None,
    limit: int | None = None,
    room: int | None = None,
) -> str:
    """Return the ladder of one connection, `width` columns wide at most.

    The side that opened the connection stands on the left. `names` go above the addresses; `raw`
    adds a line with the numbers of the wire and the options; `limit` ends after so many segments
    and says how many were left out; `room` folds instead (see `folded`). The time counts from the
    first segment, in seconds.
    """
    rows = tuple(segments)
    if not rows:
        return "no TCP segments\n"
    strokes = UNICODE if unicode else ASCII
    span = max(width, MINIMUM) - TIME - 2  # between the rails
    listed = rows if limit is None else rows[:limit]
    shown = listed if room is None else folded(listed, room)
    lines = _heads(rows[0], span, names)
    start = rows[0].time_ns
    for row in shown:
        if isinstance(row, int):
            text = f"{row} more like these"[:span]
            lines.append(f"{'':{TIME}}{strokes.rail}{text:^{span}}{strokes.rail}")
        else:
            lines += _row(row, start, span, strokes, raw)
    left = len(rows) - sum(row if isinstance(row, int) else 1 for row in shown)
    if left:
        lines.append(f"{'':{TIME}}{left} more segment{'s are' if left > 1 else ' is'} not shown")
    if any(isinstance(row, Segment) and row.retransmission for row in shown):
        lines.append(f"{'':{TIME}}* sent again")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def folded(rows: Sequence[Segment], room: int) -> list[Segment | int]:
    """Return the segments for so many rows; a number stands for so many that are like those before.

    Runs of data one way and their acknowledgments are folded, the longest first. If that is not
    enough the rest is left out, but for what opens, ends or repeats: up to `room` rows more of it.
    """
    runs = _runs(rows)
    count = len(rows)
    shut: set[int] = set()
    for number in sorted(range(len(runs)), key=lambda n: -len(runs[n])):
        if count <= room or len(runs[number]) <= HEAD + TAIL + 1:
            break
        shut.add(number)
        count -= len(runs[number]) - HEAD - TAIL - 1
    found: list[Segment | int] = []
    for number, run in enumerate(runs):
        if number in shut:
            found += [*run[:HEAD], len(run) - HEAD - TAIL, *run[-TAIL:]]
        else:
            found += run
    notable = [row for row in found[room:] if isinstance(row, Segment) and not _plain(row)]
    return found if len(found) <= room else [*found[:room], *notable[:room]]


def _plain(row: Segment) -> bool:
    """Tell whether a segment neither opens nor ends a connection, nor was sent before."""
    return not (row.is_syn or row.is_syn_ack or row.fin or row.rst or row.retransmission)


def _runs(rows: Sequence[Segment]) -> list[list[Segment]]:
    """Split where the data turn round, and before and after what is not plain."""
    runs: list[list[Segment]] = []
    way: bool | None = None
    for row in rows:
        turns = row.length > 0 and way is not None and row.forward != way
        if not runs or turns or not _plain(row) or not _plain(runs[-1][-1]):
            runs.append([])
            way = None
        runs[-1].append(row)
        way = row.forward if row.length else way
    return runs


def _heads(first: Segment, span: int, names: tuple[str, str] | None) -> list[str]:
    there = (first.source, first.sport)
    back = (first.destination, first.dport)
    left, right = (there, back) if first.forward else (back, there)
    lines: list[str] = []
    heading = "time"
    if names is not None:
        lines += _sides(heading, *names, span)
        heading = ""
    lines += _sides(heading, _endpoint(*left), _endpoint(*right), span)
    return lines


def _sides(heading: str, left: str, right: str, span: int) -> list[str]:
    """Return both texts on one line, or on two where they would meet."""
    lead = f"{heading:>{TIME - 2}}  "
    if len(left) + len(right) + 1 <= span + 2:
        return [f"{lead}{left}{right:>{span + 2 - len(left)}}"]
    wide = span + 2
    return [f"{lead}{left[-wide:]}", f"{'':{TIME}}{right[-wide:]:>{wide}}"]


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def label(segment: Segment) -> str:
    """Return what an arrow says: flags, relative numbers, length, window."""
    kind = segment.flag_names + ("*" if segment.retransmission else "")
    parts = [kind, f"seq={segment.seq}"]
    if segment.flags & ACK:
        parts.append(f"ack={segment.ack}")
    if segment.length:
        parts.append(f"len={segment.length}")
    parts.append(f"win={segment.window}")
    return " ".join(parts)


def details(segment: Segment) -> str:
    """Return what stands below an arrow: the numbers of the wire and the options of a SYN."""
    parts = [f"seq {segment.seq_raw}"]
    if segment.flags & ACK:
        parts.append(f"ack {segment.ack_raw}")
    options: list[str] = []
    if segment.is_syn or segment.is_syn_ack:
        if segment.mss is not None:
            options.append(f"mss={segment.mss}")
        if segment.sack_permitted:
            options.append("sack")
        if segment.tsval is not None:
            options.append("ts")
        if segment.wscale is not None:
            options.append(f"wscale={segment.wscale}")
    return "  ".join([" ".join(parts), *([" ".join(options)] if options else [])])


def _row(segment: Segment, start: int, span: int, strokes: Strokes, raw: bool) -> list[str]:
    seconds = (segment.time_ns - start) / 1e9
    time = f"{seconds:>{TIME - 2}.6f}  "
    blank = " " * TIME
    text = label(segment)
    lines: list[str] = []
    if len(text) + 6 > span:
        for line in _wrapped(text, span - 2):
            lines.append(f"{blank}{strokes.rail} {line:<{span - 1}}{strokes.rail}")
        text = ""
    lines.append(
        f"{time}{strokes.rail}{_arrow(text, segment.forward, span, strokes)}{strokes.rail}"
    )
    if raw:
        for line in _wrapped(details(segment), span - 4):
            lines.append(f"{blank}{strokes.rail}    {line:<{span - 4}}{strokes.rail}")
    return lines


def _arrow(text: str, forward: bool, span: int, strokes: Strokes) -> str:
    middle = f"{strokes.line * 2} {text} " if text else ""
    if forward:
        return middle + strokes.line * (span - 1 - len(middle)) + strokes.right
    middle = f" {text} {strokes.line * 2}" if text else ""
    return strokes.left + strokes.line * (span - 1 - len(middle)) + middle


def _wrapped(text: str, width: int) -> Sequence[str]:
    """Break at blanks; a word that is longer than a line is cut."""
    lines: list[str] = []
    current = ""
    for word in text.split(" "):
        if current and len(current) + 1 + len(word) > width:
            lines.append(current.rstrip())
            current = word
        else:
            current = f"{current} {word}" if current else word
    lines.append(current)
    return [line[:width] for line in lines if line]
