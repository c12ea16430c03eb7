"""The frames of a capture, octet by octet, for those who want to see the headers.

Reads whatever `netlab.capture` reads. Sums over large captures are the business of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netlab import _core
from netlab.analysis.headers import Packet, decode
from netlab.errors import CaptureError

_LINKS = {
    1: "ethernet", 0: "loop", 108: "loop", 12: "ip", 14: "ip", 101: "ip", 228: "ip", 229: "ip",
    113: "cooked", 276: "cooked2",
}  # fmt: skip
"""Link types by their LINKTYPE_ number."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: `number` counts from 1, `length` is that on the wire, `data` what was kept."""

    number: int
    time_ns: int
    length: int
    data: bytes
    link: str

    @property
    def packet(self) -> Packet:
        """The frame decoded."""
        return decode(self.data, link=self.link)


def read(
    path: Path, *, first: int = 1, count: int | None = None, snap: int | None = None
) -> Iterator[Frame]:
    """Return the frames of a capture in their order; what is torn off its end is left out.

    At most `count` of them from frame `first` on, `snap` octets of each. CaptureError when the
    file is no capture, or of a link type whose headers are not known here.
    """
    try:
        rows = _core.frames(path, first=first, count=count, snap=snap)
    except OSError as error:
        raise CaptureError(f"cannot read {path}: {error.strerror or error}") from None
    for number, time_ns, length, link, data in rows:
        if link not in _LINKS:
            raise CaptureError(f"{path} holds frames of link type {link}")
        yield Frame(number, time_ns, length, data, _LINKS[link])
