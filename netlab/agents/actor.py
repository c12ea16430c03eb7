"""One end of a TCP conversation that does what its command line says, step by step.

    python -m netlab.agents.actor --port 8080 listen accept recv-eof close
    python -m netlab.agents.actor --port 8080 --address 10.0.0.2 connect send=5 close

Every action prints what it did as a word and `key=value` pairs with JSON values. `wait` waits for
SIGUSR1, so that somebody can look in between. What fails is printed with its errno; the program
goes on with the next action under --keep-going and otherwise ends with status 1.

| action | what it does |
|---|---|
| `listen[=BACKLOG]` | bind to the address and port and listen (backlog 5) |
| `accept` | take the next connection; the one before it stays open |
| `connect` | connect to the address and port, from `--source-port` if given |
| `connect-send=N` | connect and send N octets at once, in the SYN if the kernel may |
| `fast-open[=N]` | sockets that listen from now on take data in a SYN (TCP_FASTOPEN, N at once) |
| `send=N`, `recv=N` | send N octets; receive until N came or the peer closed |
| `recv-eof` | receive until the peer closes |
| `shutdown` | say that nothing more will be sent (SHUT_WR) |
| `close`, `reset` | close with a FIN; close with a RST (SO_LINGER 0) |
| `quit` | close the listening socket |
| `quickack=0` | acknowledge late (TCP_QUICKACK 0) |
| `keepalive[=I/P/N]` | probe a silent peer after I s, every P s, N times (the kernel's) |
| `reuse` | SO_REUSEADDR on the sockets made after it |
| `sleep=SECONDS`, `wait` | let time pass; wait for SIGUSR1 |

A single file that needs nothing but Python's library; it also runs under `python3 -I -S`.
"""

from __future__ import annotations

import argparse
import errno
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence


def say(word: str, **pairs: str | float) -> None:
    """Print one step, stamped with the time that captures use."""
    pairs = {**pairs, "at_ns": time.clock_gettime_ns(time.CLOCK_REALTIME)}
    print(word, *(f"{key}={json.dumps(value)}" for key, value in pairs.items()), flush=True)


class Actor:
    """The sockets of one end, and what can be done with them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.listener: socket.socket | None = None
        self.sockets: list[socket.socket] = []
        self.reuse_address = False
        self.fast_open_queue = 0

    @property
    def current(self) -> socket.socket:
        """The connection that was opened last."""
        if not self.sockets:
            raise OSError(errno.ENOTCONN, "there is no connection")
        return self.sockets[-1]

    def _socket(self) -> tuple[socket.socket, tuple[object, ...]]:
        port = self.args.port
        if self.args.address:
            found = socket.getaddrinfo(self.args.address, port, type=socket.SOCK_STREAM)
            family, address = found[0][0], found[0][4]
        elif socket.has_dualstack_ipv6():  # IPv6 and IPv4 at once
            family, address = socket.AF_INET6, ("::", port)
        else:
            family, address = socket.AF_INET, ("0.0.0.0", port)
        made = socket.socket(family, socket.SOCK_STREAM)
        if self.args.congestion:
            made.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_CONGESTION, self.args.congestion.encode()
            )
        if self.reuse_address:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return made, address

    def listen(self, argument: str) -> None:
        """Bind and listen."""
        made, address = self._socket()
        made.bind(address)
        if self.fast_open_queue:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, self.fast_open_queue)
        made.listen(int(argument or 5))
        self.listener = made
        say("listening", port=made.getsockname()[1])

    def accept(self, _: str) -> None:
        """Take the next connection."""
        if self.listener is None:
            raise OSError(errno.EINVAL, "nobody listens")
        conn, peer = self.listener.accept()
        self.sockets.append(conn)
        say("accepted", peer=peer[0], peer_port=peer[1])

    def connect(self, _: str) -> None:
        """Connect; a timeout of 0 waits as long as the kernel does."""
        made, address = self._socket()
        if self.args.source_port:
            made.bind(("", self.args.source_port))
        made.settimeout(self.args.timeout or None)
        say("connecting", port=self.args.port)
        began = time.monotonic()
        made.connect(address)
        self.sockets.append(made)
        local = made.getsockname()
        say("connected", local_port=local[1], seconds=round(time.monotonic() - began, 6))

    def connect_send(self, argument: str) -> None:
        """Connect and send in one call (MSG_FASTOPEN); where that is off, one after the other."""
        made, address = self._socket()
        made.settimeout(self.args.timeout or None)
        data = b"x" * int(argument)
        say("connecting", port=self.args.port)
        try:
            made.sendto(data, socket.MSG_FASTOPEN, address)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            say("refused", errno="EOPNOTSUPP")
            made.connect(address)
            made.sendall(data)
        self.sockets.append(made)
        say("sent", bytes=len(data))

    def fast_open(self, argument: str) -> None:
        """Let listening sockets made from now on take data in a SYN."""
        self.fast_open_queue = int(argument or 5)
        say("fast_open", queue=self.fast_open_queue)

    def send(self, argument: str) -> None:
        """Send so many octets."""
        count = int(argument)
        self.current.sendall(b"x" * count)
        say("sent", bytes=count)

    def recv(self, argument: str) -> None:
        """Receive so many octets, or until the peer closes."""
        wanted, got = int(argument), 0
        while got < wanted:
            data = self.current.recv(min(65536, wanted - got))
            if not data:
                break
            got += len(data)
        say("received", bytes=got, eof=got < wanted)

    def recv_eof(self, _: str) -> None:
        """Receive until the peer closes."""
        got = 0
        while data := self.current.recv(65536):
            got += len(data)
        say("received", bytes=got, eof=True)

    def shutdown(self, _: str) -> None:
        """Say that nothing more will be sent."""
        self.current.shutdown(socket.SHUT_WR)
        say("shut")

    def close(self, _: str) -> None:
        """Close the connection that was opened last."""
        self.current.close()
        self.sockets.pop()
        say("closed")

    def reset(self, _: str) -> None:
        """Close with a reset."""
        linger = struct.pack("ii", 1, 0)
        self.current.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.current.close()
        self.sockets.pop()
        say("reset")

    def quit(self, _: str) -> None:
        """Close the listening socket."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        say("quit")

    def quickack(self, argument: str) -> None:
        """Choose whether to acknowledge at once."""
        self.current.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, int(argument))
        say("quickack", value=int(argument))

    def keepalive(self, argument: str) -> None:
        """Probe a silent peer, by times of our own if they are given; tell those that count."""
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        self.current.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in zip(names, argument.split("/") if argument else (), strict=False):
            self.current.setsockopt(socket.IPPROTO_TCP, name, int(value))
        idle, interval, probes = (self.current.getsockopt(socket.IPPROTO_TCP, n) for n in names)
        say("keepalive", idle=idle, interval=interval, probes=probes)

    def reuse(self, _: str) -> None:
        """Let sockets made from now on reuse an address."""
        self.reuse_address = True
        say("reuse")

    def sleep(self, argument: str) -> None:
        """Let time pass."""
        time.sleep(float(argument))
        say("slept", seconds=float(argument))

    def wait(self, _: str) -> None:
        """Wait for SIGUSR1."""
        say("waiting")
        signal.sigwait({signal.SIGUSR1})
        say("resumed")

    def action(self, text: str) -> tuple[Callable[[str], None], str]:
        """Return what a word of the command line does, and its argument."""
        name, _, argument = text.partition("=")
        if name not in ACTIONS:
            raise ValueError(f"{text!r} is no action; there are {', '.join(ACTIONS)}")
        return getattr(self, name.replace("-", "_")), argument


ACTIONS = (
    "listen", "accept", "connect", "connect-send", "fast-open", "send", "recv", "recv-eof",
    "shutdown", "close", "reset", "quit", "quickack", "keepalive", "reuse", "sleep", "wait",
)  # fmt: skip


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="actor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--address", default="", help="where to listen, or connect to")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--source-port", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=0, help="of connect; 0 = the kernel's")
    parser.add_argument("--congestion", default="cubic", help="congestion control")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    parser.add_argument("actions", nargs="+", help=", ".join(ACTIONS))
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Do the actions; 0 when all were done (or tried), 1 when one failed, 2 if it is unknown."""
    args = parse(argv)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    actor = Actor(args)
    try:
        plan = [(text, *actor.action(text)) for text in args.actions]
    except ValueError as error:
        print(f"actor: {error}", file=sys.stderr)
        return 2
    status = 0
    for text, do, argument in plan:
        try:
            do(argument)
        except OSError as error:
            name = errno.errorcode.get(error.errno, "") if error.errno else ""
            say("failed", action=text, errno=name or "timeout", text=error.strerror or str(error))
            if not args.keep_going:
                status = 1
                break
        except KeyboardInterrupt:
            say("interrupted")
            return 130
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
