"""Tunnels: links whose packets travel inside packets of the network below them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

LARGEST_VNI = (1 << 24) - 1
LARGEST_KEY = (1 << 32) - 1
FAMILIES = ("ipv4", "ipv6")


@dataclass(frozen=True, slots=True)
class Vxlan:
    """Ethernet in UDP (RFC 7348); without an `id` the network identifier follows from the name."""

    id: int | None = None
    port: int = 4789
    family: str = "ipv4"

    def __post_init__(self) -> None:
        if self.id is not None and not 0 < self.id <= LARGEST_VNI:
            raise ValueError(f"'id' of vxlan is {self.id}; it must be 1 to {LARGEST_VNI}")
        if not 0 < self.port < 65536:
            raise ValueError(f"'port' of vxlan is {self.port}; it must be 1 to 65535")

    @property
    def overhead(self) -> int:
        """Bytes around a packet: IP, UDP (8), VXLAN (8) and the inner Ethernet header (14)."""
        return (20 if self.family == "ipv4" else 40) + 8 + 8 + 14


@dataclass(frozen=True, slots=True)
class Gre:
    """IP in GRE (RFC 2784) over IPv4, with the `key` of RFC 2890 if there is one."""

    key: int | None = None

    def __post_init__(self) -> None:
        if self.key is not None and not 0 <= self.key <= LARGEST_KEY:
            raise ValueError(f"'key' of gre is {self.key}; it must be 0 to {LARGEST_KEY}")

    @property
    def family(self) -> str:
        """The family of the packets outside."""
        return "ipv4"

    @property
    def overhead(self) -> int:
        """Bytes around a packet: IPv4 (20), GRE (4) and the key (4)."""
        return 20 + 4 + (0 if self.key is None else 4)


TunnelKind = Vxlan | Gre


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What a link is inside of: packets between two addresses of its nodes, that of `a` first."""

    kind: TunnelKind
    ends: tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]


def identifier(name: str) -> int:
    """Return the VXLAN network identifier of a tunnel that was given none, 1 to 2^24 - 1."""
    return zlib.crc32(name.encode()) % LARGEST_VNI + 1
