"""What the impairments do to packets, on both back ends: sums and intervals from one table.

`netem_probe` runs once in the guest, whose kernel has every discipline, and once here with the
wire, and measures everything; each test looks at one experiment. A delay is never shorter than
asked (to the microsecond); how much longer depends on how busy the computer is, so upper bounds are
on medians. Random shares lie in binomial intervals at alpha = 1e-6. Nothing is measured again
because of what came out: the probe's witness alone says when the computer stood still.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any, NamedTuple

import pytest

from netlab.engine.netem import deviations
from netlab.model.impairment import Distribution, Impairment
from netlab.plan.qdiscs import refusal
from tests.conftest import ROOT
from tests.engine.netem_probe import CALM, PROBE
from tests.guest import environment, in_guest

FIVE_SIGMA = 4.9  # two-sided alpha = 1e-6 of a normal distribution
LATE = 2.0  # ms by which the median may be late on a busy computer


class Packet(NamedTuple):
    number: int
    delay_ns: int
    time_ns: int
    marked: int
    damaged: int

    @property
    def delay(self) -> float:
        """Milliseconds from sending to arrival."""
        return self.delay_ns / 1e6


class Measured:
    """The results of the experiments on one back end."""

    def __init__(self, backend: str, rows: dict[str, Any]) -> None:
        self.backend = backend
        self._rows = rows
        self.looked_at: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.looked_at.add(name)
        return self._rows[name]

    def __call__(self, name: str, flow: str | None = None) -> list[Packet]:
        rows = self[name]["rows"]
        return [Packet(*row) for row in (rows if flow is None else rows[flow])]

    @property
    def late(self) -> float:
        """Seconds by which the witness was late in what was looked at."""
        found = [self._rows[name] for name in self.looked_at]
        return max((row["late"] for row in found if "late" in row), default=0.0)


@functools.cache
def measured(backend: str, folder: Path) -> Measured:
    target = folder / f"{backend}.json"
    words = ["tests.engine.netem_probe", backend, str(target)]
    if backend == "netem":
        nice = -10 if os.geteuid() == 0 else 0
        argv = ["python", "-m", *words]
        done = in_guest(argv, writable=(folder,), nice=nice, timeout=1000)
        status, said = done.status, done.stderr.decode()
    else:
        own = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        script = 'mount -t tmpfs none /run && exec "$@"'
        apart = ["unshare", "--net", "--mount", *own, "sh", "-c", script, "sh"]
        argv = [*apart, sys.executable, "-m", *words]
        ran = subprocess.run(
            argv, cwd=ROOT, env=environment(), capture_output=True, check=False, timeout=700
        )
        status, said = ran.returncode, ran.stderr.decode()
    assert status == 0, said
    return Measured(backend, json.loads(target.read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("impaired")


GUEST = (pytest.mark.needs("uml"), pytest.mark.slow, pytest.mark.timeout(1100))
HERE = (pytest.mark.needs("netns", "userns", "ethtool"), pytest.mark.slow, pytest.mark.timeout(800))


def looked_at_anew(backend: str, folder: Path) -> Measured:
    found = measured(backend, folder)
    found.looked_at.clear()
    return found


@pytest.fixture(params=[pytest.param("netem", marks=GUEST), pytest.param("wire", marks=HERE)])
def packets(request: pytest.FixtureRequest, folder: Path) -> Measured:
    """What was measured on either back end."""
    return looked_at_anew(request.param, folder)


@pytest.fixture(params=[pytest.param("netem", marks=GUEST)])
def kernels(request: pytest.FixtureRequest, folder: Path) -> Measured:
    """What was measured of the kernel, where the wire has not the word or does otherwise."""
    return looked_at_anew(request.param, folder)


@pytest.fixture(params=[pytest.param("wire", marks=HERE)])
def wires(request: pytest.FixtureRequest, folder: Path) -> Measured:
    """What was measured of the wire, where the kernel has not the word or does otherwise."""
    return looked_at_anew(request.param, folder)


def timed(test: Callable[..., None]) -> Callable[..., None]:
    """Call a failure inconclusive if the witness was late: the computer, not the link, was slow.

    The probe has measured again by then as often as it may; a failure with a calm witness stands.
    """

    @functools.wraps(test)
    def patient(*args: Any, **settings: Any) -> None:
        try:
            return test(*args, **settings)
        except AssertionError as error:
            (found,) = (value for value in settings.values() if isinstance(value, Measured))
            if found.late <= CALM:
                raise
            said = str(error).splitlines()[:1]
            pytest.skip(f"inconclusive, processes waited {found.late * 1e3:.1f} ms: {said}")

    return patient


def counters(packets: Measured, name: str, kind: str) -> dict[str, Any]:
    return next(q for q in packets[name]["qdiscs"] if q["kind"] == kind)


def assert_share(count: int, of: int, ratio: float, inflation: float = 1.0) -> None:
    """The count lies where a binomial would have it; `inflation` is of its variance."""
    spread = FIVE_SIGMA * sqrt(of * ratio * (1 - ratio) * inflation)
    assert abs(count - of * ratio) <= spread + 1, (count, of, ratio)


def inversions(arrived: Sequence[Packet]) -> int:
    return sum(a.number > b.number for a, b in pairwise(arrived))


def bursts(lost: set[int]) -> list[int]:
    """The lengths of the runs of consecutive losses."""
    return [
        next(length for length in range(1, PROBE + 1) if number + length not in lost)
        for number in sorted(lost)
        if number - 1 not in lost
    ]


def undisturbed(arrived: Sequence[Packet]) -> list[float]:
    """The delays of packets that did not come just after the whole guest had stood still.

    Packets are sent every half millisecond, so a longer time in which nothing was sent or arrived
    is one in which the computer was busy with something else.
    """
    events = sorted(t for p in arrived for t in (p.time_ns, p.time_ns - p.delay_ns))
    waking = [later for earlier, later in pairwise(events) if later - earlier > 1_100_000]
    kept: list[float] = []
    for packet in arrived:
        place = bisect_right(waking, packet.time_ns)
        if not place or packet.time_ns - waking[place - 1] > 2_000_000:
            kept.append(packet.delay)
    assert len(kept) > 500, f"the computer is too busy: {len(waking)} pauses"
    return sorted(kept)


def assert_queue(arrived: Sequence[Packet], holds: int, each_ns: float) -> None:
    """All of the first `holds` packets came, and later ones only as places became free."""
    assert [p.number for p in arrived[:holds]] == list(range(holds))
    sent = [p.time_ns - p.delay_ns for p in arrived]
    for place in range(holds, len(arrived)):
        assert (sent[place] - sent[0]) / each_ns + 1 >= place - holds


def lost_of(arrived: Sequence[Packet], sent: int = PROBE) -> set[int]:
    return set(range(sent)) - {packet.number for packet in arrived}


def test_the_kernel_says_the_same_of_our_bytes_as_of_tcs(kernels: Measured) -> None:
    beside = kernels["beside-tc"]
    refused = [w for w, e in zip(beside["words"], beside["errors"], strict=True) if e]
    assert refused == []
    assert beside["ours"] == beside["tc"]


def test_a_changed_netem_keeps_nothing_of_what_it_was_told(kernels: Measured) -> None:
    found = kernels["changes"]
    assert found["error"] == 0
    assert "corrupt" in found["before"]
    assert found["changed"] == found["fresh"]
    arrived = [Packet(*row) for row in found["after"]]
    assert [p.number for p in arrived] == list(range(500)), "nothing lost, doubled or reordered"
    assert sum(p.marked + p.damaged for p in arrived) == 0


def test_a_change_loses_no_packet(kernels: Measured) -> None:
    found = kernels["changes"]
    assert set(found["errors"]) == {0}
    assert found["shapes"] == ["netem", "netem"]
    assert sorted(row[0] for row in found["kept"]) == list(range(300))


@pytest.mark.parametrize(("name", "delay"), [("1ms", 1), ("10ms", 10), ("300ms", 300)])
@timed
def test_a_delay_is_what_was_asked(packets: Measured, name: str, delay: float) -> None:
    arrived = packets(f"delay-{name}")
    assert len(arrived) == 300
    assert min(p.delay for p in arrived) >= delay
    assert median(p.delay for p in arrived) <= delay + LATE


@timed
def test_without_impairment_nothing_is_delayed_or_lost(packets: Measured) -> None:
    arrived = packets("nothing")
    assert len(arrived) == 500
    assert median(p.delay for p in arrived) <= LATE


def test_a_delay_beyond_the_ticks_of_tc_is_kept(packets: Measured) -> None:
    assert packets("delay-2-6-min") == []


@timed
def test_jitter_keeps_the_order_unless_told_otherwise(packets: Measured) -> None:
    arrived = packets("jitter-in-order")
    assert len(arrived) == 1000
    assert inversions(arrived) == 0
    assert min(p.delay for p in arrived) >= 5
    assert pstdev(p.delay for p in arrived) >= 0.5
    assert inversions(packets("jitter-uniform")) > 100


@pytest.mark.parametrize("shape", list(Distribution))
@timed
def test_delays_are_distributed_as_asked(packets: Measured, shape: Distribution) -> None:
    assert len(packets(f"jitter-{shape}")) == 3000
    delays = undisturbed(packets(f"jitter-{shape}"))
    for tenths in (1, 3, 5, 7, 9):
        wanted = 10 + 2 * deviations(shape)[4096 * tenths // 10] / 8192
        found = delays[len(delays) * tenths // 10]
        assert found == pytest.approx(wanted, abs=0.5), f"quantile {tenths}/10"


@timed
def test_a_uniform_delay_stays_within_its_width(packets: Measured) -> None:
    delays = undisturbed(packets("jitter-uniform"))
    assert min(delays) >= 8.0
    assert delays[int(0.95 * len(delays))] <= 12.5


@timed
def test_the_kernel_forgets_the_correlation_of_delays(kernels: Measured) -> None:
    # Why `refusal` has a reason against it: the kernel takes the low bits of the correlated number.
    arrived = kernels("jitter-correlated")
    steady = set(undisturbed(arrived))
    by_number = {p.number: p.delay for p in arrived if p.delay in steady}
    pairs = [(d, by_number[n + 1]) for n, d in by_number.items() if n + 1 in by_number]
    mean = fmean(by_number.values())
    both = fmean((a - mean) * (b - mean) for a, b in pairs)
    assert abs(both / pstdev(by_number.values()) ** 2) < 0.3


@pytest.mark.parametrize(("name", "ratio"), [("10%", 0.1), ("1%", 0.01)])
def test_random_loss_is_binomial(packets: Measured, name: str, ratio: float) -> None:
    assert_share(len(lost_of(packets(f"loss-{name}"))), PROBE, ratio)


def test_total_loss_lets_nothing_through(packets: Measured) -> None:
    assert packets("loss-100%") == []


@pytest.mark.parametrize(("ratio", "correlation"), [(0.5, 0.6), (0.1, 0.5)])
def test_correlated_losses_come_together_and_are_as_many_as_asked(
    packets: Measured, ratio: float, correlation: float
) -> None:
    lost = lost_of(packets(f"loss-correlated-{ratio:g}"))
    inflation = (1 + correlation) / (1 - correlation)
    assert_share(len(lost), PROBE, ratio, inflation)
    mean_burst = 1 / ((1 - ratio) * (1 - correlation))
    assert fmean(bursts(lost)) == pytest.approx(mean_burst, rel=0.3)


def test_a_gilbert_channel_loses_in_bursts(packets: Measured) -> None:
    # p 2 %, r 20 %: bad 1/11 of the time, for 5 packets in the mean.
    lost = lost_of(packets("loss-gilbert"))
    assert_share(len(lost), PROBE, 1 / 11, inflation=(1 + 0.78) / (1 - 0.78))
    assert 2.5 <= fmean(bursts(lost)) <= 10


def test_an_elliott_channel_loses_in_both_states(packets: Measured) -> None:
    # Half the time bad with half the packets lost, half the time good with a tenth.
    lost = lost_of(packets("loss-elliott"))
    assert_share(len(lost), PROBE, 0.3, inflation=(1 + 0.8) / (1 - 0.8))


def test_a_markov_channel_loses_in_bursts(kernels: Measured) -> None:
    lost = lost_of(kernels("loss-states"))
    assert_share(len(lost), PROBE, 1 / 11, inflation=(1 + 0.78) / (1 - 0.78))
    assert 2.5 <= fmean(bursts(lost)) <= 10


def test_loss_with_ecn_marks_instead(packets: Measured) -> None:
    arrived = packets("loss-ecn")
    assert lost_of(arrived) == set()
    assert_share(sum(p.marked for p in arrived), PROBE, 0.5)


def test_the_same_seed_gives_the_same_losses(packets: Measured) -> None:
    kernel = packets["kernel"]
    if refusal(Impairment(seed=1), kernel):
        pytest.skip(f"Linux {kernel} ignores the seed of a netem; 6.6 is the first that does not")
    first, again, other = (lost_of(packets(f"seed-{n}"), 500) for n in ("7", "7-again", "8"))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("name", "sent"), [("duplicate", PROBE), ("duplicate-behind-rate", 1000)])
def test_duplicates_arrive_twice(packets: Measured, name: str, sent: int) -> None:
    arrived = packets(name)
    assert lost_of(arrived, sent) == set()
    assert_share(len(arrived) - sent, sent, 0.1)


def test_corruption_damages_packets(packets: Measured) -> None:
    # A flipped bit in a header loses the packet, one in the datagram arrives.
    arrived = packets("corrupt")
    damaged = sum(p.damaged for p in arrived)
    assert_share(damaged + PROBE - len(arrived), PROBE, 0.1)
    assert damaged > 300


@timed
def test_reordered_packets_overtake_the_delayed_ones(packets: Measured) -> None:
    arrived = packets("reorder")
    assert lost_of(arrived) == set()
    assert inversions(arrived) > 0
    assert_share(sum(p.delay < 20 for p in arrived), PROBE, 0.25)


@timed
def test_a_gap_makes_each_fifth_packet_a_candidate(packets: Measured) -> None:
    early = [p.number for p in packets("reorder-gap") if p.delay < 20]
    assert len(early) == 200
    assert {b - a for a, b in pairwise(sorted(early))} == {5}


@pytest.mark.parametrize(
    ("name", "count", "bits", "rate"),
    [
        ("rate", 100, 1500 * 8, 2e6),
        ("rate-overhead", 100, (900 + 100) * 8, 2e6),
        ("rate-cells", 100, 20 * 53 * 8, 2e6),
        ("rate-and-delay", 100, 1500 * 8, 2e6),
        ("rate-20mbit", 900, 1500 * 8, 20e6),
    ],
)
@timed
def test_packets_leave_at_the_rate(
    packets: Measured, name: str, count: int, bits: int, rate: float
) -> None:
    arrived = packets(name)
    assert len(arrived) == count
    took = (arrived[-1].time_ns - arrived[0].time_ns) / 1e9
    assert took == pytest.approx((count - 1) * bits / rate, rel=0.02)


@timed
def test_rate_and_delay_add_up(packets: Measured) -> None:
    first = packets("rate-and-delay")[0]
    assert 50 + 6 <= first.delay <= 50 + 6 + 10 * LATE


@timed
def test_the_limit_of_a_line_is_what_is_under_way(packets: Measured) -> None:
    assert [p.number for p in packets("limit-of-the-line")] == list(range(20))


@timed
def test_a_pfifo_holds_so_many_packets(packets: Measured) -> None:
    assert_queue(packets("pfifo-and-delay"), 20, 8e6)
    assert_queue(packets("pfifo"), 20, 8e6)
    arrived = packets("pfifo")
    began = arrived[0].time_ns - arrived[0].delay_ns
    assert 8 * 20 <= (arrived[19].time_ns - began) / 1e6 <= 8 * 20 + 10 * LATE


@timed
def test_a_bfifo_holds_so_many_bytes(packets: Measured) -> None:
    # 20 000 bytes are 20 packets. On the wire one more is being sent; the kernel's bucket of two
    # frames lets three pass at once.
    assert_queue(packets("bfifo"), 21 if packets.backend == "wire" else 22, 8e6)


@timed
def test_a_token_bucket_lets_its_burst_pass_at_once(packets: Measured) -> None:
    arrived = packets("tbf")
    assert_queue(arrived, 30, 8e6)  # 20 000 bytes of tokens, 10 000 waiting
    assert arrived[19].time_ns - arrived[0].time_ns < 8e6
    assert arrived[29].delay == pytest.approx(8 * 10, abs=10 * LATE)


@timed
def test_a_peak_rate_holds_for_the_burst_too(packets: Measured) -> None:
    arrived = packets("tbf-peak")
    assert len(arrived) == 30
    assert (arrived[19].time_ns - arrived[1].time_ns) / 1e6 >= 18 * 2 * 0.95


@timed
def test_slots_release_packets_in_bunches(kernels: Measured) -> None:
    arrived = kernels("slot")
    gaps = [(b.time_ns - a.time_ns) / 1e6 for a, b in pairwise(arrived)]
    bunches = sum(gap > 5 for gap in gaps)
    assert 20 <= bunches <= 32  # 600 ms in slots of 20
    assert median(gap for gap in gaps if gap > 5) == pytest.approx(20, abs=5)


# 3 s of 2.42 Mbit/s in front of 2 Mbit/s: a queue without end grows by 210 ms each second.


@timed
def test_a_deep_fifo_fills(packets: Measured) -> None:
    assert median(p.delay for p in packets("load-pfifo", "load")[-50:]) > 450
    assert median(p.delay for p in packets("load-pfifo", "sparse")) > 150


@timed
def test_codel_keeps_the_queue_short_by_dropping(packets: Measured) -> None:
    assert median(p.delay for p in packets("load-codel", "load")[-50:]) < 150
    assert counters(packets, "load-codel", "codel")["drops"] > 10


def test_codel_marks_what_can_be_marked(packets: Measured) -> None:
    arrived = packets("load-codel-ecn", "load")
    assert sum(p.marked for p in arrived) > 10
    assert counters(packets, "load-codel-ecn", "codel")["drops"] == 0


@timed
def test_fq_codel_spares_a_sparse_flow(packets: Measured) -> None:
    sparse = packets("load-fq-codel", "sparse")
    assert len(sparse) >= 28
    assert median(p.delay for p in sparse) < 5 + 12 + 10 * LATE
    assert sum(p.marked for p in packets("load-fq-codel", "load")) > 10


@timed
def test_fq_holds_so_many_packets_and_serves_flows_in_turn(kernels: Measured) -> None:
    standing = median(p.delay for p in kernels("load-fq", "load")[-50:])
    assert 250 <= standing <= 50 * 6.06 + 10 * LATE
    assert median(p.delay for p in kernels("load-fq", "sparse")) < 40


@timed
def test_red_keeps_its_average_between_the_thresholds(kernels: Measured) -> None:
    # 10 000 and 30 000 bytes are 40 and 120 ms at 2 Mbit/s.
    assert 40 < median(p.delay for p in kernels("load-red", "load")[-50:]) < 160
    assert counters(kernels, "load-red", "red")["early"] > 10


def test_red_marks_what_can_be_marked(kernels: Measured) -> None:
    assert sum(p.marked for p in kernels("load-red-ecn", "load")) > 10
    assert counters(kernels, "load-red-ecn", "red")["early"] == 0


@timed
def test_the_wire_correlates_delays(wires: Measured) -> None:
    # 2000 pairs at 0.8: the estimate of a first-order autoregression has a deviation of 0.013; the
    # ranks of uniform delays correlate a little less than the normal scores behind them (0.786).
    arrived = {p.number: p.delay for p in wires("jitter-correlated")}
    pairs = [(d, arrived[n + 1]) for n, d in arrived.items() if n + 1 in arrived]
    mean = fmean(arrived.values())
    both = fmean((a - mean) * (b - mean) for a, b in pairs)
    assert 0.7 <= both / pstdev(arrived.values()) ** 2 <= 0.87


def test_the_wire_drops_exactly_the_packets_named(wires: Measured) -> None:
    assert lost_of(wires("drops-nth"), 300) == {1, 4, 6}
    assert lost_of(wires("drops-every"), 300) == set(range(9, 300, 10))


@timed
def test_the_wire_replays_a_trace_of_opportunities(wires: Measured) -> None:
    # Four packets in each 40 ms, 10, 0, 10 and 20 ms apart: 59 gaps are 14 rounds and three gaps.
    arrived = wires("trace")
    assert [p.number for p in arrived] == list(range(60))
    took = (arrived[-1].time_ns - arrived[0].time_ns) / 1e6
    assert 14 * 40 + 20 - 5 <= took <= 14 * 40 + 40 + 5
