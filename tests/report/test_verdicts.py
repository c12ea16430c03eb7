"""Verdicts as text: a table where there is room, a list where there is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.report.verdicts import Group, Line, render, totals

GROUPS = [
    Group(
        "ipv4, 2.1 s",
        [
            Line("pass", "Hello arrives", "hello", "hello"),
            Line("fail", "The SYN-ACK comes after one RTT", "1.2ms", "980us … 1.1ms"),
            Line("inconclusive", "Both are established", "", "", "nobody looked"),
        ],
    ),
    Group("rtt-1ms: skipped", [Line("skip", f"check {n}", "", "", "no netem") for n in range(3)]),
]


def test_a_wide_terminal_gets_a_table() -> None:
    assert render(GROUPS, width=100) == (
        "ipv4, 2.1 s\n"
        "               check                            observed                  expected\n"
        "  pass         Hello arrives                    hello                     hello\n"
        "  fail         The SYN-ACK comes after one RTT  1.2ms                     980us … 1.1ms\n"
        "  inconclusive Both are established: nobody looked\n"
        "\n"
        "rtt-1ms: skipped\n"
        "  skip         all 3 checks: no netem\n"
    )


def test_a_narrow_terminal_gets_a_list() -> None:
    assert render(GROUPS[:1], width=40) == (
        "ipv4, 2.1 s\n"
        "  pass         Hello arrives\n"
        "    observed hello\n"
        "    expected hello\n"
        "  fail         The SYN-ACK comes after\n"
        "               one RTT\n"
        "    observed 1.2ms\n"
        "    expected 980us … 1.1ms\n"
        "  inconclusive Both are established:\n"
        "               nobody looked\n"
    )


def test_colour_adds_nothing_but_colour() -> None:
    painted = render(GROUPS, width=100, paint=lambda text, _: f"<{text}>")
    assert painted.replace("<", "").replace(">", "") == render(GROUPS, width=100)


TEXT = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=60)


@given(st.lists(st.builds(Line, st.just("pass"), TEXT, TEXT, TEXT, TEXT)), st.integers(40, 200))
def test_nothing_is_wider_than_the_terminal(lines: list[Line], width: int) -> None:
    text = render([Group("all", lines)], width=width)
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, "no checks"),
        ({"pass": 1}, "1 check: 1 passed"),
        ({"pass": 8, "skip": 2, "fail": 0}, "10 checks: 8 passed, 2 skipped"),
    ],
)
def test_totals_leave_out_what_did_not_happen(counts: dict[str, int], text: str) -> None:
    assert totals(counts) == text
