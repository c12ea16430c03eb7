"""Verdicts: what a check found, and against what it held it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


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
