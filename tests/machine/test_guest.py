from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.errors import CapabilityError, CommandError, EngineError, UsageError
from netlab.machine import guest as module
from netlab.machine.guest import GuestMachine, find_kernel
from netlab.machine.guest_agent import GuestAgent, GuestProcess
from tests.conftest import ROOT
from tests.guest import in_guest, script
from tests.pings import assert_least_rtt

uml = pytest.mark.needs("uml")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def guest(kept: Path) -> Iterator[GuestMachine]:
    with GuestMachine(writable=(kept,)) as machine:
        yield machine


def test_a_missing_guest_kernel_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KERNEL", "no-such-kernel")
    with pytest.raises(CapabilityError, match=r"no-such-kernel.*apt-get install user-mode-linux"):
        find_kernel()


def test_a_writable_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        GuestMachine(writable=(tmp_path / "absent",))


def test_a_command_begun_as_the_guest_ends_does_not_wait_for_ever() -> None:
    ours, theirs = socket.socketpair()
    agent = GuestAgent()
    theirs.close()
    with ours:
        agent.read(ours)
        late = GuestProcess(agent, ("true",))
        agent.reserve(late)
        with pytest.raises(EngineError, match="the guest ended before its time"):
            late.follow({}, timeout=10)


@uml
def test_output_and_status_come_back_apart_and_whole(guest: GuestMachine) -> None:
    done = guest.run(["sh", "-c", r"printf 'a\0\377\r\n'; echo b >&2; exit 7"])
    assert (done.status, done.stdout, done.stderr) == (7, b"a\0\xff\r\n", b"b\n")


@uml
def test_a_signal_gives_the_status_a_shell_gives(guest: GuestMachine) -> None:
    assert guest.run(["sh", "-c", "kill -9 $$"]).status == 128 + signal.SIGKILL


@uml
def test_megabytes_pass_both_ways_unchanged(guest: GuestMachine) -> None:
    data = random.Random(1).randbytes(1_000_000)
    done = guest.run(["tee", "/dev/stderr"], input=data)
    wanted = hashlib.sha256(data).digest()
    assert hashlib.sha256(done.stdout).digest() == wanted
    assert hashlib.sha256(done.stderr).digest() == wanted


@uml
def test_output_streams_while_the_command_runs(guest: GuestMachine) -> None:
    asked = guest.spawn(["sh", "-c", "echo 1; read answer; echo 2 $answer"], stdin=True)
    came: list[bytes] = []

    def hear(data: bytes) -> None:
        came.append(data)
        if data == b"1\n":  # without an answer it would not end
            asked.send(b"heard\n")

    assert asked.follow({b"1": hear}, timeout=60) == 0
    assert [data for data in came if data] == [b"1\n", b"2 heard\n"]


@uml
def test_commands_run_side_by_side_and_a_silent_one_holds_up_nobody(guest: GuestMachine) -> None:
    stuck = guest.spawn(["head", "-c", "1000000", "/dev/zero"])
    assert guest.run(["echo", "on"]).stdout == b"on\n"
    assert len(stuck.wait(60).stdout) == 1_000_000


@uml
def test_descriptor_three_is_a_channel(guest: GuestMachine) -> None:
    echo = guest.spawn(["sh", "-c", "cat <&3 >&3"], channel=True)
    echo.send(b"there and back", b"3")
    echo.close(b"3")
    back = bytearray()
    assert echo.follow({b"3": back.extend}, timeout=60) == 0
    assert bytes(back) == b"there and back"


@uml
def test_a_terminal_is_one_and_has_a_size(guest: GuestMachine) -> None:
    shell = guest.spawn(["sh", "-c", "stty size; tty"], terminal=(33, 99))
    assert shell.wait(60).stdout.split() == [b"33", b"99", b"/dev/pts/0"]


@uml
def test_environment_and_folder_are_the_callers(guest: GuestMachine, kept: Path) -> None:
    done = guest.run(["sh", "-c", "pwd; echo $COLOUR"], cwd=kept, env={"COLOUR": "blue"})
    assert done.stdout.decode() == f"{kept}\nblue\n"


@uml
def test_writable_folders_keep_what_is_written_and_others_do_not(
    guest: GuestMachine, kept: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    guest.run(["sh", "-c", f"echo kept >{kept}/file; echo gone >{mark}; echo gone >/etc/netlab"])
    assert (kept / "file").read_text() == "kept\n"
    assert (kept / "file").stat().st_uid == os.geteuid()
    assert not mark.exists()
    assert not Path("/etc/netlab").exists()
    assert script(guest, f"cat {mark} /etc/netlab") == "gone\ngone\n"


@uml
def test_a_command_that_does_not_exist_or_does_not_end_is_an_error(guest: GuestMachine) -> None:
    with pytest.raises(CommandError, match="cannot run no-such-command"):
        guest.run(["no-such-command"])
    with pytest.raises(CommandError, match=r"longer than 0\.3 s"):
        guest.run(["sleep", "100"], timeout=0.3)
    deadline = time.monotonic() + 30  # it would sleep for longer
    while "sleep" in script(guest, "ps -e -o comm"):
        assert time.monotonic() < deadline


@uml
def test_a_daemon_left_behind_does_not_hold_up_the_result(guest: GuestMachine) -> None:
    began = time.monotonic()
    assert guest.run(["sh", "-c", "sleep 60 & echo started"]).stdout == b"started\n"
    assert time.monotonic() - began < 30


@uml
def test_modules_load_on_demand(guest: GuestMachine) -> None:
    script(
        guest,
        """
        ip link add name br0 type bridge
        ip link add v0 type veth peer name v1
        ip tuntap add dev tap0 mode tap
        tc qdisc add dev v0 root fq_codel
        test -f /sys/fs/cgroup/cgroup.procs
        mkdir /sys/fs/cgroup/lab
        test -f /proc/sys/net/ipv6/conf/all/accept_dad
        iptables-legacy -A OUTPUT -p tcp --dport 9 -j DROP
        for link in br0 v0 tap0; do ip link del $link; done
        """,
    )


CHAIN = """
n=0
while [ $n -le 10 ]; do ip netns add h$n; n=$((n+1)); done
n=0
while [ $n -lt 10 ]; do
    m=$((n+1))
    echo "link add name right netns h$n type veth peer name left netns h$m"
    n=$m
done | ip -batch -
n=0
while [ $n -le 10 ]; do
    ip netns exec h$n sh -euc '
        n=$1
        echo 1 >/proc/sys/net/ipv4/ip_forward
        for side in right left; do
            [ -e /proc/sys/net/ipv4/conf/$side ] || continue
            case $side in right) here=1 link=$n;; left) here=2 link=$((n-1));; esac
            ip addr add 10.0.$link.$here/24 dev $side
            ip link set $side up
            tc qdisc add dev $side root netem delay 10ms
        done
        if [ $n -lt 10 ]; then ip route add default via 10.0.$n.2
        else ip route add default via 10.0.9.1; fi
        if [ $n -gt 0 ] && [ $n -lt 10 ]; then
            lower=0; while [ $lower -lt $((n-1)) ]; do
                ip route add 10.0.$lower.0/24 via 10.0.$((n-1)).1; lower=$((lower+1))
            done
        fi
    ' sh $n
    n=$((n+1))
done
ip netns exec h0 ping -c 1 -W 5 10.0.9.2 >/dev/null
"""


@uml
def test_ten_delays_of_ten_milliseconds_each_way_make_two_hundred(guest: GuestMachine) -> None:
    script(guest, CHAIN, timeout=200)
    ping = "ip netns exec h0 ping -c 5 -i 0.3 -q 10.0.9.2"
    assert_least_rtt(lambda: script(guest, ping), 200, 220)


@uml
def test_a_project_command_runs_with_the_checkouts_environment() -> None:
    done = in_guest(["python", "-m", "netlab", "--help"])
    assert done.status == 0, done.stderr
    assert b"Usage" in done.stdout


CONTROLLER = """
import sys
from netlab.machine.guest import GuestMachine
with GuestMachine() as guest:
    print(guest.run(["id", "-u"]).stdout.decode().strip(), flush=True)
    guest.run({argv!r}, timeout=60, stdout=lambda d: print(d.decode(), end="", flush=True))
"""


WITHOUT_NAMESPACES = """
echo 0 >/proc/sys/user/max_user_namespaces
exec setpriv --inh-caps=-all --ambient-caps=-all "$@"
"""


def controller(
    argv: list[str], *, user: int | None = None, namespaces: bool = True
) -> subprocess.Popen[str]:
    """A process of its own that boots a guest and runs a command in it."""
    words = [sys.executable, "-c", textwrap.dedent(CONTROLLER.format(argv=argv))]
    if user is not None:
        reachable = Path(sys.base_prefix).owner() != "root" or readable_by_all(sys.base_prefix)
        if not reachable:
            words[0] = shutil.which("python3", path="/usr/bin:/usr/local/bin") or words[0]
        if not namespaces:
            closed = ["sh", "-euc", WITHOUT_NAMESPACES, "sh"]
            words = ["unshare", "--user", "--map-current-user", "--keep-caps", *closed, *words]
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        start_new_session=True,
    )


def readable_by_all(path: str) -> bool:
    folders = [Path(path), *Path(path).parents]
    return all(folder.stat().st_mode & 0o001 for folder in folders)


def descendants(pid: int) -> set[tuple[int, str]]:
    """The processes below `pid`, with their start times so that a reused number is no match."""
    children: dict[int, set[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), set()).add((int(entry.name), fields[19]))
    found: set[tuple[int, str]] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.add(child)
            waiting.append(child[0])
    return found


def alive(process: tuple[int, str]) -> bool:
    try:
        fields = Path(f"/proc/{process[0]}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z" and fields[19] == process[1]


def gone(processes: set[tuple[int, str]]) -> bool:
    deadline = time.monotonic() + 20
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, processes))


def leftovers() -> set[str]:
    folders = [Path("/dev/shm"), Path("/tmp"), Path.home() / ".uml"]
    names = {str(p) for folder in folders if folder.is_dir() for p in folder.iterdir()}
    return {name for name in names if "guest" in name or "uml" in name or "vm_file" in name}


@uml
@pytest.mark.parametrize("victim", ["controller", "launcher", "kernel"])
def test_sigkill_of_anything_leaves_nothing(victim: str) -> None:
    before = leftovers()
    with controller(["sh", "-c", "echo up; while :; do :; done"]) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["0\n", "up\n"]
            below = descendants(process.pid)
            assert len(below) >= 3, "launcher, kernel and at least one stub"
            launcher = next(p for p in below if parent(p[0]) == process.pid)
            kernel = next(p for p in below if parent(p[0]) == launcher[0])
            chosen = {"controller": process.pid, "launcher": launcher[0], "kernel": kernel[0]}
            os.kill(chosen[victim], signal.SIGKILL)
            assert gone(below)
            process.wait(60)
        finally:
            process.kill()
    assert leftovers() == before


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


@uml
@pytest.mark.needs("root")
def test_an_ordinary_user_is_root_inside() -> None:
    before = leftovers()
    argv = ["sh", "-c", "ip netns add x && tc qdisc add dev lo root netem delay 1ms && echo ok"]
    with controller(argv, user=65534) as process:
        out, _ = process.communicate(timeout=120)
    assert out == "0\nok\n"
    assert leftovers() == before


@uml
@pytest.mark.needs("root", "userns")
def test_where_user_namespaces_are_closed_it_works_too_and_leaves_nothing() -> None:
    before = leftovers()
    argv = ["sh", "-c", "echo up; while :; do :; done"]
    with controller(argv, user=65534, namespaces=False) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["0\n", "up\n"]
        assert leftovers() > before, "a folder while it runs"
        below = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        assert gone(below)
    deadline = time.monotonic() + 20
    while leftovers() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers() == before


@uml
def test_an_interrupt_reaches_the_command_and_then_ends_the_guest() -> None:
    argv = ["sh", "-c", "trap 'echo bye; exit 3' INT; echo up; while :; do sleep 0.1; done"]
    with controller(argv) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["0\n", "up\n"]
        below = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        assert gone(below)
        assert process.returncode == -signal.SIGINT


@uml
def test_a_guest_that_dies_is_an_error_with_its_last_words() -> None:
    with GuestMachine() as guest, pytest.raises(EngineError, match="Kernel panic"):
        guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"], timeout=120)


@uml
def test_a_kernel_that_is_none_is_an_error() -> None:
    with pytest.raises(EngineError, match="ended while booting"):
        GuestMachine(kernel=Path("/bin/false")).start()
