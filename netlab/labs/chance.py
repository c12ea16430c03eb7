"""Repetitions: seeds that follow from one, and what many runs say together.

A repetition differs from another in its seeds alone: each direction of a link where chance is at
work gets one that follows from the seed of the whole, the number of the repetition, and its name.
So the same seed gives the same losses again, and nobody has to keep a list.

What was measured several times is told as a median with an interval that holds the true median in
at least 95 of 100 such series, whatever the distribution: the k-th smallest to the k-th largest
value, k by the binomial distribution (W. J. Conover, Practical Nonparametric Statistics, 3.2).
Fewer than six values cannot give that; then the interval is smallest to largest, and says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import comb
from pathlib import Path
from statistics import median
from typing import Any, cast

from netlab.labs.result import CheckResult, LabResult
from netlab.model.impairment import Impairment
from netlab.model.topology import Link, Topology

FILE = "repeat.json"
SCHEMA = 1
LEVEL = 0.95


def derived(seed: int, repetition: int, name: str) -> int:
    """Return 32 bits that follow from a seed, a repetition and a name."""
    text = f"{seed}/{repetition}/{name}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


def random(impairment: Impairment) -> bool:
    """Tell whether chance decides what an impairment does to a packet."""
    it = impairment
    parts = (it.jitter, it.loss, it.loss_model, it.duplicate, it.corrupt, it.reorder)
    return any(parts) or any(random(episode.becomes) for episode in it.schedule)


def seeded(topology: Topology, seed: int, repetition: int) -> tuple[Topology, dict[str, int]]:
    """Return the topology with seeds of its own for a repetition, and the seeds by direction."""
    seeds: dict[str, int] = {}

    def one(impairment: Impairment, name: str) -> Impairment:
        if not random(impairment):
            return impairment
        seeds[name] = derived(seed, repetition, name)
        return replace(impairment, seed=seeds[name])

    def link(found: Link) -> Link:
        return replace(
            found,
            forward=one(found.forward, f"{found.name}:forward"),
            backward=one(found.backward, f"{found.name}:backward"),
        )

    return replace(topology, links=tuple(link(found) for found in topology.links)), seeds


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values and an interval around it.

    `level` is the chance, 0…1, that such an interval holds the true median.
    """

    median: float
    low: float
    high: float
    count: int
    level: float


def spread(values: Iterable[float]) -> Spread:
    """Return the median with its narrowest interval of at least `LEVEL`, or the widest there is."""
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        raise ValueError("no value has no median")
    k = 1
    while k < (count + 1) // 2 and _level(count, k + 1) >= LEVEL:
        k += 1
    return Spread(median(ordered), ordered[k - 1], ordered[count - k], count, _level(count, k))


def _level(count: int, k: int) -> float:
    """Return how surely the k-th smallest and k-th largest of `count` enclose the median."""
    return max(0.0, 1 - 2 * sum(comb(count, i) for i in range(k)) / 2**count)


@dataclass(frozen=True, slots=True)
class Repeated:
    """One check over all repetitions: how often it passed, and what was measured.

    `value` is the measured number, the median of several, and None where no number was measured
    each time; `spread` is there for several.
    """

    check: str
    sentence: str
    variations: tuple[str, ...]
    outcomes: tuple[str, ...]
    value: float | None = None
    spread: Spread | None = None
    unit: str = ""


def summary(results: Sequence[LabResult]) -> tuple[Repeated, ...]:
    """Return each check of a lab over its repetitions, in their order."""
    order: dict[tuple[str, tuple[str, ...]], list[CheckResult]] = {}
    for result in results:
        for check in result.checks:
            order.setdefault((check.check, check.variations), []).append(check)
    found: list[Repeated] = []
    for (name, variations), checks in order.items():
        values = [number for c in checks if (number := _number(c.verdict.value)) is not None]
        whole = len(values) == len(checks)
        found.append(
            Repeated(
                name,
                checks[0].sentence,
                variations,
                tuple(str(c.verdict.outcome) for c in checks),
                median(values) if whole else None,
                spread(values) if whole and len(values) > 1 else None,
                checks[0].verdict.unit,
            )
        )
    return tuple(found)


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return None


def as_json(lab: str, seed: int, results: Sequence[LabResult]) -> str:
    """Return the text of `repeat.json`: the runs of one series and what they say together."""
    record = {
        "schema": SCHEMA,
        "lab": lab,
        "seed": seed,
        "runs": [result.run for result in results],
        "checks": [asdict(item) for item in summary(results)],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def runs(path: Path) -> tuple[str, ...] | None:
    """Return the runs of the series in a folder, None if it holds none; ValueError for damage."""
    file = path / FILE
    if not file.is_file():
        return None
    raw: Any = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(raw, dict) or cast("dict[str, Any]", raw).get("schema") != SCHEMA:
        raise ValueError(f"{file} is no series of this version")
    return tuple(str(name) for name in cast("dict[str, Any]", raw)["runs"])
