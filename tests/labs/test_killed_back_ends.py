"""SIGKILL of what impairs links, at any moment of a run: an error that says so, nothing left.

Moments are drawn from a seed. The run's recording must be marked as not complete, every file of it
readable, and no process of the lab alive.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random

import pytest

from netlab.analysis.journal import Journal
from netlab.recording.directory import Recording
from tests.conftest import ROOT
from tests.machine.test_guest import descendants, gone

WIRES, GUESTS = 8, 4
SEED = 11


@contextlib.contextmanager
def run_of(folder: Path, machine: str, *words: str) -> Generator[subprocess.Popen[str]]:
    """A run of the handshake over 300 ms of delay, which takes two seconds and more."""
    told = ("lab", "run", "handshake", "--variation", "rtt-300ms", "--results", str(folder / "r"))
    environment = {
        **os.environ, "NETLAB_STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT)
    }  # fmt: skip
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "netlab", "--machine", machine, *told, *words],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def below(process: subprocess.Popen[str], word: str) -> int:
    """Wait for a process below ours whose command line holds a word; its pid."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        for pid, _ in descendants(process.pid):
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        time.sleep(0.005)
    raise AssertionError(f"no process {word!r} below {process.args!r}")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def variations(folder: Path) -> list[Path]:
    return [path.parent for path in (folder / "r").rglob("manifest.json")]


def check_recording(path: Path) -> str:
    """Read everything a killed run left; how its manifest is marked."""
    recording = Recording.open(path)
    recording.timeline()
    for journal in path.glob("wire/*.journal"):
        if journal.stat().st_size >= 128:  # its header
            list(Journal.open(journal))
    return str(recording.manifest.status)


@pytest.mark.needs("netns", "userns", "tcpdump", "ss")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wire_killed_at_any_moment_ends_the_run(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    pick = Random(SEED)
    seen: list[str] = []
    for number in range(WIRES):
        folder, after = tmp_path / str(number), pick.uniform(0, 2.0)
        with run_of(folder, "local", "--impair", "wire") as process:
            wire = below(process, "wire_main.py")
            family = descendants(process.pid)
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(wire, signal.SIGKILL)
            out, err = process.communicate(timeout=120)
        assert gone(family), f"killed after {after:.2f} s"
        (path,) = variations(folder)
        mark = check_recording(path)
        seen.append(f"{after:.2f} s: {mark}, status {process.returncode}")
        if process.returncode in (0, 3, 6):  # it had its checks when the wire was still needed
            assert mark == "complete"
            continue
        assert process.returncode == 5, (after, out, err)
        assert "the wire of link" in err
        assert "Traceback" not in err
        assert mark != "complete"
    record_property("killed", "; ".join(seen))
    assert sum("status 5" in line for line in seen) >= WIRES // 2, seen


@pytest.mark.needs("uml", "tcpdump", "ss")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_guest_killed_at_any_moment_ends_the_run(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    pick = Random(SEED)
    seen: list[str] = []
    for number in range(GUESTS):
        folder, after = tmp_path / str(number), pick.uniform(0, 2.0)
        with run_of(folder, "guest") as process:
            kernel = below(process, "linux.uml")
            family = descendants(process.pid)
            if number % 2:  # while it starts, or once there is something on the disk
                until(lambda folder=folder: bool(variations(folder)))
            time.sleep(after)
            family |= descendants(process.pid)
            os.kill(kernel, signal.SIGKILL)
            _, err = process.communicate(timeout=120)
        assert gone(family), f"killed after {after:.2f} s"
        marks = [check_recording(path) for path in variations(folder)]
        assert len(marks) >= number % 2
        seen.append(f"{after:.2f} s: {marks}, status {process.returncode}")
        assert process.returncode == 5, (after, err)
        assert "guest" in err
        assert "Traceback" not in err
        assert "complete" not in marks
    record_property("killed", "; ".join(seen))
