"""The base of typed table rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Record:
    """A row: its columns as attributes, and by name as of a mapping.

    A subclass annotates its columns. Where the annotation is a plain ``int`` or ``bool``, a value
    that is absent (retransmissions of a UDP flow) reads as 0 or False through the attribute, so
    that sums need no special case; ``row[name]`` gives what the table holds, None.
    """

    __slots__ = ("_row",)
    _counts: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        cls._counts = frozenset(
            name for name, kind in cls.__annotations__.items() if kind in ("int", "bool")
        )

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        """Return a column's value; AttributeError with the nearest name if there is none."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            value = self._row[name]
        except KeyError:
            from difflib import get_close_matches

            close = get_close_matches(name, self._row, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise AttributeError(f"there is no column {name!r}{hint}") from None
        return 0 if value is None and name in self._counts else value

    def __getitem__(self, name: str) -> Any:
        """Return a column's value as the table holds it."""
        return self._row[name]

    def __dir__(self) -> list[str]:
        """Return the names of the columns too, for completion."""
        return [*super().__dir__(), *self._row]

    def __eq__(self, other: object) -> bool:
        """Rows are equal when all their values are."""
        return isinstance(other, Record) and dict(self._row) == dict(other._row)

    __hash__ = None  # type: ignore[assignment]

    def as_dict(self) -> dict[str, Any]:
        """Return all columns with their values."""
        return dict(self._row)

    def __repr__(self) -> str:
        """Return the columns that say something."""
        shown = {name: value for name, value in self._row.items() if value not in (None, 0, "")}
        text = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({text})"
