"""Reports as files: self-contained, small enough, and safe with names that mean harm."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab.analysis import ss
from netlab.errors import CaptureError, RecordingError
from netlab.recording import Recording
from netlab.report import bundle, document, glossary, scene
from tests.capture import pcaps
from tests.conftest import ROOT

LABS = ROOT / "labs"
CHARTS = 2_000_000
"""Octets that the charts library adds to a page."""


def plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def test_a_report_loads_nothing_from_anywhere() -> None:
    text = document.of_run(LABS / "handshake" / "recording", plotly=plotly())
    assert not re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?http""", text)
    assert not re.findall(r"@import|url\(http", text)
    assert len(text) < 6_000_000
    assert len(text) - len(document.of_run(LABS / "handshake" / "recording")) < CHARTS


def test_a_report_without_charts_has_none_of_the_library() -> None:
    text = document.of_run(LABS / "handshake" / "recording")
    assert 'id="plotly"' not in text
    assert len(text) < 1_000_000


def test_the_same_recording_gives_the_same_bytes() -> None:
    run = LABS / "pmtu-black-hole" / "recording"
    assert document.of_run(run) == document.of_run(run)


def test_names_that_mean_harm_stay_text(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(LABS / "handshake" / "recording", run)
    harm = "</script><img src=x onerror=alert(1)>"
    told = json.loads((run / "checks.json").read_text())
    told["title"] = told["checks"][0]["sentence"] = told["checks"][0]["claim"] = harm
    told["checks"][0]["verdict"]["observed"] = harm
    (run / "checks.json").write_text(json.dumps(told))
    manifest = json.loads((run / "ipv4" / "manifest.json").read_text())
    manifest["options"]["message"] = harm
    (run / "ipv4" / "manifest.json").write_text(json.dumps(manifest))
    name = "snapshots/established.client.ss.txt"
    said = Recording.open(run / "ipv4").text(name)
    (run / "ipv4" / f"{name}.gz").unlink(missing_ok=True)
    (run / "ipv4" / name).write_text(said + " <b>harm</b>")
    text = document.of_run(run)
    assert "<img src=x" not in text
    assert "<b>harm" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


@pytest.mark.parametrize("lab", sorted(p.parent.name for p in LABS.glob("*/recording")))
def test_every_kept_recording_has_a_page(lab: str) -> None:
    text = document.of_run(LABS / lab / "recording")
    assert "<h2>Verdicts</h2>" in text
    assert "checks:" in text
    assert '<section id="network">' in text
    assert len(text) + CHARTS < 6_000_000


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError):
        document.of_run(tmp_path)
    (tmp_path / "a.pcap").write_bytes(b"no capture at all, but long enough to be one")
    with pytest.raises(CaptureError):
        document.of_captures({"a": tmp_path / "a.pcap"})


def test_a_capture_of_nothing_says_so_and_needs_no_charts(tmp_path: Path) -> None:
    path = tmp_path / "nothing.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 96, 1))
    text = document.of_captures({"a": path}, plotly="the library")
    assert "Nothing stands out." in text
    assert "There is no TCP, UDP or ICMP in it." in text
    assert 'id="plotly"' not in text


def cells(text: str, *, first: str) -> list[str]:
    """Return what stands in the row of a table that begins with a cell."""
    row = next(r for r in re.findall(r"<tr>(.*?)</tr>", text) if f">{first}</td>" in r)
    return re.findall(r"<td[^>]*>(.*?)</td>", row)


def ways(text: str) -> list[dict[str, str]]:
    """Return where the links to packets lead."""
    links = re.findall(r'<a class="nl-way"([^>]*)>(.*?)</a>', text)
    return [
        {**dict(re.findall(r'data-(\w+)="([^"]*)"', one)), "words": said} for one, said in links
    ]


def test_verdicts_lead_to_the_packets_they_name_and_others_nowhere() -> None:
    run = LABS / "handshake" / "recording"
    told = document.checks(run)
    named = [c for c in told["checks"] if "frame" in str(c["verdict"].get("evidence"))]
    found = [way for way in ways(document.of_run(run)) if "packets" in way]
    assert len(found) == len(named) < len(told["checks"])
    assert {"scene": "0", "packets": "0 1 2", "words": "show 3 packets"} in found
    assert {way["scene"] for way in found} == {"0", "1", "2", "3", "4"}


def test_findings_lead_to_their_packets_at_the_point_that_saw_them() -> None:
    one = scene.of_recording(Recording.open(LABS / "pmtu-black-hole" / "recording" / "black-hole"))
    columns = one.data["passages"]
    again, cut, hole, _ = one.data["findings"]
    assert "retransmitted" in again["sentence"]
    assert [columns["repeats"][n] for n in again["passages"]] == [7, 18, 19]
    assert cut["passages"] == []
    (n,) = hole["passages"]
    server = one.data["points"].index("server:eth0")
    assert server in columns["sights"][n][::3]
    found = ways(document.of_run(LABS / "pmtu-black-hole" / "recording"))
    assert {"scene": "0", "finding": "0", "words": "show 3 packets"} in found
    assert not any(way["scene"] == "0" and way.get("finding") == "1" for way in found)


def test_a_finding_about_what_is_left_out_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pcap"
    lossy = [pcaps.fast_retransmit(client_port=40000 + n) for n in range(2)]
    path.write_bytes(pcaps.pcap(pcaps.interleaved(*lossy)))
    whole = scene.of_captures("a", {"a": path}).data
    assert all(len({*columns_of(whole, f)}) == 2 for f in whole["findings"] if f["passages"])
    monkeypatch.setattr(scene, "MOST", 20)
    part = scene.of_captures("a", {"a": path}).data
    assert part["left_out"] > 0
    kept = [f["passages"] for f in part["findings"]]
    assert any(kept)
    assert all(n < len(part["passages"]["sights"]) for numbers in kept for n in numbers)
    assert sum(map(len, kept)) < sum(len(f["passages"]) for f in whole["findings"])


def columns_of(data: Any, finding: Any) -> list[int]:
    """Return the conversations of a finding's packets."""
    return [data["passages"]["conversation"][n] for n in finding["passages"]]


def test_flows_are_told_in_words_and_handshakes_are_of_one_connection() -> None:
    run = LABS / "resets" / "recording"
    flow = cells(
        document.of_captures({"a": run / "closed-port" / "captures" / "client.eth0.pcap"}),
        first="0",
    )
    assert flow[1] == "tcp"
    assert flow[3].endswith(":8081")
    assert flow[-2:] == ["refused", "RST, answerer"]
    figures = cells(document.of_run(run), first="filters")
    assert 0 < float(figures[4]) < 10  # ms; another connection's SYN-ACK comes 0.7 s later


def test_too_big_packets_are_those_the_router_complained_of() -> None:
    one = scene.of_recording(Recording.open(LABS / "path-mtu" / "recording" / "ipv4"))
    columns = one.data["passages"]
    lost = sum(place >= 0 for place in columns["lost"])
    complaints = sum("MTU 1400" in (text or "") for text in columns["text"])
    assert lost == complaints > 0


def test_blocks_of_sack_count_as_the_acknowledgments_do() -> None:
    one = scene.of_recording(Recording.open(LABS / "sack" / "recording" / "sack"))
    columns = one.data["passages"]
    sent = sum(columns["length"])
    found = [(ack, sack) for ack, sack in zip(columns["ack"], columns["sack"], strict=True) if sack]
    assert found
    for ack, (left, right, *_) in found:  # a block of data that came early begins past the gap
        assert ack < left < right <= sent


def test_a_router_that_cuts_loses_nothing() -> None:
    one = scene.of_recording(Recording.open(LABS / "path-mtu" / "recording" / "no-pmtu-disc"))
    assert all(place < 0 for place in one.data["passages"]["lost"])


def test_octets_are_found_where_a_passage_says() -> None:
    one = scene.of_recording(Recording.open(LABS / "handshake" / "recording" / "ipv4"))
    for place in one.data["passages"]["octets"]:
        octets = one.octets[place[0] : place[0] + place[1]]
        assert octets[12:14] == b"\x08\x00"
        assert octets[23] == 6


def test_modules_are_joined_without_imports() -> None:
    text = bundle.script("page.js")
    assert not re.findall(r"^(?:import|export) ", text, re.MULTILINE)
    assert text.index("class Ladder") < text.index("class View")


def test_every_word_of_the_snapshots_is_explained() -> None:
    unknown: set[str] = set()
    kept = [
        Recording.open(manifest.parent) for manifest in LABS.glob("*/recording/*/manifest.json")
    ]
    texts = [one.text(name) for one in kept for name in one.files("snapshots/*.ss.txt")]
    assert len(texts) > 200
    for text in texts:
        for one in ss.parse(text):
            words = {*one.values, *one.flags, *one.skmem}
            unknown |= {word for word in words if not glossary.explain(word)} | {*one.unknown}
            if one.timer is not None and one.timer.kind not in glossary.TIMERS:
                unknown.add(one.timer.kind)
    assert unknown == set()


def test_packets_without_a_time_make_a_page(tmp_path: Path) -> None:
    head = [pcaps.section_header("<"), pcaps.block("<", 1, pcaps.Interface().body("<"))]
    packets = [pcaps.simple("<", packet) for packet in pcaps.fast_retransmit()]
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join(head + packets))
    text = document.of_captures({"a": path})
    assert "no time stamp" in text
    drawn = scene.of_captures("a", {"a": path}).data["passages"]
    assert [sights[2] for sights in drawn["sights"]] == [*range(1, len(packets) + 1)]
    assert {sights[1] for sights in drawn["sights"]} == {0}
    assert "<h2>Flows</h2>" in text


@given(st.binary(max_size=400))
@settings(max_examples=150)
def test_any_bytes_behind_a_header_make_a_page(data: bytes) -> None:
    import tempfile

    head = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pcap"
        record = bytes(8) + len(data).to_bytes(4, "little") * 2 + data
        path.write_bytes(head + record + data)
        assert "<h2>Findings</h2>" in document.of_captures({"a": path})
