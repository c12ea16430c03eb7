"""The ladder as SVG: well-formed, an arrow for each segment, towards the right side."""

from __future__ import annotations

from xml.etree import ElementTree

from netlab.analysis import segments
from netlab.recording import Recording
from netlab.report.picture import svg
from tests.conftest import ROOT

SPACE = "{http://www.w3.org/2000/svg}"
CAPTURE = Recording.open(ROOT / "labs/handshake/recording/ipv4").file("captures/client.eth0.pcap")


def test_every_segment_has_an_arrow() -> None:
    rows = segments.load(CAPTURE)
    root = ElementTree.fromstring(svg(rows))
    arrows = [
        p for p in root.iter(f"{SPACE}path") if p.get("class", "") in ("f", "b", "f r", "b r")
    ]
    lines = [p for p in arrows if "L" in p.get("d", "")]
    assert len(lines) == len(rows)
    to_right = [float(d.split("L")[1].split()[0]) > float(d[1:].split()[0])
                for d in (line.get("d", "") for line in lines)]  # fmt: skip
    assert to_right == [row.forward for row in rows]


def test_what_is_left_out_is_said_and_names_are_escaped() -> None:
    text = svg(segments.load(CAPTURE), limit=3, names=("<a>", "b & c"))
    root = ElementTree.fromstring(text)
    said = [node.text or "" for node in root.iter(f"{SPACE}text")]
    assert "<a>" in said
    assert any("more segments are not shown" in line for line in said)


def test_nothing_is_a_picture_too() -> None:
    assert ElementTree.fromstring(svg([])).tag == f"{SPACE}svg"
