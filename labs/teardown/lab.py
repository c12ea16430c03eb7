"""How a connection ends: two FINs, an ACK for each, and one side that has to wait.

The exercise is in guide.md; the rules are RFC 9293 §3.6 and figure 5.

A FIN is held back at its sender until the state of the sender has been seen, so every state lasts
as long as we need it and each FIN is on the wire once.
"""

from __future__ import annotations

from signal import SIGUSR1

from netlab.analysis.segments import Segment
from netlab.labs import Evidence, Lab, Verdict, expect, option, packets
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import (
    Match,
    Ready,
    Running,
    Stage,
    address,
    agent,
    disguise,
    see,
    until_said,
)
from netlab.units import ms

PORT = 8080
OTHER = {"client": "server", "server": "client"}
TRIES = 5

lab = Lab(
    "How a connection ends",
    variations={
        "client-first": option(first="client"),
        "server-first": option(first="server"),
        "half-second": option(first="client", apart=0.5),
        "at-once": option(first="client", at_once=True),
    },
    ladder="client:eth0",
    states=PORT,
)
SLOW = ("client-first", "server-first", "half-second")


@lab.scenario
def close_one_after_the_other(
    stage: Stage,
    *,
    first: str = "client",
    apart: float = 300 * ms,
    at_once: bool = False,
    lose_a_fin: bool = False,
    reset: bool = False,
    dawdle: float = 0.0,
    disguised: bool = False,
    unseen: str = "",
    shown: str = "",
) -> None:
    """One side closes, the other a while later; or at once, as soon as it hears of it."""
    if at_once:
        close_together(stage, dawdle)
        return
    second = OTHER[first]
    if disguised:
        disguise(
            stage, "server", "client", f"tcp sport {PORT} tcp flags & syn != syn", "tcp ackseq"
        )
    with (
        stage.capture("client:eth0", filter=f"tcp port {PORT}{shown}"),
        start(stage, "server", first, reset) as server,
        start(stage, "client", first, reset) as client,
    ):
        programs = {"server": server, "client": client}
        until_said(stage, server, "received")
        if lose_a_fin:
            fin = Match(tcp_flags="fin", mask="fin", first=True)
            stage.enter(stage.node(second).hold(fin, hook="input"))
        close(stage, programs[first], first, "FIN-WAIT-1", unseen)
        see(stage, "fin-wait-2", first, "FIN-WAIT-2", PORT)
        see(stage, "close-wait", second, "CLOSE-WAIT", PORT)
        stage.settle(apart, because="the second side closes later than the first")
        close(stage, programs[second], second, "" if reset else "LAST-ACK", unseen)
        if not reset:
            see(stage, "time-wait", first, "TIME-WAIT", PORT)
        for program in programs.values():
            program.wait(20)


def start(stage: Stage, node: str, first: str, reset: bool) -> Running:
    """Start one end: who closes first waits and closes, the other reads to the end before that."""
    to = address(stage.topology, "server")
    end = "reset" if reset and node != first else "close"
    closing = ("wait", end) if node == first else ("recv-eof", "wait", end)
    if node == "server":
        # Octets before the end show that the connection works; the wait is for its being seen.
        argv = agent("actor", "--address", to, "listen", "accept", "recv=5", *closing)
        return stage.node(node).spawn("serve", argv, ready=Ready.port(PORT))
    return stage.node(node).spawn(
        "connect", agent("actor", "--address", to, "connect", "send=5", *closing)
    )


def close(stage: Stage, program: Running, node: str, state: str, unseen: str) -> None:
    """Tell a program to close, and see the state in which its FIN leaves it."""
    until_said(stage, program, "waiting")
    if not state or unseen == state:
        program.signal(SIGUSR1)
        return
    with stage.node(node).hold(Match(tcp_flags="fin", mask="fin")):
        program.signal(SIGUSR1)
        see(stage, state.lower(), node, state, PORT)


def close_together(stage: Stage, dawdle: float) -> None:
    """Close five connections; the server closes as soon as it can, or dawdles for a while."""
    to = address(stage.topology, "server")
    talk = ["accept", "recv-eof", *([f"sleep={dawdle}"] if dawdle else []), "close"] * TRIES
    serve = agent("actor", "--address", to, "listen", *talk)
    connect = agent("actor", "--address", to, *(["connect", "sleep=0.3", "close"] * TRIES))
    with (
        stage.capture("client:eth0", filter=f"tcp port {PORT}"),
        stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)) as server,
    ):
        stage.node("client").run(connect, timeout=30)
        server.wait(20)


def ending(seen: Evidence) -> tuple[Segment, ...]:
    """Return the segments from the first FIN on, pure repetitions of data left out."""
    segments = seen.capture("client:eth0").on_port(PORT)
    fin = seen.first((s for s in segments if s.fin), "a FIN")
    return tuple(s for s in segments if s.frame >= fin.frame and s.stream == fin.stream)


def lengths(seen: Evidence) -> list[int]:
    """Return how many segments each connection has from its first FIN on."""
    segments = seen.capture("client:eth0").on_port(PORT)
    counts: list[int] = []
    for stream in sorted({s.stream for s in segments}):
        mine = [s for s in segments if s.stream == stream]
        first = seen.first((s.frame for s in mine if s.fin), "a FIN")
        counts.append(sum(s.frame >= first for s in mine))
    return counts


def side(seen: Evidence, segment: Segment) -> str:
    """Return which side sent a segment."""
    first = str(seen.option("first"))
    return "first" if (segment.dport == PORT) == (first == "client") else "second"


@lab.check(on=SLOW)
def four_segments_end_a_connection(each: Evidence) -> Verdict:
    """FIN, its ACK, the other side's FIN, its ACK: four segments, in this order."""
    said = [f"{side(each, s)} {s.kind}" for s in ending(each)]
    wanted = ["first FIN-ACK", "second ACK", "second FIN-ACK", "first ACK"]
    return expect(said, seen_in=packets("client:eth0", ending(each))).equals(wanted)


@lab.check(on=SLOW)
def a_fin_consumes_one_number(each: Evidence) -> Verdict:
    """Each FIN is acknowledged by its own number plus 1."""
    fins = [s for s in ending(each) if s.fin]
    acks = [s for s in ending(each) if not s.rst]
    steps = [
        (other.ack_raw - fin.seq_raw) % 2**32
        for fin in fins
        for other in acks
        if other.forward != fin.forward and other.frame > fin.frame
    ]
    seen = packets("client:eth0", ending(each))
    return expect(sorted(set(steps)), what="ack minus seq of the FIN", seen_in=seen).equals([1])


@lab.check(on=SLOW, timing=True)
def who_closes_first_waits(each: Evidence) -> Verdict:
    """The side that closes first passes FIN-WAIT-1 and FIN-WAIT-2 and ends in TIME-WAIT."""
    states = each.states(str(each.option("first")), PORT)
    return expect(states).contains("FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT")


@lab.check(on=SLOW, timing=True)
def who_closes_last_does_not(each: Evidence) -> Verdict:
    """The other side passes CLOSE-WAIT and LAST-ACK, and is gone after that."""
    states = each.states(OTHER[str(each.option("first"))], PORT)
    seen = expect(states).contains("CLOSE-WAIT", "LAST-ACK")
    none = expect(sorted(states & {"FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT"})).equals([])
    return seen & none


@lab.check
def every_change_of_state_is_in_the_table(each: Evidence) -> Verdict:
    """Both ends change their states as RFC 9293 says, each time for a cause that was captured."""
    history = each.history(PORT)
    walked = expect(len(history.transitions), what="changes of state").at_least(8)
    return walked & expect(list(history.illegal), what="illegal ones").equals([])


@lab.check
def the_second_fin_comes_when_the_program_closes(half_second: Evidence) -> Verdict:
    """Half a second between the two close() calls is half a second between the FINs, at least."""
    first, last = (s.time_ns for s in ending(half_second) if s.fin)
    return expect((last - first) / 1e9, "s").at_least(0.5)


@lab.check(timing=True)
def three_segments_can_be_enough(at_once: Evidence) -> Verdict:
    """A side that closes at once sends its FIN in the segment that acknowledges the other's."""
    counts = lengths(at_once)
    return expect(min(counts), what=f"segments of the shortest of {len(counts)} ends").equals(3)


lab.fault(
    option(lose_a_fin=True),
    on="client-first",
    breaks=four_segments_end_a_connection,
    name="a FIN is lost on its way",
)
lab.fault(
    option(disguised=True),
    on="server-first",
    breaks=a_fin_consumes_one_number,
    also=(every_change_of_state_is_in_the_table,),
    name="something on the path changes acknowledgements",
)
lab.fault(
    option(reset=True),
    on="server-first",
    breaks=who_closes_last_does_not,
    also=(four_segments_end_a_connection, who_closes_first_waits, a_fin_consumes_one_number),
    name="the second side resets the connection",
)
lab.fault(
    option(unseen="FIN-WAIT-1"),
    on="client-first",
    breaks=who_closes_first_waits,
    name="nobody looks when the first FIN is sent",
)
lab.fault(
    option(shown=f" and not (tcp src port {PORT} and tcp[13] & 1 != 0)"),
    on="client-first",
    breaks=every_change_of_state_is_in_the_table,
    also=(four_segments_end_a_connection, a_fin_consumes_one_number),
    name="the capture leaves out the server's FIN",
)
lab.fault(
    option(apart=100 * ms),
    on="half-second",
    breaks=the_second_fin_comes_when_the_program_closes,
    name="the second side closes earlier",
)
lab.fault(
    option(dawdle=200 * ms),
    on="at-once",
    breaks=three_segments_can_be_enough,
    name="the server dawdles",
)


@lab.figure
def figures(client_first: Evidence, half_second: Evidence, at_once: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    fins = [s.time_ns for s in ending(half_second) if s.fin]
    waiting = client_first.first(
        (s for s in client_first.snapshot("time-wait", "client") if s.state == "TIME-WAIT"),
        "a socket in TIME-WAIT",
    )
    timer = waiting.timer.expires if waiting.timer else 0.0
    return {
        "gap_ms": f"{(fins[1] - fins[0]) / 1e6:.0f}",
        "segments": str(len(ending(client_first))),
        "merged": three_segments_can_be_enough(at_once).observed.rpartition(" ")[2],
        "timer": f"{timer:.0f}",
        "client_states": ", ".join(sorted(client_first.states("client", PORT))),
        "server_states": ", ".join(sorted(client_first.states("server", PORT))),
    }


@lab.claim("C60")
def an_ack_and_a_fin_may_share_a_segment(client_first: Evidence, at_once: Evidence) -> Finding:
    """The ACK of a FIN and the other FIN may be one segment, so that three end a connection."""
    apart, together = len(ending(client_first)), lengths(at_once)
    three = together.count(3)
    return holds(
        three and apart == 4,
        f"3 segments at {three} of {len(together)} ends where the server closes at once, "
        f"{apart} where it closes later",
    )
