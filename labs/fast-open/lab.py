"""TCP Fast Open: data in the SYN, once the server has given out a cookie.

The exercise is in guide.md; the rule is RFC 7413, the setting is tcp_fastopen in the kernel's
ip-sysctl documentation: 1 for the client's half, 2 for the server's. An exchange is five octets
there and five back, so it takes a whole number of round trips of 100 ms, and what programs need on
top of that. Half a round trip tells one number from the next.
"""

from __future__ import annotations

from netlab.analysis.headers import Packet
from netlab.labs import Evidence, Lab, Verdict, every, expect, option, sysctl
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Stage, address, agent
from netlab.units import ms

PORT = 8080
RTT = 100 * ms
OCTETS = 5
COOKIE = "fast open cookie"
KEY = "net.ipv4.tcp_fastopen"

lab = Lab(
    "Data in the SYN",
    variations={
        "off": sysctl("*", KEY, 0),
        "client-only": sysctl("*", KEY, 1),
        "server-only": sysctl("*", KEY, 2),
        "both": sysctl("*", KEY, 3),
    },
    ladder="client:eth0",
)
NOT_BOTH = ("off", "client-only", "server-only")


@lab.scenario
def ask_twice(stage: Stage, *, thinks: float = 0.0, second: str = f"connect-send={OCTETS}") -> None:
    """A client opens a connection, asks and is answered; then it does so again."""
    to = address(stage.topology, "server")
    answer = (f"recv={OCTETS}", f"sleep={thinks}", f"send={OCTETS}", "recv-eof", "close")
    answers = ("accept", *answer) * 2
    serve = agent("actor", "--address", to, "fast-open", "listen", *answers)
    first = f"connect-send={OCTETS}"
    hear = (f"recv={OCTETS}", "close")
    ask = agent("actor", "--address", to, first, *hear, *second.split("+"), *hear)
    with (
        stage.capture("client:eth0", filter=f"tcp port {PORT}"),
        stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)) as serving,
        stage.node("client").spawn("ask", ask) as asking,
    ):
        asking.wait(30)
        serving.wait(30)


def syns(seen: Evidence) -> list[Packet]:
    """Return the client's SYNs, as they were sent first."""
    rows = [s for s in seen.capture("client:eth0").segments if s.is_syn and not s.retransmission]
    frames = {frame.number: frame for frame in seen.capture("client:eth0").frames}
    return [frames[row.frame].packet for row in rows]


def cookie(packet: Packet) -> str | None:
    """Return the Fast Open cookie in hex: empty where one is asked for, None without the option."""
    found = next((o for o in packet.options("TCP") if o.name == COOKIE), None)
    if found is None or found.length == 2:
        return None if found is None else ""
    return f"{found['octets'].value:0{2 * (found.length - 2)}x}"


def answered(seen: Evidence) -> list[float]:
    """Return the seconds from each SYN to the first octet of the answer, at the client."""
    times: list[float] = []
    asked = 0
    for segment in seen.capture("client:eth0").on_port(PORT):
        if segment.is_syn and not segment.retransmission:
            asked = segment.time_ns
        elif asked and segment.length and not segment.forward:
            times.append((segment.time_ns - asked) / 1e9)
            asked = 0
    return times


def round_trips(seconds: float, number: int) -> Verdict:
    """Tell whether something took so many round trips and less than half of another."""
    return expect(seconds, "s").between(0.98 * number * RTT, (number + 0.5) * RTT)


@lab.check
def the_first_connection_fetches_a_cookie(both: Evidence) -> Verdict:
    """The first SYN has an empty cookie option and no data; the SYN-ACK has a cookie of 4 to 16."""
    first = both.first(syns(both), "a SYN")
    segments = both.capture("client:eth0").segments
    frames = {frame.number: frame for frame in both.capture("client:eth0").frames}
    answer = both.first((s for s in segments if s.is_syn_ack), "a SYN-ACK")
    given = cookie(frames[answer.frame].packet) or ""
    asks = expect([cookie(first), len(first.payload)], what="cookie, data of the SYN")
    size = expect(len(given) // 2, "B", what="cookie in the SYN-ACK")
    return asks.equals(["", 0]) & size.between(4, 16)


@lab.check
def the_second_syn_carries_cookie_and_data(both: Evidence) -> Verdict:
    """The second SYN has the cookie and five octets, and the SYN-ACK acknowledges all of them."""
    found = syns(both)
    if len(found) < 2:
        return expect(None, what="a second SYN").equals(2)
    rows = both.capture("client:eth0").segments
    second = [row.stream for row in rows if row.is_syn][-1]
    answers = [row.ack for row in rows if row.stream == second and row.is_syn_ack]
    told = expect([bool(cookie(found[1])), len(found[1].payload)], what="cookie, data of the SYN")
    return told.equals([True, OCTETS]) & expect(answers, what="acknowledged").equals([1 + OCTETS])


@lab.check(timing=True)
def the_second_answer_comes_one_round_trip_earlier(both: Evidence) -> Verdict:
    """The first exchange takes two round trips of 100 ms, the second one."""
    times = answered(both)
    if len(times) < 2:
        return expect(None, what="two answers").equals(2)
    return round_trips(times[0], 2) & round_trips(times[1], 1)


@lab.check(on=NOT_BOTH, timing=True)
def it_takes_both_sides(each: Evidence) -> Verdict:
    """With one half or none no SYN carries data, and each exchange takes two round trips."""
    data = [len(packet.payload) for packet in syns(each)]
    times = answered(each)
    if len(times) < 2:
        return expect(None, what="two answers").equals(2)
    none = expect(data, what="data in the SYNs").equals([0, 0])
    return none & every(round_trips(seconds, 2) for seconds in times)


@lab.check
def without_the_clients_half_the_kernel_says_so(each: Evidence) -> Verdict:
    """Where bit 1 of tcp_fastopen is not set, sendto(MSG_FASTOPEN) fails with EOPNOTSUPP."""
    refused = [str(x["errno"]) for x in each.steps("client", "ask") if x.word == "refused"]
    wanted = [] if each.variation in ("client-only", "both") else ["EOPNOTSUPP"] * 2
    return expect(refused).equals(wanted)


lab.fault(
    sysctl("server", KEY, 1),
    on="both",
    breaks=the_first_connection_fetches_a_cookie,
    also=(the_second_syn_carries_cookie_and_data, the_second_answer_comes_one_round_trip_earlier),
)
lab.fault(
    option(second=f"connect+send={OCTETS}"),
    on="both",
    breaks=the_second_syn_carries_cookie_and_data,
    also=(the_second_answer_comes_one_round_trip_earlier,),
    name="the second time the client connects in the old way",
)
lab.fault(
    option(thinks=0.8 * RTT),
    on="both",
    breaks=the_second_answer_comes_one_round_trip_earlier,
    name="the server thinks before it answers",
)
lab.fault(sysctl("*", KEY, 3), on="client-only", breaks=it_takes_both_sides)
lab.fault(
    sysctl("client", KEY, 1),
    on="off",
    breaks=without_the_clients_half_the_kernel_says_so,
)


@lab.figure
def figures(off: Evidence, both: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    first, second = answered(both)[:2]
    return {
        "first_ms": f"{first * 1e3:.0f}",
        "second_ms": f"{second * 1e3:.0f}",
        "saved_ms": f"{(first - second) * 1e3:.0f}",
        "off_ms": f"{answered(off)[1] * 1e3:.0f}",
        "cookie": cookie(syns(both)[1]) or "",
    }


@lab.claim("C47")
def a_round_trip_is_saved(off: Evidence, both: Evidence) -> Finding:
    """Fast open saves a round trip."""
    first, second = (f"{seconds * 1e3:.0f} ms" for seconds in answered(both)[:2])
    told = f"first connection {first}, second {second}, with an RTT of {RTT * 1e3:.0f} ms"
    saved = answered(off)[1] - answered(both)[1]
    return holds(RTT / 2 < saved < 1.5 * RTT, told)
