from __future__ import annotations

from typing import Any

import pytest

from netlab.errors import TopologyError
from netlab.model.impairment import (
    PERFECT,
    Bfifo,
    Codel,
    Distribution,
    DropRule,
    Episode,
    FqCodel,
    GilbertElliott,
    Impairment,
    LossStates,
    Match,
    Pfifo,
    Queue,
    Red,
    Slot,
    Tbf,
    Trace,
    bdp,
)
from netlab.model.yaml import loads
from netlab.units import mbit, ms, s

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"loss": 1.5}, r"loss is a ratio 0…1, not 1\.5"),
    ({"loss": float("nan")}, "ratio"),
    ({"delay": -1 * ms}, "delay cannot be negative"),
    ({"jitter": 1 * ms}, "jitter needs a delay"),
    ({"delay": 1 * ms, "jitter": 2 * ms}, "arrive before they are sent"),
    ({"delay": 1 * ms, "distribution": Distribution.NORMAL}, "distribution 'normal' needs jitter"),
    ({"delay": 1 * ms, "delay_correlation": 0.5}, "delay_correlation needs jitter"),
    ({"delay": 1 * ms, "jitter_reorders": True}, "jitter_reorders needs jitter"),
    ({"reorder": 0.1}, "reorder needs a delay: a packet overtakes"),
    ({"delay": 1 * ms, "reorder_gap": 5}, "reorder_gap needs reorder"),
    ({"delay": 9 * ms, "jitter": 1 * ms, "reorder": 0.1}, "contradict each other"),
    ({"loss_correlation": 0.5}, "loss_correlation needs loss"),
    ({"loss": 0.1, "loss_model": GilbertElliott(0.1, 0.5)}, "two answers"),
    ({"loss": 1.0, "loss_correlation": 0.5}, "nothing to correlate"),
    ({"ecn": True}, "there is no loss; for a queue that marks"),
    ({"queue": Codel()}, "the queue codel needs a rate"),
    ({"rate": 1 * mbit, "queue": Codel(), "limit": 5}, "limit is short for a pfifo"),
    ({"rate": 1 * mbit, "queue": Codel(), "cell": 48}, "cell goes with a pfifo queue only"),
    ({"rate": 1 * mbit, "cell_overhead": 5}, "cell_overhead needs cell"),
    ({"rate": 2 * mbit, "queue": Tbf(3000, 9000, 1 * mbit)}, "not above the rate"),
    ({"rate": 1.0}, "less than a byte per second"),
    ({"rate": 1 * mbit, "trace": Trace((1,))}, "rate and trace are two answers"),
    ({"overhead": 14}, "overhead needs a rate"),
    ({"seed": -1}, "a seed is 0…2⁶⁴-1"),
)


@pytest.mark.parametrize(("settings", "reason"), REFUSED)
def test_what_makes_no_sense_is_refused_with_the_reason(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Impairment(**settings)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: GilbertElliott(0, 0.5), "never turns bad"),
        (lambda: GilbertElliott(0.5, 0), "stays bad for ever"),
        (lambda: LossStates(0.6, 0.1, p14=0.5), r"state 1 add up to 1\.1"),
        (lambda: Pfifo(0), "at least 1"),
        (lambda: Codel(target=1.0), "not below the interval"),
        (lambda: FqCodel(flows=70_000), "at most 65536"),
        (lambda: Red(10_000, 5_000, 5_000), "0 < minimum < maximum <= limit"),
        (lambda: Red(10_000, 5_000, 9_000, burst=2), "less than the minimum"),
        (lambda: DropRule(Match.TCP_DATA), "either nth or every"),
        (lambda: DropRule(Match.TCP_DATA, (0,)), "counted from 1"),
        (lambda: DropRule(Match.TCP_DATA, (2, 2)), "stands twice"),
        (lambda: Slot(2 * ms, 1 * ms), "a slot needs"),
        (lambda: Trace(()), "at least one opportunity"),
        (lambda: Trace((5, 3)), "may not decrease"),
        (lambda: Trace.read("1\n2\nx\n"), "line 3 is not a number"),
    ],
)
def test_parts_cannot_be_built_wrong(make: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


def test_an_episode_has_no_schedule_of_its_own() -> None:
    outage = Episode(at=5 * s, duration=2 * s, becomes=Impairment(loss=1.0))
    assert Impairment(delay=1 * ms, schedule=(outage,)).schedule == (outage,)
    with pytest.raises(ValueError, match="schedule of its own"):
        Episode(at=1 * s, becomes=Impairment(schedule=(outage,)))


def test_only_a_perfect_wire_is_false() -> None:
    assert not Impairment()
    assert not PERFECT
    assert Impairment(delay=1 * ms)
    assert Impairment(seed=1)


@pytest.mark.parametrize(
    ("settings", "queue"),
    [
        ({"rate": 1 * mbit}, Pfifo(1000)),
        ({"rate": 1 * mbit, "limit": 50}, Pfifo(50)),
        ({"rate": 1 * mbit, "queue": Bfifo(9000)}, Bfifo(9000)),
        ({"delay": 1 * ms, "limit": 50}, None),
    ],
)
def test_packets_wait_only_for_a_rate(settings: dict[str, Any], queue: Queue | None) -> None:
    assert Impairment(**settings).waits == queue


def test_the_line_is_what_remains_without_queue_and_rate() -> None:
    whole = Impairment(delay=9 * ms, loss=0.1, rate=1 * mbit, overhead=4, queue=Codel(), seed=3)
    assert whole.line == Impairment(delay=9 * ms, loss=0.1, seed=3)
    assert Impairment(delay=9 * ms, limit=50).line == Impairment(delay=9 * ms, limit=50)
    assert Impairment(delay=9 * ms, rate=1 * mbit, limit=50).line == Impairment(delay=9 * ms)


def test_the_mean_loss_of_a_channel_is_that_of_its_states() -> None:
    assert GilbertElliott(p=0.01, r=0.09).mean == pytest.approx(0.1)
    assert GilbertElliott(0.01, 0.09, bad_loss=0.5, good_loss=0.01).mean == pytest.approx(0.059)


def test_bandwidth_times_delay_is_in_bytes() -> None:
    assert bdp(10 * mbit, 40 * ms) == 50_000


def test_a_trace_reads_one_number_a_line_and_knows_its_mean_rate() -> None:
    trace = Trace.read("0\n1\n1\n4\n")
    assert trace.opportunities == (0, 1, 1, 4)
    assert trace.mean_rate == pytest.approx(4 * 12_000 / 0.004)


def one_way(words: str) -> Impairment:
    return loads(f"nodes: [a, b]\nlinks: [{{ends: a-b, {words}}}]\n").links[0].forward


def test_a_limit_may_be_a_multiple_of_the_product_of_bandwidth_and_delay() -> None:
    # 10 Mbit/s for 2 x 20 ms are 50 000 bytes, 33.03 full frames.
    slow = "rate: 10mbit, delay: 20ms, queue"
    assert one_way(f"{slow}: {{kind: bfifo, limit: 1bdp}}").queue == Bfifo(50_000)
    assert one_way(f"{slow}: {{kind: pfifo, limit: 1bdp}}").queue == Pfifo(34)
    assert one_way(f"{slow}: {{kind: pfifo, limit: 0.01bdp}}").queue == Pfifo(1)
    with pytest.raises(TopologyError, match="bdp needs a rate and a delay"):
        one_way("rate: 10mbit, queue: {kind: bfifo, limit: 1bdp}")


def test_a_link_may_flap() -> None:
    schedule = one_way("schedule: [{at: 1s, for: 2s, every: 10s, times: 3, loss: 100%}]").schedule
    assert [(e.at, e.duration) for e in schedule] == [(1, 2), (11, 2), (21, 2)]
    with pytest.raises(TopologyError, match="both 'every' and 'times'"):
        one_way("schedule: [{at: 1s, for: 2s, times: 3, loss: 100%}]")
    with pytest.raises(TopologyError, match="shorter than 'every'"):
        one_way("schedule: [{at: 1s, for: 2s, every: 2s, times: 3, loss: 100%}]")
