"""The queue in front of accept(): how long it is, who knows, and what those outside see.

The exercise is in guide.md; the sources are listen(2), tcp(7) and net/ipv4/tcp_input.c (a SYN is
dropped while the accept queue is full; a queue of N holds N + 1).
"""

from __future__ import annotations

from contextlib import ExitStack
from signal import SIGUSR1

from netlab.analysis import ss
from netlab.labs import Evidence, Lab, Verdict, expect, option, sysctl, vary
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import (
    Match,
    Ready,
    Running,
    Stage,
    address,
    agent,
    count,
    counter,
    until_said,
)

PORT = 8080
EXTRA = 6  # clients beyond those that find a place

COUNTED = ("TcpExt.ListenOverflows", "TcpExt.ListenDrops")

lab = Lab(
    "The queue in front of accept()",
    variations={
        "backlog-1": option(backlog=1),
        "backlog-5": option(backlog=5),
        "backlog-128": option(backlog=128),
        "clamped": vary(sysctl("server", "net.core.somaxconn", 128), backlog=5000, limit=128),
        "roomy": option(backlog=5000, limit=4096, clients=12),
        "late-overflow": option(backlog=5, late=True),
        "abort": vary(sysctl("server", "net.ipv4.tcp_abort_on_overflow", 1), backlog=5, late=True),
    },
)
FULL = ("backlog-1", "backlog-5", "backlog-128", "clamped")
LISTENING = (*FULL, "roomy")


@lab.scenario
def knock(
    stage: Stage,
    *,
    backlog: int = 5,
    limit: int = 0,
    clients: int = 0,
    late: bool = False,
    accept: bool = False,
) -> None:
    """A server listens and does not accept; clients come until the queue is full, and beyond."""
    to = address(stage.topology, "server")
    behave = "reads" if accept else "never"
    serve = agent("crowd", "serve", "--address", to, "--backlog", backlog, "--behave", behave)
    server, client = stage.node("server"), stage.node("client")
    capture = stage.capture("client:eth0", filter=f"tcp port {PORT}", snaplen=128)
    with ExitStack() as running:
        running.enter_context(server.spawn("serve", serve, ready=Ready.port(PORT)))
        count(stage, "before", "server", names=COUNTED)
        if late:
            running.enter_context(crowd(stage, "early", to, backlog - 1, 1))
            ack = Match(tcp_flags="ack", mask="syn,ack,fin,rst", dport=PORT)
            with client.hold(ack):  # the last ACK of each handshake
                knocking = running.enter_context(crowd(stage, "crowd", to, backlog, 0.3))
            # Now the server repeats its SYN-ACKs, 1 s after the first, and they are answered.
            stage.until(
                lambda: counter(stage, "server", "TcpExt.ListenOverflows") >= backlog - 2,
                timeout=30,
                what="the queue to overflow",
            )
        else:
            many = clients or (limit or backlog) + 1 + EXTRA
            knocking = running.enter_context(crowd(stage, "crowd", to, many, 1))
        stage.snapshot("full", "client", "server")
        count(stage, "after", "server", names=COUNTED)
        capture.stop()
        knocking.signal(SIGUSR1)
        knocking.wait(30)


def crowd(stage: Stage, name: str, to: str, clients: int, patience: float) -> Running:
    """Let clients connect, all at once; return when each is connected or out of patience."""
    argv = agent("crowd", "connect", to, "--count", clients, "--at-once", "--timeout", patience)
    running = stage.node("client").spawn(name, [*argv, "--stay"])
    until_said(stage, running, "waiting")
    return running


def listener(seen: Evidence) -> ss.Socket:
    """Return the listening socket as `ss -ltn` shows it."""
    sockets = seen.snapshot("full", "server")
    return seen.first((s for s in sockets if s.state == "LISTEN"), "a listening socket")


def limit_of(seen: Evidence) -> int:
    """Return the limit that the queue should have."""
    return int(seen.option("limit")) or int(seen.option("backlog"))


@lab.check(on=LISTENING)
def send_q_of_a_listener_is_its_limit(each: Evidence) -> Verdict:
    """`ss -ltn` shows as Send-Q the smaller of the backlog and net.core.somaxconn."""
    return expect(listener(each).send_q, what="Send-Q").equals(limit_of(each))


@lab.check(on=FULL)
def a_queue_of_n_holds_n_plus_one(each: Evidence) -> Verdict:
    """Recv-Q of the listener, and the connections that clients have, are the limit plus 1."""
    wanted = limit_of(each) + 1
    opened = each.step("client", "crowd", "connected")["count"]
    waiting = expect(listener(each).recv_q, what="Recv-Q").equals(wanted)
    return waiting & expect(opened, what="connected").equals(wanted)


@lab.check(on=FULL)
def the_others_are_not_answered(each: Evidence) -> Verdict:
    """Clients beyond that stay in SYN-SENT: their SYNs are dropped, nobody says no."""
    shown = each.snapshot("full", "client")
    waiting = sum(s.state == "SYN-SENT" for s in shown)
    resets = sum(s.rst and not s.forward for s in each.capture("client:eth0").segments)
    return expect(waiting, what="in SYN-SENT").equals(EXTRA) & expect(resets, what="RST").equals(0)


@lab.check(on=FULL)
def the_kernel_counts_them(each: Evidence) -> Verdict:
    """TcpExtListenOverflows and ListenDrops of the server grow by a dropped SYN each, at least."""
    overflows = each.counted("server", "TcpExt.ListenOverflows")
    drops = each.counted("server", "TcpExt.ListenDrops")
    return expect(overflows, what="ListenOverflows").at_least(EXTRA) & expect(
        drops, what="ListenDrops"
    ).at_least(EXTRA)


@lab.check(on=("roomy",))
def with_room_everybody_connects(each: Evidence) -> Verdict:
    """Twelve clients connect to a program that never accepts, and wait in its queue."""
    opened = each.step("client", "crowd", "connected")["count"]
    return expect([opened, listener(each).recv_q], what="connected, Recv-Q").equals([12, 12])


@lab.check
def connect_may_return_for_nothing(late_overflow: Evidence) -> Verdict:
    """When the queue fills after the SYN-ACK, connect() returns though there is no place.

    The client has a connection, the server drops the ACK and has none.
    """
    opened = late_overflow.step("client", "crowd", "connected")["count"]
    found = dict(late_overflow.step("client", "crowd", "found").values)
    told = expect([opened, found.get("open")], what="connected, still open").equals([5, 5])
    return told & expect(listener(late_overflow).recv_q, what="Recv-Q").equals(6)


@lab.check
def tcp_abort_on_overflow_says_no(abort: Evidence) -> Verdict:
    """With tcp_abort_on_overflow=1 the server resets those for whom there is no place."""
    found = dict(abort.step("client", "crowd", "found").values)
    return expect(found.get("econnreset", 0), what="clients that were reset").equals(3)


lab.fault(
    sysctl("server", "net.core.somaxconn", 4),
    on="backlog-5",
    breaks=send_q_of_a_listener_is_its_limit,
    also=(a_queue_of_n_holds_n_plus_one, the_others_are_not_answered),
)
lab.fault(
    option(accept=True),
    on="backlog-128",
    breaks=a_queue_of_n_holds_n_plus_one,
    also=(the_others_are_not_answered, the_kernel_counts_them),
    name="a server that accepts",
)
lab.fault(
    option(clients=6),
    on="backlog-5",
    breaks=the_others_are_not_answered,
    also=(the_kernel_counts_them,),
    name="no more clients than places",
)
lab.fault(
    option(clients=7),
    on="backlog-5",
    breaks=the_kernel_counts_them,
    also=(the_others_are_not_answered,),
    name="one client too many",
)
lab.fault(
    option(backlog=5, clients=12, limit=5),
    on="roomy",
    breaks=with_room_everybody_connects,
    name="a short queue",
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_abort_on_overflow", 1),
    on="late-overflow",
    breaks=connect_may_return_for_nothing,
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_abort_on_overflow", 0),
    on="abort",
    breaks=tcp_abort_on_overflow_says_no,
)


@lab.figure
def figures(backlog_5: Evidence, clamped: Evidence, abort: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    shown = listener(backlog_5)
    return {
        "recv_q": str(shown.recv_q),
        "send_q": str(shown.send_q),
        "opened": str(backlog_5.step("client", "crowd", "connected")["count"]),
        "overflows": str(backlog_5.counted("server", "TcpExt.ListenOverflows")),
        "clamped": str(listener(clamped).send_q),
        "reset": str(dict(abort.step("client", "crowd", "found").values).get("econnreset", 0)),
    }


@lab.claim("C28")
def somaxconn_is_4096(roomy: Evidence) -> Finding:
    """The default of somaxconn is 4096 today."""
    told = roomy.recording.manifest.sysctls["server"]["net.core.somaxconn"]
    return holds(told == "4096", f"{told} in a new namespace")


@lab.claim("C29")
def the_backlog_limits_half_open_connections(backlog_5: Evidence) -> Finding:
    """The backlog limits connections that are half open."""
    shown = listener(backlog_5).recv_q
    return holds(shown == 0, f"{shown} whole connections fill a backlog of 5")


@lab.claim("C30")
def the_columns_of_a_listener(backlog_5: Evidence) -> Finding:
    """Recv-Q of a listener is what waits, Send-Q the limit."""
    shown = listener(backlog_5)
    opened = backlog_5.step("client", "crowd", "connected")["count"]
    told = f"Recv-Q {shown.recv_q} with {opened} waiting, Send-Q {shown.send_q} for listen(5)"
    return holds((shown.recv_q, shown.send_q) == (opened, 5), told)
