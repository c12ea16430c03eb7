"""The programs that talk in live captures: many short connections, and readers that dawdle.

usage: traffic.py serve ADDRESS PORT          short connections, server
       traffic.py visit ADDRESS PORT COUNT    short connections, client (64 at a time)
       traffic.py dawdle ADDRESS PORT         slow readers, server
       traffic.py push ADDRESS PORT           pushes into slow readers, then idles with keep-alive
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
import threading
import time

HEADER = struct.Struct("!II")  # octets of the request, octets of the reply


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request of the announced size, send a reply of the announced size."""
    try:
        asked, wanted = HEADER.unpack(await reader.readexactly(HEADER.size))
        await reader.readexactly(asked)
        writer.write(bytes(wanted))
        await writer.drain()
        await reader.read(1)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def serve(address: str, port: int) -> None:
    server = await asyncio.start_server(answer, address, port, backlog=4096)
    async with server:
        await server.serve_forever()


async def visit(address: str, port: int, count: int) -> None:
    """Open `count` connections with small requests and replies; reset one in fifty."""
    dice = random.Random(1)
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            asked, wanted = dice.randrange(40, 600), min(30_000, int(dice.expovariate(1 / 3000)))
            try:
                reader, writer = await asyncio.open_connection(address, port)
                writer.write(HEADER.pack(asked, wanted) + bytes(asked))
                await reader.readexactly(wanted)
            except (OSError, asyncio.IncompleteReadError):
                continue
            if dice.random() < 0.02:
                peer: socket.socket = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()

    await asyncio.gather(*(worker() for _ in range(64)))


def dawdle(address: str, port: int) -> None:
    """Accept with a small buffer, wait, then read little by little: the window closes and opens."""
    listener = socket.create_server((address, port), family=_family(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    def read(peer: socket.socket, number: int) -> None:
        with peer:
            time.sleep(0.5 + number % 4)
            try:
                while peer.recv(2000):
                    time.sleep(0.003)
            except OSError:
                return

    number = 0
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=read, args=(peer, number), daemon=True).start()
        number += 1


def push(address: str, port: int) -> None:
    """Push into slow readers from half of the connections; let the other half idle."""

    def one(number: int) -> None:
        with socket.create_connection((address, port)) as peer:
            for name, value in (("KEEPIDLE", 1), ("KEEPINTVL", 1), ("KEEPCNT", 5)):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            peer.sendall(bytes(400_000 if number % 2 else 1))
            if number % 2 == 0:
                time.sleep(4)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", address, port]:
            asyncio.run(serve(address, int(port)))
        case ["visit", address, port, count]:
            asyncio.run(visit(address, int(port), int(count)))
        case ["dawdle", address, port]:
            dawdle(address, int(port))
        case ["push", address, port]:
            push(address, int(port))
        case _:
            sys.exit(__doc__)
