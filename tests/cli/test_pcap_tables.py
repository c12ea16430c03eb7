"""Numbers with units and tables that fit."""

from __future__ import annotations

import pytest

from netlab.cli import tables
from netlab.cli.tables import Column, lines


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 s"), (7, "7 ns"), (1500, "1.50 µs"), (20_000_000, "20.0 ms"),
        (-5_000_000, "-5.00 ms"), (1_234_000_000, "1.23 s"), (125 * 10**9, "2 min 5 s"),
        (3 * 3600 * 10**9, "3 h 0 min"), (5 * 86400 * 10**9, "5 d 0 h"),
    ],
)  # fmt: skip
def test_durations(nanoseconds: int, text: str) -> None:
    assert tables.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (622_634, "623 kB"), (1.46e9, "1.46 GB")],
)
def test_sizes(value: float, text: str) -> None:
    assert tables.octets(value) == text


def test_a_moment_far_away_is_still_printed() -> None:
    assert tables.moment(1_700_000_000_123_456_789) == "2023-11-14 22:13:20.123456"
    assert tables.moment(-(2**63))
    assert tables.moment(2**63 - 1)


COLUMNS = (
    Column("name", lambda row: str(row["name"]), right=False),
    Column("packets", lambda row: tables.cell(row["packets"])),
    Column("note", lambda _: "a long remark", right=False, rank=2),
)
ROWS = [{"name": "10.0.0.1:40000", "packets": 1234567}, {"name": "[fd00::1]:2", "packets": 8}]


def test_columns_line_up() -> None:
    head, one, two = lines(ROWS, COLUMNS[:2], 80)
    assert one == "10.0.0.1:40000  1,234,567"
    assert two == "[fd00::1]:2             8"
    assert "name" in head


@pytest.mark.parametrize("width", [20, 30, 40, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    import click

    for line in lines(ROWS, COLUMNS, width):
        assert len(click.unstyle(line)) <= width


def test_what_is_most_dispensable_goes_first() -> None:
    assert "note" in lines(ROWS, COLUMNS, 80)[0]
    assert "note" not in lines(ROWS, COLUMNS, 30)[0]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert tables.printable("a\x1b[2Jb\n") == "a\ufffd[2Jb\ufffd"
