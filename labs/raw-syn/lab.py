"""A SYN made by hand: what a server answers, and what the sender's own kernel does about it.

The exercise is in guide.md; the rules are RFC 9293 §3.5.2 and §3.10.7.1. A raw socket sends an IPv4
packet with a TCP header in it: source port 12345, number 1000, window 65535, no options. The
client's kernel has no socket for it, so it takes the answer for a mistake.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import inf

from netlab.analysis.segments import Segment
from netlab.labs import Evidence, Lab, Verdict, expect, option, packets, sysctl, vary
from netlab.labs.scene import Match, Ready, Stage, address, agent, count, counter
from netlab.units import ms

OPEN, CLOSED, SPORT = 80, 81, 12345
NUMBER = 1000
COUNTED = ("Tcp.InCsumErrors", "Tcp.OutRsts")

lab = Lab(
    "A SYN made by hand",
    variations={
        "good": vary(),
        "bad-checksum": option(checksum="bad"),
        "closed-port": option(port=CLOSED),
        "rst-filtered": option(hold_rst=True),
    },
)


@lab.scenario
def knock(
    stage: Stage,
    *,
    port: int = OPEN,
    checksum: str = "good",
    number: int = NUMBER,
    hold_rst: bool = False,
    lose: bool = False,
) -> None:
    """Send one forged SYN to the server and see what comes back."""
    client, server = stage.node("client"), stage.node("server")
    here, there = address(stage.topology, "client"), address(stage.topology, "server")
    capture = stage.capture("client:eth0", filter="tcp")
    syn = Match(tcp_flags="syn", mask="syn,ack", sport=SPORT)
    rst = Match(tcp_flags="rst", mask="rst", sport=SPORT)
    serve = agent("hello", "serve", "--port", OPEN)
    with ExitStack() as stack:
        stack.enter_context(server.spawn("serve", serve, ready=Ready.port(OPEN)))
        held = stack.enter_context(client.hold(rst)) if hold_rst else None
        if lose:
            stack.enter_context(server.hold(syn, hook="input"))
        count(stage, "before", "client", "server", names=COUNTED)
        seen = counter(stage, "server", "Ip.InReceives")
        ends = ("--source", here, "--destination", there)
        segment = ("--sport", SPORT, "--dport", port, "--seq", number, "--checksum", checksum)
        client.spawn("inject", agent("injector", "send", *ends, "tcp", *segment)).wait(10)
        answered = port == OPEN and checksum == "good" and not lose
        expected = 2 if answered and not held else 1  # the SYN, and the RST of the client's kernel
        stage.until(
            lambda: counter(stage, "server", "Ip.InReceives") >= seen + expected,
            timeout=10,
            what=f"{expected} packets to reach the server",
        )
        stage.snapshot("waiting", "server")
        if held and answered:
            stage.until(
                lambda: held.packets() >= 2 or "SYN-RECV" not in look(stage),
                timeout=20,
                what="the SYN-ACK to be repeated, or to be given up",
            )
        count(stage, "after", "client", "server", names=COUNTED)
    capture.stop()


def look(stage: Stage) -> str:
    """Return what `ss` shows of the server's connections."""
    return stage.node("server").run(["ss", "-tan"]).stdout


def seen_on_wire(seen: Evidence) -> list[str]:
    """Return who sent what, such as "client SYN" and "server SYN-ACK"."""
    return [f"{'client' if s.sport == SPORT else 'server'} {s.kind}" for s in segments(seen)]


def segments(seen: Evidence) -> tuple[Segment, ...]:
    """Return what the client's interface saw of the forged connection."""
    return seen.capture("client:eth0").on_port(SPORT)


def repeated_after(seen: Evidence) -> float:
    """Return the seconds from the server's SYN-ACK to its first copy; infinite if none came."""
    times = [s.time_ns for s in segments(seen) if s.is_syn_ack]
    return (times[1] - times[0]) / 1e9 if len(times) > 1 else inf


@lab.check
def a_good_syn_is_answered_and_then_reset(good: Evidence) -> Verdict:
    """The server answers with a SYN-ACK; the client's kernel, which asked for none, resets it."""
    return expect(seen_on_wire(good), seen_in=packets("client:eth0", segments(good))).equals(
        ["client SYN", "server SYN-ACK", "client RST"]
    )


@lab.check
def the_answer_acknowledges_the_forged_number(good: Evidence) -> Verdict:
    """The SYN-ACK acknowledges 1001, and the RST carries that number as its own."""
    found = segments(good)
    syn_ack = good.first((s for s in found if s.is_syn_ack), "a SYN-ACK")
    rst = good.first((s for s in found if s.rst), "an RST")
    seen = packets("client:eth0", (syn_ack, rst))
    numbers = [syn_ack.ack_raw, rst.seq_raw]
    return expect(numbers, what="ack of SYN-ACK, seq of RST", seen_in=seen).equals(
        [NUMBER + 1, NUMBER + 1]
    )


@lab.check
def a_bad_checksum_gets_no_answer(bad_checksum: Evidence) -> Verdict:
    """A SYN with a wrong checksum is dropped and counted; nobody is told."""
    counted = expect(
        bad_checksum.counted("server", "Tcp.InCsumErrors"), what="InCsumErrors of the server"
    ).equals(1)
    return counted & expect(seen_on_wire(bad_checksum), what="on the wire").equals(["client SYN"])


@lab.check
def a_closed_port_answers_with_a_reset(closed_port: Evidence) -> Verdict:
    """Where nobody listens the answer is an RST that acknowledges the SYN."""
    wire = expect(seen_on_wire(closed_port), what="on the wire").equals(
        ["client SYN", "server RST-ACK"]
    )
    number = [s.ack_raw for s in segments(closed_port) if s.rst]
    seen = packets("client:eth0", segments(closed_port))
    return wire & expect(number, what="acknowledged", seen_in=seen).equals([NUMBER + 1])


@lab.check
def a_reset_leaves_no_trace_at_the_server(good: Evidence, rst_filtered: Evidence) -> Verdict:
    """After the RST the server has forgotten the SYN; without it, it waits in SYN-RECV."""
    states = [
        [s.state for s in seen.snapshot("waiting", "server") if s.peer.port == SPORT]
        for seen in (good, rst_filtered)
    ]
    return expect(
        states, what="with RST, without", seen_in="snapshots/waiting.server.ss.txt"
    ).equals([[], ["SYN-RECV"]])


@lab.check(timing=True)
def an_unanswered_syn_ack_is_repeated_after_a_second(rst_filtered: Evidence) -> Verdict:
    """With the client's RST filtered the SYN-ACK comes again after 1 s, up to 1/8 s late."""
    return expect(repeated_after(rst_filtered), "s").between(1.0, 1.0 + 1 / 8 + 50 * ms)


@lab.figure
def figures(good: Evidence, rst_filtered: Evidence) -> dict[str, str]:
    """Return the figures of the guide."""
    syn, syn_ack = segments(good)[:2]
    return {
        "answer_us": f"{(syn_ack.time_ns - syn.time_ns) / 1e3:.0f} µs",
        "isn": str(syn_ack.seq_raw),
        "repeated_after": f"{repeated_after(rst_filtered):.3f} s",
    }


lab.fault(
    option(hold_rst=True),
    on="good",
    breaks=a_good_syn_is_answered_and_then_reset,
    also=(the_answer_acknowledges_the_forged_number, a_reset_leaves_no_trace_at_the_server),
    name="the client's RST does not get out",
)
lab.fault(
    option(number=5000),
    on="good",
    breaks=the_answer_acknowledges_the_forged_number,
    name="the SYN has another number",
)
lab.fault(
    option(checksum="good"),
    on="bad-checksum",
    breaks=a_bad_checksum_gets_no_answer,
    name="the checksum is right after all",
)
lab.fault(
    option(port=OPEN),
    on="closed-port",
    breaks=a_closed_port_answers_with_a_reset,
    name="somebody listens on the port",
)
lab.fault(
    option(lose=True),
    on="rst-filtered",
    breaks=a_reset_leaves_no_trace_at_the_server,
    also=(an_unanswered_syn_ack_is_repeated_after_a_second,),
    name="the SYN is lost",
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_synack_retries", 0),
    on="rst-filtered",
    breaks=an_unanswered_syn_ack_is_repeated_after_a_second,
    name="the server does not repeat its SYN-ACK",
)
