"""Journals of wires, written as crates/netlab-wire/src/journal.rs tells."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from netlab.analysis.journal import HEADER_SIZE, MAGIC, NO_BIT, RECORD_SIZE, Verdict
from netlab.analysis.segments import Segment


def write(path: Path, link: str, fates: Iterable[tuple[Segment, int, Verdict]]) -> None:
    """Write what became of segments, each with when it came to the wire; 1 ms later it left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(
        "<8s4HQ2Q2Q64s", MAGIC, 1, HEADER_SIZE, RECORD_SIZE, 1, 7, 0, 0, 0, 0, link.encode()
    )
    rows = [
        struct.pack(
            "<3Q5I2H2IH6B", index, at_ns, at_ns + 1_000_000, 54 + one.length, 0, NO_BIT, 0, 0,
            one.sport, one.dport, one.seq_raw, one.ack_raw, one.length, one.flags & 0xFF, 6, 4, 0,
            verdict, 0,
        )
        for index, (one, at_ns, verdict) in enumerate(fates)
    ]  # fmt: skip
    path.write_bytes(head.ljust(HEADER_SIZE, b"\0") + b"".join(rows))
