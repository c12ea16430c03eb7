"""The bulk programs: what was sent is what was received, and both sides can tell."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.agents import bulk
from netlab.analysis import output

PROGRAM = [sys.executable, "-I", "-S", str(Path(bulk.__file__))]


def serving(*words: str, command: str = "serve") -> tuple[subprocess.Popen[str], str]:
    program = subprocess.Popen(
        [*PROGRAM, command, "--port", "0", *words], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    (step,) = output.parse(program.stdout.readline())
    return program, str(step["port"])


def steps(text: str) -> dict[str, output.Step]:
    return {step.word: step for step in output.parse(text)}


@pytest.mark.parametrize("length", [0, 1, 70_000, 300_001])
def test_octets_depend_on_their_position_alone(length: int) -> None:
    whole = b"".join(bulk.octets(at, length - at) for at in range(0, length, bulk.PIECE))
    assert len(whole) == length
    assert all(whole[at] == at % 251 for at in range(0, length, 9973))
    assert bulk.octets(1000, 10) == bytes((1000 + n) % 251 for n in range(10))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_transfer_with_greeting_and_reply(address: str) -> None:
    words = ("--greeting", "10", "--reply", "70000")
    server, port = serving("--bytes", "200000", *words)
    client = [*PROGRAM, "send", address, "--port", port, "--bytes", "200000", *words]
    said = subprocess.run(client, capture_output=True, text=True, timeout=30, check=True).stdout
    told, _ = server.communicate(timeout=30)
    here, there = steps(said), steps(told)
    assert here["greeted"]["bytes"] == there["greeted"]["bytes"] == 10
    assert there["received"]["as_sent"] is True
    assert here["received"]["bytes"] == 70_000
    whole = b"".join(bulk.octets(at, 200_000 - at) for at in range(0, 200_000, bulk.PIECE))
    assert there["received"]["sha256"] == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("words", [(), ("--one-cpu",)])
def test_on_one_processor(words: tuple[str, ...]) -> None:
    own = os.sched_getaffinity(0)
    server, _ = serving(*words)
    try:
        assert os.sched_getaffinity(server.pid) == ({min(own)} if words else own)
    finally:
        server.kill()
        server.communicate(timeout=30)


def test_a_slow_reader_takes_its_time() -> None:
    server, port = serving("--read-rate", "100000")
    client = [*PROGRAM, "send", "127.0.0.1", "--port", port, "--bytes", "50000", "--drain"]
    subprocess.run(client, capture_output=True, timeout=30, check=True)
    told, _ = server.communicate(timeout=30)
    assert steps(told)["received"]["seconds"] >= 0.4


def test_datagrams() -> None:
    server, port = serving("--count", "2", command="listen")
    sizes = ("--sizes", "1000,0")
    client = [*PROGRAM, "datagrams", "127.0.0.1", "--port", port, *sizes, "--discover", "do"]
    subprocess.run(client, capture_output=True, timeout=30, check=True)
    told, _ = server.communicate(timeout=30)
    found = [s for s in output.parse(told) if s.word == "datagram"]
    assert [(s["bytes"], s["as_sent"]) for s in found] == [(1000, True), (0, True)]


def test_nobody_listens() -> None:
    argv = [*PROGRAM, "send", "127.0.0.1", "--port", "1", "--bytes", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert steps(done.stdout)["failed"]["errno"] == "ECONNREFUSED"
