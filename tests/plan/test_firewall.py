"""Rules in the languages of nftables and iptables: the golden files are what the kernel is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from netlab.errors import TopologyError
from netlab.model.dump import dump
from netlab.model.firewall import ICMP, NO_FIREWALL, Firewall
from netlab.model.yaml import loads
from netlab.plan.build import build
from netlab.plan.diff import diff
from netlab.plan.firewall import iptables, nft
from netlab.plan.operations import SetFirewall, SetSysctl

GOLDEN = Path(__file__).parent / "golden"
TEXT = """\
nodes:
  inside:
    clamp-mss: 1200
  gw:
    role: nat
    nat:
      outside: gw-outside
      unsolicited: reset
      conntrack: {tcp_established: 5s, tcp_loose: 0}
    clamp-mss: true
    icmp: v6-only
  outside:
    firewall:
      - {action: accept, source: "2001:db8::/32"}
      - {action: reset, port: 9}
      - {action: limit, icmp: echo-request, rate: 3, burst: 3}
      - {action: reject, protocol: udp, source_port: 53, family: ipv6}
      - {action: drop, direction: out, interface: eth0, protocol: tcp, port: [80, 5000-5010],
         destination: 10.0.0.0/8, flags: "syn,!ack"}
      - {action: drop, protocol: icmp, interface: eth0}
links: [inside-gw, gw-outside]
"""


def firewalls(text: str) -> dict[str, Firewall]:
    return {n.name: n.firewall for n in loads(text).nodes if n.firewall}


@pytest.mark.parametrize("node", ["inside", "gw", "outside"])
def test_the_languages_say_what_the_file_says(
    node: str, golden: Callable[[Path, str], None]
) -> None:
    firewall = firewalls(TEXT)[node]
    parts = ["# nft -f -\n" + nft(firewall)]
    for version, tool in ((4, "iptables-restore"), (6, "ip6tables-restore")):
        parts.append(f"# {tool}\n{iptables(firewall, version)}")
    golden(GOLDEN / f"firewall-{node}.txt", "\n".join(parts))


def test_a_nat_may_translate_and_filter_nothing() -> None:
    text = TEXT.replace("unsolicited: reset", "unsolicited: accept")
    firewall = firewalls(text)["gw"]
    assert "ct state" not in nft(firewall)
    assert "masquerade" in nft(firewall)
    assert "ctstate" not in (iptables(firewall, 4) or "")
    assert "MASQUERADE" in (iptables(firewall, 4) or "")


def test_raw_rules_are_for_nftables_alone() -> None:
    text = TEXT + "groups: {g: {members: [inside], firewall: [{nft: udp dport 53 counter drop}]}}\n"
    firewall = firewalls(text)["inside"]
    assert "    udp dport 53 counter drop\n" in nft(firewall)
    assert iptables(firewall, 4) is None


def test_a_dumped_firewall_is_the_same() -> None:
    topology = loads(TEXT, "t")
    assert loads(dump(topology), "t") == topology


def test_timeouts_are_written_after_the_rules_that_load_the_module() -> None:
    kinds = [
        type(op)
        for op in build(loads(TEXT)).operations
        if isinstance(op, SetFirewall) or (isinstance(op, SetSysctl) and "conntrack" in op.key)
    ]
    assert kinds == [SetFirewall, SetFirewall, SetSysctl, SetSysctl, SetFirewall]


def test_a_changed_firewall_is_replaced_and_one_that_goes_is_emptied() -> None:
    old, new = loads(TEXT), loads(TEXT.replace("port: 9}", "port: 7}").replace("1200", "false"))
    operations = diff(old, new).operations
    changed = {op.node: op.firewall for op in operations if isinstance(op, SetFirewall)}
    assert len(operations) == len(changed)
    assert changed == {"outside": new.node("outside").firewall, "inside": NO_FIREWALL}


def test_icmp_drop_leaves_neighbour_discovery_alone() -> None:
    text = "nodes: {r: {role: router, icmp: drop}, h: }\nlinks: [r-h]\n"
    firewall = firewalls(text)["r"]
    assert {rule.direction for rule in firewall.rules} == {"out", "forward"}
    assert all(str(kind) not in nft(firewall) for kind in (133, 134, 135, 136, 143))
    assert len(firewall.rules) == 2 * len(ICMP)


def test_a_nat_that_does_not_know_its_outside_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"1:9: node 'g' is a nat and needs 'nat: \{outside"):
        loads("nodes: {g: nat, h: }\nlinks: [g-h]\n")
