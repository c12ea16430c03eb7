"""Half a connection: one side has said its last word and goes on listening.

The exercise is in guide.md; the rules are RFC 9293 §3.6 (case 1) and tcp(7), tcp_fin_timeout.
"""

from __future__ import annotations

from signal import SIGUSR1

from netlab.labs import Evidence, Lab, Verdict, expect, option, sysctl, vary
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Stage, address, agent, see, until_said
from netlab.units import ms, s

PORT = 8080
FIN_TIMEOUT = 2 * s
OCTETS = 1_000_000
PERIOD = 10 * ms

shorter = sysctl("client", "net.ipv4.tcp_fin_timeout", 2)
lab = Lab(
    "Half a connection",
    variations={
        "streams": option(then="read"),
        "orphaned": vary(shorter, then="leave"),
        "kept": vary(shorter, then="wait"),
    },
    ladder="client:eth0",
    states=PORT,
)


@lab.scenario
def shut_one_direction(
    stage: Stage,
    *,
    then: str = "read",
    octets: int = OCTETS,
    speak: bool = True,
    early: bool = False,
    shown: str = "",
) -> None:
    """The client closes its direction, and then reads, leaves, or just waits."""
    to = address(stage.topology, "server")
    ends = {
        "read": ["shutdown", "recv-eof", "close"],
        "leave": ["close"],
        "wait": ["shutdown", "wait", "recv-eof", "close"],
    }
    last = {
        "read": ["wait", f"send={octets}", "close"] if octets else ["wait", "close"],
        "leave": ["wait", *(["send=1", "sleep=0.3", "send=1"] if speak else []), "close"],
        "wait": ["wait", "close"],
    }
    serve = agent(
        "actor", "--address", to, "--keep-going", "listen", "accept", "recv-eof", *last[then]
    )
    talk = agent("actor", "--address", to, "connect", "send=5", *ends[then])
    server, client = stage.node("server"), stage.node("client")
    with (
        stage.capture("client:eth0", filter=f"tcp port {PORT}{shown}", snaplen=128),
        server.spawn("serve", serve, ready=Ready.port(PORT)) as serving,
    ):
        sampler = stage.sample("client", every=PERIOD, ports=[PORT]) if then == "leave" else None
        if early:
            stage.snapshot("half", "client", "server")
        with client.spawn("connect", talk) as talking:
            until_said(stage, serving, "waiting")
            if not early:
                see(stage, "half", "client", "FIN-WAIT-2", PORT)
                see(stage, "half", "server", "CLOSE-WAIT", PORT)
            if then == "wait":
                stage.settle(2.5 * FIN_TIMEOUT, because="the timeout must have had its chance")
                stage.snapshot("later", "client")
                talking.signal(SIGUSR1)
            if sampler is not None:
                stage.until(lambda: not connections(stage), timeout=30, what="the client to forget")
                sampler.stop()
                stage.snapshot("later", "client")
            serving.signal(SIGUSR1)
            talking.wait(30)
            serving.wait(30)


def connections(stage: Stage) -> bool:
    """Tell whether the client has a connection to the server, in whatever state."""
    shown = stage.node("client").run(["ss", "-tanH", "dport", "=", f":{PORT}"]).stdout
    return bool(shown.strip())


@lab.check
def data_flows_after_the_first_fin(streams: Evidence) -> Verdict:
    """After the client's FIN the server sends a million octets, and the client receives them."""
    segments = streams.capture("client:eth0").on_port(PORT)
    fin = streams.first((s for s in segments if s.fin and s.forward), "a FIN of the client")
    after = {
        (s.seq, s.length) for s in segments if not s.forward and s.frame > fin.frame and s.length
    }
    received = streams.step("client", "connect", "received")["bytes"]
    sent = expect(sum(length for _, length in after), "B", what="sent").equals(OCTETS)
    return sent & expect(received, "B", what="received").equals(OCTETS)


@lab.check
def meanwhile_they_wait_in_fin_wait_2_and_close_wait(streams: Evidence) -> Verdict:
    """Before the server closes, the client is in FIN-WAIT-2 and the server in CLOSE-WAIT."""
    client = expect(streams.states("client", PORT), what="client").contains("FIN-WAIT-2")
    return client & expect(streams.states("server", PORT), what="server").contains("CLOSE-WAIT")


@lab.check
def every_change_of_state_is_in_the_table(each: Evidence) -> Verdict:
    """Both ends change their states as RFC 9293 says, or as Linux does where it forgets early."""
    history = each.history(PORT)
    walked = expect(len(history.transitions), what="changes of state").at_least(8)
    return walked & expect(list(history.illegal), what="illegal ones").equals([])


@lab.check(timing=True)
def an_orphan_is_forgotten_after_tcp_fin_timeout(orphaned: Evidence) -> Verdict:
    """A socket in FIN-WAIT-2 that no program holds is gone after tcp_fin_timeout, here 2 s."""
    samples = orphaned.samples("client")
    changes = {state: at for at, state in samples.states(PORT)}
    if not {"FIN-WAIT-2", "CLOSED"} <= changes.keys():
        return expect(None, what="the life of the orphan").equals(0)
    life = (changes["CLOSED"] - changes["FIN-WAIT-2"]) / 1e9
    # Timers of the kernel are late by an eighth at most; sampling adds a period on either side.
    slack = FIN_TIMEOUT / 8 + 50 * ms + 2 * PERIOD + samples.worst_late
    early = 2 * PERIOD + samples.worst_late
    return expect(life, "s").between(FIN_TIMEOUT - early, FIN_TIMEOUT + slack)


@lab.check
def who_speaks_to_the_forgotten_is_reset(orphaned: Evidence) -> Verdict:
    """Data that come after that are answered by a RST, and the next send() fails."""
    segments = orphaned.capture("client:eth0").on_port(PORT)
    resets = [s.kind for s in segments if s.rst and s.forward]
    failed = [step["errno"] for step in orphaned.steps("server", "serve") if step.word == "failed"]
    return expect(resets, what="the client answers").equals(["RST"]) & expect(
        failed, what="the server's second send()"
    ).equals(["EPIPE"])


@lab.check
def a_program_that_still_holds_it_is_not_hurried(kept: Evidence) -> Verdict:
    """Two and a half times that long after the FIN a socket that a program holds still waits."""
    states = [s.state for s in kept.snapshot("later", "client") if s.peer.port == PORT]
    return expect(states).equals(["FIN-WAIT-2"])


lab.fault(option(octets=0), on="streams", breaks=data_flows_after_the_first_fin, name="silence")
lab.fault(
    option(early=True),
    on="streams",
    breaks=meanwhile_they_wait_in_fin_wait_2_and_close_wait,
    name="a look too early",
)
lab.fault(
    option(shown=" and not (tcp[13] & 1 != 0)"),
    on="kept",
    breaks=every_change_of_state_is_in_the_table,
    name="the capture leaves out the FINs",
)
lab.fault(
    sysctl("client", "net.ipv4.tcp_fin_timeout", 4),
    on="orphaned",
    breaks=an_orphan_is_forgotten_after_tcp_fin_timeout,
)
lab.fault(
    option(speak=False),
    on="orphaned",
    breaks=who_speaks_to_the_forgotten_is_reset,
    name="the server says nothing more",
)
lab.fault(
    option(then="leave"),
    on="kept",
    breaks=a_program_that_still_holds_it_is_not_hurried,
    name="the program leaves",
)


@lab.figure
def figures(streams: Evidence, orphaned: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    verdict = an_orphan_is_forgotten_after_tcp_fin_timeout(orphaned)
    return {
        "received": f"{streams.step('client', 'connect', 'received')['bytes']:,}",
        "life": verdict.observed,
    }


@lab.claim("C06")
def fin_timeout_is_about_fin_wait_2(orphaned: Evidence) -> Finding:
    """tcp_fin_timeout limits FIN-WAIT-2, of a socket that no program holds."""
    verdict = an_orphan_is_forgotten_after_tcp_fin_timeout(orphaned)
    return holds(verdict.passed, f"FIN-WAIT-2 for {verdict.observed} with tcp_fin_timeout=2")
