"""A SYN flood: what fills up, who is kept out, and how a server does without memory.

The exercise is in guide.md; the sources are RFC 4987 (SYN cookies in §3.6), tcp(7), and in Linux
tcp_conn_request() of net/ipv4/tcp_input.c and net/ipv4/syncookies.c. 200 forged SYNs fill a queue
for 32; they come from an address nobody has, so nobody takes them back.
"""

from __future__ import annotations

from itertools import pairwise

from netlab.analysis import ss
from netlab.analysis.timing import bucket
from netlab.labs import Evidence, Lab, Verdict, expect, option, sysctl, vary
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Stage, address, agent, count, counter, until_said
from netlab.units import ms, s

PORT = 8080
NOBODY = "198.51.100.7"
FLOOD, BACKLOG = 200, 32
SHORT = 16  # tcp_max_syn_backlog of short-queue
FEW = 3
PATIENCE = 2 * s  # far below the 7 s after which the queue empties
PROBES, STEP, PROBE_PORT = 4, 4000, 4242
PERIOD = 100 * ms
RETRIES = 2
LIFE = (2 ** (RETRIES + 1) - 1) * s  # 1 + 2 + 4 s
COUNTED = (
    "TcpExt.SyncookiesSent", "TcpExt.SyncookiesRecv", "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPReqQFullDoCookies",
)  # fmt: skip


lab = Lab(
    "A SYN flood",
    variations={
        "cookies-off": sysctl("server", "net.ipv4.tcp_syncookies", 0),
        "short-queue": vary(
            sysctl("server", "net.ipv4.tcp_syncookies", 0),
            sysctl("server", "net.ipv4.tcp_max_syn_backlog", SHORT),
            backlog=4 * BACKLOG,
        ),
        "cookies-on": sysctl("server", "net.ipv4.tcp_syncookies", 1),
        "cookies-always": sysctl("server", "net.ipv4.tcp_syncookies", 2),
        "no-timestamps": vary(
            sysctl("server", "net.ipv4.tcp_syncookies", 2),
            sysctl("client", "net.ipv4.tcp_timestamps", 0),
        ),
        "retries-2": vary(sysctl("server", "net.ipv4.tcp_synack_retries", RETRIES), what="retries"),
    },
    ladder="client:eth0",
)
FULL = ("cookies-off", "short-queue", "cookies-on")
SAVED = ("cookies-on", "cookies-always", "no-timestamps")


@lab.scenario
def flood(
    stage: Stage,
    *,
    what: str = "flood",
    forged: int = FLOOD,
    backlog: int = BACKLOG,
    step_port: int = 0,
) -> None:
    """Forged SYNs arrive at a server; then a client would like to connect."""
    to = address(stage.topology, "server")
    serve = agent("crowd", "serve", "--address", to, "--backlog", backlog)
    with stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)):
        if what == "retries":
            wait_for_nobody(stage)
            return
        count(stage, "before", "server", names=COUNTED)
        stage.capture("client:eth0", filter=f"tcp port {PORT}")
        probed = f"tcp dst portrange {PROBE_PORT}-{PROBE_PORT + PROBES - 1}"
        stage.capture("server:eth0", filter=probed, name="answers")
        if forged:
            inject(stage, "server", forged, "--sport", 10_000, "--step-sport", 1)
        stage.snapshot("flooded", "server")
        argv = agent("crowd", "connect", to, "--timeout", PATIENCE, "--stay")
        with stage.node("client").spawn("connect", argv) as talking:
            until_said(stage, talking, "waiting")
            stage.snapshot("connected", "server")
        inject(
            stage, "server", PROBES, "--sport", PROBE_PORT,
            "--step-sport", step_port, "--seq", 1000, "--step-seq", STEP,
        )  # fmt: skip
        count(stage, "after", "server", names=COUNTED)


def inject(stage: Stage, victim: str, many: int, *segment: object) -> None:
    """Send forged SYNs from nobody's address, and wait until the victim has received them."""
    to = address(stage.topology, victim)
    seen = counter(stage, victim, "Tcp.InSegs")
    ends = ("--source", NOBODY, "--destination", to, "--count", many, "--rate", 1000)
    syn = ("tcp", *segment, "--dport", PORT, "--option", "mss=1460", "--option", "sackok")
    stage.node("attacker").run(agent("injector", "send", *ends, *syn), timeout=30)
    stage.until(
        lambda: counter(stage, victim, "Tcp.InSegs") >= seen + many,
        timeout=20,
        what=f"{many} forged SYNs to arrive",
    )


def wait_for_nobody(stage: Stage) -> None:
    """A few forged SYNs to a server that repeats its SYN-ACK twice, and to one with the default."""
    to = address(stage.topology, "patient")
    serve = agent("crowd", "serve", "--address", to)
    with stage.node("patient").spawn("serve", serve, ready=Ready.port(PORT)):
        sampler = stage.sample("server", every=PERIOD, ports=[PORT])
        for victim in ("patient", "server"):
            inject(stage, victim, FEW, "--sport", 10_000, "--step-sport", 1)
        waiting = ["ss", "-tanH", "state", "syn-recv"]
        stage.until(
            lambda: not stage.node("server").run(waiting).stdout.strip(),
            timeout=40,
            every=PERIOD,
            what="the server to forget the forged SYNs",
        )
        stage.settle(3 * PERIOD, because="the sampler must see that they are gone")
        stage.snapshot("later", "server", "patient")
        sampler.stop()


def half_open(seen: Evidence, label: str = "flooded", node: str = "server") -> list[ss.Socket]:
    """Return the sockets in SYN-RECV."""
    return [found for found in seen.snapshot(label, node) if found.state == "SYN-RECV"]


def connected(seen: Evidence) -> int:
    """Return how many connections the client got: 1 or none."""
    return int(seen.step("client", "connect", "connected")["count"])


@lab.check(on=FULL)
def the_queue_is_full_and_no_longer(each: Evidence) -> Verdict:
    """Of 200 forged SYNs as many wait in SYN-RECV as there is room for, or one more.

    Room: the backlog of listen(); without cookies at most three quarters of tcp_max_syn_backlog.
    """
    bound = {"short-queue": SHORT - SHORT // 4}.get(each.variation, BACKLOG)
    return expect(len(half_open(each)), what="in SYN-RECV").between(bound, bound + 1)


@lab.check(on=("cookies-off", "short-queue"), timing=True)
def without_cookies_a_client_stays_outside(each: Evidence) -> Verdict:
    """With tcp_syncookies=0 a real client's SYN is dropped like a forged one: no answer.

    That lasts 7 s: a queue more than half full gives up after two repetitions of a SYN-ACK.
    """
    failed = dict(each.step("client", "connect", "connected")["failed"])
    answers = [found.kind for found in each.capture("client:eth0").segments if not found.forward]
    none = expect([connected(each), *sorted(failed)], what="connected, error")
    return none.equals([0, "timeout"]) & expect(answers, what="answers").equals([])


@lab.check(on=SAVED, timing=True)
def with_cookies_a_client_gets_in(each: Evidence) -> Verdict:
    """With tcp_syncookies 1 or 2 a real client is connected during the flood."""
    return expect(connected(each), what="connected").equals(1)


@lab.check(on=SAVED)
def cookies_take_the_place_of_memory(each: Evidence) -> Verdict:
    """What finds no room is answered with a cookie; with tcp_syncookies=2 everything is.

    The client's last ACK brings a cookie back.
    """
    kept = BACKLOG + 1 if each.variation == "cookies-on" else 0
    sent = each.counted("server", "TcpExt.SyncookiesSent")
    received = each.counted("server", "TcpExt.SyncookiesRecv")
    enough = expect(sent, what="SyncookiesSent").at_least(FLOOD - kept)
    return enough & expect(received, what="SyncookiesRecv").at_least(1)


@lab.check
def with_cookies_alone_nothing_is_remembered(cookies_always: Evidence) -> Verdict:
    """With tcp_syncookies=2 no forged SYN leaves anything behind: none is in SYN-RECV."""
    return expect(len(half_open(cookies_always)), what="in SYN-RECV").equals(0)


@lab.check
def a_cookie_is_computed_from_the_syn(cookies_always: Evidence) -> Verdict:
    """Of four SYNs with numbers 4000 apart, all else equal, the answers are 4000 apart too.

    A number from a clock and a memory would not be. The secret changes each minute (a count of
    minutes is in the cookie), so one of the three steps may differ.
    """
    answers = [found for found in cookies_always.capture("answers").segments if found.is_syn_ack]
    found = [(b.seq_raw - a.seq_raw) % 2**32 for a, b in pairwise(answers)]
    if len(found) < PROBES - 1:
        return expect(None, what="an answer to each probe").equals(PROBES)
    equal = sum(step == STEP for step in found)
    return expect(equal, what=f"steps of {STEP:,} among {len(found)}").at_least(PROBES - 2)


@lab.check
def options_come_back_in_the_timestamp_or_not_at_all(
    cookies_always: Evidence, no_timestamps: Evidence
) -> Verdict:
    """A cookie has room for the MSS alone: without timestamps window scaling and SACK are lost."""
    offered: list[list[bool]] = []
    for seen in (cookies_always, no_timestamps):
        segments = seen.capture("client:eth0").segments
        answer = seen.first((x for x in segments if x.is_syn_ack), "a SYN-ACK for the client")
        offered.append([answer.wscale is not None, answer.sack_permitted])
    return expect(offered, what="scaling and SACK, with timestamps and without").equals(
        [[True, True], [False, False]]
    )


def life(seen: Evidence) -> float | None:
    """Return the seconds a forged connection was in SYN-RECV; None if its end was not seen."""
    changes = {state: at for at, state in seen.samples("server").states(PORT)}
    if not {"SYN-RECV", "CLOSED"} <= changes.keys():
        return None
    return (changes["CLOSED"] - changes["SYN-RECV"]) / 1e9


@lab.check(timing=True)
def fewer_retries_end_syn_recv_earlier(retries_2: Evidence) -> Verdict:
    """With tcp_synack_retries=2 SYN-RECV lasts 1 + 2 + 4 s; with the default it still goes on.

    Each of the three timers may be late by a bucket of the timer wheel.
    """
    late = 2 * PERIOD + retries_2.samples("server").worst_late
    buckets = sum(bucket(2**n * s, retries_2.recording.manifest.hz) for n in range(RETRIES + 1))
    bound = LIFE + buckets + late + 50 * ms
    lasted = expect(life(retries_2), "s", what="SYN-RECV").between(LIFE - late, bound)
    still = half_open(retries_2, "later", "patient")
    return lasted & expect(len(still), what="waiting with the default").equals(FEW)


lab.fault(
    sysctl("server", "net.ipv4.tcp_max_syn_backlog", 4 * SHORT),
    on="short-queue",
    breaks=the_queue_is_full_and_no_longer,
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_syncookies", 1),
    on="cookies-off",
    breaks=without_cookies_a_client_stays_outside,
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_syncookies", 0),
    on="cookies-on",
    breaks=with_cookies_a_client_gets_in,
    also=(cookies_take_the_place_of_memory,),
)
lab.fault(
    option(forged=0),
    on="cookies-always",
    breaks=cookies_take_the_place_of_memory,
    name="no flood",
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_syncookies", 1),
    on="cookies-always",
    breaks=with_cookies_alone_nothing_is_remembered,
    also=(cookies_take_the_place_of_memory,),
)
lab.fault(
    option(step_port=1),
    on="cookies-always",
    breaks=a_cookie_is_computed_from_the_syn,
    name="the probes come from different ports",
)
lab.fault(
    sysctl("client", "net.ipv4.tcp_timestamps", 1),
    on="no-timestamps",
    breaks=options_come_back_in_the_timestamp_or_not_at_all,
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_synack_retries", 1),
    on="retries-2",
    breaks=fewer_retries_end_syn_recv_earlier,
)


@lab.figure
def figures(
    cookies_off: Evidence,
    short_queue: Evidence,
    cookies_on: Evidence,
    cookies_always: Evidence,
    retries_2: Evidence,
) -> dict[str, str]:
    """What the guide tells of the runs."""
    return {
        "half_open": str(len(half_open(cookies_off))),
        "short": str(len(half_open(short_queue))),
        "half_open_on": str(len(half_open(cookies_on))),
        "sent": str(cookies_on.counted("server", "TcpExt.SyncookiesSent")),
        "sent_always": str(cookies_always.counted("server", "TcpExt.SyncookiesSent")),
        "life": f"{life(retries_2) or 0:.1f}",
    }


@lab.claim("C35")
def real_clients_get_through(cookies_off: Evidence, cookies_on: Evidence) -> Finding:
    """With cookies real clients get through a flood."""
    told = f"connections of a real client: {connected(cookies_on)} with, {connected(cookies_off)} "
    return holds((connected(cookies_off), connected(cookies_on)) == (0, 1), told + "without")


@lab.claim("C36")
def nothing_is_remembered(cookies_always: Evidence) -> Finding:
    """Nothing is stored until the cookie comes back."""
    waiting = len(half_open(cookies_always))
    sent = cookies_always.counted("server", "TcpExt.SyncookiesSent")
    return holds(waiting == 0 and sent, f"{waiting} in SYN-RECV after {sent} cookies")


@lab.claim("C37")
def two_retries_are_shorter(retries_2: Evidence) -> Finding:
    """tcp_synack_retries=2 makes SYN-RECV shorter."""
    still = len(half_open(retries_2, "later", "patient"))
    told = f"{life(retries_2) or 0:.1f} s; {still} of {FEW} with the default wait on after that"
    return holds(fewer_retries_end_syn_recv_earlier(retries_2).passed, told)
