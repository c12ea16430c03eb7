"""Round trips on a busy machine, which only ever adds to them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

PATIENCE = 60.0


def assert_least_rtt(ping: Callable[[], str], least: float, below: float) -> None:
    """The least round trip lies in [least, below), in milliseconds.

    `ping` does a few and returns what they said (`ping -q`). It is called again while all were too
    slow: what a link costs is the least of many, and none may ever be quicker.
    """
    found = math.inf
    end = time.monotonic() + PATIENCE
    while found >= below and time.monotonic() < end:
        found = min(found, float(ping().split("=")[-1].split("/")[0]))
    assert least <= found < below
