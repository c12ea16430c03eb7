"""Retransmitted octets, holes filled and Karn's RTT samples, against tcptrace.

tcptrace knows IPv4 and IPv6 over Ethernet and little else, and decides by a heuristic when ports
are used again; flows whose ports are reused, and captures under other layers, are left out.
Data sent into a closed window is a probe for tcptrace and counts for nothing; such flows are left
out of the comparison of octets. It does not look into a RST: blocks and samples of a RST are ours
alone. A RST without ACK holds an acknowledgement number of 0, which rule 16 applies and tcptrace
does not: what it takes off the list of unacknowledged segments gives no sample any more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from netlab.analysis.capture import Summary
from netlab.capture import summarize
from tests.capture import impaired, tcptrace
from tests.capture.scenes import SCENES
from tests.conftest import CAPTURES, ROOT

pytestmark = pytest.mark.needs("tcptrace", "tshark")

RST, ACK = 4, 16
EXACT = {
    "unique_bytes_sent": "unique_bytes",
    "actual_data_pkts": "data_pkts",
    "actual_data_bytes": "payload_bytes",
    "rexmt_data_pkts": "retrans_pkts",
    "rexmt_data_bytes": "retrans_bytes",
    "outoforder_pkts": "hole_fills",
    "sack_pkts_sent": "sack_pkts",
    "dsack_pkts_sent": "dsack",
    "max_segm_size": "max_seg",
}
LEFT_OUT = {
    "zeek__tcp_reassembly.pcap": "tcptrace counts what the frame holds beyond the IP length",
    "zeek__vlan-collisions.pcap": "tcptrace skips frames with several VLAN tags",
    "zeek__http-qinq-0.pcap": "tcptrace skips frames with several VLAN tags",
    "zeek__tunnels_tunnel-direct-bypass.pcap": "tcptrace does not look into GRE",
    "tcpdump__timestamp_invalid_micro.pcap": "time stamps out of range",
    "tcpdump__timestamp_invalid_nano.pcap": "time stamps out of range",
}
SHARED = (
    sorted(
        f
        for f in CAPTURES.glob("*.pcap")
        if f.name not in LEFT_OUT and "vxlan" not in f.name
    )
    if CAPTURES.is_dir()
    else []
)  # fmt: skip


def resets(summary: Summary) -> tuple[Counter[tuple[object, str, str]], set[tuple[object, str]]]:
    """Return what RSTs add to our counts, and the sides that a RST without ACK answered."""
    added: Counter[tuple[object, str, str]] = Counter()
    unacknowledging: set[tuple[object, str]] = set()
    for segment in summary.segments():
        if not segment.flags & RST:
            continue
        sender, other = ("orig", "resp") if segment.from_orig else ("resp", "orig")
        added[segment.stream, sender, "sack_pkts"] += segment.sack is not None
        added[segment.stream, sender, "dsack"] += segment.dsack
        added[segment.stream, other, "karn_rtt_n"] += segment.ack_rtt_ns is not None
        if not segment.flags & ACK:
            unacknowledging.add((segment.stream, other))
    return added, unacknowledging


def in_microseconds(file: Path) -> Path:
    """Return the capture as tcptrace sees it, without nanoseconds: they say who was first."""
    if file.read_bytes()[:4] != b"\x4d\x3c\xb2\xa1":
        return file
    coarse = file.with_suffix(".micro.pcap")
    subprocess.run(["editcap", "-F", "pcap", file, coarse], check=True, timeout=60)
    return coarse


def check(file: Path, record_property: object, *, without: frozenset[str] = frozenset()) -> None:
    assert callable(record_property)
    file = in_microseconds(file)
    flows: dict[frozenset[tuple[str, int]], list[dict[str, object]]] = {}
    summary = summarize(file)
    on_resets, unacknowledging = resets(summary)
    for row in summary.flows.to_pylist():
        if row["proto"] == "tcp":
            ends = frozenset(((row["orig_h"], row["orig_p"]), (row["resp_h"], row["resp_p"])))
            flows.setdefault(ends, []).append(row)
    compared: Counter[str] = Counter()
    wrong: list[str] = []
    samples = 0
    for connection in tcptrace.connections(file):
        found = flows.get(frozenset((connection.a, connection.b)), [])
        if len(found) != 1:
            compared["connections left out (ports reused)"] += 1
            continue
        compared["connections"] += 1
        row = found[0]
        probed = bool(row["orig_zero_window"] or row["resp_zero_window"])
        for side in ("orig", "resp"):
            end = (str(row[f"{side}_h"]), int(str(row[f"{side}_p"])))
            for theirs, ours in EXACT.items():
                if theirs in without:
                    continue
                if probed and theirs in ("unique_bytes_sent", "rexmt_data_bytes",
                                         "rexmt_data_pkts", "outoforder_pkts"):  # fmt: skip
                    continue
                a, b = connection.of(theirs, end), int(str(row[f"{side}_{ours}"]))
                b -= on_resets[row["stream"], side, ours]
                compared["values"] += 1
                if a != b:
                    wrong.append(f"{end}: {theirs} {a:g}, {ours} {b}")
            a, b = connection.of("RTT_samples", end), int(str(row[f"{side}_karn_rtt_n"]))
            samples += int(a)
            if (row["stream"], side) in unacknowledging:
                compared["directions without a last acknowledgement"] += 1
                continue
            least = -on_resets[row["stream"], side, "karn_rtt_n"]
            if not probed and not least <= a - b <= 0:
                wrong.append(f"{end}: RTT samples {a:g}, karn_rtt_n {b}")
    record_property("compared with tcptrace", {**compared, "RTT samples": samples})
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.needs("captures")
@pytest.mark.parametrize("file", SHARED, ids=lambda file: file.name)
def test_public_capture(file: Path, record_property: object) -> None:
    check(file, record_property)


@pytest.mark.parametrize(
    "name", [n for n in SCENES if n.startswith(("lossy-ipv4", "fast-retransmit", "handshake"))]
)
def test_scene(name: str, tmp_path: Path, record_property: object) -> None:
    file = tmp_path / "scene.pcap"
    file.write_bytes(SCENES[name]())
    check(file, record_property)


@pytest.mark.slow
@pytest.mark.needs("netns", "tcpdump", "iperf3", "ethtool", "nft")
def test_live_loss(tmp_path: Path, record_property: object) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benches" / "capture" / "live.py", "lossy", tmp_path,
         "--scale", "0.004"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for name in json.loads(done.stdout):
        check(tmp_path / name, record_property)


@pytest.mark.slow
@pytest.mark.needs("netns", "userns", "tcpdump", "iperf3")
def test_live_reordering_and_duplication(tmp_path: Path, record_property: object) -> None:
    """Packets that arrive twice are answered by D-SACKs (RFC 2883)."""
    for file in impaired.record(tmp_path, seed=12):
        check(file, record_property)
