"""How a program in a node ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended; `status` is its exit status, or minus the signal that killed it."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    started_ns: int
    ended_ns: int
