"""Captures of several points on a command line: files, each perhaps with the name of its point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netlab.errors import UsageError


def named(files: Sequence[Path]) -> dict[str, Path]:
    """Return files by the name of their point: POINT=FILE, or the file's name without its ending.

    A file whose own name has `=` in it is taken as it is. A name given twice is a UsageError.
    """
    found: dict[str, Path] = {}
    for file in files:
        point, equals, rest = str(file).partition("=")
        if not equals or file.exists():
            point, rest = file.name.partition(".pcap")[0].replace(".", ":", 1), str(file)
        if point in found:
            raise UsageError(f"two captures are called '{point}'", hint="name them: POINT=FILE")
        found[point] = Path(rest)
    return found
