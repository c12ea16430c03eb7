"""The wait of the bring-up bench: no namespace is left of those that had lost their last user."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# A user namespace counts its network namespaces until the kernel is through with them, and
# unshare(2) refuses one beyond the limit in this file (namespaces(7)).
COUNTED = """
import ctypes, os, socket, sys

new = lambda: ctypes.CDLL(None).unshare(0x40000000) == 0
sys.stdin.readline()
if os.fork() == 0:
    for _ in range(20):
        assert new()
        os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if sys.argv[1] == "sockets":
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach()
    os._exit(0)
assert os.wait()[1] == 0
print("let go", flush=True)
sys.stdin.readline()
with open("/proc/sys/user/max_net_namespaces", "w") as limit:
    limit.write("1")
print("none" if new() else "some", flush=True)
"""
WAIT = """
import reaper

print("ready", flush=True)
input()
reaper.wait()
print("gone", flush=True)
"""


def start(*argv: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "benches" / "bringup")])
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.needs("root", "userns")
@pytest.mark.parametrize("held_by", ["descriptors", "sockets"])
def test_what_was_let_go_is_gone_after_the_wait(held_by: str) -> None:
    as_root = ("unshare", "--user", "--map-root-user", sys.executable, "-c", COUNTED, held_by)
    with start(sys.executable, "-c", WAIT) as waiting, start(*as_root) as counted:
        assert told(waiting) == "ready"  # the wait is to begin at once
        go_on(counted)
        assert told(counted) == "let go"
        go_on(waiting)
        assert told(waiting) == "gone"
        go_on(counted)
        assert told(counted) == "none"
    assert (waiting.returncode, counted.returncode) == (0, 0)
