"""How far a learner has come in each lab, kept in the user's state directory.

One small JSON file per lab below $XDG_STATE_HOME/netlab/learn (by default ~/.local/state), written
by rename. Answers are kept under the question's own words, so a guide may gain or lose questions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from netlab.recording.directory import write_file
from netlab.recording.ownership import calling_user, make_folders

SCHEMA = 1


@dataclass(slots=True)
class Progress:
    """The step a learner is at (from 0), the answers given, and the run to compare them with."""

    step: int = 0
    answers: dict[str, str] = field(default_factory=dict[str, str])
    run: str = ""


def folder(environment: Mapping[str, str]) -> Path:
    """Return where progress is kept."""
    chosen = environment.get("XDG_STATE_HOME", "")
    base = Path(chosen) if chosen.startswith("/") else Path.home() / ".local" / "state"
    return base / "netlab" / "learn"


def load(lab: str, environment: Mapping[str, str]) -> Progress:
    """Return the progress in a lab; a new one where there is none that can be read."""
    try:
        text = (folder(environment) / f"{lab}.json").read_text(encoding="utf-8")
        raw = cast("dict[str, Any]", json.loads(text))
        if raw["schema"] != SCHEMA:
            return Progress()
        answers = cast("dict[str, Any]", raw["answers"])
        told = {str(question): str(answer) for question, answer in answers.items()}
        return Progress(int(raw["step"]), told, str(raw["run"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Progress()


def save(lab: str, progress: Progress, environment: Mapping[str, str]) -> None:
    """Keep the progress in a lab."""
    path = folder(environment)
    make_folders(path, calling_user(environment, os.geteuid()))
    text = json.dumps({"schema": SCHEMA, **asdict(progress)}, indent=1, ensure_ascii=False)
    write_file(path / f"{lab}.json", text + "\n")


def forget(lab: str, environment: Mapping[str, str]) -> None:
    """Forget the progress in a lab."""
    (folder(environment) / f"{lab}.json").unlink(missing_ok=True)
