"""The header decoder: every field in its place, checksums computed anew, any octets survive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.agents import injector
from netlab.analysis import frames
from netlab.analysis.headers import decode, describe, ones_complement
from netlab.errors import CaptureError

DUMP = bytes.fromhex(
    "4500003c1c4640004006b1e6c0a80164c0a80165"
    "04d200500000000100000000a0027210fe300000"
    "020405b40402080a000000000000000001030307"
)


def test_both_checksums_of_the_printed_packet_are_wrong() -> None:
    packet = decode(DUMP)
    assert [(s.header, s.found, s.right, s.ok) for s in packet.checksums] == [
        ("IPv4", 0xB1E6, 0x9A5C, False),
        ("TCP", 0xFE30, 0x4CB3, False),
    ]


def test_every_field_of_the_printed_packet() -> None:
    packet = decode(DUMP)
    ip, tcp = packet.header("IPv4"), packet.header("TCP")
    assert ip is not None
    assert tcp is not None
    assert {f.name: f.text for f in ip.fields} == {
        "version": "4",
        "header length": "5 (20 octets)",
        "DSCP": "0",
        "ECN": "0 (not ECN-capable)",
        "total length": "60",
        "identification": "0x1c46",
        "reserved": "0",
        "DF": "set",
        "MF": "not set",
        "fragment offset": "0 (0 octets)",
        "TTL": "64",
        "protocol": "6 (TCP)",
        "checksum": "0xb1e6",
        "source": "192.168.1.100",
        "destination": "192.168.1.101",
    }
    assert {f.name: f.value for f in tcp.fields if f.value} == {
        "source port": 1234,
        "destination port": 80,
        "sequence number": 1,
        "data offset": 10,
        "SYN": 1,
        "window": 29200,
        "checksum": 0xFE30,
    }
    assert [(o.name, o.octet, o.length) for o in packet.options("TCP")] == [
        ("maximum segment size", 40, 4),
        ("SACK permitted", 44, 2),
        ("timestamps", 46, 10),
        ("no operation", 56, 1),
        ("window scale", 57, 3),
    ]
    assert packet.options("TCP")[4]["shift"].text == "7 (times 128)"


def test_fields_follow_each_other_without_gaps() -> None:
    for header in decode(DUMP).headers:
        bit = 0
        for field in header.fields:
            assert field.bit == bit
            assert field.octet == header.octet + bit // 8
            bit += field.bits
        assert bit == header.length * 8


@pytest.mark.parametrize(
    ("source", "destination"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")]
)
@pytest.mark.parametrize("data", [b"", b"x", b"hello, world"])
def test_decoder_and_injector_agree_on_checksums(
    source: str, destination: str, data: bytes
) -> None:
    for checksum, right in (("good", True), ("bad", False), ("0x1234", False)):
        tcp = injector.tcp(source, destination, sport=1, dport=2, data=data, checksum_=checksum)
        udp = injector.udp(source, destination, sport=1, dport=2, data=data, checksum_=checksum)
        for number, payload in ((6, tcp), (17, udp)):
            wrap = injector.ipv6 if ":" in source else injector.ipv4
            packet = decode(wrap(source, destination, number, payload))
            assert packet.payload == data
            assert packet.cut == ""
            assert packet.odd == ()
            sums = {s.header: s.ok for s in packet.checksums}
            assert sums["TCP" if number == 6 else "UDP"] is right
            assert sums.get("IPv4", True) is True


def test_a_udp_checksum_of_zero_means_none() -> None:
    payload = injector.udp("10.0.0.1", "10.0.0.2", sport=1, dport=2, checksum_="0")
    found = decode(injector.ipv4("10.0.0.1", "10.0.0.2", 17, payload)).checksum("UDP")
    assert found is not None
    assert found.absent
    assert found.ok


def test_a_fragment_has_no_checksum_that_could_be_checked() -> None:
    payload = injector.udp("10.0.0.1", "10.0.0.2", sport=1, dport=2, data=bytes(64))
    first = decode(injector.ipv4("10.0.0.1", "10.0.0.2", 17, payload[:40], fragment=0x2000))
    second = decode(injector.ipv4("10.0.0.1", "10.0.0.2", 17, payload[40:], fragment=5))
    found = first.checksum("UDP")
    assert found is not None
    assert found.ok is None
    assert second.header("UDP") is None
    assert len(second.payload) == 32


def test_an_icmp_error_shows_the_mtu_and_the_packet_it_quotes() -> None:
    message = bytes([3, 4, 0, 0]) + (1400).to_bytes(4, "big") + DUMP[:28]
    message = message[:2] + ones_complement(message).to_bytes(2, "big") + message[4:]
    packet = decode(injector.ipv4("10.0.0.9", "10.0.0.1", 1, message))
    assert [h.name for h in packet.headers] == ["IPv4", "ICMP", "ICMP message", "IPv4", "TCP"]
    assert packet.headers[2]["next-hop MTU"].value == 1400
    assert packet.headers[4]["destination port"].value == 80
    found = packet.checksum("ICMP")
    assert found is not None
    assert found.ok


def test_options_that_break_a_rule_are_named() -> None:
    options = injector.tcp_options(["hex=0203"])
    segment = injector.tcp("10.0.0.1", "10.0.0.2", sport=1, dport=2, options=options)
    packet = decode(injector.ipv4("10.0.0.1", "10.0.0.2", 6, segment))
    assert packet.odd == ("TCP option 2 has the length 3",)
    late = injector.tcp_options(["mss=1460"])
    segment = injector.tcp("10.0.0.1", "10.0.0.2", sport=1, dport=2, flags=0x10, options=late)
    packet = decode(injector.ipv4("10.0.0.1", "10.0.0.2", 6, segment))
    assert packet.odd == ("maximum segment size outside a SYN",)


@given(st.integers(0, len(DUMP)))
def test_every_prefix_of_a_packet_is_decoded_as_far_as_it_goes(length: int) -> None:
    packet = decode(DUMP[:length])
    assert bool(packet.cut) == (length < len(DUMP))
    for header in packet.headers:
        for field in header.fields:
            assert field.octet * 8 + field.bits <= length * 8 + 7


@given(st.binary(max_size=200), st.sampled_from(["ip", "ethernet"]))
def test_any_octets_are_a_packet(data: bytes, link: str) -> None:
    packet = decode(data, link=link)
    assert sum(1 for _ in describe(packet)) >= 0
    assert len(packet.payload) <= len(data)


@given(st.binary(min_size=1, max_size=120).map(lambda data: DUMP[:32] + data))
def test_any_tcp_header_is_decoded(data: bytes) -> None:
    packet = decode(data)
    assert packet.header("IPv4") is not None


def test_frames_of_a_capture(tmp_path: Path) -> None:
    head = bytes.fromhex("4d3cb2a1020004000000000000000000ffff000065000000")
    record = (1).to_bytes(4, "little") + (5).to_bytes(4, "little")
    record += len(DUMP).to_bytes(4, "little") * 2 + DUMP
    path = tmp_path / "a.pcap"
    path.write_bytes(head + record + record[:-1])
    (only,) = frames.read(path)
    assert (only.number, only.time_ns, only.length) == (1, 1_000_000_005, 60)
    assert only.packet.header("TCP") is not None


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    with pytest.raises(CaptureError):
        list(frames.read(path))


def test_frames_are_read_from_where_one_wants_and_cut_to_size(tmp_path: Path) -> None:
    head = bytes.fromhex("4d3cb2a1020004000000000000000000ffff000065000000")
    record = bytes(8) + len(DUMP).to_bytes(4, "little") * 2 + DUMP
    path = tmp_path / "a.pcap"
    path.write_bytes(head + record * 5)
    found = list(frames.read(path, first=2, count=3, snap=20))
    assert [frame.number for frame in found] == [2, 3, 4]
    assert {(frame.length, frame.data) for frame in found} == {(len(DUMP), DUMP[:20])}


@pytest.mark.parametrize(
    ("link", "before", "name"),
    [
        ("ethernet", bytes(12) + b"\x81\0\x20\x05\x08\0", "VLAN"),
        ("cooked", bytes(14) + b"\x08\0", "cooked capture"),
        ("cooked2", b"\x08\0" + bytes(18), "cooked capture v2"),
        ("null", b"\x02\0\0\0", "loopback"),
        ("loop", b"\0\0\0\x02", "loopback"),
        ("ip", b"", "IPv4"),
    ],
)
def test_every_link_layer_leads_to_the_same_segment(link: str, before: bytes, name: str) -> None:
    packet = decode(before + DUMP, link=link)
    assert packet.header(name) is not None
    assert not packet.cut
    tcp, alone = packet.header("TCP"), decode(DUMP).header("TCP")
    assert tcp is not None
    assert alone is not None
    assert [f.text for f in tcp.fields] == [f.text for f in alone.fields]
    assert tcp.octet == alone.octet + len(before)
