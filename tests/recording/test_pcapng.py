"""What the writer of live captures writes, our own reader and tshark's read the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from netlab import _core
from netlab.recording import pcapng

START = 1_700_000_000_000_000_001
FRAMES = [bytes([number]) * (60 + number) for number in range(9)]


def stream() -> bytes:
    blocks = [pcapng.section(program="netlab test", system="Linux")]
    blocks.append(pcapng.interface("h1:eth0", link_type=1, snaplen=65535, expression="tcp or udp"))
    blocks.append(pcapng.interface("röuter:eth12", link_type=1, snaplen=96, description="lab x"))
    for number, frame in enumerate(FRAMES):
        blocks.append(pcapng.packet(number % 2, START + number, len(frame) + number, frame))
    for number in range(2):
        counts = {"received": 50 + number, "dropped_by_interface": 3, "dropped_by_system": 2**33}
        blocks.append(pcapng.statistics(number, START, **counts))
    return b"".join(blocks)


def test_our_reader_reads_packets_interfaces_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(stream())
    read = [(at, length, kind, data) for _, at, length, kind, data in _core.frames(path)]
    assert read == [
        (START + number, len(frame) + number, 1, frame) for number, frame in enumerate(FRAMES)
    ]
    totals = _core.summarize(path).totals
    assert totals["warnings"] == []
    told = [(i["name"], i["snaplen"], i["filter"], i["description"]) for i in totals["interfaces"]]
    assert told == [
        ("h1:eth0", 65535, "tcp or udp", ""),
        ("röuter:eth12", 96, "", "lab x"),
    ]
    counts = [(i["packets"], i["received"], i["dropped"]) for i in totals["interfaces"]]
    assert counts == [(5, 50, 3), (4, 51, 3)]
    assert totals["interfaces"][1]["os_dropped"] == 2**33


@pytest.mark.needs("tshark")
def test_tshark_reads_the_same() -> None:
    fields = ("frame.interface_name", "frame.time_epoch", "frame.cap_len", "frame.len")
    argv = ["tshark", "-n", "-r", "-", "-T", "fields", *(w for f in fields for w in ("-e", f))]
    done = subprocess.run(argv, input=stream(), capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().splitlines() == [
        "\t".join(
            (
                ("h1:eth0", "röuter:eth12")[number % 2],
                f"1700000000.{1 + number:09d}",
                str(len(frame)),
                str(len(frame) + number),
            )
        )
        for number, frame in enumerate(FRAMES)
    ]
