"""What the installed tc sends for a queue discipline, seen by strace; rewrites the golden bytes.

    python -m tests.engine.record_tc        # needs strace, tc and a namespace to be root in

tc sends its request before the kernel can refuse it, so this works where the kernel has no netem.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
from pathlib import Path

from netlab.plan.qdiscs import Discipline, HtbClass, words
from tests.engine.tc_cases import CLASSES, DISCIPLINES

GOLDEN = Path(__file__).parent / "golden" / "tc.txt"
TABLES = next(
    (p for p in (Path("/usr/lib/x86_64-linux-gnu/tc"), Path("/usr/lib/tc")) if p.is_dir()), None
)
LONG = 3000
"""Longer payloads (those with a table of deviations) are kept as a digest."""

_DUMP = re.compile(r"^ \| [0-9a-f]+  ([0-9a-f ]{48,49})", re.MULTILINE)


def command(discipline: Discipline | HtbClass) -> tuple[str, ...]:
    """Return the tc command that adds the discipline."""
    if isinstance(discipline, HtbClass):
        return ("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", "1:10",
                *discipline.words)  # fmt: skip
    return ("tc", "qdisc", "add", "dev", "lo", "root", *words(discipline))


def recorded(discipline: Discipline | HtbClass) -> bytes:
    """Return the TCA_OPTIONS payload that tc sends."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    traced = ["strace", "-e", "trace=sendmsg", "-e", "write=all", *command(discipline)]
    done = subprocess.run(
        ["unshare", *user, "--net", *traced],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
    )
    message = b"".join(bytes.fromhex(line) for line in _DUMP.findall(done.stderr))
    assert message, done.stderr
    at = 16 + 20
    while at < len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == 2:
            return message[at + 4 : at + length]
        at += (length + 3) & ~3
    raise AssertionError(f"no TCA_OPTIONS in {message.hex()}")


def text(payload: bytes) -> str:
    """Return a payload as it stands in the golden file."""
    if len(payload) <= LONG:
        return payload.hex()
    return f"{len(payload)} bytes, sha256 {hashlib.sha256(payload).hexdigest()}"


def golden() -> dict[str, str]:
    """Return the golden file: command → payload."""
    lines = GOLDEN.read_text().splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


if __name__ == "__main__":
    version = subprocess.run(
        ["tc", "-V"], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [f"# command, and the TCA_OPTIONS payload it sends ({version})"]
    lines += [
        f"{' '.join(command(one))}\t{text(recorded(one))}" for one in (*DISCIPLINES, *CLASSES)
    ]
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("\n".join(lines) + "\n")
