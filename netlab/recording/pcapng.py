"""Blocks of a pcapng stream: a section, its interfaces, packets, what was lost.

Only what a live capture writes, as bytes that may go anywhere, also into a pipe. Stamps are
nanoseconds since 1970. Source: draft-ietf-opsawg-pcapng, sections 3.1 and 4.1-4.6; numbers are in
this machine's byte order, which the section header tells.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

SECTION, INTERFACE, PACKET, STATISTICS = 0x0A0D0D0A, 1, 6, 5
BYTE_ORDER = 0x1A2B3C4D
END_OF_OPTIONS = bytes(4)
NANOSECONDS = b"\x09"  # if_tsresol: 10^-9 s

_PACKET = struct.Struct("=IIIIIII")
_LENGTH = struct.Struct("=I")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


def section(*, program: str, system: str) -> bytes:
    """Begin a section of unknown length, written by a program on a system."""
    # shb_os, shb_userappl
    options = _options([(3, system.encode()), (4, program.encode())])
    return _block(SECTION, struct.pack("=IHHq", BYTE_ORDER, 1, 0, -1) + options)


def interface(
    name: str, *, link_type: int, snaplen: int, expression: str = "", description: str = ""
) -> bytes:
    """Describe the next interface; `link_type` is a LINKTYPE_ number, `expression` the filter."""
    options = [(2, name.encode())]  # if_name
    if description:
        options.append((3, description.encode()))  # if_description
    options.append((9, NANOSECONDS))  # if_tsresol
    if expression:
        options.append((11, b"\0" + expression.encode()))  # if_filter: the words libpcap takes
    return _block(INTERFACE, struct.pack("=HxxI", link_type, snaplen) + _options(options))


def packet(number: int, at_ns: int, length: int, data: bytes) -> bytes:
    """Hold one packet, seen at an interface (from 0); `length` is what it had on the wire."""
    pad = _PAD[len(data) & 3]
    size = 32 + len(data) + len(pad)
    head = _PACKET.pack(PACKET, size, number, at_ns >> 32, at_ns & 0xFFFFFFFF, len(data), length)
    return head + data + pad + _LENGTH.pack(size)


def statistics(
    number: int, at_ns: int, *, received: int, dropped_by_interface: int, dropped_by_system: int
) -> bytes:
    """Tell how an interface fared until now: packets that came, and those lost on the way here."""
    # isb_ifrecv, isb_ifdrop, isb_osdrop
    counts = ((4, received), (5, dropped_by_interface), (7, dropped_by_system))
    options = _options([(kind, struct.pack("=Q", count)) for kind, count in counts])
    head = struct.pack("=III", number, at_ns >> 32, at_ns & 0xFFFFFFFF)
    return _block(STATISTICS, head + options)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    found = b"".join(
        struct.pack("=HH", kind, len(value)) + value + _PAD[len(value) & 3]
        for kind, value in options
    )
    return found + END_OF_OPTIONS


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("=II", kind, size) + body + _LENGTH.pack(size)
