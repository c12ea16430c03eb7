"""A firewall that says nothing: how long a client knocks, and when it gives up.

The exercise is in guide.md; the rules are tcp(7) (tcp_syn_retries), RFC 6298 §5.5 (the timeout
doubles), and tcp_retransmit_timer and tcp_write_timeout in net/ipv4/tcp_timer.c (the first
tcp_syn_linear_timeouts waits do not double, and as many more repetitions are allowed).
"""

from __future__ import annotations

from itertools import pairwise

from netlab.analysis.segments import Segment
from netlab.analysis.timing import bucket
from netlab.errors import CapabilityError
from netlab.labs import (
    Evidence,
    Lab,
    Variation,
    Verdict,
    delay,
    expect,
    on_request,
    option,
    sysctl,
    vary,
)
from netlab.labs.scene import Match, Stage, address, agent, keep
from netlab.units import ms, s

DROPPED, REJECTED, RESET = 8080, 8081, 8082
FIRST = 1 * s  # RFC 6298 §2.1, TCP_TIMEOUT_INIT
SLACK = 50 * ms
RETRIES = "net.ipv4.tcp_syn_retries"
LINEAR = "net.ipv4.tcp_syn_linear_timeouts"


def knocks(retries: int, linear: int = 0) -> Variation:
    """Vary how often the client repeats its SYN; the checks compute from the same numbers."""
    return vary(sysctl("client", RETRIES, retries), retries=retries, linear=linear)


def waits(retries: int, linear: int) -> tuple[float, ...]:
    """Return the seconds that a client waits after each of its SYNs; after the last it gives up.

    It does when it has repeated the SYN `retries` + `linear` times, or when as much time is over
    as `retries` doubling waits would take, whichever comes first.
    """
    found: list[float] = []
    wait, repeated = FIRST, 0
    while True:
        found.append(wait)
        if repeated >= retries + linear or sum(found) >= FIRST * (2 ** (retries + 1) - 1):
            return tuple(found)
        repeated += 1
        if repeated > linear:
            wait *= 2


lab = Lab(
    "A firewall that says nothing",
    variations={
        "retries-1": knocks(1),
        "retries-2": knocks(2),
        "linear-4": knocks(2, 4),
        "retries-6": on_request(sum(waits(6, 0)), knocks(6)),
        "default": on_request(sum(waits(6, 4)), knocks(6, 4)),
        # Without delay the ICMP error is there before connect() waits for it, and counts for less.
        "reject": vary(delay("wire", 1 * ms), port=REJECTED),
        "reset": vary(delay("wire", 1 * ms), port=RESET),
    },
    ladder="client:eth0",
)
SILENT = ("retries-1", "retries-2", "linear-4", "retries-6", "default")


@lab.scenario
def knock(
    stage: Stage,
    *,
    port: int = DROPPED,
    retries: int = 6,
    linear: int = 0,
    hide_one: bool = False,
) -> None:
    """A client connects to a port of which the server's firewall lets no SYN through."""
    client = stage.node("client")
    set_linear(stage, linear)
    keep(stage, "settings", "client", "sysctl", "-e", RETRIES, LINEAR)
    if hide_one:
        stage.enter(client.hold(Match(tcp_flags="syn", mask="syn,ack", first=True)))
    to = address(stage.topology, "server")
    connect = agent("actor", "--address", to, "--port", port, "--keep-going", "connect")
    with stage.capture("client:eth0", filter="tcp or icmp"), client.spawn("connect", connect) as it:
        it.wait(sum(waits(retries, linear)) * 9 / 8 + 20)


def set_linear(stage: Stage, timeouts: int) -> None:
    """Choose how many SYNs are repeated before the wait doubles; older kernels know of none."""
    client = stage.node("client")
    known = client.run(["sysctl", "-e", LINEAR]).stdout
    if known:
        client.run(["sysctl", "-w", f"{LINEAR}={timeouts}"])
    elif timeouts:
        raise CapabilityError("this kernel has no tcp_syn_linear_timeouts; Linux 6.5 has")


def planned(seen: Evidence) -> tuple[float, ...]:
    """Return the waits that the settings of a run mean."""
    return waits(int(seen.option("retries")), int(seen.option("linear")))


def late(seen: Evidence, wait: float) -> float:
    """Return by how much a wait may be longer: one bucket of the timer wheel, and some."""
    return bucket(wait, seen.recording.manifest.hz) + SLACK


def syns(seen: Evidence) -> tuple[Segment, ...]:
    """Return the SYNs of the client."""
    return tuple(x for x in seen.capture("client:eth0").segments if x.is_syn)


def gaps(seen: Evidence) -> list[float]:
    """Return the seconds between the SYNs."""
    return [(b.time_ns - a.time_ns) / 1e9 for a, b in pairwise(syns(seen))]


def listed(times: list[float]) -> str:
    """Return times as the guide writes them."""
    return ", ".join(f"{time:.2f}" for time in times)


def patience(seen: Evidence) -> float:
    """Return how long connect() took to fail, in seconds."""
    began = seen.step("client", "connect", "connecting")["at_ns"]
    return (seen.step("client", "connect", "failed")["at_ns"] - began) / 1e9


def reason(seen: Evidence) -> str:
    """Return why connect() failed, by the name of the error."""
    return str(seen.step("client", "connect", "failed")["errno"])


def answers(seen: Evidence) -> list[str]:
    """Return what came back: kinds of segments, and ICMP errors with their type and code."""
    capture = seen.capture("client:eth0")
    found = [x.kind for x in capture.segments if not x.forward]
    for frame in capture.frames:
        icmp = frame.packet.header("ICMP")
        if icmp is not None:
            found.append(f"ICMP {icmp['type'].value}/{icmp['code'].value}")
    return found


@lab.check(on=SILENT, timing=True)
def syns_follow_the_back_off(each: Evidence) -> Verdict:
    """The same SYN leaves again after 1 s, 2 s, 4 s …, each wait late by one timer bucket at most.

    With tcp_syn_linear_timeouts=4 the first four waits do not double.
    """
    wanted = planned(each)[:-1]
    off = [
        round(gap, 3)
        for gap, wait in zip(gaps(each), wanted, strict=False)
        if not wait <= gap <= wait + late(each, wait)
    ]
    numbers = {x.seq_raw for x in syns(each)}
    return (
        expect(len(syns(each)), what="SYNs").equals(len(wanted) + 1)
        & expect(off, "s", what="waits that are not as computed").equals([])
        & expect(len(numbers), what="numbers used").equals(1)
    )


@lab.check(on=SILENT, timing=True)
def connect_gives_up_when_the_last_wait_is_over(each: Evidence) -> Verdict:
    """connect() fails with ETIMEDOUT at the sum of the waits, late by their buckets at most."""
    total = sum(planned(each))
    latest = total + sum(bucket(w, each.recording.manifest.hz) for w in planned(each)) + SLACK
    return expect(patience(each), "s").between(total, latest) & expect(reason(each)).equals(
        "ETIMEDOUT"
    )


@lab.check(on=SILENT)
def nobody_answers(each: Evidence) -> Verdict:
    """Nothing comes back: no segment, no ICMP error."""
    each.first(syns(each), "a SYN")
    return expect(answers(each), what="came back").equals([])


@lab.check(on=("reject", "reset"))
def saying_no_saves_the_wait(each: Evidence) -> Verdict:
    """A client that is told no has ECONNREFUSED after one SYN, before it would send another."""
    return (
        expect(patience(each), "s").below(FIRST)
        & expect(reason(each)).equals("ECONNREFUSED")
        & expect(len(syns(each)), what="SYNs").equals(1)
    )


@lab.check
def there_are_two_ways_to_say_no(reject: Evidence, reset: Evidence) -> Verdict:
    """`reject` answers with an ICMP error (port unreachable), `reset` with an RST."""
    return expect([answers(reject), answers(reset)], what="reject, reset").equals(
        [["ICMP 3/3"], ["RST-ACK"]]
    )


lab.fault(
    option(hide_one=True),
    on="retries-1",
    breaks=syns_follow_the_back_off,
    name="the client's own firewall drops a SYN",
)
lab.fault(
    sysctl("client", RETRIES, 2),
    on="retries-1",
    breaks=connect_gives_up_when_the_last_wait_is_over,
    also=(syns_follow_the_back_off,),
)
lab.fault(
    option(port=RESET),
    on="retries-1",
    breaks=nobody_answers,
    also=(syns_follow_the_back_off, connect_gives_up_when_the_last_wait_is_over),
    name="the firewall resets",
)
lab.fault(
    vary(sysctl("client", RETRIES, 1), port=DROPPED),
    on="reject",
    breaks=saying_no_saves_the_wait,
    also=(there_are_two_ways_to_say_no,),
    name="the firewall drops",
)
lab.fault(
    option(port=RESET),
    on="reject",
    breaks=there_are_two_ways_to_say_no,
    name="the firewall resets where it should reject",
)


@lab.figure
def figures(
    retries_1: Evidence, retries_2: Evidence, linear_4: Evidence, reject: Evidence, reset: Evidence
) -> dict[str, str]:
    """What the guide tells of the runs."""
    own = retries_1.recording.manifest.sysctls["server"]  # where nobody changed anything
    retries, linear = int(own[RETRIES]), int(own.get(LINEAR, "0"))
    told = {"one": retries_1, "two": retries_2, "linear": linear_4}
    return {
        **{f"{name}_syns": str(len(syns(seen))) for name, seen in told.items()},
        **{
            f"{name}_gaps": ", ".join(f"{g:.2f}" for g in gaps(seen)) for name, seen in told.items()
        },
        **{f"{name}_took": f"{patience(seen):.2f} s" for name, seen in told.items()},
        "reject_took": f"{patience(reject) * 1e3:.1f} ms",
        "reset_took": f"{patience(reset) * 1e3:.1f} ms",
        "retries": str(retries),
        "linear": str(linear),
        "default_syns": str(len(waits(retries, linear))),
        "default_takes": f"{sum(waits(retries, linear)):.0f} s",
        "plain_takes": f"{sum(waits(retries, 0)):.0f} s",
    }
