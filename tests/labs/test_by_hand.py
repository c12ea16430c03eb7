"""What a guide tells the learner to type is typed here, as it stands, one line after the other.

The next line is typed when the one before has ended or its screen has stood still for a second, as
somebody would who reads. What still stands at `netlab down` must end with the lab.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest

from netlab.cli import cli
from netlab.labs import discovery, guide
from tests.conftest import ROOT

NAMES = discovery.names()
AT_ONCE = 4  # some commands must be typed before a connection of five seconds has ended
STILL, PATIENCE = 1.0, 120.0  # seconds
REFUSED = {
    "address-in-use": {r"actor listen$": "EADDRINUSE"},
    "four-tuple": {"--port 80 listen$": "EACCES"},
    "path-mtu": {"ping .* 1472 ": "Frag needed"},
    "pmtu-black-hole": {"ping .* 1472 ": "100% packet loss"},
    "resets": {r"--port 808[12] connect$": "ECONNREFUSED", "send=5 recv=5$": "ECONNRESET"},
    "silent-drop": {r"--port 808[12] connect$": "ECONNREFUSED", "--port 8080": "ETIMEDOUT"},
}
"""Commands that must fail, by a pattern, and what they say then. All others must not."""
SHOWN = {
    "address-in-use": r"TIME-WAIT .*:8080",
    "backlog": r"LISTEN +6 +5 ",
    "close-wait-leak": r"users:\(\(\"python3\"",
    "eleven-states": r"connecting port=8080[^$]*connecting port=8080",
    "fast-open": "fo_cookie",
    "four-tuple": "connected count=2000",
    "fragmentation": r"IpFragCreates +3 ",
    "half-close": "FIN-WAIT-2",
    "handshake": 'text="hello"',
    "isn": "distinct_ports=1 ",
    "keepalive": r"timer:\(keepalive",
    "mss": "advmss:14[24]8",
    "nat-timeout": "ESTABLISHED src=192.168.0.1",
    "path-mtu": "mtu 1400",
    "pmtu-black-hole": r"Ip6?FragFails +[1-9]",
    "port-exhaustion": '"EADDRNOTAVAIL": 50',
    "raw-syn": "sent packets=1 ",
    "resets": "EPIPE",
    "sack": r"TcpRetransSegs +[5-9] ",  # five are lost; more for want of patience
    "segment-anatomy": r"IpInHdrErrors +1 ",
    "silent-drop": r"SYN-SENT .*timer:\(on",
    "syn-flood": r'failed=\{"timeout": 1\}',
    "teardown": "ESTAB",
    "time-wait": r"timer:\(timewait",
    "timestamps": "TcpExtPAWSEstab",
    "window-scaling": "reno wscale",
}
"""What the learner is to find on the screen."""


def typed(name: str) -> tuple[list[str], list[str]]:
    """Return the commands of a guide from `netlab up` to `netlab down`, and all others."""
    lines = re.findall(r"^    (netlab .*)$", guide.read(discovery.find(name)), re.MULTILINE)
    first = next(i for i, line in enumerate(lines) if line.startswith("netlab up "))
    last = lines.index(f"netlab down {name}")
    return lines[first : last + 1], lines[:first] + lines[last + 1 :]


def parse(line: str) -> None:
    """Read a command line as netlab does, and do nothing; click.UsageError where it would."""
    words = shlex.split(line)[1:]
    context, command = click.Context(cli, info_name="netlab"), cli
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        if not isinstance(command, click.Group):
            command.make_context(name, words, parent=context)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_one_that_netlab_takes(name: str) -> None:
    session, others = typed(name)
    for line in (*session, *others):
        parse(line)
        if line.startswith("netlab lab run "):
            words = shlex.split(line)
            chosen = [words[i + 1] for i, word in enumerate(words) if word == "--variation"]
            assert set(chosen) <= set(discovery.find(name).variations)


def test_a_line_that_netlab_does_not_take_is_found_out() -> None:
    for line in ("netlab lab learnn x", "netlab up --fast x.yaml", "netlab down a b"):
        with pytest.raises(click.UsageError):
            parse(line)


class Session:
    """Somebody at a terminal; `screens` has each command that was typed and its file of output."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.screens: list[tuple[str, Path, subprocess.Popen[bytes]]] = []
        netlab = folder / "bin" / "netlab"
        netlab.parent.mkdir()
        netlab.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m netlab "$@"\n')
        netlab.chmod(0o755)
        path = (str(netlab.parent), str(Path(sys.executable).parent), os.environ["PATH"])
        state = str(folder / "state")
        self.env = {**os.environ, "NETLAB_STATE_DIR": state, "PATH": ":".join(path)}

    def type(self, line: str) -> None:
        """Type a command and wait until it has ended, or its screen stands still."""
        screen = self.folder / f"{len(self.screens)}"
        command = self.filled(line)
        with screen.open("wb") as file:
            process = subprocess.Popen(
                ("bash", "-c", f"exec {command}"),
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self.env, cwd=ROOT,
            )  # fmt: skip
        self.screens.append((command, screen, process))
        began = changed = time.monotonic()
        seen = 0
        while process.poll() is None and time.monotonic() < began + PATIENCE:
            size = screen.stat().st_size
            if size != seen:
                seen, changed = size, time.monotonic()
            if seen and time.monotonic() > changed + STILL and " up " not in command[:11]:
                return
            time.sleep(0.02)

    def filled(self, line: str) -> str:
        """Put in place of the words in capitals what the commands before have shown."""
        ways = {
            "MAC": ("ip -br link", r"((?:[0-9a-f]{2}:){5}[0-9a-f]{2})"),
            "ADDRESS": ("getent", r"^(\S+)"),
            "HERE": ("exec client -- ip -4", r"^eth0\S*\s+\S+\s+([\d.]+)/"),
            "THERE": ("exec server -- ip -4", r"^eth0\S*\s+\S+\s+([\d.]+)/"),
        }
        for word, (command, pattern) in ways.items():
            if re.search(rf"\b{word}\b", line):
                (text,) = [screen.read_text() for c, screen, _ in self.screens if command in c]
                found = re.search(pattern, text, re.MULTILINE)
                assert found is not None, text
                line = re.sub(rf"\b{word}\b", found[1], line)
        if "HEX" in line:
            dump = re.findall(
                r"^    ((?:[0-9a-f]{2} ?)+)$", guide.read(discovery.find(self.name)), re.M
            )
            line = line.replace("HEX", "".join(dump).replace(" ", ""))
        return line

    def complaints(self) -> Iterator[str]:
        """Yield what went another way than the guide says."""
        texts = [screen.read_text(errors="replace") for _, screen, _ in self.screens]
        for (command, _, process), text in zip(self.screens, texts, strict=True):
            words = [
                w
                for pattern, w in REFUSED.get(self.name, {}).items()
                if re.search(pattern, command)
            ]
            status = process.poll()
            if status is None:
                yield f"{self.name}: still there after `netlab down`: {command}\n{text}"
            elif command in self.stood:
                continue
            elif status != (1 if words else 0) or any(word not in text for word in words):
                yield f"{self.name}: status {status}: {command}\n{text}"
        if not re.search(SHOWN[self.name], "\n".join(texts), re.MULTILINE):
            yield f"{self.name}: nothing shows {SHOWN[self.name]!r}\n" + "\n".join(texts)

    def play(self) -> list[str]:
        """Type all lines; what stands at the end must go with the lab."""
        lines, _ = typed(self.name)
        try:
            for line in lines[:-1]:
                if "conntrack -L" not in line or shutil.which("conntrack"):  # or the line below it
                    self.type(line)
            self.stood = {c for c, _, process in self.screens if process.poll() is None}
            self.type(lines[-1])
            for _, _, process in self.screens:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
            return list(self.complaints())
        finally:
            for _, _, process in self.screens:
                if process.poll() is None:
                    process.kill()
                process.wait()


def play(name: str) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="netlab-test-") as folder:
        return Session(name, Path(folder)).play()


@pytest.mark.needs("netns", "tcpdump", "ss", "nft", "ping")
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_is_typed_does_what_the_guide_says() -> None:
    with ThreadPoolExecutor(AT_ONCE) as people:
        complaints = [text for found in people.map(play, NAMES) for text in found]
    assert complaints == [], "\n\n".join(complaints)
