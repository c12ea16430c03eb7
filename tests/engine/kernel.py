"""What the kernel holds of a lab, without the numbers that differ from one making to the next."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Generator
from pathlib import Path

from netlab.engine import channel
from netlab.engine.node import RunningNode
from netlab.engine.state import Lab

NOISE = {
    "ifindex", "link_index", "link_netnsid", "valid_life_time", "preferred_life_time", "txqlen",
    "operstate", "parentbus", "parentdev", "num_tx_queues", "num_rx_queues",
    "cacheinfo", "master_index", "tentative", "link", "inet6_addr_gen_mode",
    "gso_max_size", "gso_max_segs", "tso_max_size", "tso_max_segs",
    "gro_max_size", "gso_ipv4_max_size", "gro_ipv4_max_size", "info_data", "info_slave_data",
}  # fmt: skip
FLAGS = {"UP", "LOOPBACK", "NO-CARRIER", "linkdown", "dead", "onlink", "pervasive"}
LOOKS = (
    "ip -j -d address",
    "ip -j -4 route show table all",
    "ip -j -6 route show table all",
    "tc -j qdisc",
)


@contextlib.contextmanager
def nodes_of(lab: Lab, folder: Path) -> Generator[dict[str, RunningNode]]:
    """Nodes of a detached lab, over a connection of their own; what they write goes to a folder."""

    def log_file(relative: str) -> Path:
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    with contextlib.closing(channel.connect(lab.folder)) as connection:
        yield {name: RunningNode(name, connection, log_file) for name in lab.nodes}


def cleaned(value: object) -> object:
    """Leave out noise, and the order, which means nothing."""
    if isinstance(value, dict):
        kept = {key: cleaned(item) for key, item in value.items() if key not in NOISE}
        if value.get("info_kind") in ("vxlan", "gre"):
            kept["info_data"] = cleaned(value["info_data"])
        if "flags" in value:
            kept["flags"] = sorted(FLAGS & set(value["flags"]))
        return kept
    if isinstance(value, list):
        return sorted((cleaned(item) for item in value), key=lambda item: json.dumps(item))
    return value


LOOK = """
for look in {looks}; do echo "==== $look"; $look || true; done
echo "==== sysctls"; grep -rs . /proc/sys/net || true
echo "==== nft"; nft list ruleset || true
for device in $(ip -o link | cut -d: -f2 | cut -d@ -f1); do
  echo "==== offloads $device"; ethtool -k $device || true
done
"""


def state_of(lab: Lab, folder: Path) -> dict[str, dict[str, object]]:
    """Return addresses, routes, queue disciplines, sysctls, firewall and offloads by node."""
    with nodes_of(lab, folder) as nodes:
        return {name: _state(node) for name, node in nodes.items()}


def differences(one: object, other: object, path: str = "") -> list[str]:
    """Say where two states differ, each place in a line."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: list[str] = []
        for key in sorted(one.keys() | other.keys()):
            found += differences(one.get(key), other.get(key), f"{path}/{key}")
        return found
    if isinstance(one, list) and isinstance(other, list):
        more = [item for item in one if item not in other]
        less = [item for item in other if item not in one]
        return [f"{path}: too much: {item}" for item in more] + [
            f"{path}: missing: {item}" for item in less
        ]
    return [] if one == other else [f"{path}: {one!r} and not {other!r}"]


def settled_differences(
    one: Callable[[], object], other: object | Callable[[], object], patience: float = 30.0
) -> list[str]:
    """Say where two states differ once the kernel has had its time.

    A carrier, and the link-local addresses and route flags that come with it, may take it a second
    (linkwatch): look again until both are the same, or it is too late.
    """
    end = time.monotonic() + patience
    while True:
        found = differences(one(), other() if callable(other) else other)
        if not found or time.monotonic() > end:
            return found


def programs_of(lab: Lab) -> list[tuple[str, str, list[str]]]:
    """Return the programs that run in a lab, save those of the engine itself."""
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        found = connection.request({"do": "state"})["processes"]
    own = (p for p in found if p["name"] not in ("wire", "schedule"))
    return sorted((p["node"], p["name"], p["argv"]) for p in own)


def _state(node: RunningNode) -> dict[str, object]:
    looks = " ".join(f"'{look}'" for look in LOOKS)
    told = node.run(["bash", "-c", LOOK.format(looks=looks)]).stdout
    parts = (part.partition("\n") for part in told.split("==== ")[1:])
    found: dict[str, object] = {name: text for name, _, text in parts}
    for look in LOOKS:
        found[look] = cleaned(json.loads(str(found[look]) or "[]"))
    found["sysctls"] = _sysctls(str(found["sysctls"]))
    found["nft"] = re.sub(r"packets \d+ bytes \d+", "", str(found["nft"]))
    return found


_PASSING = re.compile(
    r"nf_conntrack_count|dst_entries|neigh_table|stable_secret|nf_conntrack_max|nf_conntrack_buckets"
    r"|tcp_fastopen_key|/flush"
)


def _sysctls(text: str) -> dict[str, str]:
    """Every sysctl that a namespace has of its own and that does not change by itself."""
    pairs = (line.partition(":")[::2] for line in text.splitlines())
    return {path: value for path, value in pairs if not _PASSING.search(path)}
