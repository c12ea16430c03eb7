"""Where a figure may lie when the link does what was asked; both tables are judged by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

LATE = (0.1, 0.002)
"""How late a median may be: so many ms, and so large a share of the delay."""

JITTERS: dict[str, Callable[[float], float]] = {
    "uniform": lambda share: 2 * share - 1,
    "normal": NormalDist().inv_cdf,
    "pareto": lambda share: ((1 - share) ** (-1 / 3) - 1.5) / math.sqrt(0.75),
}
"""Below how many times the jitter a share of the packets is.

It is the half width of the uniform one, the standard deviation of the normal, and of Pareto's of
index 3.
"""

QUARTILES = (0.25, 0.5, 0.75)


def delay(ms: float) -> tuple[float, float]:
    """Between which the median of a delay may be, in ms."""
    fixed, share = LATE
    return ms, ms + fixed + share * ms


def interval(n: int, p: float) -> tuple[float, float]:
    """The 99 % interval of a binomial's share, by its normal approximation."""
    half = 2.576 * math.sqrt(p * (1 - p) / n)
    return max(0.0, p - half), p + half


def quartile(deviation: Callable[[float], float], share: float, n: int) -> tuple[float, float]:
    """Where a quantile of a delay of 20 ms with a jitter of 2 ms is, in 99 % of samples of n.

    Its standard deviation is sqrt(q (1 - q) / n) divided by the density there. As for a delay
    alone, all may be 0.1 ms + 0.2 % late. A mean tells of the few that the computer was late with.
    """
    at = 20 + 2 * deviation(share)
    slope = 2 * (deviation(share + 1e-6) - deviation(share - 1e-6)) / 2e-6
    half = 2.576 * math.sqrt(share * (1 - share) / n) * slope
    low, high = delay(20)
    return at - half + (low - 20), at + half + (high - 20)
