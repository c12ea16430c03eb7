"""`netlab lab`: list, show, run and check guided labs.

Results go to stdout, progress to stderr. What a run found lies in RESULTS/LAB/TIME/.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from netlab.cli.topology import impair_option
from netlab.errors import RecordingError, UsageError

if TYPE_CHECKING:
    from netlab.labs.lab import Lab
    from netlab.labs.result import LabResult, VariationResult
    from netlab.report.verdicts import Group

COLOURS: dict[str, dict[str, Any]] = {
    "pass": {"fg": "green"},
    "fail": {"fg": "red", "bold": True},
    "skip": {"fg": "yellow"},
    "inconclusive": {"fg": "magenta"},
    "error": {"fg": "red", "bold": True},
    "heading": {"bold": True},
    "dim": {"dim": True},
}

labs_option = click.option(
    "--labs",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of labs (default: those that come with netlab).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def lab() -> None:
    """Guided labs: a scenario on a real network, and checks on what was recorded."""


@lab.command("list")
@labs_option
@json_option
def list_(folder: Path | None, as_json: bool) -> None:
    """List the labs."""
    from netlab.labs import discovery

    found = [discovery.load(discovery.place(folder) / name) for name in discovery.names(folder)]
    if as_json:
        _print_json([_described(item) for item in found])
        return
    width = max((len(item.name) for item in found), default=0)
    for item in found:
        count = len(item.variations)
        plural = "variation" if count == 1 else "variations"
        click.echo(f"{item.name:<{width}}  {item.title} ({count} {plural})")
    if not found:
        click.echo("no labs", err=True)


@lab.command()
@click.argument("name")
@labs_option
@json_option
def show(name: str, folder: Path | None, as_json: bool) -> None:
    """Show the guide of the lab NAME, its variations, checks and planted faults.

    The figures of the guide come from the latest run below results/, else from the recording
    that comes with the lab.
    """
    from netlab.labs import discovery, guide

    found = discovery.find(name, folder)
    if as_json:
        _print_json(_described(found))
        return
    text = guide.filled(found, Path("results"))
    click.echo(text.rstrip())
    click.echo(_outline(found))


@lab.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Run every lab.")
@click.option("--variation", "variations", multiple=True, help="Only this one (repeatable).")
@click.option("--faults", is_flag=True, help="Also plant every fault and see its check fail.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder for what is recorded.",
)
@click.option("--rootless/--no-rootless", default=None, help="Use a user namespace, or refuse to.")
@impair_option
@click.option("--require-privileged", is_flag=True, help="Exit with 4 if anything was skipped.")
@labs_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    names: tuple[str, ...],
    everything: bool,
    variations: tuple[str, ...],
    faults: bool,
    results: Path,
    rootless: bool | None,
    impair: str | None,
    require_privileged: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Run labs and judge what was recorded."""
    from netlab.engine.probe import probe
    from netlab.labs import discovery, runner
    from netlab.labs.result import first_code, junit
    from netlab.plan.backend import Backend

    if everything == bool(names):
        raise UsageError("name the labs to run, or say --all")
    chosen = [discovery.find(n, folder) for n in (discovery.names(folder) if everything else names)]
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _interrupt)
    wanted = Backend(impair) if impair else None
    settings = runner.Settings(results, probe(), rootless, wanted, say=_say)
    done: list[LabResult] = []
    for item in chosen:
        result = runner.run(item, settings, variations=variations, faults=faults)
        done.append(result)
        where = results / result.lab / result.run
        if not as_json:
            _print_result(result)
            _print_ladder(item, result, where)
        _say(f"recorded in {where}")
        if result.exit_code() == 130:
            break
    if as_json:
        _print_json([json.loads(result.json_text) for result in done])
    if len(done) > 1:
        runner.write_file(results / "junit.xml", junit(done))
    ctx.exit(first_code(result.exit_code(require=require_privileged) for result in done))


@lab.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--ladder/--no-ladder", default=True, help="Show the ladder of the segments.")
@labs_option
@json_option
@click.pass_context
def check(
    ctx: click.Context, recording: Path, ladder: bool, folder: Path | None, as_json: bool
) -> None:
    """Judge a RECORDING again: a run, or one variation of it. Needs no privileges."""
    from netlab.labs import discovery, judge

    name, recordings, _ = judge.open_run(recording)
    damaged = [f"{v}/{file}" for v, found in recordings.items() for file in found.damaged()]
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise RecordingError(
            f"{recording} was changed after it was recorded: {', '.join(damaged[:3])}{more}"
        )
    found = discovery.find(name, folder)
    result = judge.check_run(found, recording)
    if as_json:
        _print_json(json.loads(result.json_text))
    else:
        _print_result(result)
        if ladder:
            _print_ladder(found, result, Path())
    ctx.exit(result.exit_code())


@lab.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--replace", "again", is_flag=True, help="Replace the one that is there.")
@labs_option
def keep(run: Path, again: bool, folder: Path | None) -> None:
    """Keep a RUN as the recording that comes with its lab, free of this machine's paths."""
    from netlab.labs import discovery, judge
    from netlab.labs import keep as keeping

    name, _, _ = judge.open_run(run)
    target = discovery.find(name, folder).folder / "recording"
    size = keeping.keep(run, target, replace_existing=again)
    _say(f"kept {size:,} bytes in {target}")


def _described(found: Lab) -> dict[str, Any]:
    return {
        "name": found.name,
        "title": found.title,
        "folder": str(found.folder),
        "variations": {name: v.summary for name, v in found.variations.items()},
        "checks": [
            {"name": c.name, "claim": c.claim, "variations": c.variations} for c in found.checks
        ],
        "faults": [{"name": f.name, "on": f.on, "breaks": f.breaks} for f in found.faults],
    }


def _outline(found: Lab) -> str:
    out = ["", "Variations"]
    width = max(len(name) for name in found.variations)
    out += [f"  {name:<{width}}  {v.summary}" for name, v in found.variations.items()]
    out += ["", "Checks"]
    out += [f"  {c.sentence}\n      {c.claim}" for c in found.checks]
    out += ["", "Planted faults (`--faults`)"]
    out += [f"  {f.name} [{f.on}]\n      breaks {f.breaks}" for f in found.faults]
    return "\n".join(out)


def _print_result(result: LabResult) -> None:
    from netlab.report import verdicts

    width = min(_width(), 160)
    for line in textwrap.wrap(f"{result.title} ({result.lab}, run {result.run})", width):
        click.echo(_paint(line, "heading"), color=_color())
    click.echo("")
    text = verdicts.render(_groups(result), width=width, paint=_paint)
    click.echo(text, color=_color())
    counts: dict[str, int] = {}
    for item in result.checks:
        outcome = str(item.verdict.outcome)
        counts[outcome] = counts.get(outcome, 0) + 1
    click.echo(verdicts.totals(counts))
    if result.faults:
        good = sum(fault.outcome == "pass" for fault in result.faults)
        click.echo(f"{len(result.faults)} planted faults: {good} broke exactly what they should")


def _groups(result: LabResult) -> list[Group]:
    from netlab.report.verdicts import Group, Line

    groups: list[Group] = []
    for variation in result.variations:
        lines = [
            Line(
                str(c.verdict.outcome),
                c.sentence,
                c.verdict.observed,
                c.verdict.bound,
                c.verdict.reason,
            )
            for c in result.checks
            if c.variations == (variation.name,)
        ]
        groups.append(Group(_heading(variation), lines, _note(variation)))
    several = [c for c in result.checks if len(c.variations) > 1]
    for together in dict.fromkeys(c.variations for c in several):
        lines = [
            Line(
                str(c.verdict.outcome),
                c.sentence,
                c.verdict.observed,
                c.verdict.bound,
                c.verdict.reason,
            )
            for c in several
            if c.variations == together
        ]
        groups.append(Group(" against ".join(together), lines))
    if result.faults:
        lines = [
            Line(
                str(f.outcome),
                f"{f.name} [{f.on}]",
                _words(f.broke) or "nothing broke",
                _words([f.breaks]),
                "" if f.outcome == "pass" else f.reason,
            )
            for f in result.faults
        ]
        groups.append(Group("planted faults and the checks they broke", lines))
    return groups


def _words(names: Sequence[str]) -> str:
    return "; ".join(name.replace("_", " ") for name in names)


def _heading(variation: VariationResult) -> str:
    text = f"{variation.name}"
    if variation.summary:
        text += f" ({variation.summary})"
    if variation.status == "ran":
        return f"{text}, {variation.seconds:.1f} s"
    return f"{text}: {variation.status}"


def _note(variation: VariationResult) -> str:
    if variation.status in ("error", "interrupted"):
        return variation.reason
    if variation.status == "ran" and variation.fidelity != "ok":
        return f"fidelity {variation.fidelity}: {', '.join(variation.fidelity_reasons)}"
    return ""


def _print_ladder(found: Lab, result: LabResult, where: Path) -> None:
    from netlab.analysis.evidence import Evidence, NoEvidenceError
    from netlab.recording import Recording
    from netlab.report.ladder import ladder

    ran = [v for v in result.variations if v.status == "ran"]
    if not ran or not found.ladder:
        return
    evidence = Evidence(Recording.open(where / ran[0].recording))
    try:
        rows = evidence.capture(found.ladder).segments
    except NoEvidenceError:
        return
    rows = [row for row in rows if row.stream == rows[0].stream]
    click.echo(f"\nThe segments of {ran[0].name} at {found.ladder}:\n")
    width = min(_width(), 100)
    click.echo(ladder(rows, width=width, unicode=_unicode(), limit=14), nl=False)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _say(text: str) -> None:
    click.echo(text, err=True)


def _print_json(value: Sequence[Any] | dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def _paint(text: str, what: str) -> str:
    return click.style(text, **COLOURS.get(what, {})) if _color() is not False else text


def _color() -> bool | None:
    return False if os.environ.get("NO_COLOR") or not sys.stdout.isatty() else None


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _unicode() -> bool:
    return "utf" in (sys.stdout.encoding or "").lower()
