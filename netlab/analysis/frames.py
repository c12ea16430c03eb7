"""The frames of a small capture, octet by octet, for those who want to see the headers.

Reads what tcpdump writes (classic pcap, both byte orders, micro- and nanoseconds). Sums over large
captures are the business of `netlab.capture`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netlab.analysis.headers import Packet, decode
from netlab.errors import CaptureError

_MAGIC = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
_LINKS = {1: "ethernet", 101: "ip", 228: "ip", 229: "ip", 12: "ip"}
_LARGEST = 1 << 18


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


def read(path: Path) -> Iterator[Frame]:
    """Return the frames of a capture in their order; a torn last one is left out.

    CaptureError when the file is no capture, or of a link type that has no IP in it.
    """
    data = path.read_bytes()
    if len(data) < 24:
        raise CaptureError(f"{path} is no capture: it has {len(data)} octets")
    order = "<" if struct.unpack_from("<I", data)[0] in _MAGIC else ">"
    magic, *_, link = struct.unpack_from(f"{order}IHHiIII", data)
    if magic not in _MAGIC:
        raise CaptureError(f"{path} is no capture in the format of tcpdump")
    if link & 0xFFFF not in _LINKS:
        raise CaptureError(f"{path} holds frames of link type {link & 0xFFFF}")
    at, number = 24, 0
    while at + 16 <= len(data):
        seconds, fraction, kept, length = struct.unpack_from(f"{order}IIII", data, at)
        at += 16
        if kept > _LARGEST or at + kept > len(data):
            return
        number += 1
        time_ns = seconds * 1_000_000_000 + fraction * _MAGIC[magic]
        yield Frame(number, time_ns, length, data[at : at + kept], _LINKS[link & 0xFFFF])
        at += kept
