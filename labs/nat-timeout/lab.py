"""A NAT that forgets: which connections survive their silence, and how the others end.

The exercise is in guide.md; the sources are RFC 5382 §5 (how long a NAT should remember), the
kernel's Documentation/networking/nf_conntrack-sysctl.rst (nf_conntrack_tcp_timeout_established,
nf_conntrack_tcp_loose) and RFC 9293 §3.10.7.1 (a RST for what belongs to no connection).
"""

from __future__ import annotations

from signal import SIGUSR1

from netlab.analysis import output, ss
from netlab.analysis.segments import Segment
from netlab.labs import Evidence, Lab, Verdict, expect, nat, option, vary
from netlab.labs.claims import Finding, depends
from netlab.labs.scene import (
    Ready,
    Running,
    Stage,
    address,
    agent,
    conntrack,
    until_said,
)
from netlab.units import s

PORT = 8080
FORGETS = 5 * s  # tcp_established of topology.yaml
PING = 2 * s  # between pings, or keepalive probes
REPEATS = 2  # retransmissions after which an end is called stuck
ENDS = ("client", "server")
TALK = ("send=5", "recv=5")
STRICT = nat("gw", unsolicited="drop", tcp_loose=0)

lab = Lab(
    "A NAT that forgets",
    variations={
        "client-first": option(first="client"),
        "server-first": option(first="server"),
        "dropped": vary(STRICT, first="both"),
        "reset": vary(nat("gw", unsolicited="reset", tcp_loose=0), first="both"),
        "keepalive": vary(STRICT, first="both", keepalive=int(PING)),
        "ping": vary(STRICT, first="both", pings=3),
    },
    ladder="client:eth0",
)
FORGOTTEN = ("client-first", "server-first", "dropped", "reset")
KEPT = ("keepalive", "ping")


@lab.scenario
def fall_silent(stage: Stage, *, first: str = "client", keepalive: int = 0, pings: int = 0) -> None:
    """Two ends exchange five octets, fall silent for longer than the NAT remembers, and speak."""
    to = address(stage.topology, "server")
    probes = [f"keepalive={keepalive}/{keepalive}/3"] if keepalive else []
    asks = [*TALK, *(f"sleep={PING:g}", *TALK) * pings]
    answers = ["recv=5", "send=5"] * (pings + 1)
    connect = ["connect", *probes, *asks, *speaking("client", first)]
    serve = ["listen", "accept", *answers, *speaking("server", first)]
    programs: dict[str, Running] = {}
    captures = [stage.capture(f"{node}:eth0", filter=f"tcp port {PORT}") for node in ENDS]
    for node, actions in (("server", serve), ("client", connect)):
        ready = Ready.port(PORT) if node == "server" else None
        argv = agent("actor", "--address", to, "--keep-going", *actions)
        programs[node] = stage.enter(stage.node(node).spawn("speak", argv, ready=ready))
    until_said(stage, programs["client"], "received")
    conntrack(stage, "gw", "spoken")
    if not pings:
        stage.settle(FORGETS + 0.5 * s, because="the NAT must have the time to forget")
    speakers = [programs[node] for node in ENDS if first in (node, "both")]
    for program in speakers:
        until_said(stage, program, "waiting")
    conntrack(stage, "gw", "silent")
    stage.snapshot("silent", *ENDS)
    stage.recording.event("speak", at_ns=stage.now_ns())
    told = [len(words(program)) for program in speakers]
    for program in speakers:
        program.signal(SIGUSR1)
    for program, already in zip(speakers, told, strict=True):
        stage.until(
            lambda program=program, already=already: decided(stage, program, already),
            timeout=20,
            what=f"an answer to {program.node}, an error, or {REPEATS} repetitions",
        )
    conntrack(stage, "gw", "after")
    stage.snapshot("after", *ENDS)
    for capture in captures:
        capture.stop()


def speaking(node: str, first: str) -> tuple[str, ...]:
    """Return what an end does after the silence: it speaks when told to, or waits to answer."""
    return ("wait", *TALK, "wait") if first in (node, "both") else ("recv=5", "send=5", "wait")


def words(program: Running) -> list[str]:
    """Return what came of the program's waiting for octets."""
    return [x.word for x in output.parse(program.stdout) if x.word in ("received", "failed")]


def decided(stage: Stage, program: Running, told: int) -> bool:
    """Tell whether an end has its answer or an error, or has repeated its octets in vain."""
    shown = ss.parse(stage.node(program.node).run(["ss", "-tano"]).stdout)
    stuck = any(x.timer and x.timer.kind == "on" and x.timer.retransmits >= REPEATS for x in shown)
    return stuck or len(words(program)) > told


def fate(seen: Evidence, node: str) -> str:
    """Return what became of what an end said after the silence.

    "answered" when it received octets again, the name of the error, "stuck" if octets are still not
    acknowledged, else "waiting".
    """
    since = seen.event("speak").at_ns
    steps = [x for x in seen.steps(node, "speak") if int(x["at_ns"]) >= since]
    for step in steps:
        if step.word == "failed":
            return str(step["errno"])
        if step.word == "received":
            return "answered"
    return "stuck" if any(x.send_q for x in ends(seen, "after", node)) else "waiting"


def fates(seen: Evidence) -> list[str]:
    """Return the fate of what the client said, and the server."""
    return [fate(seen, node) for node in ENDS]


def ends(seen: Evidence, label: str, node: str) -> list[ss.Socket]:
    """Return the connections of an end as `ss` showed them."""
    return [x for x in seen.snapshot(label, node) if x.state != "LISTEN"]


def states(seen: Evidence, label: str) -> list[str]:
    """Return the states of both ends."""
    return [x.state for node in ENDS for x in ends(seen, label, node)]


def table(seen: Evidence, label: str) -> list[str]:
    """Return the states of the connections that the NAT knows."""
    return [entry.state for entry in seen.conntrack(label, "gw")]


def spoken(seen: Evidence, node: str) -> tuple[Segment, ...]:
    """Return the segments after the silence, as the interface of an end saw them."""
    since = seen.event("speak").at_ns
    return tuple(x for x in seen.capture(f"{node}:eth0").on_port(PORT) if x.time_ns >= since)


def from_server(segments: tuple[Segment, ...]) -> list[str]:
    """Return the kinds of the segments that the server sent, or seems to have sent."""
    return [x.kind for x in segments if x.sport == PORT]


@lab.check(on=FORGOTTEN)
def the_nat_forgets_and_nobody_knows(each: Evidence) -> Verdict:
    """After 5 s of silence the table is empty, and both ends are in ESTAB as before."""
    tables = [table(each, "spoken"), table(each, "silent")]
    expires = [entry.expires for entry in each.conntrack("spoken", "gw")]
    return (
        expect(tables, what="known before, after").equals([["ESTABLISHED"], []])
        & expect(max(expires, default=0), "s", what="expires in").at_most(FORGETS)
        & expect(states(each, "silent"), what="ends").equals(["ESTAB", "ESTAB"])
    )


@lab.check
def a_loose_nat_learns_it_again_from_the_client(client_first: Evidence) -> Verdict:
    """With tcp_loose=1 the client's next octets make the entry anew: same ports, all is well."""
    before, again = (client_first.conntrack(x, "gw") for x in ("spoken", "after"))
    same = [entry.reply for entry in before] == [entry.reply for entry in again]
    return (
        expect(fates(client_first), what="client, server").equals(["answered", "answered"])
        & expect(same, what="same addresses and ports").holds()
    )


@lab.check
def the_nat_itself_resets_a_server_that_speaks_first(server_first: Evidence) -> Verdict:
    """The server's octets come to an address that knows no such port: the NAT answers with a RST.

    The server's program has ECONNRESET, the client's interface sees nothing of all this.
    """
    heard = [x.kind for x in spoken(server_first, "server") if x.dport == PORT]
    return (
        expect(heard, what="what came back").equals(["RST"])
        & expect(fate(server_first, "server"), what="server").equals("ECONNRESET")
        & expect(len(spoken(server_first, "client")), what="segments at the client").equals(0)
    )


@lab.check
def the_client_waits_for_ever(server_first: Evidence) -> Verdict:
    """The client is in ESTAB after that, and waits for octets; nobody will tell it."""
    left = [x.state for x in ends(server_first, "after", "client")]
    return expect(fate(server_first, "client"), what="client").equals("waiting") & expect(
        left, what="its end"
    ).equals(["ESTAB"])


@lab.check
def dropped_in_silence_both_are_stuck(dropped: Evidence) -> Verdict:
    """Where the NAT drops what it does not know, both ends repeat their octets and hear nothing."""
    sent = [[x for x in spoken(dropped, node) if x.length] for node in ENDS]
    own = [sum((x.dport == PORT) == (n == "client") for x in sent[i]) for i, n in enumerate(ENDS)]
    foreign = [len(found) - mine for found, mine in zip(sent, own, strict=True)]
    return (
        expect(fates(dropped), what="client, server").equals(["stuck", "stuck"])
        & expect(min(own), what="copies sent").at_least(1 + REPEATS)
        & expect(foreign, what="copies received").equals([0, 0])
    )


@lab.check
def reset_both_are_told(reset: Evidence) -> Verdict:
    """Where the NAT resets what it does not know, both programs have ECONNRESET at once."""
    return expect(fates(reset), what="client, server").equals(["ECONNRESET", "ECONNRESET"])


@lab.check(on=KEPT)
def who_speaks_in_time_is_remembered(each: Evidence) -> Verdict:
    """With a probe or a ping each 2 s the entry is there after more than 5 s; both are answered."""
    return expect(table(each, "silent"), what="known").equals(["ESTABLISHED"]) & expect(
        fates(each), what="client, server"
    ).equals(["answered", "answered"])


@lab.figure
def figures(
    client_first: Evidence, server_first: Evidence, dropped: Evidence, reset: Evidence,
    keepalive: Evidence, ping: Evidence,
) -> dict[str, str]:  # fmt: skip
    """What the guide tells of the runs."""
    runs = {
        "client_first": client_first,
        "server_first": server_first,
        "dropped": dropped,
        "reset": reset,
        "keepalive": keepalive,
        "ping": ping,
    }
    known = client_first.first(client_first.conntrack("spoken", "gw"), "an entry")
    entry = f"{known.state} {known.expires} s"
    return {
        **{f"{name}_{n}": fate(seen, n) for name, seen in runs.items() for n in ENDS},
        "entry": entry,
        "inside": f"{known.original.source}:{known.original.sport}",
        "outside": f"{known.reply.destination}:{known.reply.dport}",
        "rst": ", ".join(x.kind for x in spoken(server_first, "server") if x.dport == PORT),
    }


@lab.claim("C46")
def a_keepalive_each_minute(dropped: Evidence, keepalive: Evidence) -> Finding:
    """A keepalive each minute keeps the entry alive."""
    return depends(
        "the NAT's timeout, which must be longer than the keepalive's idle time",
        f"with {FORGETS:.0f} s: probes each {PING:.0f} s kept the connection "
        f"({', '.join(fates(keepalive))}), without any it was lost ({', '.join(fates(dropped))})",
    )


@lab.claim("C67")
def an_expired_entry_is_answered_by_a_reset(
    client_first: Evidence, server_first: Evidence, dropped: Evidence, reset: Evidence
) -> Finding:
    """A middlebox whose entry has expired answers with a reset."""
    return depends(
        "who speaks first, and the rules of the middlebox",
        f"plain NAT: client first {fate(client_first, 'client')}, server first "
        f"{fate(server_first, 'server')}; dropping: {fate(dropped, 'client')}; "
        f"resetting: {fate(reset, 'client')}",
    )


lab.fault(
    nat("gw", tcp_established="60s"),
    on="client-first",
    breaks=the_nat_forgets_and_nobody_knows,
    name="a NAT that remembers for a minute",
)
lab.fault(
    STRICT,
    on="client-first",
    breaks=a_loose_nat_learns_it_again_from_the_client,
    name="a strict NAT",
)
lab.fault(
    nat("gw", unsolicited="drop"),
    on="server-first",
    breaks=the_nat_itself_resets_a_server_that_speaks_first,
    name="a NAT that drops",
)
lab.fault(
    nat("gw", tcp_established="60s"),
    on="server-first",
    breaks=the_client_waits_for_ever,
    also=(the_nat_itself_resets_a_server_that_speaks_first, the_nat_forgets_and_nobody_knows),
    name="a NAT that remembers for a minute, the server first",
)
lab.fault(
    nat("gw", unsolicited="reset"),
    on="dropped",
    breaks=dropped_in_silence_both_are_stuck,
    name="a NAT that resets",
)
lab.fault(
    nat("gw", unsolicited="drop"),
    on="reset",
    breaks=reset_both_are_told,
    name="a NAT that is silent",
)
lab.fault(
    option(keepalive=int(FORGETS) + 1),
    on="keepalive",
    breaks=who_speaks_in_time_is_remembered,
    name="keepalive that comes too late",
)
