"""A guest that stays: one per user, reached through a socket, shared by any number of commands.

    python -m netlab.machine.guest_resident FOLDER READY_FD

Theory of operation. `netlab --machine guest up` must leave a guest behind. This module is the
process that owns it (the *keeper*) and the client that other commands use. The keeper boots the
guest as any caller would, so the guest dies with the keeper whatever happens, and passes frames
between the guest and its clients, only the job numbers are translated: flow control is between a
client and the guest's agent. A client that goes away takes its commands along (SIGHUP, then
SIGKILL), as a terminal would.

    FOLDER/control   the socket, mode 0600 in a folder of mode 0700
    FOLDER/lock      locked while the keeper lives

Nothing else is written down. A socket nobody answers belongs to a keeper that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import signal as signals
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import netlab
from netlab.agents.guest_init import Frames, frame
from netlab.errors import EngineError, NetlabError
from netlab.machine.guest import GuestMachine, find_kernel
from netlab.machine.guest_agent import GuestAgent

GRACE = 2.0
DEFAULT_MEMORY = "1G"


def folder() -> Path:
    """Return where the socket of this user's guest lies."""
    chosen = os.environ.get("NETLAB_STATE_DIR")
    if chosen:
        return Path(f"{Path(chosen).absolute()}-guest")
    uid = os.geteuid()
    if uid == 0:
        return Path("/run/netlab-guest")
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and Path(given).is_dir() and Path(given).stat().st_uid == uid:
        return Path(given) / "netlab-guest"
    return Path(f"/tmp/netlab-guest-{uid}")


def _make(place: Path) -> None:
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make {place} for the guest's socket: {error.strerror}"
        ) from error
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EngineError(f"{place} is not a folder that is yours alone")


class ResidentGuest(GuestAgent):
    """The guest of this user, from `find` or `start` to the end of a `with`; it lives on."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self._channel = channel
        self._thread = threading.Thread(target=self.read, args=(channel,), daemon=True)
        self._thread.start()

    def __enter__(self) -> ResidentGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the guest; commands of ours that still run in it are ended."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)
            self._thread.join(timeout=5)
            channel.close()

    def power_off(self) -> None:
        """End the guest and its keeper."""
        self.say(b"Q", 0)
        self._thread.join(timeout=10)


def find() -> ResidentGuest | None:
    """Return this user's guest, None if none runs."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.connect(str(folder() / "control"))
    except OSError:
        channel.close()
        return None
    return ResidentGuest(channel)


def start(mem: str = DEFAULT_MEMORY) -> ResidentGuest:
    """Boot this user's guest and leave it running; EngineError with the reason if that fails."""
    find_kernel()
    place = folder()
    _make(place)
    heard, told = os.pipe()
    package = str(Path(netlab.__file__).parent.parent)
    path = ":".join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    with os.fdopen(heard, encoding="utf-8") as answer:
        try:
            subprocess.Popen(
                [sys.executable, "-m", __name__, str(place), str(told), mem],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(told,),
                start_new_session=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": path},
            )
        finally:
            os.close(told)
        reason = answer.read()
    found = find()
    if found is None:
        raise EngineError(reason.strip() or "the guest's keeper ended without a word")
    return found


class _Client:
    """One connection to the keeper."""

    def __init__(self, keeper: _Keeper, channel: socket.socket) -> None:
        self._keeper = keeper
        self._channel = channel
        self._sending = threading.Lock()
        self._counting = threading.Lock()
        self._gone = False
        self._owed: dict[tuple[int, bytes], int] = {}
        """Bytes of (job of the guest, stream) that the client has not taken."""
        self.numbers: dict[int, int] = {}
        """Job number of the client → that of the guest, while the job runs."""

    def say(self, kind: bytes, number: int, payload: bytes = b"") -> None:
        """Send a frame, if the client is there."""
        with self._sending, contextlib.suppress(OSError):
            if not self._gone:
                self._channel.sendall(frame(kind, number, payload))

    def serve(self) -> None:
        """Thread: pass on what the client says, until it goes."""
        frames = Frames()
        with contextlib.suppress(OSError):
            while data := self._channel.recv(1 << 16):
                for kind, number, payload in frames.feed(data):
                    self._pass_on(kind, number, payload)
        self._gone = True
        self._end_jobs()
        self._channel.close()

    def _pass_on(self, kind: bytes, number: int, payload: bytes) -> None:
        guest = self._keeper.guest
        if kind == b"R":
            job = _Job(self, number)
            self.numbers[number] = job.inside = guest.reserve(job)
            guest.say(b"R", job.inside, payload)
        elif kind == b"M":
            self.say(*self._keeper.add_writable(Path(marshal.loads(payload))))
        elif kind == b"Q":
            self._keeper.end()
        elif number in self.numbers:
            inside = self.numbers[number]
            if kind == b"A":
                stream, count = marshal.loads(payload)
                self.owe(inside, stream, -count)
            guest.say(kind, inside, payload)

    def owe(self, inside: int, stream: bytes, count: int) -> None:
        """Count what the client has been sent and what it has taken."""
        with self._counting:
            self._owed[inside, stream] = self._owed.get((inside, stream), 0) + count

    def _end_jobs(self) -> None:
        """End what the client left running, and take what it would have taken."""
        guest = self._keeper.guest
        for number in (signals.SIGHUP, signals.SIGKILL):
            for inside in tuple(self.numbers.values()):
                guest.tell(b"K", inside, int(number))
            deadline = time.monotonic() + GRACE
            while self.numbers and time.monotonic() < deadline:
                with self._counting:
                    owed, self._owed = self._owed, {}
                for (inside, stream), count in owed.items():
                    if count:
                        guest.tell(b"A", inside, (stream, count))
                time.sleep(0.02)


class _Job:
    """Hears the guest about one job and tells its client."""

    def __init__(self, client: _Client, number: int) -> None:
        self._client = client
        self._number = number
        self.inside = 0

    def hear(self, kind: bytes, payload: bytes) -> None:
        """Take a frame."""
        if kind in (b"1", b"2", b"3") and payload:
            self._client.owe(self.inside, kind, len(payload))
        self._client.say(kind, self._number, payload)
        if kind in (b"X", b"F", b"!"):
            self._client.numbers.pop(self._number, None)


class _Keeper:
    """The process that owns the guest."""

    def __init__(self, place: Path, guest: GuestMachine) -> None:
        self.guest = guest
        self._place = place
        self._mounting = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def listen(self) -> None:
        """Put the socket where clients look for it."""
        control, fresh = self._place / "control", self._place / f"control.{os.getpid()}"
        self._listener.bind(str(fresh))
        fresh.chmod(0o600)
        self._listener.listen(64)
        fresh.rename(control)

    def serve(self) -> None:
        """Accept clients until told to end, or until the guest has ended."""
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        with contextlib.suppress(OSError):
            while True:
                channel, _ = self._listener.accept()
                threading.Thread(target=_Client(self, channel).serve, daemon=True).start()

    def _watch(self) -> None:
        self.guest.wait_for_end()
        self.end()

    def end(self) -> None:
        """Stop accepting; `serve` returns."""
        with contextlib.suppress(OSError):
            (self._place / "control").unlink()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def add_writable(self, path: Path) -> tuple[bytes, int, bytes]:
        """Mount one more folder; return the frame that answers."""
        with self._mounting:
            try:
                self.guest.add_writable(path)
            except NetlabError as error:
                return b"F", 0, marshal.dumps((0, error.message))
        return b"Y", 0, b""


def _wait_for_answer(control: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        while probe.connect_ex(str(control)) and time.monotonic() < deadline:
            time.sleep(0.05)


def main(place: Path, told: int, mem: str) -> None:
    """Be the keeper."""
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(told, "w", encoding="utf-8") as answer:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Another command boots it at this moment: when that one answers, use it.
            _wait_for_answer(place / "control", timeout=60)
            return
        signals.signal(signals.SIGTERM, lambda _number, _frame: sys.exit(0))
        try:
            guest = GuestMachine(mem=mem)
            guest.start()
        except NetlabError as error:
            answer.write(str(error))
            return
        try:
            keeper = _Keeper(place, guest)
            keeper.listen()
        except OSError as error:
            answer.write(f"no socket in {place}: {error.strerror}")
            guest.stop()
            return
    try:
        keeper.serve()
    finally:
        guest.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
