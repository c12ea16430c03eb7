"""Tunnels: what leaves the node outside, what fits, and a kernel that has no such thing."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from netlab.engine import lifecycle
from netlab.engine.change import reboot
from netlab.engine.node import Ready
from netlab.engine.supervisor import operation_error
from netlab.errors import CapabilityError
from netlab.model.yaml import loads
from netlab.plan.build import build
from netlab.plan.operations import AddTunnel
from tests.engine.kernel import nodes_of
from tests.guest import in_guest

TEXT = """
name: tunnelled
nodes: {h1: , r: router, h2: }
links:
  - h1-r
  - r-h2
  - {name: in, ends: [h1:in0, h2:in0], prefix: [172.16.0.0/24, "fd00::/64"], tunnel: KIND}
"""
VXLAN = "{kind: vxlan, id: 42}"


def ping(size: int) -> list[str]:
    """Ask for an answer to one packet of so many bytes, which nobody may fragment."""
    return ["ping", "-c1", "-W3", "-M", "do", "-s", str(size - 20 - 8), "172.16.0.2"]


@pytest.mark.needs("netns", "userns", "ping", "tcpdump")
@pytest.mark.parametrize("rootless", [False, True], ids=["direct", "userns"])
def test_what_fits_passes_inside_of_udp_also_after_a_reboot(rootless: bool, tmp_path: Path) -> None:
    topology = loads(TEXT.replace("KIND", VXLAN))
    tunnel = topology.link("in").tunnel
    assert tunnel is not None
    local, remote = map(str, tunnel.ends)
    lab, _ = lifecycle.up(topology, rootless=rootless)
    # 1500 less 20 of IP, 8 of UDP, 8 of VXLAN and 14 of the Ethernet inside (RFC 7348, section 5).
    dump = ["tcpdump", "-nli", "eth0", "-c1", "--immediate-mode", "udp and greater 1514"]
    try:
        with nodes_of(lab, tmp_path) as nodes:
            for number in range(2):
                ready = Ready.line("listening on", stream="stderr")
                with nodes["r"].spawn(f"seen{number}", dump, ready=ready) as seen:
                    assert " 1 received" in nodes["h1"].run(ping(1450)).stdout
                    told = seen.wait(60)
                assert "vni 42" in told.stdout
                assert "172.16.0.1 > 172.16.0.2: ICMP echo request" in told.stdout
                too_large = nodes["h1"].run(ping(1451), check=False)
                assert "message too long, mtu=1450" in too_large.stdout + too_large.stderr
                asked = nodes["h1"].run(["ip", "-d", "-j", "link", "show", "in0"])
                data = json.loads(asked.stdout)[0]["linkinfo"]["info_data"]
                assert (data["id"], data["local"], data["remote"]) == (42, local, remote)
                reboot(lab, "h1")
    finally:
        lifecycle.down(lab)


GUEST = """
python -m netlab up tunnel.yaml
python -m netlab exec h1 -- ping -c1 -W3 -M do -s 1444 172.16.0.2
python -m netlab exec h1 -- ip -d -j link show in0
python -m netlab reboot h2
python -m netlab exec h1 -- ping -c1 -W3 fd00::2
"""


@pytest.mark.slow
@pytest.mark.needs("uml")
@pytest.mark.timeout(300)
def test_gre_has_24_bytes_around_a_packet_and_4_more_with_a_key(tmp_path: Path) -> None:
    (tmp_path / "tunnel.yaml").write_text(TEXT.replace("KIND", "{kind: gre, key: 7}"))
    done = in_guest(["sh", "-euc", f"cd {tmp_path}\n{GUEST}"])
    told = done.stdout.decode()
    assert done.status == 0, told + done.stderr.decode()
    assert told.count("1 packets transmitted, 1 received") == 2
    (line,) = (line for line in told.splitlines() if line.startswith("["))
    (link,) = json.loads(line)
    assert link["mtu"] == 1500 - 20 - 4 - 4
    data = link["linkinfo"]["info_data"]
    assert link["linkinfo"]["info_kind"] == "gre"
    found = {key: data[key] for key in ("ikey", "okey", "ttl", "pmtudisc")}
    assert found == {"ikey": "0.0.0.7", "okey": "0.0.0.7", "ttl": 64, "pmtudisc": True}


def test_a_kernel_without_gre_is_named_with_the_remedy() -> None:
    plan = build(loads(TEXT.replace("KIND", "gre")))
    number = next(n for n, op in enumerate(plan.operations) if isinstance(op, AddTunnel))
    refused = {"operation": number, "errno": errno.EOPNOTSUPP, "detail": "Unknown device type"}
    found = operation_error("file.yaml", plan.operations, refused)
    assert isinstance(found, CapabilityError)
    place = "file.yaml:7:5: add gre tunnel in0 in node 'h1': this kernel has no gre"
    assert str(found) == f"{place}; `sudo modprobe ip_gre`"
