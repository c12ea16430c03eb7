"""What `ping` printed: round-trip times in seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median

_REPLY = re.compile(r"^\d+ bytes from .*?time=(\d+(?:\.\d+)?) ms", re.MULTILINE)
_TOTALS = re.compile(r"^(\d+) packets transmitted, (\d+) received", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pings:
    """Round-trip times in the order of the replies, and how many requests went out."""

    sent: int
    rtts: tuple[float, ...]

    @property
    def rtt(self) -> float | None:
        """The median; None when nothing came back."""
        return median(self.rtts) if self.rtts else None


def parse(text: str) -> Pings:
    """Return what a run of ping(8) measured; duplicates count as replies."""
    rtts = tuple(float(number) * 1e-3 for number in _REPLY.findall(text))
    totals = _TOTALS.search(text)
    return Pings(int(totals[1]) if totals else len(rtts), rtts)
