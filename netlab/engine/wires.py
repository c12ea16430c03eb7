"""Userspace wires of a lab: started in the middle of their links, asked and told things.

Each wire is a process in the hidden middle node of its link and dies with the lab. It listens on a
socket in the lab's directory, `wire/LINK.sock`. The socket is made here and handed over, so a
client can connect before the wire is ready, and learns from its closing that the wire is gone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlab.engine.channel import Channel, ChannelClosedError
from netlab.engine.node import Running, RunningNode, how_it_ended
from netlab.errors import EngineError, UsageError
from netlab.plan.operations import AddWire, Operation

Json = dict[str, Any]
PROGRAM = Path(__file__).with_name("wire_main.py")
NAME = "wire"
"""What the process is called among those of its node."""
FOLDER = "wire"
"""The folder of a lab or recording that holds what belongs to wires."""
PATIENCE = 20.0
JOURNAL_BYTES = 256 << 20
"""Four million packets; what comes later is counted, not recorded."""
DETACHED_JOURNAL_BYTES = 16 << 20
"""A detached lab may run for days, and its directory is often in memory."""

LogFile = Callable[[str], Path]


def possible() -> bool:
    """Tell whether wires can run here: the native part is built, the kernel has packet sockets."""
    found = importlib.util.find_spec("netlab._core") is not None
    return found and os.path.exists("/proc/net/packet")  # noqa: PTH110


def wired(operations: Iterable[Operation]) -> frozenset[str]:
    """Return the names of the links that operations give a wire."""
    return frozenset(op.link for op in operations if isinstance(op, AddWire))


class WireGoneError(EngineError):
    """The wire of a link is not there any more."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire that runs; `folder` is that of its lab."""

    link: str
    folder: Path
    running: Running

    def ask(self, command: str, **fields: Any) -> Json:
        """Give a command and return the reply."""
        return ask(self.folder, self.link, command, **fields)

    @property
    def end(self) -> EngineError:
        """What to raise when it ended although nobody wanted it to."""
        ended = self.running.wait(5.0)
        said = ended.stderr.strip()
        how = f"{how_it_ended(ended.status)}{f': {said}' if said else ''}"
        return WireGoneError(f"the wire of link '{self.link}' ended: {how}")


def ask(folder: str | os.PathLike[str], link: str, command: str, **fields: Any) -> Json:
    """Give a command to the wire of a link and return its reply; WireGoneError if it is gone."""
    gone = f"the wire of link '{link}' is gone"
    try:
        with _at(folder, link, connect=True) as sock, sock.makefile("rb") as replies:
            sock.settimeout(PATIENCE)
            sock.sendall(json.dumps({"cmd": command, **fields}).encode() + b"\n")
            line = replies.readline()
    except TimeoutError as error:
        raise EngineError(f"the wire of link '{link}' did not answer in {PATIENCE} s") from error
    except OSError as error:
        raise WireGoneError(f"{gone}: {error.strerror}") from error
    if not line:
        raise WireGoneError(gone)
    reply: Json = json.loads(line)
    if not reply.get("ok"):
        refused = reply["error"]
        kind = UsageError if refused["kind"] == "config" else EngineError
        raise kind(f"link '{link}': {refused['message']}")
    return reply


def is_alive(folder: str | os.PathLike[str], link: str) -> bool:
    """Tell whether the wire of a link still listens."""
    try:
        _at(folder, link, connect=True).close()
    except OSError:
        return False
    return True


def _at(folder: str | os.PathLike[str], link: str, *, connect: bool) -> socket.socket:
    """Return a socket connected to a wire's, or bound and listening in its place."""
    fd = os.open(Path(folder) / FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = f"/proc/self/fd/{fd}/{link}.sock"  # short, however long the directory's path
    try:
        if connect:
            sock.connect(path)
        else:
            Path(path).unlink(missing_ok=True)
            sock.bind(path)
            sock.listen(16)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(fd)
    return sock


def start(
    operations: Iterable[Operation],
    channel: Channel,
    folder: Path,
    log_file: LogFile,
    *,
    keep: bool = False,
) -> list[Wire]:
    """Start the wires of a plan and wait until all of them pass packets.

    Journal and counters go to `wire/` of `log_file`, or of the lab's folder for those that `keep`
    running without us. EngineError names the link whose wire cannot start.
    """
    begun = [
        _begin(op, channel, folder, log_file, keep=keep)
        for op in operations
        if isinstance(op, AddWire)
    ]
    for wire in begun:
        try:
            wire.ask("stats")
        except WireGoneError as error:
            raise wire.end from error
    return begun


def config_file(folder: Path, link: str) -> Path:
    """Return where the configuration lies with which a wire was started."""
    return folder / FOLDER / f"{link}.config.json"


def _begin(op: AddWire, channel: Channel, folder: Path, log_file: LogFile, *, keep: bool) -> Wire:
    own = folder / FOLDER
    own.mkdir(mode=0o700, exist_ok=True)
    if keep:
        journal, counters = own / f"{op.link}.journal", own / f"{op.link}.json"
    else:
        journal = log_file(f"{FOLDER}/{op.link}.journal")
        counters = log_file(f"{FOLDER}/{op.link}.json")
    config: Json = json.loads(op.config)
    told: Json = config["links"][0]
    most = DETACHED_JOURNAL_BYTES if keep else JOURNAL_BYTES
    told["journal"] = {"path": str(journal.absolute()), "max_bytes": most}
    if op.taps:  # made with the nodes, and handed over by the supervisor
        told["a"], told["b"] = {"tap_fd": 3}, {"tap_fd": 4}
    file = config_file(folder, op.link)
    file.write_text(json.dumps(config))
    # By its path and with -S: half the start-up time of a program with site packages.
    program = (sys.executable, "-I", "-S", str(PROGRAM))
    argv = (*program, f"@{file}", str(counters.absolute()))
    with _at(folder, op.link, connect=False) as listener:
        node = RunningNode(op.node, channel, log_file)
        running = node.spawn(NAME, argv, stdin=listener.fileno(), keep=keep, taps=op.taps)
    return Wire(op.link, folder, running)


@contextmanager
def guarded(wires: Sequence[Wire]) -> Generator[None]:
    """Stop wires at the end of a block; when one ends before, EngineError as soon as it is known.

    It is known at the next word from the supervisor, so a scenario that waits need not wait in
    vain.
    """
    lost: list[Wire] = []

    def watch(wire: Wire) -> Callable[[], None]:
        def ended() -> None:
            lost.append(wire)
            raise wire.end

        return ended

    for wire in wires:
        wire.running.when_it_ends(watch(wire))
        if not wire.running.alive:
            raise wire.end
    try:
        yield
        for wire in wires:
            wire.running.signal(0)  # an end until now is told before the answer to that
    except BaseException as error:
        if lost and not isinstance(error, WireGoneError):
            raise lost[0].end from error  # what went wrong did so because of it
        raise
    finally:
        for wire in wires:
            wire.running.when_it_ends(None)
        with suppress(ChannelClosedError):
            for wire in wires:
                wire.running.stop()


def start_schedules(wires: Iterable[Wire]) -> None:
    """Start the clocks of all schedules."""
    for wire in wires:
        wire.ask("start")
