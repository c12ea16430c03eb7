"""Captures made in plain Python: frames, TCP scripts and the containers that hold them.

Nothing here is read from a network or a clock, so a test that builds a capture knows every
octet of it. Three layers, each usable alone:

* **frames** are functions from bytes to bytes, innermost first:
  ``ether(vlan(ipv4(tcp(b"hello", ...), ...), vid=7), kind=DOT1Q)``;
* **scripts** are a `Conversation`: two sides that keep their sequence numbers and put segments
  on a common list, as in ``talk.handshake(); talk.client.send(1000); talk.server.ack()``;
* **containers**: `pcap()` and `pcapng()` turn a list of `Packet` into the bytes of a file.

Times are integers in nanoseconds. Whatever is random takes its `random.Random` as an argument.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from random import Random

US = 1_000
MS = 1_000_000
S = 1_000_000_000
START = 1_700_000_000 * S
"""When a script starts unless told otherwise: an even second, far from zero."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A captured frame: when, what was kept of it, and how long it was on the wire."""

    time_ns: int
    data: bytes
    wire_length: int = -1
    interface: int = 0
    comment: str = ""

    @property
    def length(self) -> int:
        """The length on the wire; that of the data unless given."""
        return len(self.data) if self.wire_length < 0 else self.wire_length

    def cut(self, snaplen: int) -> Packet:
        """Return the packet as a capture with this snap length would keep it."""
        return replace(self, data=self.data[:snaplen], wire_length=self.length)


# --------------------------------------------------------------------------- checksums


def internet_checksum(data: bytes) -> int:
    """Return the complement of the ones' complement sum of RFC 1071.

    2¹⁶ ≡ 1 (mod 2¹⁶ - 1), so the sum of the words is the whole number's remainder; that of data
    which is not all zeros is never 0.
    """
    number = int.from_bytes(data) << (len(data) % 2 * 8)
    return 0xFFFF - (number % 0xFFFF or 0xFFFF) if number else 0xFFFF


@functools.cache
def packed(address: str) -> bytes:
    """Return an IPv4 or IPv6 address as it travels."""
    return ip_address(address).packed


def pseudo_header(src: str, dst: str, proto: int, length: int) -> bytes:
    """Return what TCP and UDP checksums cover besides the datagram."""
    if ":" in src:
        return packed(src) + packed(dst) + struct.pack("!I3xB", length, proto)
    return packed(src) + packed(dst) + struct.pack("!BBH", 0, proto, length)


# --------------------------------------------------------------------------- link layers

IPV4, IPV6, ARP, DOT1Q, QINQ, MPLS, PPPOE = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x8847, 0x8864
TRANSPARENT_ETHERNET = 0x6558
LINKTYPE_NULL, LINKTYPE_ETHERNET, LINKTYPE_RAW, LINKTYPE_SLL = 0, 1, 101, 113
LINKTYPE_LOOP, LINKTYPE_IPV4, LINKTYPE_IPV6, LINKTYPE_SLL2 = 108, 228, 229, 276


def kind_of(payload: bytes) -> int:
    """Return the EtherType of an IP packet, read from its version nibble."""
    return IPV6 if payload[:1] and payload[0] >> 4 == 6 else IPV4


def ether(payload: bytes, *, kind: int | None = None, pad: bool = False) -> bytes:
    """Ethernet II; `pad` fills up to the 60 octets that real hardware sends."""
    frame = bytes.fromhex("02000000000202000000 0001".replace(" ", ""))
    frame += struct.pack("!H", kind_of(payload) if kind is None else kind) + payload
    return frame.ljust(60, b"\0") if pad else frame


def vlan(payload: bytes, *, vid: int, kind: int | None = None, priority: int = 0) -> bytes:
    """Return an 802.1Q tag; put it in an `ether` or another tag whose kind is DOT1Q or QINQ."""
    tag = priority << 13 | vid
    return struct.pack("!HH", tag, kind_of(payload) if kind is None else kind) + payload


def mpls(payload: bytes, *labels: int) -> bytes:
    """Return MPLS labels, the last with the bottom-of-stack bit."""
    stack = b""
    for place, label in enumerate(labels):
        stack += struct.pack("!I", label << 12 | (place == len(labels) - 1) << 8 | 64)
    return stack + payload


def pppoe(payload: bytes, *, session: int = 1) -> bytes:
    """PPPoE session data carrying PPP with IPv4 or IPv6."""
    protocol = 0x57 if kind_of(payload) == IPV6 else 0x21
    return struct.pack("!BBHHH", 0x11, 0, session, len(payload) + 2, protocol) + payload


def snap(payload: bytes, *, kind: int | None = None) -> bytes:
    """802.3 with LLC/SNAP instead of an EtherType."""
    llc = b"\xaa\xaa\x03\0\0\0" + struct.pack("!H", kind_of(payload) if kind is None else kind)
    return ether(llc + payload, kind=len(llc + payload))


def sll(payload: bytes, *, kind: int | None = None, direction: int = 0) -> bytes:
    """Linux "cooked" capture, version 1 (`tcpdump -i any`)."""
    header = struct.pack("!HHH8s", direction, 1, 6, b"\x02\0\0\0\0\x01\0\0")
    return header + struct.pack("!H", kind_of(payload) if kind is None else kind) + payload


def sll2(payload: bytes, *, kind: int | None = None, ifindex: int = 2) -> bytes:
    """Linux "cooked" capture, version 2."""
    kind = kind_of(payload) if kind is None else kind
    return struct.pack("!HHIHBB8s", kind, 0, ifindex, 1, 0, 6, b"\x02\0\0\0\0\x01\0\0") + payload


def null(payload: bytes, *, order: str = "<") -> bytes:
    """BSD loopback: the address family in the byte order of the machine that captured."""
    return struct.pack(order + "I", 30 if kind_of(payload) == IPV6 else 2) + payload


def loop(payload: bytes) -> bytes:
    """OpenBSD loopback: as `null`, always big-endian."""
    return null(payload, order=">")


# --------------------------------------------------------------------------- network layers


def ipv4(
    payload: bytes,
    *,
    src: str = "10.0.0.1",
    dst: str = "10.0.0.2",
    proto: int = 6,
    ttl: int = 64,
    ident: int = 0,
    flags: int = 2,
    offset: int = 0,
    tos: int = 0,
    options: bytes = b"",
    total_length: int | None = None,
) -> bytes:
    """IPv4. `flags` is 2 for DF and 1 for MF, `offset` counts octets, `total_length` may lie."""
    words = 5 + len(options) // 4
    length = words * 4 + len(payload) if total_length is None else total_length
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words, tos, length, ident, flags << 13 | offset // 8, ttl, proto, 0,
        packed(src), packed(dst),
    ) + options  # fmt: skip
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + payload


def ipv6(
    payload: bytes,
    *,
    src: str = "fd00::1",
    dst: str = "fd00::2",
    proto: int = 6,
    hops: int = 64,
    traffic_class: int = 0,
    payload_length: int | None = None,
) -> bytes:
    """IPv6 without extension headers; put those in front of `payload` and name the first."""
    length = len(payload) if payload_length is None else payload_length
    head = struct.pack("!IHBB", 6 << 28 | traffic_class << 20, length, proto, hops)
    return head + packed(src) + packed(dst) + payload


def ip(payload: bytes, *, src: str, dst: str, proto: int = 6, tos: int = 0) -> bytes:
    """IPv4 or IPv6, whichever the addresses are."""
    if ":" in src:
        return ipv6(payload, src=src, dst=dst, proto=proto, traffic_class=tos)
    return ipv4(payload, src=src, dst=dst, proto=proto, tos=tos)


def extension(payload: bytes, *, following: int, octets: int = 8) -> bytes:
    """Return an IPv6 hop-by-hop or destination options header of padding, then `payload`."""
    return bytes([following, octets // 8 - 1, 1, octets - 4]) + bytes(octets - 4) + payload


def fragments(packet: bytes, size: int, *, ident: int = 77) -> list[bytes]:
    """Cut an IPv4 or IPv6 packet without extensions into fragments of `size` payload octets."""
    if size % 8:
        raise ValueError("a fragment holds a multiple of eight octets")
    if packet[0] >> 4 == 4:
        head, body = packet[: (packet[0] & 15) * 4], packet[(packet[0] & 15) * 4 :]
        parts: list[bytes] = []
        for offset in range(0, len(body), size):
            piece = body[offset : offset + size]
            more = offset + size < len(body)
            fixed = struct.pack("!HHH", len(head) + len(piece), ident, more << 13 | offset // 8)
            new = head[:2] + fixed + head[8:10] + b"\0\0" + head[12:]
            check = struct.pack("!H", internet_checksum(new))
            parts.append(new[:10] + check + new[12:] + piece)
        return parts
    head, body, inner = packet[:40], packet[40:], packet[6]
    parts = []
    for offset in range(0, len(body), size):
        piece = body[offset : offset + size]
        more = offset + size < len(body)
        fragment = struct.pack("!BBHI", inner, 0, offset | more, ident)
        parts.append(
            head[:4] + struct.pack("!HB", 8 + len(piece), 44) + head[7:] + fragment + piece
        )
    return parts


def gre(payload: bytes, *, kind: int | None = None, key: int | None = None) -> bytes:
    """GRE, RFC 2784 and 2890, carrying IP or (kind TRANSPARENT_ETHERNET) a frame."""
    kind = kind_of(payload) if kind is None else kind
    if key is None:
        return struct.pack("!HH", 0, kind) + payload
    return struct.pack("!HHI", 0x2000, kind, key) + payload


def vxlan(frame: bytes, *, vni: int = 1) -> bytes:
    """VXLAN, RFC 7348; the payload of a UDP datagram to port 4789."""
    return struct.pack("!II", 0x08 << 24, vni << 8) + frame


def geneve(frame: bytes, *, vni: int = 1, options: bytes = b"") -> bytes:
    """Geneve, RFC 8926; the payload of a UDP datagram to port 6081."""
    head = struct.pack("!BBH", len(options) // 4, 0, TRANSPARENT_ETHERNET)
    return head + struct.pack("!I", vni << 8) + options + frame


def gtpu(packet: bytes, *, teid: int = 1) -> bytes:
    """GTP-U, 3GPP TS 29.281; the payload of a UDP datagram to port 2152."""
    return struct.pack("!BBHI", 0x30, 0xFF, len(packet), teid) + packet


def icmp(kind: int, code: int, rest: bytes, payload: bytes) -> bytes:
    """ICMP for IPv4; `rest` is the second word (identifier, MTU, gateway ...)."""
    body = struct.pack("!BBH", kind, code, 0) + rest + payload
    return body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]


def arp(*, src: str = "10.0.0.1", dst: str = "10.0.0.2", reply: bool = False) -> bytes:
    """Return an ARP request or reply for Ethernet and IPv4."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if reply else 1)
    return head + b"\x02\0\0\0\0\x01" + packed(src) + bytes(6) + packed(dst)


# --------------------------------------------------------------------------- transport layers


def udp(payload: bytes, *, sport: int, dport: int, src: str = "", dst: str = "") -> bytes:
    """UDP; with addresses the checksum is right, without it is absent (zero)."""
    head = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
    if not src:
        return head + payload
    total = pseudo_header(src, dst, 17, 8 + len(payload)) + head + payload
    return head[:6] + struct.pack("!H", internet_checksum(total) or 0xFFFF) + payload


FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}


def flag_bits(letters: str) -> int:
    """Return TCP flags from letters as tcpdump's: ``SA`` is SYN and ACK."""
    return sum(FLAGS[letter] for letter in letters)


def options(
    *,
    mss: int | None = None,
    wscale: int | None = None,
    sack_ok: bool = False,
    timestamps: tuple[int, int] | None = None,
    sack: Sequence[tuple[int, int]] = (),
    raw: bytes = b"",
) -> bytes:
    """Return TCP options, padded with NOPs to a multiple of four octets."""
    out = b""
    if mss is not None:
        out += struct.pack("!BBH", 2, 4, mss)
    if sack_ok:
        out += b"\x04\x02"
    if timestamps is not None:
        out += struct.pack("!BBII", 8, 10, *(stamp & 0xFFFFFFFF for stamp in timestamps))
    if wscale is not None:
        out += struct.pack("!BBB", 3, 3, wscale)
    if sack:
        out += struct.pack("!BB", 5, 2 + 8 * len(sack))
        for left, right in sack:
            out += struct.pack("!II", left & 0xFFFFFFFF, right & 0xFFFFFFFF)
    out += raw
    return out + b"\x01" * (-len(out) % 4)


def tcp(
    payload: bytes = b"",
    *,
    sport: int,
    dport: int,
    seq: int,
    ack: int = 0,
    flags: str = "A",
    window: int = 64000,
    options: bytes = b"",
    src: str = "",
    dst: str = "",
    checksum: str = "good",
    data_offset: int | None = None,
) -> bytes:
    """Return a TCP segment.

    `checksum` is good, bad, none, or partial: what a sender with checksum offload hands to the
    capture, the sum of the pseudo header alone. It needs the addresses.
    """
    words = 5 + len(options) // 4 if data_offset is None else data_offset
    head = struct.pack(
        "!HHIIBBHHH",
        sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF,
        words << 4, flag_bits(flags), window, 0, 0,
    ) + options  # fmt: skip
    value = 0
    if src and checksum != "none":
        pseudo = pseudo_header(src, dst, 6, len(head) + len(payload))
        if checksum == "partial":
            value = ~internet_checksum(pseudo) & 0xFFFF
        else:
            value = internet_checksum(pseudo + head + payload) ^ (0x1111 * (checksum == "bad"))
    return head[:16] + struct.pack("!H", value) + head[18:] + payload


# --------------------------------------------------------------------------- TCP scripts


@dataclass(slots=True)
class Side:
    """One end of a `Conversation`: what it has sent, what it acknowledges, how it looks.

    Sequence numbers in every argument are relative to the initial ones, as Wireshark shows them.
    """

    talk: Conversation
    address: str
    port: int
    isn: int
    window: int = 64000
    wscale: int | None = 7
    sack_ok: bool = True
    timestamps: bool = False
    mss: int = 1460
    next: int = 0
    acked: int = 0

    @property
    def peer(self) -> Side:
        """The other end."""
        return self.talk.server if self is self.talk.client else self.talk.client

    def put(
        self,
        flags: str = "A",
        length: int = 0,
        *,
        seq: int | None = None,
        ack: int | None = None,
        window: int | None = None,
        sack: Sequence[tuple[int, int]] = (),
        lost: bool = False,
        raw: bytes = b"",
        **more: object,
    ) -> None:
        """Emit one segment; what is not said follows from what came before.

        `lost` moves the sender's state but nothing is captured, as if the segment had been
        dropped upstream. `more` is passed on to `tcp`.
        """
        peer, talk = self.peer, self.talk
        start = self.next if seq is None else seq
        number = self.acked if ack is None else ack
        if "A" in flags:
            self.acked = max(self.acked, number)
        self.next = max(self.next, start + length + ("S" in flags) + ("F" in flags))
        if lost:
            return
        syn = "S" in flags
        stamp = talk.now // MS
        words = options(
            mss=self.mss if syn else None,
            wscale=self.wscale if syn else None,
            sack_ok=syn and self.sack_ok,
            timestamps=(stamp, stamp) if self.timestamps else None,
            sack=[(peer.isn + left, peer.isn + right) for left, right in sack],
            raw=raw,
        )
        segment = tcp(
            talk.filler(length),
            sport=self.port, dport=peer.port, src=self.address, dst=peer.address,
            seq=self.isn + start, ack=peer.isn + number if "A" in flags else 0,
            flags=flags, window=self.window if window is None else window, options=words,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip
        packet = ip(segment, src=self.address, dst=peer.address)
        talk.packets.append(Packet(talk.now, talk.link(packet)))

    def send(self, length: int, **more: object) -> None:
        """Emit new data."""
        self.put("PA", length, **more)  # type: ignore[arg-type]

    def again(self, seq: int, length: int, **more: object) -> None:
        """Emit data that was sent before."""
        self.put("A", length, seq=seq, **more)  # type: ignore[arg-type]

    def ack(self, number: int | None = None, **more: object) -> None:
        """Emit a pure acknowledgement, of everything the peer has sent unless told."""
        self.put("A", ack=self.peer.next if number is None else number, **more)  # type: ignore[arg-type]

    def keep_alive(self, length: int = 0) -> None:
        """Emit a probe one octet below the next sequence number, as stacks do."""
        self.put("A", length, seq=self.next - 1)

    def probe(self, **more: object) -> None:
        """Emit one octet into a closed window; the sender does not count it as sent."""
        before = self.next
        self.put("A", 1, **more)  # type: ignore[arg-type]
        self.next = before

    def fin(self, **more: object) -> None:
        """Emit FIN."""
        self.put("FA", **more)  # type: ignore[arg-type]

    def rst(self, **more: object) -> None:
        """Emit RST."""
        self.put("R", **more)  # type: ignore[arg-type]


def plain_ether(packet: bytes) -> bytes:
    """Wrap an IP packet in an Ethernet header."""
    return ether(packet)


@dataclass(slots=True)
class Conversation:
    """A TCP connection written as a script; `packets` is what a capture would hold.

    The clock is `now`; `wait` moves it. Everything is seen from one capture point, so a round
    trip is whatever the script waits between a segment and its acknowledgement.
    """

    start_ns: int = START
    version: int = 4
    client_port: int = 40000
    server_port: int = 80
    client_isn: int = 1000
    server_isn: int = 9000
    rtt_ns: int = 10 * MS
    link: Callable[[bytes], bytes] = plain_ether
    packets: list[Packet] = field(default_factory=list[Packet])
    now: int = field(init=False)
    client: Side = field(init=False)
    server: Side = field(init=False)

    def __post_init__(self) -> None:
        """Make the two sides."""
        self.now = self.start_ns
        one, two = ("10.0.0.1", "10.0.0.2") if self.version == 4 else ("fd00::1", "fd00::2")
        self.client = Side(self, one, self.client_port, self.client_isn)
        self.server = Side(self, two, self.server_port, self.server_isn)

    def filler(self, length: int) -> bytes:
        """Return payload that no protocol's heuristics take for their own."""
        return (b"\xf5\xe1netlab." * (length // 9 + 1))[:length]

    def wait(self, nanoseconds: int) -> None:
        """Let time pass (or, on hostile captures, run backwards)."""
        self.now += nanoseconds

    def handshake(self) -> None:
        """SYN, SYN+ACK, ACK; half the round trip lies on either side of the capture point."""
        self.client.put("S")
        self.wait(self.rtt_ns)
        self.server.put("SA", ack=1)
        self.wait(self.rtt_ns // 4)
        self.client.ack()
        self.wait(MS)

    def close(self) -> None:
        """FIN from the client, FIN from the server, the last ACK."""
        self.client.fin(ack=self.server.next)
        self.wait(self.rtt_ns)
        self.server.fin(ack=self.client.next)
        self.wait(self.rtt_ns // 4)
        self.client.ack()
        self.wait(MS)


# Scripts that tests, benches and labs use by name.


def handshake(**how: object) -> list[Packet]:
    """Handshake, one request, one reply, orderly close: ten packets with nothing wrong."""
    talk = Conversation(**how)  # type: ignore[arg-type]
    talk.handshake()
    talk.client.send(120)
    talk.wait(talk.rtt_ns)
    talk.server.ack()
    talk.wait(MS)
    talk.server.send(900)
    talk.wait(MS)
    talk.client.ack()
    talk.wait(MS)
    talk.close()
    return talk.packets


def zero_window(**how: object) -> list[Packet]:
    """A receiver that closes its window, is probed, and opens it again."""
    talk = Conversation(**how)  # type: ignore[arg-type]
    talk.client.wscale = talk.server.wscale = None
    talk.server.window = 3000
    talk.handshake()
    for _ in range(2):
        talk.client.send(1500)
        talk.wait(MS)
    talk.server.ack(window=0)
    for _ in range(3):
        talk.wait(200 * MS)
        talk.client.probe()
        talk.wait(MS)
        talk.server.ack(window=0)
    talk.wait(100 * MS)
    talk.server.ack(window=3000)
    talk.wait(MS)
    talk.client.send(1500)
    talk.wait(MS)
    talk.server.ack(window=3000)
    talk.wait(MS)
    talk.close()
    return talk.packets


def keep_alive(**how: object) -> list[Packet]:
    """An idle connection that both stacks keep alive, with and without an octet of data."""
    talk = Conversation(**how)  # type: ignore[arg-type]
    talk.handshake()
    talk.client.send(10)
    talk.wait(MS)
    talk.server.ack()
    for length in (0, 1, 0):
        talk.wait(S)
        talk.client.keep_alive(length)
        talk.wait(MS)
        talk.server.ack()
        talk.wait(S)
        talk.server.keep_alive(length)
        talk.wait(MS)
        talk.client.ack()
    talk.wait(S)
    talk.close()
    return talk.packets


def fast_retransmit(**how: object) -> list[Packet]:
    """One segment lost before the capture, duplicate ACKs with SACK, a fast retransmission."""
    talk = Conversation(**how)  # type: ignore[arg-type]
    talk.handshake()
    first = talk.client.next
    talk.client.send(1000)
    talk.client.send(1000, lost=True)
    for _ in range(4):
        talk.wait(US * 100)
        talk.client.send(1000)
    talk.wait(talk.rtt_ns)
    talk.server.ack(first + 1000)
    for count in range(1, 5):
        talk.wait(US * 100)
        talk.server.ack(first + 1000, sack=[(first + 2000, first + 2000 + 1000 * count)])
    talk.wait(MS)
    talk.client.again(first + 1000, 1000)
    talk.wait(talk.rtt_ns)
    talk.server.ack()
    talk.wait(MS)
    talk.close()
    return talk.packets


def lossy_transfer(
    random: Random,
    *,
    segments: int = 400,
    loss: float = 0.02,
    reorder: float = 0.01,
    duplicate: float = 0.005,
    ack_loss: float = 0.01,
    seen_at: str = "sender",
    **how: object,
) -> list[Packet]:
    """A bulk transfer through a path that loses, reorders and duplicates, seen at either end.

    A small SACK sender (fixed window of 20 segments, fast retransmit on three duplicates, a timer
    of 200 ms) and an acknowledging receiver, joined by a queue of arrivals. Not a model of any
    kernel; it only has to make captures whose flags are plausible and whose every loss is known.
    """
    talk = Conversation(**how)  # type: ignore[arg-type]
    talk.handshake()
    half, mss = talk.rtt_ns // 2, 1400
    base = talk.client.next
    total = segments * mss
    arrivals: list[tuple[int, int, str, int, tuple[tuple[int, int], ...]]] = []
    seen: list[tuple[int, int, str, int, int, tuple[tuple[int, int], ...]]] = []
    order = 0

    def emit(when: int, kind: str, number: int, blocks: tuple[tuple[int, int], ...] = ()) -> None:
        """Put a segment or an ACK on the path; note it where the capture would see it."""
        nonlocal order
        order += 1
        at_start = (seen_at == "sender") == (kind == "data")
        if at_start:
            seen.append((when, order, kind, number, 0, blocks))
        if random.random() < (loss if kind == "data" else ack_loss):
            return
        delay = half + random.randrange(50 * US)
        if random.random() < reorder:
            delay += random.randrange(MS, 6 * MS)
        for copy in range(2 if random.random() < duplicate else 1):
            due = when + delay + copy * 20 * US
            arrivals.append((due, order, kind, number, blocks))
            if not at_start:
                seen.append((due, order, kind, number, copy, blocks))

    now, sent, acked, dups, recovering = talk.now, 0, 0, 0, -1
    got: set[int] = set()
    expected, deadline = 0, now + 200 * MS
    latest = -1
    while acked < total and now < talk.start_ns + 3600 * S:
        while sent < total and sent - acked < 20 * mss:
            emit(now, "data", sent)
            sent += mss
            now += 12 * US
        arrivals.sort()
        if not arrivals or arrivals[0][0] > deadline:
            now = max(now, deadline)
            emit(now, "data", acked)
            dups, recovering, deadline = 0, -1, now + 200 * MS
            continue
        due, _, kind, number, _ = arrivals.pop(0)
        now = max(now, due)
        if kind == "data":
            got.add(number)
            latest = number
            while expected in got:
                expected += mss
            held = sorted(value for value in got if value > expected)
            blocks: list[tuple[int, int]] = []
            for value in held:
                if blocks and blocks[-1][1] == value:
                    blocks[-1] = (blocks[-1][0], value + mss)
                else:
                    blocks.append((value, value + mss))
            blocks.sort(key=lambda block: not block[0] <= latest < block[1])
            emit(now + 15 * US, "ack", expected, tuple(blocks[:3]))
        elif number > acked:
            acked, dups, deadline = number, 0, now + 200 * MS
            if acked > recovering:
                recovering = -1
        elif number == acked:
            dups += 1
            if dups == 3 and recovering < 0:
                recovering = sent
                emit(now, "data", acked)
    for when, _, kind, number, _, blocks in sorted(seen):
        talk.now = max(when, talk.now)
        if kind == "data":
            talk.client.put("A", mss, seq=base + number, ack=talk.server.next)
        else:
            talk.server.put(
                "A", ack=base + number, sack=[(base + left, base + right) for left, right in blocks]
            )
    talk.wait(MS)
    talk.close()
    return talk.packets


def chatter(
    random: Random, packets: int = 200, *, nasty: bool = True, **how: object
) -> list[Packet]:
    """Random TCP that goes through every rule of the analysis, sense or no sense.

    Each step picks an event by weight: new data, old data, holes, every kind of ACK and probe,
    window games, FIN, RST, new connections on the same ports. `nasty` adds clocks that run
    backwards, acknowledgements of what was never sent and SYNs in the middle of a connection.
    """
    how.setdefault("client_isn", random.choice([0, 1, 1000, 0x7FFFFFF0, 0xFFFFF000, 0xFFFFFFFF]))
    how.setdefault("server_isn", random.choice([0, 1, 5000, 0x80000000, 0xFFFFFE00]))
    talk = Conversation(**how)  # type: ignore[arg-type]
    for side in (talk.client, talk.server):
        side.wscale = random.choice([None, 0, 2, 7, 14, 15])
        side.window = random.choice([100, 1000, 8192, 65535])
        side.timestamps = random.random() < 0.5
    if random.random() < 0.9:
        talk.handshake()
    sizes = [1, 2, 10, 100, 536, 1000, 1460]
    waits = [0, US, 100 * US, MS, 2 * MS, 5 * MS, 19 * MS, 25 * MS, 300 * MS, S]
    ordinary = {
        "new": 30, "ack": 25, "hole": 3, "old": 6, "ack_old": 3, "dup": 8, "sack": 5, "window": 4,
        "zero": 3, "probe": 4, "probe_ack": 3, "keep_alive": 3, "full": 2, "push": 3, "partial": 3,
        "overlap": 2, "fin": 1,
    }  # fmt: skip
    strange = {
        "rst": 1, "syn_again": 1, "reuse": 1, "synack": 1, "beyond": 2, "backwards": 2,
        "fin_data": 1, "no_ack": 1, "below": 1, "far": 1, "rst_data": 1,
    }  # fmt: skip
    events = ordinary | strange if nasty else ordinary
    names, weights = list(events), list(events.values())
    while len(talk.packets) < packets:
        side = talk.client if random.random() < 0.65 else talk.server
        peer, size = side.peer, random.choice(sizes)
        talk.wait(random.choice(waits))
        match random.choices(names, weights)[0]:
            case "new":
                side.send(size)
            case "push":
                side.put("A", size)
            case "ack":
                side.ack()
            case "hole":
                side.send(size, lost=True)
                talk.wait(random.choice(waits))
                side.send(random.choice(sizes))
            case "old":
                side.again(max(1, side.next - random.randrange(1, 6000)), size)
            case "overlap":
                side.put("A", size + 50, seq=max(1, side.next - 50))
            case "ack_old":
                side.put("A", ack=max(0, side.acked - random.randrange(3000)))
            case "dup":
                for _ in range(random.randrange(1, 5)):
                    side.put("A")
                    talk.wait(random.choice(waits[:4]))
                if random.random() < 0.7:
                    peer.again(side.acked, min(size, max(1, peer.next - side.acked)))
            case "sack":
                left = side.acked + random.randrange(1, 3000)
                blocks = [
                    (left + 2000 * n, left + 2000 * n + size) for n in range(random.randrange(1, 5))
                ]
                if random.random() < 0.3:
                    blocks.insert(0, (max(0, side.acked - size), side.acked))
                side.put("A", sack=blocks[:3] if side.timestamps else blocks[:4])
            case "window":
                side.window = random.choice([1, 500, 8192, 30000, 65535])
                side.put("A")
            case "zero":
                side.put("A", window=0, ack=peer.next)
            case "probe":
                peer.put("A", window=0, ack=side.next)
                talk.wait(random.choice(waits))
                side.probe()
            case "probe_ack":
                peer.put("A", window=0, ack=side.next)
                side.probe()
                talk.wait(random.choice(waits))
                peer.put("A", window=0, ack=side.next + random.choice([0, 0, 1]))
            case "keep_alive":
                side.keep_alive(random.randrange(2))
                talk.wait(random.choice(waits))
                if random.random() < 0.8:
                    peer.put("A")
            case "full":
                shift = peer.wscale or 0
                room = side.peer.acked + (peer.window << min(shift, 14)) - side.next
                if 0 < room < 60000:
                    side.put("A", room)
                else:
                    side.send(size)
            case "partial":
                side.put("A", ack=max(side.acked, peer.next - random.randrange(1, 1500)))
            case "fin":
                side.fin()
            case "fin_data":
                side.put("FPA", size)
            case "rst":
                side.put(random.choice(["R", "RA"]), window=random.choice([0, 100]))
            case "rst_data":
                side.put("R", size)
            case "syn_again":
                side.put("S", seq=0)
            case "reuse":
                side.isn = (side.isn + random.randrange(1, 1 << 31)) & 0xFFFFFFFF
                side.next = side.acked = peer.next = peer.acked = 0
                talk.handshake()
            case "synack":
                if random.random() < 0.5:
                    side.isn = (side.isn + random.randrange(1, 1 << 20)) & 0xFFFFFFFF
                side.put("SA", seq=0, ack=peer.next)
            case "beyond":
                side.put("A", ack=peer.next + random.randrange(1, 4000))
            case "backwards":
                talk.wait(-random.choice([US, MS, 50 * MS]))
                side.send(size)
            case "no_ack":
                side.put(random.choice(["", "P"]), size)
            case "below":
                side.put("A", size, seq=-random.randrange(1, 100))
            case "far":
                side.put("A", size, seq=side.next + random.randrange(1 << 20))
            case _:
                raise AssertionError("an event without a branch")
    return talk.packets[:packets]


def interleaved(*captures: Iterable[Packet]) -> list[Packet]:
    """Merge captures by time; equal times keep the order of the arguments."""
    return sorted((p for capture in captures for p in capture), key=lambda packet: packet.time_ns)


# --------------------------------------------------------------------------- containers


def pcap(
    packets: Iterable[Packet],
    *,
    linktype: int = LINKTYPE_ETHERNET,
    nano: bool = False,
    order: str = "<",
    snaplen: int = 262144,
    version: tuple[int, int] = (2, 4),
) -> bytes:
    """Return a classic pcap file; microseconds cut, not round, as in libpcap."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, linktype)]
    for packet in packets:
        second, rest = divmod(packet.time_ns, S)
        rest = rest if nano else rest // US
        kept = packet.data
        out.append(struct.pack(order + "IIII", second, rest, len(kept), packet.length) + kept)
    return b"".join(out)


def option(order: str, code: int, value: bytes) -> bytes:
    """Return one pcapng option, padded."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def block(order: str, kind: int, body: bytes) -> bytes:
    """Return one pcapng block, its length at both ends."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


@dataclass(frozen=True, slots=True)
class Interface:
    """What a pcapng interface block says; `tsresol` is the raw octet (6 is µs, 9 is ns)."""

    linktype: int = LINKTYPE_ETHERNET
    snaplen: int = 262144
    tsresol: int | None = 9
    tsoffset: int | None = None
    name: str = ""

    def ticks(self, time_ns: int) -> int:
        """Return a time in this interface's units."""
        raw = 6 if self.tsresol is None else self.tsresol
        per_second = 2 ** (raw & 127) if raw & 128 else 10**raw
        return (time_ns - (self.tsoffset or 0) * S) * per_second // S

    def body(self, order: str) -> bytes:
        """Return the body of the interface description block."""
        out = struct.pack(order + "HHI", self.linktype, 0, self.snaplen)
        if self.name:
            out += option(order, 2, self.name.encode())
        if self.tsresol is not None:
            out += option(order, 9, bytes([self.tsresol]))
        if self.tsoffset is not None:
            out += option(order, 14, struct.pack(order + "q", self.tsoffset))
        return out + option(order, 0, b"")


def section_header(order: str, *, length: int = -1) -> bytes:
    """Return a section header block."""
    body = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, length)
    return block(order, 0x0A0D0D0A, body + option(order, 4, b"netlab tests") + bytes(4))


def enhanced(order: str, packet: Packet, interface: Interface) -> bytes:
    """Return an enhanced packet block."""
    ticks = interface.ticks(packet.time_ns)
    body = struct.pack(
        order + "IIIII",
        packet.interface, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length,
    )  # fmt: skip
    body += packet.data + bytes(-len(packet.data) % 4)
    if packet.comment:
        body += option(order, 1, packet.comment.encode()) + option(order, 0, b"")
    return block(order, 6, body)


def simple(order: str, packet: Packet) -> bytes:
    """Return a simple packet block: no time, interface 0."""
    return block(order, 3, struct.pack(order + "I", packet.length) + packet.data)


def obsolete(order: str, packet: Packet, interface: Interface) -> bytes:
    """Return the packet block that enhanced packet blocks replaced."""
    ticks = interface.ticks(packet.time_ns)
    body = struct.pack(
        order + "HHIIII",
        packet.interface, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length,
    )  # fmt: skip
    return block(order, 2, body + packet.data)


def statistics(order: str, interface: int, *, received: int, dropped: int) -> bytes:
    """Return an interface statistics block with its received and dropped counts."""
    body = struct.pack(order + "III", interface, 0, 0)
    body += option(order, 4, struct.pack(order + "Q", received))
    body += option(order, 5, struct.pack(order + "Q", dropped)) + option(order, 0, b"")
    return block(order, 5, body)


def pcapng(
    packets: Iterable[Packet],
    *,
    interfaces: Sequence[Interface] = (Interface(),),
    order: str = "<",
    extra: Iterable[bytes] = (),
) -> bytes:
    """Return a pcapng file of one section; `extra` blocks go between interfaces and packets."""
    out = [section_header(order)]
    out += [block(order, 1, interface.body(order)) for interface in interfaces]
    out += extra
    out += [enhanced(order, packet, interfaces[packet.interface]) for packet in packets]
    return b"".join(out)


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "ethernet": (LINKTYPE_ETHERNET, ether),
    "padded": (LINKTYPE_ETHERNET, lambda packet: ether(packet, pad=True)),
    "vlan": (LINKTYPE_ETHERNET, lambda p: ether(vlan(p, vid=7), kind=DOT1Q)),
    "qinq": (
        LINKTYPE_ETHERNET,
        lambda p: ether(vlan(vlan(p, vid=7), vid=100, kind=DOT1Q), kind=QINQ),
    ),
    "mpls": (LINKTYPE_ETHERNET, lambda p: ether(mpls(p, 16, 17), kind=MPLS)),
    "pppoe": (LINKTYPE_ETHERNET, lambda p: ether(pppoe(p), kind=PPPOE)),
    "snap": (LINKTYPE_ETHERNET, snap),
    "sll": (LINKTYPE_SLL, sll),
    "sll2": (LINKTYPE_SLL2, sll2),
    "raw": (LINKTYPE_RAW, bytes),
    "null": (LINKTYPE_NULL, null),
    "null-be": (LINKTYPE_NULL, lambda p: null(p, order=">")),
    "loop": (LINKTYPE_LOOP, loop),
    "gre": (
        LINKTYPE_ETHERNET,
        lambda p: ether(ipv4(gre(p), src="192.0.2.1", dst="192.0.2.2", proto=47)),
    ),
    "gre-key": (
        LINKTYPE_ETHERNET,
        lambda p: ether(ipv4(gre(p, key=5), src="192.0.2.1", dst="192.0.2.2", proto=47)),
    ),
    "gretap": (
        LINKTYPE_ETHERNET,
        lambda p: ether(
            ipv4(
                gre(ether(p), kind=TRANSPARENT_ETHERNET), src="192.0.2.1", dst="192.0.2.2", proto=47
            )
        ),
    ),
    "ip-in-ip": (
        LINKTYPE_ETHERNET,
        lambda p: ether(
            ipv4(p, src="192.0.2.1", dst="192.0.2.2", proto=41 if kind_of(p) == IPV6 else 4)
        ),
    ),
    "ip-in-ip6": (
        LINKTYPE_ETHERNET,
        lambda p: ether(
            ipv6(p, src="2001:db8::1", dst="2001:db8::2", proto=41 if kind_of(p) == IPV6 else 4)
        ),
    ),
    "vxlan": (
        LINKTYPE_ETHERNET,
        lambda p: ether(
            ipv4(
                udp(vxlan(ether(p)), sport=5000, dport=4789),
                src="192.0.2.1",
                dst="192.0.2.2",
                proto=17,
            )
        ),
    ),
    "geneve": (
        LINKTYPE_ETHERNET,
        lambda p: ether(
            ipv4(
                udp(geneve(ether(p)), sport=5000, dport=6081),
                src="192.0.2.1",
                dst="192.0.2.2",
                proto=17,
            )
        ),
    ),
    "gtpu": (
        LINKTYPE_ETHERNET,
        lambda p: ether(
            ipv4(udp(gtpu(p), sport=2152, dport=2152), src="192.0.2.1", dst="192.0.2.2", proto=17)
        ),
    ),
}
"""Ways to carry an IP packet: link type and wrapper. Each fits `Conversation(link=...)`."""


def prefixes(data: bytes, random: Random, most: int = 300) -> Iterator[bytes]:
    """Yield every prefix of a small file, or a random choice of a larger one's."""
    ends = range(len(data)) if len(data) <= most else sorted(random.sample(range(len(data)), most))
    for end in ends:
        yield data[:end]
