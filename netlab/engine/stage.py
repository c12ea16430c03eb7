"""A foreground lab: built on entry, gone on exit, and gone at once if this process dies.

    with open_stage(topology, recording) as stage:
        server = stage.node("server")
        with server.spawn("hello", argv, ready=Ready.port(5000)):
            with stage.phase("handshake"):
                stage.node("client").run([...])

Every pause and every time stamp is made by the supervisor on the machine where the lab runs.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from netlab.engine import fidelity, links, processes, state, supervisor, timetable, wires
from netlab.engine.apply import apply_over
from netlab.engine.cgroups import Group
from netlab.engine.channel import Channel, ChannelClosedError
from netlab.engine.lower import Indexes
from netlab.engine.node import RunningNode
from netlab.engine.reboot import switch_off_and_on
from netlab.errors import EngineError, NotReadyError
from netlab.model.topology import Topology
from netlab.plan.backend import Backend
from netlab.plan.diff import diff
from netlab.plan.operations import AddNode, Plan

if TYPE_CHECKING:
    from netlab.engine.captures import Capture
    from netlab.engine.samplers import Sampler

T = TypeVar("T")


class Recorder(Protocol):
    """Where a stage writes; `netlab.recording.directory.RecordingWriter` is one."""

    def file(self, relative: str) -> Path:
        """Return the path of a file to be written, its folder made."""
        ...

    def event(self, kind: str, *, at_ns: int | None = None, **fields: Any) -> object:
        """Append to the timeline."""
        ...


class Stage:
    """A lab that runs for the length of a block."""

    def __init__(
        self,
        topology: Topology,
        recording: Recorder,
        channel: Channel,
        nodes: Iterable[str],
        indexes: Indexes,
    ) -> None:
        self.topology = topology
        self.recording = recording
        self._channel = channel
        self._indexes = indexes
        self._stack = contextlib.ExitStack()
        self._observers: list[Capture | Sampler] = []
        self.group: Group | None = None  # of the topology's programs
        self._nodes = {
            name: RunningNode(name, channel, recording.file, self._reboot) for name in nodes
        }

    def node(self, name: str) -> RunningNode:
        """Return a node by name, hidden ones too; KeyError if there is none."""
        return self._nodes[name]

    @property
    def nodes(self) -> dict[str, RunningNode]:
        """All nodes by name."""
        return dict(self._nodes)

    @property
    def scale(self) -> float:
        """How many times slower this machine is than a quick one, 1 at least.

        Timeouts of this stage and its programs are multiplied with it already; a scenario does so
        with limits of its own. No tolerance ever is.
        """
        return self._channel.patience

    def enter(self, manager: contextlib.AbstractContextManager[T]) -> T:
        """Enter a context that ends with the stage, before its nodes go; the last one first."""
        return self._stack.enter_context(manager)

    def capture(
        self,
        where: str,
        *,
        name: str | None = None,
        filter: str = "",
        count: int | None = None,
        snaplen: int = 262_144,
    ) -> Capture:
        """Capture packets at "node:interface" from now until the stage ends or `stop()`."""
        from netlab.engine import captures

        found = captures.start(self, where, name=name, filter=filter, count=count, snaplen=snaplen)
        self._observers.append(found)
        return self.enter(found)

    def sample(
        self,
        *nodes: str,
        every: float = 1e-3,
        busy: float = 0.0,
        ports: Sequence[int] = (),
        family: str = "both",
        listeners: bool = False,
    ) -> Sampler:
        """Sample the TCP sockets of nodes from now until the stage ends or `stop()`."""
        from netlab.engine import samplers

        sampler = samplers.start(self, nodes, every=every, busy=busy, ports=ports, family=family)
        self._observers.append(sampler)
        return self.enter(sampler)

    def snapshot(self, label: str, *nodes: str) -> dict[str, str]:
        """Keep what `ss -tanimo` shows on nodes, and return it by node."""
        from netlab.engine import samplers

        return samplers.snapshot(self, label, nodes)

    def _reboot(self, node: RunningNode, off: float) -> None:
        """Reboot a node; what watches it there ends in good order, since it goes with the node."""
        for observer in self._observers:
            if observer.node == node.name:
                observer.stop()
        self.recording.event("reboot", at_ns=self.now_ns(), node=node.name)
        with node.going_away():
            switch_off_and_on(self._channel, self.topology, self._indexes, node.name, off=off)
        own = {process.name for process in self.topology.processes if process.node == node.name}
        mine = processes.start(self.topology, self._nodes, self.group, only=own, again=True)
        for running in mine:
            self.enter(running)
        self.recording.event("rebooted", at_ns=self.now_ns(), node=node.name)

    def set_link(self, link: str, *, up: bool) -> None:
        """Set a link (by name, or `h1-h2`) or one interface (`h1:eth0`) up or down.

        Up again it has the addresses and routes of the topology. UsageError if there is no such.
        """
        _, ends = links.choose(self.topology, link)
        wanted = links.with_ends(self.topology, ends, up=up)
        operations = diff(self.topology, wanted).operations
        self.recording.event("link-up" if up else "link-down", at_ns=self.now_ns(), link=link)
        apply_over(self._channel, operations, self._indexes, self.topology.source)
        self.topology = wanted

    def now_ns(self) -> int:
        """The machine's clock, as packet captures stamp with it (CLOCK_REALTIME, nanoseconds)."""
        return int(self._channel.request({"do": "clock"})["now_ns"])

    def settle(self, seconds: float, *, because: str) -> None:
        """Let time pass, for a reason that the experiment itself has."""
        if not because:
            raise ValueError("say why the experiment needs this pause")
        if not 0 <= seconds < math.inf:
            raise ValueError(f"cannot pause for {seconds} s")
        began = self.now_ns()
        self._channel.sleep(seconds)
        self.recording.event("settle", at_ns=began, seconds=seconds, because=because)

    def until(
        self,
        condition: Callable[[], object],
        *,
        timeout: float,
        what: str,
        every: float = 0.01,
    ) -> None:
        """Wait until a condition holds; NotReadyError, which names `what`, when it never does."""
        timeout *= self.scale
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise NotReadyError(f"waited {timeout:g} s in vain for {what}")
            self._channel.sleep(every)

    def scope(self) -> contextlib.ExitStack:
        """Return the context that holds what was entered with `enter`."""
        return self._stack

    @contextlib.contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Name a stretch of time on the timeline, stamped on the machine."""
        self.recording.event("phase-start", at_ns=self.now_ns(), phase=name)
        try:
            yield
        finally:
            with contextlib.suppress(ChannelClosedError):
                self.recording.event("phase-end", at_ns=self.now_ns(), phase=name)


def make_claim(lab: str, *, foreground: bool) -> state.Claim | None:
    """Claim the directory of a lab; a foreground one gets a number, so that it never collides."""
    root = state.make_root()
    if not foreground:
        return state.claim(f"{root}/{lab}")
    for number in range(1, 10_000):
        held = state.claim(f"{root}/{lab}~{number}")
        if held is not None:
            return held
    raise EngineError(f"ten thousand labs called {lab!r} run already")


@contextlib.contextmanager
def open_stage(
    topology: Topology,
    recording: Recorder,
    *,
    rootless: bool | None = None,
    plan: Plan | None = None,
    impair: Backend | None = None,
    step: Callable[[int], None] | None = None,
    watch: bool = False,
    calibrate: bool = False,
) -> Generator[Stage]:
    """Build a lab, and take it away at the end of the block however that comes.

    `rootless` None means: with a user namespace where this process is not root. `plan` is made
    from the topology unless given, with no other back end than `impair` if that is given. `step` is
    called after each operation (tests kill us there). With `watch` the machine is watched too, and
    its speed makes the stage's `scale`; with `calibrate` impaired links are measured before
    anything else happens on them.
    """
    held = make_claim(topology.name, foreground=True)
    assert held is not None
    with contextlib.ExitStack() as stack:
        stack.callback(held.remove)
        started = supervisor.start(held, topology.name, foreground=True, rootless=rootless)
        stack.pop_all()
        stack.callback(started.end)
        processes.refuse_impossible(topology, rootless=started.rootless)
        if plan is None:
            plan = supervisor.plan_for(started, topology, impair)
        started.build(plan, step=step)
        started.hosts(supervisor.hosts(plan))
        started.commit()
        names = (found.node for found in plan.operations if isinstance(found, AddNode))
        stage = Stage(topology, recording, started.channel, names, started.indexes)
        recording.event("lab-up", at_ns=stage.now_ns(), pid=os.getpid())
        with stage.scope():
            own = wires.start(plan.operations, started.channel, held.path, recording.file)
            stage.enter(wires.guarded(own))
            namespaces = started.namespaces() if watch or calibrate else {}
            if watch:
                sampler, started.channel.patience = fidelity.watch(
                    started.channel, recording.file, namespaces, plan
                )
                stage.enter(sampler)
            if calibrate:
                fidelity.calibrate(
                    started.channel, recording.file, namespaces, plan, started.indexes
                )
            stage.group = processes.make_group(
                topology, held.folder, held.path.name, rootless=started.rootless
            )
            for running in processes.start(topology, stage.nodes, stage.group):
                stage.enter(running)
            for running in timetable.start(
                topology,
                started.indexes,
                started.channel,
                recording.file,
                wired=wires.wired(plan.operations),
            ):
                stage.enter(running)
            wires.start_schedules(own)
            yield stage
        with contextlib.suppress(ChannelClosedError):
            recording.event("lab-down", at_ns=stage.now_ns())
