"""`netlab capture`: a live lab's packets in a pipe, a file and on the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from netlab import _core
from tests.cli import called
from tests.cli.person import Person
from tests.cli.test_lifecycle import make
from tests.conftest import ROOT

pytestmark = pytest.mark.needs("netns", "userns", "tcpdump", "ping")

DUMBBELL = "topologies/dumbbell.yaml"
COUNT = 3000
PORT = 9999
# UDP to a port where nobody listens: h4 answers with ICMP, so each number is followed by others.
SEND = f"""
import socket, struct, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({COUNT}):
    sock.sendto(struct.pack("!I", number) + bytes(400), (sys.argv[1], {PORT}))
    if number % 20 == 19:
        time.sleep(0.004)
"""


@pytest.fixture(scope="module", params=["self", "ordinary"])
def lab(request: pytest.FixtureRequest) -> Iterator[Person]:
    person = make(request.param)
    try:
        person.ok("up", DUMBBELL)
        yield person
    finally:
        person.close()


class Running:
    """A capture whose output goes to a file or a pipe, and which has begun."""

    def __init__(self, person: Person, *arguments: str, out: int) -> None:
        self.process = subprocess.Popen(
            person.argv("capture", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env=person.env,
            cwd=ROOT,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line.startswith("capturing at "), line + self.process.stderr.read()

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=120)
        return self.process.returncode, said


def address(person: Person, node: str) -> str:
    (found,) = json.loads(person.ok("inspect", "--json"))["nodes"][node]["interfaces"]
    return found["addresses"][0].partition("/")[0]


def numbers(frames: list[tuple[int, int, int, int, bytes]], target: str) -> list[int]:
    """The numbers of the datagrams among Ethernet frames, in the order of the file."""
    wanted = bytes(map(int, target.split(".")))
    return [
        int.from_bytes(data[42:46])
        for *_, data in frames
        if data[12:14] == b"\x08\x00" and data[23] == 17 and data[30:34] == wanted
    ]


@pytest.mark.needs("tshark")
def test_a_numbered_stream_is_whole_and_in_order_at_three_interfaces(lab: Person) -> None:
    path = lab.folder / "three.pcapng"
    with path.open("wb") as file:
        running = Running(lab, "h1:eth0", "h4", "left:eth2", "-w", "-", out=file.fileno())
        target = address(lab, "h4")
        lab.ok("exec", "h1", "--", "python3", "-c", SEND, target)
        status, said = running.interrupt()
    assert status == 0, said
    frames = _core.frames(path)
    stamps = [at for _, at, *_ in frames]
    assert stamps == sorted(stamps)
    found = numbers(frames, target)
    assert sorted(found) == sorted([*range(COUNT)] * 3)
    totals = _core.summarize(path).totals
    assert totals["warnings"] == []
    assert [i["name"] for i in totals["interfaces"]] == ["h1:eth0", "h4:eth0", "left:eth2"]
    assert all((i["dropped"], i["os_dropped"]) == (0, 0) for i in totals["interfaces"])
    assert all(i["received"] >= i["packets"] >= COUNT for i in totals["interfaces"])
    assert f"{totals['packets']} packets\n" in said
    # tshark agrees, packet by packet, and sees each interface count up on its own.
    argv = ["tshark", "-n", "-r", str(path), "-T", "fields", "-Y", "udp.port == 9999 && !icmp"]
    argv += ["-e", "frame.interface_name", "-e", "udp.payload"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    seen: dict[str, list[int]] = {}
    for line in text.splitlines():
        name, payload = line.split("\t")
        seen.setdefault(name, []).append(int(payload.replace(":", "")[:8], 16))
    assert seen == {key: [*range(COUNT)] for key in ("h1:eth0", "h4:eth0", "left:eth2")}


def test_packets_come_while_the_capture_runs(lab: Person) -> None:
    """A ping is in the pipe while nothing else happens and nobody ends the capture."""
    read, write = os.pipe()
    running = Running(lab, "h1:eth0", "h2:eth0", "icmp", "-w", "-", out=write)
    os.close(write)
    lab.ok("exec", "h1", "ping", "-4", "-c", "1", "-p", "6e65746c6162", "h2")
    data = b""
    while data.count(6 * b"netlab") < 4:
        assert select.select([read], [], [], 60)[0], "the packets did not come"
        data += os.read(read, 1 << 16)
    assert running.process.poll() is None
    os.close(read)  # the reader goes, and no further packet is needed to notice
    status, said = running.end()
    assert (status, said) == (0, "4 packets\n")


def test_count_snaplen_and_filter(lab: Person) -> None:
    path = lab.folder / "ten.pcapng"
    where = ("h1:eth0", "h2:eth0", "icmp", "and", "host", "h2")
    running = Running(lab, *where, "-c", "10", "-s", "60", "-w", str(path), out=subprocess.DEVNULL)
    lab.ok("exec", "h1", "ping", "-4", "-c", "5", "-i", "0.01", "h2")
    status, said = running.end()
    assert (status, said) == (0, "10 packets\n")
    frames = _core.frames(path)
    assert [(length, len(data)) for _, _, length, _, data in frames] == [(98, 60)] * 10
    (first, second) = _core.summarize(path).totals["interfaces"]
    assert first["filter"] == second["filter"] == "icmp and host h2"
    assert path.stat().st_uid == (os.geteuid() if not lab.ordinary else path.parent.stat().st_uid)


def test_a_line_for_each_packet(lab: Person) -> None:
    path = lab.folder / "lines"
    with path.open("wb") as file:
        running = Running(lab, "h1:eth0", "right:eth1", "icmp", out=file.fileno())
        lab.ok("exec", "h1", "ping", "-4", "-c", "2", "-i", "0.01", "h3")
        status, said = running.interrupt()
    lines = path.read_text().splitlines()
    assert (status, said) == (0, f"{len(lines)} packets\n")
    kinds = [
        re.fullmatch(r"(\d\d:\d\d:\d\d\.\d{6}) (\S+) +IP \S+ > \S+: ICMP echo (\w+), .*", line)
        for line in lines
    ]
    told = [kind.groups()[1:] for kind in kinds if kind is not None]
    assert told == 2 * [
        ("h1:eth0", "request"),
        ("right:eth1", "request"),
        ("right:eth1", "reply"),
        ("h1:eth0", "reply"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("h1:eth0", "h9:eth0"), "error: lab 'dumbbell' has no node 'h9'"),
        (("hl:eth0",), "has no node 'hl'; it has h1, h2, left"),
        (("h1:eht0",), "error: node 'h1' has no interface 'eht0'; did you mean 'h1:eth0'?"),
        (("h1:eth0", "tcp", "prt", "80"), "error: the filter 'tcp prt 80': "),
        (("h1:eth0", "--", "-w", "/tmp/x"), "error: a filter does not begin with '-'"),
        (("h1:eth0", "-w", "/nowhere/x"), "error: cannot write /nowhere/x: No such file"),
        (("h1:eth0", "-c", "0"), "0 is not in the range x>=1"),
        (("h1:eth0", "-s", "0"), "0 is not in the range 1<=x<="),
    ],
)
def test_what_cannot_be_captured_is_one_sentence(
    lab: Person, words: tuple[str, ...], message: str
) -> None:
    done = lab.run("capture", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_gets_no_packets_as_bytes(lab: Person) -> None:
    master, slave = pty.openpty()
    done = subprocess.run(
        lab.argv("capture", "h1:eth0", "-w", "-"),
        stdout=slave, stderr=subprocess.PIPE, text=True, env=lab.env, cwd=ROOT, timeout=30,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert "error: -w - would write a capture to the terminal" in done.stderr


@pytest.fixture
def me() -> Iterator[Person]:
    person = Person((sys.executable, "-W", "error"), uid=os.geteuid())
    try:
        person.ok("up", DUMBBELL)
        yield person
    finally:
        person.close()


def test_it_can_be_ended_as_soon_as_it_says_that_it_has_begun(
    me: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = click.echo

    def echo_and_interrupt(message: str, **more: bool) -> None:
        echo(message, **more)
        if message.startswith("capturing at "):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(click, "echo", echo_and_interrupt)
    done = called.netlab("capture", "h1:eth0", "icmp", NETLAB_STATE_DIR=str(me.state))
    assert (done.returncode, done.stderr) == (0, "capturing at h1:eth0\n0 packets\n")


def test_a_full_disk_is_named(me: Person) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            me.argv("capture", "h1:eth0", "-w", "-"),
            stdout=full, stderr=subprocess.PIPE, text=True, env=me.env, cwd=ROOT, timeout=30,
        )  # fmt: skip
    assert done.returncode == 5
    assert "error: no space left for standard output" in done.stderr


def test_it_ends_with_what_it_watches(me: Person) -> None:
    """A node that reboots ends its own capture alone; a lab that goes ends all."""
    path = me.folder / "x.pcapng"
    running = Running(me, "h1:eth0", "h2:eth0", "icmp", "-w", str(path), out=subprocess.DEVNULL)
    me.ok("exec", "h1", "ping", "-4", "-c", "1", "h2")
    me.ok("reboot", "h1")
    me.ok("link", "h2:eth0", "down")
    me.ok("link", "h2:eth0", "up")
    me.ok("exec", "h2", "ping", "-4", "-c", "1", "h1")
    me.ok("down")
    status, said = running.end()
    assert "the lab dumbbell has ended" in said
    assert "error: the capture at h1:eth0 ended early" in said
    assert (status, said.count("\n")) == (5, 3)
    totals = _core.summarize(path).totals
    assert totals["warnings"] == []
    assert [i["packets"] for i in totals["interfaces"]] == [2, 4]


def test_a_pipe_that_nobody_reads_is_waited_for_until_an_interrupt(lab: Person) -> None:
    fifo = lab.folder / "unread"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    with lab.start("capture", "h1", "-w", str(fifo)) as waiting:
        place = Path(f"/proc/{waiting.pid}/wchan")
        end = time.monotonic() + 60
        while (told := place.read_text()) != "wait_for_partner":  # of fifo_open in fs/pipe.c
            assert time.monotonic() < end, told
            time.sleep(0.02)
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(60) == 130
