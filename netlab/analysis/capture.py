"""Typed face of the native analyser `netlab._core`.

`summarize` reads a capture once and returns a `Summary`: totals, a table of flows, and on demand a
table of segments and a table of time bins. A table is columns in native memory; rows are made when
asked for, and Arrow consumers (polars, duckdb, pyarrow, nanoarrow) take a table as it is, through
the Arrow PyCapsule interface, without a dependency of ours. docs/capture-schema.md describes every
column.

Nothing here starts a process or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, overload

from netlab import _core
from netlab.analysis.rows import Bin, Flow, Record, Segment
from netlab.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from netlab.analysis.findings import Finding

Progress = Callable[[int, "int | None", int], "bool | None"]
"""Called now and then with octets read, octets in all (if known) and packets; False stops."""

R = TypeVar("R", bound=Record, covariant=True)


class Table(Generic[R]):
    """Rows of one kind: typed records by number, and an Arrow stream of columns.

    ``polars.DataFrame(table)``, ``duckdb.from_arrow(table)`` and ``pyarrow.table(table)`` work as
    they stand (a table is no `collections.abc.Sequence`: those are copied row by row). `column`
    gives one column as a list, which is what to use for a million rows.
    """

    __slots__ = ("_columns", "_kind", "_native")

    def __init__(self, native: _core.Table, kind: type[R]) -> None:
        self._native = native
        self._kind = kind
        self._columns: tuple[str, ...] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        if self._columns is None:
            self._columns = tuple(self._native.columns())
        return self._columns

    def column(self, name: str) -> list[Any]:
        """Return one column as a list; KeyError with the nearest name if there is none."""
        if name not in self.columns:
            from difflib import get_close_matches

            close = get_close_matches(name, self.columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise KeyError(f"there is no column {name!r}{hint}")
        return self._native.column(name)

    def to_pylist(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]]:
        """Return rows as dictionaries."""
        return self._native.to_pylist(start, stop)

    def where(self, expression: str) -> list[R]:
        """Return the rows for which an expression holds, as of `netlab pcap flows --where`."""
        return [self[row] for row in self.rows_where(expression)]

    def rows_where(self, expression: str) -> list[int]:
        """Return the numbers of the rows for which an expression holds."""
        from netlab.analysis.query import rows_where

        return rows_where(expression, self.columns, self.column, len(self))

    def rows_sorted(self, expression: str, *, descending: bool = True) -> list[int]:
        """Return the numbers of all rows, ordered by an expression; equal ones keep their order."""
        from netlab.analysis.query import sort_values

        keys = sort_values(expression, self.columns, self.column, len(self))
        return sorted(range(len(self)), key=keys.__getitem__, reverse=descending)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._native)

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        """Return one row, or several as a list."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return [self._kind(row) for row in self._native.to_pylist(start, max(start, stop))]
            return [self[row] for row in range(start, stop, step)]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no row {index}; there are {len(self)}")
        return self._kind(self._native.to_pylist(place, place + 1)[0])

    def __iter__(self) -> Iterator[R]:
        """Yield all rows; a few thousand are in memory at a time."""
        for start in range(0, len(self), 4096):
            for row in self._native.to_pylist(start, start + 4096):
                yield self._kind(row)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the table through the Arrow PyCapsule interface."""
        return self._native.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        """Return the kind of rows and how many there are."""
        name = self._kind.__name__.lower()
        return f"<table of {len(self):,} {name}s, {len(self.columns)} columns>"

    def _repr_html_(self) -> str:
        """Return the first rows as HTML, for notebooks."""
        from netlab.analysis.html import table_html

        return table_html(self)


class Summary:
    """What a capture holds.

    `totals` counts over the whole file, `flows` has a row for each flow in order of its first
    frame. `segments` and `series` read the file again unless `summarize` was told to keep them.
    """

    __slots__ = ("_native", "flows", "path", "totals")

    def __init__(self, native: _core.Summary, path: str) -> None:
        self._native = native
        self.path = path
        self.flows: Table[Flow] = Table(native.flows, Flow)
        self.totals: Mapping[str, Any] = native.totals

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is wrong with the file; empty for a whole one."""
        return tuple(self.totals["warnings"])

    @property
    def damaged(self) -> bool:
        """Whether the file ends early or cannot be read to its end."""
        return self.totals["truncated_at"] is not None or self.totals["damaged_at"] is not None

    @property
    def packets(self) -> int:
        """How many packets the file holds, up to where it can be read."""
        return self.totals["packets"]

    @property
    def duration_ns(self) -> int:
        """Nanoseconds between the earliest and the latest packet."""
        first, last = self.totals["first_ns"], self.totals["last_ns"]
        return 0 if first is None else last - first

    def stream(self, number: int) -> Flow:
        """Return the TCP flow with this stream number (tcp.stream); KeyError if there is none."""
        streams = self.flows.column("stream")
        protos = self.flows.column("proto")
        for row, (stream, proto) in enumerate(zip(streams, protos, strict=True)):
            if stream == number and proto == "tcp":
                return self.flows[row]
        raise KeyError(f"there is no TCP stream {number}")

    def segments(self, stream: int | None = None) -> Table[Segment]:
        """Return a row for each analysed TCP header, of one stream or of all, in file order."""
        self._check(stream)
        return Table(_guarded(lambda: self._native.segments(stream)), Segment)

    def series(self, stream: int | None = None, bin_ns: int | None = None) -> Table[Bin]:
        """Return packets, octets, retransmissions, flight and window for each bin and direction.

        Bins are `bin_ns` wide (a second unless told, here or to `summarize`) and counted from 1970,
        so those of several captures line up. A bin without packets has no row.
        """
        self._check(stream)
        return Table(_guarded(lambda: self._native.series(stream, bin_ns)), Bin)

    def _check(self, stream: int | None) -> None:
        if stream is not None:
            self.stream(stream)

    def findings(self) -> tuple[Finding, ...]:
        """Return what stands out, each with the Wireshark display filter that shows it."""
        from netlab.analysis.findings import findings

        return findings(self.flows.column, self.totals)

    def __repr__(self) -> str:
        """Return the file, its packets and its flows."""
        note = ", damaged" if self.damaged else ""
        return (
            f"<summary of {self.path}: {self.packets:,} packets, {len(self.flows):,} flows{note}>"
        )

    def _repr_html_(self) -> str:
        """Return totals, findings and the largest flows as HTML, for notebooks."""
        from netlab.analysis.html import summary_html

        return summary_html(self)


T = TypeVar("T")


def _guarded(call: Callable[[], T]) -> T:
    """Turn the native module's complaints about arguments into ours."""
    try:
        return call()
    except ValueError as error:
        raise UsageError(str(error)) from None


class Copied(NamedTuple):
    """What `merge` and `filter` did: packets read and written, and what was wrong."""

    read: int
    written: int
    warnings: tuple[str, ...]


def _copied(result: Mapping[str, Any]) -> Copied:
    return Copied(result["read"], result["written"], tuple(result["warnings"]))


def _distinct(inputs: Sequence[str], out: str) -> None:
    """Refuse to write over what is being read."""
    from pathlib import Path

    if Path(out).exists():
        for name in inputs:
            if name != "-" and Path(name).exists() and Path(name).samefile(out):
                raise UsageError(f"{out} is also the input", hint="write to another file")


def merge(
    paths: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    names: Sequence[str] | None = None,
) -> Copied:
    """Write the packets of several captures in order of time to a pcapng file.

    Packets of equal time keep the order of `paths`. `names`, one for each, become the names of the
    interfaces, such as "client:eth0".
    """
    inputs = [fspath(path) for path in paths]
    _distinct(inputs, fspath(out))
    return _copied(_written(lambda: _core.merge(inputs, fspath(out), names=names), fspath(out)))


def filter(
    path: str | PathLike[str],
    out: str | PathLike[str],
    *,
    expression: str | None = None,
    streams: Sequence[int] | None = None,
    frames: Sequence[int] | None = None,
) -> Copied:
    """Write the packets that satisfy every condition given to a pcapng file.

    `expression` is a small language of packets (``host 10.0.0.1 and syn``, see `netlab pcap filter
    --help`), `streams` are TCP stream numbers, `frames` frame numbers.
    """
    name = fspath(path)
    _distinct([name], fspath(out))
    return _copied(
        _written(
            lambda: _core.filter(
                name, fspath(out), streams=streams, frames=frames, expression=expression
            ),
            fspath(out),
        )
    )


def _written(call: Callable[[], dict[str, Any]], out: str) -> dict[str, Any]:
    try:
        return call()
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from None


def summarize(
    path: str | PathLike[str],
    *,
    threads: int = 1,
    checksums: bool = False,
    semantics: Literal["4.0", "4.4"] = "4.0",
    max_flows: int | None = None,
    follow: bool = False,
    segments: bool | Sequence[int] = False,
    series_bin_ns: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Read a capture and say what its flows did.

    `path` is a pcap or pcapng file, plain or compressed by gzip or zstd, or ``-`` for standard
    input. `semantics` chooses whose rules flag segments: those of Wireshark 4.0 or 4.4. `max_flows`
    bounds memory: the flows idle longest are then forgotten and counted. `follow` goes on reading
    as the file grows, until `progress` returns False. `segments` (all, or those of some streams)
    and `series_bin_ns` keep detail that would otherwise need another reading of the file.

    The result does not depend on `threads`. A file that cannot be read as a capture at all raises
    CaptureError; damage within one is told in `Summary.warnings`.
    """
    name = fspath(path)
    kept = segments if isinstance(segments, bool) else list(segments)
    try:
        native = _core.summarize(
            name,
            threads=threads,
            checksums=checksums,
            semantics=semantics,
            max_flows=max_flows,
            follow=follow,
            segments=kept,
            series_bin_ns=series_bin_ns,
            progress=progress,
        )
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise CaptureError(f"cannot read {name}: {error.strerror or error}") from None
    return Summary(native, name)
