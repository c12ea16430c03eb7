"""What several tcpdumps print at the same time, cut into packets and put in order of time.

A tcpdump's packets come in order, but one tcpdump may be scheduled later than another. A packet is
passed on as soon as every other stream has shown a later one, or when it is so old (`HELD`) that
nothing older can be on its way any more. A machine too busy to keep to that gives packets a little
out of order; none is ever kept back for longer, and none is lost here.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple, Protocol

from netlab.errors import EngineError

HELD = 0.1
"""Seconds for which a packet is kept back while another stream may still show an earlier one."""

NANOSECOND_PCAP = 0xA1B23C4D
_HEADER = struct.Struct("=IHHiIII")
_RECORD = struct.Struct("=IIII")


class Packet(NamedTuple):
    """A packet of a stream, or its line of text: when, where (a number), its length, its octets."""

    at_ns: int
    source: int
    length: int
    data: bytes


class Splitter(Protocol):
    """Cuts a stream of bytes into packets."""

    def feed(self, data: bytes) -> list[Packet]:
        """Take what came next and return the packets that are whole by now."""
        ...


class PcapSplitter:
    """A pcap stream with nanosecond stamps in this machine's byte order, as tcpdump writes it.

    Packets are cut to `snaplen` octets.
    """

    def __init__(self, source: int, snaplen: int = 1 << 31) -> None:
        self.link_type: int | None = None
        self._source = source
        self._snaplen = snaplen
        self._rest: bytes = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Take what came next; EngineError when it is no such stream."""
        data = self._rest + data
        at = 0
        if self.link_type is None:
            if len(data) < _HEADER.size:
                self._rest = data
                return []
            magic, *_, link_type = _HEADER.unpack_from(data)
            if magic != NANOSECOND_PCAP:
                raise EngineError(f"tcpdump wrote something else than a capture (0x{magic:08x})")
            self.link_type = link_type & 0xFFFF
            at = _HEADER.size
        found: list[Packet] = []
        end, unpack, size = len(data), _RECORD.unpack_from, _RECORD.size
        source, snaplen = self._source, self._snaplen
        while at + size <= end:
            seconds, nanoseconds, kept, length = unpack(data, at)
            start = at + size
            if start + kept > end:
                break
            at = start + kept
            stamp = seconds * 1_000_000_000 + nanoseconds
            found.append(Packet(stamp, source, length, data[start : min(at, start + snaplen)]))
        self._rest = data[at:]
        return found


class LineSplitter:
    """Lines of `tcpdump -tt`: a stamp and words; a line that begins with a blank goes on."""

    def __init__(self, source: int) -> None:
        self._source = source
        self._rest: bytes = b""
        self._last = 0

    def feed(self, data: bytes) -> list[Packet]:
        """Take what came next; the octets of a packet are its words."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._packet(line) for line in lines if line]  # it ends with an empty one

    def _packet(self, line: bytes) -> Packet:
        stamp, _, words = line.partition(b" ")
        seconds, dot, fraction = stamp.partition(b".")
        if dot and seconds.isdigit() and fraction.isdigit():
            self._last = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, b"0")[:9])
            return Packet(self._last, self._source, 0, words)
        return Packet(self._last, self._source, 0, line)


class Merger:
    """Puts the packets of several streams into one order."""

    def __init__(self, sources: Iterable[int]) -> None:
        self._newest: dict[int, float] = dict.fromkeys(sources, 0)
        self._waiting: list[Packet] = []

    @property
    def oldest_ns(self) -> int | None:
        """The stamp of the packet that waits first; None when none does."""
        return self._waiting[0].at_ns if self._waiting else None

    def add(self, packets: list[Packet]) -> None:
        """Take packets of one stream."""
        if packets:
            self._newest[packets[-1].source] = packets[-1].at_ns
            self._waiting += packets

    def ended(self, source: int) -> None:
        """Expect nothing more of a stream."""
        self._newest[source] = math.inf

    def take(self, now_ns: int, behind: Iterable[int] = ()) -> list[Packet]:
        """Return what may go on at a time, in order.

        `now_ns` was read before the streams were; those in `behind` hold more than has been read,
        so that only what they have shown counts.
        """
        self._waiting.sort(key=itemgetter(0))
        seen = min(self._newest.values(), default=math.inf)
        horizon = max(seen, now_ns - HELD * 1e9)
        horizon = min([horizon, *(self._newest[source] for source in behind)])
        cut = bisect_right(self._waiting, horizon, key=itemgetter(0))
        ready, self._waiting = self._waiting[:cut], self._waiting[cut:]
        return ready

    def rest(self) -> list[Packet]:
        """Return all that is left, in order."""
        for source in self._newest:
            self.ended(source)
        return self.take(0)
