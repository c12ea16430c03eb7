"""The three-way handshake: who says what, in which state each side waits, how long it takes.

The exercise is in guide.md; the rules are RFC 9293 §3.4 and §3.5.

Without delay a handshake is over in microseconds. To look at it in slow motion, the client's SYN is
held back by a firewall until we have seen the client wait, and the first SYN-ACK is lost, so that
the server waits too. Lost packets are sent again: the SYN 1 s after its last copy and then 2 s
later, the SYN-ACK after 1 s. So the wire carries exactly one of each.
"""

from __future__ import annotations

from dataclasses import replace
from signal import SIGUSR1

from netlab.analysis.segments import Segment
from netlab.labs import Evidence, Lab, Verdict, delay, expect, impair, option, packets, vary
from netlab.labs.scene import (
    Family,
    Match,
    Ready,
    Running,
    Stage,
    address,
    agent,
    disguise,
    ping,
    see,
)
from netlab.model.impairment import Episode, Impairment
from netlab.units import ms

PORT = 8080
FLAGS_OF_A_HANDSHAKE = 0x12  # SYN and ACK
REPEATS = 9
PINNED = ("--congestion", "cubic")

lab = Lab(
    "The three-way handshake",
    variations={
        "ipv4": option(family="ipv4"),
        "ipv6": option(family="ipv6"),
        "rtt-1ms": vary(delay("wire", 0.5 * ms), rtt=1 * ms),
        "rtt-100ms": vary(delay("wire", 50 * ms), rtt=100 * ms),
        "rtt-300ms": vary(delay("wire", 150 * ms), rtt=300 * ms),
    },
    ladder="client:eth0",
)
SLOWER = Impairment(
    delay=50 * ms, schedule=(Episode(at=10 * ms, becomes=Impairment(delay=60 * ms)),)
)
DELAYED = ("rtt-1ms", "rtt-100ms", "rtt-300ms")


SYN = Match(tcp_flags="syn", mask="syn,ack", dport=PORT)
SYN_ACK = Match(tcp_flags="syn,ack", mask="syn,ack", sport=PORT)


@lab.scenario
def say_hello(
    stage: Stage,
    *,
    family: Family = "ipv4",
    rtt: float = 0.0,
    message: str = "hello",
    flags: int = FLAGS_OF_A_HANDSHAKE,
    unseen: str = "",
    lose_a_syn: bool = False,
    disguised: str = "",
) -> None:
    """A client connects to a server, which says hello and closes.

    With a delay of some length the sampler sees every state. With a short one or none a second
    pair of eyes is needed: the conversation in slow motion.
    """
    to = address(stage.topology, "server", family)
    if rtt:
        ping(stage, "client", to, count=1)  # so that nobody looks for a neighbour later
    if disguised:  # acknowledgements in the SYN-ACK, sequence numbers in what comes after it
        which = "==" if disguised == "ackseq" else "!="
        packets = f"tcp sport {PORT} tcp flags & syn {which} syn"
        disguise(stage, "server", "client", packets, f"tcp {disguised}")
    stage.snapshot("before", "client", "server")
    capture = stage.capture("client:eth0", filter=f"tcp port {PORT}")
    six = stage.capture("client:eth0", name="first-six", filter=flag_filter(family, flags), count=6)
    with stage.phase("hello"), serve(stage, "serve", to, message) as serving:
        if rtt == 0:
            if lose_a_syn:
                stage.enter(stage.node("server").hold(replace(SYN, first=True), hook="input"))
            talking = connect_in_slow_motion(stage, "connect", to, unseen)
        elif rtt < 10 * ms:
            talking = connect(stage, "connect", to)
        else:
            sampler = stage.sample("client", "server", every=rtt / 20, ports=[PORT], family=family)
            talking = connect(stage, "connect", to)
            until_connected(stage, serving, talking)
            sampler.stop()
        until_connected(stage, serving, talking)
        if unseen != "established":
            see(stage, "established", "client", "ESTAB", PORT)
            see(stage, "established", "server", "ESTAB", PORT)
        say_and_close(stage, serving, talking)
    six.stop()
    capture.stop()
    if rtt:
        with stage.phase("again"), stage.capture("client:eth0", name="again"):
            repeat(stage, to)
    if 0 < rtt < 10 * ms:
        with stage.phase("slow motion"), serve(stage, "serve-again", to, message) as serving:
            talking = connect_in_slow_motion(stage, "connect-again", to)
            until_connected(stage, serving, talking)
            say_and_close(stage, serving, talking)


def connect_in_slow_motion(stage: Stage, name: str, to: str, unseen: str = "") -> Running:
    """Connect, and look at each end while it waits for the other (unless it is to be unseen)."""
    client, server = stage.node("client"), stage.node("server")
    # Without this the client repeats its SYN every second (Linux 6.5 and later).
    client.run(["sysctl", "-e", "-q", "-w", "net.ipv4.tcp_syn_linear_timeouts=0"])
    with client.hold(SYN) as syn, server.hold(replace(SYN_ACK, first=True)):
        talking = connect(stage, name, to)
        if unseen == "syn-sent":
            stage.until(syn.packets, timeout=20, what="a SYN")
        else:
            see(stage, "syn-sent", "client", "SYN-SENT", PORT)
        syn.release()
        if unseen != "syn-recv":
            see(stage, "syn-recv", "server", "SYN-RECV", PORT)
        stage.until(lambda: "connected" in talking.stdout, timeout=30, what="connect() to return")
    return talking


def serve(stage: Stage, name: str, at: str, message: str) -> Running:
    """Start the server; it waits to be told before it speaks and before it closes."""
    argv = agent("hello", "serve", "--address", at, "--port", PORT, "--message", message, "--step")
    return stage.node("server").spawn(name, [*argv, *PINNED], ready=Ready.port(PORT))


def connect(stage: Stage, name: str, to: str) -> Running:
    """Start the client; the stage ends it."""
    argv = agent("hello", "connect", to, "--port", PORT)
    return stage.enter(stage.node("client").spawn(name, [*argv, *PINNED]))


def repeat(stage: Stage, to: str) -> None:
    """Make a few more connections, nobody waiting in between: one may meet a busy computer."""
    serving = agent("hello", "serve", "--address", to, "--port", PORT, "--count", REPEATS)
    connecting = agent("hello", "connect", to, "--port", PORT, "--times", REPEATS)
    ready = Ready.port(PORT)
    with stage.node("server").spawn("serve-more", [*serving, *PINNED], ready=ready) as server:
        stage.node("client").run([*connecting, *PINNED], timeout=60)
        server.wait(30)


def until_connected(stage: Stage, serving: Running, talking: Running) -> None:
    """Wait until both programs know of the connection."""
    stage.until(lambda: "connected" in talking.stdout, timeout=30, what="connect() to return")
    stage.until(lambda: "waiting" in serving.stdout, timeout=30, what="accept() to return")


def say_and_close(stage: Stage, serving: Running, talking: Running) -> None:
    """Let the server speak, then close, and see both programs end."""
    serving.signal(SIGUSR1)
    stage.until(lambda: 'before="close"' in serving.stdout, timeout=30, what="the hello")
    serving.signal(SIGUSR1)
    talking.wait(30)
    serving.wait(30)


def flag_filter(family: Family, flags: int) -> str:
    """Return a pcap filter for segments of the server with any of these flags.

    `tcp[13]` is the octet of the flags, but libpcap knows that shorthand for IPv4 alone; behind
    the 40 octets of an IPv6 header it is octet 53 of the packet.
    """
    octet = "tcp[13]" if family == "ipv4" else "ip6[53]"
    return f"tcp port {PORT} and {octet} & {flags:#04x} != 0"


def opening(seen: Evidence) -> tuple[Segment, ...]:
    """Return what the client's interface saw before the first octet of data."""
    found: list[Segment] = []
    for segment in seen.capture("client:eth0").on_port(PORT):
        if segment.length:
            break
        found.append(segment)
    return tuple(found)


def three(seen: Evidence) -> tuple[Segment, Segment, Segment]:
    """Return the SYN, the SYN-ACK and the ACK that follows it."""
    segments = seen.capture("client:eth0").on_port(PORT)
    syn = seen.first((s for s in segments if s.is_syn), "a SYN")
    syn_ack = seen.first((s for s in segments if s.is_syn_ack), "a SYN-ACK")
    later = (s for s in segments if s.frame > syn_ack.frame and s.forward and not s.is_syn)
    return syn, syn_ack, seen.first(later, "an ACK of the SYN-ACK")


def distance(later: int, earlier: int) -> int:
    """Return how far one sequence number lies behind another, modulo 2^32."""
    return (later - earlier) % 2**32


@lab.check
def syn_then_syn_ack_then_ack(each: Evidence) -> Verdict:
    """Before any data the wire carries a SYN, a SYN-ACK and an ACK, once each, in this order."""
    kinds = [segment.kind for segment in opening(each)]
    seen = packets("client:eth0", opening(each))
    return expect(kinds, seen_in=seen).equals(["SYN", "SYN-ACK", "ACK"])


@lab.check
def each_side_acknowledges_the_others_number_plus_one(each: Evidence) -> Verdict:
    """The SYN-ACK acknowledges the client's initial number plus 1, the ACK the server's plus 1."""
    syn, syn_ack, ack = three(each)
    steps = [distance(syn_ack.ack_raw, syn.seq_raw), distance(ack.ack_raw, syn_ack.seq_raw)]
    seen = packets("client:eth0", (syn, syn_ack, ack))
    return expect(steps, what="ack minus seq", seen_in=seen).equals([1, 1])


@lab.check
def a_syn_consumes_one_number(each: Evidence) -> Verdict:
    """The server's first octet of data has the number after that of its SYN."""
    _, syn_ack, _ = three(each)
    segments = each.capture("client:eth0").on_port(PORT)
    data = each.first((s for s in segments if s.length and not s.forward), "data of the server")
    return expect(
        distance(data.seq_raw, syn_ack.seq_raw),
        what="first octet minus SYN",
        seen_in=packets("client:eth0", (syn_ack, data)),
    ).equals(1)


@lab.check(timing=True)
def the_client_waits_in_syn_sent(each: Evidence) -> Verdict:
    """Between its SYN and the SYN-ACK the client's socket is in SYN-SENT."""
    return expect(each.states("client", PORT), what="states of the client").contains("SYN-SENT")


@lab.check(timing=True)
def the_server_waits_in_syn_recv(each: Evidence) -> Verdict:
    """Between its SYN-ACK and the last ACK the server's socket is in SYN-RECV."""
    return expect(each.states("server", PORT), what="states of the server").contains("SYN-RECV")


@lab.check
def then_both_are_established(each: Evidence) -> Verdict:
    """After the last ACK `ss` shows the connection as ESTAB on both sides."""
    shown = [
        s.state
        for node in ("client", "server")
        for s in each.snapshots(node).get("established", ())
        if PORT in (s.local.port, s.peer.port) and s.state != "LISTEN"
    ]
    return expect(shown, seen_in="snapshots/established.*").equals(["ESTAB", "ESTAB"])


@lab.check
def hello_arrives(each: Evidence) -> Verdict:
    """The client receives the five octets `hello`."""
    received = each.step("client", "connect", "received")
    return expect(received["text"], seen_in="nodes/client/connect.stdout.log").equals("hello")


@lab.check
def six_packets_with_syn_or_ack_hold_the_handshake(each: Evidence) -> Verdict:
    """A capture of segments with SYN or ACK that ends after six begins with the handshake."""
    segments = each.capture("first-six").segments
    kinds = [segment.kind for segment in segments[:3]]
    count = expect(len(segments), what="packets", seen_in="captures/first-six.pcap").equals(6)
    return count & expect(kinds, what="the first three").equals(["SYN", "SYN-ACK", "ACK"])


@lab.check(on=DELAYED, timing=True)
def the_syn_ack_comes_after_one_rtt(each: Evidence) -> Verdict:
    """At the client, SYN to SYN-ACK takes 0.98 to 1.02 RTT of the link, plus 0.5 ms at most."""
    rtt = float(each.option("rtt"))
    return expect(handshake_time(each), "s").between(0.98 * rtt, 1.02 * rtt + 0.5 * ms)


@lab.check(on=DELAYED, timing=True)
def a_handshake_measures_the_idle_rtt(each: Evidence) -> Verdict:
    """SYN to SYN-ACK takes what a frame took before, within 0.3 ms or 2 %, whichever is larger."""
    idle = each.idle_round_trip("wire")
    return expect(handshake_time(each), "s").within(max(0.3 * ms, 0.02 * idle), of=idle)


def handshake_time(seen: Evidence) -> float:
    """Return the seconds from SYN to SYN-ACK at the client, in the quickest of ten handshakes.

    A packet is never early, but a busy computer may be late; the quickest was not disturbed.
    """
    segments = (*seen.capture("client:eth0").segments, *seen.capture("again").segments)
    times: list[int] = []
    asked: dict[int, int] = {}
    for segment in segments:
        if segment.is_syn:
            asked[segment.sport] = segment.time_ns
        elif segment.is_syn_ack and segment.dport in asked:
            times.append(segment.time_ns - asked.pop(segment.dport))
    return seen.first(sorted(times), "a handshake") / 1e9


lab.fault(
    option(lose_a_syn=True),
    on="ipv4",
    breaks=syn_then_syn_ack_then_ack,
    also=(six_packets_with_syn_or_ack_hold_the_handshake,),
    name="a SYN is lost on its way",
)
lab.fault(
    option(disguised="ackseq"),
    on="ipv4",
    breaks=each_side_acknowledges_the_others_number_plus_one,
    name="something on the path changes acknowledgements",
)
lab.fault(
    option(disguised="sequence"),
    on="ipv4",
    breaks=a_syn_consumes_one_number,
    name="something on the path changes sequence numbers of data",
)
lab.fault(
    option(unseen="syn-sent"),
    on="ipv4",
    breaks=the_client_waits_in_syn_sent,
    name="nobody looks while the client waits",
)
lab.fault(
    option(unseen="syn-recv"),
    on="ipv6",
    breaks=the_server_waits_in_syn_recv,
    name="nobody looks while the server waits",
)
lab.fault(
    option(unseen="established"),
    on="ipv6",
    breaks=then_both_are_established,
    name="nobody looks at the end",
)
lab.fault(
    option(message="goodbye"),
    on="ipv6",
    breaks=hello_arrives,
    name="the server says something else",
)
lab.fault(
    option(flags=0x02),
    on="ipv4",
    breaks=six_packets_with_syn_or_ack_hold_the_handshake,
    name="a filter for SYN alone",
)
lab.fault(
    delay("wire", 60 * ms),
    on="rtt-100ms",
    breaks=the_syn_ack_comes_after_one_rtt,
    name="a link slower than its label",
)
lab.fault(
    impair("wire", forward=SLOWER),
    on="rtt-100ms",
    breaks=a_handshake_measures_the_idle_rtt,
    also=(the_syn_ack_comes_after_one_rtt,),
    name="the link grows slower once it has been measured",
)


@lab.figure
def figures(ipv4: Evidence) -> dict[str, str]:
    """What the guide tells of the run."""
    syn, syn_ack, ack = three(ipv4)
    segments = ipv4.capture("client:eth0").on_port(PORT)
    data = ipv4.first((s for s in segments if s.length), "data")

    def state(label: str, node: str) -> str:
        sockets = ipv4.snapshot(label, node)
        return ipv4.first((s.state for s in sockets if s.state != "LISTEN"), f"{label} on {node}")

    options = [f"MSS {syn.mss}", "SACK permitted" if syn.sack_permitted else "no SACK"]
    options += ["time stamps"] if syn.tsval is not None else []
    options += [f"window scale {syn.wscale}"] if syn.wscale is not None else []
    return {
        "client_isn": f"{syn.seq_raw:,}",
        "server_isn": f"{syn_ack.seq_raw:,}",
        "syn_ack_ack": f"{syn_ack.ack_raw:,}",
        "ack_seq": f"{ack.seq_raw:,}",
        "ack_ack": f"{ack.ack_raw:,}",
        "data_seq": f"{data.seq_raw:,}",
        "data_ack": f"{data.ack_raw:,}",
        "syn_options": ", ".join(options),
        "client_early": state("syn-sent", "client"),
        "server_early": state("syn-recv", "server"),
        "client_late": state("established", "client"),
        "server_late": state("established", "server"),
    }
