"""The maximum segment size: who announces what, which number is used, what is left for data.

The exercise is in guide.md; the rules are RFC 9293 §3.7.1 and RFC 6691. A client and a server send
each other more than fits into one segment; then `ss` looks at both ends.
"""

from __future__ import annotations

from contextlib import ExitStack

from netlab.analysis.segments import Segment
from netlab.analysis.ss import Socket
from netlab.labs import Evidence, Lab, Variation, Verdict, every, expect, mtu, option, sysctl, vary
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Family, Ready, Stage, address, agent, proceed, wired

PORT = 5000
TIMESTAMPS = 12
"""Octets that the timestamps option takes in every segment: ten, and two of padding."""
CLAMPED = 1300


def mtus(left: int, right: int) -> Variation:
    """Give both links an MTU, and tell the scenario."""
    return vary(mtu("left", left), mtu("right", right), client_mtu=left, server_mtu=right)


lab = Lab(
    "The maximum segment size",
    variations={
        "mtu-1500": mtus(1500, 1500),
        "mtu-1400": mtus(1400, 1400),
        "mtu-9000": mtus(9000, 9000),
        "mtu-576": mtus(576, 576),
        "unequal": mtus(1500, 1400),
        "ipv6": option(family="ipv6"),
        "clamped": option(clamp=CLAMPED),
        "no-timestamps": sysctl("*", "net.ipv4.tcp_timestamps", 0),
    },
)
ENDS = ("client", "server")
UNTOUCHED = tuple(name for name in lab.variations if name != "clamped")


@lab.scenario
def send_both_ways(
    stage: Stage,
    *,
    family: Family = "ipv4",
    client_mtu: int = 1500,
    server_mtu: int = 1500,
    clamp: int = 0,
    octets: int = 12_000,
    advmss: int = 0,
) -> None:
    """Client and server send each other some data and stay connected until `ss` has looked."""
    client, server = stage.node("client"), stage.node("server")
    to = address(stage.topology, "server", family)
    stage.recording.event("labels", client=client_mtu, server=server_mtu)
    if advmss:
        client.run(["sh", "-c", f"ip route change $(ip route show default) advmss {advmss}"])
    # `tcp[13]` is the octet of the flags; behind the 40 octets of an IPv6 header it is ip6[53].
    syns = f"tcp port {PORT} and (tcp[13] & 2 != 0 or ip6[53] & 2 != 0)"
    captures = [
        stage.capture("client:eth0", filter=f"tcp port {PORT}", snaplen=100),
        stage.capture("server:eth0", filter=syns, snaplen=100),
    ]
    with ExitStack() as stack:
        if clamp:
            rule = (
                f"tcp flags syn tcp option maxseg size > {clamp} tcp option maxseg size set {clamp}"
            )
            chain = f"chain forward {{\ntype filter hook forward priority 0\n{rule}\n}}"
            stack.enter_context(
                wired(stage, "clamp", f"table inet clamp {{\n{chain}\n}}\n", "router")
            )
        both = ("--port", PORT, "--reply", octets, "--congestion", "cubic", "--step")
        serving = stack.enter_context(
            server.spawn(
                "serve",
                agent("bulk", "serve", "--address", to, "--bytes", octets, *both),
                ready=Ready.port(PORT),
            )
        )
        sending = stack.enter_context(
            client.spawn("send", agent("bulk", "send", to, "--bytes", octets, *both))
        )
        proceed(stage, sending, "send")
        proceed(stage, serving, "read")
        proceed(stage, sending, "close", go=False)
        stage.snapshot("connected", *ENDS)
        proceed(stage, sending, "close")
        proceed(stage, serving, "close")
        sending.wait(30)
        serving.wait(30)
    for capture in captures:
        capture.stop()


def headers(seen: Evidence) -> int:
    """Return the octets of an IP and a TCP header without options."""
    return 60 if seen.option("family") == "ipv6" else 40


def label(seen: Evidence, node: str) -> int:
    """Return the MTU that the link of a node is said to have."""
    return int(seen.event("labels").fields[node])


def announced(seen: Evidence, at: str) -> tuple[int | None, int | None]:
    """Return the MSS of the SYN and of the SYN-ACK as they passed a node's interface."""
    segments = seen.capture(f"{at}:eth0").on_port(PORT)
    syn = seen.first((s for s in segments if s.is_syn), "a SYN")
    syn_ack = seen.first((s for s in segments if s.is_syn_ack), "a SYN-ACK")
    return syn.mss, syn_ack.mss


def room_for_options(seen: Evidence) -> int:
    """Return the octets that options take in a segment of data, as the SYN-ACK says."""
    segments = seen.capture("client:eth0").on_port(PORT)
    syn_ack = seen.first((s for s in segments if s.is_syn_ack), "a SYN-ACK")
    return 0 if syn_ack.tsval is None else TIMESTAMPS


def largest(seen: Evidence) -> tuple[int, int]:
    """Return the most data that one segment carried, from the client and from the server."""
    segments: tuple[Segment, ...] = seen.capture("client:eth0").on_port(PORT)
    sizes = [[s.length for s in segments if s.forward is way] for way in (True, False)]
    return max(sizes[0], default=0), max(sizes[1], default=0)


def socket_of(seen: Evidence, node: str) -> Socket:
    """Return the connection as `ss` showed it on a node."""
    sockets = seen.snapshot("connected", node)
    return seen.first((s for s in sockets if s.state == "ESTAB"), f"the connection on {node}")


@lab.check(on=UNTOUCHED)
def each_end_announces_its_own_mtu_less_headers(each: Evidence) -> Verdict:
    """The MSS in SYN and SYN-ACK is the MTU of the sender's link less 40 (IPv6: 60)."""
    less = headers(each)
    bound = [label(each, node) - less for node in ENDS]
    return expect(list(announced(each, "client")), what="announced").equals(bound)


@lab.check
def the_smaller_of_both_is_used(each: Evidence) -> Verdict:
    """The largest segment each way carries the smaller announced MSS, less room for options."""
    known = [mss for mss in (announced(each, "client")[1], announced(each, "server")[0]) if mss]
    own = [mss for mss in announced(each, "client")[:1] if mss]
    bound = min((*known, *own)) - room_for_options(each)
    return expect(list(largest(each)), what="largest").equals([bound, bound])


@lab.check
def timestamps_cost_twelve_octets(mtu_1500: Evidence, no_timestamps: Evidence) -> Verdict:
    """With timestamps a full segment carries 1448 octets, without them 1460."""
    return expect([*largest(mtu_1500), *largest(no_timestamps)]).equals([1448, 1448, 1460, 1460])


@lab.check(on=UNTOUCHED)
def ss_agrees_with_the_wire(each: Evidence) -> Verdict:
    """`ss -ti` shows mss = largest segment, advmss = own announcement less options, pmtu = MTU."""
    verdicts: list[Verdict] = []
    for index, node in enumerate(ENDS):
        shown = socket_of(each, node)
        read = [shown.number(key) for key in ("mss", "advmss", "pmtu")]
        mss = announced(each, "client")[index] or 0
        bound = [largest(each)[index], mss - room_for_options(each), label(each, node)]
        verdicts.append(expect(read, what=f"mss, advmss, pmtu of the {node}").equals(bound))
    return every(verdicts).seen_in("snapshots/connected.*")


@lab.check
def a_router_can_lower_both_announcements(clamped: Evidence) -> Verdict:
    """Behind a router that clamps to 1300 each end hears 1300, whatever the other said."""
    said = [announced(clamped, "client")[0], announced(clamped, "server")[1]]
    heard = [announced(clamped, "server")[0], announced(clamped, "client")[1]]
    return expect(said, what="said").equals([1460, 1460]) & expect(heard, what="heard").equals(
        [CLAMPED, CLAMPED]
    )


@lab.figure
def figures(
    mtu_1500: Evidence, no_timestamps: Evidence, unequal: Evidence, ipv6: Evidence
) -> dict[str, str]:
    """Return the figures of the guide."""
    return {
        "announced": str(announced(mtu_1500, "client")[0]),
        "largest": str(largest(mtu_1500)[0]),
        "largest_without": str(largest(no_timestamps)[0]),
        "unequal_client": str(announced(unequal, "client")[0]),
        "unequal_server": str(announced(unequal, "client")[1]),
        "unequal_largest": str(largest(unequal)[0]),
        "announced_ipv6": str(announced(ipv6, "client")[0]),
        "largest_ipv6": str(largest(ipv6)[0]),
    }


@lab.claim("C23")
def mtu_less_forty(mtu_1500: Evidence, ipv6: Evidence) -> Finding:
    """Read the announced MSS at MTU 1500, and what is left for data."""
    mss = announced(mtu_1500, "client")[0]
    return holds(
        mss == 1460,
        f"{mss} announced over IPv4, {announced(ipv6, 'client')[0]} over IPv6; a segment with "
        f"timestamps carries {largest(mtu_1500)[0]} octets",
    )


lab.fault(
    option(advmss=1000),
    on="mtu-1500",
    breaks=each_end_announces_its_own_mtu_less_headers,
    also=(the_smaller_of_both_is_used, timestamps_cost_twelve_octets),
    name="a route of the client says what to announce",
)
lab.fault(
    option(octets=500),
    on="unequal",
    breaks=the_smaller_of_both_is_used,
    also=(ss_agrees_with_the_wire,),
    name="there is too little to send",
)
lab.fault(
    sysctl("*", "net.ipv4.tcp_timestamps", 1),
    on="no-timestamps",
    breaks=timestamps_cost_twelve_octets,
    name="timestamps are on after all",
)
lab.fault(
    mtu("right", 1300),
    on="mtu-1400",
    breaks=ss_agrees_with_the_wire,
    also=(each_end_announces_its_own_mtu_less_headers,),
    name="one link has another MTU than its label says",
)
lab.fault(
    option(clamp=0),
    on="clamped",
    breaks=a_router_can_lower_both_announcements,
    name="the router leaves SYNs alone",
)
