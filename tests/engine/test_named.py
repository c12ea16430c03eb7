from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.engine import lifecycle, state
from netlab.engine.named import FOLDER
from netlab.errors import CapabilityError, UsageError
from tests.conftest import ROOT
from tests.engine.networks import two_hosts

pytestmark = pytest.mark.needs("root", "netns", "userns")

# Names of our own: the folder belongs to the whole machine.
A, B = f"netlabtest{os.getpid()}a", f"netlabtest{os.getpid()}b"


def topology():
    from dataclasses import replace

    given = two_hosts()
    names = {"h1": A, "h2": B}
    link = given.links[0]
    ends = (replace(end, node=names[end.node]) for end in link.ends)
    a, b = ends
    nodes = tuple(replace(node, name=names[node.name]) for node in given.nodes)
    return replace(given, nodes=nodes, links=(replace(link, a=a, b=b),))


def test_ip_netns_finds_the_nodes_and_down_takes_the_names_away() -> None:
    lab, _ = lifecycle.up(topology(), named=True)
    try:
        argv = ["ip", "netns", "exec", A, "ip", "-br", "address", "show", "eth0"]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert "10.0.1.1/24" in told
        with pytest.raises(UsageError, match=f"has {A}, {B} already"):
            lifecycle.up(topology(), name="second", named=True)
    finally:
        lifecycle.down(lab)
    assert not (FOLDER / A).exists()
    assert not (FOLDER / B).exists()


def test_names_of_a_killed_lab_go_with_the_next_command() -> None:
    lab, _ = lifecycle.up(topology(), named=True)
    os.kill(lab.pid, signal.SIGKILL)
    while state.is_alive(lab.folder):
        pass
    assert state.labs() == []
    assert not (FOLDER / A).exists()
    assert not (FOLDER / B).exists()
    assert A not in Path("/proc/self/mountinfo").read_text()


def test_names_that_meanwhile_mean_something_else_are_left_alone() -> None:
    lab, _ = lifecycle.up(topology(), named=True)
    subprocess.run(["ip", "netns", "del", A], check=True)
    subprocess.run(["ip", "netns", "add", A], check=True)
    try:
        lifecycle.down(lab)
        assert (FOLDER / A).exists()
        assert not (FOLDER / B).exists()
    finally:
        subprocess.run(["ip", "netns", "del", A], check=True)


def test_names_take_root() -> None:
    with pytest.raises(CapabilityError, match="names under /run/netns take root"):
        lifecycle.up(topology(), named=True, rootless=True)
    assert state.labs() == []


FIRST = """
import subprocess
from netlab.engine import lifecycle
from netlab.engine.named import FOLDER
from tests.engine.test_named import A, B, topology
lab, _ = lifecycle.up(topology(), named=True)
subprocess.run(["ip", "netns", "add", "other"], check=True)
listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
lifecycle.down(lab)
print(sorted(line.split()[0] for line in listed.splitlines()) == sorted([A, B, "other"]))
print([path.name for path in FOLDER.iterdir()])
print([line for line in open("/proc/self/mountinfo") if A in line or B in line])
"""


def test_the_first_names_on_a_machine_can_be_ours() -> None:
    """A /run of its own is like that of a machine on which nobody has said `ip netns add` yet."""
    argv = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
    argv += [sys.executable, "-c", FIRST]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.stdout.splitlines() == ["True", "['other']", "[]"], done.stderr
