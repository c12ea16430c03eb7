"""The agent that watches the machine: what it reads, and that it notices a busy processor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netlab.agents import load
from tests.conftest import ROOT

AGENT = ROOT / "netlab" / "agents" / "load.py"
STAT = """cpu  901392 153779 490016 1018762 4733 0 14068 3453 0 0
cpu0 410094 82563 240527 550029 1147 0 6703 1703 0 0
cpu1 491297 71216 249489 468732 3586 0 7365 1749 0 0
intr 5 0 0
"""


def test_proc_stat_by_processor() -> None:
    first, second = load.processors(STAT)
    assert first == (1292766, 550029 + 1147, 1703)
    assert second[2] == 1749


def test_pressure_where_the_kernel_has_it() -> None:
    text = "some avg10=34.28 avg60=29.18 avg300=20.11 total=4934516568\nfull avg10=0.00 total=0\n"
    assert load.waited(text) == 4934516568
    assert load.waited("") is None


def test_packets_dropped_by_any_processor() -> None:
    assert load.dropped("03d21cc3 00000489 00000007\n0348a2e5 00000002 00000005\n") == 0x489 + 2


def test_moments_that_passed_during_a_sleep_count_as_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lateness = load.Lateness()
    now = lateness.due + 0.101
    assert lateness.note() == pytest.approx(load.EVERY - 0.001)
    found = lateness.take()
    assert sum(found["late_log2_us"].values()) == 11
    assert found["late_log2_us"][16] == 4  # 0.101, 0.091, 0.081 and 0.071 s
    assert found["late_max_s"] == pytest.approx(0.101)
    assert lateness.take() == {"late_log2_us": {}, "late_max_s": 0.0}


def test_a_process_that_is_kept_from_running_is_late(tmp_path: Path) -> None:
    out = tmp_path / "load.jsonl"
    argv = (sys.executable, "-I", "-S", str(AGENT), "--out", str(out))
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.3)  # what is measured: for so long it could not run
        os.kill(process.pid, signal.SIGCONT)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
    head, *rows, end = (json.loads(line) for line in out.read_text().splitlines())
    assert head["processors"] == os.cpu_count()
    assert max(row["late_max_s"] for row in rows) >= 0.28
    assert sum(sum(row["late_log2_us"].values()) for row in rows) >= 28
    assert all(len(row["busy"]) == os.cpu_count() for row in rows)
    assert end["disciplines"] == {}


def test_what_a_program_was_told_need_not_be_text(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_bytes(b"/bin/cat\0na\xefve\0")
    assert load.program(load.read(str(tmp_path / "cmdline"))) == "cat"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/python3\0-I\0-S\0/x/agents/hello.py\0--port\x0080\0", "hello"),
        ("python3\0-m\0http.server\0", "python3"),
        ("tcpdump\0-i\0eth0\0", "tcpdump"),
        ("", ""),
    ],
)
def test_the_name_of_a_program(command: str, name: str) -> None:
    assert load.program(command) == name


@pytest.mark.parametrize(
    ("steps", "waits"),
    [
        # Milliseconds waited and turns on a processor, at looks 10 ms apart; what is returned.
        ([(60, 1)], [60]),  # one turn, one wait
        ([(8, 1), (17, 2)], [0, 9]),
        ([(62, 3)], [62]),  # 52 of them were one wait for certain
        ([(9, 9)], [0]),  # nine waits of 1 ms, or so
        ([(18, 9)], [0]),  # 8 ms for certain, where more is long
        ([(30, 0), (60, 0), (65, 1)], [0, 0, 65]),  # moved to another processor's queue, twice
        ([(60, 1), (60, 1), (60, 1)], [60, 0, 0]),
    ],
)
def test_the_long_waits_of_a_thread(
    steps: list[tuple[int, int]], waits: list[int], tmp_path: Path
) -> None:
    told = tmp_path / "schedstat"
    told.touch()
    descriptor = os.open(told, os.O_RDONLY)
    try:
        thread = load.Thread(load.Program(1), descriptor)
        for (waited, turns), wait in zip(steps, waits, strict=True):
            told.write_text(f"5000000 {waited * 10**6} {turns}\n")
            assert thread.wait(0.01) == pytest.approx(wait / 1e3)
    finally:
        os.close(descriptor)


def test_a_disk_that_refuses_is_one_sentence() -> None:
    argv = (sys.executable, "-I", "-S", str(AGENT), "--out", "/nowhere/load.jsonl")
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "load: No such file or directory /nowhere/load.jsonl\n"
