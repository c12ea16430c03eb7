"""What tells connections apart: two addresses and two ports, and who may have which port.

The exercise is in guide.md; the sources are RFC 9293 §3.3.1, ip(7) (ip_local_port_range,
ip_unprivileged_port_start), capabilities(7), setpriv(1).
"""

from __future__ import annotations

from contextlib import ExitStack

from netlab.analysis import ss
from netlab.labs import Evidence, Lab, Verdict, expect, option, sysctl, vary
from netlab.labs.claims import Finding, depends, holds
from netlab.labs.scene import Ready, Stage, address, agent, keep, needs, until_said

PORT, LOW = 8080, 80
SOURCE = 50_000
MANY, FEW = 2000, 500
DEFAULT = (32_768, 60_999)
NARROW = (40_000, 40_999)
TUPLES = "tuples.txt"
WITHOUT = ("setpriv", *(f"--{kind}=-net_bind_service" for kind in ("bounding-set", "inh-caps")))

lab = Lab(
    "What tells connections apart",
    variations={
        "many": option(clients=MANY),
        "narrow": vary(
            sysctl("client", "net.ipv4.ip_local_port_range", f"{NARROW[0]} {NARROW[1]}"),
            clients=FEW,
        ),
        "same-port": option(what="same-port"),
        "port-80": option(what="port-80"),
        "port-80-allowed": vary(
            sysctl("server", "net.ipv4.ip_unprivileged_port_start", LOW), what="port-80"
        ),
    },
)
CROWDED = ("many", "narrow")


@lab.scenario
def connect_in_many_ways(
    stage: Stage, *, what: str = "many", clients: int = MANY, reuse: bool = True
) -> None:
    """Many connections to one port, one source port to two servers, or a port below 1024."""
    if what == "port-80":
        bind_low(stage)
    elif what == "same-port":
        share_a_port(stage, reuse)
    else:
        crowd_in(stage, clients)


def crowd_in(stage: Stage, clients: int) -> None:
    """Let many clients connect to one port of one server, and stay."""
    to = address(stage.topology, "server")
    keep(stage, "range", "client", "sysctl", "net.ipv4.ip_local_port_range")
    serve = agent("crowd", "serve", "--address", to, "--backlog", 600)
    connect = agent("crowd", "connect", to, "--count", clients, "--stay", "--finally", "reset")
    with (
        stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)),
        stage.node("client").spawn("connect", connect) as talking,
    ):
        until_said(stage, talking, "waiting", timeout=60)
        shown = stage.node("server").run(["ss", "-tan", "state", "established"]).stdout
        rows = ss.parse("\n".join(f"ESTAB {row}" for row in shown.splitlines()[1:]))
        ours = sorted({row.local.text for row in rows})
        lines = (
            " ".join([one, *(row.peer.text for row in rows if row.local.text == one)]) + "\n"
            for one in ours
        )
        stage.recording.file(TUPLES).write_text("".join(lines), encoding="utf-8")


def share_a_port(stage: Stage, reuse: bool) -> None:
    """Connect from one port to one server, to another, and to the first again."""
    with ExitStack() as stack:
        for node in ("server", "other"):
            serve = agent("crowd", "serve", "--address", address(stage.topology, node))
            stack.enter_context(stage.node(node).spawn("serve", serve, ready=Ready.port(PORT)))
        for name, node in (("first", "server"), ("second", "other"), ("again", "server")):
            to = address(stage.topology, node)
            ports = ("--source-port", SOURCE, *(("--reuse",) if reuse else ()))
            argv = agent("crowd", "connect", to, *ports, "--stay", "--verbose")
            running = stack.enter_context(stage.node("client").spawn(name, argv))
            until_said(stage, running, "waiting")
        stage.snapshot("shared", "client")


def bind_low(stage: Stage) -> None:
    """Listen on port 80 with the capability to do so, and without."""
    needs("setpriv")
    listen = agent("actor", "--keep-going", "--port", LOW, "listen", "quit")
    node = stage.node("server")
    node.spawn("with", listen).wait(20)
    node.spawn("without", [*WITHOUT, "--ambient-caps=-net_bind_service", *listen]).wait(20)


def tuples(seen: Evidence) -> list[str]:
    """Return the connections the server had, each as its address and that of the client.

    The file has a line for each address and port of the server, followed by its clients.
    """
    lines = seen.recording.text(TUPLES).splitlines()
    return [f"{ours} {peer}" for ours, *peers in map(str.split, lines) for peer in peers]


def source_ports(seen: Evidence) -> list[int]:
    """Return the ports the clients got."""
    return [int(line.rpartition(":")[2]) for line in tuples(seen)]


def failed(seen: Evidence, node: str, program: str) -> str:
    """Return the error a program met, or "none"."""
    steps = [step for step in seen.steps(node, program) if step.word == "failed"]
    return str(steps[0]["errno"]) if steps else "none"


@lab.check(on=CROWDED)
def one_server_port_has_many_connections(each: Evidence) -> Verdict:
    """2,000 clients (500 in the narrow range) share a server's port, no two with the same four."""
    wanted = {"many": MANY, "narrow": FEW}[each.variation]
    found = tuples(each)
    servers = {line.split()[0].rpartition(":")[2] for line in found}
    many = expect([len(found), len(set(found))], what="connections, different ones")
    return many.equals([wanted, wanted]) & expect(servers, what="ports of the server").equals(
        {str(PORT)}
    )


@lab.check(on=CROWDED)
def clients_get_ports_of_ip_local_port_range(each: Evidence) -> Verdict:
    """Every port lies in the range: 32768 to 60999 by default, 40000 to 40999 where so set."""
    low, high = {"many": DEFAULT, "narrow": NARROW}[each.variation]
    ports = source_ports(each)
    return expect(min(ports), what="lowest").between(low, high) & expect(
        max(ports), what="highest"
    ).between(low, high)


@lab.check
def one_port_of_a_client_reaches_two_servers(same_port: Evidence) -> Verdict:
    """Port 50000 has a connection to each of two servers; a second one to the first has no place.

    That second one is refused by the client's own kernel: EADDRNOTAVAIL.
    """
    mine = [s for s in same_port.snapshot("shared", "client") if s.local.port == SOURCE]
    open_to = {s.peer.address for s in mine if s.state == "ESTAB"}
    two = expect([len(mine), len(open_to)], what="connections, servers").equals([2, 2])
    return two & expect(failed(same_port, "client", "again"), what="once more").equals(
        "EADDRNOTAVAIL"
    )


@lab.check
def a_port_below_1024_takes_a_capability(port_80: Evidence) -> Verdict:
    """Without CAP_NET_BIND_SERVICE bind() to port 80 fails with EACCES, with it it works."""
    met = [failed(port_80, "server", name) for name in ("with", "without")]
    return expect(met, what="with, without").equals(["none", "EACCES"])


@lab.check
def ip_unprivileged_port_start_moves_the_border(port_80_allowed: Evidence) -> Verdict:
    """With net.ipv4.ip_unprivileged_port_start=80 anybody may listen on port 80."""
    return expect(failed(port_80_allowed, "server", "without"), what="without").equals("none")


lab.fault(
    option(clients=FEW - 1),
    on="narrow",
    breaks=one_server_port_has_many_connections,
    name="one client stays away",
)
lab.fault(
    sysctl("client", "net.ipv4.ip_local_port_range", "20000 29999"),
    on="many",
    breaks=clients_get_ports_of_ip_local_port_range,
)
lab.fault(
    option(reuse=False),
    on="same-port",
    breaks=one_port_of_a_client_reaches_two_servers,
    name="without SO_REUSEADDR one port is for one socket",
)
lab.fault(
    sysctl("server", "net.ipv4.ip_unprivileged_port_start", 0),
    on="port-80",
    breaks=a_port_below_1024_takes_a_capability,
)
lab.fault(
    sysctl("server", "net.ipv4.ip_unprivileged_port_start", LOW + 1),
    on="port-80-allowed",
    breaks=ip_unprivileged_port_start_moves_the_border,
)


@lab.figure
def figures(many: Evidence, narrow: Evidence, same_port: Evidence) -> dict[str, str]:
    """What the guide tells of the runs."""
    ports = source_ports(many)
    return {
        "count": f"{len(set(tuples(many))):,}",
        "lowest": str(min(ports)),
        "highest": str(max(ports)),
        "below": f"{sum(port < 49_152 for port in ports):,}",
        "narrow": f"{min(source_ports(narrow))} to {max(source_ports(narrow))}",
        "range": " to ".join(many.text("client", "range").split()[-2:]),
        "error": failed(same_port, "client", "again"),
    }


@lab.claim("C44")
def clients_get_49152_to_65535(many: Evidence) -> Finding:
    """Ports of clients lie between 49152 and 65535."""
    ports = source_ports(many)
    told = f"{min(ports)} to {max(ports)}, {sum(p < 49_152 for p in ports):,} of them below 49152"
    return holds(min(ports) >= 49_152, told)


@lab.claim("C45")
def no_more_than_65_k_per_remote(many: Evidence, same_port: Evidence) -> Finding:
    """There are no more than 65 K connections to one remote address."""
    low, high = (int(word) for word in many.text("client", "range").split()[-2:])
    shared = one_port_of_a_client_reaches_two_servers(same_port).passed
    told = f"{high - low + 1:,} ports from {low} to {high}"
    told += "; one port had connections to two servers" if shared else ""
    return depends("the range of ports, for each source address and server address and port", told)
