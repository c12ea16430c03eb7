"""What this machine can do, found by doing it in a throw-away lab.

`quick` asks a supervisor that runs anyway what the kernel has; `probe` starts one of its own, with
two nodes, and tries tools and firewalls too. Nothing is read from a kernel configuration: a module
that cannot be loaded is as absent as one that was never built.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

from netlab.engine import netlink, state, supervisor, wires
from netlab.engine.channel import Channel
from netlab.engine.node import RunningNode
from netlab.errors import CommandError, NetlabError
from netlab.model.capabilities import Capabilities
from netlab.model.topology import Node, Role, Topology
from netlab.plan.operations import AddNode, Plan

QDISCS = (
    "bfifo", "cake", "cbs", "choke", "clsact", "codel", "drr", "ets", "fq", "fq_codel", "fq_pie",
    "hfsc", "htb", "ingress", "netem", "pfifo", "pie", "plug", "prio", "qfq", "red", "sfb", "sfq",
    "tbf",
)  # fmt: skip
LINK_KINDS = ("bridge", "dummy", "gre", "ifb", "macvlan", "veth", "vlan", "vrf", "vxlan")
_ENOENT, _EOPNOTSUPP = 2, 95


def quick(channel: Channel) -> Capabilities:
    """Ask the kernel, through a supervisor, which qdiscs and congestion controls it has."""
    messages = [netlink.probe_qdisc(n + 1, kind) for n, kind in enumerate(QDISCS)]
    refusals = _try(channel, messages)
    found = (kind for kind, number in zip(QDISCS, refusals, strict=True) if number != _ENOENT)
    return Capabilities(
        kernel=platform.release(),
        qdiscs=frozenset(found),
        congestion=frozenset(_words("/proc/sys/net/ipv4/tcp_available_congestion_control")),
        tcpdump=which("tcpdump"),
        ss=which("ss"),
        root=os.geteuid() == 0,
        tun=_opens("/dev/net/tun"),
        wire=wires.possible(),
        hz=_hz(),
    )


def link_kinds(channel: Channel) -> frozenset[str]:
    """Ask the kernel which kinds of interface it can make."""
    messages = [netlink.probe_link(n + 1, kind) for n, kind in enumerate(LINK_KINDS)]
    refusals = _try(channel, messages)
    found = zip(LINK_KINDS, refusals, strict=True)
    return frozenset(kind for kind, number in found if number != _EOPNOTSUPP)


def _try(channel: Channel, messages: list[bytes]) -> list[int]:
    blob, places = bytearray(), list[tuple[int, int, int]]()
    for number, message in enumerate(messages):
        start = len(blob)
        blob += netlink.acknowledged(message)
        places.append((start, len(blob), number + 1))
    answer = channel.request({"do": "try", "messages": places}, blob=blob, timeout=30)
    return [int(result.get("errno") or 0) for result in supervisor.checked(answer)["results"]]


def which(tool: str) -> str | None:
    """The path of a tool, looked for in the system's directories too."""
    path = os.environ.get("PATH", "")
    return shutil.which(tool, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read().split()
    except OSError:
        return []


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _hz() -> int | None:
    """The kernel's tick, from the resolution of its coarse clock."""
    import time

    with contextlib.suppress(AttributeError, OSError, ZeroDivisionError):
        return round(1 / time.clock_getres(6))  # CLOCK_MONOTONIC_COARSE
    return None


@dataclass(frozen=True, slots=True)
class Trial:
    """A throw-away lab of one node."""

    channel: Channel
    node: RunningNode
    rootless: bool


@contextlib.contextmanager
def trial(*, rootless: bool | None = None) -> Generator[Trial]:
    """Run a throw-away lab for the length of a block; CapabilityError where none can be made."""
    from netlab.engine.stage import make_claim

    held = make_claim("probe", foreground=True)
    assert held is not None
    with contextlib.ExitStack() as stack:
        stack.callback(held.remove)
        started = supervisor.start(held, "probe", foreground=True, rootless=rootless)
        stack.pop_all()
        stack.callback(started.end)
        topology = Topology("probe", (Node("probe", Role.HOST),), ())
        started.build(Plan(topology, (AddNode("probe"),)))
        folder = held.path / "logs"
        folder.mkdir()
        node = RunningNode("probe", started.channel, lambda name: folder / name.replace("/", "_"))
        yield Trial(started.channel, node, started.rootless)


def succeeds(node: RunningNode, *argv: str, text: str = "") -> bool:
    """Tell whether a command in a node ends with status 0."""
    try:
        node.run(argv, input=text)
    except CommandError:
        return False
    return True


def nft_families(node: RunningNode) -> frozenset[str]:
    """The families in which nft can make a table with a chain."""
    hooks = {"netdev": "ingress device lo", "bridge": "input"}
    found: set[str] = set()
    for family in ("ip", "ip6", "inet", "bridge", "netdev", "arp"):
        hook = hooks.get(family, "input")
        rules = (
            f"table {family} probe {{\n chain c {{\n"
            f"  type filter hook {hook} priority 0; policy accept;\n  counter\n }}\n}}\n"
        )
        if succeeds(node, "nft", "-f", "-", text=rules):
            found.add(family)
    return frozenset(found)


def user_namespaces() -> NetlabError | None:
    """Try a lab in a user namespace; None when it works, else why not and what to do."""
    try:
        with trial(rootless=True):
            return None
    except NetlabError as refusal:
        return refusal


def probe() -> Capabilities:
    """Everything a plan may want to know of this machine, found by trying."""
    with trial() as found:
        capabilities = quick(found.channel)
        userns = found.rootless or user_namespaces() is None
        return replace(
            capabilities,
            nft="inet" in nft_families(found.node),
            iptables_legacy=succeeds(found.node, "iptables-legacy", "-w", "-nL"),
            userns=userns,
        )


TOOLS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ip": (("ip", "-V"), "iproute2"),
    "ss": (("ss", "-V"), "iproute2"),
    "tc": (("tc", "-V"), "iproute2"),
    "tcpdump": (("tcpdump", "--version"), "tcpdump"),
    "ping": (("ping", "-V"), "iputils-ping"),
    "ethtool": (("ethtool", "--version"), "ethtool"),
    "nft": (("nft", "--version"), "nftables"),
    "iptables-legacy": (("iptables-legacy", "--version"), "iptables"),
    "tshark": (("tshark", "--version"), "tshark"),
    "bird": (("bird", "--version"), "bird2"),
    "linux.uml": (("linux.uml", "--version"), "user-mode-linux"),
}


def version_of(node: RunningNode, argv: tuple[str, ...]) -> str | None:
    """The version a tool tells of itself; None when it cannot be run."""
    path = which(argv[0])
    if path is None:
        return None
    with contextlib.suppress(CommandError):
        told = node.run((path, *argv[1:]), check=False)
        match = re.search(r"\d+(?:\.\d+)+\w*|\b\d{8}\b", told.stdout + told.stderr)
        return match[0] if match else "unknown version"
    return None


def state_root() -> str:
    """Where labs of this user are written down."""
    return state.roots()[0]
