"""A client that runs out of ports: what the limit is, what moves it, and what does not.

The exercise is in guide.md; the sources are connect(2) (EADDRNOTAVAIL), ip(7)
(ip_local_port_range), tcp(7) (tcp_tw_reuse) and tcp_twsk_unique in net/ipv4/tcp_ipv4.c.
"""

from __future__ import annotations

from netlab.analysis import ss
from netlab.analysis.timing import latest
from netlab.labs import (
    Evidence,
    Lab,
    Verdict,
    expect,
    inconclusive,
    on_request,
    option,
    sysctl,
    vary,
)
from netlab.labs.claims import Finding, depends, holds
from netlab.labs.scene import Ready, Stage, address, agent, count
from netlab.units import s

PORT = 8080
PORTS = 100  # ip_local_port_range of topology.yaml
MANY = 150
POOL = 5
SECOND = "192.0.2.1"  # of the server
MINUTE = 60 * s  # TCP_TIMEWAIT_LEN, include/net/tcp.h
LONGEST = latest(MINUTE, None)
REUSE = "net.ipv4.tcp_tw_reuse"
RANGE = "net.ipv4.ip_local_port_range"

lab = Lab(
    "A client that runs out of ports",
    variations={
        "plain": option(),
        "wider-range": sysctl("client", RANGE, "40000 40149"),
        "tw-reuse": vary(sysctl("client", REUSE, 1), later=1.1 * s),
        "reuseaddr": option(reuse=True),
        "two-addresses": option(second="loopback"),
        "pool": option(pool=POOL),
        "linger-0": option(each="reset"),
        "patience": on_request(MINUTE, option(later=LONGEST)),
    },
    minutes=3,
)
STUCK = ("plain", "two-addresses", "patience")
RECYCLED = "TcpExt.TWRecycled"


@lab.scenario
def connect_and_close(
    stage: Stage,
    *,
    reuse: bool = False,
    each: str = "close",
    second: str = "",
    pool: int = 0,
    later: float = 0,
    clients: int = MANY,
) -> None:
    """A client makes 150 connections, one after the other, and closes each of them first."""
    to = address(stage.topology, "server")
    elsewhere = {"loopback": SECOND}.get(second, to)
    behave = "echo" if pool else "reads"
    serve = agent("crowd", "serve", "--backlog", 200, "--behave", behave)
    count(stage, "before", "client", names=[RECYCLED])
    with stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)):
        if pool:
            crowd(stage, "connect", to, "--count", pool, "--requests", clients)
        else:
            options = ["--each", each, *(["--reuse"] if reuse else [])]
            crowd(stage, "connect", to, "--count", clients, *options)
        stage.until(lambda: closed(stage), timeout=20, what="every connection to be closed")
        stage.snapshot("left", "client")
        if later:
            stage.settle(later, because="ports in TIME-WAIT must have had that time")
        if second or later:
            crowd(stage, "again", elsewhere, "--count", PORTS, "--each", each)
    count(stage, "after", "client", names=[RECYCLED])


def crowd(stage: Stage, name: str, *arguments: object) -> None:
    """Let a crowd of clients do its work to the end."""
    with stage.node("client").spawn(name, agent("crowd", "connect", *arguments)) as clients:
        clients.wait(60)


def closed(stage: Stage) -> bool:
    """Tell whether no connection of the client is between its FIN and TIME-WAIT."""
    shown = ss.parse(stage.node("client").run(["ss", "-tan"]).stdout)
    return not any(x.state.startswith("FIN-WAIT") for x in shown)


def opened(seen: Evidence, crowd: str = "connect") -> int:
    """Return how many connections were made."""
    return int(seen.step("client", crowd, "connected")["count"])


def failures(seen: Evidence, crowd: str = "connect") -> dict[str, int]:
    """Return how often connect() failed, by the name of the error."""
    return dict(seen.step("client", crowd, "connected")["failed"])


def waiting(seen: Evidence) -> tuple[ss.Socket, ...]:
    """Return the client's sockets in TIME-WAIT."""
    return tuple(x for x in seen.snapshot("left", "client") if x.state == "TIME-WAIT")


def made_at(seen: Evidence) -> float:
    """Return how many seconds before the look at TIME-WAIT the first connection was made."""
    done = seen.step("client", "connect", "connected")
    looked = seen.event("snapshot", label="left", node="client").at_ns
    return (looked - int(done["at_ns"])) / 1e9 + float(done["seconds"])


@lab.check(on=STUCK)
def connect_fails_once_the_ports_are_used_up(each: Evidence) -> Verdict:
    """With 100 ports the 101st connect() fails: EADDRNOTAVAIL, cannot assign requested address."""
    done = each.step("client", "connect", "connected")
    return (
        expect(opened(each), what="connected").equals(PORTS)
        & expect(failures(each), what="failed").equals({"EADDRNOTAVAIL": MANY - PORTS})
        & expect(done["first_failure"], what="first failure at").equals(PORTS + 1)
    )


@lab.check
def each_port_is_lost_for_a_minute(plain: Evidence) -> Verdict:
    """All 100 ports are in TIME-WAIT, with what is left of 60 s: no more than 100 a minute."""
    held = {x.local.port for x in waiting(plain)}
    left = [x.timer.expires for x in waiting(plain) if x.timer and x.timer.kind == "timewait"]
    hz = plain.recording.manifest.hz
    shortest = MINUTE - made_at(plain) - 1 * s  # ss cuts off what is less than a second
    return (
        expect(len(held), what="ports in TIME-WAIT").equals(PORTS)
        & expect(min(left, default=0.0), "s", what="left at least").at_least(shortest)
        & expect(max(left, default=0.0), "s", what="left at most").at_most(latest(MINUTE, hz))
    )


@lab.check
def a_wider_range_moves_the_limit(wider_range: Evidence) -> Verdict:
    """With 150 ports in the range there are 150 connections."""
    return expect(opened(wider_range), what="connected").equals(MANY)


@lab.check
def tcp_tw_reuse_gives_ports_back_after_a_second(tw_reuse: Evidence) -> Verdict:
    """With tcp_tw_reuse=1 every port can be used again 1.1 s later, TIME-WAIT or not."""
    recycled = tw_reuse.counted("client", RECYCLED)
    return expect(opened(tw_reuse, "again"), what="connected").equals(PORTS) & expect(
        recycled, what="TWRecycled"
    ).equals(PORTS)


@lab.check
def but_not_within_that_second(tw_reuse: Evidence) -> Verdict:
    """Those of the 150 that come within a second of the first get no port all the same."""
    if made_at(tw_reuse) >= 1 * s:
        return inconclusive("it took longer than a second to make the connections")
    return expect(failures(tw_reuse), what="failed").equals({"EADDRNOTAVAIL": MANY - PORTS})


@lab.check
def so_reuseaddr_does_not_help_a_client(reuseaddr: Evidence) -> Verdict:
    """With SO_REUSEADDR on each of the client's sockets it is 100 connections, as without."""
    return expect(opened(reuseaddr), what="connected").equals(PORTS) & expect(
        failures(reuseaddr), what="failed"
    ).equals({"EADDRNOTAVAIL": MANY - PORTS})


@lab.check
def each_address_of_the_server_has_its_own_count(two_addresses: Evidence) -> Verdict:
    """With all 100 ports in TIME-WAIT 100 connections to another address use the same ports."""
    again = two_addresses.step("client", "again", "connected")
    ports = [again["count"], again["distinct_ports"], again["lowest_port"]]
    return expect(ports, what="connected, ports, lowest").equals([PORTS, PORTS, 40000])


@lab.check
def a_pool_needs_few_ports(pool: Evidence) -> Verdict:
    """150 requests are answered over 5 connections that stay open; none lacks a port."""
    answered = pool.step("client", "connect", "answered")
    return expect(answered["answered"], what="answered").equals(MANY) & expect(
        failures(pool), what="failed"
    ).equals({})


@lab.check
def a_reset_leaves_no_time_wait(linger_0: Evidence) -> Verdict:
    """A client that resets its connections (SO_LINGER 0) makes all 150, and has no TIME-WAIT."""
    return expect([opened(linger_0), len(waiting(linger_0))], what="connected, TIME-WAIT").equals(
        [MANY, 0]
    )


@lab.check
def a_minute_later_all_ports_are_back(patience: Evidence) -> Verdict:
    """After 60 s and one timer bucket every port can be used again: 100 in a minute."""
    return expect(opened(patience, "again"), what="connected").equals(PORTS)


def rate(seen: Evidence) -> float:
    """Return how many connections a second the client can go on making."""
    return len({x.local.port for x in waiting(seen)}) / MINUTE


def default_ports(seen: Evidence) -> int:
    """Return how many ports the kernel's own range has; at the server nobody changed it."""
    low, high = seen.recording.manifest.sysctls["server"][RANGE].split()
    return int(high) - int(low) + 1


@lab.figure
def figures(
    plain: Evidence, tw_reuse: Evidence, reuseaddr: Evidence, two_addresses: Evidence,
    linger_0: Evidence, pool: Evidence, wider_range: Evidence,
) -> dict[str, str]:  # fmt: skip
    """What the guide tells of the runs."""
    return {
        "opened": str(opened(plain)),
        "first_failure": str(plain.step("client", "connect", "connected")["first_failure"]),
        "error": ", ".join(failures(plain)),
        "held": str(len(waiting(plain))),
        "rate": f"{rate(plain):.2f}",
        "wider": str(opened(wider_range)),
        "reuseaddr": str(opened(reuseaddr)),
        "at_once": str(opened(tw_reuse)),
        "a_second_later": str(opened(tw_reuse, "again")),
        "elsewhere": str(opened(two_addresses, "again")),
        "answered": str(pool.step("client", "connect", "answered")["answered"]),
        "pool": str(opened(pool)),
        "reset": str(opened(linger_0)),
        "default_ports": str(default_ports(plain)),
        "default_rate": f"{default_ports(plain) / MINUTE:.0f}",
    }


@lab.claim("C07")
def reuseaddr_helps(plain: Evidence, reuseaddr: Evidence) -> Finding:
    """SO_REUSEADDR helps a client that has run out of ports."""
    return holds(
        opened(reuseaddr) > opened(plain),
        f"{opened(reuseaddr)} of {MANY} with it, {opened(plain)} without",
    )


@lab.claim("C08")
def tw_reuse_helps(plain: Evidence, tw_reuse: Evidence) -> Finding:
    """tcp_tw_reuse=1 helps it."""
    told = f"{opened(tw_reuse)} of {MANY} at once, {opened(tw_reuse, 'again')} more 1.1 s later"
    return holds(opened(tw_reuse, "again") == opened(plain), f"{told} over the same {PORTS} ports")


@lab.claim("C09")
def five_hundred_a_second(plain: Evidence) -> Finding:
    """With 64 K ports 500 connections a second can be closed."""
    ports = default_ports(plain)
    return depends(
        "the ports in ip_local_port_range, for each address and port of a server, over 60 s",
        f"{len(waiting(plain))} ports are {rate(plain):.2f}/s, the default {ports} are "
        f"{ports / MINUTE:.0f}/s, 64 K would be {65536 / MINUTE:.0f}/s",
    )


lab.fault(
    sysctl("client", RANGE, "40000 40149"),
    on="plain",
    breaks=connect_fails_once_the_ports_are_used_up,
    also=(each_port_is_lost_for_a_minute,),
)
lab.fault(
    option(each="reset"),
    on="plain",
    breaks=each_port_is_lost_for_a_minute,
    also=(connect_fails_once_the_ports_are_used_up,),
    name="clients that reset",
)
lab.fault(
    sysctl("client", RANGE, "40000 40120"), on="wider-range", breaks=a_wider_range_moves_the_limit
)
lab.fault(
    sysctl("client", "net.ipv4.tcp_timestamps", 0),
    on="tw-reuse",
    breaks=tcp_tw_reuse_gives_ports_back_after_a_second,
)
lab.fault(
    option(clients=PORTS),
    on="tw-reuse",
    breaks=but_not_within_that_second,
    name="no more clients than ports",
)
lab.fault(
    sysctl("client", RANGE, "40000 40149"),
    on="reuseaddr",
    breaks=so_reuseaddr_does_not_help_a_client,
)
lab.fault(
    option(second="wire"),
    on="two-addresses",
    breaks=each_address_of_the_server_has_its_own_count,
    name="the same address again",
)
lab.fault(
    option(pool=PORTS + 20),
    on="pool",
    breaks=a_pool_needs_few_ports,
    name="a pool larger than the range",
)
lab.fault(
    option(each="close"), on="linger-0", breaks=a_reset_leaves_no_time_wait, name="a FIN after all"
)
lab.fault(
    option(later=30 * s),
    on="patience",
    breaks=a_minute_later_all_ports_are_back,
    name="half a minute",
)
