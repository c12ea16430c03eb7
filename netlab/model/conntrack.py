"""Settings of connection tracking by short names: timeouts of states, and how strict TCP is."""

from __future__ import annotations

from typing import cast

from netlab.model.problems import near, quoted
from netlab.model.words import COUNT, TIME, Schema, describe
from netlab.units import format_time

_PREFIX = "net.netfilter.nf_conntrack_"
_TCP = (
    "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait",
    "close", "max_retrans", "unacknowledged",
)  # fmt: skip
# Timeouts are whole seconds in the kernel (Documentation/networking/nf_conntrack-sysctl.rst).
TIMEOUTS: dict[str, str] = {
    **{f"tcp_{state}": f"{_PREFIX}tcp_timeout_{state}" for state in _TCP},
    "udp": f"{_PREFIX}udp_timeout",
    "udp_stream": f"{_PREFIX}udp_timeout_stream",
    "icmp": f"{_PREFIX}icmp_timeout",
    "icmpv6": f"{_PREFIX}icmpv6_timeout",
    "generic": f"{_PREFIX}generic_timeout",
}
NUMBERS: dict[str, str] = {
    "tcp_loose": f"{_PREFIX}tcp_loose",
    "tcp_be_liberal": f"{_PREFIX}tcp_be_liberal",
    "tcp_retransmissions": f"{_PREFIX}tcp_max_retrans",
}


def read(given: object) -> tuple[tuple[str, str], ...]:
    """Return sysctls and their values; ValueError with the reason for what cannot be set."""
    if not isinstance(given, dict):
        raise ValueError(f"must be a mapping, not {describe(given)}")
    found: list[tuple[str, str]] = []
    for name, value in cast("dict[str, object]", given).items():
        try:
            if name in TIMEOUTS:
                seconds = TIME.read(value)
                if seconds < 1 or seconds != int(seconds):
                    raise ValueError("it must be whole seconds, at least 1s")
                found.append((TIMEOUTS[name], str(int(seconds))))
            elif name in NUMBERS:
                found.append((NUMBERS[name], str(COUNT.read(value))))
            else:
                known = (*TIMEOUTS, *NUMBERS)
                hint = near(name, known) or f"; known are {', '.join(known)}"
                raise ValueError(f"unknown key{hint}")
        except ValueError as error:
            raise ValueError(f"{quoted(name)}: {error}") from None
    return tuple(found)


def write(settings: tuple[tuple[str, str], ...]) -> dict[str, object]:
    """Return the short names and values of sysctls."""
    names = {sysctl: name for name, sysctl in (TIMEOUTS | NUMBERS).items()}
    return {
        names[key]: format_time(int(value)) if key in TIMEOUTS.values() else int(value)
        for key, value in settings
    }


SCHEMA: Schema = {
    "type": "object",
    "properties": {
        **dict.fromkeys(TIMEOUTS, TIME.schema),
        **dict.fromkeys(NUMBERS, COUNT.schema),
    },
    "additionalProperties": False,
}
