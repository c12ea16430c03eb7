"""Captures: what tcpdump says is read, and the tail of a capture is not lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from netlab.analysis import segments
from netlab.engine import captures
from netlab.engine.stage import open_stage
from netlab.errors import CommandError, UsageError
from netlab.model.yaml import loads
from netlab.recording import Recording

TOPOLOGY = loads("name: c\nnodes: [a, b]\nlinks: [a-b]\n")

LIVE = (
    "tcpdump: listening on eth0, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n"
    "tcpdump: 1 packet captured, 3 packets received by filter, 0 packets dropped by kernel\n"
    "tcpdump: 3 packets captured, 5 packets received by filter, 2 packets dropped by kernel\n"
)
FINAL = "7 packets captured\n9 packets received by filter\n2 packets dropped by kernel\n"


def test_the_counters_of_tcpdump_are_read() -> None:
    first, second = captures.live_counters(LIVE)
    assert first == captures.Counters(1, 3, 0)
    assert not first.settled
    assert second == captures.Counters(3, 5, 2)
    assert second.settled
    assert captures.final_counters(LIVE) is None
    assert captures.final_counters(LIVE + FINAL) == captures.Counters(7, 9, 2)
    more = FINAL + "1 packet dropped by interface\n"
    assert captures.final_counters(more) == captures.Counters(7, 9, 2, 1)


@pytest.mark.parametrize("dropped", ["", ", 1 packet dropped by interface"])
@pytest.mark.parametrize("at", [m.start() for m in re.finditer("$|\\b7|\\b9", FINAL, re.MULTILINE)])
def test_an_answer_in_the_midst_of_the_last_counters_is_no_part_of_them(
    at: int, dropped: str
) -> None:
    counted = "7 packets captured, 9 packets received by filter, 2 packets dropped by kernel"
    said = f"{LIVE}{FINAL[:at]}tcpdump: {counted}{dropped}\n{FINAL[at:]}"
    assert captures.final_counters(said) == captures.Counters(7, 9, 2)
    assert captures.live_counters(said)[-1].captured == 7


def test_root_stays_root_and_others_do_not_ask_for_it() -> None:
    plain = captures.command("eth0", "f", expression="", count=None, snaplen=96, root=False)
    assert "-Z" not in plain
    argv = captures.command("eth0", "f", expression="tcp", count=6, snaplen=96, root=True)
    assert argv[-5:] == ("-Z", "root", "-c", "6", "tcp")


@pytest.mark.needs("netns", "userns", "tcpdump")
def test_a_burst_right_before_the_end_is_in_the_file(tmp_path: Path) -> None:
    writer = Recording.create_at(tmp_path / "r", "c")
    program = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for n in range(2000): s.sendto(b'x' * 100, ('ADDRESS', 9))\n"
    )
    address = str(TOPOLOGY.interfaces("b")[0].addresses[0].ip)
    with writer, open_stage(TOPOLOGY, writer) as stage:
        capture = stage.capture("a:eth0", filter="udp dst port 9")
        stage.node("a").run(["python3", "-c", program.replace("ADDRESS", address)])
        counters = capture.stop()
    assert counters.captured + counters.dropped_by_kernel == counters.received
    assert counters.received == 2000
    kept = json.loads((tmp_path / "r/captures/a.eth0.json").read_text())
    assert kept["captured"] == counters.captured
    assert kept["filter"] == "udp dst port 9"
    assert kept["link_type"] == "EN10MB"
    assert segments.load(tmp_path / "r/captures/a.eth0.pcap") == ()


@pytest.mark.needs("netns", "userns", "tcpdump")
def test_bad_places_and_bad_filters_are_refused(tmp_path: Path) -> None:
    writer = Recording.create_at(tmp_path / "r", "c")
    with writer, open_stage(TOPOLOGY, writer) as stage:
        for where in ("a", "a:eth7", "c:eth0"):
            with pytest.raises(UsageError, match="write node:interface"):
                stage.capture(where)
        with pytest.raises(CommandError, match="syntax error"):
            stage.capture("a:eth0", filter="tcp port port")
    assert Recording.open(tmp_path / "r").complete
