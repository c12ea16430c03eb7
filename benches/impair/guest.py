"""The kernel's netem, asked against got: as netlab sets it up, and as plain `tc` by hand.

    python benches/impair/guest.py RESULTS.json      inside a guest; `run.py --guest` does it

The network and the measuring are those of tests/engine/netem_probe.py.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from netlab.engine import netlink
from netlab.model.impairment import Distribution, Impairment
from netlab.units import mbit, ms
from tests.engine.netem_probe import Bench, request, run

Rows = list[list[int]]  # number, delay (ns), when (ns), marked, damaged


def interval(n: int, p: float) -> tuple[float, float]:
    """The 99 % interval of a binomial's share, by its normal approximation."""
    half = 2.576 * math.sqrt(p * (1 - p) / n)
    return max(0.0, p - half), p + half


@dataclass(frozen=True)
class Trial:
    """One row of the table: what is asked in both languages, how to measure, what is right."""

    asked: str
    impairment: Impairment
    tc: str
    measure: Callable[[Bench], Rows]
    value: Callable[[Rows], float]
    low: float
    high: float
    unit: str


def delays(rows: Rows) -> list[float]:
    return [row[1] / 1e6 for row in rows]


def trials() -> Iterator[Trial]:
    for one in (1, 10, 50, 300):
        yield Trial(
            f"delay {one} ms", Impairment(delay=one * ms), f"netem delay {one}ms",
            lambda bench: bench.probe(500, 0.002), lambda rows: median(delays(rows)),
            one, one * 1.002 + 0.1, "ms",
        )  # fmt: skip
    count = 20_000
    for percent in (0.1, 1, 5, 20):
        low, high = (100 * bound for bound in interval(count, percent / 100))
        yield Trial(
            f"loss {percent} %", Impairment(loss=percent / 100), f"netem loss {percent}%",
            lambda bench: bench.probe(count, 0.00005), lambda rows: 100 - 100 * len(rows) / count,
            low, high, "%",
        )  # fmt: skip
    for rate, frames in ((1, 50), (10, 200), (100, 900), (1000, 900)):
        yield Trial(
            f"rate {rate} Mbit/s", Impairment(rate=rate * mbit), f"netem rate {rate}mbit",
            lambda bench, frames=frames: bench.burst(frames, 1500),
            lambda rows: (len(rows) - 1) * 12e3 / (rows[-1][2] - rows[0][2]) * 1e3,
            0.98 * rate, 1.02 * rate, "Mbit/s",
        )  # fmt: skip
    for shape, spread in ((Distribution.UNIFORM, 2 / math.sqrt(3)), (Distribution.NORMAL, 2.0)):
        asked = Impairment(delay=20 * ms, jitter=2 * ms, distribution=shape, jitter_reorders=True)
        words = "" if shape is Distribution.UNIFORM else f" distribution {shape}"
        yield Trial(
            f"20 ms, {shape} jitter 2 ms: deviation", asked, f"netem delay 20ms 2ms{words}",
            lambda bench: bench.probe(4000, 0.0005), lambda rows: pstdev(delays(rows)),
            0.85 * spread, 1.15 * spread, "ms",
        )  # fmt: skip
        yield Trial(
            f"20 ms, {shape} jitter 2 ms: mean", asked, f"netem delay 20ms 2ms{words}",
            lambda bench: bench.probe(4000, 0.0005), lambda rows: fmean(delays(rows)),
            19.7, 20.3, "ms",
        )  # fmt: skip
    low, high = (100 * bound for bound in interval(count, 0.05))
    yield Trial(
        "reorder 5 %", Impairment(delay=5 * ms, reorder=0.05), "netem delay 5ms reorder 5%",
        lambda bench: bench.probe(count, 0.00005),
        lambda rows: 100 * sum(delay < 5 for delay in delays(rows)) / len(rows),
        low, high, "%",
    )  # fmt: skip


def main(target: Path) -> None:
    bench = Bench()
    bench.probe(50, 0.001)
    rows: list[dict[str, Any]] = []
    for trial in trials():
        bench.impair(trial.impairment)
        ours = trial.value(trial.measure(bench))
        request(bench.route, netlink.delete_qdisc(1, bench.index))
        run("tc", "-n", "m", "qdisc", "add", "dev", "p1", "root", *trial.tc.split())
        by_hand = trial.value(trial.measure(bench))
        told = {"asked": trial.asked, "tc": trial.tc, "unit": trial.unit}
        rows.append(told | {"got": [ours, by_hand], "bound": [trial.low, trial.high]})
    target.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
