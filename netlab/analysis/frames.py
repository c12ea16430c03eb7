"""The frames of a capture, octet by octet, for those who want to see the headers.

Reads whatever `netlab.capture` reads. Sums over large captures are the business of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netlab import _core
from netlab.analysis.headers import Packet, decode
from netlab.analysis.layers import LINK_TYPES
from netlab.errors import CaptureError


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: `number` counts from 1, `length` is that on the wire, `data` what was kept.

    `link` is the layer it begins with (`netlab.analysis.layers`), empty if nobody here knows it.
    """

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
    file is no capture.
    """
    try:
        rows = _core.frames(path, first=first, count=count, snap=snap)
    except OSError as error:
        raise CaptureError(f"cannot read {path}: {error.strerror or error}") from None
    for number, time_ns, length, link, data in rows:
        yield Frame(number, time_ns, length, data, LINK_TYPES.get(link, ""))
