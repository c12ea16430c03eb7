"""How exact the kernel's timers are.

A timer never fires early. It may fire late by one bucket of the timer wheel, because timers of
some length are kept in coarse buckets and are not moved to finer ones (kernel/time/timer.c): the
bucket is 8^k jiffies for timeouts between 63·8^(k-1) and 63·8^k jiffies, an eighth at most.
"""

from __future__ import annotations

WORST_HZ = 100


def bucket(timeout: float, hz: int | None) -> float:
    """Return by how many seconds a timer of `timeout` seconds may be late.

    `hz` is the kernel's tick; where it is not known, the coarsest is assumed.
    """
    ticks = hz or WORST_HZ
    jiffies, size = timeout * ticks, 1
    while jiffies >= 63 * size:
        size *= 8
    return size / ticks


def latest(timeout: float, hz: int | None, *, timers: int = 1, slack: float = 0.05) -> float:
    """Return when a timer has fired at the latest, `slack` seconds for everything else included.

    `timers` says how many timers of this length run one after the other.
    """
    return timeout + timers * bucket(timeout, hz) + slack
