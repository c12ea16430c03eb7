"""Address already in use: why a server cannot be restarted at once, and what cures it.

The exercise is in guide.md; the sources are socket(7) (SO_REUSEADDR) and bind(2) (EADDRINUSE).
"""

from __future__ import annotations

from netlab.labs import Evidence, Lab, Verdict, expect, option
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Stage, address, agent, until_said
from netlab.units import s

PORT = 8080
OTHER_PORT = 8081

lab = Lab(
    "Address already in use",
    variations={
        "plain": option(),
        "reuse": option(reuse=True),
        "other-port": option(again=OTHER_PORT),
        "wait": option(wait=True),
    },
    minutes=3,
)


@lab.scenario
def restart(
    stage: Stage,
    *,
    reuse: bool = False,
    again: int = PORT,
    wait: bool = False,
    closer: str = "server",
) -> None:
    """A server closes its connection first, ends, and is started again at once."""
    to = address(stage.topology, "server")
    server, client = stage.node("server"), stage.node("client")
    acts = {"server": ["close"], "client": ["recv-eof", "close"]}[closer]
    theirs = {"server": ["recv-eof", "close"], "client": ["close"]}[closer]
    serve = agent("actor", "--address", to, "reuse", "listen", "accept", *acts, "quit")
    with server.spawn("serve", serve, ready=Ready.port(PORT)) as serving:
        client.run(agent("actor", "--address", to, "connect", *theirs))
        serving.wait(20)
    waiting = server if closer == "server" else client
    stage.until(lambda: in_time_wait(stage, waiting.name), timeout=20, what="TIME-WAIT")
    stage.snapshot("ended", "server")
    if wait:
        stage.until(
            lambda: not in_time_wait(stage, "server"), timeout=90 * s, every=0.2, what="its end"
        )
    stage.snapshot("second", "server")
    argv = agent("actor", "--address", to, "--port", again, "--keep-going")
    more = ("reuse", "listen", "wait") if reuse else ("listen", "wait")
    with server.spawn("serve-again", [*argv, *more]) as serving:
        until_said(stage, serving, "waiting")


def in_time_wait(stage: Stage, node: str) -> bool:
    """Tell whether a node has a socket in TIME-WAIT."""
    shown = stage.node(node).run(["ss", "-tanH", "state", "time-wait"]).stdout
    return bool(shown.strip())


def outcome(seen: Evidence) -> str:
    """Return what became of the second start: "listening", or an errno."""
    steps = seen.steps("server", "serve-again")
    told = seen.first((x for x in steps if x.word in ("listening", "failed")), "a second start")
    return "listening" if told.word == "listening" else str(told["errno"])


def waiting(seen: Evidence, label: str = "ended") -> int:
    """Return how many sockets of the port were in TIME-WAIT at the server."""
    sockets = seen.snapshot(label, "server")
    return sum(x.state == "TIME-WAIT" and x.local.port == PORT for x in sockets)


@lab.check
def one_time_wait_is_enough(plain: Evidence) -> Verdict:
    """With one socket in TIME-WAIT on its port, and nobody listening, bind() says EADDRINUSE."""
    left = expect(waiting(plain), what="in TIME-WAIT").equals(1)
    return left & expect(outcome(plain), what="second start").equals("EADDRINUSE")


@lab.check
def so_reuseaddr_cures_it(reuse: Evidence) -> Verdict:
    """With SO_REUSEADDR the same server listens at once, TIME-WAIT or not."""
    left = expect(waiting(reuse), what="in TIME-WAIT").equals(1)
    return left & expect(outcome(reuse), what="second start").equals("listening")


@lab.check
def another_port_is_free(other_port: Evidence) -> Verdict:
    """The port next to it can be had without any option."""
    return expect(outcome(other_port), what="second start").equals("listening")


@lab.check
def so_is_the_same_port_a_minute_later(wait: Evidence) -> Verdict:
    """Without any option the server can start once TIME-WAIT is over."""
    left = expect([waiting(wait), waiting(wait, "second")], what="TIME-WAIT, later").equals([1, 0])
    return left & expect(outcome(wait), what="second start").equals("listening")


lab.fault(
    option(closer="client"),
    on="plain",
    breaks=one_time_wait_is_enough,
    name="the client closes first",
)
lab.fault(
    option(reuse=False), on="reuse", breaks=so_reuseaddr_cures_it, name="the option is forgotten"
)
lab.fault(option(again=PORT), on="other-port", breaks=another_port_is_free, name="the same port")
lab.fault(
    option(wait=False),
    on="wait",
    breaks=so_is_the_same_port_a_minute_later,
    name="nobody waits",
)


@lab.figure
def figures(plain: Evidence, reuse: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    return {"plain": outcome(plain), "reuse": outcome(reuse), "waiting": str(waiting(plain))}


@lab.claim("C10")
def reuse_lets_a_server_restart(plain: Evidence, reuse: Evidence) -> Finding:
    """With SO_REUSEADDR a server can be restarted at once."""
    told = f"{outcome(plain)} without, {outcome(reuse)} with the option"
    return holds((outcome(plain), outcome(reuse)) == ("EADDRINUSE", "listening"), told)
