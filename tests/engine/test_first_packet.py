"""The first packet of a fresh lab is as quick as any other: nothing is still being settled."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.engine import channel, lifecycle, state
from netlab.engine.change import change, difference
from netlab.engine.node import RunningNode
from netlab.engine.stage import open_stage
from netlab.model.topology import Topology
from netlab.model.yaml import load, loads
from tests.conftest import ROOT
from tests.engine.conftest import Notebook

pytestmark = pytest.mark.needs("netns", "ping")

SLOW_MS = 500  # a lost neighbour solicitation or a late carrier costs 1000


def ping(node: RunningNode, *what: str) -> float:
    """Ping once; return the round-trip time in milliseconds."""
    told = node.run(["ping", "-c1", "-W3", *what]).stdout
    found = re.search(r"time=([\d.]+) ms", told)
    assert found, told
    return float(found[1])


@pytest.mark.parametrize(
    ("topology", "from_", "to"),
    [("dumbbell", "h1", "h4"), ("two-hosts", "client", "server"), ("lan", "h1", "h3")],
)
def test_the_first_ping_of_a_fresh_lab_is_quick(
    topology: str, from_: str, to: str, tmp_path: Path
) -> None:
    path = ROOT / "topologies" / f"{topology}.yaml"
    if not path.exists():
        pytest.skip(f"no topologies/{topology}.yaml")
    loaded = load(path)
    for attempt in range(10):
        with open_stage(loaded, Notebook(tmp_path / str(attempt))) as stage:
            for version in ("-4", "-6") if attempt % 2 else ("-6", "-4"):
                took = ping(stage.node(from_), to, version)
                assert took < SLOW_MS, f"{version} in lab {attempt}"


LINKS = """
import os, socket, struct
from pathlib import Path
from netlab.agents import supervisor
from netlab.engine import netlink

rtnetlink = supervisor.netlink_socket()
here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
for number in range(100):
    ends = [(100 + 2 * number + n, f"{name}{number}", "", 1500) for n, name in enumerate("ab")]
    link, *places = netlink.veth(1, *ends)
    link = bytearray(link)
    for place in places:
        struct.pack_into("=i", link, place, here)
    up = [netlink.set_up(2 + n, end[0]) for n, end in enumerate(ends)]
    supervisor.transact(rtnetlink, bytes(link) + up[0] + netlink.acknowledged(up[1]), 3)
    supervisor.ask_carrier(rtnetlink, ends[0][1])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((ends[0][1], 0))
        raw.send(bytes(12) + bytes.fromhex("88b5") + bytes(50))
    rows = Path("/proc/thread-self/net/dev").read_text().splitlines()
    print(next(row.split()[2] for row in rows if row.split()[0] == f"b{number}:"))
"""


KINDS = """
import os, struct
from netlab.agents import supervisor
from netlab.engine import netlink

rtnetlink = supervisor.netlink_socket()
here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
link, *places = netlink.veth(1, (100, "up", "", 1500), (101, "down", "", 1500))
link = bytearray(link)
for place in places:
    struct.pack_into("=i", link, place, here)
up = [netlink.set_up(2 + n, index) for n, index in enumerate((100, 1))]
supervisor.transact(rtnetlink, bytes(link) + up[0] + netlink.acknowledged(up[1]), 3)
for device in ("up", "down", "lo", "none"):
    print(supervisor.resolves_neighbours(rtnetlink, device))
"""


def test_only_an_interface_that_asks_for_neighbours_is_waited_for() -> None:
    assert in_namespace(KINDS) == ["True", "False", "False", "False"]


@pytest.mark.parametrize("net", ["10.9.{}.0/24", "fd09:{}::/64"])
def test_the_first_ping_of_an_address_that_apply_adds_is_quick(net: str, state_dir: Path) -> None:
    def topology(number: int) -> Topology:
        prefix = net.format(number)
        link = f'{{ends: [a, b], prefix: "{prefix}"}}'
        return loads(f"{{name: later, nodes: {{a: {{}}, b: {{}}}}, links: [{link}]}}", "later.yaml")

    lab, _ = lifecycle.up(topology(0), rootless=os.geteuid() != 0)
    assert lab.path.is_relative_to(state_dir)
    try:
        with contextlib.closing(channel.connect(lab.folder)) as connection:
            a = RunningNode("a", connection, lifecycle.logs(lab.path))
            for number in range(1, 6):
                change(lab, difference(lab, topology(number)))
                lab = state.find(lab.id)
                assert ping(a, "b") < SLOW_MS, f"change {number}"
    finally:
        lifecycle.down(lab)


def test_an_interface_that_was_asked_for_its_carrier_sends_its_first_packet() -> None:
    if tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) < (6, 8):
        pytest.skip("before Linux 6.8 the question is answered too early")
    assert in_namespace(LINKS) == ["1"] * 100


def in_namespace(program: str) -> list[str]:
    """Run a program in a network namespace of its own; return the words it prints."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *user, "--net", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    return done.stdout.split()
