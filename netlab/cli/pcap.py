"""`netlab pcap`: what is in a capture.

Tables on a terminal are cut to fit and to the largest rows, and say how much they leave out;
`--json`, `--csv` and `--parquet` give every column of every row unless told otherwise.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from netlab.errors import NetlabError, UsageError

if TYPE_CHECKING:
    from netlab.analysis.capture import Copied, Summary, Table
    from netlab.cli.tables import Column, Row

DAMAGED: Final = 3
"""Exit code for a capture that could only partly be read (docs/exit-codes.md)."""
EVERYTHING: Final = 1 << 62

# name → (module, attribute): commands of the group that live elsewhere.
ELSEWHERE: Final = {
    "diagram": ("netlab.cli.diagram", "diagram"),
    "states": ("netlab.cli.states", "of_capture"),
    "journey": ("netlab.cli.journey", "journey"),
    "report": ("netlab.cli.report", "pcap_report"),
}


class PcapGroup(click.Group):
    """The group; commands of other modules are imported when they are called or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands, ours first."""
        return [*self.commands, *(name for name in ELSEWHERE if name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing it if it lives elsewhere."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        if cmd_name not in ELSEWHERE:
            return None
        module, attribute = ELSEWHERE[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; a file in its place means `summary`, a misspelling gets a hint."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("--"):
            if args[0] == "-" or os.path.exists(args[0]):  # noqa: PTH110 - a name, maybe no path
                ctx.fail(
                    f"'{args[0]}' is no command; did you mean 'netlab pcap summary {args[0]}'?"
                )
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            ctx.fail(
                f"no such command '{args[0]}'" + (f"; did you mean '{close[0]}'?" if close else "")
            )
        return super().resolve_command(ctx, args)


@click.group(cls=PcapGroup)
def pcap() -> None:
    """Look into captures: pcap and pcapng, also gz and zstd, or - for standard input."""


# ------------------------------------------------------------------------ options


def _stacked(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrap(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return wrap


CAPTURE = click.argument("capture", metavar="FILE")
READING = _stacked(
    click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True,
                 help="Threads to read with; the result is the same."),
    click.option("--checksums", is_flag=True, help="Verify TCP and UDP checksums."),
    click.option("--semantics", type=click.Choice(["4.0", "4.4"]), default="4.0", show_default=True,
                 help="Whose rules flag segments: Wireshark 4.0's or 4.4's."),
    click.option("--max-flows", type=click.IntRange(1), metavar="N",
                 help="Bound memory: forget the flows idle longest, and say so."),
)  # fmt: skip
CHOOSING = _stacked(
    click.option("--where", metavar="EXPR",
                 help="Only rows for which this holds: 'retransmission > 5 and port == 443'."),
    click.option("--sort", metavar="EXPR", help="Largest first by a column or an expression."),
    click.option("--ascending", is_flag=True, help="With --sort: smallest first."),
    click.option("--top", type=click.IntRange(1), metavar="N", help="At most so many rows."),
    click.option("--all", "every", is_flag=True, help="Every row, also on a terminal."),
    click.option("--columns", metavar="A,B,...",
                 help="These columns; 'all' for all (netlab pcap columns lists them)."),
)  # fmt: skip
FORMAT = _stacked(
    click.option("--json", "form", flag_value="json", help="JSON on stdout."),
    click.option("--csv", "form", flag_value="csv", help="CSV on stdout, numbers without units."),
    click.option("--parquet", metavar="OUT", help="Write a Parquet file (needs polars)."),
)  # fmt: skip


# ------------------------------------------------------------------------ reading


@contextmanager
def _progress(name: str) -> Generator[Callable[[int, int | None, int], bool] | None]:
    """Yield a callback that draws a bar on a terminal once reading takes half a second."""
    if not sys.stderr.isatty():
        yield None
        return
    import time

    begun = time.monotonic()
    bar: list[Any] = []

    def tell(done: int, size: int | None, packets: int) -> bool:
        if not bar:
            if time.monotonic() - begun < 0.5:
                return True
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            shown = Progress(
                TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
                TextColumn("{task.fields[packets]:,} packets"), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            shown.start()
            bar.extend((shown, shown.add_task(os.path.basename(name), total=size, packets=packets)))  # noqa: PTH119
        bar[0].update(bar[1], completed=done, total=size, packets=packets)
        return True

    try:
        yield tell
    finally:
        if bar:
            bar[0].stop()


def _read(capture: str, **options: Any) -> Summary:
    """Summarize a capture with a progress bar; say on stderr what is wrong with the file."""
    from netlab.capture import summarize

    if capture == "-" and sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal", hint="pipe a capture into it or name a file"
        )
    with _progress(capture) as progress:
        summary = summarize(capture, progress=progress, **options)
    for warning in summary.warnings:
        click.echo(f"warning: {_name(capture)}: {warning}", err=True)
    return summary


def _name(capture: str) -> str:
    from netlab.cli.tables import printable

    return "standard input" if capture == "-" else printable(capture)


def _done(summary: Summary) -> None:
    if summary.damaged:
        sys.stdout.flush()
        raise click.exceptions.Exit(DAMAGED)


def _chosen(
    table: Table[Any], where: str | None, sort: str | None, ascending: bool
) -> list[int] | None:
    """Return the numbers of the rows asked for, in order; None for all as they are."""
    if where is None and sort is None:
        return None
    try:
        rows = list(range(len(table))) if where is None else table.rows_where(where)
        if sort is not None:
            rank = {
                row: place
                for place, row in enumerate(table.rows_sorted(sort, descending=not ascending))
            }
            rows.sort(key=rank.__getitem__)
    except NetlabError as error:
        if error.hint and "--columns lists them" in error.hint:
            error.hint = error.hint.replace(
                "--columns lists them", "netlab pcap columns lists them"
            )
        raise
    return rows


def _dictionaries(
    table: Table[Any], rows: Sequence[int] | None, most: int
) -> Iterator[dict[str, Any]]:
    """Yield rows as dictionaries without holding all of them."""
    if rows is None:
        for start in range(0, min(len(table), most), 4096):
            yield from table.to_pylist(start, min(start + 4096, most))
    else:
        for row in rows[:most]:
            yield table.to_pylist(row, row + 1)[0]


def _names(table: Table[Any], columns: str | None) -> tuple[str, ...] | None:
    """Return the columns named in a list, checked; None when nothing was named."""
    if columns is None:
        return None
    if columns == "all":
        return table.columns
    names = tuple(name.strip() for name in columns.split(",") if name.strip())
    for name in names:
        if name not in table.columns:
            from difflib import get_close_matches

            close = get_close_matches(name, table.columns, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "netlab pcap columns lists them"
            raise UsageError(f"there is no column '{name}'", hint=hint)
    if not names:
        raise UsageError("--columns names no column", hint="netlab pcap columns lists them")
    return names


# ------------------------------------------------------------------------ writing


def _write_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _write_json_rows(rows: Iterator[Mapping[str, Any]], names: Sequence[str] | None) -> None:
    """Write an array, a row a line, without holding it."""
    import json

    lead = "[\n"
    for row in rows:
        shown = row if names is None else {name: row[name] for name in names}
        click.echo(lead + json.dumps(shown, ensure_ascii=False), nl=False)
        lead = ",\n"
    click.echo("[]" if lead == "[\n" else "\n]")


def _write_csv(rows: Iterator[Mapping[str, Any]], names: Sequence[str]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(
            " ".join(map(str, value)) if isinstance(value, list) else value  # type: ignore[misc]
            for value in (row[name] for name in names)
        )


def _write_parquet(
    table: Table[Any], rows: list[int] | None, names: Sequence[str] | None, most: int, out: str
) -> None:
    try:
        import polars
    except ImportError:
        raise UsageError(
            "writing Parquet needs polars", hint="pip install 'netlab-tcpip[parquet]'"
        ) from None
    frame: Any = polars.DataFrame(table)
    if rows is not None:
        frame = frame[rows]
    if names is not None:
        frame = frame.select(names)
    try:
        frame.head(min(most, len(frame))).write_parquet(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from None
    click.echo(f"{min(most, len(frame)):,} rows written to {out}", err=True)


def _plain_columns(kind: str, names: Sequence[str]) -> tuple[Column, ...]:
    """Return terminal columns for named columns of a table, formatted by their unit."""
    from netlab import _core
    from netlab.cli.tables import Column, cell

    types = {
        name: (type_, unit) for part, name, type_, unit, _, _ in _core.schema() if part == kind
    }

    def column(name: str) -> Column:
        type_, unit = types[name]

        def text(row: Row) -> str:
            value = row[name]
            if name in ("ts", "ts_ns", "t_ns") and isinstance(value, int):
                return _moment(value)
            if unit == "" and isinstance(value, int) and not isinstance(value, bool):
                return str(value)
            return cell(value, unit)

        return Column(name, text, right=type_ not in ("string", "bool"))

    return tuple(column(name) for name in names)


def _moment(nanoseconds: int) -> str:
    from netlab.cli.tables import moment

    return moment(nanoseconds)


def _emit(
    summary: Summary, table: Table[Any], kind: str, columns: Sequence[Column], *,
    where: str | None, sort: str | None, ascending: bool, top: int | None, every: bool,
    names: str | None, form: str | None, parquet: str | None, usual: int,
) -> None:  # fmt: skip
    """Write a table in the form asked for."""
    wanted = _names(table, names)
    rows = _chosen(table, where, sort, ascending)
    total = len(table) if rows is None else len(rows)
    if parquet is not None:
        _write_parquet(table, rows, wanted, top or EVERYTHING, parquet)
    elif form == "json":
        _write_json_rows(_dictionaries(table, rows, top or EVERYTHING), wanted)
    elif form == "csv":
        _write_csv(_dictionaries(table, rows, top or EVERYTHING), wanted or table.columns)
    else:
        from netlab.cli import tables

        most = top or (EVERYTHING if every or not sys.stdout.isatty() else usual)
        shown = columns if wanted is None else _plain_columns(kind, wanted)
        tables.show(list(_dictionaries(table, rows, most)), shown)
        _hidden(total - min(most, total), {"series": "bins"}.get(kind, kind))
    _done(summary)


def _hidden(count: int, what: str) -> None:
    if count > 0:
        click.echo(f"{count:,} more {what}; --all shows them, --top N so many", err=True)


# ------------------------------------------------------------------------ columns for people


def _end(row: Row, side: str) -> str:
    host, port = str(row[f"{side}_h"]), row[f"{side}_p"]
    if row["proto"] not in ("tcp", "udp", "sctp", "dccp", "udplite"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _both(row: Row, name: str) -> float:
    values = (row[f"orig_{name}"], row[f"resp_{name}"])
    return sum(value for value in values if isinstance(value, int | float))


STATES: Final = {
    "S0": "no answer", "S1": "open", "SF": "closed", "REJ": "refused", "S2": "half closed",
    "S3": "half closed", "RSTO": "reset by client", "RSTR": "reset by server",
    "RSTOS0": "SYN, then reset", "RSTRH": "reset by server", "SH": "SYN, then FIN",
    "SHR": "SYN+ACK, then FIN", "OTH": "joined midway",
}  # fmt: skip
"""Zeek's connection states in words."""


def _flow_columns() -> tuple[Column, ...]:
    from netlab.cli.tables import Column, count, duration, octets, rate

    def number(row: Row, name: str) -> str:
        value = _both(row, name)
        return count(value) if value else "-"

    def several(name: str) -> Callable[[Row], str]:
        return lambda row: number(row, name)

    def one(name: str) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            value = row[name]
            return duration(value) if isinstance(value, int | float) else "-"

        return text

    def fastest(row: Row) -> str:
        rates = [row["orig_throughput_bps"], row["resp_throughput_bps"]]
        known = [value for value in rates if isinstance(value, float)]
        return rate(max(known)) if known else "-"

    def state(row: Row) -> str:
        return (
            STATES.get(str(row["conn_state"]), str(row["conn_state"]))
            if row["proto"] == "tcp"
            else "-"
        )

    def way(name: str, side: str) -> Callable[[Row], str]:
        write = octets if name == "bytes" else count
        return lambda row: write(float(row[f"{side}_{name}"]))  # type: ignore[arg-type]

    def alarm(row: Row) -> str | None:
        return "yellow" if _both(row, "retransmission") else None

    return (
        Column("flow", lambda row: f"{row['proto']} {row['stream']}", right=False),
        Column("from", lambda row: _end(row, "orig"), right=False),
        Column("to", lambda row: _end(row, "resp"), right=False),
        Column("packets", lambda row: count(_both(row, "pkts"))),
        Column("→", way("pkts", "orig"), rank=8),
        Column("←", way("pkts", "resp"), rank=8),
        Column("bytes", lambda row: octets(_both(row, "bytes"))),
        Column("bytes →", way("bytes", "orig"), rank=7),
        Column("bytes ←", way("bytes", "resp"), rank=7),
        Column("duration", one("duration"), rank=2),
        Column("rate", fastest, rank=4),
        Column("RTT", one("initial_rtt"), rank=2),
        Column("retrans", several("retransmission"), rank=1, style=alarm),
        Column("out of order", several("out_of_order"), rank=6),
        Column("zero window", several("zero_window"), rank=9),
        Column("state", state, right=False, rank=5),
    )


FLAG_NAMES: Final = (
    ("retransmission", "retransmission"), ("fast_retransmission", "fast"),
    ("spurious_retransmission", "spurious"), ("out_of_order", "out of order"),
    ("lost_segment", "hole before"), ("ack_lost_segment", "acks unseen"),
    ("zero_window", "zero window"), ("zero_window_probe", "window probe"),
    ("zero_window_probe_ack", "window probe ack"), ("window_full", "window full"),
    ("window_update", "window update"), ("keep_alive", "keep-alive"),
    ("keep_alive_ack", "keep-alive ack"), ("reused_ports", "ports reused"),
)  # fmt: skip
LETTERS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")


def tcp_flags(bits: int) -> str:
    """Return TCP flags by name, SYN and FIN and RST first: ``SYN,ACK``."""
    order = (1, 0, 2, 3, 4, 5, 6, 7, 8)
    return ",".join(LETTERS[place] for place in order if bits >> place & 1)


def _segment_columns(start_ns: int) -> tuple[Column, ...]:
    from netlab.cli.tables import Column, cell, count

    def number(name: str) -> Callable[[Row], str]:
        return lambda row: count(row[name]) if isinstance(row[name], int) else "-"  # type: ignore[arg-type]

    def since_start(row: Row) -> str:
        ts = row["ts_ns"]
        return f"{(ts - start_ns) / 1e9:.6f}" if isinstance(ts, int) else "-"

    def analysis(row: Row) -> str:
        words = [text for name, text in FLAG_NAMES if row[name]]
        if row["duplicate_ack"]:
            words.append(f"duplicate ack #{row['duplicate_ack_num']}")
        return ", ".join(words)

    return (
        Column("frame", lambda row: str(row["frame"])),
        Column("time", since_start),
        Column("stream", lambda row: str(row["stream"]), rank=3),
        Column("dir", lambda row: "→" if row["from_orig"] else "←", right=False),
        Column("flags", lambda row: tcp_flags(int(str(row["flags"]))), right=False),
        Column("seq", number("seq")),
        Column("ack", number("ack"), rank=1),
        Column("len", number("len")),
        Column("window", number("window"), rank=4),
        Column("in flight", number("bytes_in_flight"), rank=5),
        Column("RTT", lambda row: cell(row["ack_rtt_ns"], "ns"), rank=2),  # type: ignore[arg-type]
        Column("RTO", lambda row: cell(row["rto_ns"], "ns"), rank=6),
        Column(
            "analysis", analysis, right=False, style=lambda row: "yellow" if analysis(row) else None
        ),
    )


def _series_columns(start_ns: int, bin_ns: int) -> tuple[Column, ...]:
    from netlab.cli.tables import Column, count, octets, rate

    def number(name: str) -> Callable[[Row], str]:
        return lambda row: count(row[name]) if row[name] else "-"  # type: ignore[arg-type]

    digits = max(0, min(9, 9 - (len(str(bin_ns)) - 1)))
    return (
        Column("time", lambda row: f"{(row['t_ns'] - start_ns) / 1e9:.{digits}f}"),  # type: ignore[operator]
        Column("flow", lambda row: f"{row['proto']} {row['stream']}", right=False),
        Column("dir", lambda row: "→" if row["from_orig"] else "←", right=False),
        Column("packets", number("pkts")),
        Column("bytes", lambda row: octets(row["bytes"])),  # type: ignore[arg-type]
        Column("rate", lambda row: rate(row["bytes"] * 8e9 / bin_ns), rank=1),  # type: ignore[operator]
        Column("payload", lambda row: octets(row["payload_bytes"]), rank=5),  # type: ignore[arg-type]
        Column("retrans", number("retransmission"), rank=2),
        Column("dup acks", number("duplicate_ack"), rank=6),
        Column("in flight", number("bytes_in_flight_max"), rank=3),
        Column("window", number("window"), rank=3),
    )


# ------------------------------------------------------------------------ commands


@pcap.command()
@CAPTURE
@READING
@CHOOSING
@click.option("--json", "form", flag_value="json", help="JSON on stdout.")
def summary(
    capture: str, form: str | None, where: str | None, sort: str | None, ascending: bool,
    top: int | None, every: bool, columns: str | None, **reading: Any,
) -> None:  # fmt: skip
    """Say what a capture holds: totals, what stands out, the largest flows.

    Each finding ends with the Wireshark display filter that shows it. With --json: totals,
    findings, and all flows unless --top says otherwise.
    """
    result = _read(capture, **reading)
    wanted = _names(result.flows, columns)
    rows = _chosen(result.flows, where, sort, ascending)
    if form == "json":
        flows = _dictionaries(result.flows, rows, top or EVERYTHING)
        shown = flows if wanted is None else ({n: flow[n] for n in wanted} for flow in flows)
        _write_json(
            {
                "schema": 1,
                "file": capture,
                "totals": dict(result.totals),
                "findings": [
                    {"kind": f.kind, "severity": f.severity, "text": f.sentence,
                     "filter": f.filter or None, "frames": f.frames, "streams": list(f.streams)}
                    for f in result.findings()
                ],
                "flows": list(shown),
            }
        )  # fmt: skip
        return _done(result)
    from netlab.cli import tables

    for line in _head(result, capture):
        click.echo(line, color=tables.coloured())
    if rows is None and len(result.flows):
        rows = result.flows.rows_sorted("bytes")
    most = top or (EVERYTHING if every else 10)
    if rows:
        click.echo()
        shown_columns = _flow_columns() if wanted is None else _plain_columns("flows", wanted)
        tables.show(list(_dictionaries(result.flows, rows, most)), shown_columns)
        _more_flows(len(rows) - most, where)
    _print_findings(result)
    return _done(result)


def _more_flows(count: int, where: str | None) -> None:
    from netlab.cli import tables

    if count > 0:
        what = "that match" if where else "smaller ones"
        text = f"{count:,} more flows ({what}): --all, --top N, or netlab pcap flows"
        click.echo(click.style(text, dim=True), color=tables.coloured())


LINK_NAMES: Final = {
    0: "BSD loopback", 1: "Ethernet", 6: "Token Ring", 9: "PPP", 10: "FDDI", 12: "raw IP",
    50: "PPP", 51: "PPPoE", 101: "raw IP", 104: "Cisco HDLC", 105: "802.11",
    108: "OpenBSD loopback", 113: "Linux cooked", 127: "802.11 radiotap",
    228: "IPv4", 229: "IPv6", 276: "Linux cooked v2",
}  # fmt: skip
FORMATS: Final = {"pcap": "pcap", "nsecpcap": "pcap (ns)", "pcapng": "pcapng"}


def _head(result: Summary, capture: str) -> list[str]:
    """Return the lines about the capture as a whole."""
    from netlab.cli import tables

    totals = result.totals
    links = dict.fromkeys(i["link_type"] for i in totals["interfaces"])
    names = [LINK_NAMES.get(link, f"link type {link}") for link in list(links)[:3]]
    if len(links) > 3:
        names.append(f"{len(links) - 3} more link types")
    form = FORMATS.get(totals["format"], str(totals["format"]))
    if totals["compression"]:
        form += f", {totals['compression']}"
    interfaces = len(totals["interfaces"])
    on = f", {interfaces} interfaces" if interfaces > 1 else ""
    name = _name(capture)
    first = tables.wrapped(f"{name}: {form}, {', '.join(names) or 'no interface'}{on}")
    lines = [first.replace(name, click.style(name, bold=True), 1)]
    if not totals["packets"]:
        return [*lines, "no packets"]
    seconds = result.duration_ns / 1e9
    bits = totals["bytes"] * 8 / seconds if seconds > 0 else 0
    average = f", {tables.rate(bits)} on average" if bits >= 1 else ""
    when = (
        "without time stamps"
        if totals["first_ns"] is None
        else f"in {tables.duration(result.duration_ns)}{average}, "
        f"from {tables.moment(totals['first_ns'])} UTC"
    )
    lines.append(
        tables.wrapped(f"{totals['packets']:,} packets, {tables.octets(totals['bytes'])} {when}")
    )
    protos: dict[str, int] = {}
    for proto in result.flows.column("proto"):
        protos[proto] = protos.get(proto, 0) + 1
    flows = ", ".join(
        f"{count:,} {name}" for name, count in sorted(protos.items(), key=lambda e: -e[1])
    )
    other: list[str] = []
    for key, text in (("arp", "ARP"), ("fragments", "fragments"), ("tunnelled", "tunnelled")):
        if totals[key]:
            other.append(f"{totals[key]:,} {text}")
    unread = sum(totals["undecodable"].values())
    if unread:
        links = ", ".join(map(str, totals["unknown_link_types"]))
        other.append(f"{unread:,} not decoded" + (f" (link type {links} unknown)" if links else ""))
    rest = f"; packets: {', '.join(other)}" if other else ""
    lines.append(tables.wrapped(f"flows: {flows or 'none'}{rest}"))
    lost = [
        f"{i['dropped'] or i['os_dropped']:,} dropped on interface {i['name'] or i['id']}"
        for i in totals["interfaces"]
        if i["dropped"] or i["os_dropped"]
    ]
    if lost:
        text = tables.wrapped(f"the capture itself lost packets: {', '.join(lost)}")
        lines.append(click.style(text, fg="yellow"))
    return lines


def _print_findings(result: Summary) -> None:
    """Print each finding as a sentence, its display filter on a line of its own."""
    from netlab.cli import tables

    found = result.findings()
    if not found:
        return
    head = click.style("Findings", bold=True) + " (each with its Wireshark display filter)"
    click.echo("\n" + head, color=tables.coloured())
    for finding in found:
        mark, colour = ("!", "yellow") if finding.severity == "warning" else ("·", None)
        text = tables.wrapped(finding.sentence, indent="  ")
        click.echo(click.style(mark, fg=colour) + text[1:], color=tables.coloured())
        if finding.filter:
            click.echo(click.style(f"    {finding.filter}", dim=True), color=tables.coloured())


@pcap.command()
@CAPTURE
@READING
@CHOOSING
@FORMAT
def flows(
    capture: str, form: str | None, parquet: str | None, where: str | None, sort: str | None,
    ascending: bool, top: int | None, every: bool, columns: str | None, **reading: Any,
) -> None:  # fmt: skip
    """List the flows: one row for each, in order of their first packet."""
    result = _read(capture, **reading)
    _emit(
        result, result.flows, "flows", _flow_columns(), where=where, sort=sort, ascending=ascending,
        top=top, every=every, names=columns, form=form, parquet=parquet, usual=40,
    )  # fmt: skip


@pcap.command()
@CAPTURE
@click.option("--stream", type=click.IntRange(0), help="Only this TCP stream (tcp.stream).")
@READING
@CHOOSING
@FORMAT
def segments(
    capture: str, stream: int | None, form: str | None, parquet: str | None, where: str | None,
    sort: str | None, ascending: bool, top: int | None, every: bool, columns: str | None,
    **reading: Any,
) -> None:  # fmt: skip
    """List TCP segments with what the analysis says of each, as Wireshark flags them."""
    result = _read(capture, segments=True if stream is None else [stream], **reading)
    try:
        table = result.segments(stream)
    except KeyError as error:
        raise UsageError(str(error.args[0]), hint="netlab pcap flows lists the streams") from None
    start = result.totals["first_ns"] or 0
    _emit(
        result, table, "segments", _segment_columns(start), where=where, sort=sort,
        ascending=ascending, top=top, every=every, names=columns, form=form, parquet=parquet,
        usual=100,
    )  # fmt: skip


class Duration(click.ParamType[int]):
    """A time with its unit, in nanoseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return nanoseconds for text such as 100ms."""
        from netlab.units import parse_time

        if isinstance(value, int):
            return value
        try:
            nanoseconds = round(parse_time(str(value)) * 1e9)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 < nanoseconds < 1 << 62:
            self.fail(f"{value!r} is no width for a bin; write for example '100ms'", param, ctx)
        return nanoseconds


@pcap.command()
@CAPTURE
@click.option("--stream", type=click.IntRange(0), help="Only this TCP stream (tcp.stream).")
@click.option("--bin", "bin_ns", type=Duration(), default="1s", show_default=True,
              help="Width of a bin, as 100ms.")  # fmt: skip
@READING
@CHOOSING
@FORMAT
def series(
    capture: str, stream: int | None, bin_ns: int, form: str | None, parquet: str | None,
    where: str | None, sort: str | None, ascending: bool, top: int | None, every: bool,
    columns: str | None, **reading: Any,
) -> None:  # fmt: skip
    """Count over time: packets, rate, retransmissions, flight and window for each bin."""
    result = _read(capture, series_bin_ns=bin_ns, **reading)
    try:
        table = result.series(stream, bin_ns)
    except KeyError as error:
        raise UsageError(str(error.args[0]), hint="netlab pcap flows lists the streams") from None
    start = (result.totals["first_ns"] or 0) // bin_ns * bin_ns
    _emit(
        result, table, "series", _series_columns(start, bin_ns), where=where, sort=sort,
        ascending=ascending, top=top, every=every, names=columns, form=form, parquet=parquet,
        usual=100,
    )  # fmt: skip


@pcap.command()
@click.argument("captures", metavar="FILE...", nargs=-1, required=True)
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="The pcapng to write.")
def merge(captures: tuple[str, ...], out: str) -> None:
    """Write the packets of several captures in order of time as one pcapng."""
    from netlab.capture import merge as join

    _copied(join(captures, out), out)


def _numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Return frame numbers for text such as 1-20,35."""
    del ctx
    if value is None:
        return None
    found: list[int] = []
    for part in value.split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise click.BadParameter(f"{part!r} is no frame number; write 1-20,35", param=param)
        low, high = int(first), int(last or first)
        if not 1 <= low <= high or high - low > 10_000_000:
            raise click.BadParameter(f"{part!r} is no range of frames", param=param)
        found.extend(range(low, high + 1))
    return tuple(found)


@pcap.command("filter")
@CAPTURE
@click.argument("out", metavar="OUT")
@click.argument("expression", metavar="[EXPRESSION]", nargs=-1)
@click.option(
    "--stream",
    "streams",
    type=click.IntRange(0),
    multiple=True,
    help="Packets of this TCP stream; may be repeated.",
)
@click.option("--frames", callback=_numbers, metavar="1-20,35", help="These frames.")
@click.option(
    "--where",
    metavar="EXPR",
    help="Packets of the TCP flows for which this holds, as of netlab pcap flows.",
)
def filter_(
    capture: str,
    out: str,
    expression: tuple[str, ...],
    streams: tuple[int, ...],
    frames: tuple[int, ...] | None,
    where: str | None,
) -> None:
    """Write the packets that satisfy every condition as pcapng.

    \b
    EXPRESSION is made of
      ip ip6 tcp udp icmp icmp6 sctp vlan [N] tunnel quoted data
      [src|dst] host ADDRESS    [src|dst] net ADDRESS/N    [src|dst] port N[-M]
      syn fin rst ack psh urg ece cwr
      len|bytes|ttl (< <= = != >= >) N    frame N[-M]
      and or not ( )
    """  # noqa: D301 - click reads the backspace as "do not wrap"
    from netlab.capture import filter as select
    from netlab.capture import summarize

    chosen = set(streams)
    if where is not None:
        if capture == "-":
            raise UsageError("--where needs a file that can be read twice")
        table = summarize(capture).flows
        numbers, protos = table.column("stream"), table.column("proto")
        rows = _chosen(table, where, None, False) or []
        chosen |= {numbers[row] for row in rows if protos[row] == "tcp"}
    if not (chosen or expression or frames or where is not None):
        raise UsageError("no condition", hint="give an EXPRESSION, --stream, --frames or --where")
    result = select(
        capture,
        out,
        expression=" ".join(expression) or None,
        frames=frames,
        streams=sorted(chosen) if chosen or where is not None else None,
    )
    _copied(result, out)


def _copied(result: Copied, out: str) -> None:
    from netlab.cli.tables import printable

    for warning in result.warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
    click.echo(
        f"{result.written:,} of {result.read:,} packets written to {printable(out)}", err=True
    )
    if result.warnings:
        raise click.exceptions.Exit(DAMAGED)


@pcap.command()
@click.argument("table", type=click.Choice(["flows", "segments", "series"]), default="flows")
@click.option("--json", "form", flag_value="json", help="JSON on stdout.")
def columns(table: str, form: str | None) -> None:
    """Describe the columns of a table: type, unit, meaning."""
    from netlab import _core
    from netlab.cli import tables

    rows = [
        {"column": name, "type": kind, "unit": unit, "meaning": meaning, "source": source}
        for part, name, kind, unit, meaning, source in _core.schema()
        if part == table
    ]
    if form == "json":
        return _write_json(rows)

    def column(name: str, rank: int = 0) -> Column:
        return tables.Column(name, lambda row: str(row[name]), right=False, rank=rank)

    shown = (
        column("column"),
        column("unit"),
        column("meaning"),
        column("source", 1),
        column("type", 2),
    )
    return tables.show(rows, shown)
