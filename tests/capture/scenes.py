"""Named synthetic captures: the corners of the analysis and of the file formats.

Each scene is a function that returns the bytes of a file, made when it is first asked for. The
differential test runs all of them through tshark and netlab; other tests pick what they need.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from random import Random

from tests.capture import pcaps
from tests.capture.pcaps import MS, US, Conversation, Packet, S

Scene = Callable[[], bytes]
SCENES: dict[str, Scene] = {}


def scene(make: Scene) -> Scene:
    """Register a scene under its function's name."""
    SCENES[make.__name__.replace("_", "-")] = make
    return make


# Whole scripts over both IP versions, every link, every container.

for version in (4, 6):
    for name in ("handshake", "zero_window", "keep_alive", "fast_retransmit"):
        script = getattr(pcaps, name)
        SCENES[f"{name.replace('_', '-')}-ipv{version}"] = lambda s=script, v=version: pcaps.pcap(
            s(version=v), nano=True
        )
    for side in ("sender", "receiver"):
        for seed in (1, 2, 3):
            SCENES[f"lossy-ipv{version}-{side}-{seed}"] = lambda s=seed, e=side, v=version: (
                pcaps.pcap(pcaps.lossy_transfer(Random(s), seen_at=e, version=v), nano=True)
            )
    for name, (linktype, link) in pcaps.LINKS.items():
        SCENES[f"link-{name}-ipv{version}"] = lambda t=linktype, w=link, v=version: pcaps.pcap(
            pcaps.fast_retransmit(link=w, version=v), linktype=t
        )
for nano in (False, True):
    for order in "<>":
        SCENES[f"pcap-{'nano' if nano else 'micro'}-{'le' if order == '<' else 'be'}"] = (
            lambda n=nano, o=order: pcaps.pcap(pcaps.fast_retransmit(), nano=n, order=o)
        )
for order in "<>":
    for resolution in (None, 3, 6, 9, 0x80 | 10, 0x80 | 20, 0x80 | 30):
        SCENES[f"pcapng-{'le' if order == '<' else 'be'}-tsresol-{resolution}"] = (
            lambda o=order, r=resolution: pcaps.pcapng(
                pcaps.fast_retransmit(), interfaces=[pcaps.Interface(tsresol=r)], order=o
            )
        )
for seed in range(60):
    SCENES[f"chatter-{seed}"] = lambda s=seed: pcaps.pcap(
        pcaps.chatter(Random(s), 300, version=6 if s % 4 == 3 else 4), nano=True
    )
for seed in range(6):
    SCENES[f"chatter-tame-{seed}"] = lambda s=seed: pcaps.pcap(
        pcaps.chatter(Random(100 + s), 400, nasty=False), nano=True
    )


@scene
def several_conversations() -> bytes:
    """Twelve conversations at once, with stream numbers in order of their first packet."""
    talks = [
        pcaps.chatter(Random(500 + n), 150, client_port=40000 + n, start_ns=pcaps.START + n * MS)
        for n in range(12)
    ]
    return pcaps.pcap(pcaps.interleaved(*talks), nano=True)


# Corners found while the specification was written.


@scene
def duplicate_counter_is_unsigned() -> bytes:
    """An ACK of unseen data puts the counter to -1, which as unsigned passes for "two or more"."""
    talk = Conversation()
    talk.handshake()
    talk.client.send(1000)
    talk.client.send(1000)
    talk.wait(5 * MS)
    talk.server.put("A", ack=4001)
    talk.wait(MS)
    talk.client.send(1000)
    talk.wait(5 * MS)
    talk.server.put("A", ack=6001)
    talk.wait(MS)
    talk.client.put("A", 1000, seq=7001)
    talk.wait(2 * MS)
    talk.client.put("A", 1000, seq=6001)
    talk.wait(2 * MS)
    talk.client.put("A", 500, seq=6001)
    return pcaps.pcap(talk.packets)


@scene
def syn_at_epoch_zero() -> bytes:
    """A SYN stamped 0 counts as no SYN: no initial RTT."""
    return pcaps.pcap(pcaps.fast_retransmit(start_ns=0))


@scene
def synack_before_syn() -> bytes:
    """A negative initial RTT is an enormous one."""
    talk = Conversation()
    talk.client.put("S")
    talk.wait(-5 * MS)
    talk.server.put("SA", ack=1)
    talk.wait(-MS)
    talk.client.ack()
    for _ in range(5):
        talk.wait(MS)
        talk.client.send(500)
    talk.wait(10 * S)
    talk.client.again(501, 500)
    talk.wait(MS)
    talk.server.ack()
    return pcaps.pcap(talk.packets, nano=True)


@scene
def time_runs_backwards() -> bytes:
    """Retransmissions stamped before what they repeat."""
    talk = Conversation()
    talk.handshake()
    for _ in range(4):
        talk.client.send(1000)
        talk.wait(MS)
    talk.wait(-20 * MS)
    talk.client.again(2001, 1000)
    talk.wait(-20 * MS)
    talk.server.ack(2001)
    talk.server.ack(2001)
    talk.server.ack(2001)
    talk.wait(-5 * MS)
    talk.client.again(2001, 1000)
    talk.server.ack()
    return pcaps.pcap(talk.packets, nano=True)


@scene
def list_of_ten_thousand() -> bytes:
    """More unacknowledged segments than Wireshark keeps; then FIN, whose octet is not counted."""
    talk = Conversation()
    talk.handshake()
    for number in range(10_050):
        talk.client.put("A", 10)
        talk.wait(10 * US)
        if number == 10_020:
            talk.client.again(101, 10)
    talk.client.fin()
    talk.wait(MS)
    talk.client.again(50_001, 10)
    talk.server.ack(90_001)
    talk.wait(MS)
    talk.client.put("A", 10)
    talk.server.ack()
    return pcaps.pcap(talk.packets, nano=True)


@scene
def probe_octet_taken() -> bytes:
    """A zero-window probe whose octet the receiver accepts: ACK one further, window still 0."""
    talk = Conversation()
    talk.client.wscale = talk.server.wscale = None
    talk.handshake()
    talk.client.send(1000)
    talk.wait(MS)
    talk.server.ack(window=0)
    for _ in range(3):
        talk.wait(200 * MS)
        talk.client.put("A", 1)
        talk.wait(MS)
        talk.server.put("A", ack=talk.client.next, window=0)
    talk.wait(200 * MS)
    talk.client.put("A", 1)
    talk.wait(MS)
    talk.server.put("A", ack=talk.client.next, window=8000)
    talk.wait(MS)
    talk.client.send(1000)
    talk.wait(MS)
    talk.server.ack(window=8000)
    return pcaps.pcap(talk.packets, nano=True)


@scene
def probe_after_reset_with_window_zero() -> bytes:
    """One octet after an RST (whose window is 0) is a zero-window probe to Wireshark."""
    talk = Conversation()
    talk.handshake()
    talk.server.put("R", window=0)
    talk.wait(MS)
    talk.client.put("PA", 1)
    talk.wait(MS)
    talk.client.put("PA", 1)
    return pcaps.pcap(talk.packets)


@scene
def port_reuse() -> bytes:
    """The same ports twice and thrice, a repeated SYN, and a late packet of the old connection."""
    talk = Conversation()
    for round_number in range(3):
        talk.client.isn, talk.server.isn = (
            1000 + 50_000 * round_number,
            9000 + 70_000 * round_number,
        )
        for side in (talk.client, talk.server):
            side.next = side.acked = 0
        talk.client.put("S")
        talk.wait(MS)
        talk.client.put("S", seq=0)
        talk.wait(MS)
        talk.server.put("SA", ack=1)
        talk.wait(MS)
        talk.client.ack()
        talk.client.send(100)
        talk.wait(MS)
        talk.server.ack()
        talk.wait(MS)
        if round_number == 1:
            talk.client.isn -= 50_000
            talk.client.put("A", 100, seq=101)
            talk.client.isn += 50_000
        talk.server.put("RA") if round_number else talk.close()
        talk.wait(S)
    return pcaps.pcap(talk.packets)


@scene
def synack_with_another_number() -> bytes:
    """A second SYN+ACK with another initial number: reused ports, the same stream in 4.0."""
    talk = Conversation()
    talk.client.put("S")
    talk.wait(MS)
    talk.server.put("SA", ack=1)
    talk.wait(MS)
    talk.server.isn += 777
    talk.server.put("SA", seq=0, ack=1)
    talk.wait(MS)
    talk.client.put("A", ack=1)
    talk.client.send(300)
    talk.wait(MS)
    talk.server.ack()
    talk.server.send(200)
    talk.wait(MS)
    talk.client.ack()
    return pcaps.pcap(talk.packets)


@scene
def rst_beyond_next() -> bytes:
    """An RST far ahead does not count as a lost segment; a repeated SYN afterwards is seen."""
    talk = Conversation()
    talk.client.put("S")
    talk.wait(MS)
    talk.client.put("R", seq=5000)
    talk.wait(MS)
    talk.client.put("S", seq=0)
    talk.wait(MS)
    talk.server.put("SA", ack=1)
    talk.client.put("RA", seq=9000, ack=1)
    talk.client.put("A", 10, seq=1)
    return pcaps.pcap(talk.packets)


@scene
def sequence_numbers_wrap() -> bytes:
    """Both sides pass 2³²; a next sequence number of exactly 0 is Wireshark's "unset"."""
    talk = Conversation(client_isn=0xFFFFFFFF - 2000, server_isn=0xFFFFFFFF - 1)
    talk.handshake()
    talk.client.send(1000)
    talk.client.send(1000)
    talk.wait(MS)
    talk.server.ack()
    talk.server.put("A")
    talk.client.again(1001, 1000)
    talk.client.send(1000)
    talk.wait(MS)
    talk.client.again(2001, 500)
    talk.server.ack()
    talk.server.send(1)
    talk.server.send(1)
    talk.client.ack()
    talk.close()
    return pcaps.pcap(talk.packets)


@scene
def no_handshake() -> bytes:
    """A connection joined in the middle: base numbers are guessed."""
    talk = Conversation()
    talk.client.next, talk.server.next = 70_000, 90_000
    talk.server.acked, talk.client.acked = 70_000, 90_000
    for _ in range(3):
        talk.client.send(500)
        talk.wait(MS)
        talk.server.ack()
        talk.server.send(1400)
        talk.wait(MS)
    talk.server.again(90_000, 1400)
    talk.wait(20 * MS)
    talk.client.ack()
    talk.close()
    return pcaps.pcap(talk.packets)


@scene
def data_on_syn_and_fin() -> bytes:
    """TCP Fast Open puts data on the SYN; FIN may carry data and may lack ACK."""
    talk = Conversation()
    talk.client.put("S", 100, raw=b"\x22\x0a" + bytes(range(8)))
    talk.wait(MS)
    talk.server.put("SA", 50, ack=101)
    talk.wait(MS)
    talk.client.put("A", ack=51)
    talk.client.put("FP", 30)
    talk.wait(MS)
    talk.server.put("FPA", 20, ack=talk.client.next)
    talk.wait(MS)
    talk.client.put("FP", 30, seq=101)
    talk.client.put("A", ack=talk.server.next)
    return pcaps.pcap(talk.packets)


@scene
def data_with_every_combination_of_flags() -> bytes:
    """Which of them count as data for completeness: one conversation for each."""
    out: list[list[Packet]] = []
    for number, flags in enumerate(
        (
            "",
            "P",
            "U",
            "F",
            "FP",
            "FA",
            "FPA",
            "R",
            "RA",
            "RP",
            "S",
            "PA",
            "A",
            "C",
            "E",
            "UPA",
            "CEA",
        )
    ):
        talk = Conversation(client_port=40000 + number, start_ns=pcaps.START + number * S)
        talk.handshake()
        talk.client.put(flags, 10, seq=0 if "S" in flags else talk.client.next)
        talk.wait(MS)
        talk.client.put("A")
        out.append(talk.packets)
    for number, (first, second) in enumerate(((0, 10), (10, 0), (10, 10))):
        talk = Conversation(client_port=50000 + number, start_ns=pcaps.START + number * S)
        talk.client.put("S", first)
        talk.wait(MS)
        talk.server.put("SA", second, ack=1 + first)
        talk.wait(MS)
        talk.client.put("A")
        talk.client.put("A")
        out.append(talk.packets)
    return pcaps.pcap(pcaps.interleaved(*out))


@scene
def duplicate_sack() -> bytes:
    """D-SACK below the acknowledgement, and within the second block."""
    talk = Conversation()
    talk.handshake()
    for _ in range(6):
        talk.client.send(1000)
    talk.wait(MS)
    talk.client.again(1, 1000)
    talk.wait(MS)
    talk.server.ack(1001, sack=[(1, 1001)])
    talk.server.ack(1001, sack=[(3001, 4001), (2001, 5001)])
    talk.server.ack(1001, sack=[(2001, 3001), (4001, 5001), (5501, 6001)])
    talk.wait(MS)
    talk.client.send(1000)
    talk.client.send(1000)
    return pcaps.pcap(talk.packets)


@scene
def scale_of_fifteen() -> bytes:
    """A window scale above 14 counts as 14; a window that is then exactly filled."""
    talk = Conversation()
    talk.client.wscale, talk.server.wscale = 7, 15
    talk.server.window = 1
    talk.handshake()
    talk.client.send(8192)
    talk.client.send(8192)
    talk.wait(MS)
    talk.server.ack()
    return pcaps.pcap(talk.packets)


@scene
def one_sided_scale() -> bytes:
    """The SYN has no window scale though the SYN+ACK has one: nobody scales."""
    talk = Conversation()
    talk.client.wscale, talk.server.wscale = None, 5
    talk.server.window = 1000
    talk.handshake()
    talk.client.send(1000)
    talk.wait(MS)
    talk.server.ack()
    talk.client.send(500)
    talk.client.send(500)
    return pcaps.pcap(talk.packets)


@scene
def half_a_conversation() -> bytes:
    """Only one direction was captured."""
    packets = pcaps.lossy_transfer(Random(9), segments=150)
    client = pcaps.packed("10.0.0.1")
    return pcaps.pcap([packet for packet in packets if packet.data[26:30] == client])


def _mptcp(subtype: int, body: bytes) -> bytes:
    return struct.pack("!BBB", 30, 3 + len(body), subtype << 4) + body


@scene
def multipath() -> bytes:
    """MPTCP: capable, join, DSS mappings, an operation that changes between equal ACKs."""
    talk = Conversation()
    key_a, key_b = bytes(range(8)), bytes(range(8, 16))
    talk.client.put("S", raw=_mptcp(0, b"\x81"))
    talk.wait(MS)
    talk.server.put("SA", ack=1, raw=_mptcp(0, b"\x81" + key_b))
    talk.wait(MS)
    talk.client.put("A", ack=1, raw=_mptcp(0, b"\x81" + key_a + key_b))
    talk.wait(MS)
    for number in range(3):
        mapping = b"\x05" + struct.pack("!IIIHH", 7, 1000 + 500 * number, 1 + 500 * number, 500, 0)
        talk.client.put("PA", 500, raw=_mptcp(2, mapping))
        talk.wait(MS)
    talk.server.put("A", ack=501, raw=_mptcp(2, b"\x01" + struct.pack("!I", 1500)))
    talk.wait(MS)
    talk.server.put("A", ack=501, raw=_mptcp(2, b"\x01" + struct.pack("!I", 1500)))
    talk.wait(MS)
    talk.server.put("A", ack=501, raw=_mptcp(3, b"\x02" + pcaps.packed("192.0.2.7")))
    talk.wait(MS)
    talk.server.put("A", ack=501, raw=_mptcp(4, b"\x02"))
    talk.wait(MS)
    talk.server.put("A", ack=501)
    talk.wait(MS)
    talk.client.again(501, 500)
    talk.wait(MS)
    talk.server.ack()
    talk.close()
    return pcaps.pcap(talk.packets)


# Fragments, lengths that lie, cuts, quotations.


def _fragmented(version: int, arrange: Callable[[list[bytes]], list[bytes]]) -> bytes:
    talk = Conversation(version=version, link=bytes)
    talk.handshake()
    talk.client.send(3000)
    talk.wait(MS)
    talk.server.ack()
    talk.wait(MS)
    talk.client.send(2500)
    talk.wait(MS)
    talk.server.ack()
    talk.close()
    out: list[Packet] = []
    for number, packet in enumerate(talk.packets):
        pieces = [packet.data]
        if len(packet.data) > 1500:
            pieces = arrange(pcaps.fragments(packet.data, 1000, ident=number + 1))
        for place, piece in enumerate(pieces):
            out.append(Packet(packet.time_ns + place * US, pcaps.ether(piece)))
    return pcaps.pcap(out)


for version in (4, 6):
    for name, arrange in {
        "in-order": lambda parts: parts,
        "reversed": lambda parts: parts[::-1],
        "without-the-last": lambda parts: parts[:-1],
        "without-the-first": lambda parts: parts[1:],
        "twice": lambda parts: [part for part in parts for _ in range(2)],
    }.items():
        SCENES[f"fragments-ipv{version}-{name}"] = lambda v=version, a=arrange: _fragmented(v, a)


@scene
def total_length_zero() -> bytes:
    """A sender with segmentation offload hands the capture an IPv4 length of 0."""
    talk = Conversation(link=bytes)
    talk.handshake()
    talk.client.send(40_000)
    talk.wait(MS)
    talk.server.ack()
    talk.client.send(60_000)
    talk.wait(MS)
    talk.server.ack()
    packets = [
        Packet(
            p.time_ns,
            pcaps.ether(p.data[:2] + b"\0\0" + p.data[4:] if len(p.data) > 2000 else p.data),
        )
        for p in talk.packets
    ]
    return pcaps.pcap(packets)


@scene
def total_length_too_small() -> bytes:
    """IP says less than the TCP header needs: no analysis for that packet."""
    talk = Conversation(link=bytes)
    talk.handshake()
    talk.client.send(100)
    talk.wait(MS)
    talk.server.ack()
    packets = [Packet(p.time_ns, pcaps.ether(p.data)) for p in talk.packets]
    broken = bytearray(packets[3].data)
    broken[16:18] = struct.pack("!H", 20 + 10)
    packets[3] = Packet(packets[3].time_ns, bytes(broken))
    return pcaps.pcap(packets)


for snaplen in (34, 54, 60, 66, 80, 96):
    SCENES[f"cut-to-{snaplen}"] = lambda s=snaplen: pcaps.pcap(
        [packet.cut(s) for packet in pcaps.lossy_transfer(Random(5), segments=120)], snaplen=s
    )


@scene
def options_malformed() -> bytes:
    """Options whose lengths are 0, 1 or beyond the header."""
    talk = Conversation()
    talk.handshake()
    for raw in (
        b"\x02\x00\x05\xb4",
        b"\x03\x01\x07",
        b"\x05\x22\0\0",
        b"\x08\x0a\0",
        b"\xfe\xff\0\0",
    ):
        talk.client.put("PA", 100, raw=raw)
        talk.wait(MS)
        talk.server.ack()
        talk.wait(MS)
        talk.client.again(talk.client.next - 100, 100)
        talk.wait(MS)
    return pcaps.pcap(talk.packets)


@scene
def quoted_by_icmp() -> bytes:
    """Port unreachable and fragmentation needed quote a segment; quotations are not analysed."""
    talk = Conversation(link=bytes)
    talk.handshake()
    talk.client.send(1400)
    quoted = talk.packets[-1].data[:48]
    out = [Packet(p.time_ns, pcaps.ether(p.data)) for p in talk.packets]
    for kind, code, rest in ((3, 4, b"\0\0\x05\x78"), (3, 3, bytes(4)), (11, 0, bytes(4))):
        talk.wait(MS)
        error = pcaps.icmp(kind, code, rest, quoted)
        packet = pcaps.ipv4(error, src="192.0.2.9", dst="10.0.0.1", proto=1)
        out.append(Packet(talk.now, pcaps.ether(packet)))
    other = pcaps.ipv4(pcaps.tcp(sport=7, dport=9, seq=1), src="10.9.9.9", dst="10.8.8.8")
    error = pcaps.icmp(3, 1, bytes(4), other)
    packet = pcaps.ipv4(error, src="192.0.2.9", dst="10.9.9.9", proto=1)
    out.append(Packet(talk.now + MS, pcaps.ether(packet)))
    talk.wait(2 * MS)
    talk.packets.clear()
    talk.client.again(1, 1400)
    talk.server.ack()
    fresh = Conversation(link=bytes, client_port=50_000, start_ns=talk.now)
    fresh.handshake()
    out += [Packet(p.time_ns, pcaps.ether(p.data)) for p in (*talk.packets, *fresh.packets)]
    return pcaps.pcap(out)


@scene
def two_tenants_of_one_tunnel() -> bytes:
    """Equal inner addresses in two VXLAN networks share a stream in Wireshark 4.0."""

    def carry(vni: int) -> Callable[[bytes], bytes]:
        return lambda packet: pcaps.ether(
            pcaps.ipv4(
                pcaps.udp(pcaps.vxlan(pcaps.ether(packet), vni=vni), sport=5000, dport=4789),
                src="192.0.2.1", dst="192.0.2.2", proto=17,
            )
        )  # fmt: skip

    one = pcaps.fast_retransmit(link=carry(1))
    two = pcaps.fast_retransmit(link=carry(2), start_ns=pcaps.START + 300 * US, client_isn=777)
    return pcaps.pcap(pcaps.interleaved(one, two))


@scene
def same_segment_inside_and_outside() -> bytes:
    """TCP that carries IP that carries TCP is no tunnel; GRE in GRE is."""
    inner = pcaps.LINKS["gre"][1]

    def twice(packet: bytes) -> bytes:
        body = inner(packet)[14:]
        return pcaps.ether(
            pcaps.ipv4(pcaps.gre(body), src="198.51.100.1", dst="198.51.100.2", proto=47)
        )

    return pcaps.pcap(pcaps.fast_retransmit(link=twice))


@scene
def extension_headers() -> bytes:
    """IPv6 hop-by-hop and destination options before TCP."""
    talk = Conversation(version=6, link=bytes)
    for packet in pcaps.fast_retransmit(version=6, link=bytes):
        body = pcaps.extension(packet.data[40:], following=6, octets=16)
        body = pcaps.extension(body, following=60)
        src, dst = packet.data[8:24], packet.data[24:40]
        head = packet.data[:4] + struct.pack("!HBB", len(body), 0, 64) + src + dst
        talk.packets.append(Packet(packet.time_ns, pcaps.ether(head + body)))
    return pcaps.pcap(talk.packets)


def _routed(packet: bytes, header: bytes) -> bytes:
    """Put a routing header before the TCP of an IPv6 packet."""
    body = bytes([6]) + header[1:] + packet[40:]
    return packet[:4] + struct.pack("!HBB", len(body), 43, 64) + packet[8:40] + body


def _routing(kind: int, left: int, reserved: bytes, *hops: str) -> bytes:
    """Return a routing header (RFC 8200 §4.4): type, segments left, four octets, addresses."""
    addresses = b"".join(pcaps.packed(hop) for hop in hops)
    return bytes([0, len(addresses) // 8, kind, left]) + reserved + addresses


@scene
def routing_headers() -> bytes:
    """The client's packets go by way of other nodes: on the way, and all visited."""
    final = "fd00::2"
    headers = [
        _routing(0, 2, bytes(4), "fd00::a", final),
        _routing(0, 0, bytes(4), "fd00::a", "fd00::b"),
        _routing(2, 1, bytes(4), final),
        _routing(4, 1, bytes([1, 0, 0, 0]), final, "fd00::a"),
        _routing(4, 0, bytes([1, 0, 0, 0]), final, "fd00::a"),
        bytes([0, 1, 3, 1, 0xFF, 0x70, 0, 0, 2]) + bytes(7),  # RPL: all but the last octet elided
    ]
    packets: list[Packet] = []
    for number, packet in enumerate(pcaps.fast_retransmit(version=6, link=bytes)):
        data = packet.data
        header = headers[number % len(headers)]
        if data[8:24] == pcaps.packed("fd00::1"):
            via = "fd00::2" if header[3] == 0 else "fd00::c"
            data = data[:24] + pcaps.packed(via) + data[40:]
            data = _routed(data, header)
        packets.append(Packet(packet.time_ns, pcaps.ether(data)))
    return pcaps.pcap(packets)


@scene
def home_address() -> bytes:
    """A mobile node's packets, its home address in an option (RFC 6275 §6.3)."""
    packets: list[Packet] = []
    for packet in pcaps.fast_retransmit(version=6, link=bytes):
        data = packet.data
        if data[8:24] == pcaps.packed("fd00::1"):
            option = bytes([1, 2, 0, 0, 0xC9, 16]) + data[8:24]
            body = bytes([6, (2 + len(option)) // 8 - 1]) + option + data[40:]
            head = data[:4] + struct.pack("!HBB", len(body), 60, 64)
            data = head + pcaps.packed("fd00:ffff::77") + data[24:40] + body
        packets.append(Packet(packet.time_ns, pcaps.ether(data)))
    return pcaps.pcap(packets)


@scene
def ipv4_options() -> bytes:
    """IPv4 with a router alert option."""
    packets: list[Packet] = []
    for packet in pcaps.fast_retransmit(link=bytes):
        src, dst = "10.0.0.1", "10.0.0.2"
        if packet.data[12:16] != pcaps.packed(src):
            src, dst = dst, src
        again = pcaps.ipv4(packet.data[20:], src=src, dst=dst, options=b"\x94\x04\0\0")
        packets.append(Packet(packet.time_ns, pcaps.ether(again)))
    return pcaps.pcap(packets)


# Containers.


@scene
def pcapng_of_everything() -> bytes:
    """Two sections of different byte order, several interfaces, obsolete and unknown blocks."""
    wire = pcaps.fast_retransmit()
    cooked = pcaps.keep_alive(link=pcaps.sll, client_port=41000, start_ns=pcaps.START + MS)
    first = [
        pcaps.Interface(tsresol=9, name="eth0"),
        pcaps.Interface(pcaps.LINKTYPE_SLL, tsresol=None),
    ]
    out = [pcaps.section_header("<")]
    out += [pcaps.block("<", 1, interface.body("<")) for interface in first]
    for a, b in zip(wire, cooked, strict=False):
        out.append(pcaps.enhanced("<", a, first[0]))
        out.append(pcaps.obsolete("<", Packet(b.time_ns, b.data, interface=1), first[1]))
        out.append(pcaps.block("<", 0x0ABC, b"what is this?"))
    out.append(pcaps.statistics("<", 0, received=99, dropped=3))
    out.append(pcaps.block("<", 4, pcaps.option("<", 0, b"")))
    second = pcaps.Interface(tsresol=3, tsoffset=100)
    out.append(pcaps.section_header(">"))
    out.append(pcaps.block(">", 1, second.body(">")))
    for packet in pcaps.handshake(client_port=42000, start_ns=pcaps.START + S):
        out.append(pcaps.enhanced(">", Packet(packet.time_ns, packet.data, comment="hé"), second))
    return b"".join(out)


@scene
def custom_blocks() -> bytes:
    """Custom blocks between packets: no packets, but Wireshark numbers them as frames."""
    out = [pcaps.section_header("<"), pcaps.block("<", 1, pcaps.Interface().body("<"))]
    for number, packet in enumerate(pcaps.fast_retransmit()):
        out.append(pcaps.enhanced("<", packet, pcaps.Interface()))
        if number % 3 == 0:
            kind = 0x40000BAD if number % 2 else 0x0BAD
            out.append(pcaps.block("<", kind, struct.pack("<I", 32473) + b"private"))
    return b"".join(out)


@scene
def simple_packets() -> bytes:
    """Packets without time stamps, cut by the interface's snap length."""
    interface = pcaps.Interface(snaplen=80, tsresol=None)
    out = [pcaps.section_header("<"), pcaps.block("<", 1, interface.body("<"))]
    out += [pcaps.simple("<", packet.cut(80)) for packet in pcaps.fast_retransmit()]
    return b"".join(out)


@scene
def mixture() -> bytes:
    """ARP, UDP, ICMP and TCP, one of them between the other's packets."""
    packets = pcaps.handshake()
    for number in range(5):
        when = pcaps.START + number * 7 * MS
        question = pcaps.udp(bytes(40), sport=5353, dport=53, src="10.0.0.1", dst="10.0.0.2")
        packets.append(
            Packet(when, pcaps.ether(pcaps.ip(question, src="10.0.0.1", dst="10.0.0.2", proto=17)))
        )
        packets.append(
            Packet(when + MS, pcaps.ether(pcaps.arp(reply=number % 2 == 1), kind=pcaps.ARP))
        )
        ping = pcaps.icmp(8, 0, struct.pack("!HH", 7, number), bytes(56))
        packets.append(Packet(when + 2 * MS, pcaps.ether(pcaps.ipv4(ping, proto=1))))
    return pcaps.pcap(pcaps.interleaved(packets))


@scene
def empty() -> bytes:
    """A header and nothing else."""
    return pcaps.pcap([])


for name, make in SCENES.items():
    SCENES[name] = functools.cache(make)
