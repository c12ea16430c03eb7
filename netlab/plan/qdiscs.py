"""From an impairment to a chain of queue disciplines: what the kernel is told.

Theory of operation. A qdisc acts on what leaves an interface, and an impairment becomes up to three
of them, one inside the other::

    netem (1:)           delay, jitter, loss, duplication, corruption, reordering
      └ shaper (2:)      the rate; netem's own where packets queue first in, first out, else a tbf
          └ queue (3:)   the discipline of the queue: codel, fq_codel, red, fq

The delay stands apart from the rate, because a netem with both has one limit for two things: the
packets under way and those in the queue. The kernel works from the outside in, so packets are
delayed first and queue afterwards; the sums are the same.

The limits. netem's default of 1000 packets silently becomes loss (100 ms at 1 gbit are 8 300
packets), so the delay line gets room for every packet that the fastest sender can have under way,
counted as the smallest; it costs nothing until it is used. A token bucket sends a burst at once:
its depth is what the rate sends in `LATE`, the time by which a timer may be late, and at least two
frames. The queue has the limit that was asked for, else that of `Pfifo`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from netlab.model.impairment import (
    PERFECT,
    Bfifo,
    Codel,
    Distribution,
    Fq,
    FqCodel,
    GilbertElliott,
    Impairment,
    LossStates,
    Pfifo,
    Red,
    Tbf,
)
from netlab.units import gbit

FASTEST = 10 * gbit
"""No sender on one machine is faster than this."""
SMALLEST = 64
"""Bytes of the smallest frame."""
ORDERED = 100 * gbit
"""A rate that costs 0.12 µs a packet: with any rate, netem lets no packet overtake another."""
LATE = 0.001
WIDE_OPEN = 1_000_000
SEEDED = (6, 6)
"""The first kernel whose netem takes a seed; older ones ignore it without a word."""
FRAMING = 18
"""Bytes of an Ethernet frame around its packet: header and one VLAN tag."""


@dataclass(frozen=True, slots=True)
class Netem:
    """The kernel's network emulator; of `impairment` everything but queue, schedule and rules."""

    impairment: Impairment
    limit: int

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of tc(8)."""
        it = self.impairment
        words = ["netem", "limit", str(self.limit)]
        if it.delay:
            words += ["delay", _time(it.delay)]
            if it.jitter:
                words += [_time(it.jitter), *_correlated(it.delay_correlation)]
                if it.distribution is not Distribution.UNIFORM:
                    words += ["distribution", it.distribution.value]
        if it.loss:
            words += ["loss", _percent(it.loss), *_correlated(it.loss_correlation)]
        match it.loss_model:
            case GilbertElliott(p, r, bad, good):
                words += ["loss", "gemodel", *map(_percent, (p, r, bad, good))]
            case LossStates(p13, p31, p32, p23, p14):
                words += ["loss", "state", *map(_percent, (p13, p31, p32, p23, p14))]
            case None:
                pass
        if it.ecn:
            words.append("ecn")
        for name in ("duplicate", "corrupt", "reorder"):
            ratio: float = getattr(it, name)
            if ratio:
                correlation: float = getattr(it, f"{name}_correlation")
                words += [name, _percent(ratio), *_correlated(correlation)]
        if it.reorder_gap:
            words += ["gap", str(it.reorder_gap)]
        if it.rate:
            words += ["rate", _rate(it.rate)]
            framing = (it.overhead, it.cell, it.cell_overhead)
            while framing and not framing[-1]:
                framing = framing[:-1]
            words += map(str, framing)
        if it.slot:
            words += ["slot", _time(it.slot.minimum), _time(it.slot.maximum)]
            words += ["packets", str(it.slot.packets)] if it.slot.packets else []
            words += ["bytes", str(it.slot.bytes)] if it.slot.bytes else []
        if it.seed is not None:
            words += ["seed", str(it.seed)]
        return tuple(words)


@dataclass(frozen=True, slots=True)
class Shaper:
    """A token bucket (tc-tbf(8)): rates in bits per second, the rest in bytes.

    `mtu` is the largest frame, which the peak rate needs to know.
    """

    rate: float
    burst: int
    limit: int
    peak: float = 0.0
    mtu: int = 1514
    overhead: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of tc(8)."""
        words = ["tbf", "rate", _rate(self.rate), "burst", str(self.burst)]
        words += ["limit", str(self.limit)]
        if self.peak:
            words += ["peakrate", _rate(self.peak), "mtu", str(self.mtu)]
        if self.overhead:
            words += ["overhead", str(self.overhead)]
        return tuple(words)


@dataclass(frozen=True, slots=True)
class Htb:
    """A hierarchy of token buckets (tc-htb(8)); unclassified packets go to class `default`."""

    default: int = 0
    r2q: int = 10

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of tc(8)."""
        return ("htb", "default", f"{self.default:x}", "r2q", str(self.r2q))


@dataclass(frozen=True, slots=True)
class HtbClass:
    """A class of an htb: `rate` is its own, up to `ceil` it may borrow (bits per second)."""

    rate: float
    ceil: float
    burst: int
    ceil_burst: int
    quantum: int = 1514
    priority: int = 0
    mtu: int = 1600

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of tc(8)."""
        return (
            "htb", "rate", _rate(self.rate), "ceil", _rate(self.ceil),
            "burst", str(self.burst), "cburst", str(self.ceil_burst),
            "quantum", str(self.quantum), "prio", str(self.priority), "mtu", str(self.mtu),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RedAt:
    """A RED queue on a link of `rate`, which sets how fast its average decays when it is idle."""

    red: Red
    rate: float

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of tc(8)."""
        red = self.red
        words = [
            "red", "limit", str(red.limit), "min", str(red.minimum), "max", str(red.maximum),
            "avpkt", str(red.average_packet), "burst", str(red.packets_at_once),
            "bandwidth", _rate(self.rate), "probability", f"{red.probability:.10g}",
        ]  # fmt: skip
        return (*words, "ecn") if red.ecn else tuple(words)


Discipline = Netem | Shaper | Htb | RedAt | Pfifo | Bfifo | Codel | FqCodel | Fq


def words(discipline: Discipline) -> tuple[str, ...]:
    """Return the kind of a qdisc and its options in the words of tc(8)."""
    match discipline:
        case Pfifo(limit):
            return ("pfifo", "limit", str(limit))
        case Bfifo(limit):
            return ("bfifo", "limit", str(limit))
        case Codel():
            return ("codel", "limit", str(discipline.limit), *_codel(discipline))
        case FqCodel():
            limits = ("limit", str(discipline.limit), "flows", str(discipline.flows))
            sizes = ("quantum", str(discipline.quantum))
            memory = ("memory_limit", str(discipline.memory_limit))
            return ("fq_codel", *limits, *sizes, *memory, *_codel(discipline))
        case Fq():
            return (
                "fq", "limit", str(discipline.limit), "flow_limit", str(discipline.flow_limit),
                "quantum", str(discipline.quantum),
                "initial_quantum", str(discipline.initial_quantum),
            )  # fmt: skip
        case _:
            return discipline.words


def _codel(queue: Codel | FqCodel) -> tuple[str, ...]:
    times = ("target", _time(queue.target), "interval", _time(queue.interval))
    return (*times, "ecn" if queue.ecn else "noecn")


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A queue discipline in its place: `parent` 0 is the root, else the major number above it."""

    handle: int
    parent: int
    discipline: Discipline

    @property
    def kind(self) -> str:
        """The kernel's name of the discipline."""
        return words(self.discipline)[0]

    @property
    def shape(self) -> str:
        """What a change in place cannot alter: the kind, and the number of fq_codel's flows."""
        match self.discipline:
            case FqCodel():
                return f"fq_codel {self.discipline.flows}"
            case _:
                return self.kind

    @property
    def words(self) -> tuple[str, ...]:
        """Return what follows `dev NAME` on tc's command line."""
        where = ("parent", f"{self.parent}:1") if self.parent else ("root",)
        return (*where, "handle", f"{self.handle}:", *words(self.discipline))


def refusal(impairment: Impairment, kernel: str = "") -> str | None:
    """Return why the kernel's qdiscs cannot do this impairment, None if they can.

    With the release of a kernel, such as "6.1.0-26-amd64", also what only newer ones can.
    """
    if impairment.seed is not None and kernel and _version(kernel) < SEEDED:
        return f"netem takes a seed from Linux {SEEDED[0]}.{SEEDED[1]} on, and this is {kernel}"
    if impairment.drops:
        return "netem cannot drop exact packets"
    if impairment.trace:
        return "netem cannot replay a trace"
    if impairment.delay_correlation:
        return "netem forgets the correlation of delays (it takes the low bits of the number)"
    for name in ("duplicate", "corrupt", "reorder"):
        if getattr(impairment, f"{name}_correlation"):
            return f"netem's {name} becomes rarer than asked when it is correlated"
    tokens = not isinstance(impairment.queue, Pfifo | None) or impairment.duplicate
    if impairment.overhead < 0 and tokens:
        return "tbf cannot count less than a frame (a negative overhead)"
    return None


def _version(kernel: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def chain(impairment: Impairment, mtu: int) -> tuple[Qdisc, ...]:
    """Return the qdiscs of an impairment on an interface of that MTU, the root first.

    ValueError where `refusal` has a reason. The episodes of a schedule are not part of it, see
    `transition`; but a link that has one begins with a netem, so that a token bucket can get a
    delay later and keep its packets.
    """
    reason = refusal(impairment)
    if reason is not None:
        raise ValueError(reason)
    stack = [*_line(impairment), *_shaped(impairment, mtu)]
    if impairment.schedule and not isinstance(stack[0] if stack else None, Netem):
        stack.insert(0, Netem(PERFECT, WIDE_OPEN))
    return _placed(stack)


def _placed(stack: Sequence[Discipline]) -> tuple[Qdisc, ...]:
    return tuple(Qdisc(place, place - 1, one) for place, one in enumerate(stack, 1))


@dataclass(frozen=True, slots=True)
class Transition:
    """How to get from the qdiscs that are there to those of another impairment.

    `changed` keep the packets they hold; `added` are new, and where they stand in the place of
    another, what waited there is lost (`loses`). `shapes` is what is there afterwards.
    """

    changed: tuple[Qdisc, ...]
    added: tuple[Qdisc, ...]
    shapes: tuple[str, ...]
    loses: bool


def transition(shapes: Sequence[str], impairment: Impairment, mtu: int) -> Transition:
    """Return how to make of the qdiscs of these shapes, the root first, those of an impairment.

    A qdisc that is not needed any more is not removed, which would lose what it holds, but opened
    wide: a netem that does nothing, a token bucket faster than any sender.
    """
    wanted = chain(impairment, mtu)
    if shapes and shapes[0] == "netem" and wanted and wanted[0].kind != "netem":
        wanted = _placed([Netem(PERFECT, WIDE_OPEN), *(qdisc.discipline for qdisc in wanted)])
    same = 0
    while same < min(len(shapes), len(wanted)) and wanted[same].shape == shapes[same]:
        same += 1
    changed, added = list(wanted[:same]), wanted[same:]
    rest: list[str] = []
    if not added:
        for place, shape in enumerate(shapes[same:], same + 1):
            rest.append(shape)
            if shape == "netem":
                changed.append(Qdisc(place, place - 1, Netem(PERFECT, WIDE_OPEN)))
            elif shape == "tbf":
                changed.append(Qdisc(place, place - 1, Shaper(ORDERED, 1 << 24, 1 << 30)))
    after = (*shapes[:same], *(qdisc.shape for qdisc in added), *rest)
    return Transition(tuple(changed), added, after, bool(added) and same < len(shapes))


def line_limit(impairment: Impairment) -> int:
    """Return the packets that may be under way behind the bottleneck."""
    longest = impairment.delay + 4 * impairment.jitter
    if impairment.slot:
        longest += impairment.slot.maximum
    return 1000 + ceil(FASTEST * longest / (8 * SMALLEST))


def _line(impairment: Impairment) -> list[Discipline]:
    line = impairment.line
    if replace(line, seed=None) == PERFECT:
        return []
    limit = line.limit or line_limit(line)
    if line.loss_correlation:
        # netem's own correlation makes losses rarer than asked (10 % become 2.7 % at 0.25). A
        # two-state channel has the share and the correlation exactly.
        free = 1 - line.loss_correlation
        channel = GilbertElliott(p=line.loss * free, r=(1 - line.loss) * free)
        line = replace(line, loss=0.0, loss_correlation=0.0, loss_model=channel)
    if line.jitter and not line.jitter_reorders:
        line = replace(line, rate=ORDERED, limit=0)
    return [Netem(replace(line, limit=0), limit)]


def _shaped(impairment: Impairment, mtu: int) -> list[Discipline]:
    queue = impairment.waits
    rate, overhead = impairment.rate, impairment.overhead
    frame = mtu + FRAMING
    burst = max(2 * frame, ceil(rate / 8 * LATE))
    match queue:
        case None:
            return []
        case Pfifo(limit) if not impairment.duplicate:
            cell, cell_overhead = impairment.cell, impairment.cell_overhead
            paced = Impairment(rate=rate, overhead=overhead, cell=cell, cell_overhead=cell_overhead)
            return [Netem(paced, limit)]
        case Pfifo(limit):
            # A netem that duplicates may have no other netem below it (Linux 6.16).
            return [Shaper(rate, burst, limit * frame, overhead=overhead), queue]
        case Bfifo(limit):
            return [Shaper(rate, burst, limit, overhead=overhead)]
        case Tbf():
            return [Shaper(rate, queue.burst, queue.limit, queue.peak, frame, overhead)]
        case Red():
            return [Shaper(rate, burst, queue.limit, overhead=overhead), RedAt(queue, rate)]
        case _:
            return [Shaper(rate, burst, burst, overhead=overhead), queue]


def _correlated(correlation: float) -> tuple[str, ...]:
    return (_percent(correlation),) if correlation else ()


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.10g}%"


def _rate(bits_per_second: float) -> str:
    return f"{bits_per_second:.0f}bit"


def _time(seconds: float) -> str:
    """Return a time in tc's words, which are microseconds and their multiples."""
    return f"{seconds * 1e3:.10g}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.10g}us"
