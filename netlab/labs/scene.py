"""Words for scenarios: where a node is reached, what its sockets look like by now."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from signal import SIGUSR1
from typing import Literal

from netlab.analysis import conntrack as tracked
from netlab.analysis import counters, ss
from netlab.analysis.conntrack import Entry
from netlab.engine import samplers
from netlab.engine.hold import Match
from netlab.engine.node import Ready, Running
from netlab.engine.programs import python_agent, tool
from netlab.engine.stage import Stage
from netlab.errors import CapabilityError, CommandError, LabDefinitionError
from netlab.model.topology import Topology

__all__ = [
    "Family",
    "Match",
    "Ready",
    "Running",
    "Stage",
    "address",
    "agent",
    "conntrack",
    "count",
    "counter",
    "disguise",
    "keep",
    "needs",
    "ping",
    "proceed",
    "see",
    "until_said",
    "wired",
]

Family = Literal["ipv4", "ipv6"]

_REMEDIES = {
    "ss": "apt-get install iproute2",
    "tcpdump": "apt-get install tcpdump",
    "ping": "apt-get install iputils-ping",
    "nft": "apt-get install nftables",
    "sysctl": "apt-get install procps",
    "conntrack": "apt-get install conntrack",
}


def agent(name: str, *arguments: object) -> tuple[str, ...]:
    """Return the command that runs one of netlab's own programs with these arguments."""
    return (*python_agent(name), *(str(argument) for argument in arguments))


def address(topology: Topology, node: str, family: Family = "ipv4") -> str:
    """Return the first address of a node in a family; LabDefinitionError if it has none."""
    version = 4 if family == "ipv4" else 6
    for end in topology.interfaces(node):
        for found in end.addresses:
            if found.version == version:
                return str(found.ip)
    raise LabDefinitionError(f"node '{node}' has no {family} address")


def needs(*tools: str) -> None:
    """CapabilityError with the remedy if the machine lacks one of these programs."""
    for name in tools:
        tool(name, _REMEDIES.get(name, f"install {name}"))


def see(
    stage: Stage, label: str, node: str, state: str, port: int, *, timeout: float = 20.0
) -> ss.Socket:
    """Look at a node with `ss` until a connection of `port` is in `state`; keep what was seen.

    NotReadyError if it never is; what was seen last is kept then too.
    """
    found: list[ss.Socket] = []

    def there(text: str) -> bool:
        found[:] = (
            s for s in ss.parse(text) if s.state == state and port in (s.local.port, s.peer.port)
        )
        return bool(found)

    what = f"a connection of port {port} in {state} on {node}"
    samplers.snapshot_when(stage, label, node, there, timeout=timeout, what=what)
    return found[0]


def until_said(stage: Stage, program: Running, text: str, *, timeout: float = 20.0) -> None:
    """Wait until a program has printed `text`; NotReadyError if it never does."""
    what = f"{program.name} on {program.node} to say '{text}'"
    stage.until(lambda: text in program.stdout, timeout=timeout, what=what)


def ping(stage: Stage, source: str, target: str, *, count: int, every: float = 0.2) -> None:
    """Ping an address from a node; what `ping` prints becomes evidence under the name "ping"."""
    needs("ping")
    argv = ["ping", "-n", "-c", str(count), "-i", f"{every:g}", target]
    with stage.node(source).spawn("ping", argv) as running:
        running.wait(count * every + 30)


@contextlib.contextmanager
def wired(stage: Stage, name: str, ruleset: str, node: str) -> Generator[None]:
    """Load an nft ruleset in a node for the length of a block; it is the inet table `name`.

    CapabilityError where the kernel has no such tables.
    """
    needs("nft")
    try:
        stage.node(node).run(["nft", "-f", "-"], input=ruleset)
    except CommandError as error:
        if "not supported" not in str(error) and "No such file" not in str(error):
            raise
        remedy = "use a kernel with nf_tables for the inet family"
        raise CapabilityError("this kernel has no nft tables of family inet", hint=remedy) from None
    try:
        yield
    finally:
        stage.node(node).run(["nft", "delete", "table", "inet", name], check=False)


def count(stage: Stage, label: str, *nodes: str, names: Sequence[str] = ()) -> None:
    """Keep the kernel's counters of nodes under a label: all (8 kB each), or those of `names`.

    A name the kernel does not know is left out, so that a check can tell it from zero.
    """
    for node in nodes:
        done = stage.node(node).run(["cat", *counters.FILES], check=False)
        found = counters.parse(done.stdout)
        kept = {name: found[name] for name in names if name in found} if names else found
        file = f"counters/{label}.{node}.txt"
        stage.recording.file(file).write_text(counters.render(kept), encoding="utf-8")
        stage.recording.event("counters", at_ns=done.started_ns, label=label, node=node, file=file)


def keep(stage: Stage, name: str, node: str, *argv: str) -> str:
    """Run a command in a node, keep what it prints as evidence under `name`, and return it."""
    with stage.node(node).spawn(name, argv) as running:
        return running.wait(30).stdout


def conntrack(stage: Stage, node: str, label: str = "") -> tuple[Entry, ...]:
    """Return the TCP connections that a node tracks; keep them as evidence under a label.

    By the tool or, where it is missing, from the kernel's file, which root alone may read.
    """
    try:
        needs("conntrack")
        argv = ("conntrack", "-L", "-p", "tcp")
    except CapabilityError as lack:
        argv = ("cat", "/proc/net/nf_conntrack")
        if stage.node(node).run(argv, check=False).status != 0:
            raise lack from None
    done = stage.node(node).run(argv)
    if label:
        file = f"conntrack/{label}.{node}.txt"
        stage.recording.file(file).write_text(done.stdout, encoding="utf-8")
        stage.recording.event("conntrack", at_ns=done.started_ns, label=label, node=node, file=file)
    return tracked.parse(done.stdout)


def counter(stage: Stage, node: str, name: str) -> int:
    """Return what a counter of a node says now; 0 where the kernel has none of that name."""
    done = stage.node(node).run(["cat", *counters.FILES], check=False)
    return counters.parse(done.stdout).get(name, 0)


def proceed(stage: Stage, program: Running, before: str, *, go: bool = True) -> None:
    """Wait until a program started with --step stands before a step, and let it take that step.

    With `go` false it is left standing there.
    """
    words = f'waiting before="{before}"'
    stage.until(
        lambda: words in program.stdout or not program.alive,
        timeout=30,
        what=f"{program.name} on {program.node} to come to '{before}'",
    )
    if go:
        program.signal(SIGUSR1)


def disguise(stage: Stage, sender: str, receiver: str, packets: str, field: str) -> None:
    """Flip bit 8 of a field of some packets where `sender` sends them, and back at `receiver`.

    Neither end notices; whoever looks at the wire in between does. `packets` is an nft expression,
    `field` a word of nft such as "tcp ackseq"; it lasts until the stage ends.
    """
    for node, hook in ((sender, "output"), (receiver, "prerouting")):
        chain = f"type filter hook {hook} priority 0\n{packets} {field} set {field} ^ 0x100"
        rules = f"table inet disguise {{\nchain flip {{\n{chain}\n}}\n}}\n"
        stage.enter(wired(stage, "disguise", rules, node))
