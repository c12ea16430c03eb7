"""Addresses and MACs for those who gave none: a function of names, so edits do not move them.

Each broadcast domain gets one subnet per family from a pool. Which one is decided by a hash of
its name (``name``), so adding, removing or reordering other links changes nothing, or by its place
in the file (``order``), so neighbours in the file are neighbours in the pool and the routes of a
large network aggregate. With the default pools the same number picks 10.x.y.0/24 and
fd6e:6574:6c61:xxyy::/64; the latter's global identifier spells "netla" (RFC 4193 asks for a
random one; a lab that repeats itself wants a fixed one).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
AddressWithPrefix = IPv4Interface | IPv6Interface

# Up to here a subnet is found by name; a larger network is numbered in order unless told otherwise,
# because hashed subnets do not aggregate: a chain of 1000 routers would need 250 000 routes.
NAMED_UP_TO = 200


POOL_IPV4 = IPv4Network("10.0.0.0/8")
POOL_IPV6 = IPv6Network("fd6e:6574:6c61::/48")


@dataclass(frozen=True, slots=True)
class Pools:
    """Where addresses come from; None for a family means that it is used only where given."""

    ipv4: IPv4Network | None = POOL_IPV4
    ipv6: IPv6Network | None = POOL_IPV6
    allocate: str = "auto"


POOLS = Pools()


class Exhausted(Exception):  # noqa: N818 - a value of the search, turned into a problem
    """A pool has no free subnet of the wanted size."""


def number(name: str) -> int:
    """Return a number that depends on nothing but the name, the same on every machine."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def make_mac(node: str, interface: str, attempt: int = 0) -> str:
    """Return a locally administered unicast MAC that depends on the names alone."""
    name = f"{node}\0{interface}" if attempt == 0 else f"{node}\0{interface}\0{attempt}"
    digest = blake2b(name.encode(), digest_size=5).hexdigest()
    return f"02:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}:{digest[6:8]}:{digest[8:10]}"


class SubnetPool:
    """The subnets of one pool, those in use known; never gives the same twice."""

    def __init__(self, pool: Network, taken: Iterable[Network]) -> None:
        self.pool = pool
        self.bits = pool.max_prefixlen
        smallest, wide, usual = (30, 16, 24) if self.bits == 32 else (126, 56, 64)
        fits = usual if pool.prefixlen <= wide else min(smallest, pool.prefixlen + 8)
        self.unit = max(fits, pool.prefixlen)
        self._first = int(pool.network_address)
        self._last = int(pool.broadcast_address)
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._cursor = 0
        for network in taken:
            self._take(int(network.network_address), int(network.broadcast_address))

    @property
    def count(self) -> int:
        """How many subnets of the usual size the pool has."""
        return 1 << (self.unit - self.pool.prefixlen)

    def nth(self, number: int) -> Network:
        """Return a subnet of the usual size by its number, whether it is free or not."""
        first = self._first + (number << (self.bits - self.unit))
        make = IPv4Network if self.bits == 32 else IPv6Network
        return make((first, self.unit))

    def _take(self, first: int, last: int) -> None:
        # What is taken does not overlap, or is a problem already reported: order by start.
        insort(self._starts, first)
        self._ends.insert(bisect_left(self._starts, first), last)

    def _free(self, first: int, last: int) -> bool:
        after = bisect_left(self._starts, last + 1)
        return after == 0 or self._ends[after - 1] < first

    def allocate(self, name: str | None, hosts: int) -> tuple[int, int]:
        """Return (address as int, prefix length) of a free subnet for so many interfaces.

        A `name` picks the subnet by its hash and the next free one after it; None takes the next
        in order. Exhausted if there is none.
        """
        needed = (hosts + 1).bit_length() if self.bits == 32 else hosts.bit_length()
        prefixlen = min(self.unit, self.bits - needed)
        if prefixlen < self.pool.prefixlen:
            raise Exhausted
        size = 1 << (self.bits - prefixlen)
        count = (self._last - self._first + 1) // size
        start = number(name) % count if name is not None else -(-self._cursor // size)
        for step in range(min(count, 1 << 17)):
            first = self._first + (start + step) % count * size
            if self._free(first, first + size - 1):
                self._take(first, first + size - 1)
                if name is None:
                    self._cursor = first + size - self._first
                return first, prefixlen
        raise Exhausted
