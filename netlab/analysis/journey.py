"""The journey of every packet over several capture points: seen where and when, lost where.

Theory of operation. A TCP segment keeps its sequence and acknowledgment numbers, length, flags,
time stamps, window and IPv4 identification from its sender to its receiver, whatever routers and
address translators do to the rest. These make its *key*; that of a datagram is its identification
and its first octets. Streams of different captures that share keys are one *conversation*; those
with equal addresses and ports are preferred, so a translator between two points is followed and
two clients with the same numbers are not mixed up.

Per conversation and direction the points are put in the order of travel: by the median of the
differences of time over the keys that both points saw exactly once. Then each segment is followed
from point to point. Where the same key was seen several times at a point (a retransmission within
one tick of the clock of time stamps, a duplicate made on the way), the pairs are those whose delay
comes nearest to the median.

A segment is *lost* after the last point that saw it if a later point of its way was capturing then
(it saw anything later, or its capture is known to have run to the end) and was asked for all that
the earlier one was: a capture with a filter of its own says nothing of what it did not see.

What is unsatisfactory: a middlebox that rewrites sequence numbers parts a conversation in two, and
segments that the sender's card cuts up (offloads on) match nothing.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from netlab.analysis.datagrams import Datagram
from netlab.analysis.segments import Segment

Packet = Segment | Datagram
Key = Hashable
Stream = tuple[str, int]
"""A capture point and the number of a stream there."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A segment as one point saw it: the frame of that capture (from 1), and when, in ns."""

    point: str
    frame: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Passage:
    """One packet on its way.

    `packet` is what the first point saw; `sights` stand in the order of travel. `lost_after` names
    the point that saw it last when a later one should have seen it too. `repeats` is the number of
    an earlier passage whose octets (or SYN, or FIN) this one carries again, `copy_of` that of one
    which was duplicated on the way. Numbers count passages from 0.
    """

    conversation: int
    forward: bool
    packet: Packet
    sights: tuple[Sight, ...]
    lost_after: str | None = None
    repeats: int | None = None
    copy_of: int | None = None

    @property
    def time_ns(self) -> int:
        """When it was first seen."""
        return self.sights[0].time_ns

    @property
    def delay_ns(self) -> int:
        """How long it took from the first to the last point that saw it; 0 for a single one."""
        return self.sights[-1].time_ns - self.sights[0].time_ns

    def sight(self, point: str) -> Sight | None:
        """Return how a point saw it, or None."""
        return next((sight for sight in self.sights if sight.point == point), None)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A connection over all points; `points` stand in the order of travel from the opening side."""

    number: int
    streams: Mapping[str, int]
    points: tuple[str, ...]
    opener: tuple[str, int]
    answerer: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Journeys:
    """What became of every segment; `passages` in the order in which they were first seen."""

    points: tuple[str, ...]
    conversations: tuple[Conversation, ...]
    passages: tuple[Passage, ...]

    def of(self, conversation: int) -> tuple[Passage, ...]:
        """Return the passages of one conversation."""
        return tuple(p for p in self.passages if p.conversation == conversation)

    @property
    def lost(self) -> tuple[Passage, ...]:
        """The passages that ended on the way."""
        return tuple(p for p in self.passages if p.lost_after is not None)


def in_order(packets: Iterable[Packet], *, untimed: bool = False) -> list[Packet]:
    """Return the packets of one capture in order of time, those of one instant as captured.

    With `untimed`, packets at time 0 have none and are taken to have come together with the packet
    before them, the first of all with the first that has a time.
    """
    found = sorted(packets, key=lambda packet: packet.frame)
    if untimed:
        at_ns = next((one.time_ns for one in found if one.time_ns), 0)
        for place, one in enumerate(found):
            at_ns = one.time_ns or at_ns
            found[place] = replace(one, time_ns=at_ns)
    return sorted(found, key=lambda packet: packet.time_ns)


def follow(
    captures: Mapping[str, Sequence[Packet]],
    *,
    homes: Mapping[str, str] | None = None,
    ended_early: Iterable[str] = (),
    filters: Mapping[str, str] | None = None,
) -> Journeys:
    """Follow the segments of captures, by the name of their point, such as "router:eth1".

    All captures must have been stamped by one clock. `homes` says at which point the traffic of an
    address must be seen (the capture of its own interface), so that a segment is known to be lost
    even if nothing ever arrived there. `ended_early` names points whose capture stopped before
    the traffic did (a packet limit): what they did not see later is not lost. `filters` has what
    points were asked to capture, where that was not everything.
    """
    asked = filters or {}
    homes = {a: point for a, point in (homes or {}).items() if point in captures}
    until = _watched(captures, frozenset(ended_early))
    conversations: list[Conversation] = []
    passages: list[Passage] = []
    for number, group in enumerate(_Streams(captures).conversations()):
        order = _order(group)
        first = group[order[0]].packets[0]
        there, back = (first.source, first.sport), (first.destination, first.dport)
        if not group[order[0]].sent_by_opener(first):
            there, back = back, there
        way = _with_homes(
            order,
            *(
                home if home is not None and _would_see(asked, home, order) else None
                for home in (homes.get(there[0]), homes.get(back[0]))
            ),
        )
        streams = {point: group[point].number for point in captures if point in group}
        conversations.append(Conversation(number, streams, way, there, back))
        for forward in (True, False):
            ends = set(homes.values())
            points = way if forward else way[::-1]
            seen = {p: group[p].direction(forward) if p in group else [] for p in points}
            watching = {p: until[p] for p in points if seen[p] or p in ends}
            passages += _travel(number, forward, seen, watching, asked)
    passages.sort(key=lambda p: (p.time_ns, p.conversation, p.sights[0].frame))
    return Journeys(tuple(captures), tuple(conversations), _related(passages, conversations))


def _would_see(asked: Mapping[str, str], point: str, others: Iterable[str]) -> bool:
    """Tell whether a point captures what one of the others does, as far as filters tell."""
    mine = asked.get(point, "")
    return not mine or any(asked.get(other, "") == mine for other in others)


def _with_homes(order: tuple[str, ...], first: str | None, last: str | None) -> tuple[str, ...]:
    """Return the way with the points of both ends, where they saw nothing of it."""
    lead = (first,) if first is not None and first not in order else ()
    tail = (last,) if last is not None and last not in order and last != first else ()
    return lead + order + tail


def _watched(captures: Mapping[str, Sequence[Packet]], early: frozenset[str]) -> dict[str, int]:
    """Return until when each point is known to have captured."""
    forever = 1 << 63
    last = {point: segments[-1].time_ns if segments else 0 for point, segments in captures.items()}
    return {point: at if point in early else forever for point, at in last.items()}


# -- which streams are one conversation -------------------------------------------------------


@dataclass(slots=True)
class _Stream:
    """A stream at one point; `turned` when its point took the answering side for the opener."""

    point: str
    number: int
    packets: list[Packet] = field(default_factory=list[Packet])
    keys: dict[Key, bool] = field(default_factory=dict[Key, bool])
    turned: bool = False

    @property
    def ends(self) -> frozenset[tuple[str, int]]:
        """Both addresses with their ports."""
        one = self.packets[0]
        return frozenset({(one.source, one.sport), (one.destination, one.dport)})

    @property
    def begun(self) -> int:
        """The time of the first segment."""
        return self.packets[0].time_ns

    def sent_by_opener(self, packet: Packet) -> bool:
        """Tell whether the side that opened the conversation sent it."""
        return packet.forward != self.turned

    def direction(self, forward: bool) -> list[Packet]:
        """Return what one side sent."""
        return [s for s in self.packets if self.sent_by_opener(s) == forward]

    def turns(self, other: _Stream) -> bool:
        """Tell whether the two disagree on who opened, by the segments that both have."""
        votes = [self.keys[k] == way for k, way in other.keys.items() if k in self.keys]
        return sum(votes) * 2 < len(votes)


COMMON = 64
"""A key of more streams than this says nothing about which belong together."""


class _Streams:
    """All streams of all points, to be put together."""

    def __init__(self, captures: Mapping[str, Sequence[Packet]]) -> None:
        found: dict[tuple[str, int], _Stream] = {}
        for point, segments in captures.items():
            for one in segments:
                place = (point, one.stream)
                if place not in found:
                    found[place] = _Stream(*place)
                found[place].packets.append(one)
                found[place].keys.setdefault(one.key, one.forward)
        self.streams = sorted(found.values(), key=lambda s: (s.begun, s.point, s.number))
        self._by_key: dict[Key, list[_Stream]] = defaultdict(list)
        self._by_ends: dict[frozenset[tuple[str, int]], list[_Stream]] = defaultdict(list)
        for stream in self.streams:
            self._by_ends[stream.ends].append(stream)
            for one in stream.keys:
                self._by_key[one].append(stream)

    def conversations(self) -> list[dict[str, _Stream]]:
        """Return conversations as streams by point, in the order of their first segment."""
        taken: set[tuple[str, int]] = set()
        found: list[dict[str, _Stream]] = []
        for stream in self.streams:
            if (stream.point, stream.number) in taken:
                continue
            group = {stream.point: stream, **self._partners(stream, taken)}
            taken |= {(member.point, member.number) for member in group.values()}
            found.append(group)
        return found

    def _partners(self, stream: _Stream, taken: set[tuple[str, int]]) -> dict[str, _Stream]:
        """Return the stream at each other point that shares most with this one, if any does."""
        shared: dict[tuple[str, int], tuple[int, _Stream]] = {}
        for one in stream.keys:
            having = self._by_key[one]
            if len(having) > COMMON:
                having = [s for s in self._by_ends[stream.ends] if one in s.keys]
            for other in having:
                place = (other.point, other.number)
                if other.point != stream.point and place not in taken:
                    shared[place] = (shared.get(place, (0, other))[0] + 1, other)
        best: dict[str, tuple[tuple[bool, int, int], _Stream]] = {}
        for count, other in shared.values():
            rank = (other.ends == stream.ends, count, -abs(other.begun - stream.begun))
            if other.point not in best or rank > best[other.point][0]:
                best[other.point] = (rank, other)
        for _, other in best.values():
            other.turned = stream.turns(other)
        return {point: other for point, (_, other) in best.items()}


# -- the way, and the segments on it ----------------------------------------------------------


def _order(group: Mapping[str, _Stream]) -> tuple[str, ...]:
    """Return the points from the opening side to the other, by when both saw the same segments.

    A point is as far on as the mean, over all other points, of how much later it sees what the
    opener sends and how much earlier what the other side sends.
    """
    points = list(group)
    place = dict.fromkeys(points, 0.0)
    once = {p: {way: _once(group[p].direction(way)) for way in (True, False)} for p in points}
    for at, one in enumerate(points):
        for other in points[at + 1 :]:
            later: list[float] = []
            for way, sign in ((True, 1), (False, -1)):
                here, there = once[one][way], once[other][way]
                differences = [there[k] - here[k] for k in here.keys() & there.keys()]
                if differences:
                    later.append(sign * median(differences))
            if later:
                gap = sum(later) / len(later)
                place[one] -= gap / 2
                place[other] += gap / 2
    return tuple(sorted(points, key=lambda p: (place[p], points.index(p))))


def _once(segments: Iterable[Packet]) -> dict[Key, int]:
    """Return when the keys that occur exactly once were seen."""
    times: dict[Key, list[int]] = defaultdict(list)
    for one in segments:
        times[one.key].append(one.time_ns)
    return {k: at[0] for k, at in times.items() if len(at) == 1}


@dataclass(slots=True)
class _Open:
    """A passage that may go on: the place of its last point on the way."""

    packet: Packet
    sights: list[Sight]
    place: int


SLACK_NS = 50_000
"""Two taps of one packet are stamped on two processors: so much may the later one be ahead."""


def _travel(
    number: int,
    forward: bool,
    seen: Mapping[str, Sequence[Packet]],
    watching: Mapping[str, int],
    asked: Mapping[str, str],
) -> list[Passage]:
    """Follow what one side sent along the points of `seen`, in their order.

    `watching` has the points that should see it, and until when they looked; `asked` what they
    were asked to capture.
    """
    way = list(seen)
    opened: list[_Open] = []
    by_key: dict[Key, list[_Open]] = defaultdict(list)
    for place, point in enumerate(way):
        usual = _delays(seen, way[:place], point)
        arrived: dict[Key, list[Packet]] = defaultdict(list)
        for one in seen[point]:
            arrived[one.key].append(one)
        for known, segments in arrived.items():
            waiting = list(by_key[known])
            for one in segments:
                sight = Sight(point, one.frame, one.time_ns)
                match = _nearest(waiting, one.time_ns, usual)
                if match is None:
                    fresh = _Open(one, [sight], place)
                    by_key[known].append(fresh)
                    opened.append(fresh)
                else:
                    waiting.remove(match)
                    match.sights.append(sight)
                    match.place = place
    done: list[Passage] = []
    for one in opened:
        last = one.sights[-1]
        sighted = [sight.point for sight in one.sights]
        missed = any(
            watching.get(point, 0) > last.time_ns and _would_see(asked, point, sighted)
            for point in way[one.place + 1 :]
        )
        lost = last.point if missed else None
        done.append(Passage(number, forward, one.packet, tuple(one.sights), lost))
    return done


def _delays(
    seen: Mapping[str, Sequence[Packet]], before: Sequence[str], point: str
) -> dict[str, float]:
    """Return the usual delay from each earlier point to this one, in ns."""
    here = _once(seen[point])
    found: dict[str, float] = {}
    for other in before:
        there = _once(seen[other])
        differences = [here[k] - there[k] for k in here.keys() & there.keys()]
        found[other] = median(differences) if differences else 0.0
    return found


def _nearest(waiting: Iterable[_Open], at_ns: int, usual: Mapping[str, float]) -> _Open | None:
    """Return the passage whose delay would be most like the usual one; none from the future."""
    possible = [one for one in waiting if one.sights[-1].time_ns <= at_ns + SLACK_NS]
    return min(
        possible,
        key=lambda one: abs(at_ns - one.sights[-1].time_ns - usual[one.sights[-1].point]),
        default=None,
    )


def _related(
    passages: Sequence[Passage], conversations: Sequence[Conversation]
) -> tuple[Passage, ...]:
    """Tell retransmissions and copies: which earlier passage had the same octets.

    A passage that begins in the middle of the way though an earlier one with the same key went by
    is a copy made on the way.
    """
    known: dict[tuple[int, bool, Key], int] = {}
    carried: dict[tuple[int, bool], list[tuple[int, int, int]]] = defaultdict(list)
    done: list[Passage] = []
    for at, one in enumerate(passages):
        side = (one.conversation, one.forward)
        packet = one.packet
        way = conversations[one.conversation].points
        start = way[0] if one.forward else way[-1]
        same = known.get((*side, packet.key))
        if same is not None and one.sights[0].point != start:
            done.append(replace(one, copy_of=same))
            continue
        known[(*side, packet.key)] = at
        earlier = _carrier(carried[side], packet.seq) if packet.octets else None
        if packet.octets:
            insort(carried[side], (packet.seq, at, packet.seq + packet.octets))
        done.append(one if earlier is None else replace(one, repeats=earlier))
    return tuple(done)


def _carrier(carried: Sequence[tuple[int, int, int]], seq: int) -> int | None:
    """Return the latest passage that begins nearest below a number and carries it."""
    place = bisect_right(carried, (seq, 1 << 62, 0)) - 1
    if place >= 0 and carried[place][2] > seq:
        return carried[place][1]
    return None
