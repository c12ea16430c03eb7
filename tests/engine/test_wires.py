"""Links on the userspace wire, for real: sums, counts and ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from netlab import _core
from netlab.analysis.journal import Journal, Record, Verdict
from netlab.engine import channel, lifecycle
from netlab.engine.node import RunningNode
from netlab.engine.stage import Stage, open_stage
from netlab.engine.wires import WireGoneError
from netlab.errors import EngineError, RecordingError
from netlab.model.capabilities import Capabilities
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.plan.backend import Backend
from netlab.plan.build import build
from netlab.plan.operations import Plan
from tests.engine.conftest import Notebook
from tests.engine.leftovers import is_dead
from tests.pings import assert_least_rtt

pytestmark = pytest.mark.needs("netns", "userns")

SENDER = """
import socket, sys, time
to, count = sys.argv[1], int(sys.argv[2])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(count):
    sock.sendto(number.to_bytes(4, "big"), (to, 9999))
    if number % 10 == 0:  # a wire that has to wait for a processor finds all in its queue
        time.sleep(0.002)
"""
# Three segments of data, each acknowledged before the next is sent.
TALK = """
import socket, sys
with socket.create_server(("", 5000)) as listener:
    peer, _ = listener.accept()
    data = b""
    while len(data) < 300:
        data += peer.recv(1000)
        peer.send(b"x")
"""
SPEAK = """
import socket, sys
with socket.create_connection((sys.argv[1], 5000)) as sock:
    for _ in range(3):
        sock.send(b"a" * 100)
        sock.recv(1)
"""


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-I", "-S", "-c", code, *arguments)


def two(words: str) -> Topology:
    return loads(f"name: wires\nnodes: [a, b]\nlinks: [{{name: x, ends: a-b, {words}}}]\n")


def address(stage: Stage, node: str) -> str:
    (end,) = stage.topology.interfaces(node)
    return str(next(a.ip for a in end.addresses if a.version == 4))


def journal(notebook: Notebook) -> Journal:
    return Journal.open(notebook.path / "wire" / "x.journal")


def ported(topology: Topology) -> Plan:
    """A plan whose wires have packet sockets, whatever else the machine allows."""
    return build(topology, Capabilities(wire=True, tun=False), Backend.WIRE)


def kind_of(stage: Stage, node: str) -> str:
    told = json.loads(stage.node(node).run(["ip", "-d", "-j", "link", "show", "eth0"]).stdout)
    return str(told[0]["linkinfo"]["info_kind"])


def play(notebook: Notebook, words: str, count: int) -> Journal:
    with open_stage(two(words), notebook, impair=Backend.WIRE) as stage:
        to = address(stage, "b")
        stage.node("a").run(python(SENDER, to, str(count)), timeout=30)
    return journal(notebook)


@pytest.mark.needs("ping")
def test_ten_delays_of_10_ms_each_way_are_a_round_trip_of_200_ms(
    notebook: Notebook, rootless: bool
) -> None:
    names = [f"n{number}" for number in range(11)]
    nodes = ", ".join(
        f"{name}: {'router' if 0 < n < 10 else 'host'}" for n, name in enumerate(names)
    )
    links = "".join(f"  - {{ends: {a}-{b}, delay: 10ms}}\n" for a, b in pairwise(names))
    chain = loads(f"name: chain\nnodes: {{{nodes}}}\nlinks:\n{links}")
    with open_stage(chain, notebook, rootless=rootless, impair=Backend.WIRE) as stage:
        argv = ["ping", "-c", "20", "-i", "0.05", "-q", "n10"]
        assert_least_rtt(lambda: stage.node("n0").run(argv, timeout=30).stdout, 200, 220)


@pytest.mark.needs("tun", "root")
def test_ends_are_tap_devices_where_the_machine_allows_them(
    notebook: Notebook, rootless: bool
) -> None:
    words = "delay: 1ms, limit: 6000"
    with open_stage(two(words), notebook, rootless=rootless, impair=Backend.WIRE) as stage:
        assert [kind_of(stage, node) for node in "ab"] == ["tun", "tun"]
        assert " qlen 6000\n" in stage.node("a").run(["ip", "link", "show", "eth0"]).stdout
        assert not Path("/sys/class/net/eth0/tun_flags").exists()
    counters = json.loads((notebook.path / "wire" / "x.json").read_text())["links"]["x"]
    assert {counters[end]["kind"] for end in "ab"} == {"tap"}
    assert {counters[end]["device"] for end in "ab"} == {"eth0"}


@pytest.mark.needs("ping")
def test_packet_sockets_do_where_there_is_no_tap(notebook: Notebook, rootless: bool) -> None:
    topology = two("delay: 10ms, mtu: 9000")
    with open_stage(topology, notebook, rootless=rootless, plan=ported(topology)) as stage:
        assert kind_of(stage, "a") == "veth"
        argv = ["ping", "-4", "-c", "20", "-i", "0.05", "-s", "8972", "-M", "do", "-q", "b"]
        assert_least_rtt(lambda: stage.node("a").run(argv, timeout=30).stdout, 20, 22)
    counters = json.loads((notebook.path / "wire" / "x.json").read_text())["links"]["x"]
    assert {counters[end]["kind"] for end in "ab"} == {"packet"}


def may_go_first() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.needs("root", "ping")
@pytest.mark.skipif(not may_go_first(), reason="this machine lets nobody go before others")
def test_a_wire_with_little_to_do_goes_before_other_work(notebook: Notebook) -> None:
    # Idle for longer than it may work without rest (20 ms) before each packet, and while it is on.
    with open_stage(two("delay: 50ms"), notebook, impair=Backend.WIRE) as stage:
        stage.node("a").run(["ping", "-4", "-c", "3", "-i", "0.3", "b"], timeout=30)
        tasks = [int(task.name) for task in Path(f"/proc/{pid_of_wire(notebook)}/task").iterdir()]
        names = {Path(f"/proc/{task}/comm").read_text().strip(): task for task in tasks}
        assert os.sched_getscheduler(names["wire"]) == os.SCHED_FIFO


@pytest.mark.needs("tun", "root")
def test_a_wire_that_is_gone_is_a_cable_that_is_cut(notebook: Notebook) -> None:
    lab, _ = lifecycle.up(two("delay: 1ms"), impair=Backend.WIRE)
    try:
        with contextlib.closing(channel.connect(lab.folder)) as connection:
            node = RunningNode("a", connection, notebook.file)
            look = ["ip", "-br", "link", "show", "eth0"]
            assert "LOWER_UP" in node.run(look).stdout
            (wire,) = (p for p in lifecycle.inspect(lab.id)["processes"] if p["name"] == "wire")
            os.kill(wire["pid"], signal.SIGKILL)
            end = time.monotonic() + 60
            while "NO-CARRIER" not in (told := node.run(look).stdout):
                assert time.monotonic() < end, told
        assert lifecycle.broken(lab) == ["x"]
    finally:
        lifecycle.down(lab)


def test_the_same_seed_loses_the_same_packets_and_another_one_others(notebook: Notebook) -> None:
    first = play(notebook, "loss: 10%, seed: 7", 600).drops(forward=True)
    again = play(notebook, "loss: 10%, seed: 7", 600).drops(forward=True)
    other = play(notebook, "loss: 10%, seed: 8", 600).drops(forward=True)
    assert first == again
    assert first != other


def test_as_many_are_lost_as_asked(notebook: Notebook) -> None:
    counts = play(notebook, "loss: 10%", 4000).count(forward=True)
    assert counts[Verdict.LOSS] + counts[Verdict.DELIVERED] >= 4000
    assert 302 <= counts[Verdict.LOSS] <= 505  # 10 % of 4000, at alpha = 1e-6


@pytest.mark.needs("tcpdump")
def test_the_second_segment_of_data_is_lost_once(notebook: Notebook) -> None:
    words = "delay: 2ms, 'a->b': {drops: [{match: tcp-data, nth: [2]}]}"
    with open_stage(two(words), notebook) as stage:
        there, here = stage.capture("a:eth0"), stage.capture("b:eth0")
        with stage.node("b").spawn("talk", python(TALK)) as talking:
            stage.until(lambda: listens(stage), timeout=60, what="the server to listen")
            stage.node("a").run(python(SPEAK, address(stage, "b")), timeout=20)
            talking.wait(60)
        there.stop()
        here.stop()
    dropped = [r for r in journal(notebook) if r.verdict is Verdict.EXACT]
    assert len(dropped) == 1
    sent = data(notebook.path / "captures" / "a.eth0.pcap")
    assert (sent[1]["seq_raw"], sent[1]["ack_raw"], sent[1]["len"]) == dropped[0].key[2:]
    # Of what follows nothing is lost; a busy machine may see one more sent for want of patience.
    seqs = [row["seq"] for row in sent]
    arrived = [row["seq"] for row in data(notebook.path / "captures" / "b.eth0.pcap")]
    assert arrived == [seqs[0], *seqs[2:]]
    assert set(arrived) == {1, 101, 201}


def listens(stage: Stage) -> bool:
    return ":5000" in stage.node("b").run(["ss", "-Hltn"]).stdout


def data(path: Path) -> list[dict[str, object]]:
    rows = _core.summarize(path, segments=True).segments().to_pylist()
    return [row for row in rows if row["len"] == 100]


def test_a_wire_that_is_killed_ends_the_lab_with_its_name(notebook: Notebook) -> None:
    began = time.monotonic()
    with (  # noqa: PT012
        pytest.raises(WireGoneError, match="wire of link 'x' ended: killed by SIGKILL"),
        open_stage(two("delay: 1ms"), notebook, impair=Backend.WIRE) as stage,
    ):
        stage.node("a").run(python(SENDER, address(stage, "b"), "100"))
        written = notebook.path / "wire" / "x.journal"
        stage.until(
            lambda: written.exists() and written.stat().st_size >= 128 + 100 * 64,
            timeout=60, what="the journal to have them",
        )  # fmt: skip
        os.kill(pid_of_wire(notebook), signal.SIGKILL)
        stage.settle(30, because="it must not take so long")
    assert time.monotonic() - began < 20
    left = journal(notebook)
    assert not left.closed
    assert sum(1 for _ in left) >= 100


def test_a_wire_killed_in_the_last_moment_is_noticed(notebook: Notebook) -> None:
    with (  # noqa: PT012
        pytest.raises(WireGoneError, match="link 'x'"),
        open_stage(two("delay: 1ms"), notebook, impair=Backend.WIRE) as stage,
    ):
        os.kill(pid_of_wire(notebook), signal.SIGKILL)
        end = time.monotonic() + 60
        while Path(f"/proc/{pid_of_wire(notebook)}").exists() and time.monotonic() < end:
            time.sleep(0.01)
    assert stage.topology.name == "wires"


def test_the_end_of_a_wire_of_which_nobody_knows_yet_is_noticed(notebook: Notebook) -> None:
    """The supervisor is held up, and learns of it after the scenario has come to its end."""
    with (  # noqa: PT012
        pytest.raises(WireGoneError, match="wire of link 'x' ended: killed by SIGKILL"),
        open_stage(two("delay: 1ms"), notebook, impair=Backend.WIRE) as stage,
    ):
        wire = pid_of_wire(notebook)
        status = Path(f"/proc/{wire}/status").read_text()
        supervisor = int(status.split("PPid:\t")[1].split()[0])
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(wire, signal.SIGKILL)
        end = time.monotonic() + 10
        while not is_dead(wire) and time.monotonic() < end:
            time.sleep(0.001)
        threading.Timer(0.1, os.kill, (supervisor, signal.SIGCONT)).start()
    assert stage.topology.name == "wires"


def test_a_wire_dies_with_the_supervisor(notebook: Notebook) -> None:
    wire = Path()
    with (  # noqa: PT012
        pytest.raises(EngineError, match="supervisor of the lab is gone"),
        open_stage(two("delay: 1ms"), notebook, impair=Backend.WIRE) as stage,
    ):
        wire = Path(f"/proc/{pid_of_wire(notebook)}")
        status = dict(line.split(":\t") for line in (wire / "status").read_text().splitlines())
        os.kill(int(status["PPid"]), signal.SIGKILL)
        stage.settle(30, because="it must not take so long")
    end = time.monotonic() + 30
    while wire.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not wire.exists()
    assert not journal(notebook).closed


def pid_of_wire(notebook: Notebook) -> int:
    return int(json.loads(notebook.file("nodes/x.wire/wire.json").read_text())["pid"])


@pytest.mark.needs("ping")
def test_a_schedule_runs_on_the_wires_own_clock(notebook: Notebook) -> None:
    words = "delay: 1ms, schedule: [{at: 1500ms, for: 1s, delay: 40ms}]"
    with open_stage(two(words), notebook, impair=Backend.WIRE) as stage:
        told = stage.node("a").run(["ping", "-c", "30", "-i", "0.1", "b"], timeout=60).stdout
    assert "30 received" in told
    # When each came, and for how long it was to stay: whatever else the computer had to do.
    seen = [
        (one.arrival_ns / 1e9, round((one.departure_ns - one.late_ns - one.arrival_ns) / 1e6))
        for one in sorted(journal(notebook), key=lambda one: one.arrival_ns)
    ]
    assert {stay for _, stay in seen} == {1, 40}
    (began, ended) = (number for number, (a, b) in enumerate(pairwise(seen)) if a[1] != b[1])
    assert seen[ended][0] - seen[began + 1][0] < 1 < seen[ended + 1][0] - seen[began][0]


@pytest.mark.parametrize("raw", [b"", b"NLWIREJ\0", b"x" * 200])
def test_what_is_no_journal_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "j").write_bytes(raw)
    with pytest.raises(RecordingError, match="not a journal"):
        Journal.open(tmp_path / "j")


def test_a_journal_that_ends_anywhere_keeps_its_whole_records(notebook: Notebook) -> None:
    whole = play(notebook, "loss: 10%", 20)
    records: list[Record] = list(whole)
    raw = whole.path.read_bytes()
    for cut in (128, 129, 128 + 63, 128 + 64, len(raw) - 1):
        whole.path.write_bytes(raw[:cut])
        assert list(Journal.open(whole.path)) == records[: (cut - 128) // 64]
