"""A zoo of resets: who sends a RST, when, with which numbers, and what programs are told.

The exercise is in guide.md; the rules are RFC 9293 §3.5.2 (three groups of resets), §3.10.7.1 (an
answer for what belongs to no connection) and §3.10.5 (abort), socket(7) (SO_LINGER), and
tcp_close in net/ipv4/tcp.c (a socket with unread data is reset, RFC 2525 §2.17).
"""

from __future__ import annotations

from contextlib import ExitStack
from signal import SIGKILL, SIGUSR1

from netlab.analysis import ss
from netlab.analysis.segments import Segment
from netlab.labs import Evidence, Lab, Verdict, expect, option, sysctl, vary
from netlab.labs.claims import Finding, holds, untested
from netlab.labs.scene import (
    Match,
    Ready,
    Running,
    Stage,
    address,
    agent,
    counter,
    disguise,
    until_said,
)
from netlab.units import ms

OPEN, CLOSED, WALL = 8080, 8081, 8082
PLACES = 2  # of a queue with backlog 1
CROWD = PLACES + 1

# As document 002 has them, and what finds refusals: a RST with ACK whose own number is 0.
BOTH_FLAGS = "tcp[tcpflags] & (tcp-syn|tcp-rst) == (tcp-syn|tcp-rst)"
SYNS = "tcp[tcpflags] & tcp-syn != 0"
REFUSALS = "tcp[tcpflags] & (tcp-rst|tcp-ack) == (tcp-rst|tcp-ack) and tcp[4:4] = 0"

lab = Lab(
    "A zoo of resets",
    variations={
        "closed-port": option(case="refused", port=CLOSED),
        "firewall": option(case="refused", port=WALL),
        "linger-0": option(case="talk", server="recv=5 reset", client="send=5 recv=5"),
        "kill-unread": option(case="kill", server="wait", client="send=5 wait send=5 send=5"),
        "kill-read": option(case="kill", server="recv=5 wait", client="send=5 recv-eof"),
        "write-after-close": option(
            case="talk", server="recv=5 close", client="send=5 wait send=5 wait send=5"
        ),
        "reboot": option(case="reboot", server="recv=5 wait", client="send=5 wait send=5 recv=5"),
        "overflow": vary(sysctl("server", "net.ipv4.tcp_abort_on_overflow", 1), case="overflow"),
        "filters": option(case="filters"),
    },
    ladder="client:eth0",
)
TOLD = {
    "closed-port": ["ECONNREFUSED"],
    "firewall": ["ECONNREFUSED"],
    "linger-0": ["sent", "ECONNRESET"],
    "kill-unread": ["sent", "ECONNRESET", "EPIPE"],
    "kill-read": ["sent", "end"],
    "write-after-close": ["sent", "sent", "EPIPE"],
    "reboot": ["sent", "sent", "ECONNRESET"],
}
ASKED = ("closed-port", "firewall")  # answers to a segment that acknowledges nothing
ANSWERED = ("write-after-close", "reboot", "overflow")  # to one that does
ABORTED = ("linger-0", "kill-unread")  # not asked for by any segment


@lab.scenario
def meet(
    stage: Stage,
    *,
    case: str = "refused",
    port: int = OPEN,
    server: str = "",
    client: str = "",
    disguised: bool = False,
    forged: bool = False,
    lost: str = "psh",
) -> None:
    """Bring about one kind of reset."""
    if disguised:
        packets = f"tcp sport {port} tcp flags & rst == rst"
        disguise(stage, "server", "client", packets, "tcp ackseq")
    capture = stage.capture("client:eth0", filter="tcp")
    if case == "refused":
        knock(stage, port)
    elif case == "overflow":
        overflow(stage)
    elif case == "filters":
        watch(stage, forged, lost)
    else:
        converse(stage, case, server.split(), client.split())
    capture.stop()


def knock(stage: Stage, port: int) -> None:
    """Connect to a port where there is nobody."""
    to = address(stage.topology, "server")
    argv = agent("actor", "--address", to, "--port", port, "--keep-going", "connect")
    with stage.node("client").spawn("connect", argv) as connecting:
        connecting.wait(20)


def converse(stage: Stage, case: str, server: list[str], client: list[str]) -> None:
    """Let the client talk to a server that closes, is killed, or whose machine reboots."""
    to = address(stage.topology, "server")
    serve = agent("actor", "--address", to, "listen", "accept", *server)
    talk = agent("actor", "--address", to, "--keep-going", "connect", *client)
    with (
        stage.node("server").spawn("serve", serve, ready=Ready.port(OPEN)) as serving,
        stage.node("client").spawn("connect", talk) as talking,
    ):
        until_said(stage, talking, "sent")
        if case != "talk":
            until_said(stage, serving, "waiting")
            stage.until(lambda: arrived(stage, server), timeout=10, what="the octets to arrive")
        stage.snapshot("before", "client", "server")
        if case == "kill":
            serving.signal(SIGKILL)
        if case == "reboot":
            stage.node("server").reboot()
        serving.wait(10)
        stage.snapshot("half", "client", "server")
        stage.recording.event("over", at_ns=stage.now_ns())
        for number in range(client.count("wait")):
            stage.until(
                lambda seen=number + 1: talking.stdout.count("waiting ") == seen,
                timeout=10,
                what="the client to wait",
            )
            if case != "reboot":
                stage.until(lambda: not open_(stage), timeout=10, what="the news to arrive")
            talking.signal(SIGUSR1)
        talking.wait(20)
