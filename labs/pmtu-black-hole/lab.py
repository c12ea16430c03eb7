"""A black hole of path MTU discovery: it connects, it greets, and then it hangs.

The exercise is in guide.md; RFC 2923 §2.1 describes the trouble, RFC 4821 the cure by probing. The
router before the small link drops packets that are too large and is kept from saying so. What is
small passes, so everything looks well until the first full segment.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from math import inf

from netlab.analysis.segments import Segment
from netlab.labs import (
    Evidence,
    Lab,
    Variation,
    Verdict,
    expect,
    mtu,
    option,
    packets,
    sysctl,
    vary,
)
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Family, Ready, Stage, address, agent, count, proceed, wired
from netlab.units import ms

PORT = 5000
GREETING = 64
OCTETS = 30_000
FULL, SMALL = 1500, 1400
RTO = 0.2
"""Linux waits at least that long for an acknowledgement (TCP_RTO_MIN)."""
SUSPICION = 15 * RTO
"""From the first retransmission until tcp_retries1 = 3 counts as exceeded (tcp_model_timeout)."""
WATCHED = 2.5
"""Seconds for which a transfer must stand still to be called hanging."""


def remedy(*changes: Variation, **options: object) -> Variation:
    """One way out of the black hole: the transfer is waited for."""
    return vary(*changes, hangs=False, **options)


COUNTED = ("Icmp.InDestUnreachs", "Icmp6.InPktTooBigs", "Ip.FragFails", "Ip6.FragFails")

lab = Lab(
    "A black hole of path MTU discovery",
    variations={
        "black-hole": vary(),
        "black-hole-ipv6": option(family="ipv6"),
        "probing-1": remedy(sysctl("client", "net.ipv4.tcp_mtu_probing", 1)),
        "probing-2": remedy(sysctl("client", "net.ipv4.tcp_mtu_probing", 2)),
        "clamp": remedy(clamp=True),
        "lower-mtu": remedy(mtu("left", SMALL)),
        "allow-icmp": remedy(silent=False),
    },
)
HOLES = ("black-hole", "black-hole-ipv6")
REMEDIES = ("probing-1", "probing-2", "clamp", "lower-mtu", "allow-icmp")
AT_ONCE = ("probing-2", "clamp", "lower-mtu", "allow-icmp")


@lab.scenario
def greet_then_send(
    stage: Stage,
    *,
    family: Family = "ipv4",
    silent: bool = True,
    clamp: bool = False,
    hangs: bool = True,
    greeting: int = GREETING,
    octets: int = OCTETS,
) -> None:
    """Connect, exchange a greeting, send more than a packet; watch it hang or wait for its end."""
    client, server = stage.node("client"), stage.node("server")
    to = address(stage.topology, "server", family)
    captures = [
        stage.capture(f"{node}:eth0", filter="tcp or icmp or icmp6", snaplen=90)
        for node in ("client", "server")
    ]
    common = ("--port", PORT, "--greeting", greeting, "--congestion", "cubic")
    with ExitStack() as stack:
        if silent or clamp:
            stack.enter_context(wired(stage, "hole", ruleset(silent, clamp), "r1"))
        serve = agent("bulk", "serve", "--address", to, "--bytes", octets, *common)
        serving = stack.enter_context(server.spawn("serve", serve, ready=Ready.port(PORT)))
        send = agent("bulk", "send", to, "--bytes", octets, "--step", *common)
        sending = stack.enter_context(client.spawn("send", send))
        proceed(stage, sending, "send", go=False)
        count(stage, "before", "client", "r1", names=COUNTED)
        with stage.phase("transfer"):
            proceed(stage, sending, "send")
            if hangs:
                stage.settle(WATCHED, because="a transfer that stands still has to be watched")
            else:
                stage.until(
                    lambda: "received" in serving.stdout, timeout=30, what="the whole transfer"
                )
        stage.snapshot("later", "client")
        count(stage, "after", "client", "r1", names=COUNTED)
    for capture in captures:
        capture.stop()


def ruleset(silent: bool, clamp: bool) -> str:
    """Return rules for the router: say nothing about what is too large; clamp the MSS of SYNs."""
    rules = ["table inet hole {"]
    if silent:
        rules += ["chain say {", "type filter hook output priority 0"]
        rules += ["icmp type destination-unreachable icmp code frag-needed drop"]
        rules += ["icmpv6 type packet-too-big drop", "}"]
    if clamp:
        rules += ["chain pass {", "type filter hook forward priority 0"]
        rules += ["tcp flags syn tcp option maxseg size set rt mtu", "}"]
    return "\n".join([*rules, "}"]) + "\n"


def headers(seen: Evidence) -> int:
    """Return the octets before the data of a segment with timestamps."""
    return 72 if seen.option("family") == "ipv6" else 52


def data_sent(seen: Evidence) -> tuple[Segment, ...]:
    """Return the segments of data that the client sent after the greeting."""
    began = seen.phase("transfer").start_ns
    segments = seen.capture("client:eth0").on_port(PORT)
    return tuple(s for s in segments if s.forward and s.length and s.time_ns >= began)


def arrived(seen: Evidence) -> tuple[Segment, ...]:
    """Return the segments of data that reached the server after the greeting."""
    began = seen.phase("transfer").start_ns
    segments = seen.capture("server:eth0").on_port(PORT)
    return tuple(s for s in segments if s.forward and s.length and s.time_ns >= began)


def took(seen: Evidence) -> float:
    """Return the seconds from the first segment of the transfer to its last octet's arrival."""
    first = seen.first(data_sent(seen), "data of the transfer").time_ns
    ends = [s["last_ns"] for s in seen.steps("server", "serve") if s.word == "received"]
    whole = [s["bytes"] for s in seen.steps("server", "serve") if s.word == "received"]
    return (ends[0] - first) / 1e9 if whole == [OCTETS] else inf


def repeated(seen: Evidence) -> list[Segment]:
    """Return the first segment of the transfer and its copies."""
    sent = data_sent(seen)
    first = seen.first(sent, "data of the transfer")
    return [s for s in sent if s.seq == first.seq and s.length == first.length]


@lab.check
def small_messages_pass(each: Evidence) -> Verdict:
    """The connection is made and a greeting of 64 octets comes back, black hole or not."""
    words = [s.word for s in each.steps("client", "send")]
    greeted = [s["bytes"] for s in each.steps("client", "send") if s.word == "greeted"]
    return expect(words[:1]).equals(["connected"]) & expect(greeted, what="greeting").equals(
        [GREETING]
    )


@lab.check(on=HOLES)
def the_large_transfer_stands_still(each: Evidence) -> Verdict:
    """In 2.5 s not one full segment reaches the server, and the program is told nothing."""
    full = [s.length for s in arrived(each) if s.length + headers(each) > SMALL]
    finished = [s.word for s in each.steps("server", "serve") if s.word == "received"]
    return expect(len(full), what="full segments that arrived").equals(0) & expect(
        finished, what="whole transfers"
    ).equals([])


@lab.check(on=HOLES, timing=True)
def full_segments_are_sent_again_and_again(each: Evidence) -> Verdict:
    """The first full segment leaves at least three times, each wait twice the one before."""
    copies = repeated(each)
    times = [s.time_ns for s in copies]
    # A tail loss probe may come first; timeouts are the waits of 200 ms and more (RTO at least).
    waits = [(b - a) / 1e9 for a, b in pairwise(times)]
    long = [wait for wait in waits if wait >= 0.2]
    ratios = [b / a for a, b in pairwise(long)]
    size = data_sent(each)[0].length + headers(each)
    return (
        expect(size, "B", what="size").equals(FULL)
        & expect(len(times), what="copies sent", seen_in=packets("client:eth0", copies)).at_least(3)
        & expect([round(r, 2) for r in ratios if not 1.7 <= r <= 2.4], what="odd ratios").equals([])
    )


@lab.check(on=HOLES)
def nobody_says_why(each: Evidence) -> Verdict:
    """The router drops the packets and counts them; no ICMP error reaches the client."""
    six = each.option("family") == "ipv6"
    heard = each.counted("client", "Icmp6.InPktTooBigs" if six else "Icmp.InDestUnreachs")
    failed = each.counted("r1", "Ip6.FragFails" if six else "Ip.FragFails")
    return expect(heard, what="errors heard").equals(0) & expect(
        failed, what="packets too large at the router"
    ).at_least(3)


@lab.check(on=REMEDIES)
def each_remedy_carries_it_all(each: Evidence) -> Verdict:
    """With the remedy all 30,000 octets arrive unchanged, in packets of at most 1400 octets."""
    received = each.step("server", "serve", "received")
    largest = max((s.length + headers(each) for s in arrived(each)), default=0)
    whole = expect([received["bytes"], received["as_sent"]]).equals([OCTETS, True])
    return whole & expect(largest, "B", what="largest packet").at_most(SMALL)


@lab.check(on=AT_ONCE, timing=True)
def four_remedies_cost_nothing(each: Evidence) -> Verdict:
    """Clamp, lower MTU, ICMP allowed and probing from the start need no timeout: under 200 ms."""
    return expect(took(each), "s").below(200 * ms)


@lab.check(timing=True)
def probing_on_suspicion_costs_timeouts(probing_1: Evidence) -> Verdict:
    """tcp_mtu_probing=1 acts once retransmissions have been in vain for 3 s: after 3.2 to 8 s."""
    return expect(took(probing_1), "s").between(SUSPICION + RTO, 31 * RTO * 9 / 8 + 1)


def show(seconds: float) -> str:
    """Return a time as a learner reads it."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


@lab.figure
def figures(
    black_hole: Evidence,
    probing_1: Evidence,
    probing_2: Evidence,
    clamp: Evidence,
    lower_mtu: Evidence,
    allow_icmp: Evidence,
) -> dict[str, str]:
    """Return the figures of the guide."""
    waits = [s.time_ns for s in repeated(black_hole)]
    times = {
        "probing_1": probing_1,
        "probing_2": probing_2,
        "clamp": clamp,
        "lower_mtu": lower_mtu,
        "allow_icmp": allow_icmp,
    }
    return {
        "copies": str(len(waits)),
        "waits": ", ".join(f"{(b - a) / 1e9:.3f} s" for a, b in pairwise(waits)),
        **{name: show(took(seen)) for name, seen in times.items()},
    }


@lab.claim("C57")
def connects_then_hangs(black_hole: Evidence, probing_1: Evidence) -> Finding:
    """See what passes and what does not, and whether probing cures it."""
    greeted = [s.word for s in black_hole.steps("client", "send") if s.word == "greeted"]
    full = [s for s in arrived(black_hole) if s.length + headers(black_hole) > SMALL]
    return holds(
        greeted and not full,
        f"greeting of {GREETING} octets passed, {len(full)} full segments of {OCTETS} octets in "
        f"{WATCHED} s and more; with tcp_mtu_probing=1 all of it in {took(probing_1):.2f} s",
    )


lab.fault(
    option(greeting=0),
    on="black-hole",
    breaks=small_messages_pass,
    name="nobody greets",
)
lab.fault(
    option(silent=False),
    on="black-hole",
    breaks=the_large_transfer_stands_still,
    also=(full_segments_are_sent_again_and_again, nobody_says_why),
    name="the router may speak",
)
lab.fault(
    mtu("left", SMALL),
    on="black-hole-ipv6",
    breaks=full_segments_are_sent_again_and_again,
    also=(the_large_transfer_stands_still, nobody_says_why),
    name="the client's own link is as small",
)
lab.fault(
    sysctl("client", "net.ipv4.ip_no_pmtu_disc", 1),
    on="black-hole",
    breaks=nobody_says_why,
    also=(the_large_transfer_stands_still, full_segments_are_sent_again_and_again),
    name="the router may cut packets",
)
lab.fault(
    option(octets=OCTETS // 2),
    on="allow-icmp",
    breaks=each_remedy_carries_it_all,
    also=(four_remedies_cost_nothing,),
    name="only half is sent",
)
lab.fault(
    sysctl("client", "net.ipv4.tcp_mtu_probing", 1),
    on="probing-2",
    breaks=four_remedies_cost_nothing,
    name="probing waits for suspicion",
)
lab.fault(
    sysctl("client", "net.ipv4.tcp_mtu_probing", 2),
    on="probing-1",
    breaks=probing_on_suspicion_costs_timeouts,
    name="probing does not wait",
)
