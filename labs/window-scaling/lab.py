"""Window scaling: sixteen bits of window, and what they cost on a long fat path.

The exercise is in guide.md; the rules are RFC 7323 §2. A client sends as fast as it may for some
seconds over a path of 100 Mbit/s and 100 ms; a machine that cannot do that (a guest) gets a slower
path, on which a small window is still too small. Reno is pinned: CUBIC would leave slow start early
(HyStart) and take many seconds to fill the path, which is another lab's subject.
"""

from __future__ import annotations

from contextlib import ExitStack

from netlab.analysis.segments import Segment
from netlab.analysis.ss import Socket
from netlab.labs import Evidence, Lab, Verdict, delay, expect, option, slower, sysctl, vary
from netlab.labs.claims import Finding, depends, holds
from netlab.labs.scene import Ready, Stage, address, agent, proceed
from netlab.units import mbit, ms

PORT = 5000
RATE = 100 * mbit
RTT = 100 * ms
LARGEST = 65_535
PAYLOAD = 1448 / 1514
"""What is left for data of a full frame: headers and the timestamps option take the rest."""
WATCHED = 2.0
"""Seconds over which the rate is measured, once the path has had time to fill."""

lab = Lab(
    "Window scaling",
    alone=True,
    paces=(1, 2, 5, 10),
    variations={
        "on": option(warm=1.5),
        "off": vary(sysctl("*", "net.ipv4.tcp_window_scaling", 0), warm=1.0),
        "large-buffers": vary(sysctl("*", "net.ipv4.tcp_rmem", "4096 87380 16777216"), warm=1.5),
    },
)
SCALED = ("on", "large-buffers")


@lab.scenario
def send_as_fast_as_it_goes(stage: Stage, *, warm: float = 1.5) -> None:
    """Send for some seconds; look with `ss` when the path has filled, and again later."""
    client, server = stage.node("client"), stage.node("server")
    to = address(stage.topology, "server")
    beginning = stage.capture("client:eth0", filter=f"tcp port {PORT}", count=500, snaplen=80)
    with ExitStack() as stack:
        serve = agent("bulk", "serve", "--port", PORT)
        stack.enter_context(server.spawn("serve", serve, ready=Ready.port(PORT)))
        send = agent("bulk", "send", to, "--port", PORT, "--for", 60, "--step")
        sending = stack.enter_context(client.spawn("send", send))
        proceed(stage, sending, "send")
        stage.settle(warm, because="slow start takes 7 RTTs to fill the path")
        stage.snapshot("first", "client")
        stage.settle(WATCHED, because="the rate is measured over that time")
        stage.snapshot("second", "client")
        sending.stop()
    beginning.stop()


def segments(seen: Evidence) -> tuple[Segment, ...]:
    """Return the first segments of the connection, as the client's interface saw them."""
    return seen.capture("client:eth0").on_port(PORT)


def shifts(seen: Evidence) -> list[int | None]:
    """Return the shift in the SYN and in the SYN-ACK."""
    return [s.wscale for s in segments(seen) if s.flags & 0x02][:2]


def most_in_flight(seen: Evidence) -> int:
    """Return the most octets that were under way at once, of those that were captured."""
    sent = acknowledged = 1
    most = 0
    for segment in segments(seen):
        if segment.forward:
            sent = max(sent, segment.seq + segment.length)
            most = max(most, sent - acknowledged)
        else:
            acknowledged = max(acknowledged, segment.ack)
    return most


def connection(seen: Evidence, label: str) -> Socket:
    """Return the client's socket as `ss` showed it."""
    sockets = seen.snapshot(label, "client")
    return seen.first((s for s in sockets if s.peer.port == PORT), "the connection")


def rate(seen: Evidence) -> float:
    """Return the bits a second that were acknowledged between the two looks."""
    acked = [connection(seen, label).number("bytes_acked") for label in ("first", "second")]
    times = [seen.event("snapshot", label=label).at_ns for label in ("first", "second")]
    return ((acked[1] or 0) - (acked[0] or 0)) * 8 / ((times[1] - times[0]) / 1e9)


@lab.check
def without_scaling_65535_octets_are_the_limit(off: Evidence) -> Verdict:
    """Sixteen bits hold 65,535: no more is ever under way, and soon nearly that much is."""
    return expect(most_in_flight(off), "B", what="most in flight").between(60_000, LARGEST)


@lab.check(timing=True)
def with_scaling_more_is_under_way(on: Evidence) -> Verdict:
    """With scaling more than 65,535 octets are under way within the first RTTs."""
    return expect(most_in_flight(on), "B", what="most in flight").above(LARGEST)


@lab.check(timing=True)
def one_small_window_per_rtt(off: Evidence) -> Verdict:
    """Without scaling the rate is 65,535 octets per RTT, 5.24 Mbit/s: 0.85 to 1.1 of that."""
    bound = LARGEST * 8 / RTT
    return expect(rate(off), "bit/s").between(0.85 * bound, 1.1 * bound)


@lab.check(on=SCALED, timing=True)
def scaling_fills_the_path(each: Evidence) -> Verdict:
    """With scaling the data take at least 0.8 of what the link has for them (95.6 Mbit/s)."""
    pinned = expect(connection(each, "first").congestion, what="congestion control").equals("reno")
    return expect(rate(each), "bit/s").at_least(0.8 * PAYLOAD * RATE / each.pace) & pinned


@lab.check
def both_syns_must_carry_the_option(on: Evidence, off: Evidence) -> Verdict:
    """Switched on, both SYNs have a shift of 7 or more, and `ss -ti` shows both; else neither."""
    shown = [connection(seen, "first").values.get("wscale") for seen in (on, off)]
    own, peer = shifts(on)
    least = expect(own, what="shift").at_least(7) & expect(shifts(off), what="off").equals(
        [None, None]
    )
    alike = expect([own, shown], what="shift of the client; ss with and without")
    return least & alike.equals([peer, [f"{peer},{own}", None]])


@lab.check
def larger_buffers_shift_further(large_buffers: Evidence) -> Verdict:
    """The shift follows from the largest buffer: 16 MiB is 2^24 octets, so at least 24 - 15 = 9."""
    own, peer = shifts(large_buffers)
    return expect(own, what="shift").at_least(9) & expect(peer, what="the server's").equals(own)


@lab.figure
def figures(on: Evidence, off: Evidence, large_buffers: Evidence) -> dict[str, str]:
    """Return the figures of the guide."""
    return {
        "rate_on": f"{rate(on) / 1e6:.1f} Mbit/s",
        "rate_off": f"{rate(off) / 1e6:.2f} Mbit/s",
        "flight_off": f"{most_in_flight(off):,}",
        "flight_on": f"{most_in_flight(on):,}",
        "shift_on": str(shifts(on)[0]),
        "shift_large": str(shifts(large_buffers)[0]),
    }


@lab.claim("C19")
def small_window_over_100_ms(off: Evidence) -> Finding:
    """Measure the rate without scaling."""
    return holds(
        0.9 <= rate(off) / 5.12e6 <= 1.1,
        f"{rate(off) / 1e6:.2f} Mbit/s without window scaling; {LARGEST:,} octets in 100 ms are "
        f"{LARGEST * 8 / 0.1 / 1e6:.2f} Mbit/s",
    )


@lab.claim("C22")
def what_scale_seven_means(on: Evidence) -> Finding:
    """Read the shift in a SYN, and what it makes of 65,535."""
    shift = shifts(on)[0] or 0
    return holds(
        LARGEST << 7 == 8_388_480,
        f"{LARGEST:,} shifted by 7 is {LARGEST << 7:,}; the SYN of this machine said {shift}",
    )


@lab.claim("C40")
def what_the_filter_selects(on: Evidence, off: Evidence) -> Finding:
    """Apply the filter to connections with and without scaling."""
    matched = [sum(bool(s.flags & 0x02) for s in segments(seen)) for seen in (on, off)]
    return depends(
        "what is read in the packets it selects: the option is there or not",
        f"it matches {matched[0]} SYNs with scaling and {matched[1]} without",
    )


@lab.claim("C69")
def how_large_a_window_can_be(on: Evidence, off: Evidence) -> Finding:
    """Hold the largest windows against 65,535."""
    most = most_in_flight(off)
    return holds(
        most <= LARGEST < most_in_flight(on),
        f"{most:,} octets in flight without scaling; with it {most_in_flight(on):,} and more; "
        f"the largest shift, 14, makes {LARGEST << 14:,}",
    )


lab.fault(
    sysctl("*", "net.ipv4.tcp_window_scaling", 1),
    on="off",
    breaks=without_scaling_65535_octets_are_the_limit,
    also=(one_small_window_per_rtt, both_syns_must_carry_the_option),
    name="scaling is on after all",
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_window_scaling", 0),
    on="on",
    breaks=with_scaling_more_is_under_way,
    also=(
        scaling_fills_the_path,
        both_syns_must_carry_the_option,
    ),
    name="one side does without",
)
lab.fault(
    delay("wire", 100 * ms),
    on="off",
    breaks=one_small_window_per_rtt,
    name="the path is twice as long",
)
lab.fault(
    slower(5, "wire"),
    on="on",
    breaks=scaling_fills_the_path,
    name="the link is slower than its label",
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_rmem", "4096 131072 1073741824"),
    on="on",
    breaks=both_syns_must_carry_the_option,
    also=(scaling_fills_the_path,),
    name="one side has larger buffers",
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_rmem", "4096 87380 1073741824"),
    on="large-buffers",
    breaks=larger_buffers_shift_further,
    also=(scaling_fills_the_path,),
    name="one side has much larger buffers",
)
