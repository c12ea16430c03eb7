"""Hold packets back in a node until they are released: a firewall rule for the length of a block.

Each hold has a table of its own (nftables, family inet), so that releasing one is removing a table
and two never meet. Kernels without that family (Debian's User-Mode Linux) get the same rule from
iptables-legacy and ip6tables-legacy, which is why rules are written as a `Match`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

from netlab.engine.completed import Completed
from netlab.errors import CapabilityError, CommandError

Hook = Literal["input", "output", "forward"]
Run = Callable[..., Completed]

_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")


@dataclass(frozen=True, slots=True)
class Match:
    """Packets of a protocol, of certain ports, addresses or TCP flags.

    Of the flags named in `mask` exactly those in `tcp_flags` are set: `tcp_flags="syn",
    mask="syn,ack"` is a SYN that is not a SYN-ACK. With `first` only the first such packet counts:
    what is sent again passes. (A kernel gives a half-open connection up when it cannot even repeat
    its SYN-ACK, so that one must not be held twice.)
    """

    protocol: Literal["tcp", "udp"] = "tcp"
    tcp_flags: str = ""
    mask: str = ""
    sport: int | None = None
    dport: int | None = None
    source: str | None = None
    destination: str | None = None
    first: bool = False

    def __post_init__(self) -> None:
        flags, mask = _names(self.tcp_flags), _names(self.mask)
        for name in flags + mask:
            if name not in _FLAGS:
                raise ValueError(f"{name!r} is no TCP flag; use {', '.join(_FLAGS)}")
        if set(flags) - set(mask):
            raise ValueError("a flag in tcp_flags must be in mask too")
        if mask and self.protocol != "tcp":
            raise ValueError("only TCP has flags")
        for port in (self.sport, self.dport):
            if port is not None and not 0 < port < 65536:
                raise ValueError(f"{port} is no port")
        versions = {ip_address(a).version for a in (self.source, self.destination) if a}
        if len(versions) == 2:
            raise ValueError("source and destination are of different IP versions")

    @property
    def version(self) -> int | None:
        """4 or 6 when an address says so; None matches both."""
        given = self.source or self.destination
        return ip_address(given).version if given else None

    @property
    def nft(self) -> str:
        """Return what to match, in the language of nftables."""
        parts = [f"meta l4proto {self.protocol}"]
        family = "ip6" if self.version == 6 else "ip"
        if self.source:
            parts.append(f"{family} saddr {self.source}")
        if self.destination:
            parts.append(f"{family} daddr {self.destination}")
        if self.sport:
            parts.append(f"{self.protocol} sport {self.sport}")
        if self.dport:
            parts.append(f"{self.protocol} dport {self.dport}")
        if self.mask:
            mask, flags = " | ".join(_names(self.mask)), " | ".join(_names(self.tcp_flags))
            parts.append(f"tcp flags & ({mask}) == {flags or '0x0'}")
        if self.first:
            parts.append("limit rate 1/day burst 1 packets")
        return " ".join(parts)

    @property
    def iptables(self) -> tuple[str, ...]:
        """Return what to match, as arguments of iptables."""
        parts = ["-p", self.protocol]
        for option, value in (
            ("-s", self.source),
            ("-d", self.destination),
            ("--sport", self.sport),
            ("--dport", self.dport),
        ):
            if value:
                parts += [option, str(value)]
        if self.mask:
            flags = ",".join(_names(self.tcp_flags)) or "NONE"
            parts += ["--tcp-flags", ",".join(_names(self.mask)).upper(), flags.upper()]
        if self.first:
            parts += ["-m", "limit", "--limit", "1/day", "--limit-burst", "1"]
        return tuple(parts)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class Hold:
    """A rule that drops packets until it is released; use it in a `with`."""

    def __init__(self, run: Run, number: int, match: Match | str, hook: Hook) -> None:
        self._run = run
        self._table = f"netlab_hold_{number}"
        self._match, self._hook = match, hook
        self._undo: list[tuple[str, ...]] = []
        self._legacy = False
        self._dropped = 0

    def __enter__(self) -> Hold:
        self._install()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def packets(self) -> int:
        """How many packets the rule has dropped so far."""
        if self._undo:
            self._dropped = self._legacy_count() if self._legacy else self._count()
        return self._dropped

    def release(self) -> None:
        """Let packets pass again; once is enough, twice is fine."""
        self.packets()
        undo, self._undo = self._undo, []
        for argv in reversed(undo):
            self._run(argv)

    def forget(self) -> None:
        """Take note that the rule has gone with the network namespace it was in."""
        self._undo = []

    def _install(self) -> None:
        expression = self._match if isinstance(self._match, str) else self._match.nft
        ruleset = (
            f"table inet {self._table} {{\n"
            f"  chain hold {{\n"
            f"    type filter hook {self._hook} priority 0; policy accept;\n"
            f"    {expression} counter drop\n"
            f"  }}\n}}\n"
        )
        try:
            self._run(("nft", "-f", "-"), input=ruleset)
        except CommandError as refusal:
            if isinstance(self._match, str):
                raise
            self._install_legacy(self._match, refusal)
            return
        self._undo.append(("nft", "delete", "table", "inet", self._table))

    def _install_legacy(self, match: Match, refusal: CommandError) -> None:
        self._legacy = True
        for version, tool in ((4, "iptables-legacy"), (6, "ip6tables-legacy")):
            if match.version not in (None, version):
                continue
            rule = (self._hook.upper(), *match.iptables, "-j", "DROP")
            try:
                self._run((tool, "-w", "-I", *rule))
            except CommandError as second:
                self.release()
                raise CapabilityError(
                    f"packets cannot be held back here: {refusal}; {second}",
                    hint="install nftables (or iptables) and load its kernel modules",
                ) from second
            self._undo.append((tool, "-w", "-D", *rule))

    def _count(self) -> int:
        listing = self._run(("nft", "-j", "list", "table", "inet", self._table)).stdout
        objects: list[dict[str, Any]] = json.loads(listing)["nftables"]
        for found in objects:
            for part in found.get("rule", {}).get("expr", ()):
                if "counter" in part:
                    return int(part["counter"]["packets"])
        return 0

    def _legacy_count(self) -> int:
        total = 0
        for tool, _, _, chain, *_ in self._undo:
            rows = self._run((tool, "-w", "-nvxL", chain)).stdout.splitlines()[2:]
            total += int(rows[0].split()[0]) if rows else 0  # ours was inserted first
        return total
