from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from netlab.engine import lifecycle, state
from netlab.engine.named import FOLDER
from netlab.errors import CapabilityError, UsageError
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
