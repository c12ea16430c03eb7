"""Bytes of queue disciplines: the payload of TCA_OPTIONS, as tc(8) sends it.

Everything is `struct` and arithmetic; nothing is asked of the kernel. The bytes equal those of
iproute2 6.1 for whatever both can say (tests/engine/test_netem.py compares with recorded bytes and,
where strace is there, with the installed tc). Layouts are from <linux/pkt_sched.h>; attribute
numbers stand beside their names there.

Units of the kernel. Times of netem, tbf and htb are ticks of 64 ns (/proc/net/psched: 1000 ns make
15.625 ticks), those of codel, fq_codel and fq microseconds, slots nanoseconds. Rates are bytes per
second in 32 bits, and in a 64-bit attribute besides where they do not fit. A probability is a
fraction of 2³² - 1.

Jitter. netem draws from a table of 4096 deviations in units of 1/8192 standard deviation. We make
the tables ourselves, by quantiles, so that a run needs no file of iproute2's and is the same on
each machine; `read_table` reads one of its files instead. The uniform distribution needs no table.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from math import ceil, log, log2
from pathlib import Path
from statistics import NormalDist

from netlab.model.impairment import (
    Bfifo,
    Codel,
    Distribution,
    Fq,
    FqCodel,
    GilbertElliott,
    LossStates,
    Pfifo,
    Slot,
)
from netlab.plan.qdiscs import Discipline, Htb, HtbClass, Netem, RedAt, Shaper

CERTAIN = 0xFFFFFFFF
WIDEST = 0xFFFFFFFF
TABLE_SIZE = 4096
TABLE_SCALE = 8192
ETHERNET = 1  # TC_LINKLAYER_ETHERNET

_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + _PAD[length & 3]


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _u64(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=Q", value))


def _share(ratio: float) -> int:
    return min(CERTAIN, round(ratio * CERTAIN))


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _octets(bits_per_second: float) -> int:
    return round(bits_per_second / 8)


def _ticks_to_send(size: int, octets_per_second: int) -> int:
    """Ticks to send `size` bytes; tc rounds down to whole microseconds first, and so do we."""
    return int(int(1e6 * size / octets_per_second) * 15.625)


def options(
    discipline: Discipline, table: Sequence[int] | None = None, *, change: bool = False
) -> bytes:
    """Return the TCA_OPTIONS payload; `table` replaces the deviations of netem's jitter.

    With `change` it is for a qdisc that is there: nothing of what it was told before remains.
    """
    match discipline:
        case Netem():
            return netem(discipline, table, complete=change)
        case Shaper():
            return tbf(discipline)
        case Pfifo(limit) | Bfifo(limit):
            return struct.pack("=I", limit)
        case Codel():
            return codel(discipline)
        case FqCodel():
            return fq_codel(discipline, complete=not change)
        case Fq():
            return fq(discipline)
        case RedAt():
            return red(discipline)
        case Htb():
            return htb(discipline)


# -- netem -----------------------------------------------------------------------------------


def netem(emulator: Netem, table: Sequence[int] | None = None, *, complete: bool = False) -> bytes:
    """Encode struct tc_netem_qopt and its attributes.

    A netem that is changed keeps what an attribute that is absent would have said, save for the
    loss model; `complete` sends all of them.
    """
    it = emulator.impairment
    delay, jitter = _nanoseconds(it.delay), _nanoseconds(it.jitter)
    parts = [
        struct.pack(
            "=6I",
            min(delay >> 6, WIDEST),
            emulator.limit,
            _share(it.loss),
            it.reorder_gap or (1 if it.reorder else 0),
            _share(it.duplicate),
            min(jitter >> 6, WIDEST),
        )
    ]
    if delay >> 38:  # more than 32 bits of ticks: 274 s, which tc 6.1 refuses
        parts.append(_attribute(10, struct.pack("=q", delay)))  # TCA_NETEM_LATENCY64
    if jitter >> 38:
        parts.append(_attribute(11, struct.pack("=q", jitter)))  # TCA_NETEM_JITTER64
    correlations = (it.delay_correlation, it.loss_correlation, it.duplicate_correlation)
    if complete or any((*correlations, it.corrupt_correlation, it.reorder_correlation)):
        parts.append(_attribute(1, struct.pack("=3I", *map(_share, correlations))))  # CORR
    if complete or it.reorder:
        parts.append(_pair(3, it.reorder, it.reorder_correlation))  # TCA_NETEM_REORDER
    if complete or it.ecn:
        parts.append(_u32(7, int(it.ecn)))  # TCA_NETEM_ECN
    if complete or it.corrupt:
        parts.append(_pair(4, it.corrupt, it.corrupt_correlation))  # TCA_NETEM_CORRUPT
    if it.loss_model:
        parts.append(_attribute(0x8005, _loss(it.loss_model)))  # TCA_NETEM_LOSS, nested
    if complete or it.rate:
        octets = _octets(it.rate)
        if octets > WIDEST:
            parts.append(_u64(8, octets))  # TCA_NETEM_RATE64
        framing = (it.overhead, it.cell, it.cell_overhead)
        parts.append(_attribute(6, struct.pack("=IiIi", min(octets, WIDEST), *framing)))
    if complete or it.slot:
        parts.append(_attribute(12, _slot(it.slot)))  # TCA_NETEM_SLOT
    known = it.distribution is Distribution.UNIFORM and not complete
    if table is None and it.jitter and not known:
        table = deviations(it.distribution)
    if table is not None:
        parts.append(_attribute(2, struct.pack(f"={len(table)}h", *table)))  # DELAY_DIST
    if it.seed is not None:
        parts.append(_u64(14, it.seed))  # TCA_NETEM_PRNG_SEED
    return b"".join(parts)


def _pair(kind: int, ratio: float, correlation: float) -> bytes:
    return _attribute(kind, struct.pack("=II", _share(ratio), _share(correlation)))


def _loss(model: GilbertElliott | LossStates) -> bytes:
    match model:
        case LossStates(p13, p31, p32, p23, p14):
            values = map(_share, (p13, p31, p32, p14, p23))  # in this order: tc_netem_gimodel
            return _attribute(1, struct.pack("=5I", *values))
        case GilbertElliott(p, r, bad_loss, good_loss):
            # The kernel's h is the probability of *no* loss in the bad state, its k1 is a loss.
            survival = CERTAIN - _share(bad_loss)
            return _attribute(
                2, struct.pack("=4I", _share(p), _share(r), survival, _share(good_loss))
            )


def _slot(slot: Slot | None) -> bytes:
    """Encode struct tc_netem_slot; its distribution is not used, all zeros is no slot."""
    if slot is None:
        return bytes(40)
    least, most = _nanoseconds(slot.minimum), _nanoseconds(slot.maximum)
    return struct.pack("=qqiiqq", least, most, slot.packets, slot.bytes, 0, 0)


def _clipped(deviation: float) -> int:
    return max(-0x8000, min(0x7FFF, round(deviation * TABLE_SCALE)))


@cache
def deviations(distribution: Distribution) -> tuple[int, ...]:
    """Return the table of a distribution, mean 0 and standard deviation 1, before the clipping.

    Pareto has index 3 (standard deviation √3/2); its far tail is cut at +4, which takes the table's
    mean down to -0.03 and its standard deviation to 0.82, as in iproute2's own table. Paretonormal
    is a quarter normal and three quarters Pareto, quantile by quantile.
    """
    steps = range(TABLE_SIZE)
    normal = [NormalDist().inv_cdf((step + 0.5) / TABLE_SIZE) for step in steps]
    pareto = [((1 - step / TABLE_SIZE) ** (-1 / 3) - 1.5) * 4 / 3 for step in steps]
    match distribution:
        case Distribution.UNIFORM:
            return tuple(_clipped(2 * (step + 0.5) / TABLE_SIZE - 1) for step in steps)
        case Distribution.NORMAL:
            return tuple(map(_clipped, normal))
        case Distribution.PARETO:
            return tuple(map(_clipped, pareto))
        case Distribution.PARETONORMAL:
            both = zip(map(_clipped, normal), map(_clipped, pareto), strict=True)
            return tuple(round((a + 3 * b) / 4) for a, b in both)


def read_table(path: Path) -> tuple[int, ...]:
    """Read a distribution file of iproute2 (whole numbers, `#` comments)."""
    lines = (line.split("#", 1)[0] for line in path.read_text().splitlines())
    return tuple(int(word) for line in lines for word in line.split())


# -- token buckets ---------------------------------------------------------------------------


def _rate_table(octets: int, mtu: int) -> tuple[int, bytes]:
    """Return the shift of the sizes and the table of sending times that old kernels look up."""
    shift = 0
    while mtu >> shift > 255:
        shift += 1
    times = (_ticks_to_send(place << shift, min(octets, WIDEST)) for place in range(1, 257))
    return shift, struct.pack("=256I", *(min(ticks, WIDEST) for ticks in times))


def _rate_spec(octets: int, shift: int, overhead: int) -> bytes:
    """Encode struct tc_ratespec."""
    return struct.pack("=BBHhHI", shift, ETHERNET, overhead, -1, 0, min(octets, WIDEST))


def tbf(shaper: Shaper) -> bytes:
    """Encode struct tc_tbf_qopt and its attributes."""
    rate, peak = _octets(shaper.rate), _octets(shaper.peak)
    table_mtu = shaper.mtu if peak else 2047
    shift, table = _rate_table(rate, table_mtu)
    spec = _rate_spec(rate, shift, shaper.overhead)
    peak_spec, peak_table, largest = bytes(12), b"", 0
    if peak:
        peak_shift, peak_table = _rate_table(peak, table_mtu)
        peak_spec = _rate_spec(peak, peak_shift, shaper.overhead)
        largest = _ticks_to_send(shaper.mtu, min(peak, WIDEST))
    # tc counts these two at the highest rate of 32 bits; above it the kernel takes the sizes in
    # bytes from the attributes below.
    depth = _ticks_to_send(shaper.burst, min(rate, WIDEST))
    parts = [
        _attribute(1, spec + peak_spec + struct.pack("=3I", shaper.limit, depth, largest)),
        _u32(6, shaper.burst),  # TCA_TBF_BURST
    ]
    if rate > WIDEST:
        parts.append(_u64(4, rate))  # TCA_TBF_RATE64
    parts.append(_attribute(2, table))
    if peak:
        if peak > WIDEST:
            parts.append(_u64(5, peak))  # TCA_TBF_PRATE64
        parts += [_u32(7, shaper.mtu), _attribute(3, peak_table)]
    return b"".join(parts)


def htb(hierarchy: Htb) -> bytes:
    """Encode struct tc_htb_glob."""
    return _attribute(2, struct.pack("=5I", 3, hierarchy.r2q, hierarchy.default, 0, 0))


def htb_class(one: HtbClass) -> bytes:
    """Encode struct tc_htb_opt and its attributes: the options of RTM_NEWTCLASS."""
    rate, ceiling = _octets(one.rate), _octets(one.ceil)
    shift, table = _rate_table(rate, one.mtu)
    ceiling_shift, ceiling_table = _rate_table(ceiling, one.mtu)
    depths = (_ticks_to_send(one.burst, rate), _ticks_to_send(one.ceil_burst, ceiling))  # 64 bits
    specs = _rate_spec(rate, shift, 0) + _rate_spec(ceiling, ceiling_shift, 0)
    parts: list[bytes] = []
    if rate > WIDEST:
        parts.append(_u64(6, rate))  # TCA_HTB_RATE64
    if ceiling > WIDEST:
        parts.append(_u64(7, ceiling))  # TCA_HTB_CEIL64
    parts.append(_attribute(1, specs + struct.pack("=5I", *depths, one.quantum, 0, one.priority)))
    parts += [_attribute(4, table), _attribute(3, ceiling_table)]
    return b"".join(parts)


# -- queues ----------------------------------------------------------------------------------


def codel(queue: Codel) -> bytes:
    """Encode the attributes of codel."""
    return (
        _u32(2, queue.limit)
        + _u32(3, _microseconds(queue.interval))
        + _u32(1, _microseconds(queue.target))
        + _u32(4, int(queue.ecn))
    )


def fq_codel(queue: FqCodel, *, complete: bool = True) -> bytes:
    """Encode the attributes of fq_codel; the number of flows cannot be changed later."""
    return (
        _u32(2, queue.limit)
        + (_u32(5, queue.flows) if complete else b"")
        + _u32(6, queue.quantum)
        + _u32(3, _microseconds(queue.interval))
        + _u32(1, _microseconds(queue.target))
        + _u32(4, int(queue.ecn))
        + _u32(9, queue.memory_limit)
    )


def fq(queue: Fq) -> bytes:
    """Encode the attributes of fq."""
    return (
        _u32(1, queue.limit)
        + _u32(2, queue.flow_limit)
        + _u32(3, queue.quantum)
        + _u32(4, queue.initial_quantum)
    )


def red(queue: RedAt) -> bytes:
    """Encode struct tc_red_qopt and its attributes.

    The average's weight is chosen so that `packets_at_once` packets from an empty queue just reach
    the minimum (Floyd's `burst + 1 - min/avpkt < (1 - (1-W)^burst)/W`, W a power of two), and the
    table says how much it decays while the link is idle.
    """
    it = queue.red
    weight = _average_weight(it.minimum, it.packets_at_once, it.average_packet)
    ramp = _drop_ramp(it.minimum, it.maximum, it.probability)
    cell, table = _idle_decay(weight, it.average_packet, _octets(queue.rate))
    sizes = struct.pack("=3I", it.limit, it.minimum, it.maximum)
    return (
        _attribute(1, sizes + struct.pack("=4B", weight, ramp, cell, 0))
        + _attribute(2, table)
        + _u32(3, min(CERTAIN, int(it.probability * (1 << 32))))  # TCA_RED_MAX_P
        + _attribute(4, struct.pack("=II", int(it.ecn), 0xF))  # TCA_RED_FLAGS, selector
    )


def _average_weight(minimum: int, burst: int, average_packet: int) -> int:
    """Return -log2 of the weight of a new packet in the average queue."""
    allowance = burst + 1 - minimum / average_packet
    if allowance < 1.0:
        raise ValueError(f"a RED burst of {burst} packets is too small for min {minimum}")
    weight = 0.5
    for shift in range(1, 32):
        if allowance <= (1 - (1 - weight) ** burst) / weight:
            return shift
        weight /= 2
    raise ValueError(f"a RED burst of {burst} packets is too large for min {minimum}")


def _drop_ramp(minimum: int, maximum: int, probability: float) -> int:
    """Return log2 of the bytes between minimum and maximum over the probability at the maximum."""
    slope = probability / (maximum - minimum)
    return min(31, ceil(-log2(slope)))


def _idle_decay(weight: int, average_packet: int, octets: int) -> tuple[int, bytes]:
    """Return the shift of idle time and the powers by which the average has decayed at each step.

    The kernel takes the entries for powers of two; tc computes them with the natural logarithm, so
    the average decays a third too slowly. We send what tc sends.
    """
    packet_time = _ticks_to_send(average_packet, octets)
    step = -log(1.0 - 1.0 / (1 << weight)) / packet_time
    longest = 31.0 / step
    shift = 0
    while longest / (1 << shift) >= 512:
        shift += 1
    decay = [min(31, int((place << shift) * step)) for place in range(255)]
    return shift, bytes([*decay, 31])
