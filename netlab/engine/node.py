"""A node that runs, and the programs in it.

Programs are started by the supervisor, which is inside already; this module passes descriptors,
waits for what the supervisor reports, and turns bad ends into exceptions. Time stamps are the
machine's (CLOCK_REALTIME, nanoseconds), taken where the program was started and reaped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal as signals
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self
from weakref import WeakSet

from netlab.engine.channel import Channel
from netlab.engine.completed import Completed
from netlab.engine.hold import Hold, Hook, Match
from netlab.engine.supervisor import checked
from netlab.errors import CommandError, EngineError, NotReadyError

Json = dict[str, Any]
LogFile = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Ready:
    """How it is seen that a program is ready; made by one of the functions below."""

    spec: Json
    what: str
    timeout: float = 10.0

    @classmethod
    def port(
        cls, number: int, *, protocol: Literal["tcp", "udp"] = "tcp", timeout: float = 10.0
    ) -> Ready:
        """A new socket of the node waits on a port (over IPv4 or IPv6)."""
        spec = {"port": number, "protocol": protocol}
        return cls(spec, f"a listening {protocol} port {number}", timeout)

    @classmethod
    def line(
        cls,
        pattern: str,
        *,
        stream: Literal["stdout", "stderr"] = "stdout",
        timeout: float = 10.0,
    ) -> Ready:
        """A line of the program's output matches a regular expression."""
        what = f"a line matching {pattern!r} on {stream}"
        return cls({"line": pattern, "stream": stream}, what, timeout)

    @classmethod
    def file(cls, path: str | os.PathLike[str], *, timeout: float = 10.0) -> Ready:
        """A file exists."""
        return cls({"file": os.path.abspath(path)}, f"the file {path}", timeout)  # noqa: PTH100

    @classmethod
    def command(cls, argv: Sequence[str | os.PathLike[str]], *, timeout: float = 10.0) -> Ready:
        """A command run in the same node ends with status 0; it is tried again and again."""
        words = [str(word) for word in argv]
        return cls({"command": words}, f"`{' '.join(words)}` to succeed", timeout)


SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where nft, sysctl and others lie, which ordinary users often do not have on their PATH."""


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's environment with changes, in a locale whose messages can be parsed.

    Programs of the system are found too, as after su(1).
    """
    given = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    return {**given, "PATH": f"{given.get('PATH', '/usr/local/bin:/usr/bin:/bin')}:{SYSTEM}"}


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def how_it_ended(status: int) -> str:
    """Say how a program ended: its exit status or the signal that killed it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signals.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _tail(text: str, lines: int = 10) -> str:
    found = text.strip().splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in found)


class Running:
    """A program in the background; use it in a `with`, which stops it."""

    def __init__(
        self,
        channel: Channel,
        node: str,
        name: str,
        argv: tuple[str, ...],
        files: tuple[Path, Path, Path],
        tag: int,
        started: Json,
    ) -> None:
        self._channel = channel
        self._tag = tag
        self._stopped = False
        self._end: Json | None = None
        self.node, self.name, self.argv = node, name, argv
        self.stdout_path, self.stderr_path, self._record = files
        self.pid: int = started["pid"]
        self.started_ns: int = started["started_ns"]
        self.ready_ns: int | None = None
        self._write_record()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        early = self._poll()
        self.stop()
        if kind is None and early is not None and early["status"] != 0 and not self._stopped:
            raise self._failure("ended early")

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has printed on its standard error so far."""
        return self.stderr_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._poll() is None

    def wait(self, timeout: float | None = 60.0) -> Completed:
        """Wait until it ends by itself; NotReadyError if it does not in time."""
        if self._end is None:
            timeout = None if timeout is None else timeout * self._channel.patience
            self._end = self._channel.event(self._tag, ("exit",), timeout)
            if self._end is None:
                raise NotReadyError(f"{self._label} still runs after {timeout:g} s")
            self._write_record()
        return self._completed(self._end)

    def stop(self, grace: float = 2.0) -> Completed:
        """End it: TERM, after `grace` seconds KILL for all its processes; then it is reaped."""
        if self._poll() is None:
            self._stopped = True
            self._channel.request({"do": "end", "tag": self._tag, "grace": grace})
            return self.wait(grace + 10.0)
        return self.wait(0)

    def expect_end(self) -> None:
        """Take its end, whoever brings it about, for no failure."""
        self._stopped = True

    def when_it_ends(self, action: Callable[[], None] | None) -> None:
        """Do something when it ends (see `Channel.when_it_ends`); None: nothing any more."""
        self._channel.when_it_ends(self._tag, action)

    def signal(self, number: int) -> None:
        """Send a signal to its process group; one that has ended is left alone."""
        if self._poll() is None:
            self._stopped = self._stopped or number in (
                signals.SIGTERM,
                signals.SIGKILL,
                signals.SIGINT,
            )
            self._channel.request({"do": "signal", "tag": self._tag, "signal": int(number)})

    def until_ready(self, ready: Ready) -> None:
        """Wait until the supervisor has seen that it is ready."""
        timeout = ready.timeout * self._channel.patience
        event = self._channel.event(self._tag, ("ready", "exit"), timeout)
        if event is None:
            self.stop(0.2)
            raise NotReadyError(
                f"{self._label} was not ready after {timeout:g} s: waited for {ready.what}"
                f"{self._said()}"
            )
        if event["event"] == "exit":
            self._end = event
            self._write_record()
            raise self._failure(f"ended before it was ready (waited for {ready.what})")
        self.ready_ns = event["now_ns"]

    @property
    def _label(self) -> str:
        return f"{self.name!r} in node {self.node!r} (`{' '.join(self.argv)}`)"

    def _said(self) -> str:
        said = _tail(self.stderr) or _tail(self.stdout)
        return f"; it said:\n{said}" if said else ""

    def _failure(self, what: str) -> CommandError:
        assert self._end is not None
        how = how_it_ended(self._end["status"])
        if self._end.get("out_of_memory"):
            how += ", out of memory"
        return CommandError(f"{self._label} {what}: {how}{self._said()}")

    def _poll(self) -> Json | None:
        if self._end is None:
            self._end = self._channel.peek(self._tag, "exit")
            if self._end is not None:
                self._write_record()
        return self._end

    def _completed(self, end: Json) -> Completed:
        return Completed(
            self.argv, end["status"], self.stdout, self.stderr, end["started_ns"], end["ended_ns"]
        )

    def _write_record(self) -> None:
        end = self._end or {}
        record = {
            "node": self.node,
            "name": self.name,
            "argv": list(self.argv),
            "pid": self.pid,
            "status": end.get("status"),
            "started_ns": self.started_ns,
            "ended_ns": end.get("ended_ns"),
            "out_of_memory": end.get("out_of_memory", False),
        }
        temporary = self._record.with_name(self._record.name + ".new")
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        temporary.replace(self._record)


@dataclass(slots=True)
class _Pipes:
    """The three pipes of a foreground program: our ends, and what has come out of them."""

    stdin: int
    outputs: dict[int, bytearray]
    pending: memoryview
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def close(self) -> None:
        for fd in (self.stdin, *self.outputs):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.selector.close()


class RunningNode:
    """A node of a lab that runs: start programs in it."""

    def __init__(
        self,
        name: str,
        channel: Channel,
        log_file: LogFile,
        reboot: Callable[[RunningNode, float], None] | None = None,
    ) -> None:
        self.name = name
        self._channel = channel
        self._log_file = log_file
        self._reboot = reboot
        self._running: WeakSet[Running] = WeakSet()
        self._held: WeakSet[Hold] = WeakSet()
        self._holds = 0

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 10.0,
        input: str | bytes | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Completed:
        """Run a program to its end and return what it printed.

        CommandError when it fails (unless `check` is false) or takes longer than `timeout`.
        """
        argv = tuple(map(str, argv))
        timeout *= self._channel.patience
        given = input.encode() if isinstance(input, str) else input or b""
        tag = self._channel.new_tag()
        theirs: list[int] = []
        pipes: _Pipes | None = None
        try:
            in_read, in_write = os.pipe2(os.O_CLOEXEC)
            out_read, out_write = os.pipe2(os.O_CLOEXEC)
            err_read, err_write = os.pipe2(os.O_CLOEXEC)
            theirs = [in_read, out_write, err_write]
            outputs = {out_read: bytearray(), err_read: bytearray()}
            pipes = _Pipes(in_write, outputs, memoryview(given))
            self._start(argv, tag, theirs, env, cwd, {})
            for fd in theirs:
                os.close(fd)
            theirs = []
            end = self._relay(pipes, tag, timeout)
        finally:
            for fd in theirs:
                os.close(fd)
            if pipes is not None:
                pipes.close()
        stdout, stderr = (bytes(b).decode(errors="replace") for b in outputs.values())
        label = f"`{' '.join(argv)}` in node {self.name!r}"
        if end is None:
            raise CommandError(f"{label} took longer than {timeout:g} s and was killed")
        status: int = end["status"]
        if check and status != 0:
            said = _tail(stderr) or _tail(stdout)
            raise CommandError(
                f"{label} failed: {how_it_ended(status)}" + (f"; it said:\n{said}" if said else "")
            )
        return Completed(argv, status, stdout, stderr, end["started_ns"], end["ended_ns"])

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        ready: Ready | None = None,
        wait: bool = True,
        stdin: IO[bytes] | int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        restart: Literal["no", "on-failure", "always"] = "no",
        cgroup: str | None = None,
        keep: bool = False,
        again: bool = False,
        taps: Sequence[tuple[str, str]] = (),
    ) -> Running:
        """Start a program in the background, its output in the recording; returns when ready.

        Without `wait` it returns at once, and `until_ready` of what it returns has to be called.
        Use the result in a `with`. NotReadyError when it does not become ready in time,
        CommandError when it ends before it is ready. `cgroup` is the control group it runs in, a
        folder. With `keep` it belongs to the lab and outlives this connection; with `again` it adds
        to its logs. `taps` are TAP devices of the plan (node, interface), whose other sides it gets
        as descriptors from 3 on.
        """
        argv = tuple(map(str, argv))
        tag = self._channel.new_tag()
        kinds = ("stdout.log", "stderr.log", "json")
        paths = tuple(self._log_file(f"nodes/{self.name}/{name}.{kind}") for kind in kinds)
        stdout_path, stderr_path, record = paths
        fds: list[int] = []
        try:
            if stdin is None:
                fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            else:
                fds.append(os.dup(stdin if isinstance(stdin, int) else stdin.fileno()))
            for path in (stdout_path, stderr_path):
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                flags |= 0 if again else os.O_TRUNC
                fds.append(os.open(path, flags, 0o644))
            extra: Json = {"name": name, "restart": restart, "keep": keep, "cgroup": cgroup}
            extra["taps"] = list(taps)
            if ready is not None:
                extra["ready"] = ready.spec
            started = self._start(argv, tag, fds, env, cwd, extra)
        finally:
            for fd in fds:
                os.close(fd)
        files = (stdout_path, stderr_path, record)
        running = Running(self._channel, self.name, name, argv, files, tag, started)
        self._running.add(running)
        if ready is not None and wait:
            running.until_ready(ready)
        return running

    def kill(self, name: str) -> None:
        """Kill a program of this node, whoever started it, and wait until it is gone."""
        end = time.monotonic() + 10
        told = {"do": "signal", "node": self.name, "name": name, "signal": int(signals.SIGKILL)}
        while True:
            answer = self._channel.request(told)
            if answer.get("error", {}).get("kind") == "gone":
                return
            checked(answer)
            if time.monotonic() > end:
                raise EngineError(f"{name!r} in node {self.name!r} cannot be killed")
            time.sleep(0.001)

    def hold(self, match: Match | str, *, hook: Hook = "output") -> Hold:
        """Drop the packets that match, in a `with`, until its end or `release()`.

        `match` is a `netlab.engine.hold.Match`, or an nft expression where only nft will do.
        """
        self._holds += 1
        hold = Hold(self.run, self._holds, match, hook)
        self._held.add(hold)
        return hold

    def reboot(self, *, off: float = 0.0) -> None:
        """Switch the node off without a word to anybody, and `off` seconds later on again.

        Its namespace is made anew: sockets, neighbours, tracked connections and everything
        configured by hand are gone, and nothing was sent when they went. So the TCP peers are left
        with half-open connections, and what they send next is answered by a RST. MACs, addresses,
        routes, sysctls and firewall are those of the topology, its processes are started again and
        ready on return. Other programs in the node are over (which is no error); captures and
        samplers in it end in good order before: start others, or look at the peer's end of the
        link. Nothing else in the lab is touched. A lab's own programs in other nodes go on.
        """
        if self._reboot is None:
            raise EngineError(f"node {self.name!r} cannot be rebooted from here")
        if not 0 <= off < math.inf:
            raise ValueError(f"a node cannot be off for {off} s")
        self._reboot(self, off)

    @contextlib.contextmanager
    def going_away(self) -> Generator[None]:
        """Expect, for the length of a block, that everything in the node ends."""
        programs = [running for running in self._running if running.alive]
        for running in programs:
            running.expect_end()
        yield
        for running in programs:
            running.wait(10)
        for hold in self._held:
            hold.forget()

    def _start(
        self,
        argv: tuple[str, ...],
        tag: int,
        fds: Sequence[int],
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        extra: Json,
    ) -> Json:
        if not argv:
            raise CommandError(f"no command to run in node {self.name!r}")
        request: Json = {
            "do": "spawn",
            "node": self.name,
            "argv": argv,
            "env": _environment(env),
            "cwd": os.path.abspath(cwd or "."),  # noqa: PTH100
            "umask": _umask(),
            "tag": tag,
            **extra,
        }
        answer = self._channel.request(request, fds)
        error = answer.get("error")
        if error is not None and error.get("kind") == "exec":
            reason = os.strerror(error["errno"])
            raise CommandError(f"cannot run {argv[0]!r} in node {self.name!r}: {reason}")
        return checked(answer)

    def _relay(self, pipes: _Pipes, tag: int, timeout: float) -> Json | None:
        """Move bytes until the program has ended; None when it had to be killed."""
        end = time.monotonic() + timeout
        selector = pipes.selector
        for fd in pipes.outputs:
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        os.set_blocking(pipes.stdin, False)
        selector.register(pipes.stdin, selectors.EVENT_WRITE)
        selector.register(self._channel, selectors.EVENT_READ)
        finished = self._channel.peek(tag, "exit")
        killed = False
        while finished is None:
            left = end - time.monotonic()
            if left <= 0:
                if killed:
                    raise EngineError(f"a program in node {self.name!r} cannot be killed")
                self._channel.request({"do": "end", "tag": tag, "grace": 0.2})
                killed, end = True, time.monotonic() + 10.0
                # Its end may have come in while we waited for the answer.
                finished = self._channel.peek(tag, "exit")
                continue
            for key, _ in selector.select(left):
                if key.fileobj is self._channel:
                    finished = self._channel.peek(tag, "exit")
                elif key.fd == pipes.stdin:
                    self._feed(pipes)
                else:
                    self._collect(pipes, key.fd)
        self._channel.event(tag, ("exit",), 0)
        # What it wrote is in the pipes now; a grandchild that keeps one open is not waited for.
        for fd in pipes.outputs:
            while self._collect(pipes, fd):
                pass
        return None if killed else finished

    @staticmethod
    def _feed(pipes: _Pipes) -> None:
        try:
            pipes.pending = pipes.pending[os.write(pipes.stdin, pipes.pending[:65536]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pipes.pending = pipes.pending[len(pipes.pending) :]
        if not pipes.pending:
            pipes.selector.unregister(pipes.stdin)
            os.close(pipes.stdin)
            pipes.stdin = -1

    @staticmethod
    def _collect(pipes: _Pipes, fd: int) -> bool:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            with contextlib.suppress(KeyError):
                pipes.selector.unregister(fd)
        pipes.outputs[fd] += data
        return bool(data)


@contextlib.contextmanager
def stopping(*programs: Running) -> Generator[None]:
    """Stop several programs at the end of a block, the last one first."""
    with contextlib.ExitStack() as stack:
        for program in programs:
            stack.enter_context(program)
        yield
