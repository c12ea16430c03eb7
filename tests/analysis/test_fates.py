"""Why packets were lost: journals of wires held against what captures show."""

from __future__ import annotations

from dataclasses import replace

from netlab.analysis.fates import Drop, explain
from netlab.analysis.journal import Key, Verdict
from netlab.analysis.journey import follow
from netlab.analysis.segments import Segment
from tests.analysis.test_journey import MS, segment


def key(one: Segment) -> Key:
    """Return how the journal knows a segment."""
    return (one.sport, one.dport, one.seq_raw, one.ack_raw, one.length)


def test_each_lost_packet_finds_its_own_drop() -> None:
    first = replace(segment(0, 1), frame=1)
    lost = replace(segment(10 * MS, 101), frame=2)
    again = replace(segment(210 * MS, 101), frame=3)
    last = replace(segment(900 * MS, 101), frame=4)
    got = [replace(one, time_ns=one.time_ns + MS) for one in (first, last)]
    found = follow({"a:e": [first, lost, again, last], "b:e": got})
    drops = [  # in the order of the journal, which is that of ends
        Drop("far", 211 * MS, Verdict.QUEUE, key(lost)),
        Drop("far", 11 * MS, Verdict.EXACT, key(lost)),
        Drop("far", 5 * MS, Verdict.LOSS, key(lost)),  # of another packet: it was not sent yet
    ]
    assert [p.lost_after for p in found.passages] == [None, "a:e", "a:e", None]
    assert {n: drop.verdict for n, drop in explain(found.passages, drops).items()} == {
        1: Verdict.EXACT,
        2: Verdict.QUEUE,
    }
    assert explain(found.passages, drops)[2].text == "dropped by a full queue on far"


def test_what_arrived_has_no_drop() -> None:
    sent = [replace(segment(n * MS, 1 + 100 * n), frame=n + 1) for n in range(3)]
    got = [replace(one, time_ns=one.time_ns + MS // 2) for one in sent]
    found = follow({"a:e": sent, "b:e": got})
    drops = [Drop("far", one.time_ns + 1, Verdict.LOSS, key(one)) for one in sent]
    assert explain(found.passages, drops) == {}
