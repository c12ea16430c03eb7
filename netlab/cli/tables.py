"""Tables for a terminal: numbers with units, columns that line up, widths that fit.

A column has a rank. Those of rank 0 are always shown; the others are added in the order of their
rank while they fit. If even the first do not, the widest text is cut with an ellipsis. Output that
is not a terminal is as wide as it needs to be: whatever reads it can cut for itself.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

Row = Mapping[str, object]
GAP: Final = "  "
UNLIMITED: Final = 10_000


def significant(value: float, digits: int = 3) -> str:
    """Return a number of at least `digits` significant digits, without an exponent."""
    if value == 0:
        return "0"
    whole = len(str(int(abs(value))))
    return f"{value:.{max(0, digits - whole)}f}"


def scaled(value: float, unit: str, *, step: int = 1000) -> str:
    """Return a number with the decimal prefix that leaves one to three digits before the point."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < step - 0.5 or prefix == "T":
            break
        value /= step
    text = significant(value) if prefix else str(round(value))
    return f"{text} {prefix}{unit}"


def count(value: float) -> str:
    """Return a count with thousands separated: ``12,345``."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def octets(value: float) -> str:
    """Return a size: ``1.46 GB``, decimal prefixes."""
    return scaled(value, "B")


def rate(value: float) -> str:
    """Return bits per second: ``94.1 Mbit/s``."""
    return scaled(value, "bit/s")


def duration(nanoseconds: float) -> str:
    """Return a time span: ``20.0 ms``, ``2 min 5 s``, ``3 h 20 min``."""
    size = abs(nanoseconds)
    if size == 0:
        return "0 s"
    if size < 1000:
        return f"{round(nanoseconds)} ns"
    if size < 120e9:
        factor, unit = next(
            pair for pair in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")) if size >= pair[0]
        )
        return f"{significant(nanoseconds / factor)} {unit}"
    seconds = round(size / 1e9)
    sign = "-" if nanoseconds < 0 else ""
    if seconds < 7200:
        return f"{sign}{seconds // 60} min {seconds % 60} s"
    if seconds < 48 * 3600:
        return f"{sign}{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{sign}{seconds // 86400} d {seconds % 86400 // 3600} h"


def share(value: float) -> str:
    """Return a ratio as a percentage: ``1.9 %``."""
    return f"{significant(value * 100, 2)} %"


def moment(nanoseconds: int) -> str:
    """Return a time stamp in UTC: ``2023-11-14 22:13:20.000000``."""
    from datetime import UTC, datetime, timedelta

    try:
        when = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return f"{nanoseconds} ns"
    return when.strftime("%Y-%m-%d %H:%M:%S.%f")


BY_UNIT: Final[dict[str, Callable[[float], str]]] = {
    "ns": duration,
    "bytes": octets,
    "bit/s": rate,
    "ratio": share,
    "packets": count,
}


def cell(value: object, unit: str = "") -> str:
    """Return any value of a table as text; a missing one as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "-"
    if isinstance(value, int | float):
        return BY_UNIT.get(unit, count)(value)
    return str(value)


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is made from a row: title, text, where it stands, how dispensable it is."""

    title: str
    text: Callable[[Row], str]
    right: bool = True
    rank: int = 0
    style: Callable[[Row], str | None] = lambda _: None


def width_of(text: str) -> int:
    """Return how many terminal cells a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def printable(text: str) -> str:
    """Replace what could move the cursor: names in captures are hostile."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def terminal_width() -> int:
    """Return the columns of the terminal, or no limit where output is not one."""
    if "COLUMNS" not in os.environ and not sys.stdout.isatty():
        return UNLIMITED
    return shutil.get_terminal_size((80, 24)).columns


def coloured() -> bool | None:
    """Say whether to colour: never under NO_COLOR, else what click decides."""
    return False if os.environ.get("NO_COLOR") else None


def cut(text: str, width: int) -> str:
    """Shorten a text with an ellipsis."""
    if width_of(text) <= width:
        return text
    return text[: max(0, width - 1)] + "…"


def lines(rows: Sequence[Row], columns: Sequence[Column], width: int) -> list[str]:
    """Return the table as lines, styled, no longer than `width`."""
    texts = {c.title: [printable(c.text(row)) for row in rows] for c in columns}
    widths = {c.title: max([width_of(c.title), *map(width_of, texts[c.title])]) for c in columns}

    def total(some: Sequence[Column]) -> int:
        return sum(widths[c.title] for c in some) + len(GAP) * (len(some) - 1)

    shown = [column for column in columns if not column.rank]
    for candidate in sorted((c for c in columns if c.rank), key=lambda column: column.rank):
        more = [c for c in columns if c in shown or c is candidate]
        if total(more) <= width:
            shown = more
    while shown and total(shown) > width:
        widest = max(shown, key=lambda column: widths[column.title])
        if widths[widest.title] <= 8:
            break
        widths[widest.title] -= 1

    def place(text: str, column: Column, last: bool) -> str:
        room = widths[column.title]
        text = cut(text, room)
        space = " " * (room - width_of(text))
        return space + text if column.right else text + ("" if last else space)

    final = shown[-1] if shown else None
    head = GAP.join(place(c.title, c, c is final) for c in shown)
    out = [click.style(head, bold=True)]
    for number, row in enumerate(rows):
        parts: list[str] = []
        for column in shown:
            text = place(texts[column.title][number], column, column is final)
            colour = column.style(row)
            parts.append(click.style(text, fg=colour) if colour else text)
        out.append(GAP.join(parts).rstrip())
    return out


def show(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Print a table to stdout."""
    for line in lines(rows, columns, terminal_width()):
        click.echo(line, color=coloured())


def wrapped(text: str, *, indent: str = "", width: int | None = None) -> str:
    """Break a sentence at blanks so that it fits the terminal."""
    import textwrap

    room = terminal_width() if width is None else width
    return textwrap.fill(
        printable(text), min(room, 100 if room == UNLIMITED else room),
        initial_indent=indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
