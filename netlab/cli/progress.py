"""How far a run has come: lines on stderr, or on a terminal a picture that is drawn anew.

Both are a `netlab.labs.pool.Watch`. Nothing is drawn by a thread of its own, because processes are
forked meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from netlab.labs.pool import Job, Watch


class Lines:
    """Says on stderr what the jobs say, a line each."""

    ticks = False

    def waiting(self, names: Iterable[str]) -> None:
        """Say nothing."""

    def started(self, job: Job[Any]) -> None:
        """Say nothing; the job will."""

    def said(self, job: Job[Any], text: str) -> None:
        """Print what a job says."""
        click.echo(text, err=True)

    def ended(self, job: Job[Any]) -> None:
        """Say nothing; the job did."""

    def tick(self) -> None:
        """Say nothing."""


class Picture(Lines):
    """Shows on a terminal which jobs run, for how long, and how many are left."""

    ticks = True

    def __init__(self, live: Live, console: Console) -> None:
        self._live = live
        self._console = console
        self._running: dict[int, tuple[Job[Any], float]] = {}
        self._total = 0
        self._done = 0

    def waiting(self, names: Iterable[str]) -> None:
        """Count what is to run."""
        self._total += len(list(names))

    def started(self, job: Job[Any]) -> None:
        """Show a job from now on."""
        self._running[id(job)] = (job, time.monotonic())

    def said(self, job: Job[Any], text: str) -> None:
        """Print above the picture what will be of interest after it has gone."""
        if not text.endswith(": running"):
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def ended(self, job: Job[Any]) -> None:
        """Show a job no longer."""
        del self._running[id(job)]
        self._done += 1

    def tick(self) -> None:
        """Draw anew."""
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(width=20)
        table.add_column(justify="right", width=8)
        for job, began in self._running.values():
            spent = now - began
            share = min(spent / job.seconds, 1.0) if job.seconds else 0.0
            bar = ProgressBar(total=1.0, completed=share, width=20)
            table.add_row(job.name, bar, f"{spent:.0f} s")
        count = len(self._running)
        table.add_row(
            f"{self._done} of {self._total} done, {count} running",
            ProgressBar(total=max(self._total, 1), completed=self._done, width=20),
            "",
        )
        return Group(table)


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Generator[Watch]:
    """Show progress for the length of a block: a picture on a terminal that can, else lines."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") in (None, "", "dumb"):
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
    live.start()
    try:
        yield Picture(live, console)
    finally:
        live.stop()
