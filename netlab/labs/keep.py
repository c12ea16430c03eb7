"""Keep a run as the recording that comes with a lab: small, and free of one machine's paths.

What is kept are the variations and `checks.json`, not the planted faults. Paths of this machine
(Python, netlab, the run's own folder) are replaced in text files and the digests made anew, so a
kept recording is as whole as a fresh one.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from netlab import resources
from netlab.errors import UsageError
from netlab.labs import judge
from netlab.recording import Recording
from netlab.recording.directory import MANIFEST, digests, write_file

TEXT = {".json", ".jsonl", ".log", ".txt", ".xml"}
LARGEST = 2_000_000


def keep(run: Path, target: Path, *, replace_existing: bool = False) -> int:
    """Copy a run to `target` and return its size in bytes; UsageError if it is too large."""
    judge.open_run(run)
    if not (run / judge.CHECKS).is_file():
        raise UsageError(f"{run} is one recording; name the folder of the whole run")
    if target.exists():
        if not replace_existing:
            raise UsageError(f"{target} exists", hint="say --replace")
        shutil.rmtree(target)
    shutil.copytree(run.resolve(), target, ignore=shutil.ignore_patterns("faults", "latest"))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if size > LARGEST:
        shutil.rmtree(target)
        raise UsageError(
            f"{run} has {size:,} bytes; a recording that is kept has {LARGEST:,} at most"
        )
    places = _places(run)
    for path in sorted(target.rglob("*")):
        if path.is_file() and path.suffix in TEXT and path.name != MANIFEST:
            text = path.read_text(encoding="utf-8")
            for old, new in places:
                text = text.replace(old, new)
            write_file(path, text)
    for manifest in sorted(target.glob(f"*/{MANIFEST}")):
        recording = Recording.open(manifest.parent)
        text = replace(recording.manifest, files=digests(recording.path)).text()
        write_file(manifest, text)
    return size


def _places(run: Path) -> tuple[tuple[str, str], ...]:
    """Return what to replace, the longest first."""
    package = resources.DATA.parent
    found = {
        str(run.resolve()): "RUN",
        str(run.absolute()): "RUN",
        str(package): "netlab",
        sys.executable: "python3",
        str(Path(sys.executable).resolve()): "python3",
        str(Path.home()): "HOME",
    }
    return tuple(sorted(found.items(), key=lambda pair: -len(pair[0])))
