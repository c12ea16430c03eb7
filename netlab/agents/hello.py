"""A server that says hello and a client that listens: the smallest TCP conversation.

    python -m netlab.agents.hello serve --port 8080
    python -m netlab.agents.hello connect 127.0.0.1 --port 8080

Each step is one line on stdout, a word and `key=value` pairs whose values are JSON, readable for
people and programs alike. With --step a program waits for SIGUSR1 before it goes on: the server
before it sends and again before it closes, the client before it closes. A single file that needs
nothing but Python's library; it also runs under `python3 -I -S`.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any


def say(word: str, **pairs: str | float) -> None:
    """Print one step: a word and its key=value pairs."""
    print(word, *(f"{key}={json.dumps(value)}" for key, value in pairs.items()), flush=True)


def now_ns() -> int:
    """Return the time that captures use too."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def resolve(address: str, port: int, family: int = 0) -> tuple[int, tuple[Any, ...]]:
    """Return (family, sockaddr) of a numeric address or a name; of none: IPv6 and IPv4 at once."""
    if not address:
        both = socket.has_dualstack_ipv6()
        return (socket.AF_INET6, ("::", port)) if both else (socket.AF_INET, ("0.0.0.0", port))
    found = socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)
    return found[0][0], found[0][4]


def tcp_socket(family: int, congestion: str | None) -> socket.socket:
    """Make a TCP socket, with the congestion control asked for."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    if congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    return sock


def step(args: argparse.Namespace, before: str) -> None:
    """Wait for SIGUSR1 where --step asks for it."""
    if args.step:
        say("waiting", before=before)
        signal.sigwait({signal.SIGUSR1})


def close(sock: socket.socket, args: argparse.Namespace) -> None:
    """Close a connection, with a reset instead of a FIN where --reset asks for it."""
    if args.reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def serve(args: argparse.Namespace) -> None:
    """Accept connections one after the other and say the message to each."""
    family, address = resolve(args.address, args.port)
    with tcp_socket(family, args.congestion) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address[0] == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(args.backlog)
        name = listener.getsockname()
        say("listening", address=name[0], port=name[1])
        if args.ready_fd is not None:
            os.write(args.ready_fd, b"listening\n")
            os.close(args.ready_fd)
        served = 0
        while args.count == 0 or served < args.count:
            conn, peer = listener.accept()
            say("accepted", peer=peer[0], peer_port=peer[1], at_ns=now_ns())
            step(args, "send")
            conn.sendall(args.message.encode())
            say("sent", bytes=len(args.message.encode()))
            step(args, "close")
            close(conn, args)
            say("closed", by="server", at_ns=now_ns())
            served += 1


def connect(args: argparse.Namespace) -> None:
    """Connect as often as asked, one connection after the other."""
    for _ in range(args.times):
        listen(args)


def listen(args: argparse.Namespace) -> None:
    """Connect, print everything that comes until the server closes, and close."""
    family, address = resolve(args.address, args.port, args.family)
    with tcp_socket(family, args.congestion) as sock:
        sock.settimeout(args.timeout or None)
        if args.source_port:
            sock.bind(("", args.source_port))
        say("connecting", address=address[0], port=address[1], at_ns=now_ns())
        began = time.monotonic()
        sock.connect(address)
        took = time.monotonic() - began
        local = sock.getsockname()
        say(
            "connected", local=local[0], local_port=local[1], seconds=round(took, 9), at_ns=now_ns()
        )
        received = b""
        while True:
            data = sock.recv(65536)
            if not data:
                break
            received += data
        say("received", bytes=len(received), text=received.decode("utf-8", "replace"))
        step(args, "close")
        close(sock, args)
        say("closed", by="client", at_ns=now_ns())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="hello", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    server = commands.add_parser("serve", help="wait for clients and say hello")
    server.add_argument("--address", default="", help="address to listen on (default: any)")
    server.add_argument("--message", default="hello", help="what to say")
    server.add_argument("--count", type=int, default=1, help="connections to serve; 0 = no end")
    server.add_argument("--backlog", type=int, default=1, help="the argument of listen()")
    server.add_argument("--ready-fd", type=int, help="descriptor to write to once listening")
    server.set_defaults(run=serve)

    client = commands.add_parser("connect", help="connect and print what the server says")
    client.add_argument("address", help="the server")
    client.add_argument("-4", dest="family", action="store_const", const=socket.AF_INET, default=0)
    client.add_argument("-6", dest="family", action="store_const", const=socket.AF_INET6)
    client.add_argument("--source-port", type=int, default=0, help="port to connect from")
    client.add_argument("--times", type=int, default=1, help="connections to make")
    client.add_argument("--timeout", type=float, default=0, help="seconds; 0 = wait for ever")
    client.set_defaults(run=connect)

    for command in (server, client):
        command.add_argument("--port", type=int, default=8080)
        command.add_argument("--congestion", help="congestion control, for example cubic")
        command.add_argument("--step", action="store_true", help="wait for SIGUSR1 between steps")
        command.add_argument("--reset", action="store_true", help="close with a reset")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run one side; 0 after a whole conversation, 1 when the network or the peer said no."""
    args = parse(argv)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        args.run(args)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except OSError as error:
        name = errno.errorcode.get(error.errno, type(error).__name__) if error.errno else "timeout"
        say("failed", errno=name, text=error.strerror or str(error), at_ns=now_ns())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
