"""The states of both ends of a connection over time, one line per change; text from values.

    time   client 10.0.0.1:40000    server 10.0.0.2:8080
           CLOSED                   LISTEN
0.000000   SYN-SENT                 │                     the program connects
0.000020   │                        SYN-RECEIVED          a SYN came
"""

from __future__ import annotations

import textwrap

from netlab.analysis.states import History, Life, Transition

TIME = 12  # columns of the time, with the gap after it
STATE = 14  # columns of the longest state, and a gap


def timeline(history: History, *, width: int = 80, unicode: bool = True) -> str:
    """Return the changes of both ends side by side, `width` columns wide at most.

    Times count in seconds from the first change. An illegal change is marked, and explained below.
    """
    one, other = history.lives
    column = max(STATE, *(len(line) + 2 for life in history.lives for line in _head(life)))
    column = min(column, max(STATE, (width - TIME) // 2))
    mark = "│" if unicode else "|"
    heads = [*zip(_head(one), _head(other), strict=True), (str(one.first), str(other.first))]
    lines = [f"{'':{TIME}}{a[:column]:<{column}}{b[:column]}" for a, b in heads]
    lines[0] = f"{'time':>{TIME - 2}}  {lines[0][TIME:]}"
    changes = history.transitions
    start = changes[0].at_ns if changes else 0
    for change in changes:
        mine = change.endpoint == one.endpoint
        state = str(change.after)
        left, right = (state, mark) if mine else (mark, state)
        time = f"{(change.at_ns - start) / 1e9:>{TIME - 2}.6f}  "
        row = f"{time}{left:<{column}}{right:<{column}}"
        lines += _told(row, change, width)
    for text in history.illegal:
        lines += textwrap.wrap(f"illegal: {text}", width, subsequent_indent="  ")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(life: Life) -> tuple[str, str]:
    address = f"[{life.address}]" if ":" in life.address else life.address
    where = f"{address}:{life.port}"
    return ("" if life.endpoint == where else life.endpoint, where)


def _told(row: str, change: Transition, width: int) -> list[str]:
    """Return a row with why the state changed, below it where there is no room beside."""
    why = str(change.event) if change.event is not None else "ILLEGAL"
    text = f"{why} ({change.evidence})"
    if len(row) + len(text) <= width:
        return [row + text]
    indent = " " * TIME
    return [row, *textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)]
