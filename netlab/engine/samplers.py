"""Looking at the sockets of a running lab: snapshots with `ss`, samples with our own agent."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from netlab.engine.completed import Completed
from netlab.engine.node import Ready, Running
from netlab.engine.programs import python_agent, tool
from netlab.errors import CommandError

if TYPE_CHECKING:
    from netlab.engine.stage import Stage

SS = ("ss", "-tanimo")


class Sampler:
    """A program that watches something while it runs, and ends when told to."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        elif self._running.alive:
            self._running.stop(grace=0.5)

    @property
    def node(self) -> str:
        """The node in which it runs, the first of those it watches."""
        return self._running.node

    def stop(self) -> None:
        """End the sampling; CommandError if it could not go on to its end."""
        self._running.signal(signal.SIGTERM)
        done = self._running.wait(30)
        if done.status != 0:
            raise CommandError(f"the sampler {self._running.name} failed: {done.stderr.strip()}")


def start(
    stage: Stage,
    nodes: Sequence[str],
    *,
    every: float = 1e-3,
    busy: float = 0.0,
    ports: Sequence[int] = (),
    family: str = "both",
    listeners: bool = False,
) -> Sampler:
    """Sample the TCP sockets of nodes; returns when each has taken its first sample.

    `every` is the period in seconds, 1 ms to 1 s. `busy` > 0 dumps as often as possible for that
    many seconds and notes each change of state: it costs a processor.
    """
    first = stage.node(nodes[0])
    out = stage.recording.file(f"tcp_info/{nodes[0]}.jsonl").with_name("{node}.jsonl")
    argv = [*python_agent("tcp_info"), "--out", str(out), "--every", f"{every:.6f}s"]
    argv += ["--family", family]
    if listeners:
        argv.append("--listeners")
    for node in nodes:
        identity = stage.node(node).run(("readlink", "/proc/self/ns/net")).stdout.strip()
        argv += ["--netns", f"{node}={identity}"]
    if busy:
        argv += ["--busy", "--for", f"{busy:.3f}s"]
    for port in ports:
        argv += ["--port", str(port)]
    return Sampler(first.spawn("tcp_info", argv, ready=Ready.line("sampling")))


def snapshot(stage: Stage, label: str, nodes: Sequence[str]) -> dict[str, str]:
    """Keep what `ss -tanimo` shows on each node as it is, and return it by node."""
    tool("ss", "apt-get install iproute2")
    texts: dict[str, str] = {}
    for node in nodes:
        texts[node] = _look(stage, label, node)
    return texts


def snapshot_when(
    stage: Stage, label: str, node: str, seen: Callable[[str], bool], *, timeout: float, what: str
) -> str:
    """Look with `ss` until `seen` says yes, and keep what it saw; NotReadyError if it never does.

    A snapshot of the last look is kept in either case.
    """
    tool("ss", "apt-get install iproute2")
    last = stage.node(node).run(SS)

    def look() -> bool:
        nonlocal last
        last = stage.node(node).run(SS)
        return seen(last.stdout)

    try:
        if not seen(last.stdout):
            stage.until(look, timeout=timeout, what=what)
    finally:
        _keep(stage, label, node, last)
    return last.stdout


def _look(stage: Stage, label: str, node: str) -> str:
    done = stage.node(node).run(SS)
    _keep(stage, label, node, done)
    return done.stdout


def _keep(stage: Stage, label: str, node: str, done: Completed) -> None:
    """Keep what `ss` printed; the sockets were so at some instant between its start and end."""
    name = f"snapshots/{label}.{node}.ss.txt"
    stage.recording.file(name).write_text(done.stdout, encoding="utf-8")
    times = {"at_ns": done.started_ns, "until_ns": done.ended_ns}
    stage.recording.event("snapshot", **times, label=label, node=node, file=name)
