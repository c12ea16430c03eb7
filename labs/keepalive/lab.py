"""Keepalive: how an idle end finds out that nobody is there any more, and when.

The exercise is in guide.md; the rules are RFC 9293 §3.8.4 and RFC 1122 §4.2.3.6, tcp(7)
(tcp_keepalive_time, _intvl, _probes) and tcp_keepalive_timer in net/ipv4/tcp_timer.c.
"""

from __future__ import annotations

from signal import SIGUSR1

from netlab.analysis import ss
from netlab.analysis.segments import Segment
from netlab.analysis.timing import WORST_HZ, bucket
from netlab.labs import Evidence, Lab, Verdict, expect, on_request, option
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Match, Ready, Stage, address, agent, counter, keep, until_said
from netlab.units import ms, s

PORT = 8080
SLACK = 50 * ms
SHORT = "2/1/3"  # idle / interval / probes, in seconds
WATCHED = 2  # probes seen where the peer is alive
KERNEL = tuple(f"net.ipv4.tcp_keepalive_{word}" for word in ("time", "intvl", "probes"))

lab = Lab(
    "Keepalive",
    variations={
        "dead-peer": option(times=SHORT),
        "living-peer": option(times=SHORT, cut=False, living=True),
        "off": option(times="", watched=5 * s),
        "60-10-5": option(times="60/10/5", cut=False, watched=0),
        "60-10-3": option(times="60/10/3", cut=False, watched=0),
        "defaults": option(times="kernel", cut=False, watched=0),
        "60-10-5-to-the-end": on_request(110 * s, option(times="60/10/5")),
        "60-10-3-to-the-end": on_request(90 * s, option(times="60/10/3")),
    },
    ladder="client:eth0",
)
DEAD = ("dead-peer", "60-10-5-to-the-end", "60-10-3-to-the-end")
PROBED = (*DEAD, "living-peer")
ARMED = ("60-10-5", "60-10-3", "defaults")


@lab.scenario
def be_silent(
    stage: Stage,
    *,
    times: str = SHORT,
    really: str = "",
    cut: bool = True,
    living: bool = False,
    watched: float | None = None,
    data: bool = False,
    hide_one: bool = False,
    server_probes: str = "",
) -> None:
    """Two ends exchange five octets and fall silent; then the far link is cut, or is not."""
    to = address(stage.topology, "server")
    server, client = stage.node("server"), stage.node("client")
    keep(stage, "sysctls", "client", "sysctl", *KERNEL)
    answer = ["listen", "accept", *option_of(server_probes), "recv=5", "send=5", "recv-eof"]
    talk = ["connect", *option_of(really or times), "send=5", "recv=5"]
    talk += ["wait", "send=5"] if data else []
    serve = agent("actor", "--address", to, "--keep-going", *answer)
    connect = agent("actor", "--address", to, "--keep-going", *talk, "recv-eof")
    with (
        stage.capture("client:eth0", filter=f"tcp port {PORT}") as capture,
        server.spawn("serve", serve, ready=Ready.port(PORT)),
        client.spawn("connect", connect) as talking,
    ):
        until_said(stage, talking, "received")
        stage.until(lambda: acknowledged(stage), timeout=10, what="the last ACK to arrive")
        stage.snapshot("idle", "client", "server")
        # ARP would find out too, after half a minute or so, and probes would not leave any more.
        client.run(["ip", "neigh", "change", to, "dev", "eth0", "nud", "permanent"])
        if cut:
            stage.node("middle").run(["ip", "link", "set", "out", "down"])
            stage.recording.event("cut", at_ns=stage.now_ns())
        if data:
            talking.signal(SIGUSR1)
        if hide_one:
            probe = Match(tcp_flags="ack", mask="syn,ack,fin,rst", dport=PORT, first=True)
            stage.enter(client.hold(probe))
        if watched is not None:
            stage.settle(watched, because="whoever says nothing must be watched for some time")
        elif living:
            stage.until(
                lambda: counter(stage, "client", "TcpExt.TCPKeepAlive") >= WATCHED,
                timeout=30,
                what=f"{WATCHED} probes",
            )
        else:
            talking.wait(total(times) * 9 / 8 + 20)
        stage.snapshot("later", "client", "server")
        capture.stop()


def option_of(times: str) -> list[str]:
    """Return what tells a program to probe: with times of its own, with the kernel's, or not."""
    return {"": [], "kernel": ["keepalive"]}.get(times, [f"keepalive={times}"])


def acknowledged(stage: Stage) -> bool:
    """Tell whether the client has acknowledged everything."""
    shown = ss.parse(stage.node("server").run(["ss", "-tan"]).stdout)
    return all(x.send_q == 0 for x in shown if x.state == "ESTAB")


def numbers(times: str) -> tuple[int, int, int]:
    """Return idle, interval and probes of a text such as "2/1/3"."""
    idle, interval, probes = (int(word) for word in times.split("/"))
    return idle, interval, probes


def total(times: str) -> float:
    """Return the seconds from the last segment of the peer to the end."""
    idle, interval, probes = numbers(times)
    return idle + interval * probes


def asked(seen: Evidence) -> tuple[int, int, int]:
    """Return what the run was asked to use; of the kernel's defaults, what its sysctls say."""
    times = str(seen.option("times"))
    if times != "kernel":
        return numbers(times)
    lines = (line.partition(" = ") for line in seen.text("client", "sysctls").splitlines())
    values = {key: int(value) for key, _, value in lines}
    idle, interval, probes = (values[key] for key in KERNEL)
    return idle, interval, probes


def last_heard(seen: Evidence) -> Segment:
    """Return the last segment with data that the client received."""
    heard = [x for x in seen.capture("client:eth0").on_port(PORT) if x.length and not x.forward]
    return seen.first(reversed(heard), "data from the server")


def after(seen: Evidence) -> tuple[Segment, ...]:
    """Return what was on the wire once both had spoken and everything was acknowledged."""
    segments = seen.capture("client:eth0").on_port(PORT)
    spoken = last_heard(seen)
    ack = seen.first((x for x in segments if x.forward and x.frame > spoken.frame), "its ACK")
    return tuple(x for x in segments if x.frame > ack.frame)


def probes(seen: Evidence) -> tuple[Segment, ...]:
    """Return what the client sent when it had nothing to say."""
    return tuple(x for x in after(seen) if x.forward and not x.rst and not x.fin)


def next_number(seen: Evidence) -> int:
    """Return the number of the client's next octet: one after the last it has sent."""
    sent = [x for x in seen.capture("client:eth0").on_port(PORT) if x.forward and x.length]
    last = seen.first(reversed(sent), "data of the client")
    return (last.seq_raw + last.length) % 2**32


def late(seen: Evidence, wait: float) -> float:
    """Return by how much a timer may be late."""
    return bucket(wait, seen.recording.manifest.hz)


def tick(seen: Evidence) -> float:
    """Return by how much the first probe may be early: silence is counted in whole ticks."""
    return 1 / (seen.recording.manifest.hz or WORST_HZ)


def socket(seen: Evidence, label: str, node: str) -> ss.Socket | None:
    """Return the connection as `ss` showed it on a node; None if there was none."""
    shown = seen.snapshot(label, node)
    return next((x for x in shown if x.state != "LISTEN"), None)


def state(seen: Evidence, label: str, node: str) -> str:
    """Return the state of the connection, "gone" if there is none."""
    found = socket(seen, label, node)
    return found.state if found else "gone"


def error(seen: Evidence) -> str:
    """Return what the client's program was told in the end."""
    return str(seen.step("client", "connect", "failed")["errno"])


def lasted(seen: Evidence) -> float:
    """Return the seconds from the last segment of the peer to the error."""
    end = int(seen.step("client", "connect", "failed")["at_ns"])
    return (end - last_heard(seen).time_ns) / 1e9


@lab.check(on=PROBED)
def a_probe_is_old_and_empty(each: Evidence) -> Verdict:
    """A probe is an ACK without data whose number is one less than the next one due."""
    old = (next_number(each) - 1) % 2**32
    found = {(x.kind, x.length, x.seq_raw) for x in probes(each)}
    each.first(found, "a probe")
    return expect(sorted(found), what="kind, octets, number").equals([("ACK", 0, old)])


@lab.check(on=DEAD, timing=True)
def probes_come_when_they_should(each: Evidence) -> Verdict:
    """The first probe comes after the idle time, each other an interval later; all are sent.

    The kernel notes the tick in which it heard from the peer, so the silence may be shorter than it
    thinks by one tick; timers are never early, and late by one bucket at most.
    """
    idle, interval, count = asked(each)
    times = [(x.time_ns - last_heard(each).time_ns) / 1e9 for x in probes(each)]
    bounds = [
        (
            idle + n * interval - tick(each),
            idle + n * interval + late(each, idle) + n * late(each, interval),
        )
        for n in range(count)
    ]
    off = [
        round(time, 3)
        for time, (low, high) in zip(times, bounds, strict=False)
        if not low <= time <= high + SLACK
    ]
    return expect(len(times), what="probes").equals(count) & expect(
        off, "s", what="not in time"
    ).equals([])


@lab.check(on=DEAD, timing=True)
def a_dead_peer_is_found_one_interval_after_the_last_probe(each: Evidence) -> Verdict:
    """The program has ETIMEDOUT after idle + interval x probes seconds, late by their buckets."""
    idle, interval, count = asked(each)
    due = idle + interval * count
    latest = due + late(each, idle) + count * late(each, interval) + SLACK
    told = expect(error(each)).equals("ETIMEDOUT")
    return expect(lasted(each), "s").between(due - tick(each), latest) & told


@lab.check
def the_other_end_knows_nothing(dead_peer: Evidence) -> Verdict:
    """When the client has given up, the server, which does not probe, is still in ESTAB."""
    states = [state(dead_peer, "later", node) for node in ("client", "server")]
    return expect(states, what="client, server").equals(["gone", "ESTAB"])


@lab.check
def a_living_peer_answers_each_probe(living_peer: Evidence) -> Verdict:
    """Each probe is answered by an ACK of the next number, and the connection stays."""
    found = after(living_peer)
    living_peer.first(probes(living_peer), "a probe")
    answers = [x.ack_raw for x in found if not x.forward]
    right = [next_number(living_peer)] * len(probes(living_peer))
    return expect(answers, what="acknowledged").equals(right) & expect(
        state(living_peer, "later", "client")
    ).equals("ESTAB")


@lab.check
def without_keepalive_nobody_notices(off: Evidence) -> Verdict:
    """With the link cut and no keepalive nothing is sent, and both ends stay in ESTAB."""
    off.event("cut")
    states = [state(off, "later", node) for node in ("client", "server")]
    return expect(len(after(off)), what="segments").equals(0) & expect(
        states, what="client, server"
    ).equals(["ESTAB", "ESTAB"])


@lab.check(on=ARMED)
def the_timer_is_set_to_the_idle_time(each: Evidence) -> Verdict:
    """`ss -o` shows a keepalive timer with the idle time left, less the time since it was set.

    `ss` cuts off what is less than a second, and above ten minutes what is less than a minute.
    """
    found = socket(each, "idle", "client")
    timer = found.timer if found else None
    if timer is None:
        return expect("no timer", what="ss shows").equals("keepalive")
    idle = asked(each)[0]
    began = int(each.step("client", "connect", "connected")["at_ns"])
    looked = each.event("snapshot", label="idle", node="client").at_ns
    grain = 60 * s if idle >= 600 else 1 * s
    left = idle - (looked - began) / 1e9 - SLACK - grain
    return expect(timer.kind, what="timer").equals("keepalive") & expect(
        timer.expires, "s", what="left"
    ).between(left, idle + late(each, idle))


@lab.check(on=ARMED)
def the_socket_uses_the_times_that_were_asked_for(each: Evidence) -> Verdict:
    """getsockopt() returns the times of the options or, without them, those of the sysctls."""
    told = each.step("client", "connect", "keepalive")
    found = tuple(int(told[name]) for name in ("idle", "interval", "probes"))
    return expect(found, what="idle, interval, probes").equals(asked(each))


@lab.figure
def figures(dead_peer: Evidence, living_peer: Evidence, defaults: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    heard = last_heard(dead_peer).time_ns
    times = [(x.time_ns - heard) / 1e9 for x in probes(dead_peer)]
    idle, interval, count = asked(defaults)
    whole = idle + interval * count
    timer = found.timer if (found := socket(defaults, "idle", "client")) else None
    return {
        "probes": ", ".join(f"{time:.2f}" for time in times),
        "took": f"{lasted(dead_peer):.2f} s",
        "error": error(dead_peer),
        "left_over": state(dead_peer, "later", "server"),
        "answers": str(sum(not x.forward for x in after(living_peer))),
        "back": str((next_number(dead_peer) - probes(dead_peer)[0].seq_raw) % 2**32),
        "idle": str(idle),
        "interval": str(interval),
        "count": str(count),
        "whole": f"{whole} s",
        "clock": f"{whole // 3600} h {whole % 3600 // 60} min {whole % 60} s",
        "timer": f"{timer.expires / 60:.0f} min" if timer else "none",
    }


@lab.claim("C33")
def two_hours_and_eleven_minutes(defaults: Evidence, dead_peer: Evidence) -> Finding:
    """The defaults are 7200, 75 and 9, and the sum is what it takes."""
    told = defaults.step("client", "connect", "keepalive")
    found = tuple(int(told[name]) for name in ("idle", "interval", "probes"))
    whole = found[0] + found[1] * found[2]
    short = total(str(dead_peer.option("times")))
    return holds(
        found == (7200, 75, 9),
        f"{found[0]} s, {found[1]} s and {found[2]} probes by default, {whole} s in all; "
        f"shorter times whose sum is {short:.0f} s took {lasted(dead_peer):.2f} s",
    )


@lab.claim("C34")
def an_ack_without_data(dead_peer: Evidence) -> Finding:
    """A probe is an ACK without data."""
    found = sorted({(x.kind, x.length) for x in probes(dead_peer)})
    back = (next_number(dead_peer) - probes(dead_peer)[0].seq_raw) % 2**32
    return holds(found == [("ACK", 0)], f"ACK, 0 octets, {back} less than the next number")


lab.fault(
    option(data=True),
    on="living-peer",
    breaks=a_probe_is_old_and_empty,
    name="the client is not silent",
)
lab.fault(
    option(hide_one=True),
    on="dead-peer",
    breaks=probes_come_when_they_should,
    name="the client's own firewall drops a probe",
)
lab.fault(
    option(really="2/1/1"),
    on="dead-peer",
    breaks=a_dead_peer_is_found_one_interval_after_the_last_probe,
    also=(probes_come_when_they_should,),
    name="the program asks for one probe",
)
lab.fault(
    option(server_probes="2/1/1"),
    on="dead-peer",
    breaks=the_other_end_knows_nothing,
    name="the server probes too",
)
lab.fault(
    option(cut=True),
    on="living-peer",
    breaks=a_living_peer_answers_each_probe,
    name="the link is cut",
)
lab.fault(
    option(really=SHORT),
    on="off",
    breaks=without_keepalive_nobody_notices,
    name="the program asks for keepalive",
)
lab.fault(
    option(really="30/10/3"),
    on="60-10-3",
    breaks=the_timer_is_set_to_the_idle_time,
    also=(the_socket_uses_the_times_that_were_asked_for,),
    name="a shorter idle time",
)
lab.fault(
    option(really="60/10/4"),
    on="60-10-5",
    breaks=the_socket_uses_the_times_that_were_asked_for,
    name="one probe less",
)
