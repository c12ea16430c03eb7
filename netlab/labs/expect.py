"""`expect(x).at_least(bound)`: a measured value held against a bound, as a Verdict.

`expect` takes a number, a text, a list, a truth; `unit` says how numbers are shown ("s", "bit/s",
"B"; none for a plain number). What was never measured (None) is inconclusive, as is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from netlab.analysis.verdict import Outcome, Verdict, inconclusive
from netlab.units import format_rate, format_time


def show(value: Any, unit: str = "") -> str:
    """Return a value as a person reads it: times and rates with a fitting prefix."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            return str(value)
        if unit == "s":
            return format_time(float(f"{value:.4g}"))
        if unit == "bit/s":
            return format_rate(float(f"{value:.4g}"))
        number = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        return f"{number} {unit}".rstrip()
    if isinstance(value, str):
        return value if value else '""'
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return ", ".join(show(item, unit) for item in items) if items else "none"
    if isinstance(value, (set, frozenset)):
        return show(sorted(cast("Collection[Any]", value), key=str), unit)
    return str(value)


@dataclass(frozen=True, slots=True)
class Expectation:
    """A measured value that waits for its bound."""

    value: Any
    unit: str = ""
    what: str = ""
    evidence: tuple[str, ...] = ()

    def at_least(self, bound: float) -> Verdict:
        """Pass when the value is `bound` or more."""
        return self._judge(lambda value: value >= bound, f"at least {show(bound, self.unit)}")

    def at_most(self, bound: float) -> Verdict:
        """Pass when the value is `bound` or less."""
        return self._judge(lambda value: value <= bound, f"at most {show(bound, self.unit)}")

    def above(self, bound: float) -> Verdict:
        """Pass when the value is more than `bound`."""
        return self._judge(lambda value: value > bound, f"more than {show(bound, self.unit)}")

    def below(self, bound: float) -> Verdict:
        """Pass when the value is less than `bound`."""
        return self._judge(lambda value: value < bound, f"less than {show(bound, self.unit)}")

    def between(self, low: float, high: float) -> Verdict:
        """Pass when the value lies in the closed interval."""
        text = f"{show(low, self.unit)} … {show(high, self.unit)}"
        return self._judge(lambda value: low <= value <= high, text)

    def within(self, tolerance: float, of: float) -> Verdict:
        """Pass when the value differs from `of` by no more than `tolerance`."""
        text = f"{show(of, self.unit)} ± {show(tolerance, self.unit)}"
        return self._judge(lambda value: abs(value - of) <= tolerance, text)

    def equals(self, bound: Any) -> Verdict:
        """Pass when the value is exactly `bound`."""
        return self._judge(lambda value: value == bound, show(bound, self.unit))

    def is_one_of(self, *bounds: Any) -> Verdict:
        """Pass when the value is one of those given."""
        text = " or ".join(show(bound, self.unit) for bound in bounds)
        return self._judge(lambda value: value in bounds, text)

    def contains(self, *parts: Any) -> Verdict:
        """Pass when every part is in the value."""
        text = f"contains {show(list(parts), self.unit)}"
        return self._judge(lambda value: all(part in value for part in parts), text)

    def holds(self, bound: str = "yes") -> Verdict:
        """Pass when the value is true; `bound` says it in words."""
        return self._judge(bool, bound)

    def _judge(self, test: Callable[[Any], bool], bound: str) -> Verdict:
        label = f"{self.what}: " if self.what else ""
        if self.value is None or (isinstance(self.value, float) and math.isnan(self.value)):
            return inconclusive(f"{self.what or 'the value'} was not measured")
        outcome = Outcome.PASS if test(self.value) else Outcome.FAIL
        observed = f"{label}{show(self.value, self.unit)}"
        return Verdict(outcome, observed, bound, self.evidence, value=self.value, unit=self.unit)


def expect(value: Any, unit: str = "", *, what: str = "", seen_in: str = "") -> Expectation:
    """Hold `value` against a bound; `what` names it, `seen_in` says where it can be seen.

    A file of the recording, or what `packets` returns, which a report leads to.
    """
    return Expectation(value, unit, what, (seen_in,) if seen_in else ())
