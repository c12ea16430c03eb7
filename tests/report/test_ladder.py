"""Ladders fit their terminal and say what the wire said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.analysis.segments import ACK, FIN, PSH, SYN, Segment, load
from netlab.report.ladder import folded, ladder
from tests.conftest import ROOT

FIRST = Segment(
    frame=1, time_ns=10**18, stream=0, forward=True, source="10.0.0.1", sport=40000,
    destination="10.0.0.2", dport=8080, flags=SYN, seq=0, ack=0, seq_raw=100, ack_raw=0,
    length=0, window=64240, mss=1460, wscale=7, sack_permitted=True, tsval=1, tsecr=0,
)  # fmt: skip
BACK = {"forward": False, "source": "10.0.0.2", "sport": 8080, "destination": "10.0.0.1"}
BACK |= {"dport": 40000}
PLAIN = {"mss": None, "wscale": None, "sack_permitted": False, "tsval": None, "tsecr": None}
HANDSHAKE = (
    FIRST,
    replace(FIRST, frame=2, time_ns=10**18 + 1_500_000, flags=SYN | ACK, ack=1, ack_raw=101,
            seq_raw=900, **BACK),
    replace(FIRST, frame=3, time_ns=10**18 + 1_600_000, flags=ACK, seq=1, ack=1, seq_raw=101,
            ack_raw=901, **PLAIN),
    replace(FIRST, frame=4, time_ns=10**18 + 2_600_000, flags=ACK | PSH, seq=1, ack=1, length=5,
            seq_raw=901, ack_raw=101, **BACK, **PLAIN),
    replace(FIRST, frame=5, time_ns=10**18 + 3_600_000, flags=ACK | FIN, seq=6, ack=1,
            seq_raw=906, ack_raw=101, retransmission=True, **BACK, **PLAIN),
)  # fmt: skip

EXPECTED = """\
      time  client                                              server
            10.0.0.1:40000                               10.0.0.2:8080
  0.000000  │── SYN seq=0 win=64240 ────────────────────────────────▶│
            │    seq 100  mss=1460 sack ts wscale=7                  │
  0.001500  │◀────────────────────── SYN-ACK seq=0 ack=1 win=64240 ──│
            │    seq 900 ack 101  mss=1460 sack ts wscale=7          │
  0.001600  │── ACK seq=1 ack=1 win=64240 ──────────────────────────▶│
            │    seq 101 ack 901                                     │
  0.002600  │◀──────────────── PSH-ACK seq=1 ack=1 len=5 win=64240 ──│
            │    seq 901 ack 101                                     │
  0.003600  │◀───────────────────── FIN-ACK* seq=6 ack=1 win=64240 ──│
            │    seq 906 ack 101                                     │
            * sent again
"""


def test_a_ladder_shows_who_said_what_when() -> None:
    assert ladder(HANDSHAKE, width=70, names=("client", "server")) == EXPECTED


def test_no_segments_is_said() -> None:
    assert ladder(()) == "no TCP segments\n"


def test_what_is_not_shown_is_counted() -> None:
    assert "3 more segments are not shown" in ladder(HANDSHAKE, limit=2)


def test_long_runs_are_folded_and_repetitions_never() -> None:
    rows = load(ROOT / "labs/pmtu-black-hole/recording/black-hole/captures/client.eth0.pcap.gz")
    text = ladder(rows, room=16, raw=False)
    assert "8 more like these" in text
    assert "not shown" not in text
    assert text.count("ACK* seq=65 ack=65 len=1448") == sum(r.retransmission for r in rows) == 3
    assert len(text.splitlines()) == 1 + 16 + 1  # heading, rows, what the sign means
    assert "like these" not in ladder(rows, room=len(rows))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ACK, ACK, ACK, SYN, ACK | FIN]),
            st.booleans(),
            st.integers(0, 1),
            st.integers(0, 9).map(lambda n: n == 0),
        ),
        max_size=60,
    ),
    st.integers(1, 30),
)
def test_folding_keeps_the_order_and_what_matters(
    told: list[tuple[int, bool, int, bool]], room: int
) -> None:
    rows = [
        replace(FIRST, frame=n, flags=flags, forward=way, length=length, retransmission=again)
        for n, (flags, way, length, again) in enumerate(told)
    ]
    found = folded(rows, room)
    frames = [row.frame for row in found if isinstance(row, Segment)]
    assert frames == sorted(set(frames))
    assert len(found) <= 2 * room
    matter = [r for r in rows if r.retransmission or r.flags != ACK]
    if len(matter) <= room:
        assert {r.frame for r in matter} <= set(frames)
    if len(rows) <= room:
        assert found == rows


def test_ascii_is_ascii() -> None:
    text = ladder(HANDSHAKE, unicode=False)
    assert text.isascii()
    assert "--->|" in text


def test_without_raw_there_is_one_line_per_segment() -> None:
    assert len(ladder(HANDSHAKE, raw=False).splitlines()) == 1 + len(HANDSHAKE) + 1


def test_the_side_that_opened_stands_left_though_the_other_was_captured_first() -> None:
    text = ladder(HANDSHAKE[1:])
    assert text.index("10.0.0.1:40000") < text.index("10.0.0.2:8080")


NUMBER = st.integers(0, 2**32 - 1)
ADDRESS = st.ip_addresses().map(str)


@given(
    st.lists(
        st.builds(
            Segment,
            frame=NUMBER,
            time_ns=st.integers(0, 2**62),
            stream=st.just(0),
            forward=st.booleans(),
            source=ADDRESS,
            sport=st.integers(0, 65535),
            destination=ADDRESS,
            dport=st.integers(0, 65535),
            flags=st.integers(0, 511),
            seq=NUMBER,
            ack=NUMBER,
            seq_raw=NUMBER,
            ack_raw=NUMBER,
            length=st.integers(0, 65535),
            window=st.integers(0, 65535),
            mss=st.none() | st.integers(0, 65535),
            wscale=st.none() | st.integers(0, 255),
            sack_permitted=st.booleans(),
            tsval=st.none() | NUMBER,
            retransmission=st.booleans(),
        ),
        max_size=5,
    ),
    st.integers(1, 200),
    st.booleans(),
)
def test_no_line_is_wider_than_the_terminal(
    segments: list[Segment], width: int, unicode: bool
) -> None:
    # A time of more than ten characters is the one thing that may push a line out.
    segments = [replace(s, time_ns=s.time_ns % 10**12) for s in segments]
    text = ladder(segments, width=width, unicode=unicode, names=("client", "server"))
    assert all(len(line) <= max(width, 30) + 1 for line in text.splitlines())


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (SYN, "SYN"),
        (SYN | ACK, "SYN-ACK"),
        (FIN | ACK | PSH, "FIN-ACK"),
        (ACK, "ACK"),
        (0x04, "RST"),
        (0x14, "RST-ACK"),
        (0xC2, "SYN-ECE-CWR"),
        (0, "none"),
    ],
)
def test_flags_are_spoken(flags: int, kind: str) -> None:
    assert replace(FIRST, flags=flags).kind == kind
