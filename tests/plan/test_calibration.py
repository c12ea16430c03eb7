"""What is sent to measure a link: bounded in time, and never more than its queue holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.model.impairment import Bfifo, Codel, Impairment, Pfifo, Tbf
from netlab.plan.calibration import BURST, TRAIN, Burst, Trial, frame_time, spread, trial
from netlab.units import gbit, kbit, mbit, ms


def test_a_delay_takes_ten_small_frames() -> None:
    assert trial(Impairment(delay=50 * ms), 1500) == Trial(10, 0.002, 60, 0.05)


def test_a_rate_takes_a_burst_too() -> None:
    found = trial(Impairment(rate=10 * mbit), 1500)
    assert isinstance(found, Trial)
    assert found.burst == Burst(41, 1514, 0)  # 41 frames of 1.2112 ms are 49.7 ms


def test_slow_rates_get_small_frames_or_none() -> None:
    found = trial(Impairment(rate=500 * kbit), 1500)
    assert isinstance(found, Trial)
    assert found.burst == Burst(6, 520, 0)
    slow = trial(Impairment(rate=50 * kbit), 1500)
    assert isinstance(slow, Trial)
    assert slow.burst is None
    assert trial(Impairment(rate=5 * kbit), 1500) == (
        "its rate or limit leaves no room for a few frames in a tenth of a second"
    )


def test_a_frame_that_takes_seconds_is_not_waited_for() -> None:
    assert trial(Impairment(delay=2.1), 1500) == "a frame may be under way for more than 2 s"


def test_what_a_bucket_lets_pass_at_once_is_not_counted() -> None:
    found = trial(Impairment(rate=10 * mbit, queue=Tbf(burst=15_140, limit=200_000)), 1500)
    assert isinstance(found, Trial)
    assert found.burst == Burst(51, 1514, 10)
    codel = trial(Impairment(rate=100 * mbit, queue=Codel()), 1500)
    assert isinstance(codel, Trial)
    assert codel.burst is not None
    assert codel.burst.first == 9  # a millisecond of 100 Mbit/s: 12 500 octets


def test_cells_and_overhead_are_part_of_a_frame() -> None:
    assert frame_time(Impairment(rate=8000.0, overhead=4), 60) == pytest.approx(0.064)
    cells = Impairment(rate=8000.0, cell=48, cell_overhead=5)
    assert frame_time(cells, 60) == pytest.approx(0.106)
    assert frame_time(Impairment(), 60) == 0


def test_a_spread_is_all_of_uniform_jitter() -> None:
    assert spread(Impairment(delay=10 * ms, jitter=2 * ms)) == 2 * ms


QUEUES = st.one_of(
    st.none(),
    st.builds(Pfifo, st.integers(1, 2000)),
    st.builds(Bfifo, st.integers(2000, 10**6)),
    st.builds(Tbf, st.integers(1514, 10**5), st.integers(2000, 10**6)),
)


@given(st.floats(1e3, 10 * gbit), QUEUES, st.integers(576, 9000))
def test_no_trial_lasts_longer_than_it_may(
    rate: float, queue: Pfifo | Bfifo | Tbf | None, mtu: int
) -> None:
    one = Impairment(rate=rate, queue=queue)
    found = trial(one, mtu)
    if isinstance(found, str):
        return
    assert found.count * found.gap <= TRAIN
    assert frame_time(one, found.octets) < found.gap
    if found.burst is None:
        return
    burst = found.burst
    assert 60 <= burst.octets <= mtu + 14
    assert (burst.count - burst.first) * frame_time(one, burst.octets) <= BURST * 1.001
    if isinstance(queue, Pfifo):
        assert burst.count <= queue.limit
    if isinstance(queue, Bfifo | Tbf):
        assert burst.count * burst.octets <= queue.limit
