"""Many TCP connections: a crowd of clients, and a server that treats them well or badly.

    python -m netlab.agents.crowd serve --port 8080 --backlog 5 --behave never
    python -m netlab.agents.crowd connect 10.0.0.2 --port 8080 --count 12

The server accepts and then, by --behave, `close`s at once, `reads` to the end and closes, `echo`es
what it reads, `leak`s (reads to the end and never closes), or `never` accepts before SIGUSR1 comes.
Clients connect one after the other, or all --at-once; by --each they close, reset or keep every
connection. Kept ones are a pool that --requests are sent over, in turn, to a server that echoes.
Under --stay they are asked about after SIGUSR1: are they still there, or were they reset?

Output: a word and `key=value` pairs with JSON values; one line per client under --verbose, totals.
A single file that needs nothing but Python's library; it also runs under `python3 -I -S`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import FrameType
from typing import Any

BEHAVIOURS = ("close", "reads", "echo", "leak", "never")


def say(word: str, **pairs: Any) -> None:
    """Print one step, stamped with the time that captures use."""
    pairs = {**pairs, "at_ns": time.clock_gettime_ns(time.CLOCK_REALTIME)}
    print(word, *(f"{key}={json.dumps(value)}" for key, value in pairs.items()), flush=True)


def name_of(error: OSError) -> str:
    """Return the symbol of an error, such as ECONNREFUSED."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "timeout"
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def resolve(address: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """Return the family and socket address of a server; of none: IPv6 and IPv4 at once."""
    if not address:
        both = socket.has_dualstack_ipv6()
        return (socket.AF_INET6, ("::", port)) if both else (socket.AF_INET, ("0.0.0.0", port))
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    return found[0][0], found[0][4]


def ended(conn: socket.socket) -> str:
    """Say what became of a connection that nobody read from: "open", "eof" or an errno."""
    conn.setblocking(False)
    try:
        return "open" if conn.recv(1) else "eof"
    except BlockingIOError:
        return "open"
    except OSError as error:
        return name_of(error)


def drop(conn: socket.socket, how: str) -> None:
    """Close with a FIN or, for "reset", with a RST."""
    if how == "reset":
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


# -- the server --------------------------------------------------------------------------------


def heard(number: int, frame: FrameType | None) -> None:
    """Let a signal through to the wake-up descriptor."""
    del number, frame


class Server:
    """A listening socket and the connections it has accepted."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.accepted = 0
        self.open: dict[int, socket.socket] = {}
        self.leaked: list[socket.socket] = []
        self.failures: Counter[str] = Counter()
        family, address = resolve(args.address, args.port)
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        if args.reuse:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address[0] == "::":
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.listener.bind(address)
        self.listener.listen(args.backlog)
        self.listener.setblocking(False)
        self.reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, heard)

    def run(self) -> None:
        """Serve until SIGTERM or until --count connections have come and gone."""
        say("listening", port=self.listener.getsockname()[1], backlog=self.args.backlog)
        accepting = self.args.behave != "never"
        while True:
            if self.args.count and self.accepted >= self.args.count and not self.open:
                break
            poller = select.poll()
            poller.register(self.reader, select.POLLIN)
            if accepting:
                poller.register(self.listener, select.POLLIN)
            for fd in self.open:
                poller.register(fd, select.POLLIN)
            for fd, _ in poller.poll():
                if fd == self.reader:
                    asked = os.read(self.reader, 64)
                    if signal.SIGTERM in asked:
                        self.report()
                        return
                    if signal.SIGUSR1 in asked and self.args.behave == "never":
                        accepting = True
                    self.report()
                elif fd == self.listener.fileno():
                    accepting = self.accept()
                elif fd in self.open:
                    self.read(fd)
        self.report()

    def accept(self) -> bool:
        """Accept one connection; False when the process can hold no more."""
        try:
            conn, _ = self.listener.accept()
        except BlockingIOError:
            return True
        except OSError as error:
            self.failures[name_of(error)] += 1
            say("failed", action="accept", errno=name_of(error), open=len(self.open))
            return False
        self.accepted += 1
        if self.args.behave == "close":
            conn.close()
        else:
            self.open[conn.fileno()] = conn
        return True

    def read(self, fd: int) -> None:
        """Read from a connection, and echo what came; at its end close it, or leak it."""
        conn = self.open[fd]
        try:
            data = conn.recv(65536)
            if self.args.behave == "echo":
                conn.sendall(data)
        except OSError as error:
            self.failures[name_of(error)] += 1
            data = b""
        if data:
            return
        del self.open[fd]
        if self.args.behave == "leak":
            self.leaked.append(conn)
        else:
            conn.close()

    def report(self) -> None:
        """Say how things stand."""
        try:
            files = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - as quick as can be
        except OSError:  # not one more can be opened, not even to count them
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        say(
            "standing",
            accepted=self.accepted,
            open=len(self.open),
            leaked=len(self.leaked),
            files=files,
        )


def serve(args: argparse.Namespace) -> None:
    """Serve a crowd."""
    Server(args).run()


# -- the clients -------------------------------------------------------------------------------


def connect(args: argparse.Namespace) -> None:
    """Make the connections, tell what became of them, and of those that stay."""
    family, address = resolve(args.address, args.port)
    kept: list[socket.socket] = []
    failures: Counter[str] = Counter()
    ports: list[int] = []
    first_failure = 0
    began = time.monotonic()
    pending: list[socket.socket] = []
    for number in range(args.count):
        conn = socket.socket(family, socket.SOCK_STREAM)
        if args.reuse:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if args.source or args.source_port:
                conn.bind((args.source, args.source_port))
            if args.at_once:
                conn.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    conn.connect(address)
                pending.append(conn)
                continue
            conn.settimeout(args.timeout or None)
            conn.connect(address)
        except OSError as error:
            failures[name_of(error)] += 1
            first_failure = first_failure or number + 1
            if args.verbose:
                say("failed", number=number, errno=name_of(error))
            conn.close()
            continue
        ports.append(conn.getsockname()[1])
        if args.verbose:
            say("opened", number=number, port=ports[-1])
        if args.each == "keep":
            kept.append(conn)
            continue
        if args.each == "read":
            with contextlib.suppress(OSError):
                while conn.recv(65536):
                    pass
        drop(conn, args.each)
    if pending:
        opened, waiting = settle(pending, args.timeout or 1.0, failures)
        ports += [conn.getsockname()[1] for conn in opened]
        kept += opened
        failures["pending"] += len(waiting)
        kept += waiting
    say(
        "connected",
        count=len(ports),
        distinct_ports=len(set(ports)),
        lowest_port=min(ports, default=0),
        highest_port=max(ports, default=0),
        failed=+failures,
        first_failure=first_failure,
        seconds=round(time.monotonic() - began, 6),
    )
    if args.requests:
        answered = 0
        for number in range(args.requests):
            answered += ask(kept[number % len(kept)]) if kept else 0
        say("answered", requests=args.requests, answered=answered, connections=len(kept))
    if args.stay:
        say("waiting")
        signal.sigwait({signal.SIGUSR1})
        say("found", **{k.lower(): v for k, v in Counter(ended(conn) for conn in kept).items()})
    for conn in kept:
        drop(conn, args.finally_)


def ask(conn: socket.socket) -> bool:
    """Send one octet and wait for one; False when none came back."""
    try:
        conn.sendall(b"?")
        return bool(conn.recv(1))
    except OSError:
        return False


def settle(
    pending: Sequence[socket.socket], timeout: float, failures: Counter[str]
) -> tuple[list[socket.socket], list[socket.socket]]:
    """Wait for connects that are under way; return those that are open, and those that hang."""
    poller = select.poll()
    by_fd = {conn.fileno(): conn for conn in pending}
    for fd in by_fd:
        poller.register(fd, select.POLLOUT)
    opened: list[socket.socket] = []
    end = time.monotonic() + timeout
    while by_fd and (left := end - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000):
            conn = by_fd.pop(fd)
            poller.unregister(fd)
            number = conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                failures[errno.errorcode.get(number, str(number))] += 1
                conn.close()
            else:
                opened.append(conn)
    return opened, list(by_fd.values())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="crowd", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    server = commands.add_parser("serve", help="a server for many")
    server.add_argument("--address", default="", help="where to listen (default: anywhere)")
    server.add_argument("--backlog", type=int, default=128)
    server.add_argument("--behave", choices=BEHAVIOURS, default="reads")
    server.add_argument("--count", type=int, default=0, help="end after so many; 0 = never")
    server.set_defaults(run=serve)

    client = commands.add_parser("connect", help="a crowd of clients")
    client.add_argument("address", help="the server")
    client.add_argument("--count", type=int, default=1)
    client.add_argument("--at-once", action="store_true", help="do not wait for one another")
    client.add_argument("--source", default="", help="address to connect from")
    client.add_argument("--source-port", type=int, default=0)
    client.add_argument("--timeout", type=float, default=0, help="seconds; 0 = the kernel's")
    client.add_argument("--each", choices=("close", "reset", "read", "keep"), default="keep")
    client.add_argument("--finally", dest="finally_", choices=("close", "reset"), default="close")
    client.add_argument("--requests", type=int, default=0, help="over the connections kept")
    client.add_argument("--stay", action="store_true", help="wait for SIGUSR1 before the end")
    client.add_argument("--verbose", action="store_true", help="a line per connection")
    client.set_defaults(run=connect)

    for command in (server, client):
        command.add_argument("--port", type=int, default=8080)
        command.add_argument("--reuse", action="store_true", help="SO_REUSEADDR")
        command.add_argument("--files", type=int, help="limit of open files")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run one side; 0 when it came to its end, 1 when the server cannot even listen."""
    args = parse(argv)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (args.files or hard, hard))
    if args.command == "connect":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        args.run(args)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except OSError as error:
        say("failed", errno=name_of(error), text=error.strerror or str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
