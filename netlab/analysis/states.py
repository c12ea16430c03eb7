"""The state of both ends of a TCP connection over time, and whether each change is a legal one.

Theory of operation. An endpoint is an automaton whose changes of state are RFC 9293 §3.3.2
(figure 5), the events of §3.10, and a few of Linux (`TABLE`). We never see it work; we have
evidence of it, of three kinds:

* a segment that *came* to it (`Came`): from then on the event may happen. It need not happen at
  once, for the segment may still be on its way, or be dropped behind the capture;
* a segment that it *sent* (`Sent`): this can only be sent in some states. A first FIN is sent in
  FIN-WAIT-1, CLOSING or LAST-ACK; an acknowledgement tells whether the peer's FIN had come;
* a *look* at its socket (`Look`), by `ss` or the tcp_info sampler, true at some instant of an
  interval.

What a program does (open, close) and what timers do leaves no trace of its own: such events may
happen at any time, at a cost. The reconstruction is the cheapest walk through the automaton that
agrees with all the evidence. It is found by dynamic programming over ordered streams (what came,
what was sent, the looks of each observer), merged in any order that their times allow: Viterbi's
algorithm. What comes has its effect when it was captured unless something contradicts; a program
acts as late as possible, that is, where it is first noticed. Where no legal walk agrees with the
evidence, the walk jumps, and the jump is reported as an illegal change.

Still unsatisfactory: a FIN whose data were lost counts as come when it was captured; the life of a
socket before TIME-WAIT was recycled for the same addresses counts as the same connection.

Sources: RFC 9293 §3.3.2, §3.6, §3.10.7; RFC 5961 §3.2 for resets; net/ipv4/tcp_input.c,
tcp_minisocks.c (the mini socket that FIN-WAIT-2 of an orphan becomes) and syncookies.c of Linux.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from netlab.analysis.segments import ACK, Segment


class State(StrEnum):
    """The states of RFC 9293 §3.3.2."""

    CLOSED = "CLOSED"
    LISTEN = "LISTEN"
    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"

    @classmethod
    def of(cls, word: str) -> State:
        """Return the state that `ss` calls by this word; ValueError for none."""
        return cls(_SS.get(word, word))


_SS = {"ESTAB": "ESTABLISHED", "SYN-RECV": "SYN-RECEIVED", "UNCONN": "CLOSED"}


class Event(StrEnum):
    """What changes a state: segments that come, what a program does, timers."""

    SYN = "a SYN came"
    SYN_ACK = "a SYN-ACK came"
    ACK_OF_SYN = "its SYN was acknowledged"
    ACK_OF_FIN = "its FIN was acknowledged"
    FIN = "a FIN came"
    RST = "a reset came"
    COOKIE = "a SYN cookie came back"
    PASSIVE_OPEN = "the program listens"
    ACTIVE_OPEN = "the program connects"
    CLOSE = "the program closes"
    ABORT = "the program aborts"
    TWO_MSL = "TIME-WAIT is over"
    ORPHAN = "an orphan in FIN-WAIT-2 is forgotten"
    GIVE_UP = "it gives up"


_S, _E = State, Event
_SYNCHRONIZED = frozenset(State) - {_S.CLOSED, _S.LISTEN, _S.SYN_SENT}
_ENDS = {(state, event): (_S.CLOSED,) for state in _SYNCHRONIZED for event in (_E.RST, _E.ABORT)}
_GIVES_UP = {(state, _E.GIVE_UP): (_S.CLOSED,) for state in _SYNCHRONIZED - {_S.TIME_WAIT}}

TABLE: Mapping[tuple[State, Event], tuple[State, ...]] = {
    **_ENDS,
    **_GIVES_UP,
    (_S.CLOSED, _E.PASSIVE_OPEN): (_S.LISTEN,),
    (_S.CLOSED, _E.ACTIVE_OPEN): (_S.SYN_SENT,),
    (_S.LISTEN, _E.ACTIVE_OPEN): (_S.SYN_SENT,),
    (_S.LISTEN, _E.CLOSE): (_S.CLOSED,),
    (_S.LISTEN, _E.SYN): (_S.SYN_RECEIVED,),
    (_S.LISTEN, _E.COOKIE): (_S.ESTABLISHED,),  # Linux: no state before the cookie is back
    (_S.SYN_SENT, _E.SYN): (_S.SYN_RECEIVED,),
    (_S.SYN_SENT, _E.SYN_ACK): (_S.ESTABLISHED,),
    (_S.SYN_SENT, _E.RST): (_S.CLOSED,),
    (_S.SYN_SENT, _E.CLOSE): (_S.CLOSED,),
    (_S.SYN_SENT, _E.ABORT): (_S.CLOSED,),
    (_S.SYN_SENT, _E.GIVE_UP): (_S.CLOSED,),
    (_S.SYN_RECEIVED, _E.ACK_OF_SYN): (_S.ESTABLISHED,),
    (_S.SYN_RECEIVED, _E.CLOSE): (_S.FIN_WAIT_1,),
    # After a passive open back to LISTEN, else to CLOSED (§3.10.7.4, note 1 of figure 5).
    (_S.SYN_RECEIVED, _E.RST): (_S.CLOSED, _S.LISTEN),
    (_S.SYN_RECEIVED, _E.GIVE_UP): (_S.CLOSED, _S.LISTEN),
    (_S.ESTABLISHED, _E.CLOSE): (_S.FIN_WAIT_1,),
    (_S.ESTABLISHED, _E.FIN): (_S.CLOSE_WAIT,),
    (_S.FIN_WAIT_1, _E.ACK_OF_FIN): (_S.FIN_WAIT_2,),
    (_S.FIN_WAIT_1, _E.FIN): (_S.CLOSING,),
    (_S.FIN_WAIT_2, _E.FIN): (_S.TIME_WAIT,),
    (_S.FIN_WAIT_2, _E.ORPHAN): (_S.CLOSED,),  # Linux: tcp_fin_timeout
    (_S.CLOSING, _E.ACK_OF_FIN): (_S.TIME_WAIT,),
    (_S.CLOSE_WAIT, _E.CLOSE): (_S.LAST_ACK,),
    (_S.LAST_ACK, _E.ACK_OF_FIN): (_S.CLOSED,),
    (_S.TIME_WAIT, _E.TWO_MSL): (_S.CLOSED,),
}
"""The states that an event may lead to; what is not in it is not legal."""

_RECEIVED = frozenset({_E.SYN, _E.SYN_ACK, _E.ACK_OF_SYN, _E.ACK_OF_FIN, _E.FIN, _E.RST})
_SILENT = {
    _E.PASSIVE_OPEN: 2, _E.ACTIVE_OPEN: 2, _E.CLOSE: 2, _E.TWO_MSL: 2, _E.ORPHAN: 3, _E.GIVE_UP: 5,
}  # fmt: skip
_OPENS = frozenset({_E.PASSIVE_OPEN, _E.ACTIVE_OPEN})
_ABORT, _COOKIE, _SKIPPED, _IDLE, _ILLEGAL = 2, 3, 3, 1, 100
"""Costs. An abort is told by its reset; what comes and changes nothing costs, the more so if it
could have changed something."""

_OPENING = frozenset({_S.SYN_RECEIVED, _S.ESTABLISHED, _S.FIN_WAIT_1, _S.FIN_WAIT_2})
_AFTER_FIN = frozenset({_S.CLOSE_WAIT, _S.CLOSING, _S.LAST_ACK, _S.TIME_WAIT})
_NOBODY = frozenset({_S.CLOSED, _S.LISTEN})


def path(before: State, after: State) -> tuple[Event, ...] | None:
    """Return the fewest events of the table that lead from one state to another; None if none."""
    reached: dict[State, tuple[Event, ...]] = {before: ()}
    queue = [before]
    for state in queue:
        for (origin, event), ends in TABLE.items():
            for end in ends if origin is state else ():
                if end not in reached:
                    reached[end] = (*reached[state], event)
                    queue.append(end)
    return reached.get(after)


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a socket: it was in one of `states` at some instant of [from_ns, to_ns]."""

    states: frozenset[State]
    from_ns: int
    to_ns: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, known from `at_ns` on; `event` is None where nothing explains it."""

    endpoint: str
    at_ns: int
    before: State
    after: State
    event: Event | None
    evidence: str

    @property
    def legal(self) -> bool:
        """Whether the table knows this change, and the evidence its cause."""
        return self.event is not None

    @property
    def text(self) -> str:
        """The change in words; for an illegal one what would have been needed."""
        if self.event is not None:
            return f"{self.endpoint}: {self.before} to {self.after}, {self.event} ({self.evidence})"
        way = path(self.before, self.after)
        why = "no event of RFC 9293 leads there"
        if way is not None:
            missing = [f"'{event}'" for event in way if event in _RECEIVED] or [f"'{way[0]}'"]
            why = f"that needs {' and '.join(missing)}, and the capture shows no such segment"
        return f"{self.endpoint}: {self.before} to {self.after} ({self.evidence}): {why}"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in one state; None for a beginning or an end that nobody saw."""

    endpoint: str
    state: State
    from_ns: int | None
    to_ns: int | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Life:
    """What one end of a connection went through; `looked` are the states somebody looked at."""

    endpoint: str
    address: str
    port: int
    first: State
    transitions: tuple[Transition, ...]
    looked: frozenset[State]
    faults: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[State, ...]:
        """The states in their order."""
        return (self.first, *(change.after for change in self.transitions))

    @property
    def illegal(self) -> tuple[str, ...]:
        """What must not be, in words."""
        return (*(t.text for t in self.transitions if not t.legal), *self.faults)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The states with their times."""
        starts = [None, *(change.at_ns for change in self.transitions)]
        ends = [*starts[1:], None]
        told = ["", *(change.evidence for change in self.transitions)]
        rows = zip(self.path, starts, ends, told, strict=True)
        return tuple(Span(self.endpoint, *row) for row in rows)


@dataclass(frozen=True, slots=True)
class History:
    """Both ends of a connection; the one that opened it comes first."""

    lives: tuple[Life, Life]

    def of(self, endpoint: str) -> Life:
        """Return the life of an endpoint by its name; KeyError if there is none."""
        return {life.endpoint: life for life in self.lives}[endpoint]

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The changes of both ends in the order of time."""
        both = (t for life in self.lives for t in life.transitions)
        return tuple(sorted(both, key=lambda t: t.at_ns))

    @property
    def illegal(self) -> tuple[str, ...]:
        """What must not be, in words."""
        return tuple(text for life in self.lives for text in life.illegal)

    def record(self) -> dict[str, Any]:
        """Return the history as plain values for JSON: endpoints, spans, transitions, illegal."""
        return {
            "endpoints": [
                {"name": life.endpoint, "address": life.address, "port": life.port}
                for life in self.lives
            ],
            "spans": [asdict(span) for life in self.lives for span in life.spans],
            "transitions": [{**asdict(t), "legal": t.legal} for t in self.transitions],
            "illegal": list(self.illegal),
        }


# -- evidence ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Came:
    """A segment that brings an event came by; the event may happen from now on."""

    event: Event
    at_ns: int
    evidence: str

    @property
    def from_ns(self) -> int:
        """A segment is captured at one instant."""
        return self.at_ns

    @property
    def to_ns(self) -> int:
        """A segment is captured at one instant."""
        return self.at_ns


@dataclass(frozen=True, slots=True)
class Sent:
    """The endpoint sent something that can be sent in `states` only, at `to_ns` or before."""

    states: frozenset[State]
    from_ns: int
    to_ns: int
    evidence: str
    reset: bool = False


Item = Came | Sent | Look


def answer_ns(segments: Sequence[Segment], *, forward: bool) -> int:
    """Return how soon an end acknowledged something at best, as seen where the capture is; else 0.

    That is how old, at most, what the end sends may be when it is captured: the way to the end and
    back is part of it.
    """
    waiting: list[tuple[int, int]] = []  # (acknowledgement that covers it, when it came by)
    newest: int | None = None
    times: list[int] = []
    for segment in segments:
        if segment.forward != forward:
            octets = segment.length + bool(segment.is_syn or segment.is_syn_ack) + segment.fin
            number = (segment.seq_raw + octets) % 2**32
            if octets and (newest is None or not _at_or_after(newest, number)):
                newest = number  # what is sent again does not count
                waiting.append((number, segment.time_ns))
        elif segment.flags & ACK:
            covered = [at for number, at in waiting if _at_or_after(segment.ack_raw, number)]
            waiting = [w for w in waiting if not _at_or_after(segment.ack_raw, w[0])]
            times += [segment.time_ns - at for at in covered]
    return min(times, default=0)


def _at_or_after(number: int, other: int) -> bool:
    """Compare sequence numbers modulo 2^32 (RFC 9293 §3.4)."""
    return (number - other) % 2**32 < 2**31


class _Wire:
    """Reads the segments of a connection from the point of view of one endpoint."""

    def __init__(self, forward: bool, slack_ns: int) -> None:
        self.forward = forward
        self.slack_ns = slack_ns
        self.received: list[Item] = []
        self.sent: list[Item] = []
        self.faults: list[str] = []
        self.known: set[Event] = set()
        self.mine: dict[str, int] = {}  # the numbers of our SYN and FIN, where our next octet is
        self.theirs: dict[str, int] = {}
        self.acknowledged: int | None = None
        self.answered = False  # with a SYN-ACK, which may be sent again in later states

    def read(self, segment: Segment) -> None:
        """Take in one segment."""
        if segment.forward == self.forward:
            self._sent(segment)
            _note(self.mine, segment)
            self.answered = self.answered or segment.is_syn_ack
            if segment.flags & ACK:
                self.acknowledged = segment.ack_raw
        else:
            self._received(segment)
            _note(self.theirs, segment)

    def _received(self, segment: Segment) -> None:
        where = f"frame {segment.frame}"
        if segment.rst:
            exact = (self.theirs.get("next"), self.acknowledged)  # RFC 5961 §3.2
            refused = "syn" in self.mine and not self.theirs  # answers our SYN
            if segment.seq_raw in exact or refused:
                self._came(Event.RST, segment, where)
            return
        if segment.is_syn:
            self._came(Event.SYN, segment, where)
            return
        acknowledges = bool(segment.flags & ACK)
        if acknowledges and _covers(segment.ack_raw, self.mine.get("syn")):
            if segment.is_syn_ack:
                self._came(Event.SYN_ACK, segment, where)
            self._came(Event.ACK_OF_SYN, segment, where)
        if acknowledges and _covers(segment.ack_raw, self.mine.get("fin")):
            self._came(Event.ACK_OF_FIN, segment, where)
        if segment.fin:
            self._came(Event.FIN, segment, where)

    def _came(self, event: Event, segment: Segment, where: str) -> None:
        if event not in self.known:
            self.known.add(event)
            self.received.append(Came(event, segment.time_ns, where))

    def _sent(self, segment: Segment) -> None:
        states = self._states(segment)
        fin = self.mine.get("fin")
        end = (segment.seq_raw + segment.length) % 2**32
        if fin is not None and segment.length and _at_or_after(end, (fin + 1) % 2**32):
            self.faults.append(f"frame {segment.frame} carries octets that come after the FIN")
        if states is None:
            return
        at, kind = segment.time_ns, segment.kind
        where = f"frame {segment.frame}: {kind} sent"
        self.sent.append(Sent(states, at - self.slack_ns, at, where, segment.rst))

    def _states(self, segment: Segment) -> frozenset[State] | None:
        """Return the states in which this can be sent; None for any (what is sent again)."""
        if segment.rst:
            return _NOBODY | {State.SYN_SENT}
        again = self.mine.get("syn") == segment.seq_raw
        if segment.is_syn:
            return None if again else frozenset({State.SYN_SENT})
        if segment.is_syn_ack:  # LISTEN: a SYN cookie
            return None if self.answered else frozenset({_S.SYN_RECEIVED, _S.LISTEN})
        if not segment.flags & ACK:
            return None
        heard = _covers(segment.ack_raw, self.theirs.get("fin"))
        if segment.fin and "fin" not in self.mine:
            return frozenset({_S.LAST_ACK, _S.CLOSING} if heard else {_S.FIN_WAIT_1})
        return _AFTER_FIN if heard else _OPENING


def _note(side: dict[str, int], segment: Segment) -> None:
    """Remember the numbers of a side's SYN and FIN, and of the next octet it will send."""
    if segment.rst:
        return
    syn = bool(segment.is_syn or segment.is_syn_ack)
    end = (segment.seq_raw + segment.length + syn + segment.fin) % 2**32
    if syn:
        side["syn"] = segment.seq_raw
    if segment.fin:
        side["fin"] = (segment.seq_raw + segment.length + syn) % 2**32
    if "next" not in side or _at_or_after(end, side["next"]):
        side["next"] = end


def _covers(ack: int, number: int | None) -> bool:
    """Tell whether an acknowledgement covers a number that was sent."""
    return number is not None and _at_or_after(ack, (number + 1) % 2**32)


def _thinned(items: Iterable[Item]) -> list[Item]:
    """Leave out what lies between the first and the last of a run that tells the same."""
    kept: list[Item] = []
    for item in items:
        told = _told(item)
        if told is not None and [_told(known) for known in kept[-2:]] == [told, told]:
            kept.pop()
        kept.append(item)
    return kept


def _told(item: Item) -> frozenset[State] | None:
    return None if isinstance(item, Came) else item.states


# -- the cheapest walk -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Walk:
    """A state reached at a cost; ties go to the walk whose silent events come later.

    `born`: there has been a connection on the way; there is but one in a history.
    """

    cost: int
    early: int
    state: State
    steps: tuple[Transition, ...] = ()
    born: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        return self.cost, self.early

    @property
    def key(self) -> tuple[State, bool]:
        return self.state, self.born

    def step(
        self,
        after: State,
        event: Event | None,
        item: Item,
        endpoint: str,
        cost: int,
        early: int = 0,
    ) -> _Walk:
        at_ns = item.to_ns if isinstance(item, Sent) else item.from_ns
        if self.steps:
            at_ns = max(at_ns, self.steps[-1].at_ns)
        change = Transition(endpoint, at_ns, self.state, after, event, item.evidence)
        born = self.born or after not in _NOBODY
        return _Walk(self.cost + cost, self.early + early, after, (*self.steps, change), born)


_Walks = dict[tuple[State, bool], _Walk]


def _better(walks: _Walks, walk: _Walk) -> bool:
    known = walks.get(walk.key)
    if known is None or walk.rank < known.rank:
        walks[walk.key] = walk
        return True
    return False


class _Search:
    """The dynamic programme for one endpoint."""

    def __init__(self, endpoint: str, *, blind: bool) -> None:
        self.endpoint = endpoint
        self.blind = blind  # nobody captured: received events leave no trace either

    def run(self, streams: Sequence[Sequence[Item]], starts: Iterable[_Walk]) -> _Walk:
        """Return the cheapest walk through all the evidence.

        Each stream is in order; items of different streams whose times overlap are taken in
        whichever order costs least.
        """
        table: dict[tuple[int, ...], _Walks] = {(0,) * len(streams): {}}
        for walk in starts:
            _better(table[(0,) * len(streams)], walk)
        last = tuple(len(stream) for stream in streams)
        for place in itertools.product(*(range(n + 1) for n in last)):
            if place not in table:
                continue
            ahead = [s[n] if n < len(s) else None for s, n in zip(streams, place, strict=True)]
            passed = (i for s, n in zip(streams, place, strict=True) for i in s[:n])
            known = frozenset(item.event for item in passed if isinstance(item, Came))
            first = min((item.to_ns for item in ahead if item is not None), default=0)
            for number, item in enumerate(ahead):
                if item is not None and item.from_ns <= first:
                    to = tuple(n + (k == number) for k, n in enumerate(place))
                    target = table.setdefault(to, {})
                    for walk in self._closure(table[place], item, known, -sum(place)).values():
                        for after in self._taken(walk, item):
                            _better(target, after)
        return min(table[last].values(), key=lambda walk: walk.rank)

    def _closure(self, walks: _Walks, item: Item, known: frozenset[Event], early: int) -> _Walks:
        """Add what is reached by silent events and by segments that came before (Dijkstra)."""
        found = dict(walks)
        queue = [(walk.rank, index, walk) for index, walk in enumerate(walks.values())]
        heapq.heapify(queue)
        count = len(queue)
        while queue:
            rank, _, walk = heapq.heappop(queue)
            if found[walk.key].rank < rank:
                continue
            for event, cost, late in self._possible(item, known, early):
                if walk.born and event in _OPENS:
                    continue
                for end in TABLE.get((walk.state, event), ()):
                    after = walk.step(end, event, item, self.endpoint, cost, late)
                    if _better(found, after):
                        count += 1
                        heapq.heappush(queue, (after.rank, count, after))
        return found

    def _possible(
        self, item: Item, known: frozenset[Event], early: int
    ) -> Iterable[tuple[Event, int, int]]:
        """Yield the events that may happen just before `item`, with their costs."""
        for event, cost in _SILENT.items():
            yield event, cost, early
        if isinstance(item, Sent) and item.reset:
            yield Event.ABORT, _ABORT, early
        received = _RECEIVED if self.blind else known
        for event in sorted(received):
            yield event, _SKIPPED if self.blind else 0, 0
        if Event.ACK_OF_SYN in received:
            yield Event.COOKIE, _COOKIE, 0

    def _taken(self, walk: _Walk, item: Item) -> Iterable[_Walk]:
        """Yield the walks that agree with `item`."""
        if isinstance(item, Came):
            ends = TABLE.get((walk.state, item.event), ())
            for end in ends:
                yield walk.step(end, item.event, item, self.endpoint, 0)
            cost = walk.cost + (_SKIPPED if ends else _IDLE)
            yield _Walk(cost, walk.early, walk.state, walk.steps, walk.born)
        elif walk.state in item.states:
            yield walk
        else:
            for end in sorted(item.states):
                yield walk.step(end, None, item, self.endpoint, _ILLEGAL)


def _refuses(segments: Sequence[Segment], *, forward: bool) -> bool:
    """Tell whether an end answered a SYN with resets and nothing else: it kept no state of it."""
    sent = [segment for segment in segments if segment.forward == forward]
    return bool(sent) and segments[0].is_syn and all(segment.rst for segment in sent)


def _starts(segments: Sequence[Segment], *, forward: bool) -> Iterable[_Walk]:
    """Yield the states in which an endpoint may have been before everything else."""
    if segments and not segments[0].is_syn:  # the beginning was not captured
        for state in State:
            yield _Walk(0 if state is State.ESTABLISHED else 1, 0, state)
        return
    answers = bool(segments) and segments[0].forward != forward
    listens = answers and not _refuses(segments, forward=forward)
    yield _Walk(1 if listens else 0, 0, State.CLOSED)
    yield _Walk(0 if listens else 1, 0, State.LISTEN)


def live(
    endpoint: str,
    address: tuple[str, int],
    segments: Sequence[Segment],
    looks: Sequence[Sequence[Look]],
    *,
    forward: bool,
    here: bool,
) -> Life:
    """Reconstruct the life of one end of a connection.

    `forward` tells which end it is, as in `Segment.forward`; `here` whether the segments were
    captured at this end, so that what it sent was sent at that time. `looks` are those of each
    observer in order. Without segments the looks alone decide, and any cause is believed.
    """
    wire = _Wire(forward, 0 if here else answer_ns(segments, forward=forward))
    for segment in segments:
        wire.read(segment)
    search = _Search(endpoint, blind=not segments)
    refused = _refuses(segments, forward=forward)
    streams = [_thinned(items) for items in ([] if refused else wire.received, wire.sent, *looks)]
    walk = search.run(streams, _starts(segments, forward=forward))
    first = walk.steps[0].before if walk.steps else walk.state
    looked = frozenset(
        s for seen in looks for look in seen if len(look.states) == 1 for s in look.states
    )
    faults = tuple(f"{endpoint}: {text}" for text in wire.faults)
    return Life(endpoint, *address, first, walk.steps, looked, faults)


def reconstruct(
    segments: Sequence[Segment],
    *,
    names: tuple[str, str] = ("", ""),
    looks: Mapping[str, Sequence[Sequence[Look]]] | None = None,
    at: str = "",
) -> History:
    """Reconstruct both ends from the segments of one connection, captured at the end named `at`.

    `names` are of the end that opened the connection and of the other; by default their addresses.
    ValueError if there is no segment.
    """
    if not segments:
        raise ValueError("a connection has at least one segment")
    ends = endpoints(segments[0])
    told = tuple(name or f"{end[0]}:{end[1]}" for name, end in zip(names, ends, strict=True))
    seen = looks or {}
    one, other = (
        live(name, end, segments, seen.get(name, ()), forward=forward, here=name == at)
        for name, end, forward in zip(told, ends, (True, False), strict=True)
    )
    return History((one, other))


def endpoints(segment: Segment) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the end that opened the connection, and the other, as (address, port)."""
    ends = (segment.source, segment.sport), (segment.destination, segment.dport)
    return ends if segment.forward else (ends[1], ends[0])
