"""Judge a lab's checks on recordings: offline, without root, years later if need be."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from netlab.analysis import fidelity
from netlab.analysis.evidence import Evidence, NoEvidenceError
from netlab.analysis.verdict import Outcome, Verdict, inconclusive, skip
from netlab.errors import LabDefinitionError, NetlabError, RecordingError
from netlab.labs import chance
from netlab.labs.lab import Check, Lab
from netlab.labs.result import CheckResult, LabResult, VariationResult, skip_reasons
from netlab.labs.variation import at_pace
from netlab.recording import Recording

CHECKS = "checks.json"


def judge(
    lab: Lab, recordings: Mapping[str, Recording], skipped: Mapping[str, str]
) -> tuple[CheckResult, ...]:
    """Judge every check on every variation it looks at.

    `recordings` and `skipped` (reasons) are by variation. A variation in neither was not asked
    for: checks of `each` leave it out, checks that compare it are skipped.
    """
    results: list[CheckResult] = []
    for check in lab.checks:
        if check.each:
            known = [v for v in check.variations if v in recordings or v in skipped]
            results += [_one(check, (name,), recordings, skipped) for name in known]
        elif any(v in recordings or v in skipped for v in check.variations):
            results.append(_one(check, check.variations, recordings, skipped))
    return tuple(results)


def _one(
    check: Check,
    variations: tuple[str, ...],
    recordings: Mapping[str, Recording],
    skipped: Mapping[str, str],
) -> CheckResult:
    verdict = _verdict(check, variations, recordings, skipped)
    return CheckResult(check.name, check.sentence, check.claim, variations, verdict)


def _verdict(
    check: Check,
    variations: tuple[str, ...],
    recordings: Mapping[str, Recording],
    skipped: Mapping[str, str],
) -> Verdict:
    for name in variations:
        if name in skipped:
            return skip(skipped[name])
        if name not in recordings:
            return skip(f"variation {name} was not run")
    used = [recordings[name] for name in variations]
    for recording in used:
        manifest = recording.manifest
        if not manifest.complete:
            why = manifest.reason or "the run never came to its end"
            return inconclusive(f"the recording of {manifest.variation} is incomplete: {why}")
        if manifest.fidelity == "invalid":
            why = ", ".join(manifest.fidelity_reasons)
            return inconclusive(f"the recording of {manifest.variation} is not faithful: {why}")
    try:
        verdict = check.judge(*(Evidence(recording) for recording in used))
    except (NoEvidenceError, RecordingError) as error:
        return inconclusive(str(error))
    except NetlabError as error:
        return inconclusive(f"the evidence cannot be read: {error}")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise LabDefinitionError(
            f"check '{check.name}' of lab '{check.judge.__module__}' is broken: "
            f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        ) from error
    if check.timing and verdict.outcome is Outcome.FAIL:
        for recording in used:
            if recording.manifest.fidelity == "suspect":
                return _doubted(verdict, recording)
    return verdict


def _doubted(verdict: Verdict, recording: Recording) -> Verdict:
    """Return what a failure is worth when the machine may be what was too slow."""
    manifest = recording.manifest
    seen = f"{verdict.observed}, expected {verdict.bound}"
    why = ", ".join(manifest.fidelity_reasons)
    reason = f"{seen}; but the recording of {manifest.variation} is suspect: {why}"
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)


def restamped(recording: Recording) -> Recording:
    """Return a recording with the stamp that its figures deserve by today's limits."""
    seen = fidelity.stamp(recording)
    manifest = replace(recording.manifest, fidelity=seen.level, fidelity_reasons=seen.reasons)
    return Recording(recording.path, manifest)


def open_run(path: Path) -> tuple[str, dict[str, Recording], dict[str, str]]:
    """Open a run or a single recording: the lab's name, recordings, reasons of skips.

    A run is a folder with one recording per variation; RecordingError if `path` is neither. Of a
    series of repetitions it is the first run.
    """
    if not path.exists():
        raise RecordingError(f"there is no recording at {path}")
    if (path / chance.FILE).is_file():
        path = path / "01"
    if (path / "manifest.json").exists() or not path.is_dir() or path.name == "manifest.json":
        recording = Recording.open(path)
        name = recording.manifest.variation or "plain"
        return recording.manifest.lab, {name: recording}, {}
    recordings: dict[str, Recording] = {}
    labs: set[str] = set()
    for manifest in sorted(path.glob("*/manifest.json")):
        recording = Recording.open(manifest.parent)
        if recording.manifest.fault is None:
            recordings[recording.manifest.variation or manifest.parent.name] = recording
            labs.add(recording.manifest.lab)
    skipped: dict[str, str] = {}
    if (path / CHECKS).is_file():
        try:
            known = skip_reasons((path / CHECKS).read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise RecordingError(f"{path / CHECKS} cannot be read: {error}") from None
        skipped = {n: v.reason for n, v in known.items() if v.status == "skipped"}
    if not recordings:
        if skipped:
            raise RecordingError(f"{path} holds no recording: everything was skipped")
        raise RecordingError(f"{path} is not a recording: it has no manifest.json")
    if len(labs) > 1:
        raise RecordingError(f"{path} holds recordings of several labs: {', '.join(sorted(labs))}")
    return labs.pop(), recordings, skipped


def check_run(lab: Lab, path: Path) -> LabResult:
    """Judge what lies at `path`, a run or one recording, as a result like that of a run."""
    name, recorded, skipped = open_run(path)
    recordings = {key: restamped(recording) for key, recording in recorded.items()}
    variations = [
        VariationResult(
            name=key,
            status="ran",
            summary=_summary(lab, key, recording.manifest.pace),
            recording=str(recording.path),
            seconds=max(0, recording.manifest.ended_ns - recording.manifest.started_ns) / 1e9,
            fidelity=recording.manifest.fidelity,
            fidelity_reasons=recording.manifest.fidelity_reasons,
        )
        for key, recording in recordings.items()
    ]
    variations += [VariationResult(key, "skipped", reason=why) for key, why in skipped.items()]
    order = {key: index for index, key in enumerate(lab.variations)}
    variations.sort(key=lambda v: order.get(v.name, len(order)))
    some = next(iter(recordings.values())).manifest
    provenance = {"kernel": some.kernel, "netlab": some.netlab, "backend": some.backend}
    checks = judge(lab, recordings, skipped)
    return LabResult(name, lab.title, some.run, tuple(variations), checks, (), provenance)


def _summary(lab: Lab, variation: str, pace: int) -> str:
    """Return what a recording was of; "" for a variation that the lab no longer has."""
    known = lab.variations.get(variation)
    return at_pace(pace, known).summary if known else ""


def broken(checks: tuple[CheckResult, ...]) -> tuple[str, ...]:
    """Return the names of the checks that failed."""
    return tuple(c.check for c in checks if c.verdict.outcome is Outcome.FAIL)
