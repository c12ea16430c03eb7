from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.engine.hold import Match
from netlab.engine.node import Ready
from netlab.engine.stage import Stage, open_stage
from netlab.errors import CommandError, NotReadyError, OperationError
from netlab.plan.build import build
from netlab.plan.operations import AddAddress, Plan, SetSysctl
from tests.engine.conftest import Notebook
from tests.engine.networks import host_router_host

pytestmark = pytest.mark.needs("netns", "userns")

SERVER = "import socket, sys; socket.create_server(('', int(sys.argv[1]))).accept()"


@pytest.fixture
def stage(notebook: Notebook, rootless: bool) -> Iterator[Stage]:
    topology = host_router_host()
    with open_stage(topology, notebook, rootless=rootless, plan=build(topology)) as stage:
        yield stage


def server(port: int) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-I", "-S", "-c", SERVER, str(port))


@pytest.mark.needs("ping")
def test_packets_cross_the_router_by_name_and_by_both_protocols(stage: Stage) -> None:
    for version in ("-4", "-6"):
        told = stage.node("h1").run(["ping", version, "-c1", "-W2", "h2"]).stdout
        assert "1 received" in told
        assert "ttl=63" in told


def test_a_packet_on_a_link_is_a_packet_of_the_wire(stage: Stage) -> None:
    told = stage.node("h1").run(["/usr/sbin/ethtool", "-k", "eth0"]).stdout
    for feature in ("tx-checksumming", "generic-segmentation-offload", "generic-receive-offload"):
        assert f"{feature}: off" in told
    assert "tx-tcp-segmentation: off" in told


def test_run_returns_what_a_program_said_and_how_it_ended(stage: Stage) -> None:
    node = stage.node("h1")
    done = node.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.started_ns < done.ended_ns <= time.time_ns()
    assert node.run(["cat"], input="x" * 500_000).stdout == "x" * 500_000
    assert node.run(["sh", "-c", "kill -9 $$"], check=False).status == -9
    assert node.run(["sh", "-c", "echo $ADDED; pwd"], env={"ADDED": "yes"}, cwd="/usr").stdout == (
        "yes\n/usr\n"
    )


def test_run_does_not_wait_for_what_a_program_left_behind(stage: Stage) -> None:
    began = time.monotonic()
    assert stage.node("h1").run(["sh", "-c", "sleep 30 & echo done"]).stdout == "done\n"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["false"], r"`false` in node 'h1' failed: exit status 1"),
        (["sh", "-c", "echo why >&2; exit 4"], r"exit status 4; it said:\n  why"),
        (["nonesuch"], r"cannot run 'nonesuch' in node 'h1': No such file or directory"),
        (["/etc/passwd"], r"cannot run '/etc/passwd' in node 'h1': Permission denied"),
        ([], r"no command to run in node 'h1'"),
    ],
)
def test_a_command_that_fails_says_so(stage: Stage, argv: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        stage.node("h1").run(argv)


def test_a_command_that_takes_too_long_is_killed_with_its_children(stage: Stage) -> None:
    argv = ["sh", "-c", "sleep 60 & trap '' TERM; wait; sleep 60"]
    with pytest.raises(CommandError, match=r"took longer than 0\.1 s and was killed"):
        stage.node("h1").run(argv, timeout=0.1)
    stage.until(
        lambda: "sleep 60" not in stage.node("h1").run(["ps", "ax"]).stdout,
        timeout=20, what="the kernel to end it",
    )  # fmt: skip


def test_a_port_is_ready_only_when_a_new_socket_waits_on_it(stage: Stage) -> None:
    with stage.node("h2").spawn("server", server(5000), ready=Ready.port(5000)) as running:
        assert running.alive
        assert running.ready_ns is not None
        assert running.ready_ns > running.started_ns
        argv = ["sh", "-c", "exit 3"]
        with pytest.raises(CommandError, match="ended before it was ready"):
            stage.node("h2").spawn("second", argv, ready=Ready.port(5000))
        never = Ready.port(5000, timeout=0.1)
        with pytest.raises(NotReadyError, match="a listening tcp port 5000"):
            stage.node("h1").spawn("other-node", ["sleep", "9"], ready=never)


def test_readiness_by_line_file_and_command(stage: Stage, tmp_path: Path) -> None:
    node, path = stage.node("h1"), tmp_path / "made"
    argv = ["sh", "-c", f"sleep 0.05; echo hello 42; touch {path}; exec sleep 60"]
    for ready in (
        Ready.line(r"^hello \d+$"),
        Ready.file(path),
        Ready.command(["test", "-e", path]),
    ):
        with node.spawn("program", list(map(str, argv)), ready=ready) as running:
            assert running.ready_ns
        path.unlink(missing_ok=True)


def test_output_and_outcome_of_a_program_lie_in_the_recording(
    stage: Stage, notebook: Notebook
) -> None:
    import json

    argv = ["sh", "-c", "echo out; echo err >&2"]
    with stage.node("h1").spawn("program", argv) as running:
        done = running.wait(60)
    folder = notebook.path / "nodes" / "h1"
    assert (folder / "program.stdout.log").read_text() == "out\n"
    assert (folder / "program.stderr.log").read_text() == "err\n"
    record = json.loads((folder / "program.json").read_text())
    assert record["argv"] == argv
    assert record["status"] == 0
    assert record["started_ns"] == done.started_ns
    assert record["ended_ns"] == done.ended_ns


def test_a_background_program_that_dies_early_is_an_error_at_the_end_of_its_block(
    stage: Stage,
) -> None:
    with (
        pytest.raises(CommandError, match=r"'dies' .* ended early: exit status 9.*\n  no luck"),
        stage.node("h1").spawn("dies", ["sh", "-c", "echo no luck >&2; exit 9"]) as running,
    ):
        running.wait(60)


def test_stopping_is_gentle_first_and_certain_in_the_end(stage: Stage) -> None:
    gentle = ["sh", "-c", "trap 'echo bye; exit 0' TERM; echo on; while :; do sleep 0.01; done"]
    with stage.node("h1").spawn("gentle", gentle, ready=Ready.line("on")) as running:
        assert running.stop().status == 0
        assert running.stdout == "on\nbye\n"
    stubborn = ["sh", "-c", "trap '' TERM; setsid sleep 77 & echo on; while :; do sleep 1; done"]
    with stage.node("h1").spawn("stubborn", stubborn, ready=Ready.line("on")) as running:
        assert running.stop(grace=0.1).status == -signal.SIGKILL


def test_processes_of_the_lab_have_a_pid_on_the_machine(stage: Stage) -> None:
    with stage.node("h1").spawn("sleeper", ["sleep", "60"]) as running:
        line = Path(f"/proc/{running.pid}/cmdline")
        stage.until(
            lambda: line.read_bytes() == b"sleep\x0060\x00", timeout=30, what="the command line"
        )


def test_the_clock_is_the_one_captures_stamp_with(stage: Stage, notebook: Notebook) -> None:
    before, now, after = time.time_ns(), stage.now_ns(), time.time_ns()
    assert before <= now <= after
    with stage.phase("quiet"):
        stage.settle(0.05, because="the test wants to see a pause")
    kinds = [(kind, at) for kind, at, _ in notebook.events]
    names = [kind for kind, _ in kinds]
    assert names == ["lab-up", "phase-start", "settle", "phase-end"]
    stamps = [at for _, at in kinds if at is not None]
    assert stamps == sorted(stamps)
    assert stamps[3] - stamps[1] >= 50_000_000


def test_until_gives_up_and_says_on_what(stage: Stage) -> None:
    with pytest.raises(NotReadyError, match=r"waited 0\.05 s in vain for a miracle"):
        stage.until(lambda: False, timeout=0.05, what="a miracle")


@pytest.mark.needs("nft")
@pytest.mark.parametrize("tool", ["nft", "iptables-legacy"])
def test_packets_are_held_until_released(
    stage: Stage, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, node = stage.node("h1"), stage.node("h2")
    if tool == "iptables-legacy":
        run = node.run

        def without_nft(argv: tuple[str, ...], **options: object):
            return run(["false"] if argv[0] == "nft" else argv, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(node, "run", without_nft)
    connect = "import socket,sys;socket.create_connection(('10.0.2.1',5000)).close()"
    with (
        node.spawn("server", server(5000), ready=Ready.port(5000)),
        node.hold(Match(tcp_flags="syn,ack", mask="syn,ack", sport=5000)) as held,
        client.spawn("client", ["/usr/bin/python3", "-I", "-S", "-c", connect]) as running,
    ):
        stage.until(lambda: held.packets() > 0, timeout=60, what="a SYN-ACK to be held")
        assert "SYN-SENT" in client.run(["ss", "-tan"]).stdout
        held.release()
        assert running.wait(60).status == 0
        assert held.packets() >= 1
    if tool == "nft":
        assert node.run(["nft", "list", "ruleset"]).stdout == ""


def test_a_refused_operation_names_its_line(notebook: Notebook, rootless: bool) -> None:
    topology = host_router_host()
    plan = build(topology)
    addresses = [o for o in plan.operations if isinstance(o, AddAddress)]
    twice = Plan(topology, (*plan.operations, addresses[0]))
    message = r"hrh.yaml:6:1: add address eth0 10\.0\.1\.1/24 in node 'h1': .*(exists|assigned)"
    with (
        pytest.raises(OperationError, match=message),
        open_stage(topology, notebook, rootless=rootless, plan=twice),
    ):
        pytest.fail("the lab came up")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("net.ipv4.nonesuch", "1", "No such file or directory; this kernel has no such setting"),
        ("net.ipv4.ip_forward", "dog", "Invalid argument"),
        ("net.ipv4.tcp_congestion_control", "dog", "No such file or directory"),
        ("kernel.pid_max", "5000", "outside net"),
        ("net/../kernel.pid_max", "5000", "outside net"),
        ("net.ipv4.ip_default_ttl", " 064", "the kernel kept '52' instead"),
    ],
)
def test_a_sysctl_that_does_not_stick_is_an_error(
    notebook: Notebook, key: str, value: str, message: str
) -> None:
    topology = host_router_host()
    node = topology.node("h1")
    plan = build(topology)
    wrong = SetSysctl("h1", key, value, node.mark)
    with (
        pytest.raises(OperationError, match=message) as caught,
        open_stage(topology, notebook, plan=Plan(topology, (*plan.operations, wrong))),
    ):
        pytest.fail("the lab came up")
    assert f"sysctl {key} = {value} in node 'h1'" in str(caught.value)


def test_two_stages_of_one_topology_run_side_by_side(
    notebook: Notebook, tmp_path: Path, state_dir: Path
) -> None:
    topology = host_router_host()
    plan = build(topology)
    with (
        open_stage(topology, notebook, plan=plan) as one,
        open_stage(topology, Notebook(tmp_path / "b"), plan=plan) as two,
    ):
        assert {path.name for path in state_dir.iterdir()} == {"hrh~1", "hrh~2"}
        inode = ["stat", "-Lc", "%i", "/proc/self/ns/net"]
        assert one.node("h1").run(inode).stdout != two.node("h1").run(inode).stdout
    assert list(state_dir.iterdir()) == []


def test_leaving_by_exception_takes_the_lab_away(notebook: Notebook, state_dir: Path) -> None:
    pids: list[int] = []

    def fail() -> None:
        with (
            open_stage(host_router_host(), notebook) as stage,
            stage.node("h1").spawn("sleeper", ["sleep", "60"]) as running,
        ):
            pids.append(running.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(state_dir.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
