"""Expectations: every comparison, and what was never measured."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.analysis.verdict import Outcome, Verdict
from netlab.labs.expect import expect, show


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (expect(1).at_least(1), "pass"),
        (expect(0.99).at_least(1), "fail"),
        (expect(1).at_most(1), "pass"),
        (expect(1.01).at_most(1), "fail"),
        (expect(1).above(1), "fail"),
        (expect(1).below(1), "fail"),
        (expect(2).between(2, 3), "pass"),
        (expect(3).between(2, 3), "pass"),
        (expect(3.01).between(2, 3), "fail"),
        (expect(9.8).within(0.2, of=10), "pass"),
        (expect(9.7).within(0.2, of=10), "fail"),
        (expect(["SYN"]).equals(["SYN"]), "pass"),
        (expect("a").equals("b"), "fail"),
        (expect("a").is_one_of("b", "a"), "pass"),
        (expect({"a", "b"}).contains("a"), "pass"),
        (expect(frozenset()).contains("a"), "fail"),
        (expect(True).holds(), "pass"),
        (expect([]).holds(), "fail"),
        (expect(None).equals(None), "inconclusive"),
        (expect(math.nan).at_most(1), "inconclusive"),
    ],
)
def test_each_comparison_judges_as_it_says(verdict: Verdict, outcome: str) -> None:
    assert verdict.outcome == outcome


def test_a_verdict_carries_what_was_seen_and_what_was_asked() -> None:
    verdict = expect(0.0012, "s", what="SYN to SYN-ACK", seen_in="frame 2").between(1e-3, 1.1e-3)
    assert verdict == Verdict(
        Outcome.FAIL,
        "SYN to SYN-ACK: 1.2ms",
        "1ms … 1.1ms",
        ("frame 2",),
        value=0.0012,
        unit="s",
    )
    assert expect(None, what="the RTT").at_most(1).reason == "the RTT was not measured"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (True, "", "yes"),
        (1448, "B", "1,448 B"),
        (0.25, "s", "250ms"),
        (94.1e6, "bit/s", "94.1mbit"),
        (0.123456, "", "0.1235"),
        ([], "", "none"),
        (["a", "b"], "", "a, b"),
        (frozenset({"b", "a"}), "", "a, b"),
        ("", "", '""'),
        (math.inf, "s", "inf"),
        ([0.1, 0.2], "s", "100ms, 200ms"),
    ],
)
def test_values_are_shown_as_people_write_them(value: object, unit: str, text: str) -> None:
    assert show(value, unit) == text


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_at_least_and_below_are_opposites(value: float, bound: float) -> None:
    assert expect(value).at_least(bound).passed != expect(value).below(bound).passed
