"""Streams of several tcpdumps: cut anywhere, read in any order, one order comes out."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.engine.streams import HELD, LineSplitter, Merger, Packet, PcapSplitter, Splitter
from netlab.errors import EngineError

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def pcap(packets: list[tuple[int, bytes]]) -> bytes:
    head = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    return head + b"".join(
        struct.pack("=IIII", at // SECOND, at % SECOND, len(data), len(data) + 4) + data
        for at, data in packets
    )


def pieces(splitter: Splitter, data: bytes, cuts: list[int]) -> list[Packet]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [
        packet
        for start, end in itertools.pairwise(edges)
        for packet in splitter.feed(data[start:end])
    ]


numbers = st.integers(0, 10 * SECOND)
packets = st.lists(st.tuples(numbers.map(START.__add__), st.binary(max_size=40)), max_size=12)


@given(packets, st.lists(st.integers(0, 2000), max_size=6))
def test_a_pcap_stream_may_be_cut_anywhere(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    splitter = PcapSplitter(3, snaplen=30)
    found = pieces(splitter, pcap(sent), cuts)
    assert found == [Packet(at, 3, len(data) + 4, data[:30]) for at, data in sent]
    assert splitter.link_type == 1


def test_what_is_no_pcap_stream_is_refused() -> None:
    with pytest.raises(EngineError, match="something else than a capture"):
        PcapSplitter(0).feed(b"tcpdump: listening on eth0, link-type EN10MB")


@given(st.lists(st.integers(0, 200), max_size=6))
def test_lines_may_be_cut_anywhere_and_go_on(cuts: list[int]) -> None:
    text = b"1700000000.000000007 IP a > b\n\tmore of it\n1700000001.5 ARP\n\n"
    found = pieces(LineSplitter(1), text, cuts)
    assert found == [
        Packet(START + 7, 1, 0, b"IP a > b"),
        Packet(START + 7, 1, 0, b"\tmore of it"),
        Packet(START + SECOND + SECOND // 2, 1, 0, b"ARP"),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 2), numbers), max_size=40),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=40),
)
def test_merged_streams_lose_nothing_and_are_in_order(
    seen: list[tuple[int, int]], reads: list[tuple[int, int]]
) -> None:
    """Each stream in its order, read in any rhythm; what was not read yet is told as `behind`."""
    streams = [
        [Packet(START + at, source, 1, b"x") for at in sorted(a for s, a in seen if s == source)]
        for source in range(3)
    ]
    everything = sorted(packet for stream in streams for packet in stream)
    merger, out = Merger(range(3)), list[Packet]()
    for source, count in reads:
        stream = streams[source]
        merger.add(stream[:count])
        del stream[:count]
        behind = [number for number, rest in enumerate(streams) if rest]
        out += merger.take(START + 20 * SECOND, behind)
    for stream in streams:
        merger.add(stream)
    out += merger.rest()
    assert [p.at_ns for p in out] == [p.at_ns for p in everything]
    assert sorted(out) == everything


def test_a_silent_stream_holds_packets_back_for_a_moment_only() -> None:
    merger = Merger(range(2))
    first = Packet(START, 0, 1, b"x")
    merger.add([first])
    assert merger.take(START) == []
    assert merger.oldest_ns == START
    assert merger.take(START + int(HELD * SECOND)) == [first]
    later = Packet(START + 5, 0, 1, b"y")
    merger.add([later])
    merger.add([Packet(START + 6, 1, 1, b"z")])
    assert merger.take(START) == [later]
    merger.ended(0)
    assert [packet.data for packet in merger.take(START)] == [b"z"]
