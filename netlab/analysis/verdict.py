"""Verdicts: what a check found, and against what it held it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

from netlab.analysis.frames import Frame
from netlab.analysis.segments import Segment


class Outcome(StrEnum):
    """How a check ended; `INCONCLUSIVE` is too little evidence, which is not a pass."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    INCONCLUSIVE = "inconclusive"


_WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.SKIP, Outcome.PASS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check with what was observed, the bound, and where it can be seen.

    `observed` and `bound` are text for people; `value` is the measured value as it was, in `unit`
    ("s", "bit/s", "B", or none), for programs. `reason` says why there is no pass or fail.
    """

    outcome: Outcome
    observed: str = ""
    bound: str = ""
    evidence: tuple[str, ...] = ()
    reason: str = ""
    value: Any = None
    unit: str = ""

    @property
    def passed(self) -> bool:
        """True for a pass and nothing else."""
        return self.outcome is Outcome.PASS

    def seen_in(self, *places: str) -> Verdict:
        """Return the same verdict with places added where the evidence can be seen."""
        return replace(self, evidence=(*self.evidence, *places))

    def __and__(self, other: Verdict) -> Verdict:
        """Both must hold."""
        return every((self, other))


def skip(reason: str) -> Verdict:
    """Return the verdict of a check that could not be tried."""
    return Verdict(Outcome.SKIP, reason=reason)


def inconclusive(reason: str) -> Verdict:
    """Return the verdict of a check that had too little evidence."""
    return Verdict(Outcome.INCONCLUSIVE, reason=reason)


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Join verdicts that must all hold: the worst outcome, told by those that have it.

    No verdict at all is inconclusive, for nothing was looked at.
    """
    parts = tuple(verdicts)
    if not parts:
        return inconclusive("there was nothing to look at")
    worst = next(o for o in _WORST_FIRST if any(part.outcome is o for part in parts))
    telling = [part for part in parts if part.outcome is worst]
    return Verdict(
        worst,
        observed="; ".join(_once(part.observed for part in telling)),
        bound="; ".join(_once(part.bound for part in telling)),
        evidence=tuple(_once(place for part in telling for place in part.evidence)),
        reason="; ".join(_once(part.reason for part in telling)),
        value=telling[0].value if len(telling) == 1 else [part.value for part in telling],
        unit=telling[0].unit if len(telling) == 1 else "",
    )


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


# -- places ------------------------------------------------------------------------------------

_PLACE = re.compile(r"(?P<point>[^ ,]+), frames? (?P<ranges>\d+(-\d+)?(, \d+(-\d+)?)*)")


def packets(point: str, found: Iterable[Segment | Frame]) -> str:
    """Return packets of a capture as a place of evidence, "client:eth0, frames 1-3, 7".

    A report leads from a verdict to them. Numbers count from 1; no packets are no place ("").
    """
    numbers = sorted({one.number if isinstance(one, Frame) else one.frame for one in found})
    if not numbers:
        return ""
    starts = [numbers[0], *(b for a, b in pairwise(numbers) if b != a + 1)]
    ends = [*(a for a, b in pairwise(numbers) if b != a + 1), numbers[-1]]
    ranges = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return f"{point}, frame{'s' if len(numbers) > 1 else ''} {', '.join(ranges)}"


def frames_of(place: str) -> tuple[str, tuple[int, ...]] | None:
    """Return the capture point and the frames that a place of evidence names, as of `packets`."""
    found = _PLACE.fullmatch(place)
    if found is None:
        return None
    numbers: list[int] = []
    for part in found["ranges"].split(", "):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return found["point"], tuple(numbers)
