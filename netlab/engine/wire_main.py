"""The program that serves one userspace link: `python3 -m netlab.engine.wire_main CONFIG [FILE]`.

CONFIG is JSON as in the README of crates/netlab-wire, or `@` and the name of a file with it. The
last counters are written to FILE. When standard input is a listening socket, clients may send
commands there, one JSON object a line, and get a reply to each; without one it runs until it is
ended.

It is started by its path with `-I -S`: of netlab it imports the native part alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any


def configuration(text: str) -> str:
    """Return the configuration with the namespace in which the wire must not run."""
    told: dict[str, Any] = json.loads(Path(text[1:]).read_text() if text[0] == "@" else text)
    machine = os.environ.get("NETLAB_MACHINE_NETNS")
    if machine is not None:
        told["forbidden_ns"] = int(machine)
    return json.dumps(told)


class Clients:
    """Passes commands on to the wire, one at a time, and its replies back."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self.replies = wire.makefile("rb")
        self.lock = threading.Lock()

    def serve(self, listener: socket.socket) -> None:
        """Serve clients once the wire is ready."""
        first = self.replies.readline()
        if b'"ready"' not in first:
            return  # it failed, and says why where it was called
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self.talk, args=(client,), daemon=True).start()

    def talk(self, client: socket.socket) -> None:
        """Answer the commands of one client until it goes."""
        with client, client.makefile("rb") as commands:
            for line in commands:
                with self.lock:
                    self.wire.sendall(line if line.endswith(b"\n") else line + b"\n")
                    reply = self.replies.readline()
                try:
                    client.sendall(reply)
                except OSError:
                    return


def main(arguments: list[str]) -> int:
    """Run the wire; 0 when it was told to end."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from netlab._core import run_wire

    # The wire reads them from a descriptor, so no thread may take them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    ours, theirs = socket.socketpair()
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        clients = Clients(ours)
        listener = socket.socket(fileno=0)
        listener.setblocking(True)
        threading.Thread(target=clients.serve, args=(listener,), daemon=True).start()
    try:
        counters = run_wire(configuration(arguments[0]), theirs.fileno())
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    if len(arguments) > 1:
        path = Path(arguments[1])
        new = path.with_name(path.name + ".new")
        new.write_text(counters + "\n")
        new.replace(path)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)  # a client's thread may be in the middle of a read
