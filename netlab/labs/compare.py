"""Compare two runs of a lab: settings, packets, figures and verdicts, variation by variation.

A run is the folder of a run, one recording of it, or a series of repetitions. Two runs of the same
lab are compared by the names of their variations; two single recordings with each other, whatever
their variations are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netlab.analysis import comparison
from netlab.analysis.comparison import Difference, Divergence, Fate
from netlab.analysis.evidence import Evidence
from netlab.errors import RecordingError, UsageError
from netlab.labs import chance, guide, judge
from netlab.labs.chance import Repeated
from netlab.labs.lab import Lab
from netlab.labs.result import LabResult
from netlab.recording import Recording


@dataclass(frozen=True, slots=True)
class Pair:
    """One variation of both runs (two, if single recordings were named)."""

    left: str
    right: str
    settings: tuple[Difference, ...]
    packets: tuple[Divergence, ...]
    fate: Fate | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the guide in both runs; "" where it was not measured."""

    name: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A check in both runs, over all their repetitions; None where it was not judged."""

    sentence: str
    variations: tuple[str, ...]
    left: Repeated | None
    right: Repeated | None

    @property
    def changed(self) -> bool:
        """True when one run passed and the other did not."""
        sides = (self.left, self.right)
        return None not in sides and len({_passed(side) for side in sides if side}) > 1

    @property
    def apart(self) -> bool | None:
        """Whether the intervals of both lie apart; None where one of them has no interval."""
        if not (self.left and self.right and self.left.spread and self.right.spread):
            return None
        a, b = self.left.spread, self.right.spread
        return a.high < b.low or b.high < a.low


@dataclass(frozen=True, slots=True)
class Compared:
    """What two runs of a lab differ in; `missing` are variations that only one of them has."""

    lab: str
    left: str
    right: str
    pairs: tuple[Pair, ...]
    missing: tuple[str, ...]
    figures: tuple[Figure, ...]
    checks: tuple[Checked, ...]

    @property
    def differs(self) -> bool:
        """True when settings, segments, fates or verdicts differ."""
        return (
            bool(self.missing)
            or any(check.changed for check in self.checks)
            or any(
                pair.settings or pair.fate or any(found.diverges for found in pair.packets)
                for pair in self.pairs
            )
        )


def _passed(found: Repeated) -> bool:
    return all(outcome == "pass" for outcome in found.outcomes)


@dataclass(frozen=True, slots=True)
class _Side:
    lab: str
    single: bool
    recordings: Mapping[str, Recording]
    runs: tuple[Path, ...]


def _side(path: Path) -> _Side:
    """Open a run, a recording or a series; of a series the first run's packets are compared."""
    names = _series(path)
    runs = tuple(path.resolve().parent / name for name in names) if names else (path,)
    lab, recordings, _ = judge.open_run(runs[0])
    for recording in recordings.values():
        damaged = recording.damaged()
        if damaged:
            raise RecordingError(
                f"{recording.path} was changed after it was recorded: {damaged[0]}"
            )
    return _Side(lab, (path / "manifest.json").is_file(), recordings, runs)


def _series(path: Path) -> tuple[str, ...]:
    try:
        return chance.runs(path) or ()
    except (ValueError, KeyError, OSError) as error:
        raise RecordingError(f"{path / chance.FILE} cannot be read: {error}") from None


def lab_of(path: Path) -> str:
    """Return the name of the lab of a run, a recording or a series."""
    return _side(path).lab


def compare(lab: Lab, left: Path, right: Path) -> Compared:
    """Compare two runs of a lab; UsageError if they are of different labs."""
    one, other = _side(left), _side(right)
    if one.lab != other.lab:
        raise UsageError(f"{left} is a run of {one.lab}, {right} of {other.lab}")
    if one.single and other.single:
        names = [(next(iter(one.recordings)), next(iter(other.recordings)))]
    else:
        names = [(name, name) for name in one.recordings if name in other.recordings]
    missing = {*one.recordings} ^ {*other.recordings} if not (one.single and other.single) else ()
    pairs = tuple(_pair(one.recordings[a], other.recordings[b]) for a, b in names)
    return Compared(
        one.lab,
        str(left),
        str(right),
        pairs,
        tuple(sorted(missing)),
        _figures(lab, one, other),
        _checks(lab, one, other),
    )


def _pair(left: Recording, right: Recording) -> Pair:
    one, other = Evidence(left), Evidence(right)
    return Pair(
        left.manifest.variation or "plain",
        right.manifest.variation or "plain",
        comparison.settings(left, right),
        comparison.packets(one, other),
        comparison.fates(one, other),
    )


def _figures(lab: Lab, left: _Side, right: _Side) -> tuple[Figure, ...]:
    one, other = (guide.measure(lab, side.recordings) for side in (left, right))
    names = dict.fromkeys([*one, *other])
    return tuple(Figure(name, one.get(name, ""), other.get(name, "")) for name in names)


def _checks(lab: Lab, left: _Side, right: _Side) -> tuple[Checked, ...]:
    single = left.single and right.single  # then a check need not be of the same variation
    one, other = (
        {(r.check, () if single else r.variations): r for r in chance.summary(_judged(lab, side))}
        for side in (left, right)
    )
    keys = dict.fromkeys([*one, *other])
    found = ((one.get(key), other.get(key)) for key in keys)
    return tuple(
        Checked(some.sentence, some.variations, a, b)
        for a, b in found
        if (some := a or b) is not None
    )


def _judged(lab: Lab, side: _Side) -> list[LabResult]:
    return [judge.check_run(lab, path) for path in side.runs]
