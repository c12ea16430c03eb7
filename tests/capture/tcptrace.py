"""Ask tcptrace for its statistics of each connection."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


def path() -> str | None:
    """Return where tcptrace is, or None."""
    return shutil.which("tcptrace")


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection: both ends and the numbers of each direction, ``_a2b`` and ``_b2a``."""

    a: tuple[str, int]
    b: tuple[str, int]
    numbers: dict[str, float]

    def of(self, name: str, end: tuple[str, int]) -> float:
        """Return a number of the direction that `end` sends."""
        return self.numbers[f"{name}_{'a2b' if end == self.a else 'b2a'}"]


def connections(file: Path) -> list[Connection]:
    """Run ``tcptrace -n -l -r --csv`` and return its connections."""
    done = subprocess.run(
        ["tcptrace", "-n", "-l", "-r", "--csv", file],
        capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    start = next((n for n, line in enumerate(lines) if line.startswith("conn_")), None)
    if start is None:
        return []
    found: list[Connection] = []
    for row in csv.DictReader(lines[start:]):
        cells = {name: (value or "").strip() for name, value in row.items() if name}
        numbers = {
            name: float(value)
            for name, value in cells.items()
            if re.fullmatch(r"-?\d+(\.\d+)?", value)
        }
        found.append(
            Connection(
                (cells["host_a"], int(cells["port_a"])), (cells["host_b"], int(cells["port_b"])),
                numbers,
            )
        )  # fmt: skip
    return found
