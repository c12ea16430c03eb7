"""Whether numbers look random: tests whose answer is the probability of what was seen.

A p-value is the probability that numbers drawn uniformly would be at least as odd. It says nothing
when there are few of them; `chi_square_p` wants five to be expected in each bin (Cochran's rule).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Return the probability that a chi-square variable of `freedom` degrees exceeds `statistic`.

    Exact, by the recurrence Q(x; k + 2) = Q(x; k) + (x/2)^(k/2) e^(-x/2) / Γ(k/2 + 1), from
    Q(x; 1) = erfc(√(x/2)) and Q(x; 2) = e^(-x/2).
    """
    if freedom < 1 or statistic < 0:
        raise ValueError(f"no chi-square of {statistic} with {freedom} degrees of freedom")
    if statistic == 0:
        return 1.0
    half = statistic / 2
    odd = freedom % 2
    tail = math.erfc(math.sqrt(half)) if odd else math.exp(-half)
    for k in range(1 if odd else 2, freedom, 2):
        tail += math.exp(k / 2 * math.log(half) - half - math.lgamma(k / 2 + 1))
    return min(tail, 1.0)


def chi_square_p(values: Sequence[int], *, bits: int = 32, bins: int = 16) -> float | None:
    """Return how probable it is that uniform numbers of `bits` bits fill `bins` so unevenly.

    None when fewer than five values are expected in a bin: that is too little to tell.
    """
    expected = len(values) / bins
    if expected < 5:
        return None
    counts = [0] * bins
    for value in values:
        counts[value * bins >> bits] += 1
    statistic = sum((count - expected) ** 2 / expected for count in counts)
    return chi_square_tail(statistic, bins - 1)


def steps(values: Sequence[int], *, bits: int = 32) -> tuple[int, ...]:
    """Return by how much each value lies above the one before it, modulo 2^bits."""
    return tuple((b - a) % 2**bits for a, b in itertools.pairwise(values))
