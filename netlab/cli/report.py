"""`netlab report` and `netlab pcap report`: what was found, as one HTML file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from netlab.errors import UsageError

charts_option = click.option(
    "--charts/--no-charts", default=True, help="With plots (default) or without: 4 MB less."
)
open_option = click.option("--open", "show", is_flag=True, help="Open it in a browser.")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: RUN/report.html.")
@charts_option
@open_option
def report(run: Path, output: Path | None, charts: bool, show: bool) -> None:
    """Write what was found in RUN as one HTML file that needs no network.

    RUN is the folder of a run below results/, one recording of it, or the name of a lab for its
    latest run.
    """
    from netlab.report import document

    folder = _run(run)
    text = document.of_run(folder, plotly=_charts(charts))
    _write(text, output or folder / "report.html", show)


@click.command("report")
@click.argument("files", nargs=-1, required=True, metavar="FILE...",
                type=click.Path(path_type=Path))  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: FILE.html here.")
@charts_option
@open_option
def pcap_report(files: tuple[Path, ...], output: Path | None, charts: bool, show: bool) -> None:
    """Write what is in captures as one HTML file that needs no network.

    Several files are taken for the same traffic at several points; a name for the point may
    precede a file: client=a.pcap.
    """
    from netlab.cli.points import named
    from netlab.report import document

    paths = named(files)
    text = document.of_captures(paths, plotly=_charts(charts))
    first = next(iter(paths.values()))
    _write(text, output or Path(f"{first.name}.html"), show)


def _run(run: Path) -> Path:
    """Return the folder of a run; a lab's name stands for its latest."""
    if run.exists():
        return run.parent if run.name == "manifest.json" else run
    latest = Path("results") / run / "latest"
    if latest.exists():
        return latest.resolve()
    raise UsageError(
        f"there is no run at {run}", hint="run the lab first: netlab lab run NAME; or name a folder"
    )


def _charts(wanted: bool) -> str | None:
    """Return the code of the charts library, or None where it is not wanted or not here."""
    if not wanted:
        return None
    if find_spec("plotly") is None:
        click.echo("without plots: pip install 'netlab-tcpip[report]' brings them", err=True)
        return None
    from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    return str(get_plotlyjs())


def _write(text: str, path: Path, show: bool) -> None:
    from netlab.recording.directory import write_file

    write_file(path, text)
    click.echo(str(path))
    if show:
        click.launch(str(path.resolve()))
