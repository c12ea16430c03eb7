"""`netlab claims`: what the documents say, and what this kernel does."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--lab", "lab_name", metavar="NAME", help="Only the claims this lab tests.")
@click.option("--run", "run_labs", is_flag=True, help="Run the labs of the claims first.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder with the runs to look at; labs without one use the recording they come with.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
@click.pass_context
def claims(
    ctx: click.Context,
    lab_name: str | None,
    run_labs: bool,
    results: Path,
    as_json: bool,
    markdown: bool,
) -> None:
    """Print the ledger of claims: ruling, and what was measured, computed from recordings."""
    from netlab.errors import UsageError
    from netlab.labs import claims as ledgers

    if as_json and markdown:
        raise UsageError("--json and --markdown cannot be had at once")
    known = ledgers.load()
    chosen = tuple(c for c in known if lab_name in (None, c.lab))
    if not chosen:
        names = ", ".join(sorted({c.lab for c in known}))
        raise UsageError(f"no claim is tested by '{lab_name}'", hint=f"these are: {names}")
    status = _run({c.lab for c in chosen}, results) if run_labs else 0
    entries = ledgers.ledger(chosen, results=results)
    write = ledgers.as_text
    if as_json:
        write = ledgers.as_json
    elif markdown:
        write = ledgers.as_markdown
    click.echo(write(entries), nl=False)
    ctx.exit(status)


def _run(names: set[str], results: Path) -> int:
    """Run labs, talking on stderr; return the exit code of all together."""
    from netlab.cli.lab import default_jobs, play
    from netlab.engine.probe import probe
    from netlab.labs import discovery, runner
    from netlab.labs.result import first_code

    settings = runner.Settings(results, probe(), budget=default_jobs())
    labs = [discovery.find(name) for name in sorted(names & set(discovery.names()))]
    return first_code(result.exit_code() for result in play(labs, settings))
