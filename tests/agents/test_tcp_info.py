"""The sampler: decoding of any bytes, and the states of real sockets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netlab.agents.tcp_info as agent

PROGRAM = str(Path(agent.__file__).resolve())
ALONE = [sys.executable, "-I", "-S", PROGRAM]


def namespace(*argv: str) -> list[str]:
    flags = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    return ["unshare", *flags, *argv]


def inside(program: str, **more: str) -> list[dict[str, Any]]:
    """Run a Python program in a fresh namespace, its loopback up, and return its JSON lines."""
    done = subprocess.run(
        namespace(
            "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", program
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "AGENT": PROGRAM, **more},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_layout_follows_the_kernel_header() -> None:
    offsets = {name: offset for name, _, offset in agent.LAYOUT}
    assert offsets["rto"] == 8
    assert offsets["total_retrans"] == 100
    assert offsets["pacing_rate"] == 104
    assert offsets["delivery_rate"] == 160
    assert offsets["bytes_sent"] == 200
    assert offsets["snd_wnd"] == 228
    assert offsets["total_rto_time"] == 244


@given(st.binary(max_size=400))
def test_a_tcp_info_of_any_length_gives_what_is_whole(data: bytes) -> None:
    info = agent.decode_info(data)
    for name, layout, offset in agent.LAYOUT:
        whole = offset + layout.size <= len(data)
        assert (name in info) == whole
    assert ("tail" in info) == (len(data) > agent.KNOWN)


@given(st.binary(min_size=72, max_size=600))
def test_any_message_body_is_decoded_without_an_error(data: bytes) -> None:
    found = agent.decode_socket(data)
    json.dumps(found)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_read_back_as_they_were(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(
        struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)
        for kind, payload in pairs
    )
    assert list(agent.attributes(data)) == pairs


@given(st.binary(max_size=200))
def test_damaged_attributes_end_quietly(data: bytes) -> None:
    assert sum(len(payload) + 4 for _, payload in agent.attributes(data)) <= len(data) + 4


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--every", "2"], "outside 1ms…1s"),
        (["--every", "fast"], "is not a time"),
        (["--every", "100us"], "outside 1ms…1s"),
        (["--busy"], "--busy needs --for"),
    ],
)
def test_periods_that_make_no_sense_are_refused(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        agent.parse(argv)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_a_namespace_that_is_not_there_is_one_sentence() -> None:
    argv = [*ALONE, "--netns", "a=/nonexistent/ns", "--for", "1s"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "tcp_info: No such file or directory /nonexistent/ns\n"


@pytest.mark.needs("netns")
@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_both_ends_and_the_listener_are_seen(family: str, address: str) -> None:
    program = f"""
import os, socket, subprocess, sys
a = socket.socket(socket.{family}); a.bind(({address!r}, 8080)); a.listen(7)
b = socket.create_connection(({address!r}, 8080)); c, _ = a.accept()
b.sendall(b"x" * 1000)
subprocess.run([sys.executable, "-I", "-S", os.environ["AGENT"], "--for", "30ms", "--every",
                "10ms", "--node", "n", "--port", "8080", "--listeners"], check=True)
"""
    lines = inside(program)
    assert lines[0]["nodes"] == ["n"]
    assert lines[0]["schema"] == 1
    assert lines[-1]["reason"] == "time is over"
    sample = lines[1]
    assert sample["took_ns"] > 0
    by_state: dict[str, list[dict[str, Any]]] = {}
    for found in sample["sockets"]:
        by_state.setdefault(found["state"], []).append(found)
    (listener,) = by_state["LISTEN"]
    assert (listener["lport"], listener["wqueue"], listener["local"]) == (8080, 7, address)
    client, server = sorted(by_state["ESTAB"], key=lambda s: s["lport"] == 8080)
    assert client["info"]["bytes_acked"] == 1001
    assert client["info"]["bytes_sent"] == 1000
    assert server["info"]["bytes_received"] == 1000
    assert server["rqueue"] == 1000
    assert client["congestion"]
    assert set(client["skmem"]) == set(agent.SKMEM)
    assert (client["local"], client["lport"]) == (server["remote"], server["rport"])


@pytest.mark.needs("netns")
def test_told_to_stop_it_looks_once_more() -> None:
    program = """
import os, socket, subprocess, sys
a = socket.create_server(("127.0.0.1", 8080))
sampler = subprocess.Popen([sys.executable, "-I", "-S", os.environ["AGENT"], "--every", "1s",
                            "--node", "n", "--listeners"], stdout=subprocess.PIPE, text=True)
for line in sampler.stdout:
    print(line, end="")
    if "LISTEN" in line:
        a.close()
        sampler.terminate()
sys.exit(sampler.wait())
"""
    begin, listening, closed, end = inside(program)
    assert begin["every_s"] == 1
    assert [found["state"] for found in listening["sockets"]] == ["LISTEN"]
    assert closed["sockets"] == []
    assert end["reason"] == "asked"


@pytest.mark.needs("netns")
def test_a_busy_sampler_writes_when_a_state_changes() -> None:
    program = """
import os, socket, subprocess, sys
a = socket.socket(); a.bind(("127.0.0.1", 8080)); a.listen(7)
p = subprocess.Popen([sys.executable, "-I", "-S", os.environ["AGENT"], "--for", "20s", "--every",
                      "1s", "--busy", "--out", "/dev/stderr"], stdout=subprocess.PIPE,
                     stderr=sys.stdout, text=True)
assert p.stdout.readline() == "sampling\\n"
b = socket.create_connection(("127.0.0.1", 8080)); c, _ = a.accept()
def states(): return open("/proc/net/tcp").read()
import time; time.sleep(0.4)
b.close(); time.sleep(0.4); c.close(); time.sleep(0.4)
p.terminate(); assert p.wait() == 0
"""
    lines = inside(program)
    seen = [{s["state"] for s in line["sockets"]} for line in lines[1:-1]]
    for states in (  # the connection may be there before the first sample is
        {"ESTAB"},
        {"FIN-WAIT-2", "CLOSE-WAIT"},
        {"TIME-WAIT"},
    ):
        assert states in seen
    assert lines[-1]["reason"] == "asked"
    assert lines[-1]["samples"] > len(seen)


@pytest.mark.needs("root")
def test_one_process_watches_two_namespaces_and_stays_where_it_is(tmp_path: Path) -> None:
    holders = [
        subprocess.Popen(["unshare", "--net", "sleep", "60"], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    try:
        for holder in holders:
            here = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{holder.pid}/ns/net").readlink() == here:
                pass
        argv = [*ALONE, "--for", "300ms", "--every", "5ms"]
        for name, holder in zip("ab", holders, strict=True):
            argv += ["--netns", f"{name}=/proc/{holder.pid}/ns/net"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["nodes"] == ["a", "b"]
    assert [(line["node"], line["sockets"]) for line in lines[1:3]] == [("a", []), ("b", [])]
    assert lines[-1]["samples"] >= 6


def test_the_size_limit_ends_the_run() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        argv = [*ALONE, "--every", "1ms", "--for", "20s", "--limit", "3000", "--port", port]
        argv.append("--listeners")
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["reason"] == "size limit"


@pytest.mark.skipif(shutil.which("head") is None, reason="no head")
def test_a_closed_pipe_is_no_traceback() -> None:
    writer = subprocess.Popen(
        [*ALONE, "--every", "1ms", "--for", "5s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    writer.terminate()
    assert writer.wait(20) == 0
    assert writer.stderr.read() == ""
    writer.stderr.close()
