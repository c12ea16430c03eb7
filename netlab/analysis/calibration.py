"""What was measured of a link before it was used, beside what its file asks for.

Few probes say little about loss: the interval of a count is the exact binomial one (Clopper and
Pearson, Biometrika 26, 1934), at a level of 10^-6 where a link is doubted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Any

from netlab.errors import RecordingError
from netlab.model.impairment import Impairment
from netlab.plan.calibration import frame_time, spread
from netlab.recording import Recording

Json = Mapping[str, Any]
FILE = "machine/calibration.json"
ALPHA = 1e-6
SLOW_SENDER = 0.9
"""A burst that took so much of its time to be sent says nothing about the link's rate."""


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a link, as it was measured; `why` says why it was not."""

    sent: int = 0
    delays: tuple[float, ...] = ()
    damaged: int = 0
    arrived: tuple[float | None, ...] = ()
    offered: float = 0.0
    octets: int = 0
    frame: int = 0
    first: int = 0
    trains: int = 0
    why: str = ""

    @property
    def lost(self) -> int:
        """How many of the train's frames never came, or came damaged."""
        return self.trains - len(self.delays)

    @property
    def rate_span(self) -> tuple[int, float] | None:
        """How many octets came at the rate in how many seconds; None where it cannot be told."""
        found = self.arrived[self.first :]
        if len(found) < 2 or any(at is None for at in found):
            return None
        first, last = found[0], found[-1]
        assert first is not None
        assert last is not None
        if self.offered > SLOW_SENDER * last:
            return None
        return (len(found) - 1) * self.octets, last - first

    def delay(self, asked: Impairment) -> float | None:
        """Return the idle delay, in one direction; None where no frame came.

        It is the smallest, for a frame may be late and is never early; the median where chosen
        packets overtake the others.
        """
        if not self.delays:
            return None
        return median(self.delays) if asked.reorder else min(self.delays)


def read(recording: Recording) -> dict[str, tuple[Way, Way]]:
    """Return both directions of every link that was measured, by its name; {} for none.

    RecordingError when the file is damaged.
    """
    path = recording.path / FILE
    if not path.is_file():
        return {}
    try:
        links = json.loads(path.read_text(encoding="utf-8"))["links"]
        return {
            name: (parse(told["forward"]), parse(told["backward"])) for name, told in links.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path} is no calibration: {error}") from None


def round_trip(ways: tuple[Way, Way], asked: tuple[Impairment, Impairment]) -> float | None:
    """Return the idle round trip of a link in seconds; None where it was not measured."""
    delays = [way.delay(one) for way, one in zip(ways, asked, strict=True)]
    known = [delay for delay in delays if delay is not None]
    return sum(known) if len(known) == len(delays) else None


def parse(told: Json) -> Way:
    """Return what the recording says of one direction."""
    if "one_way_s" not in told:
        return Way(why=str(told.get("why", "it was not measured")))
    trial: Json = told["trial"]
    burst: Json = trial.get("burst") or {}
    return Way(
        sent=int(told["sent"]),
        delays=tuple(float(took) for took in told["one_way_s"] if took is not None),
        damaged=int(told["damaged"]),
        arrived=tuple(told.get("arrived_s", ())),
        offered=float(told.get("offered_s") or 0.0),
        octets=int(burst.get("octets", 0)),
        frame=int(trial["octets"]),
        first=int(burst.get("first", 0)),
        trains=len(told["one_way_s"]),
        why=str(told.get("why", "")),
    )


def expected(way: Way, asked: Impairment) -> float:
    """Return the idle delay that was asked for: that of the line, and of one small frame."""
    return asked.delay + frame_time(asked, way.frame)


def deviations(
    ways: tuple[Way, Way], asked: tuple[Impairment, Impairment], tolerance: float
) -> Iterator[tuple[float, str]]:
    """Yield how a link differs from what was asked: by how many tolerances, and in words.

    `tolerance` is that of a round trip, in seconds; the rate's time has the same.
    """
    pairs = tuple(zip(ways, asked, strict=True))
    took = round_trip(ways, asked)
    if took is not None and all(one.trace is None and one.slot is None for one in asked):
        wanted = sum(expected(way, one) for way, one in pairs)
        allowed = tolerance + sum(spread(one) for one in asked)
        off = abs(took - wanted)
        if off > allowed:
            text = f"an idle round trip took {took * 1e3:.2f} ms, not {wanted * 1e3:.2f}"
            yield off / allowed, text
    for way, one in pairs:
        yield from _rate(way, one, tolerance)
        yield from _loss(way, one)


def _rate(way: Way, asked: Impairment, tolerance: float) -> Iterator[tuple[float, str]]:
    span = way.rate_span
    if span is None or not asked.rate:
        return
    octets, took = span
    wanted = octets // way.octets * frame_time(asked, way.octets)
    allowed = tolerance + 0.02 * wanted + 2 * spread(asked)
    off = abs(took - wanted)
    if off > allowed:
        yield off / allowed, f"{octets:,} octets took {took * 1e3:.2f} ms, not {wanted * 1e3:.2f}"


def _loss(way: Way, asked: Impairment) -> Iterator[tuple[float, str]]:
    if way.why or asked.loss_model is not None or asked.loss_correlation or asked.ecn:
        return  # not sent, or not independent of each other
    least = asked.loss
    most = 1 - (1 - asked.loss) * (1 - asked.corrupt)
    low, high = interval(way.lost, way.trains, ALPHA)
    if low > most or high < least or (way.lost and not most):
        text = f"{way.lost} of {way.trains} probes were lost, where {least:.3g} was asked"
        yield 1.0, text


def interval(count: int, of: int, alpha: float) -> tuple[float, float]:
    """Return the exact interval of a ratio of which `count` of `of` were seen, at level 1 - alpha.

    The lower end is where seeing so many or more has the probability alpha/2, the upper where
    seeing so few or fewer has it.
    """
    low = 0.0 if count == 0 else _solve(lambda p: 1 - _at_most(count - 1, of, p), alpha / 2)
    high = 1.0 if count == of else _solve(lambda p: 1 - _at_most(count, of, p), 1 - alpha / 2)
    return low, high


def _at_most(count: int, of: int, ratio: float) -> float:
    return sum(comb(of, k) * ratio**k * (1 - ratio) ** (of - k) for k in range(count + 1))


def _solve(rising: Callable[[float], float], value: float) -> float:
    """Return where a rising function of a ratio has a value, by halving (52 times: all bits)."""
    low, high = 0.0, 1.0
    for _ in range(52):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > value else (middle, high)
    return low
