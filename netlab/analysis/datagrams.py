"""Packets that are not TCP, as a person thinks of them: ICMP messages, UDP datagrams, fragments.

For captures of the size of a lab. Of a packet in a tunnel the inner one counts. ARP and neighbour
discovery are left out: they say nothing of a connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from netlab.analysis import frames
from netlab.analysis.frames import Frame
from netlab.analysis.headers import Header, Packet

Ends = frozenset[tuple[str, int]]
"""Both addresses of a connection with their ports."""

_NEIGHBOURS = range(130, 138)  # ICMPv6: listeners, routers, neighbours, redirect
_REPORTED = 143
_KEPT = 64  # octets after the IP header that tell packets apart


@dataclass(frozen=True, slots=True)
class Datagram:
    """One packet that is not TCP, or a fragment of any.

    `text` says what it is in a few words; `icmp` are type and code of ICMP or ICMPv6. `about` are
    the ends of the connection whose packet an ICMP error quotes. Ports are 0 where there are none.
    Streams are numbered from -1 down, one for each pair of ends, so that they do not meet those of
    TCP; `forward` is the direction of a stream's first packet.
    """

    frame: int
    time_ns: int
    stream: int
    forward: bool
    source: str
    sport: int
    destination: str
    dport: int
    protocol: str
    length: int
    text: str
    key: tuple[int, int, bytes]
    about: Ends | None = None
    icmp: tuple[int, int] | None = None
    seq: int = 0
    octets: int = 0

    @property
    def ends(self) -> Ends:
        """Both addresses with their ports."""
        return frozenset({(self.source, self.sport), (self.destination, self.dport)})


def load(path: Path, *, most: int = 20_000) -> tuple[Datagram, ...]:
    """Return what is not TCP among the first `most` frames; CaptureError if it is no capture."""
    streams: dict[tuple[Ends, str], tuple[int, str]] = {}
    found: list[Datagram] = []
    for frame in frames.read(path, count=most, snap=256):
        for one in _datagram(frame):
            known = streams.setdefault((one.ends, one.protocol), (-1 - len(streams), one.source))
            found.append(_numbered(one, *known))
    return tuple(found)


def _numbered(one: Datagram, stream: int, opener: str) -> Datagram:
    return replace(one, stream=stream, forward=one.source == opener)


def _datagram(frame: Frame) -> Iterator[Datagram]:
    """Yield the frame as a datagram, unless it is TCP, no IP, or talk between neighbours."""
    packet = frame.packet.innermost
    ip = packet.header("IPv4") or packet.header("IPv6")
    if ip is None:
        return
    fragment = _fragment(packet, ip)
    inner = next((h for h in packet.headers if h.name in ("UDP", "ICMP", "ICMPv6", "TCP")), None)
    if inner is not None and inner.name == "TCP":  # a first fragment is the segment itself
        return
    protocol = inner.name if inner is not None else _protocol(ip)
    if protocol == "ICMPv6" and inner is not None and not fragment:
        kind = inner["type"].value
        if kind in _NEIGHBOURS or kind == _REPORTED:
            return
    if inner is None and not fragment:
        return
    start = ip.octet + (ip["header length"].value * 4 if ip.name == "IPv4" else 40)
    ports = (0, 0)
    if inner is not None and inner.name in ("UDP", "TCP"):
        ports = (inner["source port"].value, inner["destination port"].value)
    length = _length(ip)
    if fragment:
        text = f"{protocol} {fragment}"
    elif inner is not None and inner.name == "UDP":
        length = max(0, inner["length"].value - 8)
        text = "UDP"
    else:
        text = _message(packet)
    identification = ip["identification"].value if ip.name == "IPv4" else 0
    yield Datagram(
        frame.number, frame.time_ns, 0, True,
        ip["source"].text, ports[0], ip["destination"].text, ports[1],
        protocol, length, text,
        (identification, length, frame.data[start : start + _KEPT]),
        _quoted(packet),
        _kind(inner) if not fragment else None,
    )  # fmt: skip


def _kind(inner: Header | None) -> tuple[int, int] | None:
    if inner is None or not inner.name.startswith("ICMP") or len(inner.fields) < 2:
        return None
    return inner["type"].value, inner["code"].value


def _protocol(ip: Header) -> str:
    return ip["protocol" if ip.name == "IPv4" else "next header"].text.partition("(")[2][:-1]


def _length(ip: Header) -> int:
    if ip.name == "IPv4":
        return max(0, ip["total length"].value - 4 * ip["header length"].value)
    return ip["payload length"].value


def _fragment(packet: Packet, ip: Header) -> str:
    """Return which fragment it is, in words; empty for a whole packet."""
    place, more = ip, "MF"
    if ip.name == "IPv6":
        found = packet.header("fragment header")
        if found is None:
            return ""
        place, more = found, "M"
    offset = place["fragment offset"].value * 8
    if not offset and not place[more].value:
        return ""
    return f"fragment at {offset}" + ("" if place[more].value else ", the last")


_CODES = {
    0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable",
    3: "port unreachable", 4: "fragmentation needed", 9: "network prohibited",
    10: "host prohibited", 13: "filtered",
}  # fmt: skip
_CODES6 = {
    0: "no route", 1: "prohibited", 3: "address unreachable", 4: "port unreachable",
    5: "source refused", 6: "route refused",
}  # fmt: skip


def _message(packet: Packet) -> str:
    """Return what an ICMP message says."""
    icmp = packet.header("ICMP") or packet.header("ICMPv6")
    if icmp is None or len(icmp.fields) < 2:
        return "ICMP"
    kind, code = icmp["type"].value, icmp["code"].value
    names = _CODES if icmp.name == "ICMP" else _CODES6
    unreachable = 3 if icmp.name == "ICMP" else 1
    if kind == unreachable and code in names:
        said = names[code]
    else:
        said = icmp["type"].text.partition("(")[2][:-1] or f"type {kind}"
    rest = packet.header(f"{icmp.name} message")
    size = "" if rest is None else _field(rest, "next-hop MTU") or _field(rest, "MTU")
    return f"{icmp.name} {said}" + (f", MTU {size}" if size else "")


def _field(header: Header, name: str) -> str:
    return next((f.text for f in header.fields if f.name == name), "")


def _quoted(packet: Packet) -> Ends | None:
    """Return the ends of the connection whose packet an ICMP error quotes."""
    addresses = [h for h in packet.headers if h.name in ("IPv4", "IPv6")]
    if len(addresses) < 2:
        return None
    inner = addresses[-1]
    ports = next((h for h in packet.headers[::-1] if h.name in ("TCP", "UDP")), None)
    if ports is None or len(ports.fields) < 2:
        return None
    return frozenset(
        {
            (inner["source"].text, ports["source port"].value),
            (inner["destination"].text, ports["destination port"].value),
        }
    )
