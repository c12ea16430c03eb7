"""What one direction of a link does to packets: the one vocabulary of all back ends.

A direction is a queue in front of a rate, and a line behind it::

    packets → queue (limit, discipline) → rate → loss, duplication, corruption → delay, jitter → out

All values are frozen and cannot be built wrong: a combination that would not do what it says is
refused with the reason. Which back end can do what is told in docs/impairments.md; the values
themselves belong to none. Times in seconds and one way, ratios 0…1, rates in bits per second of
frames, sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from math import ceil
from typing import Self


class Distribution(StrEnum):
    """How the delay varies; the jitter is its standard deviation, for `UNIFORM` the half width."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"
    PARETONORMAL = "paretonormal"


def _ratio(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a ratio 0…1, not {value:g}")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} is at least {least:g}, not {value:g}")


# -- loss in bursts --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """A channel with a good and a bad state (Gilbert 1960, Elliott 1963).

    Per packet, `p` is the probability of going from good to bad, `r` of going back; a packet is
    lost with `bad_loss` in the bad state and `good_loss` in the good one. Bad periods last 1/r
    packets in the mean.
    """

    p: float
    r: float
    bad_loss: float = 1.0
    good_loss: float = 0.0

    def __post_init__(self) -> None:
        for name in ("p", "r", "bad_loss", "good_loss"):
            _ratio(name, getattr(self, name))
        if not self.p:
            raise ValueError("p is 0: the channel never turns bad; leave the loss model away")
        if not self.r:
            raise ValueError("r is 0: the channel stays bad for ever; say loss 100% instead")

    @property
    def mean(self) -> float:
        """The share of packets lost in the long run."""
        bad = self.p / (self.p + self.r)
        return bad * self.bad_loss + (1 - bad) * self.good_loss


@dataclass(frozen=True, slots=True)
class LossStates:
    """netem's four-state Markov channel (tc-netem(8), `loss state`).

    States: 1 good, 2 good within a burst, 3 lost within a burst, 4 lost alone; `p13` is the
    probability of going from 1 to 3, and so on. The wire back end has no such model.
    """

    p13: float
    p31: float
    p32: float = 0.0
    p23: float = 1.0
    p14: float = 0.0

    def __post_init__(self) -> None:
        for name in ("p13", "p31", "p32", "p23", "p14"):
            _ratio(name, getattr(self, name))
        for state, leaving in (("1", self.p13 + self.p14), ("3", self.p31 + self.p32)):
            if leaving > 1:
                raise ValueError(f"the ways out of state {state} add up to {leaving:g}, above 1")


# -- queues ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pfifo:
    """First in, first out, limited in packets; the tail is dropped."""

    limit: int = 1000

    def __post_init__(self) -> None:
        _at_least("limit (packets)", self.limit, 1)


@dataclass(frozen=True, slots=True)
class Bfifo:
    """First in, first out, limited in bytes of frames; the tail is dropped."""

    limit: int

    def __post_init__(self) -> None:
        _at_least("limit (bytes)", self.limit, 1)


@dataclass(frozen=True, slots=True)
class Tbf:
    """A token bucket: `burst` bytes pass at once, then packets keep to the rate.

    `limit` bytes wait for tokens. With `peak` (bits per second) even the burst leaves no faster
    than that.
    """

    burst: int
    limit: int
    peak: float = 0.0

    def __post_init__(self) -> None:
        _at_least("burst (bytes)", self.burst, 1)
        _at_least("limit (bytes)", self.limit, 1)
        _at_least("peak", self.peak, 0)


@dataclass(frozen=True, slots=True)
class Codel:
    """CoDel (RFC 8289): drops at the head what has stood too long."""

    limit: int = 1000
    target: float = 0.005
    interval: float = 0.1
    ecn: bool = False

    def __post_init__(self) -> None:
        _at_least("limit (packets)", self.limit, 1)
        _times_of_codel(self.target, self.interval)


@dataclass(frozen=True, slots=True)
class FqCodel:
    """FQ-CoDel (RFC 8290): a CoDel queue for each flow, served in turn."""

    limit: int = 10_240
    flows: int = 1024
    quantum: int = 1514
    target: float = 0.005
    interval: float = 0.1
    memory_limit: int = 32 << 20
    ecn: bool = True

    def __post_init__(self) -> None:
        _at_least("limit (packets)", self.limit, 1)
        _at_least("flows", self.flows, 1)
        _at_least("quantum (bytes)", self.quantum, 256)
        _at_least("memory_limit (bytes)", self.memory_limit, 1)
        if self.flows > 65_536:
            raise ValueError(f"flows is at most 65536, not {self.flows}")
        _times_of_codel(self.target, self.interval)


def _times_of_codel(target: float, interval: float) -> None:
    _at_least("target", target, 1e-6)
    if target >= interval:
        raise ValueError(
            f"target {target:g} s is not below the interval {interval:g} s in which it must be met"
        )


@dataclass(frozen=True, slots=True)
class Red:
    """Random early detection (Floyd and Jacobson 1993); sizes in bytes of the average queue.

    Below `minimum` nothing is dropped, between there and `maximum` up to `probability` of the
    packets, above it all. `burst` is the number of packets of `average_packet` bytes that may come
    at once to an empty queue.
    """

    limit: int
    minimum: int
    maximum: int
    probability: float = 0.02
    average_packet: int = 1000
    burst: int = 0
    ecn: bool = False

    def __post_init__(self) -> None:
        _ratio("probability", self.probability)
        _at_least("average_packet (bytes)", self.average_packet, 1)
        _at_least("burst (packets)", self.burst, 0)
        if not 0 < self.minimum < self.maximum <= self.limit:
            raise ValueError(
                "a RED queue needs 0 < minimum < maximum <= limit, not "
                f"{self.minimum}, {self.maximum}, {self.limit}"
            )
        if self.burst and self.burst * self.average_packet < self.minimum:
            raise ValueError(
                f"a burst of {self.burst} packets of {self.average_packet} bytes is less than the "
                f"minimum of {self.minimum} bytes, at which dropping begins"
            )

    @property
    def packets_at_once(self) -> int:
        """`burst`, or the customary (2 minimum + maximum) / (3 average_packet)."""
        return self.burst or ceil((2 * self.minimum + self.maximum) / (3 * self.average_packet))


@dataclass(frozen=True, slots=True)
class Fq:
    """Fair queueing of flows with pacing (tc-fq(8))."""

    limit: int = 10_000
    flow_limit: int = 100
    quantum: int = 3028
    initial_quantum: int = 15_140

    def __post_init__(self) -> None:
        for name in ("limit", "flow_limit", "quantum", "initial_quantum"):
            _at_least(name, getattr(self, name), 1)


Queue = Pfifo | Bfifo | Tbf | Codel | FqCodel | Red | Fq


def bdp(rate: float, rtt: float) -> int:
    """Return rate × round-trip time in bytes: what is under way when the pipe is just full."""
    return ceil(rate * rtt / 8)


@dataclass(frozen=True, slots=True)
class InBdp:
    """A queue whose limit is so many bandwidth-delay products of its direction.

    The delay is taken twice, as if the way back had the same.
    """

    kind: type[Pfifo] | type[Bfifo]
    factor: float

    def queue(self, rate: float, delay: float) -> Pfifo | Bfifo:
        """Return the queue at a rate (bit/s) and a one-way delay (s); at least one full frame."""
        if not (rate and delay):
            raise ValueError("a limit in bdp needs a rate and a delay, whose product it is")
        size = max(FULL_FRAME, ceil(self.factor * bdp(rate, 2 * delay)))
        return Bfifo(size) if self.kind is Bfifo else Pfifo(ceil(size / FULL_FRAME))


FULL_FRAME = 1514
"""Bytes of an Ethernet frame with 1500 bytes in it, without its checksum."""


# -- exact losses, slots, changes, traces ---------------------------------------------------------


class Match(StrEnum):
    """What packets an exact rule counts; one that is a retransmission counts once more."""

    ANY = "any"
    TCP = "tcp"
    TCP_SYN = "tcp-syn"
    TCP_SYNACK = "tcp-synack"
    TCP_DATA = "tcp-data"
    TCP_ACK = "tcp-ack"
    TCP_FIN = "tcp-fin"
    TCP_RST = "tcp-rst"
    UDP = "udp"
    ICMP = "icmp"


@dataclass(frozen=True, slots=True)
class DropRule:
    """Of the packets that match, drop those with these ordinals (from 1), or each `every`-th."""

    match: Match
    nth: tuple[int, ...] = ()
    every: int = 0
    per_flow: bool = False

    def __post_init__(self) -> None:
        if bool(self.nth) == bool(self.every):
            raise ValueError("a drop rule needs either nth or every")
        if any(ordinal < 1 for ordinal in self.nth) or self.every < 0:
            raise ValueError("packets are counted from 1")
        if len(set(self.nth)) != len(self.nth):
            raise ValueError("an ordinal stands twice in nth")


@dataclass(frozen=True, slots=True)
class Slot:
    """Packets leave in bunches, as on a link that is shared in time (tc-netem(8), `slot`).

    A bunch leaves after a pause between `minimum` and `maximum` seconds, and carries at most
    `packets` and `bytes` (0: no such limit).
    """

    minimum: float
    maximum: float
    packets: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum or not self.maximum:
            raise ValueError(f"a slot needs 0 <= {self.minimum:g} <= {self.maximum:g}, not all 0")
        _at_least("packets", self.packets, 0)
        _at_least("bytes", self.bytes, 0)


@dataclass(frozen=True, slots=True)
class Trace:
    """A mahimahi trace: milliseconds at which one MTU-sized packet may leave, repeated for ever."""

    opportunities: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.opportunities or self.opportunities[-1] <= 0:
            raise ValueError("a trace needs at least one opportunity after 0 ms")
        if any(a > b for a, b in zip(self.opportunities, self.opportunities[1:], strict=False)):
            raise ValueError("the times of a trace may not decrease")
        if self.opportunities[0] < 0:
            raise ValueError("the times of a trace begin at 0 ms")

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the text of a trace file: one whole number a line; ValueError with the line."""
        times: list[int] = []
        for number, line in enumerate(text.splitlines(), 1):
            word = line.strip()
            if not word.isdecimal():
                raise ValueError(f"line {number} is not a number of milliseconds: {word[:40]!r}")
            times.append(int(word))
        return cls(tuple(times))

    @property
    def mean_rate(self) -> float:
        """Bits per second of 1500-byte packets over one period."""
        return len(self.opportunities) * 1500 * 8 / (self.opportunities[-1] / 1e3)


@dataclass(frozen=True, slots=True)
class Episode:
    """From `at` seconds after the start, for `duration` seconds (0: for good), another impairment.

    `becomes` stands in for the whole impairment, not for the fields that differ.
    """

    at: float
    becomes: Impairment
    duration: float = 0.0

    def __post_init__(self) -> None:
        _at_least("at", self.at, 0)
        _at_least("duration", self.duration, 0)
        if self.becomes.schedule:
            raise ValueError("an episode may not have a schedule of its own")


# -- all of it ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Impairment:
    """What one direction of a link does; all zeros is a perfect wire.

    `limit` without a rate: the most packets under way; with one: those that wait for it, which is
    short for `queue=Pfifo(limit)` (0: computed, see docs/impairments.md). A correlation says how
    much a packet's fate resembles the one before it. `jitter_reorders` lets packets overtake each
    other where the jitter would have it so; otherwise a packet waits for the one before it.
    `reorder` packets leave at once, ahead of those still delayed; with `reorder_gap` only each
    so-many-th is a candidate. `ecn` marks ECN-capable packets instead of losing them. `overhead`
    (bytes, may be negative) and `cell` (bytes carried, each with `cell_overhead`) make the rate
    that of a link with other framing.
    """

    delay: float = 0.0
    jitter: float = 0.0
    distribution: Distribution = Distribution.UNIFORM
    delay_correlation: float = 0.0
    jitter_reorders: bool = False
    loss: float = 0.0
    loss_correlation: float = 0.0
    loss_model: GilbertElliott | LossStates | None = None
    ecn: bool = False
    drops: tuple[DropRule, ...] = ()
    duplicate: float = 0.0
    duplicate_correlation: float = 0.0
    corrupt: float = 0.0
    corrupt_correlation: float = 0.0
    reorder: float = 0.0
    reorder_correlation: float = 0.0
    reorder_gap: int = 0
    rate: float = 0.0
    overhead: int = 0
    cell: int = 0
    cell_overhead: int = 0
    trace: Trace | None = None
    limit: int = 0
    queue: Queue | None = None
    slot: Slot | None = None
    seed: int | None = None
    schedule: tuple[Episode, ...] = ()

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "corrupt", "reorder"):
            _ratio(name, getattr(self, name))
            correlation = getattr(self, f"{name}_correlation")
            _ratio(f"{name}_correlation", correlation)
            if correlation and not getattr(self, name):
                raise ValueError(f"{name}_correlation needs {name}")
        for name in ("delay", "jitter", "rate", "limit", "reorder_gap", "cell", "cell_overhead"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name):g}")
        _ratio("delay_correlation", self.delay_correlation)
        if self.loss_correlation == 1 or (self.loss_correlation and self.loss == 1):
            raise ValueError("a loss of 100% or a correlation of 100% leaves nothing to correlate")
        self._check_delay()
        self._check_loss()
        self._check_rate()
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            raise ValueError(f"a seed is 0…2⁶⁴-1, not {self.seed}")

    def _check_delay(self) -> None:
        if self.jitter and not self.delay:
            raise ValueError("jitter needs a delay")
        if self.jitter > self.delay:
            raise ValueError(
                f"a jitter of {self.jitter:g} s around a delay of {self.delay:g} s would need "
                "packets that arrive before they are sent; make the delay at least as long"
            )
        for name in ("delay_correlation", "jitter_reorders"):
            if getattr(self, name) and not self.jitter:
                raise ValueError(f"{name} needs jitter")
        if self.distribution is not Distribution.UNIFORM and not self.jitter:
            raise ValueError(f"the distribution '{self.distribution}' needs jitter")
        if self.reorder and not self.delay:
            raise ValueError("reorder needs a delay: a packet overtakes those that are delayed")
        if self.reorder_gap and not self.reorder:
            raise ValueError("reorder_gap needs reorder")
        if self.reorder and self.jitter and not self.jitter_reorders:
            raise ValueError(
                "jitter that keeps the order and reorder contradict each other; "
                "allow jitter_reorders or leave one away"
            )

    def _check_loss(self) -> None:
        if self.loss_model is not None and self.loss:
            raise ValueError("loss and loss_model are two answers to one question; give one")
        if self.ecn and not (self.loss or self.loss_model):
            raise ValueError(
                "ecn marks the packets that loss would drop, and there is no loss; "
                "for a queue that marks, write it in the queue"
            )

    def _check_rate(self) -> None:
        paced = self.rate or self.trace
        if self.rate and self.trace:
            raise ValueError("rate and trace are two answers to one question; give one")
        if self.rate and self.rate < 8:
            raise ValueError(f"a rate of {self.rate:g} bit/s is less than a byte per second")
        if self.queue is not None and not paced:
            kind = type(self.queue).__name__.lower()
            raise ValueError(
                f"the queue {kind} needs a rate: without one packets never wait, so no queue forms"
            )
        if self.queue is not None and self.limit:
            raise ValueError("limit is short for a pfifo queue; give limit or queue, not both")
        for name in ("overhead", "cell"):
            if getattr(self, name) and not self.rate:
                raise ValueError(f"{name} needs a rate")
        if self.cell_overhead and not self.cell:
            raise ValueError("cell_overhead needs cell")
        if isinstance(self.queue, Tbf) and self.queue.peak and self.queue.peak <= self.rate:
            raise ValueError(
                f"the peak of {self.queue.peak:g} bit/s is not above the rate of {self.rate:g}"
            )
        if self.cell and not (self.queue is None or isinstance(self.queue, Pfifo)):
            raise ValueError("cell goes with a pfifo queue only: no other shaper counts cells")

    def __bool__(self) -> bool:
        """False for a perfect wire."""
        return self is not PERFECT and self != PERFECT

    @property
    def waits(self) -> Queue | None:
        """The queue in front of the rate, None where nothing limits the rate."""
        if not (self.rate or self.trace):
            return None
        return self.queue or Pfifo(self.limit or Pfifo().limit)

    @property
    def line(self) -> Self:
        """The same without queue and rate: what happens behind the bottleneck."""
        names = {field.name for field in fields(PERFECT)}
        names &= {"rate", "overhead", "cell", "cell_overhead", "trace", "queue", "schedule"}
        neutral = {name: getattr(PERFECT, name) for name in names}
        if self.rate or self.trace:
            neutral["limit"] = 0
        return replace(self, **neutral)


PERFECT = Impairment()
