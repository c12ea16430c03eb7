"""What `netlab doctor` finds: one finding per thing tried, with the remedy where it failed."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from netlab.engine import cgroups, probe, wires
from netlab.engine.probe import Trial
from netlab.errors import NetlabError

MANY_NODES = 1000


class Level(StrEnum):
    """How much a finding matters: `missing` only limits what can be done, `broken` is the end."""

    OK = "ok"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: what came out, and what to do about it."""

    group: str
    what: str
    level: Level
    found: str
    remedy: str = ""


_QDISC_REMEDY = "`sudo modprobe sch_{}`; Ubuntu has it in linux-modules-extra-{}"
# What a missing qdisc costs; those not named are of no use to netlab yet.
_QDISCS = ("netem", "tbf", "htb", "fq_codel", "codel", "fq", "cake", "red", "sfq", "pie", "pfifo")
_MODULES = {"gre": "ip_gre", "vlan": "8021q"}
_CONGESTION = ("reno", "cubic", "bbr")
_TOOLS_NEEDED = ("ip", "ss", "tcpdump", "ping")


def diagnose() -> Iterator[Finding]:
    """Try everything netlab may need; findings come as they are made."""
    yield Finding("system", "kernel", Level.OK, platform.release())
    yield Finding("system", "python", Level.OK, platform.python_version())
    yield from _limits()
    yield from _user_namespaces()
    try:
        with probe.trial() as found:
            how = "in a user namespace" if found.rootless else "as root"
            yield Finding("labs", "a lab can be built", Level.OK, how)
            yield from _kernel(found)
            yield _wire(found)
            yield from _firewalls(found)
            yield from _tools(found)
    except NetlabError as refusal:
        remedy = refusal.hint or ""
        yield Finding("labs", "a lab can be built", Level.BROKEN, refusal.message, remedy)
    yield from _devices()


def _user_namespaces() -> Iterator[Finding]:
    refusal = probe.user_namespaces()
    if refusal is None:
        yield Finding("labs", "without root", Level.OK, "user namespaces work")
    else:
        hint = refusal.hint or ""
        yield Finding("labs", "without root", Level.MISSING, refusal.message, hint)


def _limits() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A node costs a descriptor for good and one more while it is built.
    enough = hard == resource.RLIM_INFINITY or hard >= 2 * MANY_NODES + 100
    level = Level.OK if enough else Level.MISSING
    remedy = "" if enough else f"raise the hard limit (`ulimit -Hn`) for {MANY_NODES} nodes"
    yield Finding("limits", "open files", level, str(hard), remedy)
    for kind in ("net", "user", "pid", "mnt"):
        path = Path(f"/proc/sys/user/max_{kind}_namespaces")
        try:
            number = int(path.read_text())
        except OSError:
            continue
        few = number < (MANY_NODES if kind == "net" else 10)
        remedy = f"`sudo sysctl user.max_{kind}_namespaces=10000`" if few else ""
        level = Level.MISSING if few else Level.OK
        yield Finding("limits", f"{kind} namespaces", level, str(number), remedy)
    for family in ("ipv4", "ipv6"):
        key = f"net.{family}.neigh.default.gc_thresh3"
        try:
            number = int(Path("/proc/sys", *key.split(".")).read_text())
        except OSError:
            continue  # only the machine's own namespace shows it
        few = number < 2 * MANY_NODES
        remedy = f"`sudo sysctl {key}={8 * MANY_NODES}` if large labs lose packets" if few else ""
        found = f"{number} for all labs together"
        level = Level.MISSING if few else Level.OK
        yield Finding("limits", f"{family} neighbours", level, found, remedy)
    refused = cgroups.refusal(("cpu", "memory"))
    if refused is None:
        found = f"cpu and memory, at {cgroups.mount_point()}"
        yield Finding("limits", "of processes", Level.OK, found)
    else:
        found = refused[0].removeprefix("and ").removeprefix("which ")
        yield Finding("limits", "of processes", Level.MISSING, found, refused[1])


_PACKET_SOCKET = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)"


def _wire(found: Trial) -> Finding:
    """Try what the userspace wire needs, which impairs links where netem is absent or unable."""
    group, what, sockets = "impairments", "wire", (sys.executable, "-I", "-S", "-c", _PACKET_SOCKET)
    if not wires.possible():
        remedy = "install netlab's wheel, or build the native part with `make`"
        return Finding(group, what, Level.MISSING, "no native part or no packet sockets", remedy)
    if not probe.succeeds(found.node, *sockets):
        return Finding(group, what, Level.MISSING, "packet sockets are not allowed in a lab")
    return Finding(group, what, Level.OK, "yes, on packet sockets")


def _kernel(found: Trial) -> Iterator[Finding]:
    capabilities = probe.quick(found.channel)
    release = platform.release()
    for kind in _QDISCS:
        has = kind in capabilities.qdiscs
        remedy = "" if has else _QDISC_REMEDY.format(kind, release)
        level = Level.OK if has else Level.MISSING
        yield Finding("qdiscs", kind, level, "yes" if has else "not in this kernel", remedy)
    kinds = probe.link_kinds(found.channel)
    for kind in probe.LINK_KINDS:
        needed = kind in ("veth", "bridge")
        level = Level.OK if kind in kinds else Level.BROKEN if needed else Level.MISSING
        remedy = "" if kind in kinds else f"`sudo modprobe {_MODULES.get(kind, kind)}`"
        yield Finding("links", kind, level, "yes" if kind in kinds else "no", remedy)
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    for name in sorted({*_CONGESTION, *capabilities.congestion}):
        has = name in capabilities.congestion
        how = "everywhere" if name in allowed else "by socket option and route"
        level = Level.OK if has else Level.MISSING
        remedy = "" if has else f"`sudo modprobe tcp_{name}`"
        yield Finding("congestion control", name, level, how if has else "no", remedy)


def _firewalls(found: Trial) -> Iterator[Finding]:
    families = probe.nft_families(found.node)
    for family in ("ip", "ip6", "inet", "bridge", "netdev"):
        has = family in families
        remedy = "" if has else "install nftables, and a kernel with nf_tables for the family"
        level = Level.OK if has else Level.MISSING
        yield Finding("firewall", f"nft {family}", level, "yes" if has else "no", remedy)
    legacy = probe.succeeds(found.node, "iptables-legacy", "-w", "-nL")
    remedy = "" if legacy or "inet" in families else "`sudo apt-get install nftables`"
    level = Level.OK if legacy else Level.MISSING
    yield Finding("firewall", "iptables-legacy", level, "yes" if legacy else "no", remedy)


def _tools(found: Trial) -> Iterator[Finding]:
    for tool, (argv, package) in probe.TOOLS.items():
        version = probe.version_of(found.node, argv)
        level = Level.OK
        if version is None:
            level = Level.BROKEN if tool in _TOOLS_NEEDED else Level.MISSING
        remedy = "" if version else f"`sudo apt-get install {package}`"
        yield Finding("tools", tool, level, version or "not installed", remedy)


def _devices() -> Iterator[Finding]:
    path = Path("/dev/net/tun")
    if os.access(path, os.R_OK | os.W_OK):
        yield Finding("devices", str(path), Level.OK, "yes")
    elif path.exists():
        remedy = "`sudo chmod 666 /dev/net/tun`"
        yield Finding("devices", str(path), Level.MISSING, "not for you", remedy)
    else:
        yield Finding("devices", str(path), Level.MISSING, "no", "`sudo modprobe tun`")
    yield Finding("system", "interpreter", Level.OK, sys.executable)
