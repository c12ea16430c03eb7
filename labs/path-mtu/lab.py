"""The path MTU: how a sender learns that a link further on carries less than its own.

The exercise is in guide.md; the rules are RFC 1191 and RFC 8201. Full segments set out with the
flag DF, the router before the small link drops them and says what fits, and the sender cuts its
data anew. `ip route get` shows what has been learned.
"""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import ip_address

from netlab.analysis.frames import Frame
from netlab.analysis.headers import Packet
from netlab.labs import Evidence, Lab, Verdict, expect, mtu, option, packets, sysctl, vary
from netlab.labs.scene import (
    Family,
    Ready,
    Running,
    Stage,
    address,
    agent,
    counter,
    keep,
    proceed,
)

PORT = 5000
OCTETS = 40_000
SMALL = 1400
INITIAL_WINDOW = 10
"""Segments that Linux sends before it hears from the other side (RFC 6928)."""
FITS = SMALL - 28
"""Octets of a datagram that fit into the small link behind the headers of IPv4 and UDP."""

lab = Lab(
    "The path MTU",
    variations={
        "ipv4": vary(),
        "ipv6": option(family="ipv6"),
        "no-pmtu-disc": sysctl("client", "net.ipv4.ip_no_pmtu_disc", 1),
        "udp-df": option(sizes=f"1472,1472,{FITS}"),
    },
)
LEARNING = ("ipv4", "ipv6", "udp-df")
TCP = ("ipv4", "ipv6", "no-pmtu-disc")


@lab.scenario
def cross_the_small_link(
    stage: Stage,
    *,
    family: Family = "ipv4",
    octets: int = OCTETS,
    sizes: str = "",
    flush: bool = False,
    stray: bool = False,
    small: int = 0,
) -> None:
    """Send more than one packet through three links, the middle one small."""
    client = stage.node("client")
    to = address(stage.topology, "server", family)
    look = ("ip", "-6") if family == "ipv6" else ("ip", "-4")
    if small:
        route = ["ip", "route", "show", "to", "match", to]
        words = stage.node("r1").run(route).stdout.splitlines()[0].split()
        stage.node("r1").run(["ip", "route", "change", *words, "mtu", "lock", str(small)])
    captures = [stage.capture(f"{node}:eth0", snaplen=128) for node in ("client", "server")]
    keep(stage, "route-before", "client", *look, "route", "get", to)
    if sizes:
        send_datagrams(stage, to, sizes)
    else:
        send_stream(stage, to, octets)
    if stray:
        me = address(stage.topology, "client")
        past = ("--interface", "eth0", "--mac", stage.topology.interface("r1", "eth0").mac)
        ends = ("--source", me, "--destination", to, "--no-df", *past)
        words = (*ends, "tcp", "--flags", "ack")
        data = ("--dport", PORT, "--sport", 4000, "--data", "x" * 1460)
        client.spawn("stray", agent("injector", "send", *words, *data)).wait(10)
    if flush:
        client.run(["ip", "route", "flush", "cache"])
    keep(stage, "route-after", "client", *look, "route", "get", to)
    for capture in captures:
        capture.stop()


def send_stream(stage: Stage, to: str, octets: int) -> None:
    """Send octets over TCP and wait until the server has them all."""
    serve = agent("bulk", "serve", "--address", to, "--port", PORT)
    send = agent("bulk", "send", to, "--port", PORT, "--bytes", octets, "--drain")
    pinned = ("--congestion", "cubic")
    with ExitStack() as stack:
        serving: Running = stack.enter_context(
            stage.node("server").spawn("serve", [*serve, *pinned], ready=Ready.port(PORT))
        )
        stack.enter_context(stage.node("client").spawn("send", [*send, *pinned])).wait(30)
        serving.wait(30)


def send_datagrams(stage: Stage, to: str, sizes: str) -> None:
    """Send datagrams with DF, each after the answer to the one before has had time to come."""
    listen = agent("bulk", "listen", "--port", PORT)
    words = ("--port", PORT, "--sizes", sizes, "--discover", "do", "--step")
    client, server = stage.node("client"), stage.node("server")
    ready = Ready.port(PORT, protocol="udp")
    with ExitStack() as stack:
        listening = stack.enter_context(server.spawn("listen", listen, ready=ready))
        sending = stack.enter_context(client.spawn("send", agent("bulk", "datagrams", to, *words)))
        proceed(stage, sending, "send")
        stage.until(
            lambda: counter(stage, "client", "Icmp.InDestUnreachs") or not listening.alive,
            timeout=10,
            what="the router's answer to the first datagram, or its arrival",
        )
        for number in range(2, len(sizes.split(",")) + 1):
            said = f"number={number - 1}"
            stage.until(lambda said=said: said in sending.stdout, timeout=10, what=said)
            proceed(stage, sending, "send")
        proceed(stage, sending, "close")
        sending.wait(10)
        listening.wait(10)


def length(packet: Packet) -> int:
    """Return the octets of an IP packet by its own account."""
    four, six = packet.header("IPv4"), packet.header("IPv6")
    if four is not None:
        return four["total length"].value
    return 0 if six is None else 40 + six["payload length"].value


def large_ones(seen: Evidence) -> tuple[Frame, ...]:
    """Return what a router said about packets that were too large, as the client heard it."""
    return tuple(f for f in seen.capture("client:eth0").frames if next_hop_mtu(f.packet))


def next_hop_mtu(packet: Packet) -> int:
    """Return the MTU in an ICMP "fragmentation needed" or "packet too big"; 0 if it is none."""
    for header in packet.headers:
        for field in header.fields:
            if header.name.startswith("ICMP") and field.name in ("next-hop MTU", "MTU"):
                return field.value
    return 0


def sent(seen: Evidence) -> tuple[Frame, ...]:
    """Return the packets that the client sent to the port, fragments and strays included."""
    found: list[Frame] = []
    for frame in seen.capture("client:eth0").frames:
        upper = frame.packet.header("TCP") or frame.packet.header("UDP")
        if upper is None or next_hop_mtu(frame.packet):
            continue
        if upper["destination port"].value == PORT:
            found.append(frame)
    return tuple(found)


@lab.check(on=LEARNING)
def the_router_says_what_fits(each: Evidence) -> Verdict:
    """The client hears of a packet that was too large, and that the next link carries 1400."""
    said = sorted({next_hop_mtu(frame.packet) for frame in large_ones(each)})
    largest = max((length(frame.packet) for frame in sent(each)), default=0)
    first = expect(largest, "B", what="largest packet sent").equals(1500)
    seen = packets("client:eth0", large_ones(each))
    return first & expect(said, what="MTU said", seen_in=seen).equals([SMALL])


@lab.check(on=("ipv4", "ipv6"), timing=True)
def later_packets_fit(each: Evidence) -> Verdict:
    """Only the first flight, 10 segments, is too large; then the largest packet has 1400 octets."""
    too_large = [f for f in sent(each) if length(f.packet) > SMALL]
    heard = each.first(reversed(large_ones(each)), "a router that says what fits").time_ns
    later = [length(frame.packet) for frame in sent(each) if frame.time_ns > heard]
    seen = packets("client:eth0", too_large)
    return expect(len(too_large), what="too large", seen_in=seen).between(
        1, INITIAL_WINDOW
    ) & expect(max(later, default=0), "B", what="largest packet after the last complaint").equals(
        SMALL
    )


@lab.check(on=LEARNING)
def the_route_remembers(each: Evidence) -> Verdict:
    """`ip route get` shows mtu 1400 for the server afterwards, and showed none before."""
    known = [
        f" mtu {SMALL}" in each.text("client", f"route-{when}") for when in ("before", "after")
    ]
    return expect(known, what="known before, after", seen_in="nodes/client/route-after").equals(
        [False, True]
    )


@lab.check(on=TCP)
def no_octet_is_lost(each: Evidence) -> Verdict:
    """The server receives all 40,000 octets, in order and unchanged."""
    received = each.step("server", "serve", "received")
    return expect([received["bytes"], received["as_sent"]]).equals([OCTETS, True])


@lab.check
def without_df_the_router_cuts(no_pmtu_disc: Evidence) -> Verdict:
    """With ip_no_pmtu_disc=1 packets lack DF, nobody complains, and the server gets fragments."""
    flags = {frame.packet.headers[1]["DF"].value for frame in sent(no_pmtu_disc)}
    pieces = [
        frame
        for frame in no_pmtu_disc.capture("server:eth0").frames
        if (ip := frame.packet.header("IPv4")) and (ip["MF"].value or ip["fragment offset"].value)
    ]
    return (
        expect(sorted(flags), what="DF").equals([0])
        & expect(len(large_ones(no_pmtu_disc)), what="complaints").equals(0)
        & expect(
            len(pieces), what="fragments at the server", seen_in=packets("server:eth0", pieces)
        ).at_least(2)
    )


@lab.check
def a_program_is_told_by_an_error(udp_df: Evidence) -> Verdict:
    """The first datagram vanishes, the second is refused with EMSGSIZE, one of 1372 arrives."""
    words = [s.word for s in udp_df.steps("client", "send") if s.word in ("sent", "refused")]
    told = [s["errno"] for s in udp_df.steps("client", "send") if s.word in ("told", "refused")]
    arrived = [s["bytes"] for s in udp_df.steps("server", "listen") if s.word == "datagram"]
    return (
        expect(words).equals(["sent", "refused", "sent"])
        & expect(sorted(set(told)), what="errno").equals(["EMSGSIZE"])
        & expect(arrived, what="arrived").equals([FITS])
    )


@lab.figure
def figures(ipv4: Evidence, ipv6: Evidence) -> dict[str, str]:
    """Return the figures of the guide."""
    first = ipv4.first(large_ones(ipv4), "a router that says what fits")
    outer = first.packet.header("IPv4")
    data = [s.length for s in ipv4.capture("server:eth0").on_port(PORT) if s.forward]
    data6 = [s.length for s in ipv6.capture("server:eth0").on_port(PORT) if s.forward]
    return {
        "router": str(ip_address(outer["source"].value)) if outer else "not measured",
        "mtu_said": str(next_hop_mtu(first.packet)),
        "complaints": str(len(large_ones(ipv4))),
        "payload": str(max(data)),
        "payload_ipv6": str(max(data6)),
        "route": " ".join(ipv4.text("client", "route-after").split()),
    }


lab.fault(
    option(small=1350),
    on="ipv4",
    breaks=the_router_says_what_fits,
    also=(later_packets_fit, the_route_remembers),
    name="the router says less than the link carries",
)
lab.fault(
    option(stray=True),
    on="ipv4",
    breaks=later_packets_fit,
    name="somebody else on the client sends large packets",
)
lab.fault(
    option(flush=True),
    on="ipv4",
    breaks=the_route_remembers,
    name="the cache of routes is emptied",
)
lab.fault(
    option(octets=OCTETS // 2),
    on="ipv6",
    breaks=no_octet_is_lost,
    name="only half is sent",
)
lab.fault(
    sysctl("client", "net.ipv4.ip_no_pmtu_disc", 0),
    on="no-pmtu-disc",
    breaks=without_df_the_router_cuts,
    name="path MTU discovery is on after all",
)
lab.fault(
    mtu("middle", 1500),
    on="udp-df",
    breaks=a_program_is_told_by_an_error,
    also=(the_router_says_what_fits, the_route_remembers),
    name="the middle link is as large as the others",
)
