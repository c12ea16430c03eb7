"""What the kernel holds of a lab, without the numbers that differ from one making to the next."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Generator, Mapping
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
        if "flags" in value:
            kept["flags"] = sorted(FLAGS & set(value["flags"]))
        return kept
    if isinstance(value, list):
        return sorted((cleaned(item) for item in value), key=lambda item: json.dumps(item))
    return value


def state_of(nodes: Mapping[str, RunningNode]) -> dict[str, dict[str, object]]:
    """Return addresses, routes, queue disciplines, sysctls, firewall and offloads by node."""
    return {name: _state(node) for name, node in nodes.items()}


def _state(node: RunningNode) -> dict[str, object]:
    found: dict[str, object] = {
        look: cleaned(json.loads(node.run(look.split()).stdout or "[]")) for look in LOOKS
    }
    found["sysctls"] = _sysctls(node)
    ruleset = node.run(["nft", "list", "ruleset"], check=False).stdout
    found["nft"] = re.sub(r"packets \d+ bytes \d+", "", ruleset)
    names = node.run(["sh", "-c", "ip -o link | cut -d: -f2 | cut -d@ -f1"]).stdout.split()
    found["offloads"] = {
        name: node.run(["ethtool", "-k", name], check=False).stdout for name in names
    }
    return found


_PASSING = re.compile(
    r"nf_conntrack_count|dst_entries|neigh_table|stable_secret|nf_conntrack_max|nf_conntrack_buckets"
    r"|tcp_fastopen_key|/flush"
)


def _sysctls(node: RunningNode) -> dict[str, str]:
    """Every sysctl of the namespace, a write of whose fresh value changes nothing."""
    text = node.run(["sh", "-c", "grep -rs . /proc/sys/net || true"]).stdout
    pairs = (line.partition(":")[::2] for line in text.splitlines())
    return {path: value for path, value in pairs if not _PASSING.search(path)}
