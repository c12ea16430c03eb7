"""TIME-WAIT: who keeps it, for how long, and what does not shorten it.

The exercise is in guide.md; the rules are RFC 9293 §3.6.1, TCP_TIMEWAIT_LEN in include/net/tcp.h,
and tcp(7): tcp_fin_timeout, tcp_max_tw_buckets.
"""

from __future__ import annotations

from netlab.analysis.timing import latest
from netlab.labs import Evidence, Lab, Verdict, expect, option, sysctl, vary
from netlab.labs.claims import Finding, holds, untested
from netlab.labs.scene import Ready, Stage, address, agent, count
from netlab.units import ms, s

PORT = 8080
MANY = 500
CAP = 100
MINUTE = 60 * s
PERIOD = 100 * ms

lab = Lab(
    "TIME-WAIT",
    variations={
        "client-closes": option(closer="client"),
        "server-closes": option(closer="server"),
        "capped": vary(sysctl("client", "net.ipv4.tcp_max_tw_buckets", CAP), closer="client"),
        "life": option(closer="client", life=True),
    },
    minutes=3,
)


@lab.scenario
def close_many(
    stage: Stage,
    *,
    closer: str = "client",
    life: bool = False,
    each: str = "close",
    patience: float = 100 * s,
) -> None:
    """Make many short connections and count what is left; or make one and wait until it is gone."""
    if life:
        watch_two(stage, patience)
        return
    to = address(stage.topology, "server")
    behave = "reads" if closer == "client" else "close"
    serve = agent("crowd", "serve", "--address", to, "--backlog", 600, "--behave", behave)
    closing = each if closer == "client" else "read"
    talk = agent("crowd", "connect", to, "--count", MANY, "--each", closing)
    count(stage, "before", "client", "server")
    with stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)):
        with stage.node("client").spawn("connect", talk) as clients:
            clients.wait(60)
        stage.until(lambda: quiet(stage), timeout=30, what="every connection to be closed")
        stage.snapshot("closed", "client", "server")
    count(stage, "after", "client", "server")


def quiet(stage: Stage) -> bool:
    """Tell whether neither side has a connection in another state than TIME-WAIT."""
    ask = ["ss", "-tanH", "state", "all", "exclude", "listening", "exclude", "time-wait"]
    return not any(stage.node(n).run(ask).stdout.strip() for n in ("client", "server"))


def watch_two(stage: Stage, patience: float) -> None:
    """One connection from each client, and the sampler until nothing is left of them."""
    serve = agent("crowd", "serve", "--behave", "reads")
    with stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)):
        sampler = stage.sample("client", "hasty", every=PERIOD, ports=[PORT])
        stage.settle(3 * PERIOD, because="the sampler must have seen that there was nothing")
        for node in ("client", "hasty"):
            to = next(a for a in addresses(stage, node))
            stage.node(node).run(agent("actor", "--address", to, "connect", "send=5", "close"))
        stage.snapshot("waiting", "client", "hasty")
        ends = stage.now_ns() + patience * 1e9
        stage.until(
            lambda: gone(stage) or stage.now_ns() > ends,
            timeout=patience + 30,
            every=PERIOD,
            what="TIME-WAIT to end",
        )
        stage.settle(3 * PERIOD, because="the sampler must see that they are gone")
        sampler.stop()


def addresses(stage: Stage, node: str) -> list[str]:
    """Return the addresses of the server on the link to a node."""
    links = [link for link in stage.topology.links if node in (link.a.node, link.b.node)]
    ends = [end for link in links for end in (link.a, link.b) if end.node == "server"]
    return [str(a.ip) for end in ends for a in end.addresses if a.version == 4]


def gone(stage: Stage) -> bool:
    """Tell whether no client has a connection any more."""
    ask = ["ss", "-tanH", "dport", "=", f":{PORT}"]
    return not any(stage.node(n).run(ask).stdout.strip() for n in ("client", "hasty"))


def left(seen: Evidence, node: str) -> int:
    """Return how many sockets a node had in TIME-WAIT after all was closed."""
    return sum(s.state == "TIME-WAIT" for s in seen.snapshot("closed", node))


def lifetime(seen: Evidence, node: str) -> float | None:
    """Return the seconds that a client's socket was in TIME-WAIT; None if its end was not seen."""
    changes = {state: at for at, state in seen.samples(node).states(PORT)}
    if changes and "CLOSED" not in changes:
        return None
    if "TIME-WAIT" not in changes:
        return 0.0
    return (changes["CLOSED"] - changes["TIME-WAIT"]) / 1e9


def a_minute(seen: Evidence, node: str) -> Verdict:
    """Hold the life of a TIME-WAIT against 60 s and one bucket of the timer wheel."""
    late = seen.samples(node).worst_late + 2 * PERIOD
    hz = seen.recording.manifest.hz
    bound = latest(MINUTE, hz, slack=late)
    return expect(lifetime(seen, node), "s", what=node).between(MINUTE - late, bound)


@lab.check(on=("client-closes", "server-closes"))
def who_closes_first_keeps_them_all(each: Evidence) -> Verdict:
    """500 connections leave 500 sockets in TIME-WAIT where close() came first, none elsewhere."""
    closer = str(each.option("closer"))
    other = "server" if closer == "client" else "client"
    counts = [left(each, closer), left(each, other)]
    return expect(counts, what="closed first, other", seen_in="snapshots/closed.*").equals(
        [MANY, 0]
    )


@lab.check
def tcp_max_tw_buckets_is_a_cap(capped: Evidence) -> Verdict:
    """With tcp_max_tw_buckets=100 there are never more; the others are counted and forgotten."""
    overflow = capped.counted("client", "TcpExt.TCPTimeWaitOverflow")
    return expect(left(capped, "client"), what="in TIME-WAIT").between(1, CAP) & expect(
        overflow, what="TCPTimeWaitOverflow"
    ).at_least(MANY - CAP)


@lab.check(timing=True)
def time_wait_lasts_a_minute(life: Evidence) -> Verdict:
    """A socket stays in TIME-WAIT for 60 s, and at most one bucket of the timer wheel longer."""
    return a_minute(life, "client")


@lab.check(timing=True)
def tcp_fin_timeout_does_not_shorten_it(life: Evidence) -> Verdict:
    """With tcp_fin_timeout=5 it is 60 s all the same."""
    told = life.recording.manifest.sysctls["hasty"]["net.ipv4.tcp_fin_timeout"]
    return a_minute(life, "hasty") & expect(told, what="tcp_fin_timeout").equals("5")


lab.fault(
    option(each="reset"),
    on="client-closes",
    breaks=who_closes_first_keeps_them_all,
    name="clients that reset",
)
lab.fault(
    sysctl("client", "net.ipv4.tcp_max_tw_buckets", 1000),
    on="capped",
    breaks=tcp_max_tw_buckets_is_a_cap,
)
lab.fault(
    vary(sysctl("client", "net.ipv4.tcp_max_tw_buckets", 0), patience=2 * s),
    on="life",
    breaks=time_wait_lasts_a_minute,
    also=(tcp_fin_timeout_does_not_shorten_it,),
    name="no room for TIME-WAIT at the client",
)
lab.fault(
    vary(sysctl("hasty", "net.ipv4.tcp_max_tw_buckets", 0), patience=2 * s),
    on="life",
    breaks=tcp_fin_timeout_does_not_shorten_it,
    also=(time_wait_lasts_a_minute,),
    name="no room for TIME-WAIT at the hasty client",
)


@lab.figure
def figures(server_closes: Evidence, capped: Evidence, life: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    return {
        "server_left": str(left(server_closes, "server")),
        "capped_left": str(left(capped, "client")),
        "overflow": str(capped.counted("client", "TcpExt.TCPTimeWaitOverflow")),
        "client_life": f"{lifetime(life, 'client') or 0:.1f}",
        "hasty_life": f"{lifetime(life, 'hasty') or 0:.1f}",
    }


def lasted(seen: Evidence, low: float, high: float) -> Finding:
    """Rule whether TIME-WAIT lasted as long as somebody says, a tenth more for coarse timers."""
    life = lifetime(seen, "client")
    if life is None:
        return untested("the end of TIME-WAIT was not seen")
    return holds(low - 1 <= life <= high * 1.1, f"{life:.1f} s")


@lab.claim("C01")
def about_a_minute(life: Evidence) -> Finding:
    """TIME-WAIT lasts about 60 s."""
    return lasted(life, 60, 60)


@lab.claim("C02")
def two_minutes(life: Evidence) -> Finding:
    """TIME-WAIT lasts 120 s."""
    return lasted(life, 120, 120)


@lab.claim("C03")
def twice_a_minute(life: Evidence) -> Finding:
    """TIME-WAIT lasts two minutes in all."""
    return lasted(life, 120, 120)


@lab.claim("C04")
def one_or_two_minutes(life: Evidence) -> Finding:
    """TIME-WAIT lasts 60 to 120 s."""
    return lasted(life, 60, 120)


@lab.claim("C05")
def fin_timeout_shortens_it(life: Evidence) -> Finding:
    """A smaller tcp_fin_timeout makes TIME-WAIT shorter."""
    default, hasty = lifetime(life, "client"), lifetime(life, "hasty")
    if default is None or hasty is None:
        return untested("the end of TIME-WAIT was not seen")
    return holds(hasty < default - 5, f"{hasty:.1f} s with 5, {default:.1f} s with the default")


@lab.claim("C61")
def the_closer_keeps_it(client_closes: Evidence, server_closes: Evidence) -> Finding:
    """Who closes first has TIME-WAIT, be it the client or the server."""
    runs = {"client": client_closes, "server": server_closes}
    counts = {who: {node: left(seen, node) for node in runs} for who, seen in runs.items()}
    return holds(
        all(found[who] and sum(found.values()) == found[who] for who, found in counts.items()),
        "; ".join(
            f"the {who} closes {MANY} first: {found['client']} at the client, "
            f"{found['server']} at the server"
            for who, found in counts.items()
        ),
    )
