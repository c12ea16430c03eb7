"""Random topologies with something of everything that a plan can hold; small, so that many fit."""

from __future__ import annotations

import json
from random import Random
from typing import Any

HOSTS, ROUTERS, SWITCH = ("h1", "h2", "h3"), ("r1", "r2"), "s1"
SYSCTLS = (
    ("net.ipv4.ip_default_ttl", "99"), ("net.ipv4.tcp_sack", "0"),
    ("net.ipv4.tcp_rmem", "1 2 3000"), ("net.ipv6.conf.default.hop_limit", "7"),
    ("net.ipv4.conf.all.arp_ignore", "1"),
    ("net.ipv4.ip_forward", "0"),
)  # fmt: skip
RULES = (
    {"action": "reset", "port": 79},
    {"action": "drop", "protocol": "udp", "port": [53, "100-200"]},
    {"action": "limit", "icmp": "echo-request", "rate": 10},
    {"nft": "tcp option maxseg size 1-500 counter drop"},
)
SHAPES: tuple[dict[str, Any], ...] = (
    {"delay": "2ms"},
    {"delay": "3ms", "loss": "1%"},
    {"rate": "10mbit", "queue": {"kind": "bfifo", "limit": "64KiB"}},
    {"delay": "1ms", "schedule": [{"at": "1000s", "loss": "100%"}]},
)


def text(random: Random) -> str:
    """Return a topology file (JSON, which is YAML), called `changing`."""
    hosts = random.sample(HOSTS, random.randint(1, 3))
    routers = random.sample(ROUTERS, random.randint(1, 2))
    switch = random.random() < 0.5
    nodes = {name: _node(random, router=name in routers) for name in (*hosts, *routers)}
    links: list[dict[str, Any]] = []
    if switch:
        nodes[SWITCH] = {"role": "switch"}
        links.append(_link(random, routers[0], SWITCH))
    if len(routers) == 2:
        links.append(_link(random, *routers))
    for host in hosts:
        links.append(
            _link(random, host, random.choice([*routers, SWITCH][: None if switch else -1]))
        )
    if len(hosts) > 1 and random.random() < 0.4:
        tunnel = {"kind": "vxlan", "id": random.randint(1, 2)}
        links.append({"name": "inside", "ends": hosts[:2], "tunnel": tunnel})
    random.shuffle(links)
    data: dict[str, Any] = {"name": "changing", "nodes": nodes, "links": links}
    if random.random() < 0.3:
        data["defaults"] = {"addressing": {"ipv6": False}}
    elif random.random() < 0.3:
        data["defaults"] = {"addressing": {"ipv4": "172.16.0.0/12"}}
    if random.random() < 0.5:
        data["processes"] = {
            name: {
                "node": random.choice(hosts),
                "command": ["sleep", str(random.randint(1001, 1003))],
            }
            for name in random.sample(("one", "two", "three"), random.randint(1, 3))
        }
    return json.dumps(data)


def _node(random: Random, *, router: bool) -> dict[str, Any]:
    node: dict[str, Any] = {"role": "router"} if router else {}
    if random.random() < 0.4:
        node["sysctls"] = dict(random.sample(SYSCTLS, random.randint(1, 3)))
    if random.random() < 0.3:
        node["firewall"] = random.sample(RULES, random.randint(1, 3))
    if random.random() < 0.2:
        node["congestion"] = "reno"
    if random.random() < 0.2:
        node["loopback"] = [f"192.0.2.{random.randint(1, 250)}/32"]
    if router and random.random() < 0.2:
        node["clamp-mss"] = random.choice((True, 1000))
    return node


def _link(random: Random, a: str, b: str) -> dict[str, Any]:
    ends: list[Any] = [{"node": a}, {"node": b}]
    if random.random() < 0.15:
        random.choice(ends)["up"] = False
    link: dict[str, Any] = {"ends": ends}
    if random.random() < 0.2:
        link["mtu"] = random.choice((1400, 9000))
    if random.random() < 0.3:
        link |= random.choice(SHAPES)
    elif random.random() < 0.1:
        link["offloads"] = True
    elif random.random() < 0.1:
        link[f"{a}->{b}"] = {"delay": "5ms"}
    return link
