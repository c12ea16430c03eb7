"""`netlab --machine guest COMMAND`: the same command, run by the same netlab, in a guest kernel.

`up` boots a guest that stays until its last lab is gone; while it is there, every command with
`--machine guest` goes to it. Otherwise a command gets a guest for itself, which ends with it. What
the command writes below the current folder, `--results` and `--writable` is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import netlab
from netlab.machine import guest_resident
from netlab.machine.guest import GuestMachine
from netlab.machine.guest_agent import GuestAgent, GuestProcess
from netlab.machine.guest_resident import ResidentGuest

STARTS = frozenset({"up", "deploy"})
ENDS = frozenset({"down", "destroy", "gc"}) | STARTS
OUTSIDE = ("NETLAB_STATE_DIR", "XDG_RUNTIME_DIR")
"""Where labs are written down out here; the guest has a place of its own."""
READS = frozenset({"exec", "shell"})
"""Commands that read standard input; a "-" among the arguments says so too, but for `WRITES`."""
WRITES = frozenset({"capture"})
"""Commands whose "-" is standard output."""


def forward(arguments: Sequence[str], writable: Sequence[str]) -> int:
    """Run a command line in a guest; return its exit status."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    folders = _kept(arguments, writable)
    resident = guest_resident.find()
    if resident is None and command in STARTS:
        resident = guest_resident.start()
    if resident is None:
        with GuestMachine(mem=guest_resident.DEFAULT_MEMORY, writable=folders) as guest:
            return _run(guest, arguments, reads=_reads(command, arguments))
    with resident:
        for folder in folders:
            resident.add_writable(folder)
        status = _run(resident, arguments, reads=_reads(command, arguments))
        if command in ENDS and not _labs(resident):
            resident.power_off()
    return status


def _reads(command: str, arguments: Sequence[str]) -> bool:
    return command in READS or ("-" in arguments and command not in WRITES)


def _kept(arguments: Sequence[str], writable: Sequence[str]) -> list[Path]:
    """Return the folders in which what the command writes is kept."""
    folders = [Path.cwd(), *map(Path, writable)]
    for place, word in enumerate(arguments):
        option, given, value = word.partition("=")
        if option == "--results":
            results = Path(value if given else "".join(arguments[place + 1 : place + 2]))
            results.mkdir(parents=True, exist_ok=True)
            folders.append(results)
    return [folder for folder in folders if folder.resolve() != Path("/")]


def _order(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    package = str(Path(netlab.__file__).parent.parent)
    path = ":".join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path}
    for name in OUTSIDE:
        env.pop(name, None)
    return [sys.executable, "-m", "netlab", *arguments], env


def _labs(guest: ResidentGuest) -> bool:
    """Whether any lab runs in the guest."""
    argv, env = _order(["status", "--json"])
    done = guest.run(argv, env=env, timeout=60)
    try:
        return bool(json.loads(done.stdout))
    except ValueError:
        return True  # it does not say: leave it alone


def _run(guest: GuestAgent, arguments: Sequence[str], *, reads: bool) -> int:
    argv, env = _order(arguments)
    if sys.stdin.isatty() and sys.stdout.isatty():
        size = os.get_terminal_size()
        job = guest.spawn(argv, env=env, terminal=(size.lines, size.columns))
        with _raw_terminal(), _resizing(job), _typing(job):
            return job.follow({b"1": _writer(1)})
    job = guest.spawn(argv, env=env, stdin=reads)
    with _typing(job) if reads else contextlib.nullcontext():
        return _follow(job)


def _follow(job: GuestProcess) -> int:
    """Pass output on to the end; an interrupt goes to the command, a second one ends it."""
    sinks = {b"1": _writer(1), b"2": _writer(2)}
    try:
        return job.follow(sinks)
    except KeyboardInterrupt:
        job.signal(signal.SIGINT)
    except BrokenPipeError:  # whoever read our output has gone
        job.stop(0.5)
        return 0
    try:
        return job.follow(sinks, timeout=30)
    except (KeyboardInterrupt, TimeoutError):
        job.stop(0.5)
        raise KeyboardInterrupt from None


def _writer(fd: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


@contextlib.contextmanager
def _typing(job: GuestProcess) -> Generator[None]:
    """Send standard input to the command from a thread of its own."""

    def send() -> None:
        with contextlib.suppress(Exception):
            while data := os.read(0, 1 << 14):
                job.send(data)
            job.close()

    threading.Thread(target=send, daemon=True).start()
    yield


@contextlib.contextmanager
def _raw_terminal() -> Generator[None]:
    """Let every key go to the guest's terminal."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(job: GuestProcess) -> Generator[None]:
    """Tell the guest's terminal when the window changes."""

    def resize(_number: int, _frame: object) -> None:
        size = os.get_terminal_size()
        job.resize(size.lines, size.columns)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
