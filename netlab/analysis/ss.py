"""What `ss -tanimo` printed, as typed values.

The text is for people and changes between versions, so the parser is tolerant: a row is cut at
blanks outside parentheses and quotes, known words find their place, and every token it does not
know is kept, in order, in `unknown`. `render` writes rows back in the form `parse` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_SHUTDOWN = {"<->", "-->", "<--", "---"}  # which directions are shut down, with -e
_WORDS = {"ts", "sack", "ecn", "ecnseen", "fastopen", "app_limited", "fallback_mode"}
FLAGS = frozenset(_WORDS | _SHUTDOWN)
RATES = frozenset({"send", "pacing_rate", "delivery_rate", "max_pacing_rate"})
SKMEM = {
    "r": "rmem_alloc",
    "rb": "rcvbuf",
    "t": "wmem_alloc",
    "tb": "sndbuf",
    "f": "fwd_alloc",
    "w": "wmem_queued",
    "o": "optmem",
    "bl": "backlog",
    "d": "drops",
}
_ROW = re.compile(r"^(?P<state>[A-Z][A-Z0-9-]*)\s+(?P<recv>\d+)\s+(?P<send>\d+)\s+(?P<rest>\S.*)$")
_ENDPOINT = re.compile(r"^(?P<address>.*):(?P<port>\*|\d+)$")
_KEY = re.compile(r"^(?P<key>[A-Za-z_][A-Za-z0-9_-]*):(?P<value>.*)$", re.DOTALL)
_UNITS = {"": 1e-3, "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "sec": 1.0, "s": 1.0, "min": 60.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|sec|min|s|)")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port; `address` is "*" and `port` None where `ss` prints an asterisk."""

    address: str
    port: int | None
    zone: str = ""

    @property
    def text(self) -> str:
        """The endpoint as `ss -n` prints it."""
        zone = f"%{self.zone}" if self.zone else ""
        address = f"[{self.address}]{zone}" if ":" in self.address else f"{self.address}{zone}"
        return f"{address}:{'*' if self.port is None else self.port}"


@dataclass(frozen=True, slots=True)
class Timer:
    """The timer that runs: its kind, seconds until it fires, and how often it has."""

    kind: str
    expires: float
    retransmits: int


@dataclass(frozen=True, slots=True)
class Socket:
    """One row of `ss`.

    For a listener `recv_q` is the length of the accept queue and `send_q` its limit; otherwise
    octets not yet read by the program, and octets not yet acknowledged by the peer. `values`
    holds every `key:value` as text; `number` and `pair` read them.
    """

    state: str
    recv_q: int
    send_q: int
    local: Endpoint
    peer: Endpoint
    timer: Timer | None = None
    congestion: str | None = None
    flags: frozenset[str] = frozenset()
    skmem: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unknown: tuple[str, ...] = ()

    def number(self, key: str) -> float | None:
        """Return the first number of a value, such as 10 for `cwnd:10`; None where there is none.

        Rates are bits per second and times seconds: `rtt` and its like are printed by `ss` in
        milliseconds.
        """
        text = self.values.get(key)
        match = re.match(r"-?\d+(?:\.\d+)?", text) if text is not None else None
        if match is None:
            return None
        value = float(match.group())
        return value * 1e-3 if key in _MILLISECONDS else value

    def pair(self, key: str) -> tuple[float, float] | None:
        """Return the two numbers of a value such as `rtt:0.03/0.01` or `wscale:7,10`."""
        match = re.match(r"(-?\d+(?:\.\d+)?)[/,](-?\d+(?:\.\d+)?)", self.values.get(key, ""))
        if match is None:
            return None
        scale = 1e-3 if key in _MILLISECONDS else 1.0
        return float(match.group(1)) * scale, float(match.group(2)) * scale


_MILLISECONDS = frozenset(
    {"rtt", "rto", "ato", "rcv_rtt", "minrtt", "lastsnd", "lastrcv", "lastack"}
)


_CUT = re.compile(r'[()"]|\s+')


def tokens(text: str) -> list[str]:
    """Cut at blanks that are outside parentheses and double quotes."""
    found: list[str] = []
    begin, depth, quoted = 0, 0, False
    for match in _CUT.finditer(text):
        sign = match.group()
        if sign == '"':
            quoted = not quoted
        elif sign in ("(", ")"):
            if not quoted:
                depth = max(0, depth + (1 if sign == "(" else -1))
        elif depth == 0 and not quoted:
            if match.start() > begin:
                found.append(text[begin : match.start()])
            begin = match.end()
    if begin < len(text):
        found.append(text[begin:])
    return found


def endpoint(text: str) -> Endpoint:
    """Read `10.0.0.1:80`, `[::1]:80`, `fe80::1%eth0:80`, `*:*`; ValueError for anything else."""
    match = _ENDPOINT.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not an address and a port")
    address, _, zone = match["address"].partition("%")
    if zone.endswith("]"):  # [fe80::1%eth0]:80, an older form
        zone, address = zone[:-1], f"{address}]"
    address = address.removeprefix("[").removesuffix("]")
    return Endpoint(address, None if match["port"] == "*" else int(match["port"]), zone)


def duration(text: str) -> float:
    """Read the time of a timer, such as `200ms`, `1min59sec`, `1.204ms`, in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def _timer(text: str) -> Timer | None:
    parts = text.strip("()").split(",")
    if len(parts) != 3 or not parts[2].isdigit():
        return None
    return Timer(parts[0], duration(parts[1]), int(parts[2]))


def _skmem(text: str) -> dict[str, int] | None:
    found: dict[str, int] = {}
    for part in text.strip("()").split(","):
        match = re.fullmatch(r"([a-z]+)(\d+)", part)
        if match is None or match[1] not in SKMEM:
            return None
        found[SKMEM[match[1]]] = int(match[2])
    return found


def _socket(row: re.Match[str], details: str) -> Socket:
    words = tokens(f"{row['rest']} {details}")
    if len(words) < 2:
        raise ValueError(f"no peer in {row.group()!r}")
    local, peer = endpoint(words[0]), endpoint(words[1])
    timer: Timer | None = None
    congestion: str | None = None
    flags: set[str] = set()
    skmem: dict[str, int] = {}
    values: dict[str, str] = {}
    unknown: list[str] = []
    rest = iter(words[2:])
    for word in rest:
        match = _KEY.match(word)
        if word in FLAGS:
            flags.add(word)
        elif word in RATES:
            values[word] = next(rest, "")
        elif match is None:
            if congestion is None and re.fullmatch(r"[a-z][a-z0-9_-]*", word):
                congestion = word
            else:
                unknown.append(word)
        elif match["key"] == "timer" and (read := _timer(match["value"])) is not None:
            timer = read
        elif match["key"] == "skmem" and (memory := _skmem(match["value"])) is not None:
            skmem = memory
        elif match["key"] in values:
            unknown.append(word)
        else:
            values[match["key"]] = match["value"]
    return Socket(
        row["state"],
        int(row["recv"]),
        int(row["send"]),
        local,
        peer,
        timer,
        congestion,
        frozenset(flags),
        MappingProxyType(skmem),
        MappingProxyType(values),
        tuple(unknown),
    )


def parse(text: str) -> tuple[Socket, ...]:
    """Return the sockets of the output of `ss -tan` with any of -i, -m, -o, -e, -p, -O, -H.

    Raises ValueError naming the line that is neither a heading, a socket nor its details.
    """
    rows: list[tuple[re.Match[str], list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(("State ", "Netid ")):
            continue
        row = _ROW.match(line)
        if row is not None:
            rows.append((row, []))
        elif line[0].isspace() and rows:
            rows[-1][1].append(line)
        else:
            raise ValueError(f"line {number} is not a line of ss: {line[:60]!r}")
    return tuple(_socket(row, " ".join(details)) for row, details in rows)


def render(sockets: Iterable[Socket]) -> str:
    """Write sockets in the form that `parse` reads."""
    short = {name: key for key, name in SKMEM.items()}
    lines = ["State Recv-Q Send-Q Local Address:Port Peer Address:Port Process"]
    for found in sockets:
        head = [found.state, str(found.recv_q), str(found.send_q)]
        head += [found.local.text, found.peer.text]
        if found.timer is not None:
            timer = found.timer
            head.append(f"timer:({timer.kind},{timer.expires * 1e3:.3f}ms,{timer.retransmits})")
        lines.append(" ".join(head))
        more: list[str] = []
        if found.skmem:
            pairs = ",".join(f"{short[name]}{value}" for name, value in found.skmem.items())
            more.append(f"skmem:({pairs})")
        more += sorted(found.flags)
        if found.congestion is not None:
            more.append(found.congestion)
        for key, value in found.values.items():
            more.append(f"{key} {value}" if key in RATES else f"{key}:{value}")
        more += found.unknown
        if more:
            lines.append("\t " + " ".join(more))
    return "\n".join(lines) + "\n"
