"""The kernel's own counters of a network namespace: /proc/net/snmp, netstat and snmp6.

Names are those of `nstat`'s sources: the group, a dot, the counter ("Tcp.InCsumErrors",
"TcpExt.PAWSEstab", "Ip6.InReceives" for `Ip6InReceives`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FILES = ("/proc/net/snmp", "/proc/net/netstat", "/proc/net/snmp6")
_PLAIN = re.compile(r"^(\w+\.\w+) (-?\d+)$")
_SIX = re.compile(r"^(Ip6|Icmp6|Udp6|UdpLite6)(\w+)\s+(\d+)$")


def parse(text: str) -> Mapping[str, int]:
    """Return every counter of the files' text, joined in any order; other lines are left out.

    It also reads what `render` writes.
    """
    found: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for line in text.splitlines():
        plain = _PLAIN.match(line)
        if plain is not None:
            found[plain[1]] = int(plain[2])
            continue
        six = _SIX.match(line)
        if six is not None:
            found[f"{six[1]}.{six[2]}"] = int(six[3])
            continue
        group, colon, rest = line.partition(":")
        words = rest.split()
        if not colon or not words:
            continue
        if re.fullmatch(r"-?\d+", words[0]):
            pairs = zip(names.get(group, ()), words, strict=False)
            found.update({f"{group}.{name}": int(value) for name, value in pairs})
        else:
            names[group] = words
    return found


def render(counters: Mapping[str, int]) -> str:
    """Return counters as lines: the name, a blank, the number."""
    return "".join(f"{name} {value}\n" for name, value in counters.items())
