"""Send many octets over TCP, or receive them: how much, how fast, with which options.

    python -m netlab.agents.bulk serve --port 5000
    python -m netlab.agents.bulk send 10.0.0.2 --port 5000 --bytes 100000
    python -m netlab.agents.bulk datagrams 10.0.0.2 --port 9999 --sizes 1472,1372
    python -m netlab.agents.bulk listen --port 9999 --count 1

Data are octets that depend on their position alone, so both sides can name what they saw by its
SHA-256. `serve` may read slowly (--read-rate), answer with data of its own (--reply) and keep the
connection open until told (--step: it waits for SIGUSR1). `send` may say a few words first
(--greeting), which must come back before the rest goes out.

Each step is one line on stdout, a word and `key=value` pairs with JSON values. A single file that
needs nothing but Python's library; it also runs under `python3 -I -S`. Sources: tcp(7), udp(7),
ip(7), linux/in.h, linux/in6.h.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

PIECE = 65536
PATTERN = bytes(range(251)) * 523  # 251 is prime: no power of two divides the period
TCP_MAXSEG, TCP_WINDOW_CLAMP, TCP_QUICKACK, TCP_USER_TIMEOUT = 2, 10, 12, 18
IP_MTU_DISCOVER, IP_MTU = 10, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
DISCOVER = {"dont": 0, "want": 1, "do": 2, "probe": 3}


def say(word: str, **pairs: Any) -> None:
    """Print one step: a word and its key=value pairs."""
    print(word, *(f"{key}={json.dumps(value)}" for key, value in pairs.items()), flush=True)


def now_ns() -> int:
    """Return the time that captures use too."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def octets(start: int, length: int) -> bytes:
    """Return the data of the stream from `start` on, at most one piece."""
    at = start % 251
    return PATTERN[at : at + min(length, PIECE)]


def resolve(address: str, port: int, kind: int) -> tuple[int, tuple[Any, ...]]:
    """Return (family, sockaddr) of a numeric address or a name; "" is every address there is."""
    if not address:
        return (
            (socket.AF_INET6, ("::", port))
            if socket.has_dualstack_ipv6()
            else (
                socket.AF_INET,
                ("0.0.0.0", port),
            )
        )
    found = socket.getaddrinfo(address, port, type=kind)
    return found[0][0], found[0][4]


def bind(sock: socket.socket, address: tuple[Any, ...]) -> None:
    """Bind; a socket bound to `::` is one for IPv4 too."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(address)


def tcp_socket(family: int, args: argparse.Namespace) -> socket.socket:
    """Make a TCP socket with every option that was asked for; before it connects or listens."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    if args.congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, args.congestion.encode())
    if args.sndbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, args.sndbuf)
    if args.rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, args.rcvbuf)
    if args.maxseg:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_MAXSEG, args.maxseg)
    if args.window_clamp:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_WINDOW_CLAMP, args.window_clamp)
    if args.nodelay:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if args.user_timeout:
        milliseconds = int(args.user_timeout * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, milliseconds)
    return sock


def step(args: argparse.Namespace, before: str) -> None:
    """Wait for SIGUSR1 where --step asks for it."""
    if args.step:
        say("waiting", before=before)
        signal.sigwait({signal.SIGUSR1})


def send_all(sock: socket.socket, args: argparse.Namespace, start: int, total: int) -> int:
    """Send octets `start` to `total` (0: until --for has passed); return where it stopped."""
    sent = start
    end = time.monotonic() + args.seconds if args.seconds else None
    while (total == 0 or sent < total) and (end is None or time.monotonic() < end):
        room = PIECE if total == 0 else total - sent
        sent += sock.send(octets(sent, min(room, args.write)))
    return sent


class Receiver:
    """What came in: how much, when it came, and its digest."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.count = 0
        self.digest = hashlib.sha256()
        self.first = 0
        self.last = 0
        self.gap = 0
        self.as_sent = True
        self._began = time.monotonic()

    def take(self, sock: socket.socket, most: int) -> bytes:
        """Read once; with a rate, not before that many octets are due."""
        if self.rate:
            due = self._began + self.count / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            most = max(1, min(most, int(self.rate / 20)))
        data = sock.recv(most)
        now = now_ns()
        if data:
            self.first = self.first or now
            self.gap = max(self.gap, now - self.last if self.last else 0)
            self.last = now
            self.as_sent = self.as_sent and data == octets(self.count, len(data))
            self.count += len(data)
            self.digest.update(data)
        return data

    def until(self, sock: socket.socket, total: int) -> bool:
        """Read until `total` octets are in; False if the peer closed before."""
        while self.count < total:
            if not self.take(sock, min(PIECE, total - self.count)):
                return False
        return True

    def report(self, word: str) -> None:
        """Say what came in."""
        say(
            word,
            bytes=self.count,
            sha256=self.digest.hexdigest(),
            as_sent=self.as_sent,
            seconds=round((self.last - self.first) / 1e9, 9),
            longest_gap_s=round(self.gap / 1e9, 9),
            first_ns=self.first,
            last_ns=self.last,
        )


def serve(args: argparse.Namespace) -> None:
    """Accept connections one after the other; receive, reply, wait, close."""
    family, address = resolve(args.address, args.port, socket.SOCK_STREAM)
    with tcp_socket(family, args) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(listener, address)
        listener.listen(16)
        say("listening", port=listener.getsockname()[1])
        for _ in range(args.count):
            conn, peer = listener.accept()
            with conn:
                say("accepted", peer=peer[0], peer_port=peer[1], at_ns=now_ns())
                if args.greeting:
                    greeted = Receiver(0)
                    if greeted.until(conn, args.greeting):
                        conn.sendall(octets(0, args.greeting))
                        say("greeted", bytes=args.greeting, at_ns=now_ns())
                step(args, "read")
                received = Receiver(args.read_rate)
                if args.bytes:
                    received.until(conn, args.bytes)
                else:
                    while received.take(conn, PIECE):
                        pass
                received.report("received")
                if args.reply:
                    send_all(conn, args, 0, args.reply)
                    say("replied", bytes=args.reply, at_ns=now_ns())
                step(args, "close")
            say("closed", at_ns=now_ns())


def send(args: argparse.Namespace) -> None:
    """Make connections one after the other; send over each."""
    for _ in range(args.count):
        send_once(args)


def send_once(args: argparse.Namespace) -> None:
    """Connect, greet, send, read what is replied, close."""
    family, address = resolve(args.address, args.port, socket.SOCK_STREAM)
    with tcp_socket(family, args) as sock:
        sock.settimeout(args.timeout or None)
        if args.source_port:
            sock.bind(("", args.source_port))
        sock.connect(address)
        local = sock.getsockname()
        say("connected", local=local[0], local_port=local[1], at_ns=now_ns())
        if args.greeting:
            sock.sendall(octets(0, args.greeting))
            echoed = Receiver(0)
            if echoed.until(sock, args.greeting):
                say("greeted", bytes=echoed.count, at_ns=now_ns())
        step(args, "send")
        began = now_ns()
        sent = 0
        for part in range(1, args.parts + 1):
            if part > 1:
                step(args, f"part {part}")
            sent = send_all(sock, args, sent, args.bytes * part)
            say("sent", bytes=sent, began_ns=began, at_ns=now_ns())
        if args.reply:
            answer = Receiver(args.read_rate)
            answer.until(sock, args.reply)
            answer.report("received")
        step(args, "close")
        if args.drain:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(PIECE):
                pass
            say("drained", at_ns=now_ns())
    say("closed", at_ns=now_ns())


def datagram_socket(family: int, discover: str) -> socket.socket:
    """Make a UDP socket that treats the DF flag as told (ip(7), IP_MTU_DISCOVER)."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if discover:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, DISCOVER[discover])
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DISCOVER[discover])
    return sock


def known_mtu(sock: socket.socket, family: int) -> int | None:
    """Return the path MTU that the kernel knows for a connected socket."""
    level, name = (
        (socket.IPPROTO_IPV6, IPV6_MTU)
        if family == socket.AF_INET6
        else (socket.IPPROTO_IP, IP_MTU)
    )
    try:
        return struct.unpack("=i", sock.getsockopt(level, name, 4))[0]
    except OSError:
        return None


def datagrams(args: argparse.Namespace) -> None:
    """Send datagrams of these sizes; say what the kernel said, and the path MTU it knows."""
    family, address = resolve(args.address, args.port, socket.SOCK_DGRAM)
    with datagram_socket(family, args.discover) as sock:
        sock.connect(address)
        sizes = [int(size) for size in args.sizes.split(",")]
        for number, size in enumerate(sizes, 1):
            step(args, "send")
            mtu = known_mtu(sock, family)
            # What a router said about an earlier datagram waits here; reading clears it.
            told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if told:
                say("told", errno=errno.errorcode.get(told, ""), mtu=mtu, at_ns=now_ns())
            try:
                sock.send(octets(0, size))
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "")
                say("refused", number=number, bytes=size, errno=name, mtu=mtu, at_ns=now_ns())
            else:
                say("sent", number=number, bytes=size, mtu=mtu, at_ns=now_ns())
        step(args, "close")
        say("known", mtu=known_mtu(sock, family))


def listen(args: argparse.Namespace) -> None:
    """Receive datagrams until there were enough, or --timeout has passed without one."""
    family, address = resolve(args.address, args.port, socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        bind(sock, address)
        sock.settimeout(args.timeout or None)
        say("listening", port=sock.getsockname()[1])
        for number in range(1, args.count + 1):
            try:
                data, peer = sock.recvfrom(65535)
            except TimeoutError:
                say("nothing", number=number, at_ns=now_ns())
                return
            say(
                "datagram",
                number=number,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                as_sent=data == octets(0, len(data)),
                peer=peer[0],
                at_ns=now_ns(),
            )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bulk", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="receive over TCP")
    server.add_argument("--address", default="", help="address to listen on (default: any)")
    server.add_argument("--count", type=int, default=1, help="connections to serve")
    server.add_argument("--bytes", type=int, default=0, help="how much to receive; 0: until EOF")
    server.set_defaults(run=serve)

    client = commands.add_parser("send", help="send over TCP")
    client.add_argument("address", help="the server")
    client.add_argument("--count", type=int, default=1, help="connections to make")
    client.add_argument("--bytes", type=int, default=0, help="how much to send")
    client.add_argument("--parts", type=int, default=1, help="send that much so many times")
    client.add_argument("--source-port", type=int, default=0)
    client.add_argument("--timeout", type=float, default=0, help="seconds; 0 = wait for ever")
    client.add_argument("--drain", action="store_true", help="half-close, wait for the end")
    client.set_defaults(run=send)

    for command in (server, client):
        command.add_argument("--greeting", type=int, default=0, help="octets to exchange first")
        command.add_argument("--reply", type=int, default=0, help="octets the server sends back")
        command.add_argument(
            "--for", dest="seconds", type=float, default=0, help="how long to send"
        )
        command.add_argument("--write", type=int, default=PIECE, help="octets per write")
        command.add_argument("--read-rate", type=float, default=0, help="octets a second to read")
        command.add_argument("--congestion", help="congestion control, for example cubic")
        command.add_argument("--sndbuf", type=int, help="SO_SNDBUF")
        command.add_argument("--rcvbuf", type=int, help="SO_RCVBUF")
        command.add_argument("--maxseg", type=int, help="TCP_MAXSEG")
        command.add_argument("--window-clamp", type=int, help="TCP_WINDOW_CLAMP")
        command.add_argument("--nodelay", action="store_true", help="TCP_NODELAY")
        command.add_argument("--user-timeout", type=float, help="TCP_USER_TIMEOUT in seconds")

    source = commands.add_parser("datagrams", help="send over UDP")
    source.add_argument("address", help="the receiver")
    source.add_argument("--sizes", default="1000", help="octets of each datagram, as 1472,1372")
    source.add_argument("--discover", default="", choices=["", *DISCOVER], help="IP_MTU_DISCOVER")
    source.set_defaults(run=datagrams)

    sink = commands.add_parser("listen", help="receive over UDP")
    sink.add_argument("--address", default="", help="address to listen on (default: any)")
    sink.add_argument("--count", type=int, default=1)
    sink.add_argument("--timeout", type=float, default=0, help="seconds; 0 = wait for ever")
    sink.set_defaults(run=listen)

    for command in (server, client, source, sink):
        command.add_argument("--port", type=int, default=5000)
        command.add_argument("--step", action="store_true", help="wait for SIGUSR1 between steps")
        command.add_argument("--one-cpu", action="store_true", help="on the first processor only")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run one side; 0 at the end, 1 when the network or the peer said no."""
    args = parse(argv)
    if args.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
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
