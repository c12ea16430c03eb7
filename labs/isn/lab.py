"""The first number of a connection: why it is not zero, not the next one, and not pure chance.

The exercise is in guide.md; the rule is RFC 6528 §3: a clock, plus a secret function of the four
addresses and ports. Linux: secure_tcp_seq() in net/core/secure_seq.c, whose clock ticks each 64 ns.

A SYN-ACK shows both numbers, the server's own and the client's plus 1, so it is all that the
capture of the many connections keeps.
"""

from __future__ import annotations

from itertools import pairwise

from netlab.analysis.randomness import chi_square_p, steps
from netlab.labs import Evidence, Lab, Verdict, every, expect, inconclusive, option, sysctl
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Stage, address, agent, wired
from netlab.units import ms

PORT = 8080
MANY, AGAIN = 500, 20
TICK = 64  # nanoseconds
ALPHA = 1e-6
WINDOW = 65_536
BINS = 16
SOURCE = 40_000

lab = Lab(
    "The first number of a connection",
    variations={
        "timestamps": sysctl("*", "net.ipv4.tcp_timestamps", 1),
        "no-timestamps": sysctl("*", "net.ipv4.tcp_timestamps", 0),
    },
)

# A number for each SYN: 2^28 more than for the one before, around and around.
STAIRS = ", ".join(f"{n} : {(n << 28) + (1 << 27)}" for n in range(16))
IN_STAIRS = f"""table inet stairs {{
chain out {{
type filter hook output priority 0
tcp dport {PORT} tcp flags & (syn | ack) == syn \\
tcp sequence set numgen inc mod 16 map {{ {STAIRS} }}
}}
}}
"""


@lab.scenario
def connect_often(
    stage: Stage, *, source: int = 0, in_stairs: bool = False, again: int = SOURCE
) -> None:
    """Make 500 connections from different ports, then 20 from the same port, one by one."""
    to = address(stage.topology, "server")
    serve = agent("crowd", "serve", "--address", to, "--backlog", 1000)
    with stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)):
        only = f"tcp src port {PORT} and tcp[13] & 0x12 == 0x12"
        with stage.capture("client:eth0", name="many", filter=only, snaplen=54):
            crowd = agent("crowd", "connect", to, "--count", MANY, "--source-port", source)
            if in_stairs:
                with wired(stage, "stairs", IN_STAIRS, "client"):
                    stage.node("client").run([*crowd, "--at-once", "--timeout", "0.2"])
            else:
                stage.node("client").run([*crowd, "--each", "reset"], timeout=60)
        syns = f"tcp port {PORT} and tcp[13] & 2 != 0"
        with stage.capture("client:eth0", name="again", filter=syns, snaplen=66):
            actions = ("connect", "reset", f"sleep={10 * ms}") * AGAIN
            ends = ("--address", to, "--source-port", again)
            with stage.node("client").spawn("again", agent("actor", *ends, *actions)) as talking:
                talking.wait(60)


def numbers(seen: Evidence) -> dict[str, list[int]]:
    """Return the first numbers of client and server in the order of the connections."""
    rows = [s for s in seen.capture("many").segments if s.is_syn_ack and not s.retransmission]
    return {
        "client": [(s.ack_raw - 1) % 2**32 for s in rows],
        "server": [s.seq_raw for s in rows],
    }


def probable(seen: Evidence, values: dict[str, list[int]]) -> Verdict:
    """Hold how probable uniform numbers like these are against one in a million."""
    few = {side: len(found) for side, found in numbers(seen).items() if len(found) < MANY}
    if few:
        return inconclusive(f"only {min(few.values())} of {MANY} connections were captured")
    return every(
        expect(chi_square_p(found, bins=BINS), what=f"p of the {side}'s").at_least(ALPHA)
        for side, found in values.items()
    )


@lab.check
def first_numbers_fill_all_32_bits(each: Evidence) -> Verdict:
    """500 numbers of each side lie evenly in 16 parts of 2^32, and are not near zero.

    By chi-square at one in a million; of 500 numbers three below 65,536 are less probable still
    (Poisson, 0.0076 expected: 7e-8).
    """
    small = {side: sum(n < WINDOW for n in found) for side, found in numbers(each).items()}
    zero = expect(max(small.values()), what="numbers near zero").at_most(2)
    return probable(each, numbers(each)) & zero


@lab.check
def the_last_number_does_not_tell_the_next(each: Evidence) -> Verdict:
    """From one connection to the next, with another port, the step may be anything too."""
    return probable(each, {side: list(steps(found)) for side, found in numbers(each).items()})


def ages(seen: Evidence) -> dict[str, list[tuple[int, int, int]]]:
    """Return of each further connection of the same four (number, earliest ns, latest ns).

    A client chooses its number after it said that it connects and before its SYN is captured,
    a server between the SYN and the SYN-ACK.
    """
    rows = seen.capture("again").segments
    syns = [s for s in rows if s.is_syn and not s.retransmission]
    answers = [s for s in rows if s.is_syn_ack and not s.retransmission]
    said = [int(s["at_ns"]) for s in seen.steps("client", "again") if s.word == "connecting"]
    return {
        "client": [(syn.seq_raw, at, syn.time_ns) for syn, at in zip(syns, said, strict=False)],
        "server": [
            (answer.seq_raw, syn.time_ns, answer.time_ns)
            for syn, answer in zip(syns, answers, strict=False)
        ],
    }


@lab.check
def for_the_same_four_it_is_a_clock(each: Evidence) -> Verdict:
    """Between the same ports the number grows by 1 each 64 ns, exactly, on both sides.

    The bounds are when either number can have been chosen at the earliest and at the latest.
    """
    wrong: list[str] = []
    judged = 0
    for side, rows in ages(each).items():
        for (first, *a), (second, *b) in pairwise(rows):
            lived = (second - first) % 2**32 * TICK
            judged += 1
            if not b[0] - a[1] - TICK <= lived <= b[1] - a[0] + TICK:
                wrong.append(f"{side}: {lived / 1e6:.3f} ms by its numbers")
    if judged < AGAIN:
        return inconclusive(f"only {judged} pairs of connections were captured")
    return expect(wrong[:3], what=f"of {judged} pairs wrong").equals([])


lab.fault(
    option(source=SOURCE + 1),
    on="timestamps",
    breaks=first_numbers_fill_all_32_bits,
    also=(the_last_number_does_not_tell_the_next,),
    name="all connections come from one port",
)
lab.fault(
    option(in_stairs=True),
    on="timestamps",
    breaks=the_last_number_does_not_tell_the_next,
    name="the client's numbers are stairs",
)
lab.fault(
    option(again=0),
    on="no-timestamps",
    breaks=for_the_same_four_it_is_a_clock,
    name="each connection has a port of its own",
)


@lab.figure
def figures(timestamps: Evidence, no_timestamps: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    found = numbers(timestamps)
    first, last = ages(timestamps)["server"][0], ages(timestamps)["server"][-1]
    grown = (last[0] - first[0]) % 2**32
    p = {
        seen.variation: f"{chi_square_p(numbers(seen)['server'], bins=BINS) or 0:.2g}"
        for seen in (timestamps, no_timestamps)
    }
    return {
        "first": ", ".join(f"{n:,}" for n in found["client"][:3]),
        "many": str(len(found["client"])),
        "p": p["timestamps"],
        "p_without": p["no-timestamps"],
        "smallest": f"{min(found['client']):,}",
        "largest": f"{max(found['client']):,}",
        "tick": f"{(last[1] - first[1]) / grown:.1f}",
        "grown": f"{grown:,}",
        "seconds": f"{(last[1] - first[1]) / 1e9:.2f}",
    }


@lab.claim("C70")
def as_rfc_6528_says(timestamps: Evidence, no_timestamps: Evidence) -> Finding:
    """A first number is a clock plus a secret function of addresses and ports."""
    verdict = every(
        judge(seen)
        for seen in (timestamps, no_timestamps)
        for judge in (
            first_numbers_fill_all_32_bits,
            the_last_number_does_not_tell_the_next,
            for_the_same_four_it_is_a_clock,
        )
    )
    told = figures(timestamps, no_timestamps)
    words = f"uniform over ports (p = {told['p']}), a tick of {told['tick']} ns for the same four"
    return holds(verdict.passed, words)
