"""What is sent over an impaired link to measure it before it is used, and how long that takes.

A train of small frames tells the delay, a burst of large ones the rate. Both are bounded: a train
lasts a tenth of a second, a burst half of that, whatever the rate; a link on which that is not
enough is not measured, with a reason. All times are seconds, sizes octets of whole frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from netlab.model.impairment import Bfifo, Impairment, Pfifo, Red, Tbf
from netlab.plan.qdiscs import FRAMING, LATE

PROBES = 10
GAP = 0.002
OCTETS = 60
"""The smallest Ethernet frame, without its check sequence."""
HEADER = 14
TRAIN = 0.1
BURST = 0.05
FEWEST, MOST = 6, 200
LONGEST = 2.0
"""A link on which a frame may be under way for longer is not measured."""
OUTER = 4.0
"""Deviations of a normal delay that a frame is waited for."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Frames sent at once; those from number `first` on come at the rate."""

    count: int
    octets: int
    first: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What is sent in one direction; `travel` is how long a frame may be under way."""

    count: int
    gap: float
    octets: int
    travel: float
    burst: Burst | None = None


def frame_time(impairment: Impairment, octets: int) -> float:
    """Return how long a frame takes at the rate; 0 without one."""
    if not impairment.rate:
        return 0.0
    size = octets + impairment.overhead
    if impairment.cell:
        size = ceil(size / impairment.cell) * (impairment.cell + impairment.cell_overhead)
    return max(0, size) * 8 / impairment.rate


def spread(impairment: Impairment) -> float:
    """Return by how much jitter may change a delay: all of a uniform one, else 4 deviations."""
    return impairment.jitter * (1.0 if impairment.distribution == "uniform" else OUTER)


def trial(impairment: Impairment, mtu: int) -> Trial | str:
    """Return what to send in one direction, or why it cannot be measured."""
    one = frame_time(impairment, OCTETS)
    gap = max(GAP, 1.25 * one)
    count = min(PROBES, int(TRAIN / gap))
    if impairment.limit and not impairment.rate:
        count = min(count, impairment.limit)
    if count < 2:
        return "its rate or limit leaves no room for a few frames in a tenth of a second"
    burst = _burst(impairment, mtu)
    waiting = burst.count * frame_time(impairment, burst.octets) if burst else one
    travel = impairment.delay + spread(impairment) + waiting
    if travel > LONGEST:
        return f"a frame may be under way for more than {LONGEST:g} s"
    return Trial(count, gap, OCTETS, travel, burst)


def _burst(impairment: Impairment, mtu: int) -> Burst | None:
    queue = impairment.waits
    if not impairment.rate or impairment.trace or isinstance(queue, Red):
        return None
    octets = mtu + HEADER
    if frame_time(impairment, octets) * FEWEST > BURST:
        octets = int(impairment.rate * BURST / FEWEST / 8) - max(0, impairment.overhead)
    if octets < OCTETS:
        return None
    first = 0 if isinstance(queue, Pfifo | Bfifo) else ceil(_bucket(impairment, mtu) / octets)
    count = first + min(MOST, max(FEWEST, int(BURST / frame_time(impairment, octets))))
    match queue:
        case Bfifo(limit) | Tbf(limit=limit):
            count = min(count, limit // octets)
        case Pfifo(limit):
            count = min(count, limit)
        case _:
            pass
    return Burst(count, octets, first) if count - first >= FEWEST else None


def _bucket(impairment: Impairment, mtu: int) -> int:
    """Return how many octets a token bucket lets pass at once (netlab.plan.qdiscs)."""
    if isinstance(impairment.queue, Tbf):
        return impairment.queue.burst
    return max(ceil(impairment.rate * LATE / 8), 2 * (mtu + FRAMING))
