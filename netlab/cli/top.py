"""`netlab top`: nodes, links and connections of a running lab, on a screen or as text and JSON."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from netlab.cli.live import lab_option
from netlab.errors import CapabilityError, UsageError

if TYPE_CHECKING:
    from netlab.engine.overview import View

SHORTEST, LONGEST = 0.1, 60.0


@click.command()
@lab_option
@click.option("--every", metavar="TIME", default="1s", help="How often to look (1s).")
@click.option("--node", "pattern", metavar="NAME", default="", help="Only what concerns NAME, h1*.")
@click.option("--sort", metavar="COLUMN", help="Sort the tables that have it by this column.")
@click.option("--once", is_flag=True, help="Print the rates of one period as text, and end.")
@click.option("--count", type=click.IntRange(min=1), help="With --json: end after so many looks.")
@click.option("--json", "as_json", is_flag=True, help="Print an object of JSON for each period.")
def top(
    lab_name: str | None,
    every: str,
    pattern: str,
    sort: str | None,
    once: bool,
    count: int | None,
    as_json: bool,
) -> int | None:
    """Watch the nodes, links and TCP connections of a running lab.

    Rates, drops, queues, sockets by state, congestion windows and round-trip times. Keys are shown
    on the screen; ? explains them and the columns. It ends at q, and with the lab.
    """
    from netlab.cli.panels import PANELS, lines
    from netlab.engine.channel import ChannelClosedError
    from netlab.engine.overview import Overview

    period = _period(every)
    known = [column.title for panel in PANELS for column in panel.columns]
    if sort is not None:
        sort = next((title for title in known if title.lower() == sort.lower()), sort)
        if sort not in known:
            raise UsageError(
                f"no column '{sort}'", hint=f"there are {', '.join(dict.fromkeys(known))}"
            )
    if count is not None and not as_json:
        raise UsageError("--count goes with --json")
    screen = not (once or as_json) and sys.stdout.isatty()
    if screen and importlib.util.find_spec("textual") is None:
        raise CapabilityError(
            "netlab top needs Textual, which is not installed",
            hint="`pip install 'netlab-tcpip[top]'`, or print text with --once or --json",
        )
    with Overview(lab_name) as overview:
        if screen:
            from netlab.cli.dashboard import Dashboard

            app = Dashboard(overview, period=period, pattern=pattern, sort=sort)
            return _ended(app.run(), app.return_code)
        shown = 0
        overview.view()
        while True:
            time.sleep(period)
            try:
                view = only(overview.view(), pattern)
            except ChannelClosedError:
                if not shown:
                    raise
                return _ended(f"the lab {overview.lab.id} has ended", 0)
            shown += 1
            if as_json:
                click.echo(json.dumps(asdict(view)))
                sys.stdout.flush()
            else:
                click.echo("\n".join(lines(view, pattern, sort)))
            if once or not as_json or shown == count:
                return None


def only(view: View, pattern: str) -> View:
    """Return what a filter leaves of a view."""
    from netlab.cli.panels import FLOWS, LINKS, NODES, chosen

    return replace(
        view,
        nodes=tuple(chosen(NODES, view, pattern)),
        links=tuple(chosen(LINKS, view, pattern)),
        flows=tuple(chosen(FLOWS, view, pattern)),
    )


def _period(text: str) -> float:
    from netlab.units import parse_time

    try:
        period = parse_time(text)
    except ValueError as error:
        raise UsageError(f"--every: {error}") from error
    if not SHORTEST <= period <= LONGEST:
        raise UsageError(f"--every: {text} is outside 100ms…60s")
    return period


def _ended(said: str | None, code: int | None) -> int | None:
    if said:
        click.echo(said, err=True)
    return code
