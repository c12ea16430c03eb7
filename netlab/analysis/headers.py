"""Every field of the headers of one packet: where it lies, what it says, what that means.

Theory of operation. `decode` walks a packet from its first octet, header by header. A fixed
header is a table of rows (name, bits, how the value is written, meaning, source); the rows follow
each other without gaps, so a field's place is the sum of the widths before it. Options are read by
the same rows, one small table per option. Link layers and tunnels are tables through and through
(`netlab.analysis.layers`); the walk goes on behind a tunnel as it does behind a link, until the
innermost packet. A packet that was cut is decoded as far as it goes, and
says so; nothing here raises for the bytes of a packet, whatever they are.

Checksums are computed anew and compared: the one's complement sum of RFC 1071, over the header for
IPv4, over pseudo-header and segment for TCP, UDP and ICMPv6. A sum over octets that were not kept
is unknown, neither right nor wrong.

What is unsatisfactory: fragments are not put together, so of a tunnel that was cut up only the
outer headers are shown; ESP and the many options that hardly anybody has seen are octets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from netlab.analysis import layers
from netlab.analysis.layers import Branch, Layer, Part, When
from netlab.analysis.layouts import (
    Row,
    dec,
    flag,
    hexed,
    named,
    plain,
    shift,
    v4,
    v6,
    words,
)

PROTOCOLS = {
    0: "hop-by-hop options", 1: "ICMP", 2: "IGMP", 4: "IPv4", 6: "TCP", 17: "UDP", 41: "IPv6",
    43: "routing header", 44: "fragment header", 47: "GRE", 50: "ESP", 51: "AH", 58: "ICMPv6",
    59: "nothing", 60: "destination options", 132: "SCTP", 135: "mobility header", 137: "MPLS",
    139: "host identity", 140: "shim6",
}  # fmt: skip
TCP, UDP, ICMP, ICMPV6, FRAGMENT = 6, 17, 1, 58, 44
AUTHENTICATION = 51
_EXTENSIONS = {0, 43, 44, AUTHENTICATION, 60, 135, 139, 140}
_LONGEST = 0xFFFF
"""Octets that a pseudo-header can tell; what a card cuts up later may be longer."""
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

    @property
    def innermost(self) -> Packet:
        """The packet less what carries it: its headers begin with the innermost IP header.

        One that an ICMP error quotes is no packet on its way.
        """
        first = 0
        for place, header in enumerate(self.headers):
            if header.name in ("ICMP", "ICMPv6"):
                break
            if header.name in ("IPv4", "IPv6"):
                first = place
        return replace(self, headers=self.headers[first:])

    def options(self, of: str) -> tuple[Header, ...]:
        """Return the options of a header in their order."""
        return tuple(h for h in self.headers if h.inside == of)


IP4 = "RFC 791 §3.1"
IP6 = "RFC 8200 §3"
T = "RFC 9293 §3.1"
U = "RFC 768"

_IPV4: tuple[Row, ...] = (
    ("version", 4, dec, "4: the layout below", IP4),
    ("header length", 4, words(4, "octets"), "in words of 32 bits, options included", IP4),
    ("DSCP", 6, dec, "the class of service the packet asks for", "RFC 2474 §3"),
    ("ECN", 2, named({0: "not ECN-capable", 1: "ECT(1)", 2: "ECT(0)", 3: "congestion met"}),
     "whether a router may mark instead of drop, and whether one has", "RFC 3168 §5"),
    ("total length", 16, dec, "octets of header and data", IP4),
    ("identification", 16, hexed(4), "the same in all fragments of a packet", IP4),
    ("reserved", 1, dec, "must be zero", IP4),
    ("DF", 1, flag, "do not fragment: a router must drop what is too large", IP4),
    ("MF", 1, flag, "more fragments follow this one", IP4),
    ("fragment offset", 13, words(8, "octets"), "where this fragment begins in the packet", IP4),
    ("TTL", 8, dec, "routers it may still pass; each takes one away", IP4),
    ("protocol", 8, named(PROTOCOLS), "what follows the header", IP4),
    ("checksum", 16, hexed(4), "over this header alone; every router computes it anew", IP4),
    ("source", 32, v4, "the address of the sender", IP4),
    ("destination", 32, v4, "the address of the receiver", IP4),
)  # fmt: skip
_IPV6: tuple[Row, ...] = (
    ("version", 4, dec, "6: the layout below", IP6),
    ("DSCP", 6, dec, "the class of service the packet asks for", "RFC 2474 §3"),
    ("ECN", 2, named({0: "not ECN-capable", 1: "ECT(1)", 2: "ECT(0)", 3: "congestion met"}),
     "whether a router may mark instead of drop, and whether one has", "RFC 3168 §5"),
    ("flow label", 20, hexed(5), "the same for the packets of one flow", "RFC 6437 §2"),
    ("payload length", 16, dec, "octets after these 40", IP6),
    ("next header", 8, named(PROTOCOLS), "what follows", IP6),
    ("hop limit", 8, dec, "routers it may still pass; each takes one away", IP6),
    ("source", 128, v6, "the address of the sender", IP6),
    ("destination", 128, v6, "the address of the receiver", IP6),
)  # fmt: skip
_IPV6_FRAGMENT: tuple[Row, ...] = (
    ("next header", 8, named(PROTOCOLS), "what the whole packet carries", "RFC 8200 §4.5"),
    ("reserved", 8, dec, "zero", "RFC 8200 §4.5"),
    ("fragment offset", 13, words(8, "octets"), "where it begins", "RFC 8200 §4.5"),
    ("reserved 2", 2, dec, "zero", "RFC 8200 §4.5"),
    ("M", 1, flag, "more fragments follow", "RFC 8200 §4.5"),
    ("identification", 32, hexed(8), "the same in all fragments of a packet", "RFC 8200 §4.5"),
)
_EXTENSION: tuple[Row, ...] = (
    ("next header", 8, named(PROTOCOLS), "what follows", "RFC 8200 §4"),
    ("length", 8, words(8, "octets", 8), "beyond the first 8 octets, in eights",
     "RFC 8200 §4"),
)  # fmt: skip
_TCP: tuple[Row, ...] = (
    ("source port", 16, dec, "with the addresses it names the connection", T),
    ("destination port", 16, dec, "with the addresses it names the connection", T),
    ("sequence number", 32, dec, "number of the first octet of data; in a SYN, of the SYN", T),
    ("acknowledgment number", 32, dec, "the next number expected; void without ACK", T),
    ("data offset", 4, words(4, "octets"), "length of this header with its options", T),
    ("reserved", 3, dec, "must be zero", T),
    ("AE", 1, flag, "accurate ECN; was NS", "RFC 9768 §2"),
    ("CWR", 1, flag, "congestion window reduced", "RFC 3168 §6.1"),
    ("ECE", 1, flag, "a packet was marked on its way; in a SYN: ECN is known", "RFC 3168 §6.1"),
    ("URG", 1, flag, "the urgent pointer counts", T),
    ("ACK", 1, flag, "the acknowledgment number counts", T),
    ("PSH", 1, flag, "hand the data to the program without delay", T),
    ("RST", 1, flag, "the connection is over at once", T),
    ("SYN", 1, flag, "opens a direction; takes one number", T),
    ("FIN", 1, flag, "closes a direction; takes one number", T),
    ("window", 16, dec, "octets the sender of this may be sent, before scaling", T),
    ("checksum", 16, hexed(4), "over pseudo-header, header and data", T),
    ("urgent pointer", 16, dec, "end of urgent data; void without URG", T),
)
_UDP: tuple[Row, ...] = (
    ("source port", 16, dec, "where an answer goes; 0: none wanted", U),
    ("destination port", 16, dec, "which socket it is for", U),
    ("length", 16, dec, "octets of header and data, at least 8", U),
    ("checksum", 16, hexed(4), "over pseudo-header, header and data", U),
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
    ("type", 8, named(_ICMP_TYPES), "what is reported", "RFC 792"),
    ("code", 8, dec, "more precisely", "RFC 792"),
    ("checksum", 16, hexed(4), "over the ICMP message", "RFC 792"),
)
_ICMPV6: tuple[Row, ...] = (
    ("type", 8, named(_ICMPV6_TYPES), "below 128: an error", "RFC 4443 §2.1"),
    ("code", 8, dec, "more precisely", "RFC 4443 §2.1"),
    ("checksum", 16, hexed(4), "over pseudo-header and message", "RFC 4443 §2.3"),
)
_ECHO: tuple[Row, ...] = (
    ("identifier", 16, dec, "which run of ping", "RFC 792"),
    ("sequence", 16, dec, "which echo", "RFC 792"),
)
_TOO_BIG: tuple[Row, ...] = (
    ("unused", 16, dec, "zero", "RFC 1191 §4"),
    ("next-hop MTU", 16, dec, "the largest packet the next link carries", "RFC 1191 §4"),
)
_TOO_BIG6: tuple[Row, ...] = (
    ("MTU", 32, dec, "the largest packet the next link carries", "RFC 4443 §3.2"),
)
_REST: tuple[Row, ...] = (("rest", 32, hexed(8), "depends on the type", "RFC 792"),)

_KIND: Row = ("kind", 8, dec, "which option", "RFC 9293 §3.2")
_LENGTH: Row = (
    "length",
    8,
    dec,
    "octets of the option, kind and length included",
    "RFC 9293 §3.2",
)
_TCP_OPTIONS: dict[int, tuple[str, str, tuple[Row, ...]]] = {
    2: ("maximum segment size", "RFC 9293 §3.7.1", (
        ("MSS", 16, dec, "largest segment it wants to receive, without headers",
         "RFC 9293 §3.7.1"),)),
    3: ("window scale", "RFC 7323 §2", (
        ("shift", 8, shift,
         "by how much later windows are shifted, at most 14", "RFC 7323 §2.2"),)),
    4: ("SACK permitted", "RFC 2018 §2", ()),
    8: ("timestamps", "RFC 7323 §3", (
        ("TSval", 32, dec, "the sender's clock", "RFC 7323 §3.2"),
        ("TSecr", 32, dec, "the peer's clock, given back; void without ACK", "RFC 7323 §3.2"))),
    28: ("user timeout", "RFC 5482 §3", (
        ("granularity", 1, dec, "1: minutes", "RFC 5482 §3"),
        ("timeout", 15, dec, "how long data may wait for its acknowledgement", "RFC 5482 §3"))),
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
        self.end: int | None = None  # of the innermost packet, by what IP and UDP say
        self.headers: list[Header] = []
        self.checksums: list[Checksum] = []
        self.odd: list[str] = []
        self.cut = ""

    def rows(self, name: str, rows: tuple[Row, ...], source: str = "", inside: str = "") -> Header:
        """Read a fixed layout at the current place and step over it; _CutError if it is cut.

        What is there of a cut header is kept.
        """
        return self.parts(name, (Part(rows),), source, inside)

    def parts(
        self, name: str, parts: tuple[Part, ...], source: str = "", inside: str = ""
    ) -> Header:
        """Read a layout of which some parts depend on others, as `rows` does."""
        fields: list[Field] = []
        values: dict[str, int] = {}
        bit = 0
        for part in parts:
            if not _holds(part.when, values):
                continue
            for label, bits, show, meaning, where in _sized(part, values):
                end = self.at * 8 + bit + bits
                if end > len(self.data) * 8:
                    if fields:
                        self._keep(name, bit // 8, fields, source, inside)
                    raise _CutError(f"ends inside {name}, before {label}")
                value = self.number(self.at * 8 + bit, bits)
                if show.little:
                    value = int.from_bytes(value.to_bytes(bits // 8, "little"), "big")
                first = (self.at * 8 + bit) // 8
                fields.append(Field(label, bit, bits, value, show(value), meaning, where, first))
                values[label] = value
                bit += bits
        header = self._keep(name, bit // 8, fields, source, inside)
        self.at += bit // 8
        return header

    def number(self, start: int, bits: int) -> int:
        """Return the value of some bits, counted from the first of the packet."""
        last = -(-(start + bits) // 8)
        value = int.from_bytes(self.data[start // 8 : last], "big") >> (last * 8 - start - bits)
        return value & ((1 << bits) - 1)

    @property
    def spent(self) -> bool:
        """Tell whether IP or UDP says that nothing follows."""
        return self.end is not None and self.at >= self.end

    def within(self, end: int) -> int:
        """Return where a packet ends that says `end`: no later than what carries it."""
        return end if self.end is None else min(end, self.end)

    def way(self, branch: Branch, values: Mapping[str, int], name: str) -> str | None:
        """Return the layer that a branch leads to, None if it has no entry for what is there."""
        found = [values[field] for field in branch.by if field in values]
        if not branch.by:
            skip, take = branch.ahead
            last = -(-(self.at * 8 + skip + take) // 8)
            if self.end is not None and last > self.end:
                return None
            if last > len(self.data):
                raise _CutError(f"ends inside {name}")
            found = [self.number(self.at * 8 + skip, take)]
        for low, high, layer in layers.TABLES[branch.table]:
            if any(low <= value <= high for value in found):
                return layer
        return None

    def _keep(
        self, name: str, length: int, fields: list[Field], source: str, inside: str
    ) -> Header:
        header = Header(name, self.at, length, tuple(fields), source, inside)
        self.headers.append(header)
        return header

    def octets(self, name: str, length: int, meaning: str, source: str, inside: str) -> None:
        """Keep `length` octets as one field."""
        self.rows(name, ((name, length * 8, hexed(length * 2), meaning, source),), source, inside)


def ones_complement(data: bytes) -> int:
    """Return the checksum of RFC 1071 over some octets, as it is written into a header."""
    if len(data) % 2:
        data += b"\0"
    # 2^16 is 1 more than 0xffff: the sum is a remainder, and 0 only where everything is.
    whole = int.from_bytes(data, "big")
    total = whole % 0xFFFF or (0xFFFF if whole else 0)
    return total ^ 0xFFFF


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """Return what TCP and UDP sum before their own octets (RFC 9293 §3.1, RFC 8200 §8.1)."""
    if len(source) == 4:
        return source + destination + bytes([0, protocol]) + length.to_bytes(2, "big")
    return source + destination + length.to_bytes(4, "big") + bytes([0, 0, 0, protocol])


def _holds(when: When, values: Mapping[str, int]) -> bool:
    return all(any(values.get(name) for name in clause) for clause in when)


def _sized(part: Part, values: Mapping[str, int]) -> tuple[Row, ...]:
    """Return the rows of a part with their widths; none where it is empty."""
    if part.length is None:
        return part.rows
    ((label, _, _, meaning, source),) = part.rows
    name, unit, more, aligned = part.length
    octets = -(-(values[name] * unit + more) // aligned) * aligned
    if octets <= 0:
        return ()
    return ((label, octets * 8, hexed(octets * 2), meaning, source),)


def decode(data: bytes, *, link: str = "ip") -> Packet:
    """Decode a packet that begins with an IP header, or with a layer of `layers.LAYERS`.

    Of one that begins with anything else (`link` is empty) there are no headers.
    """
    walk = _Walk(data)
    layer = link
    try:
        while layer and not walk.spent:
            if layer in ("ip", "ipv4", "ipv6"):
                layer = _ip(walk, layer)
            else:
                layer = _step(walk, layers.LAYERS[layer])
    except _CutError as cut:
        walk.cut = str(cut)
        walk.at = len(data)
    return Packet(
        tuple(walk.headers),
        tuple(walk.checksums),
        data[walk.at : len(data) if walk.end is None else walk.end],
        walk.cut,
        tuple(walk.odd),
    )


def _step(walk: _Walk, layer: Layer) -> str:
    """Step over a layer; return the one that follows, empty where none is known."""
    values: Mapping[str, int] = {}
    if layer.parts:
        header = walk.parts(layer.name, layer.parts, layer.source)
        values = {field.name: field.value for field in header.fields}
    if not all(low <= values.get(name, low) <= high for name, low, high in layer.only):
        return ""
    if walk.spent:
        return ""
    for branch in layer.then:
        if _holds(branch.when, values):
            found = walk.way(branch, values, layer.name)
            if found is not None:
                return found
    return ""


def layouts() -> dict[str, object]:
    """Return every layout as plain data, for a page that decodes packets itself.

    Rows are as of `netlab.analysis.layouts.plain`, link layers and tunnels as of
    `netlab.analysis.layers.layouts`.
    """
    rows = {
        "ipv4": _IPV4, "ipv6": _IPV6, "fragment": _IPV6_FRAGMENT,
        "extension": _EXTENSION, "tcp": _TCP, "udp": _UDP, "icmp": _ICMP, "icmpv6": _ICMPV6,
        "echo": _ECHO, "too_big": _TOO_BIG, "too_big6": _TOO_BIG6, "rest": _REST,
        "option": (_KIND, _LENGTH),
    }  # fmt: skip
    return {
        **layers.layouts(),
        "protocols": PROTOCOLS,
        "rows": {name: plain(table) for name, table in rows.items()},
        "options": {
            kind: [name, source, _SIZES[kind], plain(table)]
            for kind, (name, source, table) in _TCP_OPTIONS.items()
        },
        "unread": _TCP_UNREAD,
    }


def _ip(walk: _Walk, layer: str = "ip", *, quoted: bool = False) -> str:
    """Decode an IP packet up to its transport; return the layer that it carries, if any.

    `quoted`: it stands inside an ICMP error, which need not hold all of it.
    """
    if walk.at >= len(walk.data):
        raise _CutError("ends before the IP header")
    version = walk.data[walk.at] >> 4
    if version in (4, 6) and layer in ("ip", f"ipv{version}"):
        return _ipv4(walk, quoted) if version == 4 else _ipv6(walk, quoted)
    walk.odd.append(f"IP version {version}")
    raise _CutError(f"is of IP version {version}")


def _end(walk: _Walk, start: int, length: int, quoted: bool) -> int:
    """Return where an IP packet ends, and remember it; a length of 0 says: where its frame does.

    Linux writes 0 for what is too long to say (RFC 2675 for IPv6).
    """
    outer = len(walk.data) if walk.end is None else walk.end
    if quoted:
        return start + length
    walk.end = walk.within(start + length) if length else outer
    return walk.end


def _ipv4(walk: _Walk, quoted: bool) -> str:
    start = walk.at
    header = walk.rows("IPv4", _IPV4, "RFC 791 §3.1")
    length = header["header length"].value * 4
    if length < 20:
        walk.odd.append("an IPv4 header shorter than 20 octets")
        raise _CutError("has an IPv4 header of less than 20 octets")
    end = _end(walk, start, header["total length"].value, quoted)
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
        return ""
    parts = header["MF"].value
    addresses = walk.data[start + 12 : start + 16], walk.data[start + 16 : start + 20]
    follows = header["protocol"].value
    return _transport(walk, follows, addresses, end, whole=not parts, quoted=quoted)


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


def _ipv6(walk: _Walk, quoted: bool) -> str:
    start = walk.at
    header = walk.rows("IPv6", _IPV6, "RFC 8200 §3")
    length = header["payload length"].value
    end = _end(walk, start, 40 + length if length else 0, quoted)
    follows = header["next header"].value
    addresses = walk.data[start + 8 : start + 24], walk.data[start + 24 : start + 40]
    whole = True
    while follows in _EXTENSIONS:
        at = walk.at
        name = PROTOCOLS[follows]
        if follows == FRAGMENT:
            found = walk.rows(name, _IPV6_FRAGMENT, "RFC 8200 §4.5")
            if found["fragment offset"].value:
                return ""
            whole = whole and not found["M"].value
        elif follows == AUTHENTICATION:
            authentication = layers.LAYERS["authentication"]
            found = walk.parts(name, authentication.parts, authentication.source)
        else:
            found = walk.rows(name, _EXTENSION, "RFC 8200 §4")
            walk.at = at + 8 + 8 * found["length"].value
            if walk.at > len(walk.data):
                raise _CutError(f"ends inside the {name}")
        follows = found["next header"].value
    return _transport(walk, follows, addresses, end, whole=whole, quoted=quoted)


def _transport(
    walk: _Walk, protocol: int, addresses: tuple[bytes, bytes], end: int, *, whole: bool,
    quoted: bool,
) -> str:  # fmt: skip
    """Decode what IP carries; return the layer that this carries in turn, if it is a tunnel."""
    start = walk.at
    whole = whole and not quoted
    length = max(0, end - start)
    known = whole and end <= len(walk.data) and length <= _LONGEST
    message = walk.data[start:end] if known else None
    pseudo = pseudo_header(*addresses, protocol, min(length, _LONGEST))
    if protocol == TCP:
        header = walk.rows("TCP", _TCP, "RFC 9293 §3.1")
        _sum(walk, "TCP", header, message, pseudo, 16)
        length = header["data offset"].value * 4
        if length < 20 or start + length > end:
            walk.odd.append(f"a TCP header of {length} octets")
            return ""
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
        elif whole:
            walk.end = walk.within(start + header["length"].value)
        if whole:
            ports = {field.name: field.value for field in header.fields}
            return walk.way(layers.PORTS, ports, "UDP") or ""
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
    elif whole:
        return walk.way(layers.CARRIED, {"protocol": protocol}, "IP") or ""
    return ""


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
        walk.rows(name, (("kind", 8, dec, meaning, "RFC 9293 §3.2"),), "RFC 9293 §3.2", "TCP")
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
            edges.append((f"left edge {block}", 32, dec, "first number that arrived", source))
            edges.append((f"right edge {block}", 32, dec, "number after the last", source))
        walk.rows(name, (_KIND, _LENGTH, *edges), source, "TCP")
        return
    rest: tuple[Row, ...] = ()
    if length > 2:
        octets = length - 2
        rest = (("octets", octets * 8, hexed(octets * 2), "not explained here", source),)
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
