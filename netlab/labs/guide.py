"""The guide of a lab: prose with figures filled in from a recording.

`{{ name }}` stands for a figure that the lab's `@lab.figure` function measures. Where there is
no recording, or it does not hold the figure, "not measured" stands there instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from netlab.analysis.evidence import Evidence, NoEvidenceError
from netlab.errors import LabDefinitionError, NetlabError
from netlab.labs import judge
from netlab.labs.lab import Lab
from netlab.recording import Recording

GUIDE = "guide.md"
PLACE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
MISSING = "not measured"


def read(lab: Lab) -> str:
    """Return the guide as it was written; LabDefinitionError if there is none."""
    path = lab.folder / GUIDE
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise LabDefinitionError(f"lab {lab.name} has no {GUIDE}") from None


def places(text: str) -> tuple[str, ...]:
    """Return the names of the figures in a guide, each once."""
    return tuple(dict.fromkeys(PLACE.findall(text)))


def fill(text: str, figures: Mapping[str, str]) -> str:
    """Return the guide with its figures filled in."""
    return PLACE.sub(lambda match: figures.get(match[1], MISSING), text)


def measure(lab: Lab, recordings: Mapping[str, Recording]) -> dict[str, str]:
    """Return the figures that these recordings hold; none where one of them is missing."""
    function = lab.figures
    if function is None:
        return {}
    wanted = lab.parameters(function, "figures")
    if any(name not in recordings for name in wanted):
        return {}
    try:
        return dict(function(*(Evidence(recordings[name]) for name in wanted)))
    except NoEvidenceError:
        return {}


def filled(lab: Lab, results: Path) -> str:
    """Return the guide with figures of the latest run in `results`, else of the committed one."""
    text = read(lab)
    for path in (results / lab.name / "latest", lab.folder / "recording"):
        try:
            _, recordings, _ = judge.open_run(path)
        except NetlabError:
            continue
        figures = measure(lab, recordings)
        if figures:
            return fill(text, figures)
    return fill(text, {})
