"""The hello server and client, run by hand in two ways."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import netlab.agents.hello as hello

ALONE = [sys.executable, "-I", "-S", str(Path(hello.__file__).resolve())]
MODULE = [sys.executable, "-m", "netlab.agents.hello"]


def start(argv: Sequence[str], **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload]


@pytest.mark.parametrize("program", [ALONE, MODULE], ids=["alone", "module"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_client_receives_what_the_server_says(program: list[str], address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as sock:
            sock.bind((address, 0))
    except OSError:
        pytest.skip(f"{address} is not available")
    server = start([*program, "serve", "--address", address, "--port", "0"])
    assert server.stdout is not None
    told, port = server.stdout.readline().removesuffix("\n").rsplit("=", 1)
    assert told == f'listening address="{address}" port'
    client = subprocess.run(
        [*program, "connect", address, "--port", port],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert 'received bytes=5 text="hello"' in client.stdout.splitlines()
    out, _ = server.communicate(timeout=20)
    assert server.returncode == 0
    assert [line.split()[0] for line in out.splitlines()] == ["accepted", "sent", "closed"]


def test_readiness_is_also_told_through_a_descriptor() -> None:
    reader, writer = os.pipe()
    argv = [*ALONE, "serve", "--address", "127.0.0.1", "--port", "0", "--ready-fd", str(writer)]
    server = start(argv, pass_fds=(writer,))
    os.close(writer)
    with os.fdopen(reader) as ready:
        assert ready.read() == "listening\n"
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 130
    server.communicate()


def test_a_refused_client_says_so_and_fails() -> None:
    with socket.socket() as deaf:  # it has the port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        argv = [*ALONE, "connect", "127.0.0.1", "--port", str(deaf.getsockname()[1])]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert 'failed errno="ECONNREFUSED"' in done.stdout
    assert done.stderr == ""


def test_stepping_waits_for_the_signal() -> None:
    server = start([*ALONE, "serve", "--address", "127.0.0.1", "--port", "0", "--step"])
    assert server.stdout is not None
    port = int(server.stdout.readline().rpartition("=")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        server.stdout.readline()
        assert server.stdout.readline() == 'waiting before="send"\n'
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(10)
        sock.settimeout(20)
        server.send_signal(signal.SIGUSR1)
        assert sock.recv(10) == b"hello"
        server.stdout.readline()
        assert server.stdout.readline() == 'waiting before="close"\n'
        server.send_signal(signal.SIGUSR1)
        assert sock.recv(10) == b""
    assert server.wait(20) == 0
    server.communicate()
