"""All eleven states of TCP, seen: an orderly life, and two that cross in the middle.

The exercise is in guide.md; the rules are RFC 9293 §3.3.2 (figure 5), §3.5 and §3.6. The wire takes
a quarter of a second each way, so that a state which ends with an answer lasts half a second.
"""

from __future__ import annotations

from signal import SIGUSR1

from netlab.analysis.states import State
from netlab.labs import Evidence, Lab, Verdict, expect, option
from netlab.labs.scene import Ready, Running, Stage, address, agent, see, until_said
from netlab.units import ms

PORT = 8080
ONE_WAY = 250 * ms
PERIOD = 50 * ms
S = State

lab = Lab(
    "All eleven states",
    variations={
        "orderly": option(how="orderly"),
        "simultaneous-close": option(how="simultaneous-close"),
        "simultaneous-open": option(how="simultaneous-open"),
    },
    ladder="client:eth0",
    states=PORT,
)


@lab.scenario
def live(
    stage: Stage,
    *,
    how: str = "orderly",
    apart: float = 0.0,
    shown: str = "",
    stay: bool = False,
) -> None:
    """Open a connection and close it, in turn or both at once, watched on both sides."""
    only = f"tcp port {PORT}{shown}"
    stage.capture("client:eth0", filter=only)
    stage.capture("server:eth0", filter=only)
    stage.snapshot("before", "client", "server")
    if how == "simultaneous-open":
        open_together(stage, apart)
    else:
        open_and_close(stage, together=how == "simultaneous-close", apart=apart, stay=stay)


def start(stage: Stage, node: str, *actions: str, source: int = 0) -> Running:
    """Start one end; the stage ends it."""
    peer = "server" if node == "client" or actions[0] == "listen" else "client"
    to = address(stage.topology, peer)
    ends = ("--address", to, "--source-port", source)
    ready = Ready.port(PORT) if actions[0] == "listen" else None
    argv = agent("actor", *ends, *actions)
    return stage.enter(stage.node(node).spawn(actions[0], argv, ready=ready))


def open_and_close(stage: Stage, *, together: bool, apart: float, stay: bool) -> None:
    """The client connects; then it closes first, or both close before they hear of each other."""
    server = start(stage, "server", "listen", "accept", "quit", "wait", "close")
    see(stage, "listening", "server", "LISTEN", PORT)
    client = start(stage, "client", "connect", "wait", "close")
    see(stage, "syn-sent", "client", "SYN-SENT", PORT)
    see(stage, "syn-recv", "server", "SYN-RECV", PORT)
    for end in (client, server):
        until_said(stage, end, "waiting")
    stage.snapshot("established", "client", "server")
    if together:  # CLOSING is over so soon that nobody should have to look for it by hand
        sampler = stage.sample("client", "server", every=PERIOD, ports=[PORT])
        client.signal(SIGUSR1)
        stage.settle(apart, because="the second FIN leaves before the first has come, or not")
        server.signal(SIGUSR1)
        see(stage, "time-wait", "client", "TIME-WAIT", PORT)
        sampler.stop()
    else:
        client.signal(SIGUSR1)
        see(stage, "fin-wait-1", "client", "FIN-WAIT-1", PORT)
        see(stage, "fin-wait-2", "client", "FIN-WAIT-2", PORT)
        see(stage, "close-wait", "server", "CLOSE-WAIT", PORT)
        if not stay:
            server.signal(SIGUSR1)
            see(stage, "last-ack", "server", "LAST-ACK", PORT)
    if not stay:
        see(stage, "time-wait", "client", "TIME-WAIT", PORT)
        for end in (client, server):
            end.wait(20)
    stage.settle(3 * ONE_WAY, because="the last acknowledgement has to arrive")
    stage.snapshot("after", "client", "server")


def open_together(stage: Stage, apart: float) -> None:
    """Both connect from port 8080 to port 8080, so that the SYNs cross on the wire."""
    actions = ("wait", "connect", "wait", "close")
    client = start(stage, "client", *actions, source=PORT)
    server = start(stage, "server", *actions, source=PORT)
    for end in (client, server):
        until_said(stage, end, "waiting")
    client.signal(SIGUSR1)
    stage.settle(apart, because="the second SYN leaves before the first has come, or not")
    server.signal(SIGUSR1)
    for end in (client, server):
        stage.until(
            lambda end=end: "connected" in end.stdout or "failed" in end.stdout,
            timeout=20,
            what="connect() to return",
        )
    stage.snapshot("established", "client", "server")


def lived(seen: Evidence) -> dict[str, list[str]]:
    """Return the states of both ends in their order."""
    history = seen.history(PORT)
    return {life.endpoint: [str(state) for state in life.path] for life in history.lives}


def looked_at(seen: Evidence) -> frozenset[State]:
    """Return the states in which somebody saw the socket of either end, not those told by segments.

    CLOSED is seen as a socket that is not there, LISTEN as one that has no peer yet.
    """
    history = seen.history(PORT)
    return frozenset(state for life in history.lives for state in life.looked)


@lab.check(timing=True)
def all_eleven_states_are_seen(orderly: Evidence, simultaneous_close: Evidence) -> Verdict:
    """In an orderly life and a simultaneous close, `ss` and the sampler show every state."""
    found = looked_at(orderly) | looked_at(simultaneous_close)
    missing = sorted(str(state) for state in frozenset(State) - found)
    return expect(missing, what=f"{len(found)} seen, missing").equals([])


@lab.check
def every_change_of_state_is_in_the_table(each: Evidence) -> Verdict:
    """Both ends change their states as RFC 9293 says, each time for a cause that was captured."""
    history = each.history(PORT)
    walked = expect(len(history.transitions), what="changes of state").at_least(6)
    return walked & expect(list(history.illegal), what="illegal ones").equals([])


@lab.check
def an_orderly_life_has_its_order(orderly: Evidence) -> Verdict:
    """Who closes first passes FIN-WAIT-1 and 2 to TIME-WAIT, the other CLOSE-WAIT and LAST-ACK."""
    client = [S.CLOSED, S.SYN_SENT, S.ESTABLISHED, S.FIN_WAIT_1, S.FIN_WAIT_2, S.TIME_WAIT]
    server = [S.SYN_RECEIVED, S.ESTABLISHED, S.CLOSE_WAIT, S.LAST_ACK, S.CLOSED]
    paths = lived(orderly)
    one = expect(paths["client"], what="client").equals([str(s) for s in client])
    tail = paths["server"][-len(server) :]
    return one & expect(tail, what="server").equals([str(s) for s in server])


@lab.check(timing=True)
def who_close_at_once_pass_closing(simultaneous_close: Evidence) -> Verdict:
    """When the FINs cross, both ends pass FIN-WAIT-1, CLOSING and TIME-WAIT, and no other state."""
    ends = [path[-3:] for path in lived(simultaneous_close).values()]
    wanted = [str(S.FIN_WAIT_1), str(S.CLOSING), str(S.TIME_WAIT)]
    return expect(ends, what="client, server").equals([wanted, wanted])


@lab.check(timing=True)
def who_open_at_once_have_one_connection(simultaneous_open: Evidence) -> Verdict:
    """When the SYNs cross, both ends pass SYN-SENT and SYN-RECEIVED to ESTABLISHED.

    There is no listener, and there is one connection, not two.
    """
    ends = [path[1:4] for path in lived(simultaneous_open).values()]
    wanted = [str(S.SYN_SENT), str(S.SYN_RECEIVED), str(S.ESTABLISHED)]
    shown = [
        s.state for node in ("client", "server")
        for s in simultaneous_open.snapshot("established", node)
    ]  # fmt: skip
    both = expect(ends, what="client, server").equals([wanted, wanted])
    return both & expect(shown, what="sockets").equals(["ESTAB", "ESTAB"])


@lab.check
def closed_is_nothing(orderly: Evidence) -> Verdict:
    """CLOSED is no socket: before the connection there is none, and afterwards none at the server.

    The client's stays in TIME-WAIT for a minute.
    """
    before = [s.state for n in ("client", "server") for s in orderly.snapshot("before", n)]
    after = [s.state for n in ("client", "server") for s in orderly.snapshot("after", n)]
    none = expect(before, what="before").equals([])
    return none & expect(after, what="after").equals(["TIME-WAIT"])


lab.fault(
    option(apart=3 * ONE_WAY),
    on="simultaneous-close",
    breaks=all_eleven_states_are_seen,
    also=(who_close_at_once_pass_closing,),
    name="the second side closes when it has heard of the first",
)
lab.fault(
    option(shown=" and not (tcp[13] & 1 != 0)"),
    on="orderly",
    breaks=every_change_of_state_is_in_the_table,
    name="the captures leave out the FINs",
)
lab.fault(
    option(how="simultaneous-close"),
    on="orderly",
    breaks=an_orderly_life_has_its_order,
    also=(closed_is_nothing, all_eleven_states_are_seen),
    name="both close at once after all",
)
lab.fault(
    option(apart=2 * ONE_WAY),
    on="simultaneous-close",
    breaks=who_close_at_once_pass_closing,
    also=(all_eleven_states_are_seen,),
    name="the second side closes later",
)
lab.fault(
    option(how="orderly"),
    on="simultaneous-open",
    breaks=who_open_at_once_have_one_connection,
    name="one side listens",
)
lab.fault(
    option(stay=True),
    on="orderly",
    breaks=closed_is_nothing,
    also=(an_orderly_life_has_its_order, all_eleven_states_are_seen),
    name="the server does not close",
)


def lasted(seen: Evidence, node: str, state: State) -> str:
    """Return how long an end was in a state, in milliseconds."""
    span = seen.first(
        (s for s in seen.history(PORT).of(node).spans if s.state is state), f"{state} on {node}"
    )
    if span.from_ns is None or span.to_ns is None:
        return "for longer than the run"
    return f"{(span.to_ns - span.from_ns) / 1e6:.0f}"


@lab.figure
def figures(
    orderly: Evidence, simultaneous_close: Evidence, simultaneous_open: Evidence
) -> dict[str, str]:
    """What the guide tells of the runs."""
    told = {name: ", ".join(path) for name, path in lived(orderly).items()}
    return {
        "seen": str(len(looked_at(orderly) | looked_at(simultaneous_close))),
        "client_path": told["client"],
        "server_path": told["server"],
        "syn_sent_ms": lasted(orderly, "client", S.SYN_SENT),
        "closing_ms": lasted(simultaneous_close, "client", S.CLOSING),
        "crossed_ms": lasted(simultaneous_open, "client", S.SYN_RECEIVED),
        "closing_path": ", ".join(lived(simultaneous_close)["server"][-3:]),
        "open_path": ", ".join(lived(simultaneous_open)["client"][1:4]),
    }
