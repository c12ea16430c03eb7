from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.units import (
    format_rate,
    format_ratio,
    format_time,
    gbit,
    kbit,
    mbit,
    ms,
    parse_rate,
    parse_ratio,
    parse_size,
    parse_time,
    us,
)

positive = st.just(0.0) | st.floats(1e-15, 1e15)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("20ms", 20 * ms), ("1.5s", 1.5), ("2min", 120.0), ("250us", 250 * us)],
        *[("1.1ms", 0.0011), ("1h", 3600.0), ("10 ms", 0.01), (".5s", 0.5), ("0", 0.0)],
        *[("250µs", 250 * us), ("5NS", 5e-9)],
    ],
)
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        *[("10mbit", 10 * mbit), ("1.5gbit", 1.5 * gbit), ("64kbit/s", 64 * kbit)],
        *[("10Mbit", 10 * mbit), ("10Mbps", 10 * mbit), ("1Gbit", gbit), ("9600bps", 9600.0)],
    ],
)
def test_a_rate_is_read(text: str, bits: float) -> None:
    assert parse_rate(text) == bits


@pytest.mark.parametrize(("text", "size"), [("64KiB", 65536), ("1500B", 1500), ("1.5kB", 1500)])
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("parse", [parse_time, parse_rate, parse_ratio, parse_size])
@pytest.mark.parametrize("text", ["", "20", "ms", "20 furlongs", "1..2ms", "--1s", "1e9999s", "٢s"])
def test_other_text_is_refused(parse, text: str) -> None:
    with pytest.raises(ValueError, match=r"write for example|no unit of|outside"):
        parse(text)


def test_a_message_names_the_units() -> None:
    with pytest.raises(ValueError, match="'mbit' is no unit of a time; use one of ns, us"):
        parse_time("10mbit")


@pytest.mark.parametrize("text", ["101%", "-1%"])
def test_a_ratio_outside_its_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        parse_ratio(text)


def test_half_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_size("0.5B")


@given(positive)
def test_a_time_survives_being_written(value: float) -> None:
    assert parse_time(format_time(value)) == value


@given(positive)
def test_a_rate_survives_being_written(value: float) -> None:
    assert parse_rate(format_rate(value)) == value


@given(st.just(0.0) | st.floats(1e-15, 1))
def test_a_ratio_survives_being_written(value: float) -> None:
    assert parse_ratio(format_ratio(value)) == value


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.02, "20ms"), (0.0, "0ns"), (90.0, "90s"), (1.5e-6, "1.5us")]
)
def test_a_time_is_written_in_the_largest_fitting_unit(seconds: float, text: str) -> None:
    assert format_time(seconds) == text
