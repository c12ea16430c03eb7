"""Frames to and from a supervisor; their form is told in `netlab/agents/supervisor.py`.

One thread uses a channel at a time. Requests are answered in order, events (a process ended, became
ready, a pause is over) come in between and are kept by their tag until somebody asks.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from netlab.errors import EngineError

Json = dict[str, Any]

_HEADER = struct.Struct("!II")


class ChannelClosedError(EngineError):
    """The supervisor is gone, and its lab with it."""


class Channel:
    """One connection to a supervisor."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = bytearray()
        self._answers: dict[int, Json] = {}
        self._events: dict[Any, list[Json]] = {}
        self._number = 0
        self._tags = 0
        self.patience = 1.0  # what timeouts are multiplied with: above 1 on a slow machine
        self.on_step: Callable[[int], None] | None = None
        self.hello: Json = {}
        self._failure: Json | None = None
        self._vital: dict[Any, Callable[[], None]] = {}
        self._ended: list[Callable[[], None]] = []

    def fileno(self) -> int:
        """The descriptor, for select and poll."""
        return self.sock.fileno()

    def new_tag(self) -> int:
        """A tag that no event of this channel has used."""
        self._tags += 1
        return self._tags

    def send(self, request: Json, fds: Sequence[int] = (), blob: bytes | bytearray = b"") -> int:
        """Send a request, with descriptors and raw bytes; returns its number."""
        self._number += 1
        message = {**request, "id": self._number, "fds": len(fds)}
        text = json.dumps(message).encode()
        frame = [memoryview(part) for part in (_HEADER.pack(len(text), len(blob)), text, blob)]
        ancillary: list[tuple[int, int, array.array[int]]] = []
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            sent = self.sock.sendmsg(frame, ancillary)
            for part in frame:
                if sent < len(part):
                    self.sock.sendall(part[sent:])
                sent = max(0, sent - len(part))
        except (BrokenPipeError, ConnectionResetError) as error:
            if not self._drain():
                raise ChannelClosedError("the supervisor of the lab is gone") from error
        return self._number

    def request(
        self,
        request: Json,
        fds: Sequence[int] = (),
        blob: bytes | bytearray = b"",
        timeout: float | None = None,
    ) -> Json:
        """Send a request and return its answer, which may hold an `error`."""
        number = self.send(request, fds, blob)
        return self.answer(number, timeout)

    def answer(self, number: int, timeout: float | None = None) -> Json:
        """Wait for the answer to a request."""
        end = None if timeout is None else time.monotonic() + timeout
        while number not in self._answers:
            if self._failure is not None:
                return self._failure
            if not self.pump(None if end is None else end - time.monotonic()):
                raise EngineError(f"the supervisor did not answer within {timeout} s")
        return self._answers.pop(number)

    def sleep(self, seconds: float) -> None:
        """Let time pass on the machine's clock; EngineError when it takes a minute longer."""
        tag = self.new_tag()
        self.request({"do": "sleep", "seconds": seconds, "tag": tag})
        if self.event(tag, ("slept",), seconds + 60) is None:
            raise EngineError(f"a pause of {seconds} s did not end; the machine is overloaded")

    def event(self, tag: Any, kinds: Sequence[str], timeout: float | None = None) -> Json | None:
        """Wait for an event of one of some kinds about a tag; None when the time is over."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            waiting = self._events.get(tag, [])
            for event in waiting:
                if event["event"] in kinds:
                    waiting.remove(event)
                    return event
            if not self.pump(None if end is None else end - time.monotonic()):
                return None

    def when_it_ends(self, tag: Any, action: Callable[[], None] | None) -> None:
        """Do something when a program ends, once, as soon as we hear of it; None: do not.

        What the action raises comes out of whatever waits for the supervisor just then.
        """
        if action is None:
            self._vital.pop(tag, None)
        else:
            self._vital[tag] = action

    def peek(self, tag: Any, kind: str) -> Json | None:
        """Return an event that has already come, and leave it where it is.

        ChannelClosedError when it has not, and the supervisor is gone.
        """
        gone: ChannelClosedError | None = None
        try:
            while self.pump(0):
                pass
        except ChannelClosedError as error:
            gone = error
        found = next((e for e in self._events.get(tag, ()) if e["event"] == kind), None)
        if found is None and gone is not None:
            raise gone
        return found

    def pump(self, timeout: float | None) -> bool:
        """Read once; False when nothing came in time."""
        if timeout is not None:
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            if not poll.poll(max(0.0, timeout) * 1000):
                return False
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise ChannelClosedError("the supervisor of the lab is gone")
        self._received += data
        self._sort()
        if self._ended:
            self._ended.pop(0)()
        return True

    def close(self) -> None:
        """Close the connection; what the supervisor ran for it ends."""
        self.sock.close()

    def _drain(self) -> bool:
        """Read what the other side said before it closed; True if there was anything."""
        found = False
        try:
            while self.pump(0):
                found = True
        except ChannelClosedError:
            pass
        return found

    def _sort(self) -> None:
        while len(self._received) >= _HEADER.size:
            text, raw = _HEADER.unpack_from(self._received)
            end = _HEADER.size + text + raw
            if len(self._received) < end:
                return
            message: Json = json.loads(self._received[_HEADER.size : _HEADER.size + text])
            del self._received[:end]
            kind = message.get("event")
            if kind is None:
                self._answers[message["id"]] = message
            elif kind == "step":
                if self.on_step is not None:
                    self.on_step(message["operation"])
                self.sock.sendall(b"g")
            elif kind == "hello":
                self.hello = message
            elif kind == "failed":
                self._failure = {"error": message["error"]}
            else:
                self._events.setdefault(message["tag"], []).append(message)
                if kind == "exit" and message["tag"] in self._vital:
                    self._ended.append(self._vital.pop(message["tag"]))


def _connected(folder: str | os.PathLike[str]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{fd}/control")  # short, however long the directory's path
        finally:
            os.close(fd)
    except OSError:
        sock.close()
        raise
    return sock


def connect(folder: str | os.PathLike[str]) -> Channel:
    """Connect to the supervisor whose state directory this is.

    ChannelClosedError where it is gone, EngineError where it cannot be reached for another reason.
    """
    name = os.path.basename(folder)  # noqa: PTH119
    try:
        sock = _connected(folder)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ChannelClosedError(f"the lab {name!r} ended just now") from error
    except OSError as error:
        raise EngineError(f"cannot reach the lab {name!r}: {error.strerror}") from error
    return Channel(sock)
