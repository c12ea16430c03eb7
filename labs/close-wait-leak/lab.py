"""CLOSE-WAIT that piles up: a program that forgets to close, and what its clients notice.

The exercise is in guide.md; the rule is RFC 9293 §3.3.2 (CLOSE-WAIT waits for the local user).
"""

from __future__ import annotations

from signal import SIGTERM, SIGUSR1

from netlab.labs import Evidence, Lab, Verdict, expect, option
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Running, Stage, address, agent, until_said

PORT = 8080
CLIENTS = 300
FILES = 128
BACKLOG = 50
FEWER = 185  # clients of the server with a limit: some more than it can hold

lab = Lab(
    "Connections that nobody closes",
    variations={
        "leaks": option(behave="leak"),
        "fixed": option(behave="reads"),
        "forgetful-pool": option(behave="close", each="keep"),
        "fd-limit": option(behave="leak", each="keep", files=FILES),
    },
)


@lab.scenario
def come_and_go(
    stage: Stage,
    *,
    behave: str = "leak",
    each: str = "close",
    files: int = 0,
    backlog: int = BACKLOG,
) -> None:
    """Clients come and go; the server reads what they say and closes, or forgets to."""
    to = address(stage.topology, "server")
    serve = agent("crowd", "serve", "--address", to, "--behave", behave, "--backlog", backlog)
    if files:
        serve = (*serve, "--files", str(files))
    with stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)) as serving:
        if files:  # one after the other; who finds no place gives up soon
            clients = crowd(stage, to, FEWER, each, "--timeout", "0.3")
        else:
            clients = crowd(stage, to, CLIENTS, each)
            stage.until(lambda: settled(stage), timeout=30, what="every FIN to be answered")
        with clients:
            stage.snapshot("left", "client", "server")
            serving.signal(SIGUSR1)  # tell how many files are open
            until_said(stage, serving, "standing")
            clients.signal(SIGUSR1)
            clients.wait(30)
        serving.signal(SIGTERM)
        serving.wait(30)


def crowd(stage: Stage, to: str, clients: int, each: str, *more: str) -> Running:
    """Start clients; return when each has done what it can."""
    talk = agent("crowd", "connect", to, "--count", clients, "--each", each, "--stay", *more)
    running = stage.node("client").spawn("crowd", talk)
    until_said(stage, running, "waiting", timeout=60)
    return running


def settled(stage: Stage) -> bool:
    """Tell whether no FIN is on its way and nothing waits to be accepted."""
    moving = ["state", "fin-wait-1", "state", "last-ack", "state", "closing", "state", "syn-recv"]
    asks = [["ss", "-tanH", *moving], ["ss", "-tanH", "state", "established"]]
    return not any(stage.node(n).run(a).stdout.strip() for n in ("client", "server") for a in asks)


def in_close_wait(seen: Evidence, node: str) -> int:
    """Return how many sockets of a node were in CLOSE-WAIT at the end."""
    return sum(s.state == "CLOSE-WAIT" for s in seen.snapshot("left", node))


def open_files(seen: Evidence) -> int:
    """Return how many files the server had open."""
    return int(seen.step("server", "serve", "standing")["files"])


@lab.check
def each_client_leaves_a_close_wait(leaks: Evidence) -> Verdict:
    """300 clients that have gone leave 300 sockets in CLOSE-WAIT at a server that never closes."""
    return expect(in_close_wait(leaks, "server"), what="CLOSE-WAIT").equals(CLIENTS)


@lab.check
def each_holds_an_open_file(leaks: Evidence, fixed: Evidence) -> Verdict:
    """The leaking server has 300 files more open than the one that closes."""
    return expect(open_files(leaks) - open_files(fixed), what="more files").equals(CLIENTS)


@lab.check
def close_leaves_none(fixed: Evidence) -> Verdict:
    """A server that closes what it has read has no socket in CLOSE-WAIT."""
    return expect(in_close_wait(fixed, "server"), what="CLOSE-WAIT").equals(0)


@lab.check
def a_client_can_leak_too(forgetful_pool: Evidence) -> Verdict:
    """A pool that keeps connections which the server has closed has them in CLOSE-WAIT."""
    return expect(in_close_wait(forgetful_pool, "client"), what="at the client").equals(CLIENTS)


@lab.check
def at_the_limit_accept_fails(fd_limit: Evidence) -> Verdict:
    """With 128 files allowed, accept() ends with EMFILE before 128 connections are served."""
    failed = [s["errno"] for s in fd_limit.steps("server", "serve") if s.word == "failed"]
    accepted = fd_limit.step("server", "serve", "standing")["accepted"]
    return expect(failed, what="accept()").equals(["EMFILE"]) & expect(
        accepted, what="accepted"
    ).between(FILES - 20, FILES - 1)


@lab.check
def clients_then_connect_to_nobody(fd_limit: Evidence) -> Verdict:
    """Beyond those, as many connect as the queue holds and are never served; the rest hang."""
    accepted = int(fd_limit.step("server", "serve", "standing")["accepted"])
    told = fd_limit.step("client", "crowd", "connected")
    hang = told["failed"].get("timeout", 0)
    return expect(told["count"] - accepted, what="connected, not accepted").equals(
        BACKLOG + 1
    ) & expect(hang, what="hang").equals(FEWER - told["count"])


lab.fault(
    option(behave="reads"),
    on="leaks",
    breaks=each_client_leaves_a_close_wait,
    also=(each_holds_an_open_file,),
    name="a server that closes",
)
lab.fault(
    option(behave="leak"),
    on="fixed",
    breaks=close_leaves_none,
    also=(each_holds_an_open_file,),
    name="a server that forgets",
)
lab.fault(
    option(behave="close"),
    on="leaks",
    breaks=each_holds_an_open_file,
    also=(each_client_leaves_a_close_wait,),
    name="a server that hangs up",
)
lab.fault(
    option(each="read"),
    on="forgetful-pool",
    breaks=a_client_can_leak_too,
    name="a pool that looks after its connections",
)
lab.fault(
    option(files=1024),
    on="fd-limit",
    breaks=at_the_limit_accept_fails,
    also=(clients_then_connect_to_nobody,),
    name="files enough",
)
lab.fault(
    option(backlog=55),
    on="fd-limit",
    breaks=clients_then_connect_to_nobody,
    name="a longer queue",
)


@lab.figure
def figures(leaks: Evidence, fixed: Evidence, fd_limit: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    told = fd_limit.step("client", "crowd", "connected")
    return {
        "limit": str(FILES),
        "leaked": str(in_close_wait(leaks, "server")),
        "files": str(open_files(leaks)),
        "files_fixed": str(open_files(fixed)),
        "accepted": str(fd_limit.step("server", "serve", "standing")["accepted"]),
        "connected": str(told["count"]),
        "hang": str(told["failed"].get("timeout", 0)),
    }


@lab.claim("C68")
def close_wait_means_a_missing_close(leaks: Evidence, fixed: Evidence) -> Finding:
    """Many sockets in CLOSE-WAIT mean that the program does not close."""
    leaked, closed = in_close_wait(leaks, "server"), in_close_wait(fixed, "server")
    return holds(
        leaked == CLIENTS and closed == 0,
        f"after {CLIENTS} clients {leaked} at a server that never closes, "
        f"{closed} at one that does",
    )
