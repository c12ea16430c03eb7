"""The verdicts of a lab as text: per variation a table, on a narrow terminal a list.

Pure: the width is given, and `paint` colours a piece of text by its outcome (the identity for no
colour). Text never depends on colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Paint = Callable[[str, str], str]

OUTCOME = 13  # columns of the longest outcome, and the gap
NARROW = 90


@dataclass(frozen=True, slots=True)
class Line:
    """One check as it is printed."""

    outcome: str
    claim: str
    observed: str
    expected: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The checks of one variation (or of several together), with a heading."""

    heading: str
    lines: Sequence[Line]
    note: str = ""


def plain(text: str, _: str) -> str:
    """Leave text as it is."""
    return text


def render(groups: Sequence[Group], *, width: int, paint: Paint = plain) -> str:
    """Return the groups as text of at most `width` columns."""
    out: list[str] = []
    for group in groups:
        out += [paint(line, "heading") for line in textwrap.wrap(group.heading, max(20, width))]
        if group.note:
            out += textwrap.wrap(group.note, width, initial_indent="  ", subsequent_indent="  ")
        same = {(line.outcome, line.reason) for line in group.lines}
        if len(group.lines) > 1 and len(same) == 1 and group.lines[0].reason:
            line = group.lines[0]
            out += _reasoned(f"all {len(group.lines)} checks", line, width, paint)
        elif width < NARROW:
            out += [text for line in group.lines for text in _listed(line, width, paint)]
        else:
            out += _table(group.lines, width, paint)
        out.append("")
    return "\n".join(out).rstrip("\n") + "\n"


def _table(lines: Sequence[Line], width: int, paint: Paint) -> list[str]:
    rest = width - OUTCOME - 4
    claim = min(max((len(line.claim) for line in lines), default=1) or 1, rest * 45 // 100)
    seen = (rest - claim) // 2
    bound = rest - claim - seen
    out = [f"  {'':{OUTCOME}}{'check':<{claim}}  {'observed':<{seen}}{'expected'}"]
    out[0] = paint(out[0].rstrip(), "dim")
    for line in lines:
        if line.reason:
            out += _reasoned(line.claim, line, width, paint)
            continue
        cells = [
            textwrap.wrap(line.claim, claim) or [""],
            textwrap.wrap(line.observed, max(8, seen - 2)) or [""],
            textwrap.wrap(line.expected, max(8, bound)) or [""],
        ]
        for number in range(max(len(cell) for cell in cells)):
            texts = [cell[number] if number < len(cell) else "" for cell in cells]
            head = f"{line.outcome:<{OUTCOME}}" if number == 0 else " " * OUTCOME
            row = f"{texts[0]:<{claim}}  {texts[1]:<{seen}}{texts[2]}"
            out.append(f"  {paint(head, line.outcome)}{row}".rstrip())
    return out


def _listed(line: Line, width: int, paint: Paint) -> list[str]:
    if line.reason:
        return _reasoned(line.claim, line, width, paint)
    out = _headed(line.claim, line.outcome, width, paint)
    for name, text in (("observed", line.observed), ("expected", line.expected)):
        out += textwrap.wrap(
            f"{name} {text}", max(20, width), initial_indent="    ", subsequent_indent="      "
        )
    return out


def _reasoned(claim: str, line: Line, width: int, paint: Paint) -> list[str]:
    return _headed(f"{claim}: {line.reason}", line.outcome, width, paint)


def _headed(text: str, outcome: str, width: int, paint: Paint) -> list[str]:
    wrapped = textwrap.wrap(text, max(20, width - OUTCOME - 2)) or [""]
    out = [f"  {paint(f'{outcome:<{OUTCOME}}', outcome)}{wrapped[0]}"]
    return out + [f"  {'':{OUTCOME}}{more}" for more in wrapped[1:]]


def totals(counts: Mapping[str, int]) -> str:
    """Return "10 checks: 8 passed, 2 skipped"."""
    words = {"pass": "passed", "fail": "failed", "skip": "skipped", "inconclusive": "inconclusive"}
    total = sum(counts.values())
    parts = [f"{count} {words[name]}" for name, count in counts.items() if count]
    checks = "check" if total == 1 else "checks"
    return f"{total} {checks}: {', '.join(parts)}" if parts else "no checks"
