"""The result of a lab: verdicts per check, skips and failures per variation, the exit code.

`checks.json` is `LabResult.json_text`; `junit` the same for machines that read JUnit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast
from xml.sax.saxutils import escape, quoteattr

from netlab.analysis.verdict import Outcome, Verdict

SCHEMA = 1

Status = Literal["ran", "skipped", "error", "interrupted", "not run"]

PRECEDENCE = (130, 5, 1, 6, 3, 4, 0)
"""When several exit codes apply, the first of these is used (docs/exit-codes.md)."""


@dataclass(frozen=True, slots=True)
class VariationResult:
    """How one variation went; `recording` is relative to the run's folder."""

    name: str
    status: Status
    summary: str = ""
    reason: str = ""
    recording: str = ""
    seconds: float = 0.0
    fidelity: str = "ok"
    fidelity_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The verdict of one check on the variations it looked at."""

    check: str
    sentence: str
    claim: str
    variations: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class FaultResult:
    """Whether a planted fault broke the check it names, and which others it broke."""

    name: str
    on: str
    breaks: str
    outcome: Outcome
    broke: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LabResult:
    """Everything one run of a lab found."""

    lab: str
    title: str
    run: str
    variations: tuple[VariationResult, ...]
    checks: tuple[CheckResult, ...]
    faults: tuple[FaultResult, ...] = ()
    provenance: Mapping[str, Any] | None = None

    def count(self, outcome: Outcome) -> int:
        """Return how many checks ended so."""
        return sum(result.verdict.outcome is outcome for result in self.checks)

    def exit_code(self, *, require: bool = False) -> int:
        """Return the exit code of docs/exit-codes.md; `require`: any skip counts as 4."""
        outcomes = {result.verdict.outcome for result in self.checks}
        outcomes |= {fault.outcome for fault in self.faults}
        statuses = {variation.status for variation in self.variations}
        ran = [v for v in self.variations if v.status == "ran"]
        codes: set[int] = set()
        if "interrupted" in statuses:
            codes.add(130)
        if "error" in statuses:
            codes.add(5)
        if Outcome.FAIL in outcomes:
            codes.add(1)
        if Outcome.INCONCLUSIVE in outcomes or any(v.fidelity == "invalid" for v in ran):
            codes.add(6)
        if any(v.fidelity == "suspect" for v in ran):
            codes.add(3)
        nothing = Outcome.PASS not in outcomes
        if nothing or (require and ("skipped" in statuses or Outcome.SKIP in outcomes)):
            codes.add(4)
        return first_code(codes)

    @property
    def json_text(self) -> str:
        """The result as JSON text, which `parse` reads back."""
        record = {"schema": SCHEMA, **asdict(self)}
        return json.dumps(record, indent=1, ensure_ascii=False, default=_json) + "\n"


def _json(value: object) -> object:
    """Write what JSON lacks: a set as a sorted list, anything else as its text."""
    if isinstance(value, (set, frozenset)):
        return sorted(cast("frozenset[Any]", value), key=str)
    return str(value)


def first_code(codes: Iterable[int]) -> int:
    """Return the exit code that goes before the others; 0 for none."""
    present = set(codes)
    return next((code for code in PRECEDENCE if code in present), 0)


def skip_reasons(text: str) -> dict[str, VariationResult]:
    """Return the variations of a `checks.json` by name; ValueError if it is none."""
    raw = json.loads(text)
    if not isinstance(raw, dict) or "variations" not in raw:
        raise ValueError("no variations")
    found: dict[str, VariationResult] = {}
    for item in cast("list[dict[str, Any]]", raw["variations"]):
        item["fidelity_reasons"] = tuple(item.get("fidelity_reasons", ()))
        variation = VariationResult(**item)
        found[variation.name] = variation
    return found


def junit(results: Iterable[LabResult]) -> str:
    """Return results as JUnit XML: a suite per lab, a case per check and planted fault."""
    suites = [_suite(result) for result in results]
    body = "".join(text for text, _ in suites)
    totals = [sum(counts[i] for _, counts in suites) for i in range(4)]
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f"{head}<testsuites {_counts(totals)}>\n{body}</testsuites>\n"


def _suite(result: LabResult) -> tuple[str, list[int]]:
    cases: list[str] = []
    counts = [0, 0, 0, 0]
    for check in result.checks:
        where = "+".join(check.variations)
        cases.append(_case(result.lab, f"{check.check}[{where}]", check.verdict, counts))
    for fault in result.faults:
        text = f"{fault.breaks} broken by: {fault.name} [{fault.on}]"
        verdict = Verdict(fault.outcome, reason=fault.reason, observed=", ".join(fault.broke))
        cases.append(_case(result.lab, text, verdict, counts))
    for variation in result.variations:
        if variation.status in ("error", "interrupted"):
            counts[0] += 1
            counts[2] += 1
            message = quoteattr(_clean(variation.reason))
            cases.append(
                f"  <testcase classname={quoteattr(_clean(result.lab))} "
                f"name={quoteattr(variation.name)}><error message={message}/></testcase>\n"
            )
    head = f" <testsuite name={quoteattr(_clean(result.lab))} {_counts(counts)}>\n"
    return f"{head}{_properties(result)}{''.join(cases)} </testsuite>\n", counts


def _properties(result: LabResult) -> str:
    """Return how true each recording is, as properties of the suite."""
    lines: list[str] = []
    for variation in result.variations:
        if variation.status in ("ran", "error"):
            text = "; ".join((variation.fidelity, *variation.fidelity_reasons))
            name = quoteattr(_clean(f"fidelity.{variation.name}"))
            lines.append(f"   <property name={name} value={quoteattr(_clean(text))}/>\n")
    return f"  <properties>\n{''.join(lines)}  </properties>\n" if lines else ""


def _case(lab: str, name: str, verdict: Verdict, counts: list[int]) -> str:
    counts[0] += 1
    message = f"observed {verdict.observed}, expected {verdict.bound}"
    if verdict.reason:
        message = verdict.reason
    places = escape(_clean("\n".join(verdict.evidence)))
    element = {
        Outcome.PASS: "",
        Outcome.FAIL: f"<failure message={quoteattr(_clean(message))}>{places}</failure>",
        Outcome.INCONCLUSIVE: f"<error message={quoteattr(_clean('inconclusive: ' + message))}/>",
        Outcome.SKIP: f"<skipped message={quoteattr(_clean(message))}/>",
    }[verdict.outcome]
    position = {Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 2, Outcome.SKIP: 3}.get(verdict.outcome)
    if position is not None:
        counts[position] += 1
    head = f"  <testcase classname={quoteattr(_clean(lab))} name={quoteattr(_clean(name))}"
    return f"{head}>{element}</testcase>\n" if element else f"{head}/>\n"


def _counts(counts: list[int]) -> str:
    names = ("tests", "failures", "errors", "skipped")
    return " ".join(f'{name}="{count}"' for name, count in zip(names, counts, strict=True))


def _clean(text: str) -> str:
    """Leave out what XML 1.0 cannot hold."""
    return "".join(c for c in text if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "�")
