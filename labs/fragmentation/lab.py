"""Fragmentation: a datagram cut to pieces on its way, and what one lost piece costs.

The exercise is in guide.md; the rules are RFC 791 §3.2 and RFC 1122 §3.3.2. A datagram of 4000
octets crosses a link that carries 1400 at a time. The pieces travel on their own and only the
receiver puts them together; it waits for the missing ones, and then gives up.
"""

from __future__ import annotations

from contextlib import ExitStack

from netlab.analysis.frames import Frame
from netlab.analysis.headers import Header
from netlab.labs import Evidence, Lab, Verdict, expect, mtu, option, sysctl, vary
from netlab.labs.scene import Match, Ready, Stage, address, agent, count, counter, proceed, wired
from netlab.units import ms

PORT = 9999
OCTETS = 4000
SMALL = 1400
PIECE = (SMALL - 20) // 8 * 8
"""Octets in a fragment behind a header of 20: what fits, in whole units of 8."""
COUNTED = ("Ip.FragOKs", "Ip.FragCreates", "Ip.ReasmOKs", "Ip.ReasmFails", "Ip.ReasmTimeout")

lab = Lab(
    "Fragmentation",
    variations={
        "whole": vary(),
        "sender-cuts": mtu("left", 1500),
        "df": option(discover="do", sizes=f"{OCTETS},{OCTETS}"),
        "one-lost": option(lose=True),
    },
)
CUT = ("whole", "sender-cuts", "one-lost")


@lab.scenario
def send_a_large_datagram(
    stage: Stage,
    *,
    discover: str = "dont",
    sizes: str = str(OCTETS),
    lose: bool = False,
    deaf: bool = False,
) -> None:
    """Send a datagram that does not fit into the middle link."""
    client, server = stage.node("client"), stage.node("server")
    to = address(stage.topology, "server")
    captures = [
        stage.capture(f"{node}:eth0", filter="ip", snaplen=96) for node in ("client", "server")
    ]
    listen = agent("bulk", "listen", "--port", PORT)
    words = ("--port", PORT, "--sizes", sizes, "--discover", discover, "--step")
    with ExitStack() as stack:
        if lose:
            second = f"ip frag-off & 0x1fff == {PIECE // 8} counter drop"
            chain = f"chain pass {{\ntype filter hook forward priority 0\n{second}\n}}"
            stack.enter_context(wired(stage, "lose", f"table inet lose {{\n{chain}\n}}\n", "r2"))
        held = (
            stack.enter_context(server.hold(Match(protocol="udp", dport=PORT), hook="input"))
            if deaf
            else None
        )
        ready = Ready.port(PORT, protocol="udp")
        listening = stack.enter_context(server.spawn("listen", listen, ready=ready))
        count(stage, "before", "client", "r1", "server", names=COUNTED)
        sending = stack.enter_context(client.spawn("send", agent("bulk", "datagrams", to, *words)))
        for number in range(1, len(sizes.split(",")) + 1):
            stage.until(
                lambda number=number: sending.stdout.count("send") >= number,
                timeout=10,
                what=f"datagram {number}",
            )
            proceed(stage, sending, "send")
            stage.until(
                lambda: (
                    "datagram" in listening.stdout
                    or (held is not None and held.packets())
                    or counter(stage, "server", "Ip.ReasmFails")
                    or counter(stage, "client", "Icmp.InDestUnreachs")
                ),
                timeout=20,
                what="the datagram to arrive or to be given up",
            )
        proceed(stage, sending, "close")
        sending.wait(10)
        count(stage, "after", "client", "r1", "server", names=COUNTED)
        listening.stop()
    for capture in captures:
        capture.stop()


def pieces(seen: Evidence, node: str) -> tuple[tuple[int, int, Header], ...]:
    """Return (offset, octets, header) of each IPv4 packet of the datagram at a node's interface."""
    found: list[tuple[int, int, Header]] = []
    for frame in seen.capture(f"{node}:eth0").frames:
        ip = frame.packet.header("IPv4")
        if ip is None or ip["protocol"].value != 17:
            continue
        octets = ip["total length"].value - 4 * ip["header length"].value
        found.append((ip["fragment offset"].value * 8, octets, ip))
    return tuple(found)


def places(seen: Evidence, node: str) -> list[tuple[int, int]]:
    """Return (offset, octets) of each piece at a node's interface."""
    return [(offset, octets) for offset, octets, _ in pieces(seen, node)]


def errors(seen: Evidence) -> list[tuple[int, Frame]]:
    """Return (type, frame) of the ICMP errors that the client heard."""
    found: list[tuple[int, Frame]] = []
    for frame in seen.capture("client:eth0").frames:
        icmp = frame.packet.header("ICMP")
        if icmp is not None:
            found.append((icmp["type"].value, frame))
    return found


def datagrams(seen: Evidence) -> list[tuple[int, bool]]:
    """Return (octets, unchanged) of what the program at the server received."""
    return [
        (s["bytes"], s["as_sent"]) for s in seen.steps("server", "listen") if s.word == "datagram"
    ]


@lab.check
def the_router_cuts_one_packet_into_three(whole: Evidence) -> Verdict:
    """The client sends 4008 octets behind one header; the server gets 1376 + 1376 + 1256."""
    left = expect(places(whole, "client"), what="from the client").equals([(0, OCTETS + 8)])
    rest = OCTETS + 8 - 2 * PIECE
    bound = [(0, PIECE), (PIECE, PIECE), (2 * PIECE, rest)]
    counted = expect(whole.counted("r1", "Ip.FragCreates"), what="made by r1").equals(3)
    return left & counted & expect(places(whole, "server"), what="at the server").equals(bound)


@lab.check
def fragments_are_cut_again(sender_cuts: Evidence) -> Verdict:
    """With 1500 at its own link the client makes three pieces, and the router five of them."""
    first = [(0, 1480), (1480, 1480), (2960, OCTETS + 8 - 2960)]
    second = [(0, PIECE), (PIECE, 1480 - PIECE), (1480, PIECE), (1480 + PIECE, 1480 - PIECE)]
    return expect(places(sender_cuts, "client"), what="from the client").equals(first) & expect(
        places(sender_cuts, "server"), what="at the server"
    ).equals([*second, first[2]])


@lab.check(on=CUT)
def pieces_share_an_identification(each: Evidence) -> Verdict:
    """All pieces carry the same identification, and all but the last the flag MF."""
    found = pieces(each, "server")
    names = {ip["identification"].value for _, _, ip in found}
    more = [bool(ip["MF"].value) for _, _, ip in found]
    return expect(len(names), what="identifications").equals(1) & expect(more, what="MF").equals(
        [True] * (len(found) - 1) + [False]
    )


@lab.check(on=("whole", "sender-cuts"))
def the_receiver_puts_them_together(each: Evidence) -> Verdict:
    """The program receives one datagram of 4000 octets, unchanged."""
    return expect(datagrams(each), what="received").equals([(OCTETS, True)])


@lab.check
def df_forbids_it(df: Evidence) -> Verdict:
    """With DF the router drops the packet and says why; the next send is refused with EMSGSIZE."""
    flags = [ip["DF"].value for _, _, ip in pieces(df, "client")]
    kinds = [kind for kind, _ in errors(df)]
    words = [s.word for s in df.steps("client", "send") if s.word in ("sent", "refused")]
    return (
        expect(flags, what="DF").equals([1])
        & expect(kinds, what="ICMP types heard").equals([3])
        & expect(words).equals(["sent", "refused"])
        & expect(places(df, "server"), what="at the server").equals([])
    )


@lab.check
def one_lost_piece_loses_all(one_lost: Evidence) -> Verdict:
    """Without the second piece the program gets nothing, and the kernel counts one failure."""
    failed = one_lost.counted("server", "Ip.ReasmFails")
    return expect(datagrams(one_lost), what="received").equals([]) & expect(
        failed, what="ReasmFails"
    ).equals(1)


@lab.check(timing=True)
def the_receiver_gives_up_after_ipfrag_time(one_lost: Evidence) -> Verdict:
    """The server waits ipfrag_time, here 1 s, up to 1/8 s late, and tells the sender by ICMP."""
    sent = one_lost.first(
        (f for f in one_lost.capture("client:eth0").frames if f.packet.header("UDP")), "a datagram"
    )
    told = one_lost.first((f for kind, f in errors(one_lost) if kind == 11), "time exceeded")
    return expect((told.time_ns - sent.time_ns) / 1e9, "s").between(1.0, 1 + 1 / 8 + 50 * ms)


@lab.figure
def figures(whole: Evidence, sender_cuts: Evidence, one_lost: Evidence) -> dict[str, str]:
    """Return the figures of the guide."""
    told = one_lost.first((f for kind, f in errors(one_lost) if kind == 11), "time exceeded")
    sent = one_lost.capture("client:eth0").frames[0]
    return {
        "pieces": " + ".join(str(octets) for _, octets in places(whole, "server")),
        "pieces_twice": " + ".join(str(octets) for _, octets in places(sender_cuts, "server")),
        "gave_up_after": f"{(told.time_ns - sent.time_ns) / 1e9:.3f} s",
        "reasm_fails": str(one_lost.counted("server", "Ip.ReasmFails")),
    }


lab.fault(
    mtu("middle", 1000),
    on="whole",
    breaks=the_router_cuts_one_packet_into_three,
    name="the middle link is smaller still",
)
lab.fault(
    mtu("left", 9000),
    on="sender-cuts",
    breaks=fragments_are_cut_again,
    name="the client's link carries it in one piece",
)
lab.fault(
    option(sizes=f"{OCTETS},{OCTETS}"),
    on="sender-cuts",
    breaks=pieces_share_an_identification,
    also=(fragments_are_cut_again,),
    name="there are two datagrams",
)
lab.fault(
    option(deaf=True),
    on="whole",
    breaks=the_receiver_puts_them_together,
    name="a firewall drops the datagram once it is whole",
)
lab.fault(
    option(discover="dont"),
    on="df",
    breaks=df_forbids_it,
    name="routers may cut it after all",
)
lab.fault(
    option(lose=False),
    on="one-lost",
    breaks=one_lost_piece_loses_all,
    also=(the_receiver_gives_up_after_ipfrag_time,),
    name="no piece is lost",
)
lab.fault(
    sysctl("server", "net.ipv4.ipfrag_time", 2),
    on="one-lost",
    breaks=the_receiver_gives_up_after_ipfrag_time,
    name="the server waits twice as long",
)
