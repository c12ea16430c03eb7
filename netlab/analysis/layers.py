"""What lies below IP and what carries it again: link layers, tags, labels, tunnels, as data.

Theory of operation. A layer is its fields and what may follow it. Fields come in parts, of which
some are there only when flags before them say so, and some are as long as a field before them
says. What follows is found by branches, tried in order: the value of a field, or of bits that
were not read yet, is looked up in a table, whose first entry that fits names the layer. A layer
without parts only looks ahead. `ip`, `ipv4` and `ipv6` are layers as well, but no tables:
`netlab.analysis.headers` reads those, and asks `CARRIED` and `PORTS` here what they carry.

Two programs read these tables, `netlab.analysis.headers` and the script of a page; so they are
data. The capture core has its own decoder, built for speed. Tests hold all three against each
other: every link type that the core knows is in `LINK_TYPES`, and a packet that it takes for TCP
has the same addresses and ports here.
"""

from __future__ import annotations

from dataclasses import dataclass

from netlab.analysis.layouts import Row, dec, flag, hexed, little, mac, named, plain, words

When = tuple[tuple[str, ...], ...]
"""Clauses that must all hold; one holds if any field that it names is there and not zero."""
Table = tuple[tuple[int, int, str], ...]
"""(lowest value, highest value, layer): the first that fits counts; a layer "" ends the walk."""


@dataclass(frozen=True, slots=True)
class Part:
    """Fields that follow each other; `when` says whether they are there.

    With `length`, (field, octets of a unit, octets more, aligned to), the part is one field whose
    width the row does not tell but that field does; it may be absent.
    """

    rows: tuple[Row, ...]
    when: When = ()
    length: tuple[str, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A way on: the first of the fields `by`, or the bits `ahead` (skip, take), found in `table`.

    With several fields an entry fits if any of them has its value.
    """

    table: str
    by: tuple[str, ...] = ()
    ahead: tuple[int, int] = (0, 0)
    when: When = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """A header: its name and source, its parts, the ways on, and in a sentence what it is for.

    Nothing is looked for behind it unless every field of `only` lies between the two values.
    """

    name: str
    source: str
    parts: tuple[Part, ...]
    then: tuple[Branch, ...] = ()
    about: str = ""
    only: tuple[tuple[str, int, int], ...] = ()


LINK_TYPES = {
    0: "null", 1: "ethernet", 6: "token ring", 9: "ppp", 10: "fddi", 12: "ip", 14: "ip",
    50: "ppp", 51: "ppp", 101: "ip", 104: "cisco hdlc", 105: "wireless", 108: "loop",
    113: "cooked", 127: "radiotap", 228: "ip", 229: "ip", 239: "nflog", 274: "mpacket",
    276: "cooked2",
}  # fmt: skip
"""Layers that a frame begins with, by LINKTYPE_ number."""


def _single(*entries: tuple[int, str]) -> Table:
    return tuple((value, value, layer) for value, layer in entries)


_ETHERTYPES = (
    *_single(
        (0x0800, "ipv4"), (0x86DD, "ipv6"), (0x8100, "vlan"), (0x88A8, "vlan"), (0x9100, "vlan"),
        (0x9200, "vlan"), (0x8847, "mpls"), (0x8848, "mpls"), (0x8864, "pppoe"), (0x880B, "ppp"),
        (0x6558, "ethernet"), (0x88BE, "erspan"), (0x22EB, "erspan"),
    ),
    (0, 1500, "llc"),
)  # fmt: skip
_FAMILIES = (
    *_single((2, "ipv4"), (10, "ipv6"), (24, "ipv6"), (28, "ipv6"), (30, "ipv6")),
    *(entry for entry in _ETHERTYPES if entry[0] >= 0x600),
)


def _turned(table: Table) -> Table:
    """Return a table of 32-bit values with the octets of each the other way round."""
    turned = ((int.from_bytes(low.to_bytes(4, "little"), "big"), layer) for low, _, layer in table)
    return _single(*turned)


TABLES: dict[str, Table] = {
    "ethertype": _ETHERTYPES,
    "gre payload": (*_single((0x88BE, "ethernet")), *_ETHERTYPES),  # ERSPAN I has no header
    "cooked": ((4, 4, "llc"), (0, 1500, ""), *_ETHERTYPES),
    "family": _FAMILIES,
    "family, either order": (*_FAMILIES, *_turned(_FAMILIES)),
    "ip version": _single((4, "ipv4"), (6, "ipv6")),
    "ethernet": ((0, 0, "ethernet"),),
    "llc": ((0, 0, "llc"),),
    "sap": (*_single((0xAAAA03, "snap"), (0x060603, "llc ip")), (0, 0xFFFFFF, "llc other")),
    "ppp": _single((0x0021, "ipv4"), (0x0057, "ipv6"), (0x0281, "mpls"), (0x0283, "mpls")),
    "ppp framing": _single((0xFF03, "ppp framing")),
    "ppp width": _single((0, "ppp long"), (1, "ppp short")),
    "bottom": _single((0, "mpls"), (1, "mpls payload")),
    "mpls payload": _single((0, "control word"), (4, "ipv4"), (6, "ipv6")),
    "wireless": ((0, 0, "wireless"),),
    "nflog": ((0, 0, "nflog"),),
    "attributes": ((0, 0, "attributes"),),
    "attribute": (*_single((0x0900, "packet"), (0x0980, "packet")), (0, 0xFFFF, "attribute")),
    "gre version": (*_single((1, "pptp")), (0, 7, "gre 0")),
    "erspan": _single((1, "erspan 2"), (2, "erspan 3")),
    "gpe": _single((1, "ipv4"), (2, "ipv6"), (3, "ethernet"), (5, "mpls")),
    "gtp": (*_single((0, "inner ip")), (1, 255, "gtp extension")),
    "inner ip": ((0, 0, "inner ip"),),
    "teredo": (*_single((1, "teredo authentication"), (0, "teredo origin")),
               (0x6000, 0x6FFF, "ipv6")),
    "teredo origin": (*_single((0, "teredo origin")), (0x6000, 0x6FFF, "ipv6")),
    "teredo packet": ((0x6000, 0x6FFF, "ipv6"),),
    "authenticated": _single((4, "ipv4"), (41, "ipv6")),
    "carried": _single((4, "ipv4"), (41, "ipv6"), (47, "gre"), (51, "authentication"),
                       (137, "mpls")),
    "port": _single((4789, "vxlan"), (8472, "vxlan"), (4790, "vxlan gpe"), (6081, "geneve"),
                    (2152, "gtp"), (3544, "teredo")),
}  # fmt: skip
CARRIED = Branch("carried", by=("protocol", "next header"))
"""What IP carries that carries a packet."""
PORTS = Branch("port", by=("source port", "destination port"))
"""What UDP carries, by the ports under which tunnels are registered."""

ETHERTYPES = named({
    0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP", 0x8035: "RARP", 0x8100: "VLAN",
    0x88A8: "VLAN of a provider", 0x9100: "VLAN", 0x9200: "VLAN", 0x8847: "MPLS",
    0x8848: "MPLS multicast", 0x8863: "PPPoE discovery", 0x8864: "PPPoE session", 0x880B: "PPP",
    0x6558: "Ethernet", 0x88BE: "ERSPAN", 0x22EB: "ERSPAN III", 0x88CC: "LLDP",
})  # fmt: skip
_TYPE = "what the frame carries"
_DIRECTIONS = named({0: "to us", 1: "broadcast", 2: "multicast", 3: "to another", 4: "from us"})
_PPP = named({0x21: "IPv4", 0x57: "IPv6", 0x281: "MPLS", 0x283: "MPLS multicast", 0xC021: "LCP",
              0xC023: "PAP", 0xC223: "CHAP", 0x8021: "IPCP", 0x8057: "IPV6CP"})  # fmt: skip

SLL, SLL2, NULL = "LINKTYPE_LINUX_SLL", "LINKTYPE_LINUX_SLL2", "LINKTYPE_NULL"
_COOKED = "Stands for a link layer whose own header the capturing machine does not show."
_LINK = "Link layer: brings the frame to the next machine on this link, by MAC addresses; "
_BY_TYPE = (Branch("ethertype", by=("type",)),)
_TO_LLC = (Branch("llc"),)


def _fields(*rows: Row) -> tuple[Part, ...]:
    return (Part(rows),)


def _ethernet(source: str) -> tuple[Row, ...]:
    return (
        ("destination", 48, mac, "who shall take the frame from the link", source),
        ("source", 48, mac, "who put it there", source),
    )


def _loopback(table: str) -> Layer:
    family = ("family", 32, hexed(8), "AF_ number of the capturing system", NULL)
    about = "Stands for a link layer where there is none: the packet never left the machine."
    return Layer("loopback", NULL, _fields(family), (Branch(table, by=("family",)),), about)


def _llc(then: tuple[Branch, ...] = (), more: tuple[Row, ...] = ()) -> Layer:
    source = "IEEE 802.2 §3.2"
    head: tuple[Row, ...] = (
        ("DSAP", 8, hexed(2), "which service shall get it", source),
        ("SSAP", 8, hexed(2), "which service sent it", source),
        ("control", 8, hexed(2), "3: an unnumbered frame with data", source),
    )
    about = "Says what a frame carries where the link's own header has a length in that place."
    only = (("OUI", 0, 0xF8),) if more else ()
    return Layer("SNAP" if more else "LLC", source, _fields(*head, *more), then, about, only)


def _ppp(bits: int) -> Layer:
    row = ("protocol", bits, _PPP, "what follows; odd in its last bit", "RFC 1661 §2")
    about = "Link layer between two ends: says which protocol a frame carries."
    return Layer("PPP", "RFC 1661 §2", _fields(row), (Branch("ppp", by=("protocol",)),), about)


G, P = "RFC 2784 §2.1", "RFC 2637 §4.1"
E2, E3 = "draft-foschiano-erspan-03 §4.2", "draft-foschiano-erspan-03 §4.3"
GPE, GTP, TER = "draft-ietf-nvo3-vxlan-gpe §3.1", "3GPP TS 29.281 §5.1", "RFC 4380 §5.1.1"
V, GEN, AH, OE = "RFC 7348 §5", "RFC 8926 §3.4", "RFC 4302 §2", "RFC 2516 §4"
W, RT, NF = "IEEE 802.11 §9.3.2", "radiotap.org", "LINKTYPE_NFLOG"
_TUNNEL = "Tunnel: carries a whole packet of another network as the data of this one"


def _mirror(name: str, source: str, *more: Row, platform: bool = False) -> Layer:
    head: tuple[Row, ...] = (
        ("version", 4, dec, "1: type II, 2: type III", source),
        ("VLAN", 12, dec, "of the frame when it was mirrored", source),
        ("COS", 3, dec, "its class", source),
        ("state", 2, dec, "of its tag, or of its check sum", source),
        ("truncated", 1, flag, "the frame was cut", source),
        ("session", 10, dec, "which mirroring it belongs to", source),
        *more,
    )
    beyond = Part((("platform", 64, hexed(16), "depends on the hardware", E3),), (("O",),))
    parts = (Part(head), beyond) if platform else (Part(head),)
    about = "Carries a copy of a frame from a switch to whoever watches it."
    return Layer(name, source, parts, (Branch("ethernet"),), about)


def _registered(source: str) -> tuple[Row, ...]:
    return (
        ("VNI", 24, dec, "which virtual network the frame belongs to", source),
        ("reserved 3", 8, dec, "zero", source),
    )


LAYERS: dict[str, Layer] = {
    "ethernet": Layer(
        "Ethernet", "IEEE 802.3",
        _fields(*_ethernet("IEEE 802.3 §3.2"), ("type", 16, ETHERTYPES, _TYPE,
                                                "IEEE 802.3 §3.2.6")),
        _BY_TYPE, _LINK + "every hop replaces it."),
    "mpacket": Layer(
        "preamble", "IEEE 802.3br",
        _fields(("preamble", 56, hexed(14), "lets the receiver find the beat", "IEEE 802.3br"),
                ("SMD", 8, hexed(2), "a whole frame, or a part of one", "IEEE 802.3br")),
        (Branch("ethernet"),)),
    "vlan": Layer(
        "VLAN", "IEEE 802.1Q",
        _fields(("priority", 3, dec, "the class of the frame", "IEEE 802.1Q §9.6"),
                ("DEI", 1, flag, "may be dropped first", "IEEE 802.1Q §9.6"),
                ("VLAN", 12, dec, "which virtual network it belongs to", "IEEE 802.1Q §9.6"),
                ("type", 16, ETHERTYPES, _TYPE, "IEEE 802.1Q §9.4")),
        _BY_TYPE, "A tag: says which of several networks on one cable the frame belongs to."),
    "cooked": Layer(
        "cooked capture", SLL,
        _fields(("direction", 16, _DIRECTIONS, "as the capturing machine saw it", SLL),
                ("device type", 16, dec, "ARPHRD_ number of the interface", SLL),
                ("address length", 16, dec, "octets of the address that count", SLL),
                ("address", 64, hexed(16), "link-layer address of the sender", SLL),
                ("type", 16, ETHERTYPES, _TYPE, SLL)),
        (Branch("cooked", by=("type",)),), _COOKED),
    "cooked2": Layer(
        "cooked capture v2", SLL2,
        _fields(("type", 16, ETHERTYPES, _TYPE, SLL2),
                ("reserved", 16, dec, "zero", SLL2),
                ("interface", 32, dec, "index of the interface", SLL2),
                ("device type", 16, dec, "ARPHRD_ number of the interface", SLL2),
                ("direction", 8, _DIRECTIONS, "as the capturing machine saw it", SLL2),
                ("address length", 8, dec, "octets of the address that count", SLL2),
                ("address", 64, hexed(16), "link-layer address of the sender", SLL2)),
        (Branch("cooked", by=("type",)),), _COOKED),
    "null": _loopback("family, either order"),
    "loop": _loopback("family"),
    "fddi": Layer(
        "FDDI", "ISO 9314-2",
        _fields(("frame control", 8, hexed(2), "kind of frame", "ISO 9314-2"),
                *_ethernet("ISO 9314-2")),
        _TO_LLC, _LINK + "on a ring of glass."),
    "token ring": Layer(
        "token ring", "IEEE 802.5 §3",
        (Part((("access control", 8, hexed(2), "priority, token, monitor", "IEEE 802.5 §3.2"),
               ("frame control", 8, hexed(2), "kind of frame", "IEEE 802.5 §3.2"),
               ("destination", 48, mac, "who shall take the frame", "IEEE 802.5 §3.2"),
               ("routed", 1, flag, "bridges on the way are named", "IEEE 802.5 §3.2"),
               ("source", 47, hexed(12), "who put it there", "IEEE 802.5 §3.2"))),
         Part((("broadcast", 3, dec, "all ways, or the one named", "IEEE 802.5 §3.3"),
               ("length", 5, dec, "octets of this field", "IEEE 802.5 §3.3"),
               ("backward", 1, flag, "the way is read from its end", "IEEE 802.5 §3.3"),
               ("largest frame", 3, dec, "that the way can carry", "IEEE 802.5 §3.3"),
               ("reserved", 4, dec, "zero", "IEEE 802.5 §3.3")), (("routed",),)),
         Part((("way", 0, hexed(0), "rings and bridges", "IEEE 802.5 §3.3"),), (("routed",),),
              ("length", 1, -2, 1))),
        _TO_LLC, _LINK + "on a ring."),
    "cisco hdlc": Layer(
        "HDLC", "LINKTYPE_C_HDLC",
        _fields(("address", 8, hexed(2), "15: one receiver, 143: all", "LINKTYPE_C_HDLC"),
                ("control", 8, dec, "zero", "LINKTYPE_C_HDLC"),
                ("type", 16, ETHERTYPES, _TYPE, "LINKTYPE_C_HDLC")),
        _BY_TYPE, "Link layer of a line with two ends."),
    "ppp": Layer("PPP", "RFC 1661 §2", (), (
        Branch("ppp framing", ahead=(0, 16)), Branch("ppp width", ahead=(7, 1)))),
    "ppp framing": Layer(
        "HDLC", "RFC 1662 §3.1",
        _fields(("address", 8, hexed(2), "255: all stations", "RFC 1662 §3.1"),
                ("control", 8, hexed(2), "3: an unnumbered frame with data", "RFC 1662 §3.1")),
        (Branch("ppp width", ahead=(7, 1)),), "Frames PPP on a line."),
    "ppp short": _ppp(8),
    "ppp long": _ppp(16),
    "llc": Layer("LLC", "IEEE 802.2 §3.2", (), (Branch("sap", ahead=(0, 24)),)),
    "llc other": _llc(),
    "llc ip": _llc((Branch("ip version", ahead=(0, 4)),)),
    "snap": _llc(_BY_TYPE, (
        ("OUI", 24, hexed(6), "who defined the type; 0: as in Ethernet", "IEEE 802 §9.2"),
        ("type", 16, ETHERTYPES, _TYPE, "IEEE 802 §9.2"))),
    "radiotap": Layer(
        "radiotap", RT,
        (Part((("version", 8, dec, "zero", RT), ("pad", 8, dec, "zero", RT),
               ("length", 16, little, "octets of this header", RT),
               ("present", 32, hexed(8), "which figures follow; least octet first", RT))),
         Part((("figures", 0, hexed(0), "of the radio: channel, rate, signal", RT),), (),
              ("length", 1, -8, 1))),
        (Branch("wireless"),), "What the radio of the capturing machine measured.",
        (("length", 8, 0xFFFF),)),
    "wireless": Layer(
        "802.11", W,
        (Part((("QoS", 1, flag, "a class of service follows", "IEEE 802.11 §9.2.4"),
               ("no data", 1, flag, "carries nothing", "IEEE 802.11 §9.2.4"),
               ("subtype", 2, dec, "of the data frame", "IEEE 802.11 §9.2.4"),
               ("type", 2, named({0: "management", 1: "control", 2: "data"}),
                "kind of frame", "IEEE 802.11 §9.2.4"),
               ("version", 2, dec, "zero", "IEEE 802.11 §9.2.4"),
               ("order", 1, flag, "with QoS: a field for high throughput follows",
                "IEEE 802.11 §9.2.4"),
               ("protected", 1, flag, "encrypted", "IEEE 802.11 §9.2.4"),
               ("more data", 1, flag, "the access point keeps more", "IEEE 802.11 §9.2.4"),
               ("power management", 1, flag, "the sender goes to sleep", "IEEE 802.11 §9.2.4"),
               ("retry", 1, flag, "sent again by the radio", "IEEE 802.11 §9.2.4"),
               ("more fragments", 1, flag, "of this frame follow", "IEEE 802.11 §9.2.4"),
               ("from DS", 1, flag, "an access point sent it", "IEEE 802.11 §9.2.4"),
               ("to DS", 1, flag, "an access point shall get it", "IEEE 802.11 §9.2.4"),
               ("duration", 16, little, "microseconds that the air is taken",
                "IEEE 802.11 §9.2.5"),
               ("address 1", 48, mac, "the radio that shall hear it", W),
               ("address 2", 48, mac, "the radio that sent it", W),
               ("address 3", 48, mac, "by the two flags of the DS: network, sender, receiver", W),
               ("sequence control", 16, little, "16 times a number, plus the fragment", W))),
         Part((("address 4", 48, mac, "the sender, between access points", W),),
              (("from DS",), ("to DS",))),
         Part((("QoS control", 16, little, "class of the frame", W),), (("QoS",),)),
         Part((("HT control", 32, hexed(8), "least octet first", W),), (("QoS",), ("order",)))),
        _TO_LLC, _LINK + "through the air.",
        (("type", 2, 2), ("no data", 0, 0), ("protected", 0, 0))),
    "nflog": Layer(
        "netfilter log", NF,
        _fields(("family", 8, dec, "AF_ number of what follows", NF),
                ("version", 8, dec, "zero", NF),
                ("group", 16, dec, "which log of the firewall", NF)),
        (Branch("attributes"),), "What a rule of the firewall logged."),
    "attributes": Layer("attribute", NF, (), (Branch("attribute", ahead=(16, 16)),)),
    "attribute": Layer(
        "attribute", NF,
        (Part((("length", 16, little, "octets, this header included", NF),
               ("kind", 16, little, "which attribute", NF))),
         Part((("value", 0, hexed(0), "not explained here", NF),), (), ("length", 1, -4, 4))),
        (Branch("attributes"),), "Something about the packet.", (("length", 4, 0xFFFF),)),
    "packet": Layer(
        "packet attribute", NF,
        _fields(("length", 16, little, "octets, this header included", NF),
                ("kind", 16, little, "9: the packet", NF)),
        (Branch("ip version", ahead=(0, 4)),), "Says that the packet follows.",
        (("length", 4, 0xFFFF),)),
    "mpls": Layer(
        "MPLS", "RFC 3032 §2.1",
        _fields(("label", 20, dec, "by which the next router forwards", "RFC 3032 §2.1"),
                ("class", 3, dec, "of traffic", "RFC 5462 §1"),
                ("S", 1, flag, "the last label of the stack", "RFC 3032 §2.1"),
                ("TTL", 8, dec, "routers it may still pass", "RFC 3032 §2.1")),
        (Branch("bottom", by=("S",)),),
        "A label: routers of the provider forward by it, without looking at addresses."),
    "mpls payload": Layer(
        "MPLS", "RFC 4385 §3", (), (Branch("mpls payload", ahead=(0, 4)),)),
    "control word": Layer(
        "control word", "RFC 4385 §3",
        _fields(("zero", 4, dec, "tells it from IP", "RFC 4385 §3"),
                ("flags", 4, hexed(1), "depend on what is carried", "RFC 4385 §3"),
                ("FRG", 2, dec, "whether it is a fragment", "RFC 4385 §3"),
                ("length", 6, dec, "of short frames, else zero", "RFC 4385 §3"),
                ("sequence", 16, dec, "zero: not numbered", "RFC 4385 §3")),
        (Branch("ethernet"),), "Lies between labels and the frame that they carry."),
    "pppoe": Layer(
        "PPPoE", OE,
        _fields(("version", 4, dec, "1", OE), ("type", 4, dec, "1", OE),
                ("code", 8, dec, "0: data of a session", OE),
                ("session", 16, dec, "which one", OE),
                ("length", 16, dec, "octets of what follows", OE)),
        (Branch("ppp width", ahead=(7, 1)),),
        "A session over Ethernet, as between a home and its provider; its 8 octets with PPP are why"
        " such lines have an MTU of 1492.",
        (("version", 1, 1), ("type", 1, 1), ("code", 0, 0))),
    "gre": Layer("GRE", G, (), (Branch("gre version", ahead=(13, 3)),)),
    "gre 0": Layer(
        "GRE", G,
        (Part((("C", 1, flag, "a checksum follows", G),
               ("R", 1, flag, "zero; once a route", G),
               ("K", 1, flag, "a key follows", "RFC 2890 §2"),
               ("S", 1, flag, "a sequence number follows", "RFC 2890 §2"),
               ("reserved", 9, dec, "zero", G),
               ("version", 3, dec, "zero", G),
               ("protocol", 16, ETHERTYPES, "what is carried", G))),
         Part((("checksum", 16, hexed(4), "over this header and what it carries", G),
               ("reserved 2", 16, dec, "zero", G)), (("C",),)),
         Part((("key", 32, dec, "tells tunnels between the same ends apart", "RFC 2890 §2.1"),),
              (("K",),)),
         Part((("sequence", 32, dec, "of this packet in the tunnel", "RFC 2890 §2.2"),),
              (("S",),))),
        (Branch("ethertype", by=("protocol",), when=(("S",),)),
         Branch("gre payload", by=("protocol",))),
        _TUNNEL + "; of any kind, directly over IP.", (("R", 0, 0), ("version", 0, 0))),
    "pptp": Layer(
        "GRE", P,
        (Part((("C", 1, flag, "zero", P), ("R", 1, flag, "zero", P),
               ("K", 1, flag, "set: length and call follow", P),
               ("S", 1, flag, "a sequence number follows", P),
               ("reserved", 4, dec, "zero", P),
               ("A", 1, flag, "an acknowledgment follows", P),
               ("flags", 4, dec, "zero", P),
               ("version", 3, dec, "1: as PPTP uses it", P),
               ("protocol", 16, ETHERTYPES, "what is carried: PPP", P))),
         Part((("checksum", 32, hexed(8), "has no place here", P),), (("C",),)),
         Part((("payload length", 16, dec, "octets carried", P),
               ("call", 16, dec, "of the receiver", P)), (("K",),)),
         Part((("sequence", 32, dec, "of this packet in the tunnel", P),), (("S",),)),
         Part((("acknowledgment", 32, dec, "the highest number that arrived", P),), (("A",),))),
        (Branch("ethertype", by=("protocol",)),),
        _TUNNEL + "; PPTP numbers and acknowledges them.", (("R", 0, 0),)),
    "erspan": Layer("ERSPAN", E2, (), (Branch("erspan", ahead=(0, 4)),)),
    "erspan 2": _mirror(
        "ERSPAN II", E2, ("reserved", 12, dec, "zero", E2),
        ("index", 20, dec, "port and direction", E2)),
    "erspan 3": _mirror(
        "ERSPAN III", E3, ("time stamp", 32, dec, "in the unit that Gra says", E3),
        ("SGT", 16, dec, "group of the sender", E3), ("P", 1, flag, "an Ethernet frame", E3),
        ("FT", 5, dec, "kind of frame; 0: Ethernet", E3), ("hardware", 6, dec, "which engine", E3),
        ("D", 1, flag, "on its way out", E3), ("Gra", 2, dec, "unit of the time stamp", E3),
        ("O", 1, flag, "eight octets more follow", E3), platform=True),
    "vxlan": Layer(
        "VXLAN", V,
        _fields(("reserved", 4, dec, "zero", V), ("I", 1, flag, "the VNI counts", V),
                ("reserved 2", 27, dec, "zero", V), *_registered(V)),
        (Branch("ethernet"),), _TUNNEL + "; an Ethernet over UDP."),
    "vxlan gpe": Layer(
        "VXLAN-GPE", GPE,
        _fields(("reserved", 2, dec, "zero", GPE), ("version", 2, dec, "zero", GPE),
                ("I", 1, flag, "the VNI counts", GPE),
                ("P", 1, flag, "the next protocol counts", GPE),
                ("B", 1, flag, "to many receivers", GPE), ("O", 1, flag, "for maintenance", GPE),
                ("reserved 2", 16, dec, "zero", GPE),
                ("next protocol", 8, named({1: "IPv4", 2: "IPv6", 3: "Ethernet", 5: "MPLS"}),
                 "what is carried", GPE),
                *_registered(GPE)),
        (Branch("gpe", by=("next protocol",)),), _TUNNEL + "; over UDP."),
    "geneve": Layer(
        "Geneve", GEN,
        (Part((("version", 2, dec, "zero", GEN),
               ("options length", 6, words(4, "octets"), "in words of 32 bits", GEN),
               ("O", 1, flag, "for the ends of the tunnel themselves", GEN),
               ("C", 1, flag, "there are options that one must know", GEN),
               ("reserved", 6, dec, "zero", GEN),
               ("protocol", 16, ETHERTYPES, "what is carried", GEN),
               ("VNI", 24, dec, "which virtual network it belongs to", GEN),
               ("reserved 2", 8, dec, "zero", GEN))),
         Part((("options", 0, hexed(0), "each a class, a type, a length, a value",
                "RFC 8926 §3.5"),), (), ("options length", 4, 0, 1))),
        (Branch("ethertype", by=("protocol",)),), _TUNNEL + "; over UDP, with options."),
    "gtp": Layer(
        "GTP-U", GTP,
        (Part((("version", 3, dec, "1", GTP), ("PT", 1, flag, "set: GTP, else GTP'", GTP),
               ("reserved", 1, dec, "zero", GTP),
               ("E", 1, flag, "extension headers follow", GTP),
               ("S", 1, flag, "the sequence number counts", GTP),
               ("PN", 1, flag, "the N-PDU number counts", GTP),
               ("message", 8, named({1: "echo request", 2: "echo response", 26: "error",
                                     254: "end marker", 255: "packet"}), "255: a packet", GTP),
               ("length", 16, dec, "octets after these 8", GTP),
               ("TEID", 32, hexed(8), "which tunnel of the receiver", GTP))),
         Part((("sequence", 16, dec, "void without S", GTP),
               ("N-PDU", 8, dec, "void without PN", GTP),
               ("next extension", 8, hexed(2), "void without E; 0: none", GTP)),
              (("E", "S", "PN"),))),
        (Branch("gtp", by=("next extension",), when=(("E",),)), Branch("inner ip")),
        _TUNNEL + "; a mobile's packet between antenna and core.",
        (("version", 1, 1), ("PT", 1, 1), ("message", 255, 255))),
    "gtp extension": Layer(
        "GTP-U extension", "3GPP TS 29.281 §5.2",
        (Part((("length", 8, words(4, "octets"), "in words of 32 bits", "3GPP TS 29.281 §5.2"),)),
         Part((("content", 0, hexed(0), "not explained here", "3GPP TS 29.281 §5.2"),), (),
              ("length", 4, -2, 1)),
         Part((("next extension", 8, hexed(2), "0: none", "3GPP TS 29.281 §5.2"),),
              (("length",),))),
        (Branch("gtp", by=("next extension",)),), "", (("length", 1, 255),)),
    "inner ip": Layer("IP", "RFC 791 §3.1", (), (Branch("ip version", ahead=(0, 4)),)),
    "teredo": Layer("Teredo", TER, (), (Branch("teredo", ahead=(0, 16)),)),
    "teredo authentication": Layer(
        "Teredo authentication", TER,
        (Part((("kind", 16, dec, "1: authentication", TER),
               ("client length", 8, dec, "octets", TER),
               ("value length", 8, dec, "octets", TER))),
         Part((("client", 0, hexed(0), "who it says it is", TER),), (),
              ("client length", 1, 0, 1)),
         Part((("value", 0, hexed(0), "proves it", TER),), (), ("value length", 1, 0, 1)),
         Part((("nonce", 64, hexed(16), "makes it this one", TER),
               ("confirmation", 8, dec, "zero: go on", TER)))),
        (Branch("teredo origin", ahead=(0, 16)),)),
    "teredo origin": Layer(
        "Teredo origin", TER,
        _fields(("kind", 16, dec, "0: origin", TER),
                ("port", 16, hexed(4), "every bit turned round", TER),
                ("address", 32, hexed(8), "every bit turned round", TER)),
        (Branch("teredo packet", ahead=(0, 16)),),
        "How the world outside a translator sees the sender."),
    "authentication": Layer(
        "AH", AH,
        (Part((("next header", 8, dec, "what follows", AH),
               ("length", 8, words(4, "octets", 8), "in words of 32 bits, less two", AH),
               ("reserved", 16, dec, "zero", AH),
               ("SPI", 32, hexed(8), "which keys", AH),
               ("sequence", 32, dec, "against replay", AH))),
         Part((("ICV", 0, hexed(0), "proves that nobody changed the packet", AH),), (),
              ("length", 4, -4, 1))),
        (Branch("authenticated", by=("next header",)),),
        "Proves who sent the packet, and that nobody changed it."),
}  # fmt: skip


def layouts() -> dict[str, object]:
    """Return all tables as plain data; [] stands for what is not given."""
    return {
        "layers": {
            key: {
                "name": layer.name,
                "source": layer.source,
                "about": layer.about,
                "only": layer.only,
                "parts": [[plain(part.rows), part.when, part.length] for part in layer.parts],
                "then": [_way(branch) for branch in layer.then],
            }
            for key, layer in LAYERS.items()
        },
        "tables": TABLES,
        "carried": _way(CARRIED),
        "ports": _way(PORTS),
    }


def _way(branch: Branch) -> list[object]:
    return [branch.table, branch.by, branch.ahead, branch.when]
