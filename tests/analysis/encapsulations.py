"""Ways to carry an IP packet that the capture core sees through: links, and tunnels over IP."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.capture import pcaps
from tests.capture.pcaps import ether, ipv4, ipv6, kind_of, udp

Wrap = Callable[[bytes], bytes]


def llc(packet: bytes) -> bytes:
    """Return 802.2 with SNAP."""
    return b"\xaa\xaa\x03\0\0\0" + struct.pack("!H", kind_of(packet)) + packet


def ppp(packet: bytes, *, short: bool = False) -> bytes:
    """PPP with a protocol of two octets, or of one."""
    number = 0x57 if kind_of(packet) == pcaps.IPV6 else 0x21
    return number.to_bytes(1 if short else 2, "big") + packet


def wireless(packet: bytes, *, control: tuple[int, int] = (0x08, 0x01)) -> bytes:
    """802.11, as long as its control field says."""
    size = 24 + (6 if control[1] & 3 == 3 else 0)
    if control[0] & 0x80:
        size += 6 if control[1] & 0x80 else 2
    return bytes(control).ljust(size, b"\1") + llc(packet)


def radiotap(packet: bytes, *, size: int = 18) -> bytes:
    """Figures of a radio before 802.11."""
    return struct.pack("<BBHI", 0, 0, size, 0).ljust(size, b"\1") + wireless(packet)


def token_ring(packet: bytes, *, route: int = 0) -> bytes:
    """802.5; with a route of so many octets, which the source address tells."""
    head = b"\x10\x40" + bytes(6) + bytes([0x80 if route else 0]) + b"\2\2\2\2\2"
    way = (struct.pack("!BB", route, 0) + b"\7" * (route - 2)) if route else b""
    return head + way + llc(packet)


def nflog(packet: bytes, *, flagged: bool = False) -> bytes:
    """Netfilter's log, with an attribute of odd length before the packet."""
    prefix = struct.pack("<HH", 9, 10) + b"drop\0" + bytes(3)
    kind = 0x8009 if flagged else 9
    return bytes([2, 0, 0, 5]) + prefix + struct.pack("<HH", 4 + len(packet), kind) + packet


def over_udp(port: int, wrap: Wrap) -> Wrap:
    """Return a tunnel over UDP between two addresses of its own."""
    return lambda packet: ipv4(
        udp(wrap(packet), sport=5000, dport=port), src="192.0.2.1", dst="192.0.2.2", proto=17
    )


def over_ip(proto: int | tuple[int, int], wrap: Wrap, *, six: bool = False) -> Wrap:
    """Return a tunnel over IP; two numbers are those for IPv4 and IPv6 inside."""

    def carry(packet: bytes) -> bytes:
        number = proto if isinstance(proto, int) else proto[kind_of(packet) == pcaps.IPV6]
        if six:
            return ipv6(wrap(packet), src="2001:db8::1", dst="2001:db8::2", proto=number)
        return ipv4(wrap(packet), src="192.0.2.1", dst="192.0.2.2", proto=number)

    return carry


def gre(packet: bytes, flags: int, kind: int | None = None, extra: int = 0) -> bytes:
    """GRE with what the flags promise."""
    size = sum(4 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    kind = kind_of(packet) if kind is None else kind
    return struct.pack("!HH", flags, kind) + bytes(size + extra) + packet


def gpe(packet: bytes) -> bytes:
    """VXLAN-GPE with IP inside."""
    return bytes([0x0C, 0, 0, 2 if kind_of(packet) == pcaps.IPV6 else 1, 0, 0, 7, 0]) + packet


def gtp(packet: bytes, *, extensions: tuple[int, ...] = (), numbered: bool = False) -> bytes:
    """GTP-U with extension headers of so many words each."""
    more = b""
    if extensions or numbered:
        more = struct.pack("!HBB", 1, 0, 0x85 if extensions else 9)
        for place, words in enumerate(extensions, 1):
            following = 0x85 if place < len(extensions) else 0
            more += bytes([words]) + bytes(words * 4 - 2) + bytes([following])
    flags = 0x30 | (4 if extensions else 0) | (2 if numbered else 0)
    return struct.pack("!BBHI", flags, 255, len(more) + len(packet), 3) + more + packet


def teredo(packet: bytes, *, authentication: bool = False, origin: bool = False) -> bytes:
    """Teredo, which carries IPv6 alone."""
    head = b"\0\1\2\3" + b"id" + b"abc" + bytes(9) if authentication else b""
    return head + (b"\0\0\1\2\3\4\5\6" if origin else b"") + packet


def authentication(packet: bytes) -> bytes:
    """AH around a whole packet."""
    inside = 41 if kind_of(packet) == pcaps.IPV6 else 4
    return struct.pack("!BBHII", inside, 4, 0, 1, 1) + bytes(12) + packet


def pseudowire(packet: bytes) -> bytes:
    """Return labels, a control word and a frame."""
    return pcaps.mpls(bytes(4) + ether(packet), 16, 17)


LINKS: dict[str, tuple[int, Wrap]] = {
    **pcaps.LINKS,
    "mpacket": (274, lambda p: b"\x55" * 7 + b"\xd5" + ether(p)),
    "fddi": (10, lambda p: b"\x50" + bytes(12) + llc(p)),
    "token-ring": (6, token_ring),
    "token-ring-routed": (6, lambda p: token_ring(p, route=6)),
    "ppp": (9, ppp),
    "ppp-short": (9, lambda p: ppp(p, short=True)),
    "ppp-framed": (50, lambda p: b"\xff\3" + ppp(p)),
    "ppp-ether": (51, ppp),
    "ppp-mpls": (9, lambda p: b"\x02\x81" + pcaps.mpls(p, 19)),
    "cisco-hdlc": (104, lambda p: b"\x0f\0" + struct.pack("!H", kind_of(p)) + p),
    "wireless": (105, wireless),
    "wireless-qos": (105, lambda p: wireless(p, control=(0x88, 0x02))),
    "wireless-qos-ht": (105, lambda p: wireless(p, control=(0x88, 0x82))),
    "wireless-bridge": (105, lambda p: wireless(p, control=(0x88, 0x03))),
    "radiotap": (127, radiotap),
    "nflog": (239, nflog),
    "nflog-flagged": (239, lambda p: nflog(p, flagged=True)),
    "sll-llc": (113, lambda p: pcaps.sll(llc(p), kind=4)),
    "raw-12": (12, bytes),
    "raw-14": (14, bytes),
    "mpls-pseudowire": (1, lambda p: ether(pseudowire(p), kind=pcaps.MPLS)),
    "pppoe-in-vlan": (
        1,
        lambda p: ether(pcaps.vlan(pcaps.pppoe(p), vid=3, kind=pcaps.PPPOE), kind=pcaps.DOT1Q),
    ),
    "ppp-in-ethernet": (1, lambda p: ether(ppp(p), kind=0x880B)),
    "null-ethertype": (0, lambda p: struct.pack("<I", kind_of(p)) + p),
}  # fmt: skip
"""Link types and wrappers of an IP packet."""

TUNNELS: dict[str, Wrap] = {
    "ip-in-ip": over_ip((4, 41), bytes),
    "ip-in-ip6": over_ip((4, 41), bytes, six=True),
    "gre": over_ip(47, lambda p: gre(p, 0)),
    "gre-all": over_ip(47, lambda p: gre(p, 0xB000)),
    "gre-checksum": over_ip(47, lambda p: gre(p, 0x8000), six=True),
    "gretap": over_ip(47, lambda p: gre(ether(p), 0x2000, 0x6558)),
    "erspan-1": over_ip(47, lambda p: gre(ether(p), 0, 0x88BE)),
    "erspan-2": over_ip(47, lambda p: gre(b"\x10" + bytes(7) + ether(p), 0x1000, 0x88BE)),
    "erspan-3": over_ip(47, lambda p: gre(b"\x20" + bytes(11) + ether(p), 0x1000, 0x22EB)),
    "erspan-3-more": over_ip(
        47, lambda p: gre(b"\x20" + bytes(10) + b"\1" + bytes(8) + ether(p), 0x1000, 0x22EB)
    ),
    "pptp": over_ip(47, lambda p: gre(ppp(p), 0x3081, 0x880B, extra=4)),
    "pptp-quiet": over_ip(47, lambda p: gre(b"\xff\3" + ppp(p), 0x3001, 0x880B)),
    "mpls-in-ip": over_ip(137, lambda p: pcaps.mpls(p, 20)),
    "authentication": over_ip(51, authentication),
    "authentication-6": over_ip(51, authentication, six=True),
    "vxlan": over_udp(4789, lambda p: pcaps.vxlan(ether(p))),
    "vxlan-linux": over_udp(8472, lambda p: pcaps.vxlan(ether(p), vni=0xFFFFFF)),
    "vxlan-gpe": over_udp(4790, gpe),
    "geneve": over_udp(6081, lambda p: pcaps.geneve(ether(p))),
    "geneve-options": over_udp(6081, lambda p: pcaps.geneve(ether(p), options=bytes(24))),
    "gtp": over_udp(2152, gtp),
    "gtp-numbered": over_udp(2152, lambda p: gtp(p, numbered=True)),
    "gtp-extended": over_udp(2152, lambda p: gtp(p, extensions=(1, 2))),
}
"""Tunnels, from an IP packet to one that carries it."""
TEREDO: dict[str, Wrap] = {
    "teredo": over_udp(3544, teredo),
    "teredo-origin": over_udp(3544, lambda p: teredo(p, origin=True)),
    "teredo-both": over_udp(3544, lambda p: teredo(p, authentication=True, origin=True)),
}
"""Tunnels of IPv6 alone."""
