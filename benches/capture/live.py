"""Capture real stacks talking in network namespaces of our own.

usage: live.py KIND OUTDIR [--scale X]

KIND is bulk (full frames: iperf3 up, down, both ways, UDP, short connections, small segments),
headers (as bulk with many small segments, 96 octets kept), lossy (a router drops 2 % at random;
seen at the sender and behind the loss) or stall (readers that dawdle: closed windows, probes,
keep-alives). Scale 1 makes the sizes of benches/README.md; tests use a hundredth.

Needs root or user namespaces, iproute2, ethtool, tcpdump, iperf3, and nft for the loss. A
namespace lives as long as the `cat` that holds it, and that ends when this process does, so
nothing remains however this process ends. Nothing outside these namespaces is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
OFFLOADS = [
    word for name in ("tso", "gso", "gro", "lro", "tx", "rx", "sg") for word in (name, "off")
]


class LiveError(Exception):
    """The traffic could not be made; the message says what failed."""


def must(argv: list[str], *, timeout: float = 60) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise LiveError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def until(what: str, condition: object, timeout: float = 60) -> None:
    """Poll until `condition()` holds."""
    assert callable(condition)
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise LiveError(f"{what} did not happen within {timeout:g} s")
        time.sleep(0.01)


@dataclass
class Namespace:
    name: str
    pid: int

    def argv(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]

    def run(self, *command: str, timeout: float = 60) -> str:
        return must(self.argv(*command), timeout=timeout)

    @contextlib.contextmanager
    def spawn(self, *command: str, port: int = 0) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server until the block ends; with `port` wait until it listens there."""
        process = subprocess.Popen(
            self.argv("setpriv", "--pdeathsig", "KILL", *command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            if port:
                until(f"listening of {command[0]}", lambda: self.listens(port))
            yield process
        finally:
            process.kill()
            process.communicate()

    def listens(self, port: int) -> bool:
        wanted = f":{port:04X}"
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                if state == "0A" and local.endswith(wanted):
                    return True
        return False

    @contextlib.contextmanager
    def capture(self, device: str, file: Path, *, snaplen: int = 262144) -> Iterator[None]:
        """Capture with nanoseconds; raise if the kernel dropped packets."""
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read until the block ends, then dropped
        process = subprocess.Popen(
            self.argv(
                "setpriv", "--pdeathsig", "KILL",
                "tcpdump", *(("-Z", "root") if os.geteuid() == 0 else ()), "-i", device,
                "-s", str(snaplen), "-B", "262144", "--time-stamp-precision=nano", "-w", str(file),
            ),
            stderr=log,
        )  # fmt: skip

        def text() -> str:
            log.seek(0)
            return log.read()

        try:
            until(f"tcpdump on {device}", lambda: "listening on" in text() or process.poll())
            if process.poll() is not None:
                raise LiveError(text().strip())
            yield
            time.sleep(0.3)  # let the last packets reach the ring buffer
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        dropped = [line for line in text().splitlines() if "dropped by kernel" in line]
        if dropped and not dropped[0].startswith("0 "):
            print(f"warning: {file.name}: {dropped[0]}", file=sys.stderr)


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[list[Namespace]]:
    holders: list[subprocess.Popen[bytes]] = []
    try:
        for _ in names:
            holders.append(subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE))
        made = [Namespace(name, holder.pid) for name, holder in zip(names, holders, strict=True)]
        own = Path("/proc/self/ns/net").readlink()
        for one in made:
            until(
                f"namespace {one.name}",
                lambda pid=one.pid: Path(f"/proc/{pid}/ns/net").readlink() != own,
            )
            one.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        for holder in holders:
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait(60)


def join(a: Namespace, b: Namespace, network: int, devices: tuple[str, str]) -> None:
    """Join two namespaces by a veth pair with addresses 10.77.N.1/2 and fd77:N::1/2."""
    one, two = devices
    a.run("ip", "link", "add", one, "type", "veth", "peer", "name", two, "netns", str(b.pid))
    for side, device, last in ((a, one, 1), (b, two, 2)):
        side.run("ip", "address", "add", f"10.77.{network}.{last}/24", "dev", device)
        side.run("ip", "address", "add", f"fd77:{network}::{last}/64", "dev", device, "nodad")
        side.run("ip", "link", "set", device, "up")
        side.run("ethtool", "-K", device, *OFFLOADS)


def iperf(client: Namespace, address: str, *more: str, timeout: float = 300) -> None:
    client.run("iperf3", "-c", address, *more, timeout=timeout)


def python(program: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "traffic.py"), program, *arguments)


def megabytes(amount: float, scale: float) -> str:
    return f"{max(1, round(amount * scale * 1000))}K"


def bulk(out: Path, scale: float) -> list[Path]:
    file = out / "bulk.pcap"
    with namespaces("client", "server") as (client, server), contextlib.ExitStack() as stack:
        join(client, server, 0, ("eth0", "eth0"))
        stack.enter_context(server.spawn("iperf3", "-s", port=5201))
        stack.enter_context(server.spawn(*python("serve", "10.77.0.2", "8080"), port=8080))
        stack.enter_context(server.spawn(*python("serve", "fd77:0::2", "8081"), port=8081))
        with client.capture("eth0", file):
            iperf(client, "10.77.0.2", "-n", megabytes(240, scale), "-P", "4")
            iperf(client, "fd77:0::2", "-n", megabytes(240, scale), "-R")
            iperf(client, "10.77.0.2", "-n", megabytes(240, scale), "--bidir")
            iperf(client, "10.77.0.2", "-u", "-b", "300M", "-n", megabytes(40, scale))
            client.run(
                *python("visit", "10.77.0.2", "8080", str(int(20_000 * scale) + 1)), timeout=300
            )
            client.run(
                *python("visit", "fd77:0::2", "8081", str(int(5_000 * scale) + 1)), timeout=300
            )
            iperf(client, "10.77.0.2", "-n", megabytes(240, scale), "-M", "536")
    return [file]


def headers(out: Path, scale: float) -> list[Path]:
    file = out / "headers.pcap"
    with namespaces("client", "server") as (client, server), contextlib.ExitStack() as stack:
        join(client, server, 0, ("eth0", "eth0"))
        stack.enter_context(server.spawn("iperf3", "-s", port=5201))
        stack.enter_context(server.spawn(*python("serve", "10.77.0.2", "8080"), port=8080))
        with client.capture("eth0", file, snaplen=96):
            iperf(client, "10.77.0.2", "-n", megabytes(1000, scale), "-P", "8", "-M", "536")
            iperf(client, "fd77:0::2", "-n", megabytes(2200, scale), "-P", "8", "-M", "1200")
            iperf(client, "10.77.0.2", "-n", megabytes(900, scale), "-P", "8", "-R", "-M", "300")
            client.run(
                *python("visit", "10.77.0.2", "8080", str(int(20_000 * scale) + 1)), timeout=300
            )
    return [file]


LOSS = """
table inet loss {
  chain forward {
    type filter hook forward priority 0; policy accept;
    numgen random mod 100 < 2 drop
  }
}
"""


def lossy(out: Path, scale: float) -> list[Path]:
    files = [out / "lossy-sender.pcap", out / "lossy-receiver.pcap"]
    with (
        namespaces("client", "router", "server") as (client, router, server),
        contextlib.ExitStack() as stack,
    ):
        join(client, router, 1, ("eth0", "west"))
        join(router, server, 2, ("east", "eth0"))
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            router.run("sysctl", "-qw", f"{name}=1")
        client.run("ip", "route", "add", "default", "via", "10.77.1.2")
        client.run("ip", "route", "add", "default", "via", "fd77:1::2")
        server.run("ip", "route", "add", "default", "via", "10.77.2.1")
        server.run("ip", "route", "add", "default", "via", "fd77:2::1")
        rules = out / "loss.nft"
        rules.write_text(LOSS)
        router.run("nft", "-f", str(rules))
        rules.unlink()
        stack.enter_context(server.spawn("iperf3", "-s", port=5201))
        stack.enter_context(server.spawn(*python("serve", "10.77.2.2", "8080"), port=8080))
        with client.capture("eth0", files[0]), server.capture("eth0", files[1]):
            for arguments in (
                ("10.77.2.2", "-n", megabytes(700, scale), "-P", "4"),
                ("fd77:2::2", "-n", megabytes(650, scale), "-R"),
            ):
                with contextlib.suppress(LiveError):  # the control connection may lose packets too
                    iperf(client, *arguments)
            client.run(
                *python("visit", "10.77.2.2", "8080", str(int(3_000 * scale) + 1)), timeout=300
            )
    return files


def stall(out: Path, scale: float) -> list[Path]:
    del scale  # the waits, not the amount, make this capture
    file = out / "stall.pcap"
    with namespaces("client", "server") as (client, server):
        join(client, server, 0, ("eth0", "eth0"))
        with (
            server.spawn(*python("dawdle", "10.77.0.2", "9090"), port=9090),
            client.capture("eth0", file),
        ):
            client.run(*python("push", "10.77.0.2", "9090"), timeout=200)
    return [file]


KINDS = {"bulk": bulk, "headers": headers, "lossy": lossy, "stall": stall}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() != 0 and not options.inside:
        # A user namespace of our own in which all of this is allowed. Not as its root: tcpdump
        # would try to become another user, and there is none.
        own = ["unshare", "--user", "--map-current-user", "--keep-caps", "--net"]
        os.execvp(own[0], [*own, sys.executable, *sys.argv, "--inside"])
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        files = KINDS[options.kind](options.out, options.scale)
    except (LiveError, subprocess.TimeoutExpired) as error:
        print(f"live.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps({file.name: file.stat().st_size for file in files}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
