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
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from bounds import JITTERS, QUARTILES, delay, interval, quartile

from netlab.engine import netlink
from netlab.model.impairment import Distribution, Impairment
from netlab.units import mbit, ms
from tests.engine.netem_probe import Bench, request, run

Rows = list[list[int]]  # number, delay (ns), when (ns), marked, damaged


@dataclass(frozen=True)
class Trial:
    """One row of the table: what is asked in both languages, how to measure, what is right."""

    asked: str
    impairment: Impairment
    tc: str
    measure: Callable[[Bench], Rows]
    values: Callable[[Rows], list[float]]
    bounds: list[tuple[float, float]]
    unit: str


def delays(rows: Rows) -> list[float]:
    return [row[1] / 1e6 for row in rows]


def mbits(rows: Rows) -> float:
    """What 1500-octet frames were carried at, by the kernel's times of their arrival."""
    return (len(rows) - 1) * 12e3 / (rows[-1][2] - rows[0][2]) * 1e3


def quartiles(rows: Rows) -> list[float]:
    ordered = sorted(delays(rows))
    return [ordered[int((len(ordered) - 1) * share)] for share in QUARTILES]


def trials() -> Iterator[Trial]:
    for ms_ in (0, 1, 10, 50, 300):
        yield Trial(
            f"delay {ms_} ms", Impairment(delay=ms_ * ms), f"netem delay {ms_}ms",
            lambda bench: bench.probe(500, 0.002), lambda rows: [median(delays(rows))],
            [delay(ms_)], "ms",
        )  # fmt: skip
    count = 20_000
    steady = {
        "lost": lambda rows: 1 - len(rows) / count,
        "surplus": lambda rows: len(rows) / count - 1,
        "early": lambda rows: sum(each < 5 for each in delays(rows)) / len(rows),
    }  # fmt: skip
    for name, share, asked, tc, what in (
        *(
            (f"loss {at} %", at / 100, Impairment(loss=at / 100), f"loss {at}%", "lost")
            for at in (0.1, 1, 5, 20)
        ),
        (
            "reorder 5 %", 0.05, Impairment(delay=5 * ms, reorder=0.05),
            "delay 5ms reorder 5%", "early",
        ),
        ("duplicate 5 %", 0.05, Impairment(duplicate=0.05), "duplicate 5%", "surplus"),
    ):  # fmt: skip
        low, high = interval(count, share)
        yield Trial(
            name, asked, f"netem {tc}", lambda bench: bench.probe(count, 0.00005),
            lambda rows, what=what: [100 * steady[what](rows)], [(100 * low, 100 * high)], "%",
        )  # fmt: skip
    for rate, frames in ((1, 50), (10, 200), (100, 900), (1000, 900)):
        yield Trial(
            f"rate {rate} Mbit/s", Impairment(rate=rate * mbit), f"netem rate {rate}mbit",
            lambda bench, frames=frames: bench.burst(frames, 1500), lambda rows: [mbits(rows)],
            [(0.98 * rate, 1.02 * rate)], "Mbit/s",
        )  # fmt: skip
    for shape, deviation in (JITTERS | {"pareto": netem_pareto}).items():
        asked = Impairment(
            delay=20 * ms, jitter=2 * ms, distribution=Distribution(shape), jitter_reorders=True
        )
        words = "" if shape == "uniform" else f" distribution {shape}"
        yield Trial(
            f"20 ms, {shape} jitter 2 ms: quartiles", asked, f"netem delay 20ms 2ms{words}",
            lambda bench: bench.probe(2000, 0.002), quartiles,
            [quartile(deviation, share, 2000) for share in QUARTILES], "ms",
        )  # fmt: skip


def netem_pareto(share: float) -> float:
    """Iproute2's table, and so the engine's, is divided by the variance instead of its root."""
    return JITTERS["pareto"](share) / math.sqrt(0.75)


def main(target: Path) -> None:
    bench = Bench()
    bench.probe(50, 0.001)
    rows: list[dict[str, Any]] = []
    bare = mbits(bench.burst(900, 1500))
    for trial in trials():
        bench.impair(trial.impairment)
        ours = trial.values(trial.measure(bench))
        request(bench.route, netlink.delete_qdisc(1, bench.index))
        run("tc", "-n", "m", "qdisc", "add", "dev", "p1", "root", *trial.tc.split())
        by_hand = trial.values(trial.measure(bench))
        told = {"asked": trial.asked, "tc": trial.tc, "unit": trial.unit}
        rows.append(told | {"got": [ours, by_hand], "bounds": trial.bounds})
    target.write_text(json.dumps({"bare_mbits": bare, "rows": rows}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
