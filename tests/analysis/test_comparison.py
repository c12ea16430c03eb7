"""Two recordings compared: settings by name, segments one by one, fates over several points."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from netlab.analysis import comparison
from netlab.analysis.comparison import Difference
from netlab.analysis.evidence import Evidence
from netlab.recording import Recording
from tests.capture import pcaps
from tests.capture.pcaps import Packet
from tests.conftest import ROOT


def kept(lab: str, variation: str) -> Recording:
    return Recording.open(ROOT / "labs" / lab / "recording" / variation)


def test_a_recording_differs_in_nothing_from_itself() -> None:
    one = kept("teardown", "client-first")
    assert comparison.settings(one, one) == ()
    (found,) = comparison.packets(Evidence(one), Evidence(one))
    assert not found.diverges
    assert (found.drift, found.same) == (0.0, len(Evidence(one).capture("client:eth0").segments))


def test_settings_are_named_by_node_option_and_link() -> None:
    found = comparison.settings(kept("sack", "sack"), kept("sack", "rtt-50ms-no-sack"))
    told = {item.what: (item.left, item.right) for item in found}
    assert told["client: net.ipv4.tcp_sack"] == ("1", "0")
    assert told["variation"] == ("sack", "rtt-50ms-no-sack")
    assert ("", "25ms") in told.values()
    assert not any("sysctls" in name for name in told)
    options = comparison.settings(
        kept("teardown", "client-first"), kept("teardown", "server-first")
    )
    assert Difference("option.first", "client", "server") in options


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        shutil.copytree(ROOT / "labs" / "teardown" / "recording" / "client-first", path)
        for name in ("client.eth0", "server.eth0"):
            (path / "captures" / f"{name}.pcap").unlink(missing_ok=True)
    return one, other


def write(path: Path, packets: list[Packet], where: str = "client.eth0") -> None:
    (path / "captures" / f"{where}.pcap").write_bytes(pcaps.pcap(packets, nano=True))


def shifted(packet: Packet, ns: int) -> Packet:
    return replace(packet, time_ns=packet.time_ns + ns)


def evidence(path: Path) -> Evidence:
    return Evidence(Recording.open(path))


def test_the_first_segment_that_differs_is_found_with_its_time(two: tuple[Path, Path]) -> None:
    packets = list(pcaps.handshake())
    write(two[0], packets)
    later = [shifted(packet, 1_000_000 * n) for n, packet in enumerate(packets)]
    write(two[1], later[:4])
    (found,) = comparison.packets(*map(evidence, two))
    assert (found.same, found.right) == (4, None)
    assert found.left is not None
    assert found.left.frame == 5
    assert found.left.seconds == pytest.approx((packets[4].time_ns - packets[0].time_ns) / 1e9)
    assert (found.drift, found.drift_at) == (pytest.approx(3e-3), 3)


def test_windows_and_times_make_no_difference(two: tuple[Path, Path]) -> None:
    packets = list(pcaps.handshake())
    write(two[0], packets)
    write(two[1], [shifted(packet, 77_000_000) for packet in packets])
    (found,) = comparison.packets(*map(evidence, two))
    assert not found.diverges
    assert found.drift == 0.0


def test_a_connection_too_many_diverges_at_once(two: tuple[Path, Path]) -> None:
    write(two[0], list(pcaps.handshake()))
    write(two[1], [])
    (found,) = comparison.packets(*map(evidence, two))
    assert (found.same, found.right, found.connection) == (0, None, 0)


def test_a_segment_lost_in_one_run_alone_is_told(two: tuple[Path, Path]) -> None:
    packets = list(pcaps.handshake())
    ours = [n for n, s in enumerate(_segments(two[0], packets)) if s.forward]
    lost = ours[2]
    for path in two:
        write(path, packets)
        there = [shifted(packet, 1000) for packet in packets]
        write(path, there if path == two[0] else [*there[:lost], *there[lost + 1 :]], "server.eth0")
    found = comparison.fates(*map(evidence, two))
    assert found is not None
    assert (found.number, found.left, found.right) == (2, "", "client:eth0")
    assert comparison.fates(evidence(two[0]), evidence(two[0])) is None


def _segments(path: Path, packets: list[Packet]) -> tuple[comparison.Segment, ...]:
    write(path, packets)
    return evidence(path).capture("client:eth0").segments


def test_fidelity_and_kernel_are_settings_too() -> None:
    one = kept("teardown", "client-first")
    other = Recording(one.path, replace(one.manifest, kernel="9.9", seeds={"far:forward": 7}))
    assert comparison.settings(one, other) == (
        Difference("kernel", one.manifest.kernel, "9.9"),
        Difference("seed.far:forward", "", "7"),
    )
