from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.person import NOBODY, Person, ordinary_prefix, without_what_python_forgets
from tests.conftest import ROOT
from tests.engine.leftovers import is_dead

pytestmark = pytest.mark.needs("netns", "userns", "ping")

DUMBBELL = "topologies/dumbbell.yaml"
PAIR = "topologies/two-hosts.yaml"


def make(kind: str) -> Person:
    if kind == "self":
        return Person((sys.executable, "-W", "error"), uid=os.geteuid())
    if os.geteuid() != 0:
        pytest.skip("the user who runs the tests is an ordinary one already")
    prefix = ordinary_prefix()
    if prefix is None:
        pytest.skip("no interpreter here that another user can run netlab with")
    return Person(prefix, uid=NOBODY)


@pytest.fixture(scope="module", params=["self", "ordinary"])
def lab(request: pytest.FixtureRequest) -> Iterator[Person]:
    """Somebody whose dumbbell runs; tests leave it as it is."""
    person = make(request.param)
    try:
        told = person.run("up", DUMBBELL)
        assert told.returncode == 0, told.stderr
        assert re.match(r"lab dumbbell is up: 6 nodes, 5 links, \d+\.\d+ s\n", told.stderr)
        yield person
    finally:
        person.close()


@pytest.fixture(params=["self", "ordinary"])
def person(request: pytest.FixtureRequest) -> Iterator[Person]:
    person = make(request.param)
    try:
        yield person
    finally:
        person.close()


@pytest.fixture
def me() -> Iterator[Person]:
    person = make("self")
    try:
        yield person
    finally:
        person.close()


def test_up_exec_down_as_in_the_readme(person: Person) -> None:
    person.ok("up", DUMBBELL)
    assert "1 received" in person.ok("exec", "h1", "--", "ping", "-c1", "-W10", "h4")
    assert person.run("down").stderr == "lab dumbbell is gone\n"
    assert json.loads(person.ok("status", "--json")) == []
    assert list(person.state.iterdir()) == []


def test_up_twice_says_so_and_changes_nothing(lab: Person) -> None:
    before = lab.ok("status", "--json")
    again = lab.run("up", DUMBBELL)
    assert again.returncode == 0
    assert again.stderr == "lab dumbbell is up already; nothing changed\n"
    assert lab.ok("status", "--json") == before


def test_down_twice_is_fine(me: Person) -> None:
    me.ok("up", PAIR)
    assert me.run("down", PAIR).stderr == "lab two-hosts is gone\n"
    for arguments in ((), ("two-hosts",), (PAIR,), ("--all",)):
        again = me.run("down", *arguments)
        assert again.returncode == 0
        assert "nothing to do" in again.stderr


def test_another_network_under_the_same_name_is_refused(lab: Person) -> None:
    done = lab.run("up", PAIR, "--name", "dumbbell")
    assert done.returncode == 2
    assert "runs already, with another network; run `netlab down dumbbell` first" in done.stderr


@pytest.mark.parametrize("name", ["", "a/b", ".", "-x", "x" * 200, "a b"])
def test_a_name_that_cannot_be_is_refused(me: Person, name: str) -> None:
    done = me.run("up", PAIR, f"--name={name}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not me.state.exists()


def test_status_and_inspect_tell_the_lab(lab: Person) -> None:
    (found,) = json.loads(lab.ok("status", "--json"))
    assert found["name"] == "dumbbell"
    assert (found["nodes"], found["links"], found["phase"]) == (6, 5, "up")
    assert found["rootless"] == lab.ordinary
    assert found["topology"] == str(ROOT / DUMBBELL)
    assert "dumbbell" in lab.ok("status")
    seen = json.loads(lab.ok("inspect", "--json"))
    assert set(seen["nodes"]) == {"h1", "h2", "h3", "h4", "left", "right"}
    inode = lab.ok("exec", "h2", "stat", "-Lc", "%i", "/proc/self/ns/net")
    assert seen["nodes"]["h2"]["namespace"] == int(inode)
    (eth0,) = seen["nodes"]["h2"]["interfaces"]
    assert eth0["mac"] in lab.ok("exec", "h2", "ip", "link", "show", "eth0")
    for address in eth0["addresses"]:
        assert address in lab.ok("exec", "h2", "ip", "address", "show", "eth0")
    assert "h2" in lab.ok("inspect")


def test_the_status_of_a_command_is_the_status_of_exec(lab: Person) -> None:
    assert lab.run("exec", "h1", "--", "sh", "-c", "exit 7").returncode == 7
    assert lab.run("exec", "h1", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    assert lab.run("exec", "h1", "true").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("h1", "nonesuch"), 127, "netlab: nonesuch: No such file or directory"),
        (("h1", "/etc/passwd"), 126, "netlab: /etc/passwd: Permission denied"),
        (("h11", "true"), 125, "lab 'dumbbell' has no node 'h11'; did you mean 'h1'?"),
        (("--lab", "other", "h1", "true"), 125, "no lab called 'other' runs; running: dumbbell"),
        (("--lob", "x", "h1", "true"), 125, "No such option"),
        (("h1",), 125, "Missing argument"),
        (("h1", "--"), 125, "no command to run"),
        (("h1", "-t", "--", "true"), 125, "options such as -t go before NODE"),
    ],
)
def test_failures_of_exec_itself_have_statuses_of_their_own(
    lab: Person, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = lab.run("exec", *arguments)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_streams_environment_and_directory_are_those_of_the_caller(lab: Person) -> None:
    assert lab.ok("exec", "h1", "cat", stdin="x" * 300_000) == "x" * 300_000
    done = lab.run("exec", "h1", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    lab.env["FOR_THE_TEST"] = "seen"
    told = lab.ok(
        "exec", "h1", "sh", "-c", "echo $FOR_THE_TEST $NETLAB_NODE $NETLAB_LAB; pwd; umask"
    )
    assert told.splitlines()[:2] == ["seen h1 dumbbell", str(ROOT)]


def test_a_closed_standard_input_is_no_harm(lab: Person) -> None:
    argv = ["sh", "-c", 'exec "$@" <&-', "sh", *lab.argv("exec", "h1", "cat")]
    done = subprocess.run(argv, env=lab.env, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def wait_for_line(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == wanted + "\n"


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT"])
def test_signals_reach_the_command(lab: Person, name: str) -> None:
    script = f"trap 'echo got {name}; exit 5' {name}; echo on; while :; do sleep 0.01; done"
    with lab.start("exec", "h1", "sh", "-c", script) as process:
        wait_for_line(process, "on")
        process.send_signal(getattr(signal, f"SIG{name}"))
        wait_for_line(process, f"got {name}")
        assert process.wait(60) == 5


def test_a_signal_that_kills_the_command_is_seen_in_the_status(lab: Person) -> None:
    with lab.start("exec", "h1", "sh", "-c", "echo on; exec sleep 60") as process:
        wait_for_line(process, "on")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT


def processes(lab: Person) -> list[dict[str, object]]:
    return json.loads(lab.ok("inspect", "--json"))["processes"]


def test_the_command_dies_with_its_client(lab: Person) -> None:
    script = "trap '' HUP TERM; echo on; while :; do sleep 0.1; done"
    with lab.start("exec", "h1", "sh", "-c", script) as process:
        wait_for_line(process, "on")
        assert len(processes(lab)) == 1
        # The client may be a child of a wrapper that drops privileges; they share the pid.
        process.kill()
        process.wait()
    end = time.monotonic() + 60
    while processes(lab):
        assert time.monotonic() < end, "the command outlived its client"
        time.sleep(0.05)


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


class Terminal:
    """A person at a terminal who starts a netlab command."""

    def __init__(self, person: Person, *arguments: str, rows: int = 31, columns: int = 97) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            resize(0, rows, columns)
            argv = person.argv(*arguments)
            os.execvpe(argv[0], argv, {**person.env, "TERM": "dumb", "SHELL": "/bin/sh"})
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        resize(self.fd, rows, columns)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, wanted: str, timeout: float = 60) -> None:
        end = time.monotonic() + timeout
        while wanted not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"no {wanted!r} in {self.seen!r}"
            if not select.select([self.fd], [], [], left)[0]:
                continue
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except OSError:
                assert wanted in self.seen, f"ended without {wanted!r}: {self.seen!r}"
        self.seen = self.seen.partition(wanted)[2]

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_a_terminal_of_its_own_has_the_size_of_ours_and_follows_it(lab: Person) -> None:
    script = "trap 'echo now $(stty size)' WINCH; tty; stty size; while :; do sleep 0.02; done"
    terminal = Terminal(lab, "exec", "-t", "h1", "sh", "-c", f"sleep 0.2; {script}")
    terminal.expect("/dev/pts/")
    terminal.expect("31 97")
    terminal.resize(11, 33)
    terminal.expect("now 11 33")
    terminal.type("\x03")
    assert terminal.wait() == 128 + signal.SIGINT


def test_ctrl_c_typed_in_the_terminal_is_for_what_runs_in_front(lab: Person) -> None:
    terminal = Terminal(lab, "shell", "h1")
    terminal.type("echo here $NETLAB_NODE; sleep 99\n")
    terminal.expect("here h1")
    time.sleep(0.2)
    terminal.type("\x03")
    terminal.type("echo still $((40+2)); exit 3\n")
    terminal.expect("still 42")
    assert terminal.wait() == 3


def test_a_shell_reads_commands_from_a_pipe_too(lab: Person) -> None:
    lab.env["SHELL"] = "/bin/sh"
    assert lab.ok("shell", "h3", stdin="echo $NETLAB_NODE\n") == "h3\n"


def test_nodes_know_each_other_by_name_and_the_machine_does_not(lab: Person) -> None:
    before = Path("/etc/hosts").read_text()
    for name in ("h1", "h4", "left"):
        told = lab.ok("exec", "h3", "getent", "hosts", name)
        assert name in told
    assert lab.run("exec", "h3", "getent", "hosts", "deb.debian.org").returncode != 0
    assert Path("/etc/hosts").read_text() == before
    assert str(lab.state) not in Path("/proc/self/mountinfo").read_text()


def test_background_programs_write_logs(person: Person) -> None:
    person.ok("up", PAIR)
    late = person.folder / "late"
    script = (
        "echo one; echo two >&2; echo half; "
        f"until test -e {late}; do sleep 0.02; done; echo later; sleep 60"
    )
    done = person.run("exec", "--detach", "--name", "talker", "client", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    again = person.run("exec", "--detach", "--name", "talker", "client", "true")
    assert again.returncode == 125
    assert "runs in node 'client' already" in again.stderr
    said = ("client talker stdout: one\n", "client talker stderr: two\n", "stdout: half\n")
    end = time.monotonic() + 60
    while not all(line in (told := person.ok("logs", "client")) for line in said):
        assert time.monotonic() < end, told
        time.sleep(0.02)
    assert person.ok("logs", "server") == ""
    with person.start("logs", "-f") as following:
        assert following.stdout is not None
        first = [following.stdout.readline() for _ in range(3)]
        assert all(line.startswith("client talker ") for line in first)
        late.touch()
        assert following.stdout.readline() == "client talker stdout: later\n"
        person.ok("down")
        assert following.wait(60) == 0


def test_several_labs_with_equal_nodes_run_side_by_side(me: Person) -> None:
    for name in ("one", "two", "three"):
        me.ok("up", PAIR, "--name", name)
    unclear = me.run("exec", "client", "true")
    assert unclear.returncode == 125
    assert "3 labs run (one, three, two); say which with --lab NAME" in unclear.stderr
    inodes = {
        me.ok("exec", "--lab", name, "client", "stat", "-Lc", "%i", "/proc/self/ns/net")
        for name in ("one", "two", "three")
    }
    assert len(inodes) == 3
    assert me.run("down").returncode == 2
    me.ok("down", "two")
    assert [lab["name"] for lab in json.loads(me.ok("status", "--json"))] == ["one", "three"]
    me.ok("down", "--all")
    assert json.loads(me.ok("status", "--json")) == []


def test_a_dead_lab_is_swept_by_the_next_command(person: Person) -> None:
    person.ok("up", PAIR)
    (found,) = json.loads(person.ok("status", "--json"))
    os.kill(found["pid"], signal.SIGKILL)
    end = time.monotonic() + 30
    while not is_dead(found["pid"]):
        assert time.monotonic() < end
    assert person.run("exec", "client", "true").returncode == 125
    assert list(person.state.iterdir()) == []
    person.ok("up", PAIR)


def test_state_of_another_boot_is_swept(person: Person) -> None:
    person.ok("up", PAIR)
    folder = person.state / "two-hosts"
    stale = person.state / "old"
    shutil.copytree(folder, stale, ignore=lambda _, names: {"control"} & set(names))
    state = json.loads((stale / "state.json").read_text())
    (stale / "state.json").write_text(json.dumps({**state, "boot": "another"}))
    if person.ordinary:
        for path in (stale, *stale.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    assert [lab["name"] for lab in json.loads(person.ok("status", "--json"))] == ["two-hosts"]
    assert not stale.exists()


def test_a_stopped_supervisor_is_ended_all_the_same(me: Person) -> None:
    me.ok("up", PAIR)
    (found,) = json.loads(me.ok("status", "--json"))
    os.kill(found["pid"], signal.SIGSTOP)
    done = me.run("down")
    assert done.returncode == 0, done.stderr
    assert list(me.state.iterdir()) == []


def test_ctrl_c_at_any_moment_of_up_leaves_nothing_half_built(me: Person) -> None:
    interrupted = 0
    for attempt in range(12):
        with me.start("up", DUMBBELL) as process:
            # Python itself answers with a traceback before it has come to the first line of ours.
            maps = Path(f"/proc/{process.pid}/maps")
            while "_yaml" not in maps.read_text() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(0.015 * attempt)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert "Traceback" not in without_what_python_forgets(told), told
        if process.returncode == 0:
            me.ok("down")
        else:
            interrupted += 1
        assert json.loads(me.ok("status", "--json")) == []
        assert not me.state.exists() or list(me.state.iterdir()) == []
    assert interrupted


def inputs(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.yaml" for name in ("missing", "empty", "binary", "invalid")}
    paths["directory"] = folder
    paths["empty"].write_bytes(b"")
    paths["binary"].write_bytes(bytes(range(256)))
    paths["invalid"].write_text("nodes: [a, b\n")
    return paths


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "binary", "invalid"])
def test_what_is_no_topology_is_refused_with_a_sentence(
    me: Person, kind: str, tmp_path: Path
) -> None:
    done = me.run("up", str(inputs(tmp_path)[kind]))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert not me.state.exists() or list(me.state.iterdir()) == []


def test_dry_run_builds_nothing(me: Person) -> None:
    assert "ip netns add h1" in me.ok("up", DUMBBELL, "--dry-run")
    assert not me.state.exists()


@pytest.mark.parametrize("way", ["limit", "chroot"])
def test_where_user_namespaces_are_forbidden_the_remedy_is_told(me: Person, way: str) -> None:
    argv = " ".join(me.argv("up", PAIR, "--rootless"))
    if way == "limit":
        script = f"echo 0 > /proc/sys/user/max_user_namespaces && exec {argv}"
        prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script)
        reason = r"\(No space left on device\); run `sudo sysctl user\.max_user_namespaces="
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root for chroot")
        script = f"mount --rbind / /mnt && cd {ROOT} && exec chroot /mnt sh -c 'cd {ROOT}; {argv}'"
        prefix = ("unshare", "--mount", "sh", "-c", script)
        reason = r"\(Operation not permitted\); run "
    done = subprocess.run(
        prefix, env=me.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 4, done.stderr
    assert re.match(rf"error: user namespaces are not allowed here {reason}", done.stderr)
    assert done.stderr.count("\n") == 1
    assert json.loads(me.ok("status", "--json")) == []


def test_doctor_finds_out_by_doing(person: Person) -> None:
    done = person.run("doctor", "--json")
    assert done.returncode == 0, done.stderr
    findings = {f"{f['group']}/{f['what']}": f for f in json.loads(done.stdout)}
    assert findings["labs/a lab can be built"]["level"] == "ok"
    assert findings["links/veth"]["level"] == "ok"
    assert findings["qdiscs/tbf"]["level"] in ("ok", "missing")
    for finding in findings.values():
        assert finding["level"] == "ok" or finding["remedy"], finding
    assert json.loads(person.ok("status", "--json")) == []
    assert "labs can be built here" in person.ok("doctor")


def test_exec_imports_nothing_heavy(lab: Person) -> None:
    code = (
        "import sys; sys.argv[:] = ['netlab', 'exec', 'h1', 'true']\n"
        "before = set(sys.modules)  # the machine's own sitecustomize may be heavy\n"
        "from netlab.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'yaml', 'pydantic', 'rich', 'ipaddress', 'subprocess'}"
        " & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        (*lab.prefix, "-c", code),
        env=lab.env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.needs("netns")
@pytest.mark.parametrize("room", ["8k", "12k", "16k"])
def test_a_full_disk_for_what_is_written_down_is_one_sentence(tmp_path: Path, room: str) -> None:
    script = (
        f"mount -t tmpfs -o mode=700,size={room} none {tmp_path} && "
        f"head -c 4096 /dev/zero >{tmp_path}/x && "
        f"NETLAB_STATE_DIR={tmp_path} {sys.executable} -m netlab up {DUMBBELL}"
    )
    prefix = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run(
        [*prefix, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (2, 5), done.stderr
    (sentence,) = done.stderr.splitlines()
    assert "No space left on device" in sentence
    assert "None" not in sentence


def test_reboot_of_a_node(person: Person) -> None:
    person.ok("up", PAIR)
    before = person.ok("exec", "server", "ip", "-br", "address", "show", "eth0")
    person.ok("exec", "server", "ip", "address", "add", "192.0.2.9/32", "dev", "lo")
    done = person.run("reboot", "server")
    assert done.stderr == "node server of lab two-hosts has been rebooted\n"
    assert person.ok("exec", "server", "ip", "-br", "address", "show", "eth0") == before
    assert "192.0.2.9" not in person.ok("exec", "server", "ip", "address")
    assert "1 received" in person.ok("exec", "client", "ping", "-c1", "-W10", "server")
    for words, message in (
        (("sever",), "has no node 'sever'; did you mean 'server'?"),
        (("server", "--off", "soon"), "--off: "),
    ):
        done = person.run("reboot", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
