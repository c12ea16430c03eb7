"""Bounds of the kernel's timers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.analysis.timing import bucket, latest


@pytest.mark.parametrize(
    ("timeout", "hz", "late"),
    [
        (60, 250, 2.048),
        (60, 100, 5.12),
        (60, 1000, 4.096),
        (0.04, 250, 0.004),
        (1, 250, 0.032),
        (60, None, 5.12),
    ],
)
def test_the_bucket_grows_with_the_timeout(timeout: float, hz: int | None, late: float) -> None:
    assert bucket(timeout, hz) == pytest.approx(late)
    assert latest(timeout, hz) == pytest.approx(timeout + late + 0.05)


@given(st.floats(1, 10_000), st.sampled_from([100, 250, 300, 1000]))
def test_a_timer_of_a_second_or_more_is_late_by_an_eighth_at_most(timeout: float, hz: int) -> None:
    assert bucket(timeout, hz) <= timeout * 8 / 63 + 1e-9
