"""Routers that find their routes by themselves: BIRD 2 as an ordinary process of a topology.

A router with `routing: ospf` runs one BIRD that speaks OSPFv2 (RFC 2328) for its IPv4 subnets and
OSPFv3 (RFC 5340) for its IPv6 ones, all in area 0. On links to other such routers it says hello
every second and gives a neighbour up after four; what else is attached is announced and not spoken
to. The process counts as ready once it knows every subnet of the routers it can reach, each at its
shortest distance, so a lab that is up has converged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from zlib import crc32

from netlab.model.routing import Subnet
from netlab.model.topology import Mark, Process, Ready

HELLO, RETRANSMIT, DEAD = 1, 2, 4  # seconds; two is BIRD's least for the second
COST = 10  # of a hop
CONVERGED_WITHIN = 60.0  # seconds

# The control socket lies beside the lab's state, under a relative name: paths of sockets are short.
_RUN = (
    'cd "$NETLAB_FOLDER" && printf %s "$BIRD" >"$NETLAB_NODE.bird.conf" && '
    'exec bird -f -c "$NETLAB_NODE.bird.conf" -s "$NETLAB_NODE.bird.ctl"'
)
# A route of BIRD's table ends in (preference/metric) [what advertised it].
_CONVERGED = (
    'birdc -s "$NETLAB_FOLDER/$NETLAB_NODE.bird.ctl" show route protocol ospf{number} | '
    "awk 'match($0, /\\(150\\/[0-9]+/) {{ n++; s += substr($0, RSTART + 5, RLENGTH - 5) }} "
    "END {{ exit n < {count} || s > {total} }}'"
)
_VERSIONS = {32: ("4", "v2", "ipv4"), 128: ("6", "v3", "ipv6")}


def processes(
    families: Mapping[int, Sequence[Subnet]], routers: Mapping[str, Mark]
) -> list[Process]:
    """Return the process of each router; `families` are the subnets by bits of an address."""
    return [_process(name, mark, families, routers) for name, mark in routers.items()]


def name_of(router: str) -> str:
    """Return what the process of a router is called."""
    return f"ospf-{router}"


def _process(
    name: str, mark: Mark, families: Mapping[int, Sequence[Subnet]], routers: Mapping[str, Mark]
) -> Process:
    tests: list[str] = []
    for bits, subnets in families.items():
        distances = _distances(name, subnets, routers)
        if distances:
            count, total = len(distances), COST * sum(distances)
            tests.append(_CONVERGED.format(number=_VERSIONS[bits][0], count=count, total=total))
    return Process(
        name_of(name),
        name,
        ("sh", "-c", _RUN),
        Ready(command=("sh", "-c", " && ".join(tests) or "true"), timeout=CONVERGED_WITHIN),
        env=(("BIRD", _configuration(name, families, routers)),),
        needs=("bird",),
        mark=mark,
    )


def _distances(name: str, subnets: Sequence[Subnet], routers: Mapping[str, Mark]) -> list[int]:
    """Return how far the subnets are that a router can reach: what is attached is 1 away.

    The address of another node's loopback is as far as that node; one's own is not learnt.
    """
    members = [{m.node for m in subnet.members} & routers.keys() for subnet in subnets]
    hops, queue = {name: 0}, [name]
    for router in queue:
        for mine in members:
            if router in mine:
                found = sorted(mine - hops.keys())
                hops |= dict.fromkeys(found, hops[router] + 1)
                queue += found
    distances: list[int] = []
    for subnet, mine in zip(subnets, members, strict=True):
        near = [hops[router] for router in mine if router in hops]
        distance = min(near, default=-1) + (not _is_loopback(subnet))
        if near and distance:
            distances.append(distance)
    return distances


def _is_loopback(subnet: Subnet) -> bool:
    return all(member.dev == "lo" for member in subnet.members)


def _configuration(
    name: str, families: Mapping[int, Sequence[Subnet]], routers: Mapping[str, Mark]
) -> str:
    """Return what BIRD reads."""
    lines = ["log stderr all;", f"router id {_router_id(name, families)};", "protocol device {}"]
    for bits, subnets in families.items():
        body: dict[str, str] = {}
        for subnet in subnets:
            for member in subnet.members:
                if member.node != name:
                    continue
                if _is_loopback(subnet):
                    make = IPv4Network if bits == 32 else IPv6Network
                    network = make((subnet.first, subnet.prefixlen))
                    body[str(network)] = f"stubnet {network} {{ cost 0; }};"
                    continue
                others = {m.node for m in subnet.members} - {name}
                how = _interface(len(others & routers.keys()), len(subnet.members))
                body.setdefault(member.dev, f'interface "{member.dev}" {{ {how} }};')
        if not body:
            continue
        number, version, channel = _VERSIONS[bits]
        # What is attached the kernel knows better; it has no gateway.
        wanted = f'export where proto = "ospf{number}" && gw != ::'
        lines += [
            f"protocol kernel {{ {channel} {{ import none; {wanted}; }}; }}",
            f"protocol ospf {version} ospf{number} {{ {channel} {{ import all; export none; }}; "
            f"area 0 {{ {' '.join(body.values())} }}; }}",
        ]
    return "\n".join(lines) + "\n"


def _interface(routers: int, members: int) -> str:
    """Return how an interface takes part: so many other routers, so many members in all."""
    if not routers:
        return f"stub yes; cost {COST};"
    kind = "ptp" if members == 2 else "broadcast"  # point to point: nobody is elected, no waiting
    timers = f"hello {HELLO}; retransmit {RETRANSMIT}; dead {DEAD}; wait {DEAD};"
    return f"type {kind}; cost {COST}; {timers}"


def _router_id(name: str, families: Mapping[int, Sequence[Subnet]]) -> IPv4Address:
    """Return a router's first IPv4 address; of one without, a number made from its name."""
    for subnet in families.get(32, ()):
        for member in subnet.members:
            if member.node == name:
                return IPv4Address(member.address)
    return IPv4Address(crc32(name.encode()) or 1)
