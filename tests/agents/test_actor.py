"""The actor does what its command line says, and says what it did."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import netlab.agents.actor as actor
from netlab.analysis import output

ALONE = [sys.executable, "-I", "-S", str(Path(actor.__file__).resolve())]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ALONE, "--address", "127.0.0.1", "--congestion", "", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def words(text: str) -> list[str]:
    return [step.word for step in output.parse(text)]


def test_a_conversation_is_played_and_told() -> None:
    server = start("--port", "0", "reuse", "listen", "accept", "recv=5", "send=7", "wait", "close")
    assert server.stdout is not None
    server.stdout.readline()
    port = output.parse(server.stdout.readline())[0]["port"]
    client = start("--port", str(port), "connect", "send=5", "shutdown", "recv-eof", "close")
    for _ in range(4):
        said = server.stdout.readline()
    assert said.startswith("waiting")
    server.send_signal(signal.SIGUSR1)
    out, err = client.communicate(timeout=20)
    assert (client.returncode, err) == (0, "")
    assert words(out) == ["connecting", "connected", "sent", "shut", "received", "closed"]
    assert output.parse(out)[4]["bytes"] == 7
    out, _ = server.communicate(timeout=20)
    assert words(out) == ["resumed", "closed"]
    assert server.returncode == 0


@pytest.mark.parametrize("keep", [True, False])
def test_what_fails_is_told_with_its_errno(keep: bool) -> None:
    more = ["--keep-going"] if keep else []
    process = start(*more, "--port", "1", "connect", "send=1")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0 if keep else 1, "")
    steps = [step for step in output.parse(out) if step.word == "failed"]
    assert [step["errno"] for step in steps] == ["ECONNREFUSED", "ENOTCONN"][: 2 if keep else 1]


def test_keepalive_tells_the_times_that_count() -> None:
    server = start("--port", "0", "listen", "accept", "recv-eof")
    assert server.stdout is not None
    port = output.parse(server.stdout.readline())[0]["port"]
    client = start("--port", str(port), "connect", "keepalive=60/10/5", "close")
    out, _ = client.communicate(timeout=20)
    told = output.parse(out)[2]
    assert [told[name] for name in ("idle", "interval", "probes")] == [60, 10, 5]
    server.communicate(timeout=20)


def test_an_unknown_action_is_one_sentence() -> None:
    process = start("connect", "dance")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err.startswith("actor: 'dance' is no action; there are listen, accept")
