"""Firewalls and translation on a kernel: by nftables, and again by iptables."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from unittest.mock import Mock

import pytest

from netlab.engine import lower
from netlab.engine.node import Ready, RunningNode
from netlab.engine.stage import Stage, open_stage
from netlab.errors import CapabilityError, OperationError
from netlab.model.yaml import loads
from tests.engine.conftest import Notebook
from tests.guest import in_guest

pytestmark = pytest.mark.needs("netns", "userns", "nft")

NAT = """\
nodes:
  inside:
  gw: {{role: nat, nat: {{outside: gw-outside, unsolicited: {unsolicited},
                          conntrack: {{tcp_established: 1s, tcp_loose: 0}}}}}}
  outside:
links: [inside-gw, gw-outside]
"""
PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")
SERVE = """\
import socket
server = socket.create_server(("", 80))
while True:
    connection, peer = server.accept()
    connection.sendall(peer[0].encode() + b"\\n")
    try:
        connection.recv(1)
    except OSError:
        pass
"""
ASK = """\
import socket, sys, time
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
    print(s.recv(100).decode().strip(), s.getsockopt(6, 2))
    if len(sys.argv) > 4:
        time.sleep(float(sys.argv[4]))
        for _ in range(100):  # the answer to one of them makes the next one fail
            s.send(b"x")
            time.sleep(0.1)
        print("sent")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(params=["nft", "iptables"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have every firewall made by the one or, as if the kernel had no nftables, by the other."""
    if request.param == "iptables":
        monkeypatch.setattr(lower.firewall, "nft", Mock(return_value="no nftables here\n"))
    return request.param


@contextlib.contextmanager
def served(stage: Stage, node: str) -> Generator[None]:
    with stage.node(node).spawn("serve", [*PYTHON, SERVE], ready=Ready.port(80)):
        yield


def ask(node: RunningNode, address: object, port: int = 80, *more: object, wait: float = 20) -> str:
    words = [*PYTHON, ASK, str(address), str(port), str(wait), *map(str, more)]
    return node.run(words, timeout=60).stdout.strip()


def silent(node: RunningNode, address: object, port: int = 80) -> bool:
    """Nobody answers."""
    return ask(node, address, port, wait=0.4) == "TimeoutError"


def test_a_nat_hides_the_inside_and_forgets(
    notebook: Notebook, language: str, rootless: bool
) -> None:
    topology = loads(NAT.format(unsolicited="reset"))
    inside = topology.addresses("inside")[0]
    outside = topology.addresses("outside")[0]
    mine = topology.interface("gw", "eth1").addresses[0].ip
    with open_stage(topology, notebook, rootless=rootless) as stage:
        with served(stage, "outside"):
            told = ask(stage.node("inside"), outside)
            assert told.split()[0] == str(mine)
            # Its entry is gone after a second, and what comes then is answered by a reset.
            told = ask(stage.node("inside"), outside, 80, 2.5)
            assert told.split()[-1] in ("ConnectionResetError", "BrokenPipeError")
        with served(stage, "inside"):
            assert ask(stage.node("outside"), inside) == "ConnectionRefusedError"
        with served(stage, "gw"):
            assert ask(stage.node("outside"), mine) == "ConnectionRefusedError"
            assert ask(stage.node("inside"), mine).split()[0] == str(inside)


def test_unsolicited_packets_may_vanish(notebook: Notebook, language: str) -> None:
    topology = loads(NAT.format(unsolicited="drop"))
    with open_stage(topology, notebook) as stage, served(stage, "inside"):
        for address in topology.addresses("inside"):
            assert silent(stage.node("outside"), address)


RULES = """\
nodes:
  a: {firewall: [{action: reject, direction: out, protocol: tcp, port: 81}]}
  r: {role: router, clamp-mss: 1000}
  b:
    firewall:
      - {action: reset, port: 79}
      - {action: drop, protocol: tcp, port: 82-83}
links: [a-r, r-b]
"""


def test_rules_drop_reject_reset_and_clamp(notebook: Notebook, language: str) -> None:
    topology = loads(RULES)
    with open_stage(topology, notebook) as stage, served(stage, "b"):
        a, b = stage.node("a"), topology.addresses("b")[0]
        assert ask(a, b, 79) == "ConnectionRefusedError"
        assert ask(a, b, 81) in ("ConnectionRefusedError", "OSError")
        assert silent(a, b, 83)
        clamped = int(ask(a, b, 80).split()[1])
        assert clamped == 1000 - 12  # the time stamp option takes its part of each segment


def test_a_raw_rule_with_a_mistake_has_its_line(notebook: Notebook) -> None:
    topology = loads("nodes:\n  a:\n    firewall: [{nft: tcp dport}]\n  b:\nlinks: [a-b]\n")
    with (
        pytest.raises(OperationError, match=r":3:5: set firewall in node 'a': nft: .*syntax error"),
        open_stage(topology, notebook),
    ):
        pass


def test_what_neither_language_can_is_the_machines_fault(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lower.firewall, "nft", Mock(return_value="table nonesuch x {}\n"))
    monkeypatch.setattr(lower.firewall, "iptables", Mock(return_value=None))
    with (
        pytest.raises((CapabilityError, OperationError), match="iptables cannot say it"),
        open_stage(loads(RULES), notebook),
    ):
        pass


GUEST = """\
python -m netlab up {file}
python -m netlab exec gw -- sh -c 'nft list ruleset; iptables-legacy -S FORWARD'
python -m netlab exec gw -- cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established
python -m netlab exec inside -- {ask}
"""


@pytest.mark.slow
@pytest.mark.needs("uml")
@pytest.mark.timeout(300)
def test_a_kernel_without_the_family_inet_has_the_same_from_iptables(tmp_path: Path) -> None:
    topology = loads(NAT.format(unsolicited="reset"), "hidden")
    outside = topology.addresses("outside")[0]
    file, program = tmp_path / "hidden.yaml", tmp_path / "ask.py"
    file.write_text(NAT.format(unsolicited="reset"))
    program.write_text(ASK)
    ask = f"/usr/bin/python3 {program} {outside} 80 20"
    done = in_guest(["sh", "-euc", GUEST.format(file=file, ask=ask)])
    assert done.status == 0, done.stderr.decode()
    told = done.stdout.decode()
    assert "-A FORWARD -i eth1 -p tcp -m conntrack --ctstate INVALID,NEW -j REJECT" in told
    assert "netlab-forward" not in told
    assert told.splitlines()[-2:] == ["1", "ConnectionRefusedError"]
