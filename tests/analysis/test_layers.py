"""Links and tunnels: the decoder, the capture core and the tables of both agree."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab.analysis import datagrams, frames, headers, layers, segments
from netlab.analysis.capture import Summary, summarize
from netlab.analysis.headers import Packet
from netlab.errors import CaptureError
from tests.analysis.encapsulations import LINKS, TEREDO, TUNNELS, Wrap
from tests.capture import pcaps
from tests.conftest import CAPTURES

Ends = tuple[str, int, str, int]


def carried(wraps: list[Wrap], version: int) -> Callable[[bytes], bytes]:
    """Return all wraps in one, the first innermost; IPv4 stays out of what carries IPv6 alone."""

    def carry(packet: bytes) -> bytes:
        for wrap in wraps:
            if wrap not in TEREDO.values() or packet[0] >> 4 == 6:
                packet = wrap(packet)
        return packet

    return carry


def of_core(summary: Summary) -> dict[int, Ends]:
    """Return the ends of every TCP packet by its frame, as the core has them."""
    return {
        s.frame: (s.source, s.sport, s.destination, s.dport)
        for s in segments.of_summary(summary, untimed=True)
    }


def ends(packet: Packet) -> Ends | None:
    """Return the ends of the innermost TCP packet, as the decoder has them."""
    inner = packet.innermost
    tcp = next((h for h in inner.headers if h.name in ("ICMP", "ICMPv6", "TCP")), None)
    if tcp is None or tcp.name != "TCP":
        return None
    ip = inner.headers[0]
    return (
        ip["source"].text, tcp["source port"].value,
        ip["destination"].text, tcp["destination port"].value,
    )  # fmt: skip


def of_decoder(path: Path) -> dict[int, Ends]:
    """Return the ends of every TCP packet by its frame, as the decoder has them."""
    found = ((frame.number, ends(frame.packet)) for frame in frames.read(path))
    return {number: one for number, one in found if one is not None}


def written(path: Path, link: str, tunnels: list[Wrap], version: int) -> Path:
    """Write a connection that is carried so."""
    number, wrap = LINKS[link]
    carry = carried(tunnels, version)
    talk = pcaps.fast_retransmit(link=lambda p: wrap(carry(p)), version=version)
    path.write_bytes(pcaps.pcap(talk, linktype=number))
    return path


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("link", LINKS)
def test_every_link_leads_to_the_packets_that_the_core_finds(
    tmp_path: Path, link: str, version: int
) -> None:
    path = written(tmp_path / "a.pcap", link, [], version)
    found = of_core(summarize(path, segments=True))
    assert len(found) == len(list(frames.read(path)))
    assert of_decoder(path) == found


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tunnel", {**TUNNELS, **TEREDO})
def test_every_tunnel_leads_to_the_packets_that_the_core_finds(
    tmp_path: Path, tunnel: str, version: int
) -> None:
    wrap = {**TUNNELS, **TEREDO}[tunnel]
    path = written(tmp_path / "a.pcap", "ethernet", [wrap], version)
    found = of_core(summarize(path, segments=True))
    assert len(found) == len(list(frames.read(path)))
    assert of_decoder(path) == found
    (stream,) = {s.stream for s in segments.load(path)}
    assert stream == 0
    assert datagrams.load(path) == ()


@given(
    link=st.sampled_from(sorted(LINKS)),
    tunnels=st.lists(st.sampled_from([*TUNNELS.values(), *TEREDO.values()]), max_size=4),
    version=st.sampled_from([4, 6]),
)
@settings(max_examples=150)
def test_tunnels_in_tunnels_lead_to_the_packets_that_the_core_finds(
    tmp_path_factory: pytest.TempPathFactory, link: str, tunnels: list[Wrap], version: int
) -> None:
    path = written(tmp_path_factory.mktemp("a") / "a.pcap", link, tunnels, version)
    found = of_core(summarize(path, segments=True))
    assert len(found) == len(list(frames.read(path)))
    assert of_decoder(path) == found


OTHERWISE = {
    "zeek__chksums_ip6-hoa-tcp-good-chksum.pcap": {1},  # its home address is not its source
    "zeek__tunnels_gtp_gtp_ext_header.pcap": {2},  # the core puts the fragments together
}
"""Frames of captures from elsewhere in which both decoders mean different things."""


@pytest.mark.needs("captures")
def test_captures_from_elsewhere_lead_to_the_packets_that_the_core_finds() -> None:
    compared = 0
    for path in sorted(path for path in CAPTURES.iterdir() if path.name != "README.md"):
        try:
            found = of_core(summarize(path, segments=True))
        except CaptureError:
            continue
        if len(found) > 4000:
            continue
        mine = of_decoder(path)
        apart = {f for f in found.keys() | mine.keys() if found.get(f) != mine.get(f)}
        assert apart == OTHERWISE.get(path.name, set()), path.name
        compared += len(found)
    assert compared > 10_000


def test_every_link_type_that_the_core_knows_is_known(tmp_path: Path) -> None:
    known: set[int] = set()
    path = tmp_path / "a.pcap"
    for number in range(400):
        path.write_bytes(pcaps.pcap([pcaps.Packet(0, bytes(60))], linktype=number))
        if not summarize(path).totals["unknown_link_types"]:
            known.add(number)
    assert set(layers.LINK_TYPES) == known


def test_every_way_on_leads_somewhere() -> None:
    known = {*layers.LAYERS, "ip", "ipv4", "ipv6", ""}
    assert {layer for table in layers.TABLES.values() for _, _, layer in table} <= known
    assert set(layers.LINK_TYPES.values()) <= known
    for layer in layers.LAYERS.values():
        names = [row[0] for part in layer.parts for row in part.rows]
        assert len(names) == len(set(names))
        used = {name for branch in layer.then for name in branch.by}
        used |= {name for name, _, _ in layer.only}
        used |= {n for part in layer.parts for clause in part.when for n in clause}
        used |= {part.length[0] for part in layer.parts if part.length is not None}
        assert used <= set(names), layer.name
        assert {branch.table for branch in layer.then} <= set(layers.TABLES)


@given(st.sampled_from(sorted({*layers.LAYERS})), st.binary(max_size=300))
@settings(max_examples=400)
def test_any_octets_end_any_layer(link: str, data: bytes) -> None:
    packet = headers.decode(data, link=link)
    for header in packet.headers:
        assert header.octet + header.length <= len(data)
        bit = 0
        for field in header.fields:
            assert field.bit == bit
            bit += field.bits
    assert sum(1 for _ in headers.describe(packet)) >= 0


def test_layers_without_end_are_walked_through() -> None:
    tags = struct.pack("!HH", 1, 0x8100) * 5000
    packet = headers.decode(bytes(12) + b"\x81\0" + tags, link="ethernet")
    assert len(packet.headers) == 5001
