"""A numbered UDP stream between two nodes: what arrived is compared with what was sent."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from dataclasses import dataclass

from netlab.engine.node import Ready, RunningNode

_PYTHON = ("/usr/bin/python3", "-I", "-S", "-u", "-c")
_RECEIVE = """
import contextlib, signal, socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
with contextlib.suppress(PermissionError):  # a user namespace may not
    sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE: some seconds of the stream
seen, stop = [], []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
sock.settimeout(0.05)
sock.bind(("", 9999))
print("listening")
while True:
    try:
        seen.append(*struct.unpack("!I", sock.recv(4)))
    except TimeoutError:  # the queue is empty
        if stop:
            break
print("got", *seen)
"""
_SEND = """
import signal, socket, struct, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number, stop = 0, []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
while not stop:
    sock.sendto(struct.pack("!I", number), (sys.argv[1], 9999))
    number += 1
    if number == 1:
        print("sending")
    time.sleep(0.001)
print("sent", number)
"""


@dataclass
class Stream:
    """The count of what was sent, and the numbers that arrived, once the stream has ended."""

    sent: int = 0
    arrived: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything arrived, once and in order."""
        return self.arrived == tuple(range(self.sent))


@contextlib.contextmanager
def numbered(sender: RunningNode, receiver: RunningNode, address: object) -> Generator[Stream]:
    """Send about a thousand numbers a second for the length of a block."""
    stream = Stream()
    program = [*_PYTHON, _RECEIVE]
    with receiver.spawn("receive", program, ready=Ready.port(9999, protocol="udp")) as sink:
        argv = [*_PYTHON, _SEND, str(address)]
        with sender.spawn("send", argv, ready=Ready.line("sending")) as source:
            yield stream
            source.signal(signal.SIGTERM)
            stream.sent = int(source.wait(60).stdout.split()[-1])
        # The last one is in the receiver's queue, or on its way through as many nodes as there are.
        sender.run(["ping", "-c1", "-W5", str(address)])
        sink.signal(signal.SIGTERM)
        stream.arrived = tuple(map(int, sink.wait(60).stdout.split()[2:]))
