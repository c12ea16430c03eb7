"""`netlab pcap journey` and `netlab report` on the recordings that come with labs."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from netlab.capture import summarize
from tests.capture import pcaps
from tests.cli import called
from tests.conftest import ROOT

BLACK_HOLE = ROOT / "labs/pmtu-black-hole/recording"


def run(*argv: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return called.netlab(*map(str, argv), cwd=cwd or ROOT, COLUMNS="200")


def test_what_a_black_hole_swallows_is_lost_after_the_client() -> None:
    done = run("pcap", "journey", BLACK_HOLE, "--variation", "black-hole", "--lost", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows
    assert {row["lost_after"] for row in rows} == {"client:eth0"}
    assert all(len(row["sights"]) == 1 and "len=" in row["what"] for row in rows)
    again = [row for row in rows if row["repeats"] is not None]
    assert again
    table = run("pcap", "journey", BLACK_HOLE, "--variation", "black-hole")
    assert "lost after client:eth0" in table.stdout
    assert f"{len(rows)} lost on the way" in table.stderr


def test_packets_without_a_time_are_shown_too(tmp_path: Path) -> None:
    stamped, bare, *_ = pcaps.fast_retransmit()
    start = [pcaps.section_header("<"), pcaps.block("<", 1, pcaps.Interface().body("<"))]
    last = [pcaps.enhanced("<", stamped, pcaps.Interface()), pcaps.simple("<", bare)]
    path = tmp_path / "half.pcapng"
    path.write_bytes(b"".join(start + last))
    done = run("pcap", "journey", path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["1", "0.000000"],
        ["2", "0.000000"],
    ]
    assert "1 packet has no time stamp" in done.stderr


def test_captures_are_merged_with_an_interface_for_each_point(tmp_path: Path) -> None:
    files = [f"{n}={BLACK_HOLE}/clamp/captures/{n}.eth0.pcap.gz" for n in ("client", "server")]
    done = run("pcap", "journey", *files, "-w", tmp_path / "both.pcapng")
    assert done.returncode == 0, done.stderr
    merged = summarize(tmp_path / "both.pcapng")
    assert [i["name"] for i in merged.totals["interfaces"]] == ["client", "server"]
    single = [summarize(file.partition("=")[2]).packets for file in files]
    assert merged.packets == sum(single)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("pcap", "journey", BLACK_HOLE), "several variations"),
        (("pcap", "journey", BLACK_HOLE, "--variation", "none"), "no variation 'none'"),
        (("pcap", "journey", "a=/dev/null", "a=/dev/null"), "two captures are called 'a'"),
        (("pcap", "report", "/dev/null"), "/dev/null"),
        (("pcap", "report", "missing.pcap"), "missing.pcap"),
        (("report", "no-such-run"), "there is no run at no-such-run"),
        (("report", ROOT / "labs"), "is not a recording"),
    ],
)
def test_mistakes_are_one_sentence(argv: tuple[object, ...], said: str) -> None:
    done = run(*argv)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_report_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    run_ = ROOT / "labs/handshake/recording"
    done = run("report", run_, "--no-charts", "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "page.html")
    capture = tmp_path / "client.eth0.pcap"
    packed = run_ / f"ipv4/captures/{capture.name}.gz"
    capture.write_bytes(gzip.decompress(packed.read_bytes()))
    done = run("pcap", "report", capture, "--no-charts", cwd=tmp_path)
    assert done.stdout.strip() == "client.eth0.pcap.html"
    assert (tmp_path / "client.eth0.pcap.html").stat().st_size > 50_000
