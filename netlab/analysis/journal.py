"""The journal of a userspace wire: what became of every packet of a link.

A header of 128 octets and records of 64, little-endian, as told in
crates/netlab-wire/src/journal.rs. The file may end anywhere, because a wire may be killed: whole
records before the end are good. Times are CLOCK_REALTIME nanoseconds here, as in captures.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

from netlab.errors import RecordingError

MAGIC = b"NLWIREJ\0"
_HEADER = struct.Struct("<8s4HQ2Q2Q64s")
_RECORD = struct.Struct("<3Q5I2H2IH6B")
HEADER_SIZE, RECORD_SIZE = 128, 64
NO_BIT = 0xFFFFFFFF
TCP = 6


class Verdict(IntEnum):
    """What became of a packet."""

    DELIVERED = 0
    LOSS = 1
    EXACT = 2
    QUEUE = 3
    CODEL = 4
    OVERFLOW = 5
    DOWN = 6
    UNFINISHED = 7


class Flag(IntFlag):
    """What else was done to it."""

    COPY = 1
    SENT_TWICE = 2
    CORRUPTED = 4
    REORDERED = 8
    MARKED = 16
    CHATTER = 32
    LATE = 64


Key = tuple[int, int, int, int, int]
"""Source and destination port, TCP sequence and acknowledgement number, octets of payload."""


@dataclass(frozen=True, slots=True)
class Record:
    """One packet's fate. `index` counts the packets of a direction from 0, chatter apart."""

    index: int
    arrival_ns: int
    departure_ns: int
    length: int
    late_ns: int
    corrupt_bit: int | None
    source_port: int
    destination_port: int
    seq: int
    ack: int
    payload: int
    tcp_flags: int
    protocol: int
    ip_version: int
    forward: bool
    verdict: Verdict
    flags: Flag

    @property
    def dropped(self) -> bool:
        """Whether it never left."""
        return self.verdict is not Verdict.DELIVERED

    @property
    def key(self) -> Key:
        """What finds a TCP segment in a capture: ports and raw numbers, not time."""
        return (self.source_port, self.destination_port, self.seq, self.ack, self.payload)


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as it lies on the disk; `missed` packets were not recorded for want of room."""

    path: Path
    link: str
    seed: int
    closed: bool
    missed: int
    to_realtime_ns: int

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read the header of a journal; RecordingError if it is none."""
        try:
            with path.open("rb") as file:
                raw = file.read(HEADER_SIZE)
        except OSError as error:
            raise RecordingError(f"cannot read {path}: {error.strerror}") from error
        if len(raw) < HEADER_SIZE or not raw.startswith(MAGIC):
            raise RecordingError(f"{path} is not a journal of a wire")
        _, version, header, record, closed, seed, monotonic, realtime, _, missed, name = (
            _HEADER.unpack_from(raw)
        )
        if (version, header, record) != (1, HEADER_SIZE, RECORD_SIZE):
            raise RecordingError(f"{path} is a journal of version {version}, this netlab reads 1")
        link = name.rstrip(b"\0").decode(errors="replace")
        return cls(path, link, seed, bool(closed), missed, realtime - monotonic)

    def __iter__(self) -> Iterator[Record]:
        """Yield every whole record, in the order in which packets left or were dropped."""
        shift = self.to_realtime_ns
        with self.path.open("rb") as file:
            file.seek(HEADER_SIZE)
            while chunk := file.read(RECORD_SIZE * 1024):
                whole = len(chunk) - len(chunk) % RECORD_SIZE
                for raw in _RECORD.iter_unpack(chunk[:whole]):
                    yield _record(raw, shift)

    def count(self, *, forward: bool) -> Mapping[Verdict, int]:
        """Return how many packets of a direction met which fate, copies and chatter left out."""
        aside = Flag.COPY | Flag.CHATTER
        return Counter(
            record.verdict
            for record in self
            if record.forward == forward and not record.flags & aside
        )

    def drops(self, *, forward: bool) -> tuple[tuple[int, Verdict], ...]:
        """Return which packets of a direction were dropped and why, chatter left out."""
        return tuple(
            sorted(
                (record.index, record.verdict)
                for record in self
                if record.dropped and record.forward == forward
                and not record.flags & Flag.CHATTER
            )
        )  # fmt: skip


def _record(raw: tuple[int, ...], shift: int) -> Record:
    (
        index, arrival, departure, length, late, bit, _, _, source_port, destination_port,
        seq, ack, payload, tcp_flags, protocol, ip_version, direction, verdict, flags,
    ) = raw  # fmt: skip
    return Record(
        index, arrival + shift, departure + shift, length, late,
        None if bit == NO_BIT else bit,
        source_port, destination_port, seq, ack, payload, tcp_flags, protocol, ip_version,
        direction == 0, Verdict(verdict), Flag(flags),
    )  # fmt: skip
