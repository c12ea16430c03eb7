"""From an impairment to what the kernel's netem is told: its queue limit, its words.

A netem that delays needs room for all packets that are under way, and one that also has a rate is
the bottleneck's queue as well. Its default limit of 1000 packets silently becomes loss: 100 ms at
1 gbit are 8 300 packets. The limit computed here holds twice the product of rate and delay, and
1000 packets besides for the queue itself.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from netlab.model.impairment import Impairment
from netlab.units import gbit

# Without a rate the link runs as fast as the machine; more than this it does not carry.
FASTEST = 10 * gbit
QUEUE = 1000


def with_limit(impairment: Impairment, mtu: int) -> Impairment:
    """Return the impairment with its queue limit (packets) computed if none was asked for."""
    if impairment.limit:
        return impairment
    rate = impairment.rate or FASTEST
    longest = impairment.delay + 3 * impairment.jitter
    under_way = rate * longest / (8 * mtu)
    times = 2 if impairment.rate else 1
    return replace(impairment, limit=ceil(times * under_way) + QUEUE)


def netem_arguments(impairment: Impairment) -> tuple[str, ...]:
    """Return the words that follow `netem` on tc's command line."""
    words: list[str] = ["limit", str(impairment.limit)]
    if impairment.delay:
        words += ["delay", _time(impairment.delay)]
        if impairment.jitter:
            words.append(_time(impairment.jitter))
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        ratio = getattr(impairment, name)
        if ratio:
            words += [name, f"{ratio * 100:.10g}%"]
    if impairment.rate:
        words += ["rate", f"{impairment.rate:.0f}bit"]
    return tuple(words)


def _time(seconds: float) -> str:
    """Return a time in tc's words, which are microseconds and their multiples."""
    return f"{seconds * 1e3:.10g}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.10g}us"
