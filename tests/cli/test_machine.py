from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.machine import guest_resident
from tests.conftest import ROOT
from tests.machine.test_guest import descendants, gone, leftovers, parent

pytestmark = [pytest.mark.needs("uml"), pytest.mark.slow, pytest.mark.timeout(300)]

TOPOLOGY = """
name: pair
nodes: [a, b]
links:
  - name: wire
    ends: a-b
    delay: 10ms
    rate: 10mbit
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "pair.yaml").write_text(TOPOLOGY)
    yield tmp_path
    netlab(tmp_path, "down", "--all")


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "NETLAB_STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT)}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "netlab", "--machine", "guest", *words]


def netlab(folder: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(folder),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def keeper(folder: Path) -> int | None:
    """The process that owns the guest, found by the folder on its command line."""
    place = str(guest_resident.folder()) if "NETLAB_STATE_DIR" in os.environ else ""
    place = place or f"{folder / 'state'}-guest"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if place.encode() in words:
                return int(entry.name)
    return None


def test_a_lab_lives_in_a_guest_between_commands(folder: Path) -> None:
    before = leftovers()
    up = netlab(folder, "up", "pair.yaml")
    assert up.returncode == 0, up.stderr
    assert [lab["name"] for lab in json.loads(netlab(folder, "status", "--json").stdout)] == [
        "pair"
    ]

    ping = netlab(folder, "exec", "a", "--", "ping", "-c3", "-i0.3", "-q", "b")
    assert ping.returncode == 0, ping.stderr
    assert float(ping.stdout.split("=")[-1].split("/")[0]) >= 20

    cat = netlab(folder, "exec", "b", "--", "sh", "-c", "cat >kept; exit 7", given="through\n")
    assert cat.returncode == 7, cat.stderr
    assert (folder / "kept").read_text() == "through\n"

    owner = keeper(folder)
    assert owner is not None
    below = descendants(owner)
    assert netlab(folder, "down").returncode == 0
    assert gone(below)
    assert keeper(folder) is None
    assert json.loads(netlab(folder, "status", "--json").stdout) == []
    assert leftovers() == before


def test_a_file_that_is_wrong_leaves_no_guest_behind(folder: Path) -> None:
    (folder / "pair.yaml").write_text(TOPOLOGY.replace("delay", "dealy"))
    wrong = netlab(folder, "up", "pair.yaml")
    assert wrong.returncode == 2
    assert "did you mean 'delay'" in wrong.stderr
    assert keeper(folder) is None


def test_sigkill_of_the_keeper_leaves_nothing(folder: Path) -> None:
    before = leftovers()
    assert netlab(folder, "up", "pair.yaml").returncode == 0
    owner = keeper(folder)
    assert owner is not None
    below = descendants(owner)
    os.kill(owner, signal.SIGKILL)
    assert gone(below)
    assert netlab(folder, "up", "pair.yaml").returncode == 0, "a dead socket is no obstacle"
    assert netlab(folder, "down").returncode == 0
    assert leftovers() == before


def test_a_client_that_dies_takes_its_command_along(folder: Path) -> None:
    assert netlab(folder, "up", "pair.yaml").returncode == 0
    with subprocess.Popen(
        command("exec", "a", "--", "sh", "-c", "echo up; exec sleep 1000"),
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        client.kill()
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        ps = netlab(folder, "exec", "a", "--", "ps", "-e", "-o", "args").stdout
        if "sleep 1000" not in ps:
            break
    assert "sleep 1000" not in ps


def test_an_interrupt_reaches_the_command(folder: Path) -> None:
    assert netlab(folder, "up", "pair.yaml").returncode == 0
    text = "trap 'echo bye; exit 3' INT; echo up; while :; do sleep 0.1; done"
    with subprocess.Popen(
        command("exec", "a", "--", "sh", "-c", text),
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        client.send_signal(signal.SIGINT)
        rest, _ = client.communicate(timeout=120)
    assert "bye" in rest


def test_a_terminal_here_is_a_terminal_there(folder: Path) -> None:
    assert netlab(folder, "up", "pair.yaml").returncode == 0
    master, slave = pty.openpty()
    with subprocess.Popen(
        command("exec", "a", "--", "sh", "-c", "tty && read line && echo got $line"),
        cwd=folder,
        env=environment(folder),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as client:
        os.close(slave)
        seen = b""
        typed = False
        while select.select([master], [], [], 60)[0]:
            try:
                data = os.read(master, 4096)
            except OSError:
                break
            seen += data
            if b"/dev/" in seen and b"\n" in seen and not typed:
                os.write(master, b"words\r")
                typed = True
        client.wait(60)
    os.close(master)
    assert b"/dev/" in seen
    assert b"got words" in seen
    assert client.returncode == 0


def test_a_guest_killed_in_the_middle_is_an_error_and_leaves_a_readable_recording(
    folder: Path,
) -> None:
    before = leftovers()
    run = ("lab", "run", "handshake", "--variation", "ipv4", "--results", "results")
    with subprocess.Popen(
        command(*run), cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True
    ) as client:
        found: list[Path] = []
        deadline = time.monotonic() + 200
        while not found and time.monotonic() < deadline:
            found = list(folder.glob("results/handshake/*/ipv4/captures/*.pcap"))
            time.sleep(0.05)
        assert found, "the lab is under way"
        time.sleep(2.5)
        below = descendants(client.pid)
        launcher = next(pid for pid, _ in below if parent(pid) == client.pid)
        kernel = next(pid for pid, _ in below if parent(pid) == launcher)
        os.kill(kernel, signal.SIGKILL)
        _, talk = client.communicate(timeout=120)
    assert client.returncode == 5
    assert "the guest ended before its time" in talk
    assert "Traceback" not in talk
    assert gone(below)
    assert leftovers() == before
    manifest = json.loads((found[0].parents[1] / "manifest.json").read_text())
    assert manifest["status"] == "running"
