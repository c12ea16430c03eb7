from __future__ import annotations

import pytest

from netlab.model.impairment import (
    Bfifo,
    Codel,
    DropRule,
    Episode,
    FqCodel,
    Impairment,
    Match,
    Pfifo,
    Red,
    Tbf,
    Trace,
)
from netlab.plan.qdiscs import chain, line_limit, refusal, transition
from netlab.units import mbit, ms

CHAINS: tuple[tuple[Impairment, tuple[str, ...]], ...] = (
    (Impairment(), ()),
    (Impairment(seed=7), ()),
    (Impairment(loss=0.1), ("root handle 1: netem limit 1000 loss 10%",)),
    (
        Impairment(loss=0.1, loss_correlation=0.5),
        ("root handle 1: netem limit 1000 loss gemodel 5% 45% 100% 0%",),
    ),
    (
        Impairment(delay=10 * ms, limit=50),
        ("root handle 1: netem limit 50 delay 10ms",),
    ),
    (
        Impairment(delay=1 * ms, rate=10 * mbit, limit=50, seed=7),
        (
            "root handle 1: netem limit 20532 delay 1ms seed 7",
            "parent 1:1 handle 2: netem limit 50 rate 10000000bit",
        ),
    ),
    (
        Impairment(delay=1 * ms, jitter=0.5 * ms),
        ("root handle 1: netem limit 59594 delay 1ms 500us rate 100000000000bit",),
    ),
    (
        Impairment(delay=1 * ms, jitter=0.5 * ms, jitter_reorders=True),
        ("root handle 1: netem limit 59594 delay 1ms 500us",),
    ),
    (
        Impairment(rate=10 * mbit, overhead=24),
        ("root handle 1: netem limit 1000 rate 10000000bit 24",),
    ),
    (
        Impairment(rate=10 * mbit, duplicate=0.1),
        (
            "root handle 1: netem limit 1000 duplicate 10%",
            "parent 1:1 handle 2: tbf rate 10000000bit burst 3036 limit 1518000",
            "parent 2:1 handle 3: pfifo limit 1000",
        ),
    ),
    (
        Impairment(rate=100 * mbit, queue=Bfifo(64_000)),
        ("root handle 1: tbf rate 100000000bit burst 12500 limit 64000",),
    ),
    (
        Impairment(rate=10 * mbit, queue=Tbf(burst=50_000, limit=9000, peak=20 * mbit)),
        (
            "root handle 1: tbf rate 10000000bit burst 50000 limit 9000 "
            "peakrate 20000000bit mtu 1518",
        ),
    ),
    (
        Impairment(delay=5 * ms, rate=10 * mbit, queue=FqCodel(limit=500)),
        (
            "root handle 1: netem limit 98657 delay 5ms",
            "parent 1:1 handle 2: tbf rate 10000000bit burst 3036 limit 3036",
            "parent 2:1 handle 3: fq_codel limit 500 flows 1024 quantum 1514 "
            "memory_limit 33554432 target 5ms interval 100ms ecn",
        ),
    ),
    (
        Impairment(rate=10 * mbit, queue=Red(60_000, 15_000, 45_000)),
        (
            "root handle 1: tbf rate 10000000bit burst 3036 limit 60000",
            "parent 1:1 handle 2: red limit 60000 min 15000 max 45000 avpkt 1000 burst 25 "
            "bandwidth 10000000bit probability 0.02",
        ),
    ),
)


@pytest.mark.parametrize(("impairment", "commands"), CHAINS)
def test_delay_rate_and_queue_are_qdiscs_of_their_own(
    impairment: Impairment, commands: tuple[str, ...]
) -> None:
    assert tuple(" ".join(q.words) for q in chain(impairment, 1500)) == commands


def test_the_line_holds_all_that_the_fastest_sender_can_have_under_way() -> None:
    # Twice the product of 1 Gbit/s and 100 ms in packets of 1500 bytes, and 1000 besides.
    assert line_limit(Impairment(delay=100 * ms)) > 2 * 8_300 + 1000


def test_a_queue_limited_in_packets_behind_duplication_is_no_second_netem() -> None:
    kinds = [q.kind for q in chain(Impairment(rate=1 * mbit, duplicate=0.1, limit=9), 1500)]
    assert kinds == ["netem", "tbf", "pfifo"]


@pytest.mark.parametrize(
    ("impairment", "reason"),
    [
        (Impairment(drops=(DropRule(Match.TCP_DATA, (2,)),)), "exact packets"),
        (Impairment(trace=Trace((1, 2))), "trace"),
        (Impairment(delay=2 * ms, jitter=1 * ms, delay_correlation=0.5), "correlation of delays"),
        (Impairment(duplicate=0.1, duplicate_correlation=0.5), "rarer than asked"),
        (Impairment(rate=1 * mbit, overhead=-14, queue=Codel()), "negative overhead"),
        (Impairment(rate=1 * mbit, overhead=-14, duplicate=0.1), "negative overhead"),
    ],
)
def test_what_the_kernel_cannot_do_has_a_reason(impairment: Impairment, reason: str) -> None:
    assert reason in (refusal(impairment) or "")
    with pytest.raises(ValueError, match=reason):
        chain(impairment, 1500)


@pytest.mark.parametrize(
    ("kernel", "can"), [("6.1.176", False), ("6.6.0-rc1", True), ("6.18.44", True), ("", True)]
)
def test_a_seed_needs_a_kernel_that_does_not_ignore_it(kernel: str, can: bool) -> None:
    assert (refusal(Impairment(loss=0.1, seed=1), kernel) is None) is can
    assert refusal(Impairment(loss=0.1), kernel) is None


NETEM, TBF, CODEL = "netem", "tbf", "codel"


@pytest.mark.parametrize(
    ("shapes", "impairment", "changed", "added", "after", "loses"),
    [
        ((), Impairment(delay=1 * ms), [], [NETEM], (NETEM,), False),
        ((NETEM,), Impairment(loss=0.1), [NETEM], [], (NETEM,), False),
        ((NETEM,), Impairment(), [NETEM], [], (NETEM,), False),
        ((NETEM,), Impairment(delay=1 * ms, rate=1 * mbit), [NETEM], [NETEM], (NETEM,) * 2, False),
        ((NETEM,) * 2, Impairment(delay=1 * ms), [NETEM] * 2, [], (NETEM,) * 2, False),
        (
            (NETEM,), Impairment(rate=1 * mbit, queue=Codel()),
            [NETEM], [TBF, CODEL], (NETEM, TBF, CODEL), False,
        ),
        ((NETEM, TBF, CODEL), Impairment(), [NETEM, TBF], [], (NETEM, TBF, CODEL), False),
        ((TBF, CODEL), Impairment(delay=1 * ms), [], [NETEM], (NETEM,), True),
        (
            ("netem", "tbf", "fq_codel 1024"),
            Impairment(rate=1 * mbit, queue=FqCodel(flows=8)),
            [NETEM, TBF], ["fq_codel"], (NETEM, TBF, "fq_codel 8"), True,
        ),
    ],
)  # fmt: skip
def test_what_stays_is_changed_in_its_place(
    shapes: tuple[str, ...],
    impairment: Impairment,
    changed: list[str],
    added: list[str],
    after: tuple[str, ...],
    loses: bool,
) -> None:
    way = transition(shapes, impairment, 1500)
    assert [q.kind for q in way.changed] == changed
    assert [q.kind for q in way.added] == added
    assert (way.shapes, way.loses) == (after, loses)
    places = [q.handle for q in (*way.changed, *way.added)]
    assert places == list(range(1, len(places) + 1))


def test_a_link_with_a_schedule_can_get_a_delay_later() -> None:
    slow = Impairment(delay=50 * ms, rate=1 * mbit, queue=Codel())
    link = Impairment(rate=1 * mbit, queue=Codel(), schedule=(Episode(5, slow),))
    shapes = [q.shape for q in chain(link, 1500)]
    assert shapes == ["netem", "tbf", "codel"]
    assert not transition(shapes, slow, 1500).loses


def test_what_the_kernel_can_do_is_not_refused() -> None:
    for impairment, _ in CHAINS:
        assert refusal(impairment) is None
    assert refusal(Impairment(rate=1 * mbit, overhead=-14, queue=Pfifo(9))) is None
