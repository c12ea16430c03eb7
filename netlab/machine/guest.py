"""A guest kernel as a machine: User-Mode Linux on the computer's own files, no privilege needed.

Debian and Ubuntu package the kernel (`user-mode-linux`). It is an ordinary program, yet has its own
network stack with netem and every queue discipline, so a lab that the computer's kernel cannot run,
or its user may not run, runs there::

    with GuestMachine(writable=(results,)) as guest:
        done = guest.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "10ms"])

Three programs take part: this module in the caller's process, `agents/guest_launch.py` which makes
the guest's kernel die with the caller, and `agents/guest_init.py` inside, which says how they talk.

What to know of it: one virtual processor, HZ 100, system calls some 150 times and process starts
some 15 times dearer than outside; the computer's files are seen as they were when the guest first
looked, and are read-only but for the `writable` folders (see `guest_init`). Files written there
belong to the calling user and keep to that user's rights.

Threads: one thread reads the guest's frames; everything else happens in the caller's. The guest
lives no longer than the thread that started it (the kernel's death signal is per thread).
"""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import queue
import shutil
import signal as signals
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netlab.agents import guest_init, guest_launch
from netlab.agents.guest_init import CHUNK, CONSOLE_WINDOW, WINDOW, Frames, frame
from netlab.errors import CapabilityError, CommandError, EngineError, UsageError

_log = logging.getLogger(__name__)

KERNEL = "linux.uml"
REMEDY = "apt-get install user-mode-linux"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PANIC = "Kernel panic"

Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended: `status` as a shell counts it (128 + n for signal n)."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes


def find_kernel() -> Path:
    """Return the guest kernel's program; CapabilityError with the remedy where there is none."""
    found = shutil.which(KERNEL, path=f"{os.environ.get('PATH', os.defpath)}:{SEARCH_PATH}")
    if found is None:
        raise CapabilityError(
            f"no guest kernel: there is no {KERNEL} (User-Mode Linux) on this machine", hint=REMEDY
        )
    return Path(found)


class GuestProcess:
    """A command under way in the guest.

    Its output waits in the guest until `wait` or `follow` takes it, so a process nobody attends to
    stops at `WINDOW` bytes, as it would at a full pipe.
    """

    def __init__(self, guest: GuestMachine, number: int, argv: tuple[str, ...]) -> None:
        self._guest = guest
        self._number = number
        self.argv = argv
        self.pid = 0
        """Process id in the guest."""
        self.status: int | None = None
        """None while it runs."""
        self.events: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._room: dict[bytes, int] = {}
        self._changed = threading.Condition()

    # -- called by the reading thread ------------------------------------------------------

    def taken(self, stream: bytes, count: int) -> None:
        """Note that the guest has passed on so many bytes of an input."""
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
                self._guest.say(stream, self._number, bytes(piece))

    def close(self, stream: bytes = b"0") -> None:
        """End its standard input."""
        self._guest.say(stream, self._number, b"")

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        if self.status is None:
            self._guest.tell(b"K", self._number, int(number))

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size of the window."""
        self._guest.tell(b"W", self._number, (rows, columns))

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
                    self._guest.tell(b"A", self._number, (kind, len(data)))
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


class GuestMachine:
    """A User-Mode Linux guest, from `with` to its end.

    `mem` is the guest's memory (taken from the computer only as it is touched), `writable` the
    folders in which what the guest writes is kept.
    """

    def __init__(
        self,
        *,
        mem: str = "512M",
        writable: Sequence[Path | str] = (),
        kernel: Path | None = None,
        boot_timeout: float = 60.0,
    ) -> None:
        self._kernel = kernel
        self._mem = mem
        self._boot_timeout = boot_timeout
        self._writable = _outermost(writable)
        self._launcher: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._sending = threading.Lock()
        self._credit = CONSOLE_WINDOW
        self._granted = threading.Condition()
        self._jobs: dict[int, GuestProcess] = {}
        self._next = 1
        self._boot: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None
        self._gone = threading.Event()
        self._stopping = False
        self._talk: deque[str] = deque(maxlen=40)
        self.release = ""
        """The guest kernel's release, such as 6.1.176."""

    # -- life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Boot the guest (some two seconds); EngineError with its last words when that fails."""
        kernel = self._kernel or find_kernel()
        ours, theirs = socket.socketpair()
        says, talks = os.pipe()
        python = str(Path("/proc/self/exe").readlink())
        command = [
            python, "-I", "-S", guest_launch.__file__, str(os.getpid()),
            str(kernel), f"mem={self._mem}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
            "con=null", f"con0=null,fd:{talks}", f"con1=fd:{theirs.fileno()}", "ssl=null",
            f"init={python}", "--", "-I", "-S", guest_init.__file__,
        ]  # fmt: skip
        if any(character.isspace() or character == '"' for part in command for character in part):
            raise CapabilityError(
                "the guest's kernel line cannot carry a path with blanks or quotes: "
                f"{guest_init.__file__}",
                hint="install netlab in a folder without them",
            )
        try:
            self._launcher = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=talks,
                stderr=talks,
                pass_fds=(theirs.fileno(), talks),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise EngineError(f"the guest's launcher did not start: {error}") from error
        finally:
            theirs.close()
            os.close(talks)
            if self._launcher is None:
                os.close(says)
        self._channel = ours
        self._reader = threading.Thread(
            target=self._read, args=(ours, says), name="guest", daemon=True
        )
        self._reader.start()
        try:
            self.release = marshal.loads(self._await_boot(b"H"))
            self.tell(b"C", 0, [str(path) for path in self._writable])
            self._await_boot(b"Y")
        except BaseException:
            self.stop()
            raise

    def _await_boot(self, wanted: bytes) -> bytes:
        try:
            kind, payload = self._boot.get(timeout=self._boot_timeout)
        except queue.Empty:
            raise EngineError(
                f"the guest did not boot within {self._boot_timeout:g} s", hint=self.last_words()
            ) from None
        if kind == b"F":
            raise EngineError(f"the guest could not be set up: {marshal.loads(payload)[1]}")
        if kind != wanted:
            raise EngineError("the guest ended while it booted", hint=self.last_words())
        return payload

    def stop(self) -> None:
        """Power the guest off; what its programs wrote to writable folders is kept."""
        launcher, channel = self._launcher, self._channel
        if launcher is None or channel is None or self._reader is None:
            return
        self._stopping = True
        with contextlib.suppress(OSError):
            self.say(b"Q", 0)
        try:
            launcher.wait(timeout=5)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            launcher.kill()  # process 1 of the guest's namespace follows, and everything in it
            launcher.wait()
        self._reader.join(timeout=5)
        channel.close()
        self._launcher = self._channel = self._reader = None

    def last_words(self) -> str | None:
        """Return what the guest's kernel said last, None if it was silent."""
        panic = next((line for line in self._talk if line.startswith(PANIC)), None)
        return panic or "\n".join(tuple(self._talk)[-5:]) or None

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

    def _read(self, channel: socket.socket, says: int) -> None:
        """Thread: give every frame to whom it concerns; the kernel's words to the log."""
        words = threading.Thread(target=self._read_words, args=(says,), daemon=True)
        words.start()
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
                elif job is None:
                    continue
                elif kind == b"A":
                    job.taken(*marshal.loads(payload))
                else:
                    job.events.put((kind, payload))
                    if kind in (b"X", b"F"):
                        del self._jobs[number]
        words.join(timeout=2)
        self._end()
        self._boot.put((b"!", b""))
        for job in tuple(self._jobs.values()):
            job.events.put((b"!", b""))

    def _read_words(self, says: int) -> None:
        with open(says, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._talk.append(line.rstrip())
                _log.debug("guest kernel: %s", line.rstrip())
                if line.startswith(PANIC) and self._launcher is not None:
                    self._launcher.kill()  # it would spin for ever, and a restart would hide it

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
        environment["NETLAB_MACHINE"] = "guest"
        number, self._next = self._next, self._next + 1
        job = self._jobs[number] = GuestProcess(self, number, tuple(argv))
        order = {
            "argv": list(argv),
            "env": environment,
            "cwd": str(cwd if cwd is not None else Path.cwd()),
            "stdin": stdin,
            "channel": channel,
            "terminal": terminal,
        }
        self.tell(b"R", number, order)
        return job

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


def _outermost(paths: Sequence[Path | str]) -> tuple[Path, ...]:
    """Return the folders, absolute, without those that lie inside another of them."""
    resolved = sorted({Path(path).resolve() for path in paths})
    for path in resolved:
        if not path.is_dir():
            raise UsageError(f"not a folder that the guest could write to: {path}")
    return tuple(
        path for path in resolved if not any(path.is_relative_to(o) for o in resolved if o != path)
    )
