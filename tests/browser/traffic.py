"""A capture of one long transfer, made without a network."""

from __future__ import annotations

import struct
from pathlib import Path


def bulk(path: Path, packets: int) -> Path:
    """Write a transfer of about so many packets, two data segments to an ACK, 1 in 50 repeated."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 96, 101))
        at = 10**18
        for number in range(packets):
            at += 100_000
            back = number % 3 == 2
            place = number - number // 3
            if not back and number % 50 == 0 and number:
                place -= 2
            seq, ack = (1, 1 + 1000 * place) if back else (1 + 1000 * place, 1)
            length = 0 if back else 1000
            ends = (2, 1) if back else (1, 2)
            ip = struct.pack(
                ">BBHHHBBHII", 0x45, 0, 52 + length, number & 0xFFFF, 0x4000, 64, 6, 0,
                0x0A000000 + ends[0], 0x0A000000 + ends[1],
            )  # fmt: skip
            ports = (5000, 40000) if back else (40000, 5000)
            tcp = struct.pack(">HHIIBBHHH", *ports, seq, ack, 0x80, 0x10, 500, 0, 0)
            stamps = struct.pack(">BBBBII", 1, 1, 8, 10, number // 10, number // 10)
            kept = ip + tcp + stamps
            head = struct.pack("<IIII", at // 10**9, at % 10**9, len(kept), 52 + length)
            file.write(head + kept)
    return path
