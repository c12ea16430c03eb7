"""`netlab pcap states` and `netlab lab states`, on recordings that come with labs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from click.testing import CliRunner, Result

from netlab.analysis import segments
from netlab.cli import cli
from tests.conftest import ROOT

RUN = ROOT / "labs" / "teardown" / "recording"
CAPTURE = RUN / "client-first" / "captures" / "client.eth0.pcap.gz"


def netlab(*argv: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli, [str(word) for word in argv])


def test_a_capture_alone_tells_both_lives() -> None:
    done = netlab("pcap", "states", CAPTURE, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    first, second = (end["name"] for end in record["endpoints"])
    lives = {
        name: [span["state"] for span in record["spans"] if span["endpoint"] == name]
        for name in (first, second)
    }
    assert lives[first] == [
        "CLOSED", "SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT",
    ]  # fmt: skip
    assert lives[second] == [
        "LISTEN", "SYN-RECEIVED", "ESTABLISHED", "CLOSE-WAIT", "LAST-ACK", "CLOSED",
    ]  # fmt: skip
    assert all(change["legal"] for change in record["transitions"])


def test_a_run_is_told_by_node_and_variation() -> None:
    done = netlab("lab", "states", RUN, "--variation", "server-first")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("server-first:\n")
    assert "client" in done.stdout.splitlines()[1]
    assert "ss, snapshot" in done.stdout


def test_a_capture_without_the_fin_is_found_out_by_the_looks(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUN / "client-first", run)
    (run / "captures" / CAPTURE.name).unlink()
    target = run / "captures" / CAPTURE.stem
    frames = ",".join(str(s.frame) for s in segments.load(CAPTURE) if not s.fin)
    kept = netlab("pcap", "filter", CAPTURE, target, "--frames", frames)
    assert kept.exit_code == 0, kept.output
    done = netlab("lab", "states", run, "--ascii")
    assert done.exit_code == 1, done.output
    assert "ILLEGAL" in done.stdout
    assert "'a FIN came'" in done.stdout


def test_what_is_not_there_is_said_in_a_sentence() -> None:
    for argv in (
        ("pcap", "states", CAPTURE, "--stream", "9"),
        ("lab", "states", RUN, "--variation", "nine"),
        ("lab", "states", RUN, "--connection", "9"),
    ):
        done = netlab(*argv)
        assert done.exit_code != 0
        assert "Traceback" not in done.output
