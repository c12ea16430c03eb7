"""The crowd: clients and servers, well behaved and otherwise."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import netlab.agents.crowd as crowd
from netlab.analysis import output

ALONE = [sys.executable, "-I", "-S", str(Path(crowd.__file__).resolve())]


def serve(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    argv = [*ALONE, "serve", "--address", "127.0.0.1", "--port", "0", *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    (step,) = output.parse(process.stdout.readline())
    return process, str(step["port"])


def connect(port: str, *arguments: str) -> list[output.Step]:
    argv = [*ALONE, "connect", "127.0.0.1", "--port", port, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    return list(output.parse(done.stdout))


def end(process: subprocess.Popen[str]) -> output.Step:
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    return output.parse(out)[-1]


def test_a_good_server_closes_what_it_has_read() -> None:
    server, port = serve("--behave", "reads", "--count", "50")
    (total,) = connect(port, "--count", "50", "--each", "close")
    assert (total["count"], total["failed"]) == (50, {})
    out, _ = server.communicate(timeout=20)  # it ends when the fiftieth has gone
    standing = output.parse(out)[-1]
    assert (standing["open"], standing["leaked"]) == (0, 0)


def test_a_leaking_server_holds_a_file_per_client_until_it_can_hold_no_more() -> None:
    server, port = serve("--behave", "leak", "--files", "20", "--backlog", "100")
    (total,) = connect(port, "--count", "40", "--each", "close")
    assert total["count"] == 40
    assert server.stdout is not None
    (failed,) = output.parse(server.stdout.readline())
    assert (failed.word, failed["errno"]) == ("failed", "EMFILE")
    server.send_signal(signal.SIGTERM)
    out, _ = server.communicate(timeout=20)
    standing = next(step for step in output.parse(out) if step.word == "standing")
    assert standing["accepted"] < 20
    assert standing["files"] >= 15


def test_clients_that_stay_learn_what_became_of_their_connections() -> None:
    server, port = serve("--behave", "close")
    argv = [*ALONE, "connect", "127.0.0.1", "--port", port, "--count", "5", "--stay"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    assert process.stdout.readline().startswith("waiting")
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as sixth:
        assert sixth.recv(1) == b""  # closed, and so the five before it
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=20)
    assert dict(output.parse(out)[0].values)["eof"] == 5
    end(server)


def test_refused_clients_are_counted_by_errno() -> None:
    with socket.socket() as deaf:  # it has the port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        for words in ((), ("--at-once",)):
            (total,) = connect(str(deaf.getsockname()[1]), "--count", "3", *words)
            assert total["failed"] == {"ECONNREFUSED": 3}


def test_a_pool_asks_over_and_over() -> None:
    server, port = serve("--behave", "echo")
    total, asked = connect(port, "--count", "3", "--requests", "20")
    assert total["count"] == 3
    assert (asked["requests"], asked["answered"], asked["connections"]) == (20, 20, 3)
    assert end(server)["accepted"] == 3


def test_a_server_that_does_not_answer_is_no_echo() -> None:
    server, port = serve("--behave", "close")
    _, asked = connect(port, "--count", "2", "--requests", "2")
    assert (asked["requests"], asked["answered"]) == (2, 0)
    end(server)
