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
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from netlab.cli.states import drawn, of_recording
from netlab.cli.topology import impair_option
from netlab.errors import RecordingError, UsageError

if TYPE_CHECKING:
    from netlab.labs import runner
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
results_option = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder for what is recorded.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def lab() -> None:
    """Guided labs: a scenario on a real network, and checks on what was recorded."""


lab.add_command(of_recording)


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
    "--repeat", type=click.IntRange(1, 1000), default=1, help="Run each variation so many times."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Seed of all chance; that of each link and repetition follows from it [--repeat: 1].",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1000),
    help="How many plain variations may run at once [default: 3 per CPU; one in a guest].",
)
@click.option("--watch", is_flag=True, help="Stay, and run or check again what has changed.")
@results_option
@click.option("--rootless/--no-rootless", default=None, help="Use a user namespace, or refuse to.")
@impair_option
@click.option(
    "--calibrate/--no-calibrate",
    default=True,
    help="Measure impaired links before the run (default: yes).",
)
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
    repeat: int,
    seed: int | None,
    jobs: int | None,
    watch: bool,
    results: Path,
    rootless: bool | None,
    impair: str | None,
    calibrate: bool,
    require_privileged: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Run labs and judge what was recorded.

    Variations run side by side, since most of them wait for timers; those that measure a rate run
    alone. Ctrl-C ends them all, and marks what was recorded so far.
    """
    from netlab.engine.probe import probe
    from netlab.labs import discovery, runner
    from netlab.plan.backend import Backend

    if everything == bool(names):
        raise UsageError("name the labs to run, or say --all")
    if watch and (repeat > 1 or as_json):
        raise UsageError("--watch goes with neither --repeat nor --json")
    wanted = discovery.names(folder) if everything else dict.fromkeys(names)
    chosen = [discovery.find(name, folder) for name in wanted]
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _interrupt)
    settings = runner.Settings(
        results,
        probe(),
        rootless,
        Backend(impair) if impair else None,
        calibrate=calibrate,
        budget=jobs or default_jobs(),
        repeat=repeat,
        seed=1 if seed is None and repeat > 1 else seed,
    )
    done = play(chosen, settings, variations=variations, faults=faults)
    code = report(chosen, done, results, as_json=as_json, require=require_privileged)
    if watch and code != 130:
        from netlab.cli.watch import follow

        follow(chosen, settings, variations=variations, faults=faults)
    ctx.exit(code)


@lab.command()
@click.argument("name")
@click.option("--restart", is_flag=True, help="Begin anew; forget the answers.")
@click.option("--step", type=click.IntRange(1), help="Go to this step.")
@results_option
@click.option("--rootless/--no-rootless", default=None, help="Use a user namespace, or refuse to.")
@impair_option
@labs_option
def learn(
    name: str,
    restart: bool,
    step: int | None,
    results: Path,
    rootless: bool | None,
    impair: str | None,
    folder: Path | None,
) -> None:
    """Learn with the lab NAME: read, predict, run, compare, look, explain.

    Progress is kept, so the next call goes on where this one ended. Type `help` at any prompt.
    """
    from netlab.cli import learn as learning
    from netlab.engine.probe import probe
    from netlab.labs import discovery, runner
    from netlab.plan.backend import Backend

    found = discovery.find(name, folder)
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _interrupt)
    wanted = Backend(impair) if impair else None

    def settings() -> runner.Settings:
        return runner.Settings(results, probe(), rootless, wanted, budget=default_jobs())

    learning.start(found, settings, restart=restart, step=step)


def default_jobs() -> int:
    """Return how many plain variations run at once: most of their time they wait for timers.

    In a guest they do not: a process start takes its one processor 50 ms.
    """
    from netlab.machine.guest_agent import INSIDE

    return 1 if os.environ.get(INSIDE) == "guest" else 3 * len(os.sched_getaffinity(0))


def play(
    labs: Sequence[Lab],
    settings: runner.Settings,
    *,
    variations: Sequence[str] = (),
    faults: bool = False,
) -> Sequence[LabResult]:
    """Run labs, showing progress on stderr."""
    from netlab.cli.progress import progress
    from netlab.labs import runner

    with progress() as watch:
        settings = replace(settings, watch=watch)
        return runner.run_labs(labs, settings, variations=variations, faults=faults)


def report(
    labs: Sequence[Lab],
    done: Sequence[LabResult],
    results: Path,
    *,
    as_json: bool = False,
    require: bool = False,
) -> int:
    """Print what labs found, in full where it is not too much; return the exit code."""
    from netlab.labs import runner
    from netlab.labs.result import first_code, junit

    if as_json:
        _print_json([json.loads(result.json_text) for result in done])
    series = len(done) > len(labs)
    for result in done:
        code = result.exit_code()
        where = results / result.lab / result.run
        full = not series and (len(done) <= IN_FULL or code not in (0, 4))
        if not as_json and full:
            print_result(result)
        if not as_json and full and len(done) == 1:
            _print_ladder(labs[0], result, where)
            _print_states(labs[0], result, where)
        if len(done) <= IN_FULL or code not in (0, 4):
            _say(f"recorded in {where}")
    if not as_json and series:
        _print_series(done, results)
    if not as_json and len(done) > IN_FULL:
        _print_totals(done)
    if len(done) > 1:
        runner.write_file(results / "junit.xml", junit(done))
    return first_code(result.exit_code(require=require) for result in done)


IN_FULL = 3
"""Of so many results every check is printed; of more a line each, and what did not pass."""


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
        print_result(result)
        if ladder:
            _print_ladder(found, result, Path())
            _print_states(found, result, Path())
    ctx.exit(result.exit_code())


@lab.command()
@click.argument("name")
@click.option("--from", "source", metavar="LAB", help="Begin with a copy of this lab.")
@click.option(
    "--in",
    "parent",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder to make it in (default: here).",
)
@labs_option
def new(name: str, source: str | None, parent: Path, folder: Path | None) -> None:
    """Make the folder of a new lab NAME that runs and passes its own checks."""
    from netlab.labs import discovery, scaffold

    found = discovery.find(source, folder) if source else None
    made = scaffold.new(name, parent, found)
    place = made if made.is_absolute() else f"./{made}"
    click.echo(f"{made}: guide.md, topology.yaml, lab.py (docs/writing-a-lab.md says what is what)")
    click.echo(f"netlab lab run {place} --faults")


@lab.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--replace", "again", is_flag=True, help="Replace the one that is there.")
@labs_option
def keep(run: Path, again: bool, folder: Path | None) -> None:
    """Keep a RUN as the recording that comes with its lab, free of this machine's paths."""
    from netlab.labs import discovery, judge
    from netlab.labs import keep as keeping

    name, _, _ = judge.open_run(run)
    found = discovery.find(name, folder)
    target = found.folder / "recording"
    size = keeping.keep(found, run, target, replace_existing=again)
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


def print_result(result: LabResult) -> None:
    """Print every check of a result."""
    from netlab.report import verdicts

    width = min(_width(), 160)
    for line in textwrap.wrap(f"{result.title} ({result.lab}, run {result.run})", width):
        click.echo(_paint(line, "heading"), color=_color())
    click.echo("")
    text = verdicts.render(_groups(result), width=width, paint=_paint)
    click.echo(text, color=_color())
    click.echo(verdicts.totals(_counts(result)))
    if result.faults:
        click.echo(_planted(result))


def _print_totals(done: Sequence[LabResult]) -> None:
    from netlab.report import verdicts

    width = max(len(result.lab) for result in done)
    for result in done:
        name = result.run.rpartition("/")[2] if "/" in result.run else ""
        counts = verdicts.totals(_counts(result))
        planted = f", {_planted(result)}" if result.faults else ""
        click.echo(f"{result.lab:<{width}}  {name:>3} {counts}{planted}".rstrip())
    total: dict[str, int] = {}
    for result in done:
        for outcome, count in _counts(result).items():
            total[outcome] = total.get(outcome, 0) + count
    ran = sum(v.status == "ran" for result in done for v in result.variations)
    skipped = sum(v.status == "skipped" for result in done for v in result.variations)
    click.echo(f"\n{len(done)} runs, {ran} variations ran, {skipped} skipped")
    click.echo(verdicts.totals(total))


def _print_series(done: Sequence[LabResult], results: Path) -> None:
    """Print, for each lab that ran several times, what its runs say together."""
    from netlab.labs import chance
    from netlab.labs.expect import show

    for name in dict.fromkeys(result.lab for result in done):
        runs = [result for result in done if result.lab == name]
        click.echo(_paint(f"{runs[0].title} ({name}, {len(runs)} runs)", "heading"))
        for item in chance.summary(runs):
            passed = item.outcomes.count("pass")
            outcome = "pass" if passed == len(item.outcomes) else "fail"
            if outcome == "fail" and "fail" not in item.outcomes:
                outcome = next(o for o in item.outcomes if o != "pass")
            head = _paint(f"{f'{passed} of {len(item.outcomes)}':<12}", outcome)
            text = f"{item.sentence} [{' against '.join(item.variations)}]"
            click.echo(f"  {head}{text}", color=_color())
            if item.spread is not None and item.spread.low < item.spread.high:
                it = item.spread
                told = f"median {show(it.median, item.unit)}, "
                told += f"{show(it.low, item.unit)} … {show(it.high, item.unit)}"
                click.echo(f"  {'':12}{told} ({it.level:.0%} interval)")
        click.echo("")
        _say(f"recorded in {(results / name / runs[0].run).parent}")


def _counts(result: LabResult) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in result.checks:
        outcome = str(item.verdict.outcome)
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


def _planted(result: LabResult) -> str:
    good = sum(fault.outcome == "pass" for fault in result.faults)
    return f"{len(result.faults)} planted faults: {good} broke exactly what they should"


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
        doubt = _fidelity(variation)
        return variation.reason + (f" ({doubt})" if doubt else "")
    return _fidelity(variation) if variation.status == "ran" else ""


def _fidelity(variation: VariationResult) -> str:
    if variation.fidelity == "ok":
        return ""
    return f"fidelity {variation.fidelity}: {'; '.join(variation.fidelity_reasons)}"


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
    click.echo(ladder(rows, width=width, unicode=_unicode(), room=16), nl=False)


def _print_states(found: Lab, result: LabResult, where: Path) -> None:
    from netlab.analysis.evidence import Evidence, NoEvidenceError
    from netlab.recording import Recording

    ran = [v for v in result.variations if v.status == "ran"]
    if not ran or not found.states:
        return
    evidence = Evidence(Recording.open(where / ran[0].recording))
    try:
        history = evidence.history(found.states)
    except NoEvidenceError:
        return
    click.echo(f"\nThe states of both ends in {ran[0].name}:\n\n{drawn(history)}", nl=False)


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
