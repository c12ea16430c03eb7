"""Process 1 of the guest: makes the guest habitable, then runs what the controller asks for.

A single file for `python3 -I -S`, standard library only; the controller (`netlab.machine.guest`)
imports the frame format from here.

Theory of operation. A process start costs some 50 ms in a User-Mode Linux guest and a Python
start five times that, so everything a shell script would do with mount(8) and friends is done here
by system calls, and this process stays as the resident agent. It speaks frames over one console
(`/dev/tty1`, a socket on the controller's side)::

    kind (u8)   job (u32, big endian)   length (u32, big endian)   payload

`kind` is one ASCII letter, `job` says whom the frame concerns (0 = the guest itself). Structured
payloads are `marshal`: the same interpreter runs on both sides, and it costs no import. ::

    controller → guest                          guest → controller
    C  configure: mounts to make                H  hello: alive, kernel release
    M  one more folder to be writable           Y  ready: that is done, or F failed: reason
    R  run: argv, cwd, env, which streams       S  started: process id, or F failed: reason
    0  bytes for the job's standard input       1 2 3  bytes of stdout, stderr, descriptor 3
    3  bytes for descriptor 3
    K  signal to the job's process group        X  exited: status as the shell counts it
    W  terminal size: rows, columns             A  taken: so many bytes of that stream
    A  taken: so many bytes of that stream
    Q  power off                                G  got: so many bytes read from the console

An empty data frame is the end of that stream. A stream has at most `WINDOW` bytes under way that
the receiver has not taken, so a slow reader of one stream holds up neither the others nor signals.
The console itself stops for ever once its line discipline has had to throttle it (4 KiB unread;
Linux 6.1 does not arm the descriptor again), so the controller keeps at most `CONSOLE_WINDOW`
bytes under way that the agent has not got.

The root is an overlay: the computer's own files below, the guest's memory above. Programs may write
anywhere, and what they write is gone with the guest, except below the folders the controller named,
which are the computer's own. That keeps accidents off the computer; it is no wall against malice,
since the guest's root may mount the computer's files with the rights of the user who started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import marshal
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct(">cII")
WINDOW = 1 << 16
CHUNK = 1 << 14
CONSOLE_WINDOW = 3072

SYNC_SECONDS = 2
CONSOLE = "/dev/tty1"
MODULES = "/usr/lib/uml/modules"
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_MOVE = 1, 2, 4, 8, 8192
RB_POWER_OFF = 0x4321FEDC
CATCHABLE = tuple(n for n in range(1, 32) if n not in (signal.SIGKILL, signal.SIGSTOP))
SYS_FINIT_MODULE = 313


def frame(kind: bytes, job: int, payload: bytes) -> bytes:
    """Return one frame as it travels."""
    return HEADER.pack(kind, job, len(payload)) + payload


class Frames:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, int, bytes]]:
        """Return the frames that `data` completed."""
        self._buffer += data
        whole: list[tuple[bytes, int, bytes]] = []
        at = 0
        while len(self._buffer) - at >= HEADER.size:
            kind, job, length = HEADER.unpack_from(self._buffer, at)
            end = at + HEADER.size + length
            if len(self._buffer) < end:
                break
            whole.append((kind, job, bytes(self._buffer[at + HEADER.size : end])))
            at = end
        del self._buffer[:at]
        return whole


class Kernel:
    """The system calls Python has no name for."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _checked(self, result: int, what: str) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")

    def mount(self, kind: str, where: str, flags: int = 0, options: str = "") -> None:
        """Mount a file system of that kind, making the folder if need be."""
        os.makedirs(where, exist_ok=True)  # noqa: PTH103 - pathlib costs 50 ms of start-up here
        result = self._libc.mount(
            kind.encode(), where.encode(), kind.encode(), flags, options.encode()
        )
        self._checked(result, f"mount {kind} on {where}")

    def make_root(self, folder: str) -> None:
        """Make `folder` the root of everything, as switch_root(8) does."""
        os.chdir(folder)
        self._checked(self._libc.mount(b".", b"/", None, MS_MOVE, None), "move the root")
        os.chroot(".")
        os.chdir("/")

    def load(self, release: str, module: str) -> bool:
        """Load a module that depends on no other; False if it is not there."""
        try:
            fd = os.open(f"{MODULES}/{release}/kernel/{module}.ko", os.O_RDONLY)
        except OSError:
            return False
        try:
            return self._libc.syscall(SYS_FINIT_MODULE, fd, b"", 0) == 0
        finally:
            os.close(fd)

    def set_hostname(self, name: str) -> None:
        """Name the guest."""
        self._checked(self._libc.sethostname(name.encode(), len(name)), "sethostname")

    def power_off(self) -> None:
        """End the guest; does not return."""
        os.sync()
        self._libc.reboot(RB_POWER_OFF)


def make_habitable(kernel: Kernel, release: str, writable: list[str]) -> None:
    """Mount the overlay root, the kernel's file systems and the writable folders."""
    kernel.mount("tmpfs", "/run", options="mode=755")
    if not kernel.load(release, "fs/overlayfs/overlay"):
        raise OSError(f"no overlayfs in {MODULES}/{release}")
    for folder in ("/run/above", "/run/work", "/run/root"):
        os.mkdir(folder)  # noqa: PTH102
    layers = "lowerdir=/,upperdir=/run/above,workdir=/run/work"
    kernel.mount("overlay", "/run/root", options=layers)
    kernel.make_root("/run/root")
    quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC
    kernel.mount("proc", "/proc", quiet)
    # What is written reaches the computer's files within a second or two: a guest that is killed
    # leaves what it had by then.
    for name, hundredths in (("dirty_writeback_centisecs", 50), ("dirty_expire_centisecs", 100)):
        with open(f"/proc/sys/vm/{name}", "w") as file:  # noqa: PTH123
            file.write(str(hundredths))
    kernel.mount("sysfs", "/sys", quiet)
    kernel.mount("devtmpfs", "/dev", MS_NOSUID, "mode=755")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")  # noqa: PTH211
    kernel.mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    kernel.mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777")
    kernel.mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir("/run/netns")  # noqa: PTH102
    os.mkdir("/run/lock")  # noqa: PTH102
    try:
        kernel.mount("cgroup2", "/sys/fs/cgroup", quiet)
        with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as file:  # noqa: PTH123
            file.write("+cpu +memory")  # processes may be limited
    except OSError as error:
        print(f"no cgroup2 in this guest: {error.strerror}", file=sys.stderr)
    for path in writable:
        kernel.mount("hostfs", path, options=path)
    # modprobe looks in /lib/modules; there, in the guest's memory, it finds the guest's modules.
    os.makedirs("/lib/modules", exist_ok=True)  # noqa: PTH103
    if not os.path.lexists(f"/lib/modules/{release}"):
        os.symlink(f"{MODULES}/{release}", f"/lib/modules/{release}")  # noqa: PTH211
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_INET6).close()  # loads IPv6: its sysctls must be there at once
    if kernel.load(release, "drivers/net/tun"):
        os.chmod("/dev/net/tun", 0o666)  # noqa: PTH101
    kernel.set_hostname("guest")
    bring_up_loopback()


def bring_up_loopback() -> None:
    """Set `lo` up in the guest's first network namespace."""
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("16xh", fcntl.ioctl(handle, get_flags, request))[0]
        fcntl.ioctl(handle, set_flags, struct.pack("16sh14x", b"lo", flags | up))


class Job:
    """A command under way, and the guest's ends of its streams."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.status: int | None = None
        self.terminal = False
        self.outputs: dict[bytes, int] = {}
        """Stream letter → descriptor to read; gone at its end."""
        self.inputs: dict[bytes, int] = {}
        """Stream letter → descriptor to write."""
        self.waiting: dict[bytes, bytearray] = {}
        """Stream letter → bytes for an input that was full, not acknowledged yet."""
        self.ending: set[bytes] = set()
        self.under_way: dict[bytes, int] = {}


class Agent:
    """Serves frames until told to power off or until the controller is gone."""

    def __init__(self, console: int, kernel: Kernel) -> None:
        self._kernel = kernel
        self._console = console
        self._frames = Frames()
        self._jobs: dict[int, Job] = {}
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._off = False
        self._woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._watch(console, select.POLLIN, self._hear)
        self._watch(self._woken, select.POLLIN, self._reap)

    # -- frames ---------------------------------------------------------------------------

    def say(self, kind: bytes, job: int, payload: bytes = b"") -> None:
        """Send one frame; the console's other end always reads."""
        data = memoryview(frame(kind, job, payload))
        while data:
            data = data[os.write(self._console, data) :]

    def tell(self, kind: bytes, job: int, value: Any) -> None:
        """Send one structured frame."""
        self.say(kind, job, marshal.dumps(value))

    def hear_one(self) -> tuple[bytes, int, bytes]:
        """Wait for a single frame (used before the loop begins)."""
        while True:
            for found in self._frames.feed(self._listen()):
                return found

    def _listen(self) -> bytes:
        data = os.read(self._console, CHUNK)
        if data:
            self.tell(b"G", 0, len(data))
        return data

    def _watch(self, fd: int, events: int, handler: Callable[[int], object]) -> None:
        self._poll.register(fd, events)
        self._handlers[fd] = handler

    def _unwatch(self, fd: int) -> None:
        if fd in self._handlers:
            self._poll.unregister(fd)
            del self._handlers[fd]

    def serve(self) -> None:
        """Handle events until power off.

        While a job runs, what it wrote goes to the computer every other second: should somebody
        kill the guest, no more than that is lost.
        """
        due = time.monotonic() + SYNC_SECONDS
        while not self._off:
            events = self._poll.poll(1000 * SYNC_SECONDS if self._jobs else None)
            if self._jobs and time.monotonic() >= due:
                os.sync()
                due = time.monotonic() + SYNC_SECONDS
            for fd, event in events:
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(event)

    def _hear(self, _event: int) -> None:
        data = self._listen()
        if not data:
            self._off = True
            return
        for kind, number, payload in self._frames.feed(data):
            self._obey(kind, number, payload)

    def _obey(self, kind: bytes, number: int, payload: bytes) -> None:
        if kind == b"Q":
            self._off = True
        elif kind == b"M":
            self._keep(marshal.loads(payload))
        elif kind == b"R":
            self._run(number, marshal.loads(payload))
        elif number in self._jobs:
            job = self._jobs[number]
            if kind in (b"0", b"3"):
                self._feed(job, kind, payload)
            elif kind == b"A":
                stream, count = marshal.loads(payload)
                self._taken(job, stream, count)
            elif kind == b"K" and job.status is None:
                self._signal(job, marshal.loads(payload))
            elif kind == b"W" and job.terminal and b"0" in job.inputs:
                rows, columns = marshal.loads(payload)
                size = struct.pack("HHHH", rows, columns, 0, 0)
                fcntl.ioctl(job.inputs[b"0"], termios.TIOCSWINSZ, size)

    def _keep(self, path: str) -> None:
        try:
            self._kernel.mount("hostfs", path, options=path)
        except OSError as error:
            self.tell(b"F", 0, (error.errno or 0, str(error)))
        else:
            self.tell(b"Y", 0, None)

    # -- jobs -----------------------------------------------------------------------------

    def _run(self, number: int, order: dict[str, Any]) -> None:
        job = Job(number)
        actions: list[tuple[Any, ...]] = []
        theirs: list[int] = []
        try:
            self._streams(job, order, actions, theirs)
            here = os.getcwd()  # noqa: PTH109
            os.chdir(order["cwd"])
            try:
                job.pid = os.posix_spawn(
                    find(order["argv"][0], order["env"].get("PATH", os.defpath)),
                    order["argv"],
                    order["env"],
                    file_actions=actions,
                    setsid=True,
                    setsigmask=(),
                    setsigdef=CATCHABLE,
                )
            finally:
                os.chdir(here)
        except OSError as error:
            for fd in (*job.outputs.values(), *job.inputs.values()):
                os.close(fd)
            self.tell(b"F", number, (error.errno or 0, str(error)))
            return
        finally:
            for fd in theirs:
                os.close(fd)
        self._jobs[number] = job
        for stream, fd in job.outputs.items():
            os.set_blocking(fd, False)
            self._watch(fd, select.POLLIN, self._reader(job, stream))
        for fd in job.inputs.values():
            os.set_blocking(fd, False)
        self.tell(b"S", number, job.pid)

    def _streams(
        self, job: Job, order: dict[str, Any], actions: list[tuple[Any, ...]], theirs: list[int]
    ) -> None:
        """Make the pipes, terminal and channel of a job and the actions that give them to it."""
        if order["terminal"]:
            ours, slave = os.openpty()
            theirs.append(slave)
            rows, columns = order["terminal"]
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            job.terminal = True
            job.outputs[b"1"] = ours
            job.inputs[b"0"] = os.dup(ours)
            # Opened by the leader of a new session, it becomes the controlling terminal.
            actions.append((os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0))
            actions.append((os.POSIX_SPAWN_DUP2, 0, 1))
            actions.append((os.POSIX_SPAWN_DUP2, 0, 2))
        else:
            if order["stdin"]:
                slave, job.inputs[b"0"] = os.pipe2(os.O_CLOEXEC)
                theirs.append(slave)
                actions.append((os.POSIX_SPAWN_DUP2, slave, 0))
            else:
                actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
            for stream, fd in ((b"1", 1), (b"2", 2)):
                job.outputs[stream], slave = os.pipe2(os.O_CLOEXEC)
                theirs.append(slave)
                actions.append((os.POSIX_SPAWN_DUP2, slave, fd))
        if order["channel"]:
            a, b = socket.socketpair()
            ours, slave = a.detach(), b.detach()
            theirs.append(slave)
            job.outputs[b"3"] = ours
            job.inputs[b"3"] = os.dup(ours)
            actions.append((os.POSIX_SPAWN_DUP2, slave, 3))

    def _reader(self, job: Job, stream: bytes) -> Callable[[int], object]:
        return lambda _event: self._pass_on(job, stream)

    def _pass_on(self, job: Job, stream: bytes) -> bool:
        """Send what the job wrote; False when there was nothing more for now."""
        fd = job.outputs.get(stream)
        room = WINDOW - job.under_way.get(stream, 0)
        if fd is None or room <= 0:
            return False
        try:
            data = os.read(fd, min(CHUNK, room))
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: the last process of a terminal is gone
        self.say(stream, job.number, data)
        if not data:
            self._unwatch(fd)
            os.close(job.outputs.pop(stream))
            return False
        job.under_way[stream] = job.under_way.get(stream, 0) + len(data)
        if job.under_way[stream] >= WINDOW:
            self._unwatch(fd)
        return True

    def _taken(self, job: Job, stream: bytes, count: int) -> None:
        job.under_way[stream] = job.under_way.get(stream, 0) - count
        fd = job.outputs.get(stream)
        if fd is not None and fd not in self._handlers and job.under_way[stream] < WINDOW:
            self._watch(fd, select.POLLIN, self._reader(job, stream))
        self._finish(job)

    def _feed(self, job: Job, stream: bytes, data: bytes) -> None:
        fd = job.inputs.get(stream)
        if fd is None:
            self.tell(b"A", job.number, (stream, len(data)))
            return
        if not data:
            job.ending.add(stream)
        job.waiting.setdefault(stream, bytearray()).extend(data)
        self._flush(job, stream)

    def _flush(self, job: Job, stream: bytes) -> None:
        fd, waiting = job.inputs.get(stream), job.waiting.get(stream, bytearray())
        if fd is None:
            return
        written = 0
        closed = False
        while waiting and not closed:
            try:
                count = os.write(fd, waiting)
            except BlockingIOError:
                break
            except OSError:
                count, closed = len(waiting), True  # nobody reads any more
            written += count
            del waiting[:count]
        if written:
            self.tell(b"A", job.number, (stream, written))
        if waiting:
            if fd not in self._handlers:
                self._watch(fd, select.POLLOUT, lambda _event: self._flush(job, stream))
            return
        self._unwatch(fd)
        if closed or stream in job.ending:
            self._close_input(job, stream)

    def _close_input(self, job: Job, stream: bytes) -> None:
        fd = job.inputs.pop(stream)
        if stream == b"3":
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as channel:
                channel.shutdown(socket.SHUT_WR)
        elif job.terminal:
            with contextlib.suppress(OSError):
                os.write(fd, b"\x04")  # the end of input, as typed
        os.close(fd)

    def _signal(self, job: Job, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, number)

    def _reap(self, _event: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for job in tuple(self._jobs.values()):
                if job.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    job.status = code if code >= 0 else 128 - code
                    self._finish(job)

    def _finish(self, job: Job) -> None:
        """Report a job that ended, once all it wrote before its end is on its way.

        A process it left behind may keep its streams open: what that writes later is dropped, and
        nobody waits for it.
        """
        if job.status is None:
            return
        for stream in tuple(job.outputs):
            while self._pass_on(job, stream):
                pass
            if stream in job.outputs and job.under_way.get(stream, 0) >= WINDOW:
                return  # more may follow when the controller has taken some
        for fd in (*job.outputs.values(), *job.inputs.values()):
            self._unwatch(fd)
            os.close(fd)
        del self._jobs[job.number]
        os.sync()  # what it wrote to the computer's folders is there when its end is known
        self.tell(b"X", job.number, job.status)


def find(program: str, path: str) -> str:
    """Return the file execvp(3) would run."""
    if "/" not in program:
        for folder in path.split(":"):
            candidate = f"{folder}/{program}"
            if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):  # noqa: PTH112
                return candidate
    return program


def main() -> None:
    """Be process 1 of the guest."""
    while os.open("/dev/null", os.O_RDWR) < 2:
        pass  # no console of its own: keep the standard descriptors taken all the same
    kernel = Kernel()
    try:
        kernel.mount("proc", "/proc")
        console = os.open(CONSOLE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        mode = termios.tcgetattr(console)
        mode[0] = mode[1] = mode[3] = 0
        mode[2] |= termios.CS8 | termios.CREAD | termios.CLOCAL
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(console, termios.TCSANOW, mode)
        agent = Agent(console, kernel)
        release = os.uname().release
        agent.tell(b"H", 0, release)
        kind, _job, payload = agent.hear_one()
        if kind == b"C":
            try:
                make_habitable(kernel, release, marshal.loads(payload))
            except OSError as error:
                agent.tell(b"F", 0, (error.errno or 0, str(error)))
            else:
                agent.tell(b"Y", 0, None)
                agent.serve()
    except Exception as error:
        # Process 1 must not exit: the kernel would panic. The controller sees the console close.
        print(f"guest_init: {error!r}", file=sys.stderr, flush=True)
    finally:
        kernel.power_off()


if __name__ == "__main__":
    main()
