"""Fields of headers as data: how wide they are, how their values are written, what they mean.

A layout is a row of fields that follow each other without gaps. Data, not code, so that a page
reads the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class Show:
    """How a value is written. Data, not code, so that a page can write values the same way.

    `kind` is one of dec, hex (`unit` digits), flag, v4, v6, mac, shift, named (`names`), words
    (times `unit`, plus `more`, in `what`). A `little` value has its least octet first.
    """

    kind: str
    unit: int = 0
    what: str = ""
    more: int = 0
    names: tuple[tuple[int, str], ...] = ()
    little: bool = False

    def __call__(self, value: int) -> str:
        """Return the value as text."""
        return _WRITE[self.kind](self, value)


def _write_named(show: Show, value: int) -> str:
    name = dict(show.names).get(value)
    return str(value) if name is None else f"{value} ({name})"


_WRITE: dict[str, Callable[[Show, int], str]] = {
    "dec": lambda _, value: str(value),
    "hex": lambda show, value: f"{value:#0{show.unit + 2}x}",
    "flag": lambda _, value: "set" if value else "not set",
    "v4": lambda _, value: str(IPv4Address(value)),
    "v6": lambda _, value: str(IPv6Address(value)),
    "mac": lambda _, value: value.to_bytes(6, "big").hex(":"),
    "shift": lambda _, value: f"{value} (times {1 << min(value, 14)})",
    "named": _write_named,
    "words": lambda show, value: f"{value} ({value * show.unit + show.more} {show.what})",
}
dec, flag, v4, v6, mac, shift = map(Show, ("dec", "flag", "v4", "v6", "mac", "shift"))
little = Show("dec", little=True)


def hexed(digits: int) -> Show:
    """Return a show in hexadecimal."""
    return Show("hex", digits)


def words(unit: int, what: str, more: int = 0) -> Show:
    """Return a show of a value that counts units."""
    return Show("words", unit, what, more)


def named(names: Mapping[int, str]) -> Show:
    """Return a show of numbers that have names."""
    return Show("named", names=tuple(names.items()))


Row = tuple[str, int, Show, str, str]
"""A field of a layout: name, bits, how its value is written, meaning, source."""


def plain(rows: tuple[Row, ...]) -> list[object]:
    """Return rows as plain data: [name, bits, show, meaning, source].

    A show is [kind, unit, what, more, names, little].
    """
    return [
        [name, bits, [how.kind, how.unit, how.what, how.more, dict(how.names), how.little],
         meaning, source]
        for name, bits, how, meaning, source in rows
    ]  # fmt: skip
