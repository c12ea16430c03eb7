"""What a machine can do, as a value: made by the engine's probe, read by `netlab.plan.build`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was found by trying; names are those of the kernel (`netem`, `cubic`) and of tools.

    Paths are None where a tool is missing; `hz` is None where the kernel does not tell. `wire`: the
    userspace wire can run, which takes packet sockets and netlab's native part.
    """

    kernel: str = ""
    qdiscs: frozenset[str] = frozenset()
    congestion: frozenset[str] = frozenset()
    nft: bool = False
    iptables_legacy: bool = False
    tcpdump: str | None = None
    ss: str | None = None
    root: bool = False
    userns: bool = False
    tun: bool = False
    wire: bool = False
    hz: int | None = None
