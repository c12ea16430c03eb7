"""Every value of tshark's TCP analysis, packet by packet, against ours.

The rules are those of tshark 4.0; another version is compared where it is known not to differ, and
the tests say which one ran. Differences that docs/wireshark-differences.md explains are taken out;
anything else fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from netlab.analysis import datagrams
from netlab.analysis.concerned import Concerned
from netlab.capture import summarize
from tests.capture import impaired, pcaps, tshark
from tests.capture.differential import Comparison, compare, explained
from tests.capture.scenes import SCENES
from tests.conftest import CAPTURES, ROOT

pytestmark = [
    pytest.mark.needs("tshark"),
    pytest.mark.skipif(
        not tshark.version().startswith("4.0."),
        reason=f"the reference is tshark 4.0, here is {tshark.version() or 'none'}",
    ),
]

SHARED = sorted(f for f in CAPTURES.iterdir() if f.name != "README.md") if CAPTURES.is_dir() else []
LIVE = ROOT / "benches" / "capture" / "live.py"


def hold(result: Comparison, record_property: object) -> None:
    """Note what was compared; fail on differences that nothing explains."""
    assert callable(record_property)
    record_property(
        "compared with tshark",
        {
            "packets": result.packets,
            "values": result.values,
            "flags": result.flags,
            "conversations": result.conversations,
            "packets of which tshark says nothing (options cut)": result.silent,
            "explained differences": len(result.differences) - len(result.unexplained),
        },
    )
    lines = [str(difference) for difference in result.unexplained]
    assert not lines, f"{len(lines)} unexplained differences:\n" + "\n".join(lines[:20])
    for row in explained():
        if row.file == result.file:
            assert any(map(row.covers, result.differences)), f"no such difference any more: {row}"


@pytest.mark.needs("captures")
@pytest.mark.parametrize("file", SHARED, ids=lambda file: file.name)
def test_public_capture(file: Path, record_property: object) -> None:
    hold(compare(file), record_property)


@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str, tmp_path: Path, record_property: object) -> None:
    file = tmp_path / f"{name}.pcap"
    file.write_bytes(SCENES[name]())
    hold(compare(file, f"scene {name}"), record_property)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1008))
def test_long_chatter(seed: int, tmp_path: Path, record_property: object) -> None:
    """Two thousand packets of several conversations at once, seeds that no scene uses."""
    talks = [
        pcaps.chatter(Random(seed * 10 + n), 500, client_port=40000 + n, version=4 + 2 * (n % 2))
        for n in range(4)
    ]
    file = tmp_path / "chatter.pcap"
    file.write_bytes(pcaps.pcap(pcaps.interleaved(*talks), nano=True))
    hold(compare(file, f"chatter {seed}"), record_property)


@pytest.mark.slow
@pytest.mark.needs("netns", "tcpdump", "iperf3", "ethtool", "nft")
@pytest.mark.parametrize("kind", ["bulk", "lossy", "stall"])
def test_live_capture(kind: str, tmp_path: Path, record_property: object) -> None:
    """Real stacks in namespaces of our own: bulk transfers, 2 % loss, readers that dawdle."""
    done = subprocess.run(
        [sys.executable, LIVE, kind, tmp_path, "--scale", "0.004"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for name in json.loads(done.stdout):
        hold(compare(tmp_path / name, f"live {name}"), record_property)


@pytest.mark.slow
@pytest.mark.needs("netns", "userns", "tcpdump", "iperf3")
def test_live_reordering_and_duplication(tmp_path: Path, record_property: object) -> None:
    """Real stacks over a path that loses, doubles and reorders, seen from both ends."""
    for file in impaired.record(tmp_path, seed=11):
        hold(compare(file, f"live bad path {file.name}"), record_property)


@pytest.mark.parametrize("name", [n for n in SCENES if n.startswith(("chatter", "lossy"))][:24])
def test_the_last_completeness_is_what_two_passes_show(name: str, tmp_path: Path) -> None:
    """In a second pass tshark shows the completeness that a stream ends with."""
    file = tmp_path / "scene.pcap"
    file.write_bytes(SCENES[name]())
    text = tshark.run(
        "-2", "-r", file, "-T", "fields", "-e", "tcp.stream", "-e", "tcp.completeness", "-Y", "tcp"
    )
    theirs = {int(s): int(c, 0) for s, c in (line.split("\t") for line in text.splitlines())}
    ours = {flow.stream: flow.completeness for flow in summarize(file).flows}
    assert ours == theirs


# Findings: the display filter of each shows as many frames as it says.


@pytest.mark.parametrize(
    "name", ["several-conversations", "lossy-ipv4-sender-1", "zero-window-ipv6", "cut-to-96",
             "time-runs-backwards", "multipath", "quoted-by-icmp", "mixture", "keep-alive-ipv4"]
)  # fmt: skip
def test_display_filters_show_what_the_findings_say(name: str, tmp_path: Path) -> None:
    file = tmp_path / "scene.pcap"
    file.write_bytes(SCENES[name]())
    for finding in summarize(file).findings():
        if not finding.filter:
            continue
        shown = tshark.run("-r", file, "-Y", finding.filter, "-T", "fields", "-e", "frame.number")
        frames = len(shown.splitlines())
        if finding.frames is None:
            assert frames > 0, f"{finding.filter} shows nothing: {finding.sentence}"
        else:
            assert frames == finding.frames, f"{finding.filter}: {finding.sentence}"


@pytest.mark.parametrize(
    "name", ["several-conversations", "lossy-ipv4-sender-1", "zero-window-ipv6", "quoted-by-icmp",
             "time-runs-backwards", "duplicate-sack", "keep-alive-ipv4", "half-a-conversation"]
)  # fmt: skip
def test_findings_know_the_frames_that_their_filters_show(name: str, tmp_path: Path) -> None:
    file = tmp_path / "scene.pcap"
    file.write_bytes(SCENES[name]())
    summary = summarize(file, segments=True, checksums=True)
    concerned = Concerned(summary, datagrams.load(file))
    known = 0
    for finding in summary.findings():
        ours = list(concerned.frames(finding))
        if not ours or not finding.filter:
            assert finding.kind in ("cut_packets", "time_back", "untimed", "partial_checksum")
            continue
        shown = tshark.run(
            "-r", file, "-o", "tcp.check_checksum:TRUE",
            "-Y", finding.filter, "-T", "fields", "-e", "frame.number",
        )  # fmt: skip
        theirs = [int(line) for line in shown.splitlines()]
        # Some filters can only show a little more: every RST, every packet of a stream.
        assert ours == theirs if finding.frames is not None else {*ours} <= {*theirs}, finding
        known += 1
    assert known > 0


def test_every_explained_difference_names_who_is_right_and_why() -> None:
    assert explained()
    for row in explained():
        assert row.right in ("netlab", "tshark", "both", "neither")
        assert len(row.reason) > 20
