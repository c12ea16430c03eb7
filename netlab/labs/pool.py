"""Run jobs side by side, each in a process of its own, within a budget.

A job has a weight: how much of the machine it takes while it runs. Jobs start, the longest first,
as long as the weights of those that run stay within the budget; one of infinite weight runs alone,
after all others. Why processes: a lab's world dies with the process (indeed the thread) that
built it, so the end of a job, however it comes, is the end of everything it started.

A job is interrupted by SIGTERM, once: Ctrl-C in a terminal reaches every process of the group, and
a second interrupt would disturb the first one's tidying up, so jobs do not listen to SIGINT. A job
that takes longer than its limit gets a `TookTooLongError`, and is killed if it ignores that.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

from netlab.errors import EngineError

T = TypeVar("T")

Say = Callable[[str], None]

ALONE = math.inf
"""The weight of a job beside which nothing else may run."""

GRACE = 30.0
"""Seconds that an interrupted job has for tidying up before it is killed."""

INTERRUPTED = "interrupted"

_PR_SET_PDEATHSIG = 1
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class TookTooLongError(EngineError):
    """A job was not done within its time."""


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """Something to run: `work` is called in a process of its own with a function that says things.

    `prepare` is called here before that. `seconds` is how long it is expected to take, `limit` how
    long it may.
    """

    name: str
    work: Callable[[Say], T]
    weight: float = 1.0
    seconds: float = 0.0
    limit: float = math.inf
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Ending(Generic[T]):
    """How a job ended: with a result, or without one for a reason.

    `beside` is true when others ran at the same time.
    """

    result: T | None
    reason: str = ""
    beside: bool = False


class Watch(Protocol):
    """Who wants to know how it goes; `tick` is called a few times a second if `ticks` is true."""

    ticks: bool

    def waiting(self, names: Iterable[str]) -> None:
        """Take the names of jobs that are to run."""

    def started(self, job: Job[Any]) -> None:
        """Take note that a job runs."""

    def said(self, job: Job[Any], text: str) -> None:
        """Take what a job says."""

    def ended(self, job: Job[Any]) -> None:
        """Take note that a job no longer runs."""

    def tick(self) -> None:
        """Take note that time passes."""


class Silent:
    """A watch that nobody looks at."""

    ticks = False

    def waiting(self, names: Iterable[str]) -> None:
        """Take no note."""

    def started(self, job: Job[Any]) -> None:
        """Take no note."""

    def said(self, job: Job[Any], text: str) -> None:
        """Take no note."""

    def ended(self, job: Job[Any]) -> None:
        """Take no note."""

    def tick(self) -> None:
        """Take no note."""


@dataclass(slots=True)
class _Running(Generic[T]):
    job: Job[T]
    process: ForkProcess
    deadline: float
    beside: bool
    ending: Ending[T] | None = field(default=None)


def run(
    jobs: Iterable[Job[T]],
    *,
    budget: float,
    watch: Watch,
    ended: Callable[[Job[T], Ending[T]], Iterable[Job[T]]],
) -> bool:
    """Run jobs until none is left; return False after an interrupt.

    `ended` is called here for each job that ends and returns jobs to run besides (often none). An
    interrupt (KeyboardInterrupt) is passed on to the jobs that run; `ended` hears of those too,
    and those that had not begun are dropped.
    """
    pending = sorted(jobs, key=_order)
    running: dict[Connection, _Running[T]] = {}
    watch.waiting(job.name for job in pending)
    try:
        while pending or running:
            for job in _startable(pending, [r.job for r in running.values()], budget):
                pending.remove(job)
                _start(job, running)
                watch.started(job)
            for one in _collect(running, watch):
                more = list(ended(one.job, one.ending or Ending(None, "lost")))
                watch.waiting(job.name for job in more)
                pending = sorted([*pending, *more], key=_order)
    except KeyboardInterrupt:
        for one in _stop(running, watch):
            ended(one.job, one.ending or Ending(None, INTERRUPTED))
        return False
    return True


def _order(job: Job[Any]) -> tuple[bool, float]:
    return (job.weight == ALONE, -job.seconds)


def _startable(pending: list[Job[T]], running: list[Job[T]], budget: float) -> list[Job[T]]:
    """Return the jobs that may start now; a job heavier than the whole budget runs alone."""
    load = sum(job.weight for job in running)
    count = len(running)
    found: list[Job[T]] = []
    for job in pending:
        if count == 0 or load + job.weight <= budget:
            found.append(job)
            load += job.weight
            count += 1
    return found


def _start(job: Job[T], running: dict[Connection, _Running[T]]) -> None:
    job.prepare()
    with _interrupts_wait():
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_child, args=(job, theirs, os.getpid()), name=job.name
        )
        process.start()
        theirs.close()
        for other in running.values():
            other.beside = True
        deadline = time.monotonic() + job.limit + GRACE
        running[ours] = _Running(job, process, deadline, beside=bool(running))


@contextlib.contextmanager
def _interrupts_wait() -> Generator[None]:
    """Hold interrupts back for the length of a block.

    For a start that is until the child has handlers of its own and we know of the child. The child
    inherits the mask. Here the mask is not enough: the kernel gives a signal to any
    thread that does not block it, and Python runs the handler in the main thread all the same.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {n: signal.signal(n, note) for n in _INTERRUPTS if signal.getsignal(n)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _child(job: Job[Any], pipe: Connection, parent: int) -> None:
    """Run a job and send home what it says and what became of it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, _ignored)
        raise KeyboardInterrupt

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLongError(
            f"it took longer than the {job.limit / 60:g} minutes it may",
            hint="the lab's `minutes` say how long",
        )

    # Handlers, not SIG_IGN, because what is ignored stays so in the programs we start.
    signal.signal(signal.SIGINT, _ignored)
    signal.signal(signal.SIGHUP, _ignored)
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGALRM, too_long)
    ending: Ending[Any]
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
        if math.isfinite(job.limit):
            signal.setitimer(signal.ITIMER_REAL, job.limit)
        ending = Ending(job.work(pipe.send))
    except KeyboardInterrupt:
        ending = Ending(None, INTERRUPTED)
    except TookTooLongError as error:
        ending = Ending(None, str(error))
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGTERM, _ignored)
    with contextlib.suppress(BrokenPipeError):
        pipe.send(ending)


def _ignored(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def _collect(running: dict[Connection, _Running[T]], watch: Watch) -> list[_Running[T]]:
    """Wait until something happens, pass on what was said, and return the jobs that ended."""
    soonest = min((one.deadline for one in running.values()), default=math.inf)
    patience = max(0.0, soonest - time.monotonic())
    if watch.ticks:
        patience = min(patience, 0.2)
    ready = wait(list(running), None if patience == math.inf else patience)
    ended: list[_Running[T]] = []
    for connection in ready:
        assert isinstance(connection, Connection)
        one = running[connection]
        with _interrupts_wait():  # half a message taken would make nonsense of the next
            said = _hear(connection, one)
        if said is None:
            ended.append(_reap(connection, running, watch))
        elif said:
            watch.said(one.job, said)
    for connection, one in list(running.items()):
        if time.monotonic() > one.deadline:
            one.process.kill()
            one.ending = Ending(None, "it did not end within its time and was killed", one.beside)
            ended.append(_reap(connection, running, watch))
    if watch.ticks:
        watch.tick()
    return ended


def _hear(connection: Connection, one: _Running[Any]) -> str | None:
    """Take one message of a job: return what it says, if anything; None once there are no more."""
    try:
        message = connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    if not isinstance(message, Ending):
        return message
    one.ending = Ending(message.result, message.reason, one.beside)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return ""


def _reap(
    connection: Connection, running: dict[Connection, _Running[T]], watch: Watch
) -> _Running[T]:
    one = running.pop(connection)
    connection.close()
    one.process.join()
    if one.ending is None:
        status = one.process.exitcode
        one.ending = Ending(None, f"the process that ran it ended with status {status}", one.beside)
    watch.ended(one.job)
    return one


def _stop(running: dict[Connection, _Running[T]], watch: Watch) -> list[_Running[T]]:
    """Interrupt what runs and wait for it; further interrupts do not cut this short."""
    handlers = {n: signal.signal(n, _ignored) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for one in running.values():
            one.process.terminate()
            one.deadline = time.monotonic() + GRACE
        ended: list[_Running[T]] = []
        while running:
            ended += _collect(running, watch)
        return ended
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
