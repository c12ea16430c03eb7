"""The journey of segments: against ways whose losses, copies and delays were drawn by us."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab.analysis.journey import Journeys, follow, in_order
from netlab.analysis.segments import ACK, FIN, SYN, Segment

POINTS = ("client:eth0", "r:eth0", "r:eth1", "server:eth0")
MS = 1_000_000


def segment(
    time_ns: int, seq: int, *, forward: bool = True, length: int = 100, **more: int
) -> Segment:
    """Return a segment of one connection, stamped as its sender would."""
    one, other = ("10.0.0.1", 4000), ("10.0.9.2", 80)
    there, back = (one, other) if forward else (other, one)
    return replace(
        Segment(
            frame=0, time_ns=time_ns, stream=0, forward=forward,
            source=there[0], sport=there[1], destination=back[0], dport=back[1],
            flags=ACK, seq=seq, ack=1, seq_raw=seq + (1000 if forward else 7000),
            ack_raw=7001 if forward else 1001, length=length, window=500,
            tsval=time_ns // MS, tsecr=1,
        ),
        **more,
    )  # fmt: skip


@dataclass
class Drawn:
    """A world that was drawn: what each point saw, and what became of each segment."""

    captures: dict[str, list[Segment]]
    lost: dict[int, str]
    copies: int
    sent: int


def world(seed: int, *, count: int = 60, loss: float = 0.1, copy: float = 0.05) -> Drawn:
    """Send segments both ways over three links, each of which may lose, copy and delay."""
    draw = random.Random(seed)
    seen: dict[str, list[Segment]] = {point: [] for point in POINTS}
    lost: dict[int, str] = {}
    copies = 0
    now = 10**15
    for number in range(count):
        now += draw.randrange(1, 3 * MS)
        forward = draw.random() < 0.7
        # every third has the octets of the one before: a retransmission within one tick
        sent = segment(now, 1 + 100 * (number - number % 3 // 2), forward=forward, ip_id=number + 1)
        way = POINTS if forward else POINTS[::-1]
        travelling = [(now, 0)]
        while travelling:
            at, place = travelling.pop()
            seen[way[place]].append(replace(sent, time_ns=at))
            if place == len(way) - 1:
                continue
            if draw.random() < loss and not (copies and travelling):
                lost[number] = way[place]
                continue
            travelling.append((at + draw.randrange(5 * MS, 9 * MS), place + 1))
            if draw.random() < copy and number not in lost and place:
                copies += 1
                travelling.append((at + draw.randrange(5 * MS, 9 * MS), place + 1))
    captures: dict[str, list[Segment]] = {}
    for point, found in seen.items():
        found.sort(key=lambda s: s.time_ns)
        captures[point] = [replace(s, frame=at) for at, s in enumerate(found, 1)]
    return Drawn(captures, lost, copies, count)


def by_id(journeys: Journeys) -> dict[int, list[str | None]]:
    """Return the ends of the passages of each IPv4 identification."""
    ends: dict[int, list[str | None]] = {}
    for passage in journeys.passages:
        assert isinstance(passage.packet, Segment)
        if passage.copy_of is None:
            ends.setdefault(passage.packet.ip_id - 1, []).append(passage.lost_after)
    return ends


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_losses_are_found_where_they_were_made(seed: int) -> None:
    drawn = world(seed, copy=0)
    homes = {"10.0.0.1": "client:eth0", "10.0.9.2": "server:eth0"}
    journeys = follow(drawn.captures, homes=homes)
    assert journeys.conversations[0].points == POINTS
    assert len(journeys.passages) == drawn.sent
    assert by_id(journeys) == {n: [drawn.lost.get(n)] for n in range(drawn.sent)}


@given(st.integers(0, 2**32))
@settings(max_examples=40)
def test_every_sight_is_in_exactly_one_passage(seed: int) -> None:
    drawn = world(seed, copy=0.2)
    journeys = follow(drawn.captures)
    seen = [(s.point, s.frame) for p in journeys.passages for s in p.sights]
    every = [(point, s.frame) for point, found in drawn.captures.items() for s in found]
    assert sorted(seen) == sorted(every)
    for passage in journeys.passages:
        places = [journeys.conversations[0].points.index(s.point) for s in passage.sights]
        assert places == sorted(places, reverse=not passage.forward)


def test_copies_made_on_the_way_are_told_from_retransmissions() -> None:
    first = segment(0, 1, ip_id=5)
    copied = [replace(first, time_ns=t, frame=n) for n, t in enumerate((MS, 2 * MS), 1)]
    journeys = follow({"a:eth0": [replace(first, frame=1)], "b:eth0": copied})
    assert [(p.repeats, p.copy_of, len(p.sights)) for p in journeys.passages] == [
        (None, None, 2),
        (None, 0, 1),
    ]


def test_a_retransmission_names_what_it_repeats_also_with_other_borders() -> None:
    sent = [segment(0, 1, length=1000), segment(MS, 1001, length=500)]
    again = [segment(300 * MS, 501, length=500), segment(301 * MS, 1001, length=500)]
    rows = [replace(s, frame=n) for n, s in enumerate(sent + again, 1)]
    journeys = follow({"a:eth0": rows})
    assert [p.repeats for p in journeys.passages] == [None, None, 0, 1]


def test_a_black_hole_is_seen_where_nothing_ever_arrives() -> None:
    syns = [
        replace(segment(n * 1000 * MS, 0, length=0, flags=SYN), frame=n + 1, ack_raw=0)
        for n in range(3)
    ]
    silent = follow({"client:eth0": syns, "server:eth0": []})
    assert [p.lost_after for p in silent.passages] == [None] * 3
    known = follow(
        {"client:eth0": syns, "server:eth0": []},
        homes={"10.0.0.1": "client:eth0", "10.0.9.2": "server:eth0"},
    )
    assert [p.lost_after for p in known.passages] == ["client:eth0"] * 3
    assert [p.repeats for p in known.passages] == [None, 0, 1]


def test_what_a_capture_that_ended_early_did_not_see_is_not_lost() -> None:
    sent = [replace(segment(n * MS, 1 + 100 * n), frame=n + 1) for n in range(4)]
    got = [replace(s, time_ns=s.time_ns + MS // 2) for s in sent[:2]]
    assert [p.lost_after for p in follow({"a:e": sent, "b:e": got}).passages][2:] == ["a:e"] * 2
    told = follow({"a:e": sent, "b:e": got}, ended_early=["b:e"])
    assert [p.lost_after for p in told.passages] == [None] * 4


def test_what_a_capture_was_not_asked_for_is_not_lost() -> None:
    sent = [replace(segment(n * MS, 1 + 100 * n), frame=n + 1) for n in range(4)]
    got = [replace(s, time_ns=s.time_ns + MS // 2) for s in sent[:1]]
    ends = {"10.0.0.1": "a:e", "10.0.9.2": "b:e"}
    captures = {"a:e": sent, "b:e": got}
    other = {"a:e": "tcp", "b:e": "tcp[13] & 2 != 0"}
    told = follow(captures, homes=ends, filters=other)
    assert [p.lost_after for p in told.passages] == [None] * 4
    nothing = follow({"a:e": sent, "b:e": []}, homes=ends, filters=other)
    assert nothing.conversations[0].points == ("a:e",)
    for alike in ({"a:e": "tcp", "b:e": "tcp"}, {"a:e": "tcp", "b:e": ""}):
        seen = follow(captures, homes=ends, filters=alike)
        assert [p.lost_after for p in seen.passages] == [None, "a:e", "a:e", "a:e"]


def test_a_translator_between_two_points_is_followed() -> None:
    inside = [replace(segment(n * MS, 1 + 100 * n), frame=n + 1) for n in range(3)]
    outside = [
        replace(s, source="192.0.2.1", sport=61000, time_ns=s.time_ns + MS // 4) for s in inside
    ]
    journeys = follow({"in:e": inside, "out:e": outside})
    assert len(journeys.conversations) == 1
    assert [len(p.sights) for p in journeys.passages] == [2, 2, 2]


def test_two_clients_with_the_same_numbers_are_not_mixed_up() -> None:
    one = [replace(segment(n * MS, 1 + 100 * n), frame=2 * n + 1) for n in range(3)]
    two = [replace(s, sport=4001, stream=1, frame=s.frame + 1) for s in one]
    both = sorted(one + two, key=lambda s: s.frame)
    later = [replace(s, time_ns=s.time_ns + MS // 4) for s in both]
    journeys = follow({"a:e": both, "b:e": later})
    assert len(journeys.conversations) == 2
    assert all(len(p.sights) == 2 for p in journeys.passages)


def test_a_point_that_missed_the_handshake_does_not_turn_the_conversation() -> None:
    syn = segment(0, 0, length=0, flags=SYN)
    answer = segment(MS, 0, forward=False, length=0, flags=SYN | ACK)
    data = segment(2 * MS, 1)
    end = segment(3 * MS, 1, forward=False, length=0, flags=FIN | ACK)
    whole = [replace(s, frame=n) for n, s in enumerate((syn, answer, data, end), 1)]
    late = [  # began with the server's packet, which it took for the opener's
        replace(
            s, frame=n, forward=not s.forward, time_ns=s.time_ns + (MS if s.forward else -MS) // 5
        )
        for n, s in enumerate((answer, data, end), 1)
    ]
    journeys = follow({"a:e": whole, "b:e": late})
    assert journeys.conversations[0].opener == ("10.0.0.1", 4000)
    assert [(p.forward, len(p.sights)) for p in journeys.passages] == [
        (True, 1), (False, 2), (True, 2), (False, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("captures", [{}, {"a:e": []}])
def test_nothing_has_no_journey(captures: dict[str, list[Segment]]) -> None:
    assert follow(captures).passages == ()


def test_what_has_no_time_stands_where_it_was_captured() -> None:
    times = (0, 30, 0, 20, 0, 40)
    found = in_order([segment(at, 1, frame=n) for n, at in enumerate(times, 1)], untimed=True)
    assert [(one.frame, one.time_ns) for one in found] == [
        (4, 20), (5, 20), (1, 30), (2, 30), (3, 30), (6, 40),
    ]  # fmt: skip
    kept = in_order([segment(at, 1, frame=n) for n, at in enumerate(times, 1)])
    assert [one.time_ns for one in kept] == sorted(times)
