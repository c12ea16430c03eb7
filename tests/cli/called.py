"""The command line called in this process: what `netlab` says and returns.

A Python that begins takes half a second, and most tests ask for a sentence. Those that are about
processes (signals, pipes that break, other users, what is imported) begin one.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from unittest import mock

from netlab.cli import main
from tests.conftest import ROOT

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def netlab(
    *words: str | Path, cwd: Path = ROOT, input: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command line in `cwd` with more environment variables; return status and output."""
    argv = ["netlab", *map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    known = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    status: object = None
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "stdin", io.StringIO(input)),
        mock.patch.dict(os.environ, {**known, **environment}, clear=True),
        _as_before(),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int)
    said = [_text(stream) for stream in (out, err)]
    return subprocess.CompletedProcess(argv, status, *said)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.buffer.seek(0)
    return stream.buffer.read().decode()


@contextlib.contextmanager
def _as_before() -> Generator[None]:
    """Put back what belongs to the whole process."""
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    threshold = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        for number, handler in handlers.items():
            signal.signal(number, handler)
