"""Why a packet was lost: what the journals of the userspace wires say of it.

A journal knows a TCP segment by its ports and raw numbers, and a datagram by its ports alone; the
same numbers may have been dropped several times. So a lost passage is given the drop of its key
that follows most closely upon its last sight, and each drop explains one passage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from netlab.analysis.datagrams import Datagram
from netlab.analysis.journal import Flag, Journal, Key, Record, Verdict
from netlab.analysis.journey import SLACK_NS, Passage, Sight
from netlab.errors import RecordingError

if TYPE_CHECKING:
    from netlab.recording import Recording

MOST = 2_000_000
"""Records of one journal that are looked at."""

WORDS: Mapping[Verdict, str] = {
    Verdict.LOSS: "lost at random",
    Verdict.EXACT: "dropped by a rule for this very packet",
    Verdict.QUEUE: "dropped by a full queue",
    Verdict.CODEL: "dropped by CoDel",
    Verdict.OVERFLOW: "not carried: the wire itself had no room",
    Verdict.DOWN: "dropped because the link was down",
    Verdict.UNFINISHED: "still inside when the wire ended",
}


@dataclass(frozen=True, slots=True)
class Drop:
    """A packet that a wire did not pass on."""

    link: str
    at_ns: int
    verdict: Verdict
    key: Key

    @property
    def text(self) -> str:
        """What became of it, and where, in a few words."""
        return f"{WORDS[self.verdict]} on {self.link}"


def books(recording: Recording) -> Iterator[tuple[Journal, list[Record]]]:
    """Yield the journals of a recording with their records, chatter of the machines left out."""
    for name in recording.files("**/*.journal"):
        try:
            book = Journal.open(recording.file(name))
            yield book, [r for r in islice(book, MOST) if not r.flags & Flag.CHATTER]
        except (RecordingError, OSError):
            continue


def drops(book: Journal, records: Iterable[Record]) -> list[Drop]:
    """Return what a wire did not pass on."""
    return [Drop(book.link, r.arrival_ns, r.verdict, r.key) for r in records if r.dropped]


def explain(passages: Iterable[Passage], dropped: Iterable[Drop]) -> dict[int, Drop]:
    """Return the drop that explains each lost passage, by its place in `passages`."""
    waiting: dict[Key, list[Drop]] = defaultdict(list)
    for drop in sorted(dropped, key=lambda drop: drop.at_ns):
        waiting[drop.key].append(drop)
    found: dict[int, Drop] = {}
    for number, passage in enumerate(passages):
        if passage.lost_after is None:
            continue
        last = passage.sights[-1]
        mine = waiting.get(_key(passage), [])
        drop = next((one for one in mine if _after(one, last)), None)
        if drop is not None:
            mine.remove(drop)
            found[number] = drop
    return found


def _after(drop: Drop, last: Sight) -> bool:
    """Tell whether a drop came after the last sight; taps are stamped on another processor."""
    return drop.at_ns >= last.time_ns - SLACK_NS


def _key(passage: Passage) -> Key:
    """Return how the journal knows a packet."""
    packet = passage.packet
    if isinstance(packet, Datagram):
        return (packet.sport, packet.dport, 0, 0, packet.length)
    return (packet.sport, packet.dport, packet.seq_raw, packet.ack_raw, packet.length)
