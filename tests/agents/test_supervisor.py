"""The supervisor as a file on its own: where it starts, what it refuses, what it hands on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from netlab.engine import state, supervisor
from netlab.engine.supervisor import AGENT
from netlab.errors import CapabilityError
from netlab.plan.build import build
from tests.engine.networks import two_hosts

pytestmark = pytest.mark.needs("netns", "userns")


def in_private_namespace(body: str) -> subprocess.CompletedProcess[str]:
    """Run Python beside the supervisor's code, as root of a fresh network namespace."""
    prelude = f"""
        import importlib.util, os, sys, ctypes
        spec = importlib.util.spec_from_file_location("supervisor", {str(AGENT)!r})
        supervisor = importlib.util.module_from_spec(spec)
        sys.modules["supervisor"] = supervisor
        spec.loader.exec_module(supervisor)
        machine = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        identity = supervisor.network_identity()
        NEWNET = supervisor.CLONE_NEWNET
        def refused(action, *arguments):
            try:
                action(*arguments)
            except supervisor.RefusedError as refusal:
                return refusal.fields["kind"]
            except OSError as error:
                return error.strerror
            return "done"
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(body)
    flags = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    argv = ["unshare", "--net", *flags, sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)


def test_it_imports_nothing_but_the_standard_library_and_starts_quickly() -> None:
    code = f"import runpy, sys; runpy.run_path({str(AGENT)!r}); print(*sorted(sys.modules))"
    argv = [sys.executable, "-I", "-S", "-c", code]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    modules = {name.partition(".")[0] for name in told.split()}
    assert modules <= {*sys.stdlib_module_names, "__main__"}
    slow = {
        "subprocess",
        "asyncio",
        "pathlib",
        "dataclasses",
        "inspect",
        "threading",
        "typing_extensions",
    }
    assert not modules & (slow - {"threading"})


def test_it_works_from_a_copied_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "elsewhere" / "s.py"
    copy.parent.mkdir()
    shutil.copyfile(AGENT, copy)
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    held = state.claim(tmp_path / "lab")
    assert held is not None
    topology = two_hosts()
    started = supervisor.start(held, "lab", foreground=True, rootless=True, agent=copy)
    try:
        started.build(build(topology))
        started.commit()
    finally:
        started.end()
    assert not (tmp_path / "lab").exists()


def test_it_refuses_to_begin_in_the_network_namespace_of_the_machine() -> None:
    done = in_private_namespace("print(refused(supervisor.Namespaces, identity))")
    assert done.stdout == "guard\n", done.stderr


def test_entering_checks_where_it_arrived() -> None:
    done = in_private_namespace("""
        supervisor.unshare("network", NEWNET)
        spaces = supervisor.Namespaces(identity)
        closed = os.open("/", os.O_RDONLY); os.close(closed)
        here = lambda: supervisor.network_identity()
        home = here()
        print(refused(spaces.enter, closed, "a closed descriptor"), here() == home)
        print(refused(spaces.enter, machine, "the machine"), here() == identity)
        spaces.leave()
        print(here() == home)
        spaces.create("a"); inside = here(); spaces.leave()
        with spaces.inside("a"):
            print(here() == inside, here() != home)
        print(here() == home)
        def lost():
            with spaces.inside("b"):
                pass
        print(refused(lost), here() == home)
        print(refused(spaces.create, "a"))
    """)
    assert done.stdout.splitlines() == [
        "Bad file descriptor True",
        "guard True",
        "True",
        "True True",
        "True",
        "unknown True",
        "exists",
    ], done.stderr


def test_a_libc_whose_setns_does_nothing_is_noticed() -> None:
    done = in_private_namespace("""
        supervisor.unshare("network", NEWNET)
        spaces = supervisor.Namespaces(identity)
        spaces.create("a"); spaces.leave()
        class Liar:
            def setns(self, *arguments): return 0
        supervisor._libc = Liar()
        print(refused(spaces.enter, spaces.nodes["a"], "node 'a'"))
    """)
    assert done.stdout == "guard\n", done.stderr


def test_sysctls_outside_the_network_are_refused() -> None:
    done = in_private_namespace("""
        for path in ("/proc/sys/kernel/pid_max", "/proc/sys/net/../kernel/pid_max", "/etc/hosts"):
            print(refused(supervisor.write_sysctl, path, "1", 0))
    """)
    assert done.stdout == "operation\n" * 3, done.stderr


@pytest.mark.parametrize("rootless", [True, None])
def test_its_programs_inherit_nothing_they_should_not(
    tmp_path: Path, rootless: bool | None
) -> None:
    held = state.claim(tmp_path / "lab")
    assert held is not None
    topology = two_hosts()
    started = supervisor.start(held, "lab", foreground=True, rootless=rootless)
    try:
        started.build(build(topology))
        started.commit()
        code = (
            "import json, os, resource, signal;"
            "fds = {int(fd) for fd in os.listdir('/proc/self/fd')};"
            "lines = [line.split() for line in open('/proc/self/status')];"
            "blocked = [line[1] for line in lines if line[0] in ('SigBlk:', 'SigIgn:')];"
            "print(json.dumps([sorted(fds)[:3], len(fds), blocked, os.getsid(0) == os.getpid(),"
            " resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.getppid()]))"
        )
        read, write = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        request = {
            "do": "spawn", "node": "h1", "argv": ["/usr/bin/python3", "-I", "-S", "-c", code],
            "env": {}, "cwd": "/", "tag": 1,
        }  # fmt: skip
        answer = started.channel.request(request, (null, write, 2))
        os.close(write)
        os.close(null)
        assert "error" not in answer, answer
        event = started.channel.event(1, ("exit",), 20)
        assert event is not None
        assert event["status"] == 0
        fds, count, blocked, leader, limit, parent = json.loads(os.read(read, 4096))
        os.close(read)
    finally:
        started.end()
    assert fds == [0, 1, 2]
    assert count == 4  # the fourth is the listing itself
    # Python ignores PIPE and XFSZ in itself, the C library its own 32 and 33 in what it spawns.
    others = sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ, 32, 33))
    assert [int(mask, 16) & ~others for mask in blocked] == [0, 0]
    assert leader
    assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert parent == 1


def test_a_supervisor_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        AGENT.read_text().replace(
            "def new_user_namespace() -> None:\n",
            "def new_user_namespace() -> None:\n    raise OSError(1, 'simulated')\n",
        )
    )
    held = state.claim(tmp_path / "lab")
    assert held is not None
    started = supervisor.start(held, "lab", foreground=True, rootless=True, agent=broken)
    with pytest.raises(CapabilityError, match="user namespaces are not allowed here"):
        started.build(build(two_hosts()))
    started.end()
    assert not (tmp_path / "lab").exists()
