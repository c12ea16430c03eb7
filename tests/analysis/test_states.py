"""The states of both ends are found again from segments and looks; lies are found out."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from netlab.analysis.segments import ACK, FIN, RST, SYN, Segment, load
from netlab.analysis.states import (
    TABLE,
    Event,
    History,
    Look,
    State,
    path,
    reconstruct,
)
from tests.conftest import ROOT

MS = 1_000_000
S = State


# -- two endpoints as RFC 9293 has them ----------------------------------------------------------


@dataclass
class Endpoint:
    """One end: its state, its numbers, and every state it has been in with the time."""

    name: str
    state: State
    port: int
    iss: int
    next: int = 0
    expected: int = 0  # RCV.NXT
    fin: int | None = None
    lives: list[tuple[int, State]] = field(default_factory=list[tuple[int, State]])

    def become(self, state: State, now: int) -> None:
        assert any(self.state is b and state in e for (b, _), e in TABLE.items())
        self.state = state
        self.lives.append((now, state))


class Net:
    """A network of two that delivers in order, each segment after a delay of its own."""

    def __init__(self, random: Random, delay: int) -> None:
        self.random, self.delay = random, delay
        self.now = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.wire: list[tuple[int, int, Segment]] = []  # (sent, received, segment)
        self.last = {True: 0, False: 0}
        opened = random.choice(("passive", "simultaneous"))
        second = S.LISTEN if opened == "passive" else S.CLOSED
        self.ends = (
            Endpoint("a", S.CLOSED, 40000, random.randrange(2**32)),
            Endpoint("b", second, 8080, random.randrange(2**32)),
        )
        for end in self.ends:
            end.next = end.iss
        self.opened = opened

    def at(self, when: int, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (when, self.count, action))

    def run(self) -> None:
        while self.queue:
            self.now, _, action = heapq.heappop(self.queue)
            action()

    def send(self, end: Endpoint, flags: int, length: int = 0) -> None:
        forward = end is self.ends[0]
        other = self.ends[forward]
        seq = end.next
        segment = Segment(
            0, 0, 0, forward, f"10.0.0.{2 - forward}", end.port, f"10.0.0.{1 + forward}",
            other.port, flags, (seq - end.iss) % 2**32, 0, seq,
            end.expected if flags & ACK else 0, length, 1000,
        )  # fmt: skip
        end.next = (seq + length + bool(flags & SYN) + bool(flags & FIN)) % 2**32
        arrives = max(self.now + self.delay, self.last[forward] + 1)
        self.last[forward] = arrives
        self.wire.append((self.now, arrives, segment))
        self.at(arrives, lambda: self.receive(other, segment))

    def receive(self, end: Endpoint, segment: Segment) -> None:
        state = end.state
        if segment.rst:
            if state not in (S.CLOSED, S.LISTEN):
                end.become(S.CLOSED, self.now)
            return
        if state is S.CLOSED:
            return
        if segment.is_syn:
            end.expected = (segment.seq_raw + 1) % 2**32
            if state in (S.LISTEN, S.SYN_SENT):
                end.become(S.SYN_RECEIVED, self.now)
                end.next = end.iss
                self.send(end, SYN | ACK)
            return
        if segment.is_syn_ack:
            end.expected = (segment.seq_raw + 1) % 2**32
        acknowledged = segment.ack_raw == end.next
        if state is S.SYN_SENT and segment.is_syn_ack:
            end.become(S.ESTABLISHED, self.now)
            self.send(end, ACK)
            return
        if state is S.SYN_RECEIVED and acknowledged:
            end.become(S.ESTABLISHED, self.now)
            if segment.is_syn_ack:
                self.send(end, ACK)
        if end.fin is not None and segment.ack_raw == (end.fin + 1) % 2**32:
            after = {
                S.FIN_WAIT_1: S.FIN_WAIT_2, S.CLOSING: S.TIME_WAIT, S.LAST_ACK: S.CLOSED,
            }.get(end.state)  # fmt: skip
            if after is not None:
                end.become(after, self.now)
        if segment.length or segment.fin:
            end.expected = (segment.seq_raw + segment.length + segment.fin) % 2**32
        if segment.fin:
            after = {
                S.ESTABLISHED: S.CLOSE_WAIT, S.FIN_WAIT_1: S.CLOSING, S.FIN_WAIT_2: S.TIME_WAIT,
            }.get(end.state)  # fmt: skip
            if after is not None:
                end.become(after, self.now)
        if segment.length or segment.fin:
            self.send(end, ACK)

    def open(self, end: Endpoint) -> None:
        if end.state is S.CLOSED and not end.lives:
            end.become(S.SYN_SENT, self.now)
            self.send(end, SYN)

    def say(self, end: Endpoint) -> None:
        if end.state in (S.ESTABLISHED, S.CLOSE_WAIT):
            self.send(end, ACK, self.random.randrange(1, 1400))

    def close(self, end: Endpoint) -> None:
        after = {S.ESTABLISHED: S.FIN_WAIT_1, S.CLOSE_WAIT: S.LAST_ACK}.get(end.state)
        if after is not None:
            end.become(after, self.now)
            end.fin = end.next
            self.send(end, FIN | ACK)

    def abort(self, end: Endpoint) -> None:
        if end.state in (S.ESTABLISHED, S.CLOSE_WAIT):
            end.become(S.CLOSED, self.now)
            self.send(end, RST | ACK)

    def state_at(self, end: Endpoint, when: int) -> State:
        first = S.LISTEN if end.port == 8080 and self.opened == "passive" else S.CLOSED
        return next((s for at, s in reversed(end.lives) if at <= when), first)


def played(seed: int) -> Net:
    """Play a conversation at random: who opens, who says what, who closes or aborts and when."""
    random = Random(seed)
    net = Net(random, random.choice((1000, 1 * MS, 50 * MS)))
    one, other = net.ends
    net.at(MS, lambda: net.open(one))
    if net.opened == "simultaneous":
        # so early that the SYNs cross
        net.at(MS + random.randrange(net.delay), lambda: net.open(other))
    settled = MS + 4 * net.delay
    for end in net.ends:
        for _ in range(random.randrange(3)):
            net.at(settled + random.randrange(4 * net.delay), lambda e=end: net.say(e))
        if random.random() < 0.85:
            act = net.abort if random.random() < 0.15 else net.close
            net.at(settled + random.randrange(6 * net.delay), lambda e=end, a=act: a(e))
    net.run()
    return net


def captured(net: Net, at: int) -> tuple[Segment, ...]:
    """Return what a capture at one end shows: what it sends when sent, what it gets when it comes.

    Whichever SYN is seen first is taken for the one that opened the connection.
    """
    rows = sorted(
        ((sent if segment.forward == (at == 0) else received), number, segment)
        for number, (sent, received, segment) in enumerate(net.wire)
    )
    opener = rows[0][2].forward
    return tuple(
        replace(s, frame=n, time_ns=when, forward=s.forward == opener)
        for n, (when, _, s) in enumerate(rows, 1)
    )


def looks(net: Net, random: Random, many: int) -> dict[str, list[list[Look]]]:
    """Return looks at random times, each with an interval in which it was true."""
    end_ns = max(received for _, received, _ in net.wire) + 10
    found: dict[str, list[list[Look]]] = {}
    for end in net.ends:
        times = sorted(random.randrange(end_ns) for _ in range(many))
        seen = [
            Look(
                frozenset({net.state_at(end, when)}),
                when - random.randrange(1000), when + random.randrange(1000), f"look {number}",
            )
            for number, when in enumerate(times)
        ]  # fmt: skip
        found[end.name] = [seen[::2], seen[1::2]]
    return found


def judged(net: Net, at: int, seen: dict[str, list[list[Look]]] | None = None) -> History:
    rows = captured(net, at)
    names = ("a", "b") if rows[0].sport == 40000 else ("b", "a")
    return reconstruct(rows, names=names, looks=seen or {}, at="ab"[at])


SEEDS = st.integers(0, 2**32)


@settings(max_examples=120)
@given(SEEDS, st.sampled_from((0, 1)))
def test_the_life_of_an_end_is_found_again_from_its_own_capture(seed: int, at: int) -> None:
    net = played(seed)
    history = judged(net, at)
    end = net.ends[at]
    life = history.of(end.name)
    assert history.illegal == ()
    assert life.path[1:] == tuple(state for _, state in end.lives)
    assert [t.at_ns for t in life.transitions] == [when for when, _ in end.lives]


@settings(max_examples=120)
@given(SEEDS, st.sampled_from((0, 1)))
def test_the_life_of_the_other_end_is_found_too(seed: int, at: int) -> None:
    """What an aborting end had heard before cannot be told from afar."""
    net = played(seed)
    assume(not any(segment.rst for _, _, segment in net.wire))
    other = net.ends[1 - at]
    assert judged(net, at).of(other.name).path[1:] == tuple(state for _, state in other.lives)


@settings(max_examples=120)
@given(SEEDS, st.sampled_from((0, 1)), st.integers(0, 40))
def test_looks_at_both_ends_agree_with_what_is_found(seed: int, at: int, many: int) -> None:
    net = played(seed)
    seen = looks(net, Random(seed), many)
    history = judged(net, at, seen)
    assert history.illegal == ()
    for end in net.ends:
        walked = history.of(end.name).path
        visited = [state for stream in seen[end.name] for look in stream for state in look.states]
        assert set(visited) <= set(walked)
        for change in history.of(end.name).transitions:
            assert change.event is not None
            assert change.after in TABLE[change.before, change.event]


NEEDS_A_SEGMENT = {
    S.SYN_RECEIVED, S.ESTABLISHED, S.FIN_WAIT_2, S.CLOSE_WAIT, S.CLOSING, S.TIME_WAIT,
}  # fmt: skip


@settings(max_examples=120)
@given(SEEDS, st.data())
def test_a_state_that_nothing_explains_is_found_out(seed: int, data: st.DataObject) -> None:
    """Before the first segment of a connection no state is possible that a segment brings."""
    net = played(seed)
    state = data.draw(st.sampled_from(sorted(NEEDS_A_SEGMENT)))
    lie = Look(frozenset({state}), 0, 10, "a lie")
    history = judged(net, 0, {"a": [[lie]]})
    assert any("a lie" in text for text in history.of("a").illegal)


@settings(max_examples=100)
@given(SEEDS)
def test_without_the_fins_of_one_side_the_other_cannot_have_heard_them(seed: int) -> None:
    net = played(seed)
    rows = captured(net, 0)
    names = ("a", "b") if rows[0].sport == 40000 else ("b", "a")
    heard = any(s in (S.CLOSE_WAIT, S.CLOSING, S.TIME_WAIT) for _, s in net.ends[0].lives)
    blind = [row for row in rows if not (row.fin and row.sport == 8080)]
    seen = looks(net, Random(seed), 0)
    last = net.ends[0].lives[-1]
    seen["a"] = [
        [Look(frozenset({s}), t, t, "seen") for t, s in net.ends[0].lives if s is not last[1]]
        + [Look(frozenset({last[1]}), last[0] + 1, last[0] + 1, "seen")]
    ]
    history = reconstruct(blind, names=names, looks=seen, at="a")
    assert bool(history.of("a").illegal) == heard


def test_octets_after_the_fin_are_a_fault() -> None:
    net = Net(Random(1), 1000)
    one = net.ends[0]
    net.opened, net.ends[1].state = "passive", S.LISTEN
    net.at(0, lambda: net.open(one))
    net.at(10_000, lambda: net.close(one))
    net.at(20_000, lambda: net.send(one, ACK, 5))
    net.run()
    assert [t for t in judged(net, 0).illegal if "after the FIN" in t]


def test_what_is_illegal_says_what_it_lacks() -> None:
    net = Net(Random(1), 1000)
    one = net.ends[0]
    net.opened, net.ends[1].state = "passive", S.LISTEN
    net.at(0, lambda: net.open(one))
    net.run()
    lie = Look(frozenset({S.CLOSE_WAIT}), 9_000, 9_001, "ss, snapshot x")
    assert judged(net, 0, {"a": [[lie]]}).illegal == (
        "a: ESTABLISHED to CLOSE-WAIT (ss, snapshot x): that needs 'a FIN came', "
        "and the capture shows no such segment",
    )
    record = judged(net, 0).record()
    assert [s["state"] for s in record["spans"] if s["endpoint"] == "a"] == [
        "CLOSED", "SYN-SENT", "ESTABLISHED",
    ]  # fmt: skip


def test_who_refuses_keeps_no_state() -> None:
    rows = load(ROOT / "labs/resets/recording/closed-port/captures/client.eth0.pcap")
    opener, refuser = reconstruct(rows).lives
    assert opener.path == (S.CLOSED, S.SYN_SENT, S.CLOSED)
    assert refuser.path == (S.CLOSED,)
    at = rows[0].time_ns - 1000
    looks = {refuser.endpoint: [[Look(frozenset({S.LISTEN}), at, at, "ss, snapshot x")]]}
    refuser = reconstruct(rows, looks=looks).lives[1]  # a firewall did it
    assert refuser.path[-1] is S.LISTEN
    assert refuser.illegal == ()


@pytest.mark.parametrize("before", list(State))
def test_from_anywhere_the_end_can_be_reached(before: State) -> None:
    way = path(before, S.CLOSED)
    assert way is not None
    state = before
    for event in way:
        (state, *_) = TABLE[state, event]
    assert state is S.CLOSED


def test_figure_5_has_no_way_around_the_acknowledgement_of_a_fin() -> None:
    assert path(S.FIN_WAIT_1, S.TIME_WAIT) in (
        (Event.ACK_OF_FIN, Event.FIN),
        (Event.FIN, Event.ACK_OF_FIN),
    )
    assert path(S.ESTABLISHED, S.LAST_ACK) == (Event.FIN, Event.CLOSE)
