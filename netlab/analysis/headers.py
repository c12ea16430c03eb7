"""Every field of the headers of one packet: where it lies, what it says, what that means.

Theory of operation. `decode` walks a packet from its first octet, header by header. A fixed
header is a table of rows (name, bits, how the value is written, meaning, source); the rows follow
each other without gaps, so a field's place is the sum of the widths before it. Options are read by
the same rows, one small table per option. A packet that was cut is decoded as far as it goes, and
says so; nothing here raises for the bytes of a packet, whatever they are.

Checksums are computed anew and compared: the one's complement sum of RFC 1071, over the header for
IPv4, over pseudo-header and segment for TCP, UDP and ICMPv6. A sum over octets that were not kept
is unknown, neither right nor wrong.

What is unsatisfactory: IPsec, tunnels and the many options that hardly anybody has seen are shown
as octets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

PROTOCOLS = {
    0: "hop-by-hop options", 1: "ICMP", 2: "IGMP", 4: "IPv4", 6: "TCP", 17: "UDP", 41: "IPv6",
    43: "routing header", 44: "fragment header", 50: "ESP", 51: "AH", 58: "ICMPv6",
    59: "nothing", 60: "destination options", 132: "SCTP",
}  # fmt: skip
TCP, UDP, ICMP, ICMPV6, FRAGMENT = 6, 17, 1, 58, 44
_EXTENSIONS = {0, 43, 44, 60}
_ICMP_ERRORS = {3, 4, 5, 11, 12}
_ICMPV6_ERRORS = {1, 2, 3, 4}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `bit` counts from the first bit of its header, `text` is the value as written.

    `source` names the document and section that defines it; `octet` is where it begins in the
    packet.
    """

    name: str
    bit: int
    bits: int
    value: int
    text: str
    meaning: str
    source: str
    octet: int


@dataclass(frozen=True, slots=True)
class Header:
    """One header or option: `octet` is where it begins in the packet, `length` in octets."""

    name: str
    octet: int
    length: int
    fields: tuple[Field, ...]
    source: str = ""
    inside: str = ""

    def __getitem__(self, name: str) -> Field:
        for found in self.fields:
            if found.name == name:
                return found
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a header says its checksum is, and what it should be; None where too little was kept."""

    header: str
    found: int
    right: int | None
    absent: bool = False

    @property
    def ok(self) -> bool | None:
        """True, False, or None when it cannot be known."""
        if self.absent:
            return True
        return None if self.right is None else self.found == self.right

    @property
    def text(self) -> str:
        """The verdict in words."""
        if self.absent:
            return f"{self.header}: none (zero means: not computed)"
        if self.right is None:
            return f"{self.header}: {self.found:#06x}, cannot be checked"
        said = "right" if self.found == self.right else f"wrong, should be {self.right:#06x}"
        return f"{self.header}: {self.found:#06x} is {said}"


@dataclass(frozen=True, slots=True)
class Packet:
    """A decoded packet: headers and options in their order, then `payload` octets of data.

    `cut` says what is missing where the packet ends too early; `odd` lists what breaks a rule.
    """

    headers: tuple[Header, ...]
    checksums: tuple[Checksum, ...]
    payload: bytes
    cut: str = ""
    odd: tuple[str, ...] = ()

    def header(self, name: str) -> Header | None:
        """Return the first header of that name."""
        return next((h for h in self.headers if h.name == name), None)

    def checksum(self, header: str) -> Checksum | None:
        """Return the checksum of a header, the outermost where there are several."""
        return next((c for c in self.checksums if c.header == header), None)

    def options(self, of: str) -> tuple[Header, ...]:
        """Return the options of a header in their order."""
        return tuple(h for h in self.headers if h.inside == of)


@dataclass(frozen=True, slots=True)
class Show:
    """How a value is written. Data, not code, so that a page can write values the same way.

    `kind` is one of dec, hex (`unit` digits), flag, v4, v6, mac, shift, named (`names`), words
    (times `unit`, plus `more`, in `what`).
    """

    kind: str
    unit: int = 0
    what: str = ""
    more: int = 0
    names: tuple[tuple[int, str], ...] = ()

    def __call__(self, value: int) -> str:
        """Return the value as text."""
        return _WRITE[self.kind](self, value)


def _write_named(show: Show, value: int) -> str:
    name = dict(show.names).get(value)
    return str(value) if name is None else f"{value} ({name})"


_WRITE: dict[str, Callable[[Show, int], str]] = {
    "dec": lambda _, value: str(value),
    "hex": lambda show, value: f"{value:#0{show.unit + 2}x}",
    "flag": lambda _, value: "set" if value else "not set",
    "v4": lambda _, value: str(IPv4Address(value)),
    "v6": lambda _, value: str(IPv6Address(value)),
    "mac": lambda _, value: value.to_bytes(6, "big").hex(":"),
    "shift": lambda _, value: f"{value} (times {1 << min(value, 14)})",
    "named": _write_named,
    "words": lambda show, value: f"{value} ({value * show.unit + show.more} {show.what})",
}
_dec, _flag, _v4, _v6, _mac, _shift = map(Show, ("dec", "flag", "v4", "v6", "mac", "shift"))


def _hex(digits: int) -> Show:
    return Show("hex", digits)


def _words(unit: int, what: str, more: int = 0) -> Show:
    return Show("words", unit, what, more)


def _named(names: dict[int, str]) -> Show:
    return Show("named", names=tuple(names.items()))


Row = tuple[str, int, Show, str, str]
"""A field of a layout: name, bits, how its value is written, meaning, source."""

IP4 = "RFC 791 §3.1"
IP6 = "RFC 8200 §3"
T = "RFC 9293 §3.1"
U = "RFC 768"

_ETHERNET: tuple[Row, ...] = (
    ("destination", 48, _mac, "who shall take the frame from the link", "IEEE 802.3 §3.2"),
    ("source", 48, _mac, "who put it there", "IEEE 802.3 §3.2"),
    ("type", 16, _named({0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP", 0x8100: "VLAN"}),
     "what the frame carries", "IEEE 802.3 §3.2.6"),
)  # fmt: skip
_ETHER_TYPES = _named({0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP", 0x8100: "VLAN"})
_VLAN: tuple[Row, ...] = (
    ("priority", 3, _dec, "the class of the frame", "IEEE 802.1Q §9.6"),
    ("DEI", 1, _flag, "may be dropped first", "IEEE 802.1Q §9.6"),
    ("VLAN", 12, _dec, "which virtual network it belongs to", "IEEE 802.1Q §9.6"),
    ("type", 16, _ETHER_TYPES, "what the frame carries", "IEEE 802.1Q §9.4"),
)
_DIRECTIONS = _named({0: "to us", 1: "broadcast", 2: "multicast", 3: "to another", 4: "from us"})
_COOKED: tuple[Row, ...] = (
    ("direction", 16, _DIRECTIONS, "as the capturing machine saw it", "LINKTYPE_LINUX_SLL"),
    ("device type", 16, _dec, "ARPHRD_ number of the interface", "LINKTYPE_LINUX_SLL"),
    ("address length", 16, _dec, "octets of the address that count", "LINKTYPE_LINUX_SLL"),
    ("address", 64, _hex(16), "link-layer address of the sender", "LINKTYPE_LINUX_SLL"),
    ("type", 16, _ETHER_TYPES, "what the frame carries", "LINKTYPE_LINUX_SLL"),
)
_COOKED2: tuple[Row, ...] = (
    ("type", 16, _ETHER_TYPES, "what the frame carries", "LINKTYPE_LINUX_SLL2"),
    ("reserved", 16, _dec, "zero", "LINKTYPE_LINUX_SLL2"),
    ("interface", 32, _dec, "index of the interface", "LINKTYPE_LINUX_SLL2"),
    ("device type", 16, _dec, "ARPHRD_ number of the interface", "LINKTYPE_LINUX_SLL2"),
    ("direction", 8, _DIRECTIONS, "as the capturing machine saw it", "LINKTYPE_LINUX_SLL2"),
    ("address length", 8, _dec, "octets of the address that count", "LINKTYPE_LINUX_SLL2"),
    ("address", 64, _hex(16), "link-layer address of the sender", "LINKTYPE_LINUX_SLL2"),
)
_LOOP: tuple[Row, ...] = (
    ("family", 32, _hex(8), "AF_ number of the capturing system", "LINKTYPE_NULL"),
)
_IPV4: tuple[Row, ...] = (
    ("version", 4, _dec, "4: the layout below", IP4),
    ("header length", 4, _words(4, "octets"), "in words of 32 bits, options included", IP4),
    ("DSCP", 6, _dec, "the class of service the packet asks for", "RFC 2474 §3"),
    ("ECN", 2, _named({0: "not ECN-capable", 1: "ECT(1)", 2: "ECT(0)", 3: "congestion met"}),
     "whether a router may mark instead of drop, and whether one has", "RFC 3168 §5"),
    ("total length", 16, _dec, "octets of header and data", IP4),
    ("identification", 16, _hex(4), "the same in all fragments of a packet", IP4),
    ("reserved", 1, _dec, "must be zero", IP4),
    ("DF", 1, _flag, "do not fragment: a router must drop what is too large", IP4),
    ("MF", 1, _flag, "more fragments follow this one", IP4),
    ("fragment offset", 13, _words(8, "octets"), "where this fragment begins in the packet", IP4),
    ("TTL", 8, _dec, "routers it may still pass; each takes one away", IP4),
    ("protocol", 8, _named(PROTOCOLS), "what follows the header", IP4),
    ("checksum", 16, _hex(4), "over this header alone; every router computes it anew", IP4),
    ("source", 32, _v4, "the address of the sender", IP4),
    ("destination", 32, _v4, "the address of the receiver", IP4),
)  # fmt: skip
_IPV6: tuple[Row, ...] = (
    ("version", 4, _dec, "6: the layout below", IP6),
    ("DSCP", 6, _dec, "the class of service the packet asks for", "RFC 2474 §3"),
    ("ECN", 2, _named({0: "not ECN-capable", 1: "ECT(1)", 2: "ECT(0)", 3: "congestion met"}),
     "whether a router may mark instead of drop, and whether one has", "RFC 3168 §5"),
    ("flow label", 20, _hex(5), "the same for the packets of one flow", "RFC 6437 §2"),
    ("payload length", 16, _dec, "octets after these 40", IP6),
    ("next header", 8, _named(PROTOCOLS), "what follows", IP6),
    ("hop limit", 8, _dec, "routers it may still pass; each takes one away", IP6),
    ("source", 128, _v6, "the address of the sender", IP6),
    ("destination", 128, _v6, "the address of the receiver", IP6),
)  # fmt: skip
_IPV6_FRAGMENT: tuple[Row, ...] = (
    ("next header", 8, _named(PROTOCOLS), "what the whole packet carries", "RFC 8200 §4.5"),
    ("reserved", 8, _dec, "zero", "RFC 8200 §4.5"),
    ("fragment offset", 13, _words(8, "octets"), "where it begins", "RFC 8200 §4.5"),
    ("reserved 2", 2, _dec, "zero", "RFC 8200 §4.5"),
    ("M", 1, _flag, "more fragments follow", "RFC 8200 §4.5"),
    ("identification", 32, _hex(8), "the same in all fragments of a packet", "RFC 8200 §4.5"),
)
_EXTENSION: tuple[Row, ...] = (
    ("next header", 8, _named(PROTOCOLS), "what follows", "RFC 8200 §4"),
    ("length", 8, _words(8, "octets", 8), "beyond the first 8 octets, in eights",
     "RFC 8200 §4"),
)  # fmt: skip
_TCP: tuple[Row, ...] = (
    ("source port", 16, _dec, "with the addresses it names the connection", T),
    ("destination port", 16, _dec, "with the addresses it names the connection", T),
    ("sequence number", 32, _dec, "number of the first octet of data; in a SYN, of the SYN", T),
    ("acknowledgment number", 32, _dec, "the next number expected; void without ACK", T),
    ("data offset", 4, _words(4, "octets"), "length of this header with its options", T),
    ("reserved", 3, _dec, "must be zero", T),
    ("AE", 1, _flag, "accurate ECN; was NS", "RFC 9768 §2"),
    ("CWR", 1, _flag, "congestion window reduced", "RFC 3168 §6.1"),
    ("ECE", 1, _flag, "a packet was marked on its way; in a SYN: ECN is known", "RFC 3168 §6.1"),
    ("URG", 1, _flag, "the urgent pointer counts", T),
    ("ACK", 1, _flag, "the acknowledgment number counts", T),
    ("PSH", 1, _flag, "hand the data to the program without delay", T),
    ("RST", 1, _flag, "the connection is over at once", T),
    ("SYN", 1, _flag, "opens a direction; takes one number", T),
    ("FIN", 1, _flag, "closes a direction; takes one number", T),
    ("window", 16, _dec, "octets the sender of this may be sent, before scaling", T),
    ("checksum", 16, _hex(4), "over pseudo-header, header and data", T),
    ("urgent pointer", 16, _dec, "end of urgent data; void without URG", T),
)
_UDP: tuple[Row, ...] = (
    ("source port", 16, _dec, "where an answer goes; 0: none wanted", U),
    ("destination port", 16, _dec, "which socket it is for", U),
    ("length", 16, _dec, "octets of header and data, at least 8", U),
    ("checksum", 16, _hex(4), "over pseudo-header, header and data", U),
)
_ICMP_TYPES = {
    0: "echo reply", 3: "destination unreachable", 4: "source quench", 5: "redirect", 8: "echo",
    11: "time exceeded", 12: "parameter problem",
}  # fmt: skip
_ICMPV6_TYPES = {
    1: "destination unreachable", 2: "packet too big", 3: "time exceeded",
    4: "parameter problem", 128: "echo request", 129: "echo reply", 130: "listener query",
    131: "listener report", 133: "router solicitation", 134: "router advertisement",
    135: "neighbour solicitation", 136: "neighbour advertisement", 143: "listener report 2",
}  # fmt: skip
UNREACHABLE = {
    0: "network", 1: "host", 2: "protocol", 3: "port", 4: "fragmentation needed, DF set",
    5: "source route failed", 9: "network prohibited", 10: "host prohibited", 13: "filtered",
}  # fmt: skip
_ICMP: tuple[Row, ...] = (
    ("type", 8, _named(_ICMP_TYPES), "what is reported", "RFC 792"),
    ("code", 8, _dec, "more precisely", "RFC 792"),
    ("checksum", 16, _hex(4), "over the ICMP message", "RFC 792"),
)
_ICMPV6: tuple[Row, ...] = (
    ("type", 8, _named(_ICMPV6_TYPES), "below 128: an error", "RFC 4443 §2.1"),
    ("code", 8, _dec, "more precisely", "RFC 4443 §2.1"),
    ("checksum", 16, _hex(4), "over pseudo-header and message", "RFC 4443 §2.3"),
)
_ECHO: tuple[Row, ...] = (
    ("identifier", 16, _dec, "which run of ping", "RFC 792"),
    ("sequence", 16, _dec, "which echo", "RFC 792"),
)
_TOO_BIG: tuple[Row, ...] = (
    ("unused", 16, _dec, "zero", "RFC 1191 §4"),
    ("next-hop MTU", 16, _dec, "the largest packet the next link carries", "RFC 1191 §4"),
)
_TOO_BIG6: tuple[Row, ...] = (
    ("MTU", 32, _dec, "the largest packet the next link carries", "RFC 4443 §3.2"),
)
_REST: tuple[Row, ...] = (("rest", 32, _hex(8), "depends on the type", "RFC 792"),)

_KIND: Row = ("kind", 8, _dec, "which option", "RFC 9293 §3.2")
_LENGTH: Row = (
    "length",
    8,
    _dec,
    "octets of the option, kind and length included",
    "RFC 9293 §3.2",
)
_TCP_OPTIONS: dict[int, tuple[str, str, tuple[Row, ...]]] = {
    2: ("maximum segment size", "RFC 9293 §3.7.1", (
        ("MSS", 16, _dec, "largest segment it wants to receive, without headers",
         "RFC 9293 §3.7.1"),)),
    3: ("window scale", "RFC 7323 §2", (
        ("shift", 8, _shift,
         "by how much later windows are shifted, at most 14", "RFC 7323 §2.2"),)),
    4: ("SACK permitted", "RFC 2018 §2", ()),
    8: ("timestamps", "RFC 7323 §3", (
        ("TSval", 32, _dec, "the sender's clock", "RFC 7323 §3.2"),
        ("TSecr", 32, _dec, "the peer's clock, given back; void without ACK", "RFC 7323 §3.2"))),
    28: ("user timeout", "RFC 5482 §3", (
        ("granularity", 1, _dec, "1: minutes", "RFC 5482 §3"),
        ("timeout", 15, _dec, "how long data may wait for its acknowledgement", "RFC 5482 §3"))),
}  # fmt: skip
_TCP_UNREAD = {
    5: ("SACK", "RFC 2018 §3"), 19: ("MD5 signature", "RFC 2385 §3"), 29: ("TCP-AO", "RFC 5925 §2"),
    30: ("multipath TCP", "RFC 8684 §3"), 34: ("fast open cookie", "RFC 7413 §4.1.1"),
}  # fmt: skip
_SIZES = {2: 4, 3: 3, 4: 2, 8: 10, 28: 4}
"""Lengths that these options have; another length is against the rules."""


class _CutError(Exception):
    """The packet ends before the field does."""


class _Walk:
    """A place in a packet and what was found so far."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.headers: list[Header] = []
        self.checksums: list[Checksum] = []
        self.odd: list[str] = []
        self.cut = ""

    def rows(self, name: str, rows: tuple[Row, ...], source: str = "", inside: str = "") -> Header:
        """Read a fixed layout at the current place and step over it; _CutError if it is cut.

        What is there of a cut header is kept.
        """
        fields: list[Field] = []
        bit = 0
        for label, bits, show, meaning, where in rows:
            end = self.at * 8 + bit + bits
            if end > len(self.data) * 8:
                if fields:
                    self._keep(name, bit // 8, fields, source, inside)
                raise _CutError(f"ends inside {name}, before {label}")
            last = -(-end // 8)
            first = (self.at * 8 + bit) // 8
            value = int.from_bytes(self.data[first:last], "big") >> (last * 8 - end)
            value &= (1 << bits) - 1
            fields.append(Field(label, bit, bits, value, show(value), meaning, where, first))
            bit += bits
        header = self._keep(name, bit // 8, fields, source, inside)
        self.at += bit // 8
        return header

    def _keep(
        self, name: str, length: int, fields: list[Field], source: str, inside: str
    ) -> Header:
        header = Header(name, self.at, length, tuple(fields), source, inside)
        self.headers.append(header)
        return header

    def octets(self, name: str, length: int, meaning: str, source: str, inside: str) -> None:
        """Keep `length` octets as one field."""
        self.rows(name, ((name, length * 8, _hex(length * 2), meaning, source),), source, inside)


def ones_complement(data: bytes) -> int:
    """Return the checksum of RFC 1071 over some octets, as it is written into a header."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """Return what TCP and UDP sum before their own octets (RFC 9293 §3.1, RFC 8200 §8.1)."""
    if len(source) == 4:
        return source + destination + bytes([0, protocol]) + length.to_bytes(2, "big")
    return source + destination + length.to_bytes(4, "big") + bytes([0, 0, 0, protocol])


LINKS = {"ethernet": "Ethernet", "cooked": "cooked capture", "cooked2": "cooked capture v2",
         "loop": "loopback", "ip": ""}  # fmt: skip
"""Link layers that `decode` knows, and what their headers are called."""


def decode(data: bytes, *, link: str = "ip") -> Packet:
    """Decode a packet that begins with an IP header, or with the header of a link of `LINKS`."""
    walk = _Walk(data)
    end = len(data)
    try:
        if _link(walk, link):
            end = _ip(walk)
    except _CutError as cut:
        walk.cut = str(cut)
        walk.at = len(data)
    return Packet(
        tuple(walk.headers),
        tuple(walk.checksums),
        data[walk.at : min(end, len(data))],
        walk.cut,
        tuple(walk.odd),
    )


def _link(walk: _Walk, link: str) -> bool:
    """Step over the header of the link layer; tell whether IP follows."""
    if link in ("ip", "loop"):
        if link == "loop":
            walk.rows(LINKS[link], _LOOP, "LINKTYPE_NULL")
        return True
    rows, source = {
        "ethernet": (_ETHERNET, "IEEE 802.3"),
        "cooked": (_COOKED, "LINKTYPE_LINUX_SLL"),
        "cooked2": (_COOKED2, "LINKTYPE_LINUX_SLL2"),
    }[link]
    kind = walk.rows(LINKS[link], rows, source)["type"].value
    while kind in (0x8100, 0x88A8):
        kind = walk.rows("VLAN", _VLAN, "IEEE 802.1Q")["type"].value
    return kind in (0x0800, 0x86DD)


def layouts() -> dict[str, object]:
    """Return every layout as plain data, for a page that decodes packets itself.

    A row is [name, bits, show, meaning, source]; a show is [kind, unit, what, more, names].
    """
    rows = {
        "ethernet": _ETHERNET, "vlan": _VLAN, "cooked": _COOKED, "cooked2": _COOKED2,
        "loop": _LOOP, "ipv4": _IPV4, "ipv6": _IPV6, "fragment": _IPV6_FRAGMENT,
        "extension": _EXTENSION, "tcp": _TCP, "udp": _UDP, "icmp": _ICMP, "icmpv6": _ICMPV6,
        "echo": _ECHO, "too_big": _TOO_BIG, "too_big6": _TOO_BIG6, "rest": _REST,
        "option": (_KIND, _LENGTH),
    }  # fmt: skip
    return {
        "links": LINKS,
        "protocols": PROTOCOLS,
        "rows": {name: [_plain(row) for row in table] for name, table in rows.items()},
        "options": {
            kind: [name, source, _SIZES[kind], [_plain(row) for row in table]]
            for kind, (name, source, table) in _TCP_OPTIONS.items()
        },
        "unread": _TCP_UNREAD,
    }


def _plain(row: Row) -> list[object]:
    name, bits, show, meaning, source = row
    return [
        name, bits, [show.kind, show.unit, show.what, show.more, dict(show.names)], meaning, source,
    ]  # fmt: skip


def _ip(walk: _Walk, *, quoted: bool = False) -> int:
    """Decode an IP packet and what it carries; return where it ends by its own account.

    `quoted`: it stands inside an ICMP error, which need not hold all of it.
    """
    if walk.at >= len(walk.data):
        raise _CutError("ends before the IP header")
    version = walk.data[walk.at] >> 4
    if version == 4:
        return _ipv4(walk, quoted)
    if version == 6:
        return _ipv6(walk, quoted)
    walk.odd.append(f"IP version {version}")
    raise _CutError(f"is of IP version {version}")


def _ipv4(walk: _Walk, quoted: bool) -> int:
    start = walk.at
    header = walk.rows("IPv4", _IPV4, "RFC 791 §3.1")
    length = header["header length"].value * 4
    if length < 20:
        walk.odd.append("an IPv4 header shorter than 20 octets")
        raise _CutError("has an IPv4 header of less than 20 octets")
    end = start + header["total length"].value
    whole = walk.data[start : start + length]
    right = None
    if len(whole) == length:
        right = ones_complement(whole[:10] + b"\0\0" + whole[12:])
    walk.checksums.append(Checksum("IPv4", header["checksum"].value, right))
    if header["reserved"].value:
        walk.odd.append("the reserved flag is set")
    while walk.at < start + length:
        _ipv4_option(walk, start + length)
    if header["fragment offset"].value:  # what follows has its header in another packet
        return end
    parts = header["MF"].value
    addresses = walk.data[start + 12 : start + 16], walk.data[start + 16 : start + 20]
    _transport(walk, header["protocol"].value, addresses, end, whole=not parts and not quoted)
    return end


def _ipv4_option(walk: _Walk, end: int) -> None:
    kind = walk.data[walk.at] if walk.at < len(walk.data) else None
    if kind is None:
        raise _CutError("ends inside the options of IPv4")
    if kind in (0, 1):
        name = "end of options" if kind == 0 else "no operation"
        walk.octets(name, 1, "padding", "RFC 791 §3.1", "IPv4")
        return
    length = walk.data[walk.at + 1] if walk.at + 1 < len(walk.data) else 0
    if length < 2 or walk.at + length > end:
        walk.odd.append(f"IPv4 option {kind} has the length {length}")
        length = end - walk.at
    walk.octets(f"option {kind}", length, "not explained here", "RFC 791 §3.1", "IPv4")


def _ipv6(walk: _Walk, quoted: bool) -> int:
    start = walk.at
    header = walk.rows("IPv6", _IPV6, "RFC 8200 §3")
    end = start + 40 + header["payload length"].value
    follows = header["next header"].value
    addresses = walk.data[start + 8 : start + 24], walk.data[start + 24 : start + 40]
    whole = not quoted
    while follows in _EXTENSIONS:
        at = walk.at
        name = PROTOCOLS[follows]
        if follows == FRAGMENT:
            found = walk.rows(name, _IPV6_FRAGMENT, "RFC 8200 §4.5")
            if found["fragment offset"].value:
                return end
            whole = whole and not found["M"].value
        else:
            found = walk.rows(name, _EXTENSION, "RFC 8200 §4")
            walk.at = at + 8 + 8 * found["length"].value
            if walk.at > len(walk.data):
                raise _CutError(f"ends inside the {name}")
        follows = found["next header"].value
    _transport(walk, follows, addresses, end, whole=whole)
    return end


def _transport(
    walk: _Walk, protocol: int, addresses: tuple[bytes, bytes], end: int, *, whole: bool
) -> None:
    start = walk.at
    message = walk.data[start:end] if whole and end <= len(walk.data) else None
    pseudo = pseudo_header(*addresses, protocol, max(0, end - start))
    if protocol == TCP:
        header = walk.rows("TCP", _TCP, "RFC 9293 §3.1")
        _sum(walk, "TCP", header, message, pseudo, 16)
        length = header["data offset"].value * 4
        if length < 20 or start + length > end:
            walk.odd.append(f"a TCP header of {length} octets")
            return
        if header["reserved"].value:
            walk.odd.append("reserved bits of TCP are set")
        while walk.at < start + length:
            _tcp_option(walk, start + length, syn=bool(header["SYN"].value))
    elif protocol == UDP:
        header = walk.rows("UDP", _UDP, "RFC 768")
        if len(addresses[0]) == 4 and header["checksum"].value == 0:
            walk.checksums.append(Checksum("UDP", 0, None, absent=True))
        else:
            _sum(walk, "UDP", header, message, pseudo, 6)
        if header["length"].value < 8:
            walk.odd.append(f"a UDP length of {header['length'].value}")
    elif protocol == ICMP:
        header = walk.rows("ICMP", _ICMP, "RFC 792")
        _sum(walk, "ICMP", header, message, b"", 2)
        kind, code = header["type"].value, header["code"].value
        rest = _ECHO if kind in (0, 8) else _TOO_BIG if (kind, code) == (3, 4) else _REST
        walk.rows("ICMP message", rest, "RFC 792", "ICMP")
        if kind in _ICMP_ERRORS:
            _ip(walk, quoted=True)
    elif protocol == ICMPV6:
        header = walk.rows("ICMPv6", _ICMPV6, "RFC 4443 §2.1")
        _sum(walk, "ICMPv6", header, message, pseudo, 2)
        kind = header["type"].value
        rest = _ECHO if kind in (128, 129) else _TOO_BIG6 if kind == 2 else _REST
        walk.rows("ICMPv6 message", rest, "RFC 4443", "ICMPv6")
        if kind in _ICMPV6_ERRORS:
            _ip(walk, quoted=True)


def _sum(
    walk: _Walk, name: str, header: Header, message: bytes | None, pseudo: bytes, at: int
) -> None:
    """Compute the checksum that lies `at` octets into a message, and keep the verdict."""
    right = None
    if message is not None:
        right = ones_complement(pseudo + message[:at] + b"\0\0" + message[at + 2 :])
        if name == "UDP" and right == 0:
            right = 0xFFFF  # zero would mean: none
    walk.checksums.append(Checksum(name, header["checksum"].value, right))


def _tcp_option(walk: _Walk, end: int, *, syn: bool) -> None:
    if walk.at >= len(walk.data):
        raise _CutError("ends inside the options of TCP")
    kind = walk.data[walk.at]
    if kind in (0, 1):
        name = "end of options" if kind == 0 else "no operation"
        meaning = "the rest is padding" if kind == 0 else "padding to a limit of four octets"
        walk.rows(name, (("kind", 8, _dec, meaning, "RFC 9293 §3.2"),), "RFC 9293 §3.2", "TCP")
        if kind == 0 and walk.at < end:
            walk.octets(
                "padding", end - walk.at, "after the end of options", "RFC 9293 §3.1", "TCP"
            )
        return
    length = walk.data[walk.at + 1] if walk.at + 1 < len(walk.data) else 0
    if length < 2 or walk.at + length > end or _SIZES.get(kind, length) != length:
        walk.odd.append(f"TCP option {kind} has the length {length}")
        walk.octets(
            "malformed option", end - walk.at, "its length is wrong", "RFC 9293 §3.2", "TCP"
        )
        return
    if kind in _TCP_OPTIONS:
        name, source, rows = _TCP_OPTIONS[kind]
        walk.rows(name, (_KIND, _LENGTH, *rows), source, "TCP")
        if kind in (2, 3, 4) and not syn:
            walk.odd.append(f"{name} outside a SYN")
        return
    name, source = _TCP_UNREAD.get(kind, (f"option {kind}", "RFC 9293 §3.2"))
    if kind == 5 and (length - 2) % 8 == 0 and length > 2:
        edges: list[Row] = []
        for block in range(1, (length - 2) // 8 + 1):
            edges.append((f"left edge {block}", 32, _dec, "first number that arrived", source))
            edges.append((f"right edge {block}", 32, _dec, "number after the last", source))
        walk.rows(name, (_KIND, _LENGTH, *edges), source, "TCP")
        return
    rest: tuple[Row, ...] = ()
    if length > 2:
        octets = length - 2
        rest = (("octets", octets * 8, _hex(octets * 2), "not explained here", source),)
    walk.rows(name, (_KIND, _LENGTH, *rest), source, "TCP")


def describe(packet: Packet) -> Iterator[str]:
    """Return lines of text: each header, its fields, their values and meanings, the verdicts."""
    for header in packet.headers:
        indent = "    " if header.inside else ""
        place = f"octets {header.octet}-{header.octet + header.length - 1}"
        yield f"{indent}{header.name} ({place}; {header.source})"
        for field in header.fields:
            bits = (
                f"{field.bit}" if field.bits == 1 else f"{field.bit}-{field.bit + field.bits - 1}"
            )
            yield (
                f"{indent}  bits {bits:<8} {field.name:<22} {field.text:<26} "
                f"{field.meaning} [{field.source}]"
            )
    if packet.payload:
        yield f"data: {len(packet.payload)} octets"
    if packet.cut:
        yield f"the packet {packet.cut}"
    yield from (f"against the rules: {text}" for text in packet.odd)
    yield from (f"checksum of {checksum.text}" for checksum in packet.checksums)
