"""netlab: TCP/IP experiments on real Linux networks, recorded and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from netlab.notebook import Capture, Run


def open(run: Path | str) -> Run | Capture:
    """Open a run, one recording, a lab's latest run by the lab's name, or a capture.

    See `netlab.notebook`, which is imported only now.
    """
    from netlab import notebook

    return notebook.open(run)
