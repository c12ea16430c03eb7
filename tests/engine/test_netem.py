from __future__ import annotations

import struct
from statistics import fmean, pstdev

import pytest

from netlab.engine.netem import deviations, htb_class, options, read_table
from netlab.model.impairment import Distribution, Impairment
from netlab.plan.qdiscs import Discipline, HtbClass, Netem
from tests.engine import record_tc
from tests.engine.record_tc import TABLES, command, golden, recorded, text
from tests.engine.tc_cases import CLASSES, DISCIPLINES

ALL: tuple[Discipline | HtbClass, ...] = (*DISCIPLINES, *CLASSES)


def distribution_of(discipline: Discipline | HtbClass) -> Distribution:
    if isinstance(discipline, Netem):
        return discipline.impairment.distribution
    return Distribution.UNIFORM


def encoded(discipline: Discipline | HtbClass) -> bytes:
    """Our bytes, with iproute2's table where tc would read one."""
    if isinstance(discipline, HtbClass):
        return htb_class(discipline)
    distribution = distribution_of(discipline)
    if distribution is Distribution.UNIFORM:
        return options(discipline)
    if TABLES is None:
        pytest.skip("iproute2's distribution tables are not installed")
    return options(discipline, read_table(TABLES / f"{distribution}.dist"))


@pytest.mark.parametrize("discipline", ALL, ids=lambda d: " ".join(command(d)[2:]))
def test_bytes_equal_those_recorded_from_tc(discipline: Discipline | HtbClass) -> None:
    assert text(encoded(discipline)) == golden()[" ".join(command(discipline))]


@pytest.mark.needs("strace", "netns")
@pytest.mark.parametrize("discipline", ALL, ids=lambda d: " ".join(command(d)[2:]))
def test_bytes_equal_those_of_the_installed_tc(discipline: Discipline | HtbClass) -> None:
    assert encoded(discipline).hex() == recorded(discipline).hex()


def test_the_golden_file_has_nothing_that_is_not_compared() -> None:
    assert set(golden()) == {" ".join(command(one)) for one in ALL}
    assert record_tc.GOLDEN.read_text().startswith("# command")


def attributes(payload: bytes, at: int = 24) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at < len(payload):
        length, kind = struct.unpack_from("=HH", payload, at)
        found[kind] = payload[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def test_a_seed_is_attribute_14_of_64_bits() -> None:
    # TCA_NETEM_PRNG_SEED of Linux 6.6 (uapi pkt_sched.h; NLA_U64 in sch_netem.c); tc 6.1 has none.
    seed = 0x0123456789ABCDEF
    found = attributes(options(Netem(Impairment(loss=0.5, seed=seed), 1000)))
    assert found == {14: struct.pack("=Q", seed)}


def test_a_delay_beyond_the_ticks_goes_as_nanoseconds_too() -> None:
    # TCA_NETEM_LATENCY64 and JITTER64 of Linux 4.16; tc refuses what does not fit 32 bits of ticks.
    payload = options(Netem(Impairment(delay=600.0, jitter=300.0), 1000))
    assert struct.unpack_from("=I", payload) == (0xFFFFFFFF,)
    assert attributes(payload) == {
        10: struct.pack("=q", 600 * 10**9),
        11: struct.pack("=q", 300 * 10**9),
    }


@pytest.mark.parametrize(
    ("distribution", "mean", "deviation"),
    [
        (Distribution.UNIFORM, 0, 1 / 3**0.5),
        (Distribution.NORMAL, 0, 1),
        (Distribution.PARETO, -0.034, 0.820),
        (Distribution.PARETONORMAL, -0.025, 0.834),
    ],
)
def test_tables_have_the_moments_they_promise(
    distribution: Distribution, mean: float, deviation: float
) -> None:
    table = [value / 8192 for value in deviations(distribution)]
    assert len(table) == 4096
    assert table == sorted(table)
    assert fmean(table) == pytest.approx(mean, abs=2e-3)
    assert pstdev(table) == pytest.approx(deviation, abs=2e-3)


@pytest.mark.skipif(TABLES is None, reason="iproute2's distribution tables are not installed")
@pytest.mark.parametrize("distribution", list(Distribution)[1:])
def test_tables_agree_with_iproute2s_but_for_the_last_of_the_tails(
    distribution: Distribution,
) -> None:
    assert TABLES is not None
    ours, theirs = deviations(distribution), read_table(TABLES / f"{distribution}.dist")
    assert len(ours) == len(theirs)
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    assert max(apart[64:-64]) <= 0.01 * 8192
    assert max(apart) <= 0.5 * 8192
