"""A guest kernel as a machine: User-Mode Linux on the computer's own files, no privilege needed.

Debian and Ubuntu package the kernel (`user-mode-linux`). It is an ordinary program, yet has its own
network stack with netem and every queue discipline, so a lab that the computer's kernel cannot run,
or its user may not run, runs there::

    with GuestMachine(writable=(results,)) as guest:
        done = guest.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "10ms"])

Three programs take part: this module in the caller's process, `agents/guest_launch.py` which makes
the guest's kernel die with the caller, and `agents/guest_init.py` inside, which says how they talk.

What to know of it: one virtual processor, HZ 100, system calls some 150 times and process starts
some 15 times dearer than outside; the computer's files are seen as they were when the guest first
looked, and are read-only but for the `writable` folders (see `guest_init`). Files written there
belong to the calling user and keep to that user's rights.

Threads: one thread reads the guest's frames; everything else happens in the caller's. The guest
lives no longer than the thread that started it (the kernel's death signal is per thread).
"""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import shutil
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from netlab.agents import guest_init, guest_launch
from netlab.agents.guest_init import CONSOLE_WINDOW
from netlab.errors import CapabilityError, EngineError, UsageError
from netlab.machine.guest_agent import SEARCH_PATH, Completed, GuestAgent, GuestProcess

__all__ = ["Completed", "GuestMachine", "GuestProcess", "find_kernel"]

_log = logging.getLogger(__name__)

KERNEL = "linux.uml"
REMEDY = "apt-get install user-mode-linux"
PANIC = "Kernel panic"


def find_kernel() -> Path:
    """Return the guest kernel's program; CapabilityError with the remedy where there is none."""
    found = shutil.which(KERNEL, path=f"{os.environ.get('PATH', os.defpath)}:{SEARCH_PATH}")
    if found is None:
        raise CapabilityError(
            f"no guest kernel: there is no {KERNEL} (User-Mode Linux) on this machine", hint=REMEDY
        )
    return Path(found)


class GuestMachine(GuestAgent):
    """A User-Mode Linux guest, from `with` to its end.

    `mem` is the guest's memory (taken from the computer only as it is touched), `writable` the
    folders in which what the guest writes is kept, `nice` its priority among the computer's
    processes (root may give it a negative one, so that a busy computer disturbs its clocks less).
    """

    def __init__(
        self,
        *,
        mem: str = "512M",
        writable: Sequence[Path | str] = (),
        nice: int = 0,
        kernel: Path | None = None,
        boot_timeout: float = 60.0,
    ) -> None:
        super().__init__(window=CONSOLE_WINDOW)
        self._kernel = kernel
        self._nice = nice
        self._mem = mem
        self._boot_timeout = boot_timeout
        self._writable = _outermost(writable)
        self._launcher: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._words: threading.Thread | None = None
        self._talk: deque[str] = deque(maxlen=40)
        self.release = ""
        """The guest kernel's release, such as 6.1.176."""

    # -- life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Boot the guest (some two seconds); EngineError with its last words when that fails."""
        kernel = self._kernel or find_kernel()
        ours, theirs = socket.socketpair()
        says, talks = os.pipe()
        python = str(Path("/proc/self/exe").readlink())
        command = [
            python, "-I", "-S", guest_launch.__file__, str(os.getpid()), str(self._nice),
            str(kernel), f"mem={self._mem}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
            "con=null", f"con0=null,fd:{talks}", f"con1=fd:{theirs.fileno()}", "ssl=null",
            f"init={python}", "--", "-I", "-S", guest_init.__file__,
        ]  # fmt: skip
        if any(character.isspace() or character == '"' for part in command for character in part):
            raise CapabilityError(
                "the guest's kernel line cannot carry a path with blanks or quotes: "
                f"{guest_init.__file__}",
                hint="install netlab in a folder without them",
            )
        try:
            self._launcher = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=talks,
                stderr=talks,
                pass_fds=(theirs.fileno(), talks),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise EngineError(f"the guest's launcher did not start: {error}") from error
        finally:
            theirs.close()
            os.close(talks)
            if self._launcher is None:
                os.close(says)
        self._channel = ours
        self._words = threading.Thread(target=self._read_words, args=(says,), daemon=True)
        self._reader = threading.Thread(target=self.read, args=(ours,), daemon=True)
        self._words.start()
        self._reader.start()
        try:
            self.release = marshal.loads(self.answer(b"H", self._boot_timeout, "booting"))
            self.tell(b"C", 0, [str(path) for path in self._writable])
            self.answer(b"Y", self._boot_timeout, "setting up")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Power the guest off; what its programs wrote to writable folders is kept."""
        launcher, channel = self._launcher, self._channel
        if launcher is None or channel is None or self._reader is None:
            return
        with contextlib.suppress(OSError):
            self.say(b"Q", 0)
        try:
            launcher.wait(timeout=5)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            launcher.kill()  # process 1 of the guest's namespace follows, and everything in it
            launcher.wait()
        self._reader.join(timeout=5)
        channel.close()
        self._launcher = self._channel = self._reader = None

    def wait_for_end(self) -> None:
        """Return when the guest has ended."""
        if self._reader is not None:
            self._reader.join()

    def last_words(self) -> str | None:
        """Return what the guest's kernel said last, None if it was silent."""
        panic = next((line for line in self._talk if line.startswith(PANIC)), None)
        return panic or "\n".join(tuple(self._talk)[-5:]) or None

    def at_the_end(self) -> None:
        """Let the kernel's last words come in."""
        if self._words is not None:
            self._words.join(timeout=2)

    def add_writable(self, folder: Path) -> None:
        """Keep from now on what the guest writes below one more folder."""
        folder = folder.resolve()
        if folder == Path("/") or any(folder.is_relative_to(known) for known in self._writable):
            return
        super().add_writable(folder)
        self._writable = (*self._writable, folder)

    def _read_words(self, says: int) -> None:
        with open(says, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._talk.append(line.rstrip())
                _log.debug("guest kernel: %s", line.rstrip())
                if line.startswith(PANIC) and self._launcher is not None:
                    self._launcher.kill()  # it would spin for ever, and a restart would hide it


def _outermost(paths: Sequence[Path | str]) -> tuple[Path, ...]:
    """Return the folders, absolute, without those that lie inside another of them."""
    resolved = sorted({Path(path).resolve() for path in paths})
    for path in resolved:
        if not path.is_dir():
            raise UsageError(f"not a folder that the guest could write to: {path}")
    return tuple(
        path for path in resolved if not any(path.is_relative_to(o) for o in resolved if o != path)
    )
