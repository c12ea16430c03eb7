"""Run one command in a node for a person: their terminal, their signals, its exit status.

`netlab exec` is this module, so it must stay light: no YAML, no pydantic, no tables.

Without a terminal the command gets our own three descriptors. With one, we make a pseudo-terminal,
give the command its far side and carry bytes between ours and the person's; the kernel turns Ctrl-C
typed there into a signal for whatever runs in front, and a new window size into SIGWINCH.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

from netlab.engine.channel import Channel
from netlab.errors import EngineError, NetlabError

Json = dict[str, Any]
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
OWN_FAILURE, CANNOT_RUN, NOT_FOUND = 125, 126, 127
TAG = 0


class Command(NamedTuple):
    """What to run and where."""

    node: str
    argv: tuple[str, ...]
    env: Mapping[str, str]


def execute(connection: Channel, command: Command, *, terminal: bool) -> int:
    """Run a command with our standard streams and return the status a shell would see."""
    with contextlib.closing(connection), _caught() as wake:
        if terminal:
            return _with_terminal(connection, command, wake)
        refused = start(connection, command, (0, 1, 2))
        return refused or _follow(connection, wake)


def run_plainly(lab: str | None, node: str, argv: Sequence[str]) -> int:
    """Run a command in a node of a lab with our standard streams; what failed is told on stderr."""
    from netlab.engine.reach import connect

    try:
        fill_standard_streams()
        _, connection = connect(lab, node)
        return execute(connection, Command(node, tuple(argv), dict(os.environ)), terminal=False)
    except NetlabError as error:
        print(f"error: {error}", file=sys.stderr)
        return OWN_FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def start(
    connection: Channel,
    command: Command,
    fds: Sequence[int],
    *,
    terminal: bool = False,
    background: str = "",
) -> int:
    """Ask for a command; 0 when it runs, else the status to exit with (the reason is on stderr).

    One with a `background` name belongs to the lab and outlives the connection.
    """
    mask = os.umask(0o077)
    os.umask(mask)
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise EngineError("the current directory is gone", hint="change to another one") from error
    request: Json = {
        "do": "spawn",
        "node": command.node,
        "argv": command.argv,
        "env": dict(command.env),
        "cwd": here,
        "umask": mask,
        "terminal": terminal,
        "tag": TAG,
        "name": background,
        "keep": bool(background),
    }
    error = connection.request(request, fds).get("error")
    if error is None:
        return 0
    number = int(error.get("errno") or 0)
    reason = os.strerror(number) if number else str(error.get("kind"))
    if error.get("kind") == "exec":
        print(f"netlab: {command.argv[0]}: {reason}", file=sys.stderr)
        return NOT_FOUND if number == errno.ENOENT else CANNOT_RUN
    what = error.get("what")
    raise EngineError(f"cannot run a command in node {command.node!r}: {what}: {reason}")


def fill_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, lest another file takes its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)


@contextlib.contextmanager
def _caught() -> Generator[int]:
    """Let the signals to be passed on arrive in a descriptor, one byte each."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, _arrived) for number in (*FORWARDED, signal.SIGWINCH)}
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def _arrived(_number: int, _frame: object) -> None:
    """Nothing: the number is in the pipe."""


def _ended(connection: Channel) -> int | None:
    event = connection.peek(TAG, "exit")
    if event is None:
        return None
    status = int(event["status"])
    return status if status >= 0 else 128 - status


def _pass_on(connection: Channel, wake: int) -> bool:
    """Send the signals that came to the command; True if the window's size changed."""
    numbers = set(os.read(wake, 256))
    for number in FORWARDED:
        if number in numbers:
            connection.send({"do": "signal", "tag": TAG, "signal": int(number)})
    return signal.SIGWINCH in numbers


def _follow(connection: Channel, wake: int) -> int:
    """Wait for the end of a command, passing signals on."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while (status := _ended(connection)) is None:
        for fd, _ in poll.poll():
            if fd == wake:
                _pass_on(connection, wake)
    return status


def _copy_size(master: int) -> None:
    """Give a pseudo-terminal the size of the person's window, if there is one."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


@contextlib.contextmanager
def _raw(fd: int) -> Generator[None]:
    """Pass every key on as it is; a descriptor that is no terminal is left alone."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # what was typed ahead is not lost
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _with_terminal(connection: Channel, command: Command, wake: int) -> int:
    master, slave = os.openpty()
    try:
        _copy_size(master)
        try:
            refused = start(connection, command, [slave] * 3, terminal=True)
        finally:
            os.close(slave)
        if refused:
            return refused
        with _raw(0):
            return _carry(connection, master, wake)
    finally:
        os.close(master)


def _carry(connection: Channel, master: int, wake: int) -> int:
    """Carry bytes both ways until the command has ended and its last output is out."""
    poll = select.poll()
    for fd in (0, master, wake, connection.fileno()):
        poll.register(fd, select.POLLIN)
    status: int | None = None
    while status is None:
        for fd, _ in poll.poll():
            if fd == wake:
                if _pass_on(connection, wake):
                    _copy_size(master)
            elif fd == 0:
                if not _type(master):
                    poll.unregister(0)
            elif fd == master and not _show(master):
                poll.unregister(master)
        status = _ended(connection)
    os.set_blocking(master, False)
    while _show(master):
        pass
    return status


def _type(master: int) -> bool:
    """Carry what the person typed; at its end say so as a terminal would (Ctrl-D)."""
    try:
        data = os.read(0, 4096)
    except OSError:
        data = b""
    _write(master, data or b"\x04")
    return bool(data)


def _show(master: int) -> bool:
    """Carry what the command printed; False at its end (EIO: the far side is closed)."""
    try:
        data = os.read(master, 65536)
    except OSError:
        return False
    _write(1, data)
    return bool(data)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
