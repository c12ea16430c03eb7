"""`netlab pcap journey`: every packet over several capture points, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netlab.errors import UsageError

if TYPE_CHECKING:
    from netlab.analysis.fates import Drop
    from netlab.analysis.journey import Journeys, Packet, Passage
    from netlab.analysis.points import Known
    from netlab.cli.tables import Column


@click.command()
@click.argument(
    "where", nargs=-1, required=True, metavar="RUN|FILE...", type=click.Path(path_type=Path)
)
@click.option("--variation", help="Which variation of a run.")
@click.option("--lost", "only_lost", is_flag=True, help="Only packets that did not arrive.")
@click.option("--again", is_flag=True, help="Only packets sent again, or copied on the way.")
@click.option("--port", type=click.IntRange(1, 65535), help="Only connections of this port.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="Rows.")
@click.option(
    "-w", "--write", "merged", type=click.Path(path_type=Path),
    help="Also merge the captures into a pcapng with an interface for each point.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, every packet.")
def journey(
    where: tuple[Path, ...],
    variation: str | None,
    only_lost: bool,
    again: bool,
    port: int | None,
    limit: int,
    merged: Path | None,
    as_json: bool,
) -> None:
    """Show where each packet was seen and when, where it was lost, when it was sent again.

    Give a RUN (or one recording of it), or captures of the same traffic at several points: FILE,
    or POINT=FILE to name the point. Times are milliseconds after the packet was first seen.
    """
    from netlab.analysis import datagrams, fates, segments
    from netlab.analysis.capture import summarize
    from netlab.analysis.journey import follow, in_order

    captures, known, dropped = _captures(where, variation)
    packets: dict[str, Sequence[Packet]] = {}
    for point, path in captures.items():
        summary = summarize(path, segments=True)
        untimed = int(summary.totals["untimed"])
        both = (*segments.of_summary(summary, untimed=True), *datagrams.load(path))
        packets[point] = in_order(both, untimed=untimed > 0)
        if untimed:
            many = "1 packet has" if untimed == 1 else f"{untimed:,} packets have"
            text = f"{path}: {many} no time stamp, shown at the time of the packet before"
            click.echo(text, err=True)
    found = follow(packets, **known)
    why = {n + 1: drop.text for n, drop in fates.explain(found.passages, dropped).items()}
    if merged is not None:
        from netlab.analysis.capture import merge

        done = merge(list(captures.values()), merged, names=list(captures))
        click.echo(f"{merged}: {done.written:,} packets of {len(captures)} points", err=True)
    rows = [
        (number, passage)
        for number, passage in enumerate(found.passages, 1)
        if (not only_lost or passage.lost_after is not None)
        and (not again or passage.repeats is not None or passage.copy_of is not None)
        and (port is None or port in (passage.packet.sport, passage.packet.dport))
    ]
    if as_json:
        click.echo(
            json.dumps(
                [_record(number, passage, why.get(number)) for number, passage in rows], indent=1
            )
        )
        return
    _print(found, rows[:limit], why)
    lost = len(found.lost)
    told = f"{len(found.passages):,} packets at {len(captures)} points, {lost:,} lost on the way"
    if len(rows) > limit:
        told += f"; {len(rows) - limit:,} rows more with --limit"
    click.echo(told, err=True)


def _captures(
    where: Sequence[Path], variation: str | None
) -> tuple[Mapping[str, Path], Known, Sequence[Drop]]:
    """Return files by point, what else is known of the points, and what wires dropped."""
    from netlab.analysis import fates, points
    from netlab.cli.points import named

    if len(where) > 1 or not where[0].is_dir():
        return named(where), points.Known(homes={}, ended_early=(), filters={}), ()
    from netlab.analysis.evidence import Evidence
    from netlab.labs import judge

    _, recordings, _ = judge.open_run(where[0])
    if variation is not None and variation not in recordings:
        raise UsageError(
            f"{where[0]} has no variation '{variation}'", hint=f"it has {', '.join(recordings)}"
        )
    if variation is None and len(recordings) > 1:
        raise UsageError(
            f"{where[0]} has several variations", hint=f"say --variation {next(iter(recordings))}"
        )
    recording = recordings[variation or next(iter(recordings))]
    found = tuple(points.of(Evidence(recording)))
    if not found:
        raise UsageError(f"{recording.path} has no captures")
    captures = {point.name: point.path for point in found}
    dropped = [drop for book in fates.books(recording) for drop in fates.drops(*book)]
    return captures, points.known(recording, found), dropped


def _what(passage: Passage) -> str:
    from netlab.analysis.segments import Segment
    from netlab.report.ladder import label

    packet = passage.packet
    if isinstance(packet, Segment):
        return label(packet)
    return f"{packet.text} len={packet.length}"


def _fate(passage: Passage, why: str | None) -> str:
    words: list[str] = []
    if passage.lost_after is not None:
        words.append(f"lost after {passage.lost_after}" + (f" ({why})" if why else ""))
    if passage.repeats is not None:
        words.append(f"repeats {passage.repeats + 1}")
    if passage.copy_of is not None:
        words.append(f"copy of {passage.copy_of + 1}")
    return ", ".join(words)


def _record(number: int, passage: Passage, why: str | None) -> dict[str, Any]:
    packet = passage.packet
    return {
        "number": number,
        "conversation": passage.conversation,
        "source": packet.source,
        "sport": packet.sport,
        "destination": packet.destination,
        "dport": packet.dport,
        "what": _what(passage),
        "sights": [
            {"point": s.point, "frame": s.frame, "time_ns": s.time_ns} for s in passage.sights
        ],
        "delay_ns": passage.delay_ns,
        "lost_after": passage.lost_after,
        "lost_why": why,
        "repeats": None if passage.repeats is None else passage.repeats + 1,
        "copy_of": None if passage.copy_of is None else passage.copy_of + 1,
    }


def _print(found: Journeys, rows: Sequence[tuple[int, Passage]], why: Mapping[int, str]) -> None:
    from netlab.cli.tables import Column, show

    start = found.passages[0].time_ns if found.passages else 0
    lines: list[dict[str, object]] = []
    for number, passage in rows:
        packet = passage.packet
        seen = {
            sight.point: f"+{(sight.time_ns - passage.time_ns) / 1e6:.3f}"
            for sight in passage.sights
        }
        lines.append(
            {
                "number": number,
                "time": f"{(passage.time_ns - start) / 1e9:.6f}",
                "from": f"{packet.source}:{packet.sport}" if packet.sport else packet.source,
                "what": _what(passage),
                "fate": _fate(passage, why.get(number)),
                **{f"at {point}": seen.get(point, "") for point in found.points},
            }
        )

    def column(name: str, *, right: bool = False, rank: int = 0) -> Column:
        return Column(name, lambda row: str(row[name]), right=right, rank=rank)

    points = [column(f"at {point}", right=True) for point in found.points]
    show(
        lines,
        [column("number", right=True), column("time", right=True), column("from", rank=1),
         column("what"), *points, column("fate")],
    )  # fmt: skip
