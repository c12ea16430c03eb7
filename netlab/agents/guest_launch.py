"""Start a User-Mode Linux kernel so that nothing of it outlives its controller.

A single file for `python3 -I -S`, standard library only::

    guest_launch.py PARENT_PID NICE KERNEL ARGUMENT...

Theory of operation. Two processes stand between the controller and the guest's kernel::

    controller ── this file (dies with the controller) ── kernel, process 1 of its own PID namespace

A User-Mode Linux kernel drives its user processes through stub processes, and a SIGKILL of the
kernel leaves stubs behind. As process 1 of a PID namespace it takes them all along, whoever dies
first. Its memory file and its control folder lie on a private tmpfs in a private mount namespace,
so no file is left behind either. Root makes the namespaces directly, an ordinary user inside a
user namespace in which they keep their own id.

Where user namespaces are closed (some distributions' AppArmor profiles), the kernel starts
without them: SIGTERM follows the death of this process, which User-Mode Linux obeys, and the
control folder is a temporary one that this process removes. That is weaker: a SIGKILL of the
kernel itself then leaves its stubs stopped until somebody kills them.

Exit status: that of the kernel; 125 when it could not be started, with the reason on stderr.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
PR_SET_PDEATHSIG = 1
PRIVATE_FOLDER = "/dev/shm"

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def die_with_parent(by: int) -> None:
    """Ask the kernel for signal `by` when the parent of this process dies."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, by, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 - pathlib costs 20 ms of start-up
        file.write(text)


def enter_namespaces() -> None:
    """Move into own mount and PID namespaces; an ordinary user needs a user namespace too."""
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWPID
    _checked(_libc.unshare(flags if uid == 0 else flags | CLONE_NEWUSER), "unshare")
    if uid != 0:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount(MS_PRIVATE)")
    _checked(
        _libc.mount(b"tmpfs", PRIVATE_FOLDER.encode(), b"tmpfs", 0, b"mode=1777"),
        f"mount a tmpfs on {PRIVATE_FOLDER}",
    )


def start(parent: int, nice: int, kernel: Sequence[str]) -> int:
    """Run the kernel to its end and return its exit status."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return 125
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir("/")
    try:
        os.nice(nice)
    except PermissionError:
        print(f"the guest may not run at nice {nice}", file=sys.stderr, flush=True)
    folder, by, leftover = PRIVATE_FOLDER, signal.SIGKILL, ""
    try:
        enter_namespaces()
    except OSError as error:
        print(f"no own namespaces for the guest: {error}", file=sys.stderr, flush=True)
        folder = leftover = tempfile.mkdtemp(prefix="netlab-guest-")
        by = signal.SIGTERM
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
        die_with_parent(by)
    try:
        lifeline, held = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(held)
                die_with_parent(by)
                os.set_blocking(lifeline, False)
                # From here on the kernel's death signal watches; was the parent alive until then?
                try:
                    os.read(lifeline, 1)
                except BlockingIOError:
                    os.execv(kernel[0], [kernel[0], f"uml_dir={folder}/", *kernel[1:]])
            except OSError as error:
                print(f"{kernel[0]}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(125)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        if leftover:
            shutil.rmtree(leftover, ignore_errors=True)


if __name__ == "__main__":
    status = start(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    sys.exit(status if status >= 0 else 128 - status)
