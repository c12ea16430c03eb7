"""Firewalls of nodes as values: a small vocabulary of rules, and network address translation.

`netlab.plan.firewall` turns them into the languages of nftables and iptables.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network

ACTIONS = ("accept", "drop", "reject", "reset", "limit", "clamp-mss")
DIRECTIONS = ("in", "out", "forward")
PROTOCOLS = ("tcp", "udp", "icmp")
FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
# (type, code) of ICMP, type of ICMPv6; a code None matches any (RFC 792, RFC 4443).
ICMP: dict[str, tuple[tuple[int, int | None], int]] = {
    "echo-request": ((8, None), 128),
    "echo-reply": ((0, None), 129),
    "unreachable": ((3, None), 1),
    "packet-too-big": ((3, 4), 2),
    "time-exceeded": ((11, None), 3),
    "redirect": ((5, None), 137),
}
WORDS = ("drop", "limit", "v6-only")  # of `icmp` of a node
UNSOLICITED = ("drop", "reject", "reset")


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to packets that match; the first rule that decides is the last one looked at.

    An empty text, tuple or None matches everything; `direction` empty means what suits the node.
    Of the TCP `flags` those without '!' are set and those with it are not. Ports are ranges.
    `nft` is a rule in the language of nftables instead of all but the direction.
    """

    action: str = ""
    direction: str = ""
    protocol: str = ""
    port: tuple[tuple[int, int], ...] = ()
    source_port: tuple[tuple[int, int], ...] = ()
    source: IPv4Network | IPv6Network | None = None
    destination: IPv4Network | IPv6Network | None = None
    interface: str = ""
    flags: tuple[str, ...] = ()
    icmp: str = ""
    family: str = ""
    rate: int = 0
    burst: int = 5
    mss: int = 0
    nft: str = ""

    def __post_init__(self) -> None:
        if bool(self.action) == bool(self.nft):
            raise ValueError("a rule needs either 'action' or 'nft'")
        given = {f.name for f in fields(self) if getattr(self, f.name) != f.default}
        if self.nft and given - {"nft", "direction"}:
            raise ValueError("a rule with 'nft' has no other words than 'direction'")
        if (self.rate > 0) != (self.action == "limit"):
            raise ValueError("'rate' is for the action limit, which needs it")
        if self.mss and self.action != "clamp-mss":
            raise ValueError("'mss' is for the action clamp-mss")
        tcp = bool(self.flags) or self.action in ("reset", "clamp-mss")
        kinds = {self.protocol} - {""}
        kinds |= {"tcp"} if tcp else set()
        kinds |= {"icmp"} if self.icmp else set()
        if len(kinds) > 1:
            raise ValueError(f"a packet is not both {' and '.join(sorted(kinds))}")
        if (self.port or self.source_port) and not kinds & {"tcp", "udp"}:
            raise ValueError("ports need the protocol tcp or udp")
        versions = {net.version for net in (self.source, self.destination) if net is not None}
        if self.family:
            versions.add(int(self.family[-1]))
        if len(versions) > 1:
            raise ValueError("a packet is not both IPv4 and IPv6")

    @property
    def kind(self) -> str:
        """The protocol the rule is about, also where its other words imply it."""
        if self.flags or self.action in ("reset", "clamp-mss"):
            return "tcp"
        return "icmp" if self.icmp else self.protocol

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP the rule is about."""
        for network in (self.source, self.destination):
            if network is not None:
                return (network.version,)
        return (int(self.family[-1]),) if self.family else (4, 6)


@dataclass(frozen=True, slots=True)
class Nat:
    """Translation of IPv4 addresses: what leaves by an `outside` interface has its address.

    `unsolicited` happens to what belongs to no connection begun inside, IPv6 as well; "accept"
    means that there is no such rule. `conntrack` holds (sysctl, value) pairs.
    """

    outside: tuple[str, ...]
    unsolicited: str = "drop"
    conntrack: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Firewall:
    """All that filters and translates packets in a node; an empty one lets everything pass."""

    rules: tuple[Rule, ...] = ()
    nat: Nat | None = None

    def __bool__(self) -> bool:
        return bool(self.rules) or self.nat is not None


NO_FIREWALL = Firewall()


def icmp_rules(word: str) -> tuple[Rule, ...]:
    """Return what `icmp: drop|limit|v6-only` of a node stands for, both ways through it.

    Neighbour discovery and multicast listening (ICMPv6 types above 129, save redirects) remain.
    """
    family = "ipv4" if word == "v6-only" else ""
    rate = 1 if word == "limit" else 0
    action = "limit" if rate else "drop"
    return tuple(
        Rule(action=action, direction=direction, icmp=kind, family=family, rate=rate)
        for direction in ("out", "forward")
        for kind in ICMP
    )
