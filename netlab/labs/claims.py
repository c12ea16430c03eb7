"""The ledger of claims: what the documents say, and what a recording on this kernel shows.

`labs/claims.yaml` lists the claims in our words with their sources and the lab that tests each.
The function that rules on a claim stands in that lab's `lab.py` (`@lab.claim("C41")`); it looks at
recordings and returns a Finding. Nothing is typed in: a claim without such a function, or without
a recording it can look at, is untested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from netlab import resources
from netlab.errors import LabDefinitionError, NetlabError

FILE = "claims.yaml"
_NUMBER = re.compile(r"C\d\d")
_KEYS = {"id", "sources", "claim", "lab"}


class Ruling(StrEnum):
    """What became of a claim. `DEPENDS` says on what; `UNTESTED` says why."""

    HOLDS = "holds"
    FAILS = "does not hold"
    DEPENDS = "depends"
    UNTESTED = "untested"


@dataclass(frozen=True, slots=True)
class Finding:
    """A ruling with what was measured, in words; `reason` for depends and untested."""

    ruling: Ruling
    measured: str = ""
    reason: str = ""


def holds(truth: object, measured: str) -> Finding:
    """Rule that a claim holds, or that it does not."""
    return Finding(Ruling.HOLDS if truth else Ruling.FAILS, measured)


def depends(on: str, measured: str) -> Finding:
    """Rule that a claim is neither true nor false, but depends on something."""
    return Finding(Ruling.DEPENDS, measured, on)


def untested(reason: str) -> Finding:
    """Say that nothing could be measured."""
    return Finding(Ruling.UNTESTED, reason=reason)


@dataclass(frozen=True, slots=True)
class Claim:
    """What documents say, in our words; `sources` are their numbers."""

    id: str
    sources: tuple[str, ...]
    claim: str
    lab: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A claim with its ruling, and its evidence: variations of a run, and the kernel it ran on."""

    claim: Claim
    finding: Finding
    kernel: str = ""
    recording: str = ""
    variations: tuple[str, ...] = ()

    @property
    def evidence(self) -> str:
        """Where the recordings are that the ruling was made on; empty where there are none."""
        if not self.recording:
            return ""
        place = Path(self.recording)
        near = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
        return f"{near}: {', '.join(self.variations)}"


def load(path: Path | None = None) -> tuple[Claim, ...]:
    """Return the claims of a file in its order; LabDefinitionError names what is wrong with it."""
    import yaml

    path = resources.labs() / FILE if path is None else path
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabDefinitionError(f"{path} cannot be read: {error}") from None
    if not isinstance(raw, list):
        raise LabDefinitionError(f"{path} is not a list of claims")
    found: dict[str, Claim] = {}
    for item in cast("list[Any]", raw):
        claim = _claim(item, path)
        if claim.id in found:
            raise LabDefinitionError(f"{path}: two claims are called {claim.id}")
        found[claim.id] = claim
    return tuple(found.values())


def _claim(item: Any, path: Path) -> Claim:
    if not isinstance(item, dict) or set(cast("dict[str, Any]", item)) != _KEYS:
        raise LabDefinitionError(f"{path}: a claim has the keys {', '.join(sorted(_KEYS))}: {item}")
    fields = cast("dict[str, Any]", item)
    number = str(fields["id"])
    if not _NUMBER.fullmatch(number):
        raise LabDefinitionError(f"{path}: '{number}' is not a number such as C01")
    sources = tuple(str(source) for source in fields["sources"])
    return Claim(number, sources, str(fields["claim"]), str(fields["lab"]))


def ledger(
    claims: Iterable[Claim], *, results: Path, folder: Path | None = None
) -> tuple[Entry, ...]:
    """Rule on claims from the latest runs below `results`, else from committed recordings."""
    from netlab.labs import discovery

    known = set(discovery.names(folder))
    labs: dict[str, Any] = {}
    entries: list[Entry] = []
    for claim in claims:
        if claim.lab not in known:
            entries.append(Entry(claim, untested(f"there is no lab {claim.lab} yet")))
            continue
        if claim.lab not in labs:
            labs[claim.lab] = discovery.find(claim.lab, folder)
        entries.append(_rule(claim, labs[claim.lab], results))
    return tuple(entries)


def _rule(claim: Claim, lab: Any, results: Path) -> Entry:
    """Rule on one claim from the first recording that holds what its function looks at."""
    from netlab.analysis.evidence import Evidence
    from netlab.labs import judge

    function = lab.claims.get(claim.id)
    if function is None:
        return Entry(claim, untested(f"lab {claim.lab} does not measure it yet"))
    wanted = lab.parameters(function, function.__name__)
    why = f"lab {claim.lab} was not run; `netlab lab run {claim.lab}`"
    for path in (results / lab.name / "latest", lab.folder / "recording"):
        try:
            _, recordings, skipped = judge.open_run(path)
        except NetlabError:
            continue
        missing = [name for name in wanted if name not in recordings]
        if missing:
            why = skipped.get(missing[0], f"variation {missing[0]} of {claim.lab} was not run")
            continue
        partial = [name for name in wanted if not recordings[name].complete]
        if partial:
            why = f"the recording of {partial[0]} is incomplete"
            continue
        untrue = [name for name in wanted if recordings[name].manifest.fidelity == "invalid"]
        if untrue:
            why = f"the recording of {untrue[0]} is not faithful"
            continue
        try:
            finding = function(*(Evidence(recordings[name]) for name in wanted))
        except NetlabError as error:
            why = str(error)
            continue
        except Exception as error:
            raise LabDefinitionError(
                f"what rules on {claim.id} in lab {lab.name} is broken: "
                f"{type(error).__name__}: {error}"
            ) from error
        used = recordings[wanted[0]]
        return Entry(claim, finding, used.manifest.kernel, str(path.resolve()), wanted)
    return Entry(claim, untested(why))


def counts(entries: Iterable[Entry]) -> Mapping[Ruling, int]:
    """Return how many claims have each ruling."""
    found = dict.fromkeys(Ruling, 0)
    for entry in entries:
        found[entry.finding.ruling] += 1
    return found


def as_json(entries: Iterable[Entry]) -> str:
    """Return the ledger as JSON: a list of objects."""
    rows = [
        {
            **asdict(e.claim),
            "ruling": e.finding.ruling.value,
            "measured": e.finding.measured,
            "reason": e.finding.reason,
            "kernel": e.kernel,
            "recording": e.recording,
            "variations": e.variations,
        }
        for e in entries
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def as_markdown(entries: Iterable[Entry]) -> str:
    """Return the ledger as a Markdown table."""
    columns = ("id", "sources", "claim", "lab", "ruling", "measured", "evidence")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for entry in entries:
        claim, finding = entry.claim, entry.finding
        told = "; ".join(text for text in (finding.measured, finding.reason) if text)
        sources = " ".join(claim.sources)
        row = (claim.id, sources, claim.claim, claim.lab, finding.ruling, told, entry.evidence)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def as_text(entries: Iterable[Entry]) -> str:
    """Return the ledger for a terminal."""
    lines: list[str] = []
    kept = tuple(entries)
    for entry in kept:
        claim, finding = entry.claim, entry.finding
        ruling = finding.ruling.upper() if finding.ruling is Ruling.FAILS else finding.ruling
        sources = " ".join(claim.sources)
        lines.append(f"{claim.id}  {ruling:<13}  {claim.claim} (documents {sources})")
        if finding.ruling is Ruling.UNTESTED:
            lines.append(f"     {finding.reason}")
            continue
        lines.append(f"     measured: {finding.measured}")
        if finding.reason:
            lines.append(f"     depends on: {finding.reason}")
        lines.append(f"     evidence: {entry.evidence}")
    totals = counts(kept)
    lines.append("")
    lines.append(", ".join(f"{totals[ruling]} {ruling}" for ruling in Ruling))
    return "\n".join(lines) + "\n"
