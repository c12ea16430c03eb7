"""`netlab pcap diagram`: the segments of a connection as a ladder in the terminal."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netlab.errors import UsageError

if TYPE_CHECKING:
    from netlab.analysis.segments import Segment


def tcp_segments(file: Path) -> tuple[Segment, ...]:
    """Return the TCP segments of a capture; UsageError, with the reason, where it has none."""
    from netlab.analysis import segments
    from netlab.analysis.capture import summarize

    summary = summarize(file, segments=True)
    rows = segments.of_summary(summary)
    if not rows:
        unknown = ", ".join(map(str, summary.totals["unknown_link_types"]))
        hint = f"netlab does not read packets of link type {unknown}" if unknown else None
        raise UsageError(f"{file} has no TCP segments with a time stamp", hint=hint)
    return rows


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--stream", type=int, help="The TCP connection, as numbered by `pcap flows`.")
@click.option("--limit", type=click.IntRange(1), default=60, show_default=True, help="Segments.")
@click.option("--raw/--no-raw", default=True, help="Also show the numbers of the wire.")
@click.option("--ascii", "plain", is_flag=True, help="Draw with ASCII only.")
@click.option("--width", type=click.IntRange(30), help="Columns (default: the terminal's).")
@click.option("--svg", "as_svg", is_flag=True, help="Print the ladder as an SVG picture.")
@click.option("--json", "as_json", is_flag=True, help="Print the segments as JSON.")
def diagram(
    file: Path,
    stream: int | None,
    limit: int,
    raw: bool,
    plain: bool,
    width: int | None,
    as_svg: bool,
    as_json: bool,
) -> None:
    """Draw the TCP segments of one connection of FILE as arrows between its ends."""
    from netlab.analysis import segments
    from netlab.report.ladder import ladder

    rows = tcp_segments(file)
    streams = sorted({row.stream for row in rows})
    if stream is not None and stream not in streams:
        raise UsageError(
            f"{file} has no TCP connection {stream}", hint=f"it has 0 to {streams[-1]}"
        )
    chosen = streams[0] if stream is None else stream
    found = segments.of_stream(rows, chosen)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found[:limit]], indent=1))
        return
    if as_svg:
        from netlab.report.picture import svg

        click.echo(svg(found, limit=limit), nl=False)
        return
    unicode = not plain and "utf" in (sys.stdout.encoding or "").lower()
    columns = width or min(shutil.get_terminal_size((100, 24)).columns, 120)
    click.echo(ladder(found, width=columns, unicode=unicode, raw=raw, limit=limit), nl=False)
    if stream is None and len(streams) > 1:
        click.echo(f"connection {chosen} of {len(streams)}; choose another with --stream", err=True)
