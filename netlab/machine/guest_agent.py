"""Speaking to the agent inside a guest: commands started, followed, signalled.

`agents/guest_init.py` draws the frames and says how they keep streams apart. Here one thread reads
frames and hands each to the command it concerns; everything else happens in the caller's thread.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import queue
import signal as signals
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from netlab.agents.guest_init import CHUNK, WINDOW, Frames, frame
from netlab.errors import CommandError, EngineError, UsageError

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSIDE = "NETLAB_INSIDE"
"""Environment of every command in a guest: where it runs."""

Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended: `status` as a shell counts it (128 + n for signal n)."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes


class GuestProcess:
    """A command under way in the guest.

    Its output waits in the guest until `wait` or `follow` takes it, so a process nobody attends to
    stops at `WINDOW` bytes, as it would at a full pipe.
    """

    def __init__(self, guest: GuestAgent, argv: tuple[str, ...]) -> None:
        self._guest = guest
        self.argv = argv
        self.number = 0
        """Under which the guest's agent knows it."""
        self.pid = 0
        """Process id in the guest."""
        self.status: int | None = None
        """None while it runs."""
        self.events: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._room: dict[bytes, int] = {}
        self._changed = threading.Condition()

    # -- called by the reading thread ------------------------------------------------------

    def hear(self, kind: bytes, payload: bytes) -> None:
        """Take a frame that concerns this process."""
        if kind != b"A":
            self.events.put((kind, payload))
            return
        stream, count = marshal.loads(payload)
        with self._changed:
            self._room[stream] = self._room.get(stream, WINDOW) + count
            self._changed.notify_all()

    # -- called by whoever uses the process ------------------------------------------------

    def send(self, data: bytes, stream: bytes = b"0") -> None:
        """Write to its standard input; waits while the guest has too much of it unread."""
        view = memoryview(data)
        while view:
            with self._changed:
                self._changed.wait_for(lambda: self._room.get(stream, WINDOW) > 0, timeout=1)
                self._guest.check_alive()
                if self.status is not None:
                    return
                room = min(CHUNK, self._room.get(stream, WINDOW))
                piece, view = view[:room], view[room:]
                self._room[stream] = self._room.get(stream, WINDOW) - len(piece)
            if piece:
                self._guest.say(stream, self.number, bytes(piece))

    def close(self, stream: bytes = b"0") -> None:
        """End its standard input."""
        self._guest.say(stream, self.number, b"")

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        if self.status is None:
            self._guest.tell(b"K", self.number, int(number))

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size of the window."""
        self._guest.tell(b"W", self.number, (rows, columns))

    def follow(self, sinks: Mapping[bytes, Sink], timeout: float | None = None) -> int:
        """Hand its output to the sinks until it ends; return its status.

        TimeoutError when it runs longer than `timeout` seconds; it then still runs.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.status is None:
            left = None if deadline is None else deadline - time.monotonic()
            try:
                kind, data = self.events.get(timeout=None if left is None else max(left, 0.0))
            except queue.Empty:
                raise TimeoutError(f"{self.argv[0]} still runs after {timeout:g} s") from None
            if kind == b"X":
                self.status = marshal.loads(data)
            elif kind == b"F":
                _errno, reason = marshal.loads(data)
                self.status = 127
                raise CommandError(f"the guest cannot run {self.argv[0]}: {reason}")
            elif kind == b"!":
                self._guest.check_alive()
            elif kind == b"S":
                self.pid = marshal.loads(data)
            else:
                if kind in sinks:
                    sinks[kind](data)
                if data:
                    self._guest.tell(b"A", self.number, (kind, len(data)))
        return self.status

    def wait(self, timeout: float | None = None) -> Completed:
        """Wait for its end and return what it wrote from now on."""
        stdout, stderr = bytearray(), bytearray()
        self.follow({b"1": stdout.extend, b"2": stderr.extend}, timeout)
        assert self.status is not None
        return Completed(self.argv, self.status, bytes(stdout), bytes(stderr))

    def stop(self, grace: float = 2.0, by: int = signals.SIGTERM) -> None:
        """End it with a signal, and with SIGKILL when that did not do it in `grace` seconds."""
        for number in (by, signals.SIGKILL):
            if self.status is None:
                self.signal(number)
                with contextlib.suppress(TimeoutError):
                    self.follow({}, grace)


class Listener(Protocol):
    """Whom the frames of one command concern."""

    def hear(self, kind: bytes, payload: bytes) -> None:
        """Take a frame; `!` says that no more will come."""
        ...


class GuestAgent:
    """The controller's side of a guest's agent, over a connected socket.

    At most `window` bytes are on their way that the agent has not got (0: no limit).
    """

    def __init__(self, window: int = 0) -> None:
        self._channel: socket.socket | None = None
        self._sending = threading.Lock()
        self._credit = window or 1 << 62
        self._granted = threading.Condition()
        self._jobs: dict[int, Listener] = {}
        self._next = 1
        self.numbering = threading.Lock()
        self._boot: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._gone = threading.Event()

    def last_words(self) -> str | None:
        """Return what the guest said last, None if that is not known."""
        return None

    def check_alive(self) -> None:
        """EngineError if the guest has ended."""
        if self._gone.is_set():
            raise EngineError("the guest ended before its time", hint=self.last_words())

    # -- frames ---------------------------------------------------------------------------

    def say(self, kind: bytes, job: int, payload: bytes = b"") -> None:
        """Send one frame to the guest's agent."""
        channel = self._channel
        if channel is None:
            raise EngineError("the guest is not running")
        view = memoryview(frame(kind, job, payload))
        with self._sending:
            while view:
                with self._granted:
                    self._granted.wait_for(lambda: self._credit > 0 or self._gone.is_set())
                    piece, view = view[: self._credit], view[self._credit :]
                    self._credit -= len(piece)
                try:
                    channel.sendall(piece)
                except OSError:
                    self._end()
                if self._gone.is_set():
                    return

    def _end(self) -> None:
        with self._granted:
            self._gone.set()
            self._granted.notify_all()

    def tell(self, kind: bytes, job: int, value: Any) -> None:
        """Send one structured frame."""
        self.say(kind, job, marshal.dumps(value))

    def read(self, channel: socket.socket) -> None:
        """Thread: give every frame to whom it concerns, until the guest is gone."""
        frames = Frames()
        while True:
            try:
                data = channel.recv(1 << 17)
            except OSError:
                data = b""
            if not data:
                break
            for kind, number, payload in frames.feed(data):
                job = self._jobs.get(number)
                if kind == b"G":
                    with self._granted:
                        self._credit += marshal.loads(payload)
                        self._granted.notify_all()
                elif number == 0:
                    self._boot.put((kind, payload))
                elif job is not None:
                    if kind in (b"X", b"F"):
                        del self._jobs[number]
                    job.hear(kind, payload)
        self.at_the_end()
        self._end()
        self._boot.put((b"!", b""))
        for job in tuple(self._jobs.values()):
            job.hear(b"!", b"")

    def answer(self, wanted: bytes, timeout: float, doing: str) -> bytes:
        """Wait for the agent's answer to a frame that concerned the guest itself."""
        try:
            kind, payload = self._boot.get(timeout=timeout)
        except queue.Empty:
            reason = f"the guest gave no sign within {timeout:g} s of {doing}"
            raise EngineError(reason, hint=self.last_words()) from None
        if kind == b"F":
            raise EngineError(f"{doing} failed in the guest: {marshal.loads(payload)[1]}")
        if kind != wanted:
            raise EngineError(f"the guest ended while {doing}", hint=self.last_words())
        return payload

    def add_writable(self, folder: Path) -> None:
        """Keep from now on what the guest writes below one more folder."""
        self.tell(b"M", 0, str(folder.resolve()))
        self.answer(b"Y", 30, "mounting a folder")

    def at_the_end(self) -> None:
        """Do what is left to do when the last frame has come."""

    # -- commands -------------------------------------------------------------------------

    def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        channel: bool = False,
        terminal: tuple[int, int] | None = None,
    ) -> GuestProcess:
        """Start a command as the guest's root in a session of its own.

        `cwd` and `env` default to the caller's own. With `stdin` it reads what `send` writes, else
        nothing. With `channel` its descriptor 3 is a socket, stream `b"3"` here. With `terminal`
        (rows, columns) it has a terminal instead of pipes.
        """
        self.check_alive()
        if not argv:
            raise UsageError("no command to run in the guest")
        environment = dict(os.environ if env is None else env)
        environment["PATH"] = f"{environment.get('PATH', '')}:{SEARCH_PATH}".lstrip(":")
        environment[INSIDE] = "guest"
        job = GuestProcess(self, tuple(argv))
        job.number = self.reserve(job)
        order = {
            "argv": list(argv),
            "env": environment,
            "cwd": str(cwd if cwd is not None else Path.cwd()),
            "stdin": stdin,
            "channel": channel,
            "terminal": terminal,
        }
        self.tell(b"R", job.number, order)
        return job

    def reserve(self, listener: Listener) -> int:
        """Return a new number; frames of the job under it go to the listener."""
        with self.numbering:
            number, self._next = self._next, self._next + 1
        self._jobs[number] = listener
        if self._gone.is_set():  # the reading thread may have told everybody else already
            listener.hear(b"!", b"")
        return number

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
        input: bytes | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Completed:
        """Run a command to its end; output goes to the sinks as it comes, else into the result.

        An interrupt (Ctrl-C) is passed on to the command, which gets two seconds to end.
        CommandError when it cannot be started or runs longer than `timeout` seconds.
        """
        out, err = bytearray(), bytearray()
        job = self.spawn(argv, cwd=cwd, env=env, stdin=input is not None)
        sinks: dict[bytes, Sink] = {b"1": stdout or out.extend, b"2": stderr or err.extend}
        try:
            with _feeding(job, input):
                status = job.follow(sinks, timeout)
        except KeyboardInterrupt:
            job.stop(by=signals.SIGINT)
            raise
        except TimeoutError as error:
            job.stop()
            raise CommandError(
                f"{argv[0]} in the guest ran longer than {timeout:g} s and was stopped",
                hint=err.decode(errors="replace").strip() or None,
            ) from error
        return Completed(tuple(argv), status, bytes(out), bytes(err))


@contextlib.contextmanager
def _feeding(job: GuestProcess, data: bytes | None) -> Generator[None]:
    """Write the whole standard input from a thread, so that output is read meanwhile."""
    if not data:
        if data is not None:
            job.close()
        yield
        return

    def feed() -> None:
        with contextlib.suppress(EngineError):
            job.send(data)
            job.close()

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    yield
    thread.join(timeout=5)
