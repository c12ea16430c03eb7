"""A way out of a lab: on a small machine made for the purpose, never that of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.engine.external import External, parse
from netlab.errors import UsageError
from netlab.model.yaml import loads
from tests.conftest import ROOT

TEXT = """
name: inside
nodes: {h: , gw: {role: nat, nat: {outside: up0}}, r: router}
links: [h-gw, [gw:up0, r]]
"""

# The machine has one interface, on a network with one other computer, 192.0.2.1.
MACHINE = """
set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
ip link set lo up
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip netns add others
ip link add ext0 type veth peer name far0 netns others
ip -n others address add 192.0.2.1/24 dev far0
ip -n others link set far0 up
netlab() { "$PYTHON" -m netlab "$@"; }
refused() { if netlab up --name refused "$FILE" "$@"; then exit 99; else echo "status $?"; fi; }
refused --external gw=ext0,192.0.2.2/24,192.0.2.1
ip link set ext0 up
until [ "$(ip -br link show ext0 | grep -c ' UP ')" = 1 ]; do sleep 0.05; done
snapshot() { ip -d link; ip address; ip route; ip rule; ip neigh; nft list ruleset; }
snapshot > /run/before
refused --rootless --external gw=ext0
refused --external gw=ext9
refused --external gw=lo
refused --external r=ext0,10.0.0.9/8
netlab status --json
"""
LAB = """
netlab up "$FILE" --external ext0,192.0.2.2/24,192.0.2.1
netlab up "$FILE" --external gw=ext0,192.0.2.2/24,192.0.2.1
netlab exec h -- ping -c1 -W3 192.0.2.1
netlab exec gw -- ip -br address show ext0
if netlab apply "$FILE" --set sysctls.net.ipv4.tcp_sack=0; then exit 98; fi
if netlab reboot gw; then exit 97; fi
"""
END = {
    "down": "netlab down\n",
    "killed": "kill -9 $(netlab status --json | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p')\n",
}
AFTER = """
for n in $(seq 1000); do  # the kernel takes namespaces away in its own time
  snapshot > /run/after
  if cmp -s /run/before /run/after; then break; fi
  sleep 0.05
done
diff /run/before /run/after
"""


@pytest.mark.needs("root", "netns", "userns", "nft", "ping")
@pytest.mark.parametrize("end", sorted(END))
def test_a_nat_leads_out_and_nothing_stays(end: str, tmp_path: Path) -> None:
    file = tmp_path / "inside.yaml"
    file.write_text(TEXT)
    env = {**os.environ, "PYTHON": sys.executable, "FILE": str(file)}
    env.pop("NETLAB_STATE_DIR", None)
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "bash", "-c"]
    done = subprocess.run(
        [*argv, MACHINE + LAB + END[end] + AFTER],
        env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert done.stdout.startswith("status 2\nstatus 4\nstatus 2\nstatus 2\nstatus 2\n[]\n"), told
    assert " 1 received" in done.stdout
    assert "192.0.2.2/24" in done.stdout
    for says in (
        "interface 'ext0' is down; `sudo ip link set ext0 up`",
        "takes root; run netlab as root, or leave --external out",
        "no interface 'ext9'; it has ext0",
        "'lo' leads nowhere",
        "10.0.0.0/8 overlaps 10.",
        "lab inside is up already; nothing changed",
        "`apply` would lose it",
        "which a reboot would cut off",
    ):
        assert says in done.stderr, told


def test_where_a_way_out_leads() -> None:
    network = loads(TEXT)
    assert parse("eth0", network) == External("gw", "eth0")
    given = "r=wan.7,192.0.2.7/24,fd00::7/64,192.0.2.1,fd00::1"
    assert str(parse(given, network)) == given


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x=eth0", "'x' is no node of this network"),
        ("gw=eth0,192.0.2.7", "192.0.2.7 is in no network of the addresses before it"),
        ("gw=eth0,192.0.2.300/24", "does not appear to be an IPv4 or IPv6"),
    ],
)
def test_what_is_no_way_out_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(text, loads(TEXT))


def test_which_node_is_meant_must_be_clear() -> None:
    with pytest.raises(UsageError, match="has 0 nats; which node is meant"):
        parse("eth0", loads("nodes: [a, b]\nlinks: [a-b]\n"))
