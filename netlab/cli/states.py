"""`netlab pcap states` and `netlab lab states`: the TCP states of a connection over time."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netlab.cli.diagram import tcp_segments
from netlab.errors import UsageError

if TYPE_CHECKING:
    from netlab.analysis.evidence import Evidence
    from netlab.analysis.states import History

plain_option = click.option("--ascii", "plain", is_flag=True, help="Draw with ASCII only.")
width_option = click.option(
    "--width", type=click.IntRange(30), help="Columns (default: the terminal's)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
FAILED = 1


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--stream", type=int, help="The TCP connection, as numbered by `pcap flows`.")
@plain_option
@width_option
@json_option
@click.pass_context
def of_capture(
    ctx: click.Context,
    file: Path,
    stream: int | None,
    plain: bool,
    width: int | None,
    as_json: bool,
) -> None:
    """Show the states of both ends of one connection of FILE over time.

    They are told from the segments alone, and each change is held against RFC 9293, figure 5.
    Exit code 1: a change that the RFC does not know, or whose cause the capture does not show.
    """
    from netlab.analysis import segments
    from netlab.analysis.states import reconstruct

    rows = tcp_segments(file)
    streams = sorted({row.stream for row in rows})
    if stream is not None and stream not in streams:
        hint = f"it has {streams[0]} to {streams[-1]}"
        raise UsageError(f"{file} has no TCP connection {stream}", hint=hint)
    chosen = streams[0] if stream is None else stream
    history = reconstruct(segments.of_stream(rows, chosen))
    if as_json:
        click.echo(json.dumps(history.record(), indent=1))
    else:
        click.echo(drawn(history, plain=plain, width=width), nl=False)
        if stream is None and len(streams) > 1:
            told = f"connection {chosen} of {len(streams)}; choose another with --stream"
            click.echo(told, err=True)
    ctx.exit(FAILED if history.illegal else 0)


@click.command("states")
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--variation", "variations", multiple=True, help="Only this one (repeatable).")
@click.option("--port", type=click.IntRange(1, 65535), help="A port of the connection.")
@click.option(
    "--connection", type=click.IntRange(0), default=0, show_default=True, help="Which of the port."
)
@plain_option
@width_option
@json_option
@click.pass_context
def of_recording(
    ctx: click.Context,
    recording: Path,
    variations: tuple[str, ...],
    port: int | None,
    connection: int,
    plain: bool,
    width: int | None,
    as_json: bool,
) -> None:
    """Show the states of both ends of a connection of a RECORDING: a run, or one variation of it.

    They are told from its captures, what `ss` showed and what the sampler saw, together. Exit
    code 1: a change that RFC 9293 does not know, or whose cause no capture shows.
    """
    from netlab.analysis.evidence import Evidence
    from netlab.labs import judge

    _, recordings, _ = judge.open_run(recording)
    for name in variations:
        if name not in recordings:
            hint = f"it has {', '.join(recordings)}"
            raise UsageError(f"{recording} has no variation '{name}'", hint=hint)
    illegal = False
    found: dict[str, Any] = {}
    for name in variations or recordings:
        evidence = Evidence(recordings[name])
        history = evidence.history(_port(evidence, port), connection)
        illegal = illegal or bool(history.illegal)
        found[name] = history.record()
        if not as_json:
            click.echo(f"{name}:\n{drawn(history, plain=plain, width=width)}")
    if as_json:
        click.echo(json.dumps(found, indent=1))
    ctx.exit(FAILED if illegal else 0)


def _port(evidence: Evidence, asked: int | None) -> int:
    """Return the port that was asked for, else the one the first captured connection goes to."""
    if asked is not None:
        return asked
    for event in evidence.events("capture-start"):
        for segment in evidence.capture(str(event.fields["name"])).segments:
            return segment.dport if segment.forward else segment.sport
    raise UsageError(f"{evidence.recording.path} has no TCP connection in any capture")


def drawn(history: History, *, plain: bool = False, width: int | None = None) -> str:
    """Return the timeline as this terminal can show it."""
    from netlab.report.states import timeline

    unicode = not plain and "utf" in (sys.stdout.encoding or "").lower()
    columns = width or min(shutil.get_terminal_size((100, 24)).columns, 120)
    return timeline(history, width=columns, unicode=unicode)
