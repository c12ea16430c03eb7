"""What a back end was asked and what came out: a table of impairments, seen from outside.

Two namespaces with the wire between them; datagrams that carry their number and time, TCP from
iperf3. Needs root, iproute2, ethtool and iperf3; builds the wire and its probe with cargo. Prints
Markdown, or with `--write` puts it into README.md beside this file. Nothing is touched outside
the namespaces made here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bounds import JITTERS, QUARTILES, delay, interval, quartile

BUILT = Path(__file__).parents[2] / "target"
TARGET = BUILT / "release"
MS = 1_000_000
FULL = 1514
PAYLOAD = 1448

Json = dict[str, Any]


class Namespace:
    """A network namespace, held by a process that ends with the `with`."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        holder = ("unshare", "--net", "--", "sh", "-c", "echo ready; exec sleep 3600")
        self.process = stack.enter_context(held(holder, stdout=subprocess.PIPE))
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit("cannot make a network namespace here")
        self.path = f"/proc/{self.process.pid}/ns/net"

    def argv(self, *argv: str) -> tuple[str, ...]:
        return ("nsenter", f"--net={self.path}", "--", *argv)

    @property
    def overflowed(self) -> int:
        """Datagrams that sockets here had no room for: the receiver's fault, not the link's."""
        names, values = (
            line.split() for line in self.run("cat", "/proc/self/net/snmp").splitlines()
            if line.startswith("Udp:")
        )  # fmt: skip
        return int(dict(zip(names, values, strict=True))["RcvbufErrors"])

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            self.argv(*argv), check=check, timeout=120, text=True, capture_output=True
        )
        return done.stdout


@contextlib.contextmanager
def held(argv: tuple[str, ...], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


class Wire:
    """Two nodes, `a` and `b`, joined by a wire with the given settings both ways."""

    def __init__(
        self, stack: contextlib.ExitStack, options: argparse.Namespace, there: Json, back: Json
    ) -> None:
        kind = "packet" if options.packet else "tap"
        self.probe = str(TARGET / "examples" / "probe")
        self.urgent = ("chrt", "-f", "1") if options.urgent else ()
        self.a, self.b, hidden = Namespace(stack), Namespace(stack), Namespace(stack)
        ends: list[Json] = []
        for node, device in ((self.a, "wa"), (self.b, "wb")):
            # Room for 3 Gbit/s over 20 ms, whatever the machine's own settings are.
            for what in ("wmem", "rmem"):
                node.run("sysctl", "-qw", f"net.ipv4.tcp_{what}=4096 131072 33554432")
            if kind == "tap":
                node.run("ip", "tuntap", "add", "dev", "eth0", "mode", "tap")
                off = [word for what in ("tso", "gso", "gro", "tx") for word in (what, "off")]
                node.run("ethtool", "-K", "eth0", *off)  # as in a lab
                ends.append({"tap": "eth0", "netns": node.path})
                continue
            peer = ("peer", "name", "eth0", "netns", str(node.process.pid))
            hidden.run("ip", "link", "add", device, "type", "veth", *peer)
            hidden.run("ip", "link", "set", device, "up")
            node.run("ethtool", "-K", "eth0", "tso", "off", "tx", "off")
            ends.append({"packet": device})
        link = {"name": "x", "seed": 7, "a": ends[0], "b": ends[1], "a_to_b": there, "b_to_a": back}
        forbidden = Path("/proc/self/ns/net").stat().st_ino
        config = {"version": 1, "forbidden_ns": forbidden, "links": [link]}
        ours, theirs = socket.socketpair()
        argv = hidden.argv(str(TARGET / "netlab-wire"), "-", "--control", "0")
        stack.enter_context(held(argv, stdin=theirs.fileno()))
        theirs.close()
        self.control = ours.makefile("rw")
        self.control.write(json.dumps(config) + "\n")
        event = self.ask(None)
        if event.get("event") != "ready":
            raise SystemExit(f"the wire does not start: {event}")
        for node, address in ((self.a, "10.9.0.1/24"), (self.b, "10.9.0.2/24")):
            node.run("ip", "link", "set", "lo", "up")
            node.run("ip", "address", "add", address, "dev", "eth0")
            node.run("ip", "link", "set", "eth0", "up")
        deadline = time.monotonic() + 20
        while "1 received" not in self.a.run("ping", "-c1", "-W2", "-q", "10.9.0.2", check=False):
            if time.monotonic() > deadline:
                raise SystemExit("no answer through the wire")

    def ask(self, command: str | None) -> Json:
        if command:
            self.control.write(json.dumps({"cmd": command}) + "\n")
        self.control.flush()
        return json.loads(self.control.readline())

    def datagrams(self, count: int, gap_ns: int, octets: int, idle_ms: int = 1500) -> Json:
        """Send numbered datagrams, with gap 0 as many as possible; what was sent and what came."""
        receive = self.b.argv(*self.urgent, self.probe, "receive", "9000", str(idle_ms))
        with held(receive, stdout=subprocess.PIPE) as receiver:
            assert receiver.stdout is not None
            receiver.stdout.readline()
            to, paced = "10.9.0.2:9000", (str(gap_ns),) if gap_ns else ()
            send = ("send" if paced else "flood", to, str(count), *paced, str(octets))
            sent = json.loads(self.a.run(self.probe, *send))
            seen = json.loads(receiver.stdout.readline() or "{}")
        overflowed = self.b.overflowed
        # Exact where the link only loses, or only duplicates.
        seen["missing"] = count - seen["unique"] - overflowed
        seen["surplus"] = seen["received"] + overflowed - count
        return sent | seen

    def tcp(self, seconds: int) -> tuple[float, int]:
        """Goodput in bit/s, and retransmissions."""
        server = self.b.argv("iperf3", "-s", "-1", "--forceflush")
        with held(server, stdout=subprocess.PIPE) as listening:
            assert listening.stdout is not None
            listening.stdout.readline()
            argv = ("iperf3", "-c", "10.9.0.2", "-t", str(seconds), "-O", "1", "-J")
            end = json.loads(self.a.run(*argv))["end"]
        return end["sum_received"]["bits_per_second"], end["sum_sent"]["retransmits"]


@contextlib.contextmanager
def wire(options: argparse.Namespace, there: Json, back: Json | None = None) -> Iterator[Wire]:
    with contextlib.ExitStack() as stack:
        yield Wire(stack, options, there, there if back is None else back)


class Table:
    """Markdown, printed as it grows."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)
        print(text, flush=True)

    def row(self, *cells: object) -> None:
        self.line("| " + " | ".join(str(cell) for cell in cells) + " |")


def health(stats: Json) -> str:
    """How true the run was, by the wire's own account."""
    link, thread = stats["links"]["x"], stats["threads"][0]
    way = link["a_to_b"]
    packets = sum(link[w]["received_packets"] for w in ("a_to_b", "b_to_a"))
    cpu = thread["cpu_ns"] / max(packets, 1) / 1e3
    drops = link["a"]["kernel_drops"] + link["b"]["kernel_drops"]
    median = way["lateness"]["p50_ns"] / 1e3
    late = f"median {median:.0f} µs late, {100 * way['late_fraction']:.2g} % late"
    return f"{late}, {cpu:.1f} µs a packet, kernel drops {drops}"


def write(kind: str, lines: list[str]) -> None:
    """Replace the table of this kind between its two marks in README.md."""
    path = Path(__file__).with_name("README.md")
    text = path.read_text()
    begin, end = f"<!-- begin {kind} -->\n", f"<!-- end {kind} -->"
    head, rest = text.split(begin)
    path.write_text(head + begin + "\n" + "\n".join(lines) + "\n\n" + end + rest.split(end)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packet", action="store_true", help="packet sockets instead of TAP")
    parser.add_argument("--quick", action="store_true", help="a tenth of the packets")
    parser.add_argument(
        "--urgent", action="store_true", help="the receiver, or the guest, goes before other work"
    )
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--guest", action="store_true", help="netem and plain tc, in a guest")
    options = parser.parse_args()
    if options.guest:
        table = Table()
        if options.urgent:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # as the wire's thread is
        measure_guest(table, urgent=options.urgent)
        if options.write:
            write("guest", table.lines)
        return
    build = ("cargo", "build", "--quiet", "--release", "-p", "netlab-wire", "--bins", "--examples")
    subprocess.run((*build, "--target-dir", str(BUILT)), check=True, cwd=BUILT.parent)
    table = Table()
    measure(options, table)
    if options.write:
        write("packet" if options.packet else "tap", table.lines)


def measure_guest(table: Table, *, urgent: bool) -> None:
    """Netem as netlab and as tc by hand set it up, in a guest's kernel."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.guest import in_guest

    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    load += ", before which it goes" if urgent else ""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        program = str(Path(__file__).with_name("guest.py"))
        done = in_guest(["python", program, str(target)], writable=(Path(folder),), nice=-10)
        if done.status != 0:
            raise SystemExit(done.stderr.decode())
        told = json.loads(target.read_text())
        bare, rows = told["bare_mbits"], told["rows"]
    carried = f"which carries {bare:.0f} Mbit/s without any qdisc"
    table.line(f"User-Mode Linux guest, one processor, {carried}; {load}\n")
    table.row("asked", "netem by netlab", "plain tc", "bound", "")
    table.row("---", "---", "---", "---", "---")
    for row in rows:
        bounds, unit = row["bounds"], row["unit"]
        good = [
            "ok" if all(low <= at <= high for at, (low, high) in zip(got, bounds, strict=True))
            else "**off**" for got in row["got"]
        ]  # fmt: skip
        ours, by_hand = (f"{', '.join(f'{at:.4g}' for at in got)} {unit}" for got in row["got"])
        bound = ", ".join(f"{low:.4g}…{high:.4g}" for low, high in bounds) + f" {unit}"
        table.row(row["asked"], ours, f"{by_hand} (`{row['tc']}`)", bound, "/".join(good))


def measure(options: argparse.Namespace, table: Table) -> None:
    kind = "packet sockets on veth ends" if options.packet else "TAP devices"
    scale = 10 if options.quick else 1
    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    table.line(f"{kind}, {os.cpu_count()} processors, {load}, Linux {os.uname().release}\n")
    table.row("asked", "got", "bound", "", "wire's account")
    table.row("---", "---", "---", "---", "---")

    def judged(asked: str, got: str, bound: str, good: bool, stats: Json) -> None:
        table.row(asked, got, bound, "ok" if good else "**off**", health(stats))

    for ms in (0, 1, 10, 50, 300):
        with wire(options, {"delay_ns": ms * MS}) as link:
            seen = link.datagrams(5000 // scale, 400_000, 200)
            low, high = delay(ms)
            got = f"median {seen['p50_ms']:.3f} ms, p99 {seen['p99_ms']:.3f}"
            good = low <= seen["p50_ms"] <= high
            judged(f"delay {ms} ms", got, f"+{high - low:.2f} ms", good, link.ask("quit"))

    for percent in (0.1, 1, 5, 20):
        with wire(options, {"loss": {"rate": percent / 100}}, {}) as link:
            n = 100_000 // scale
            seen = link.datagrams(n, 30_000, 100)
            lost = seen["missing"] / n
            low, high = interval(n, percent / 100)
            bound = f"{100 * low:.3g}…{100 * high:.3g} %"
            judged(
                f"loss {percent} %", f"{100 * lost:.3g} %", bound, low <= lost <= high,
                link.ask("quit"),
            )  # fmt: skip

    for mbit in (1, 10, 100, 1000):
        queue = {"kind": "pfifo", "packets": max(20, mbit // 2)}
        way = {"delay_ns": MS, "rate": {"bits_per_second": mbit * 10**6}, "queue": queue}
        with wire(options, way) as link:
            goodput, again = link.tcp(10 if mbit == 1 else 5)
            ideal = mbit * PAYLOAD / FULL
            got = f"{goodput / 1e6:.2f} Mbit/s of TCP payload, {again} resent"
            share = goodput / 1e6 / ideal
            judged(
                f"rate {mbit} Mbit/s", got, f"93…101 % of {ideal:.2f}", 0.93 <= share <= 1.01,
                link.ask("quit"),
            )  # fmt: skip

    n = 10_000 // scale
    for shape, deviation in JITTERS.items():
        jitter = {"ns": 2 * MS, "distribution": shape, "reorders": True}
        with wire(options, {"delay_ns": 20 * MS, "jitter": jitter}, {}) as link:
            seen = link.datagrams(n, 500_000, 200)
            bounds = [quartile(deviation, share, n) for share in QUARTILES]
            came = [seen[name] for name in ("p25_ms", "p50_ms", "p75_ms")]
            good = all(low <= at <= high for at, (low, high) in zip(came, bounds, strict=True))
            got = f"quartiles {', '.join(f'{at:.2f}' for at in came)} ms, sd {seen['sd_ms']:.2f}"
            bound = ", ".join(f"{low:.2f}…{high:.2f}" for low, high in bounds)
            judged(f"delay 20 ms, {shape} jitter 2 ms", got, bound, good, link.ask("quit"))

    n *= 2
    for name, key, count in (
        ("reorder", {"reorder": {"rate": 0.05}, "delay_ns": 5 * MS}, "reordered"),
        ("duplicate", {"duplicate": {"rate": 0.05}}, "surplus"),
        ("corrupt", {"corrupt": {"rate": 0.05}}, "missing"),
    ):
        with wire(options, key, {}) as link:
            seen = link.datagrams(n, 250_000, 200)
            stats = link.ask("quit")
            seen["reordered"] = stats["links"]["x"]["a_to_b"]["reordered"]
            share = seen[count] / n
            low, high = interval(n, 0.05)
            extra = f", {seen['overtaken']} overtaken" if name == "reorder" else ""
            got = f"{100 * share:.3g} % {count}{extra}"
            bound = f"{100 * low:.3g}…{100 * high:.3g} %"
            judged(f"{name} 5 %", got, bound, low <= share <= high, stats)

    for ms in (0.1, 1, 10):
        with wire(options, {"delay_ns": int(ms * MS)}) as link:
            goodput, again = link.tcp(5)
            got = f"{goodput / 1e9:.2f} Gbit/s, {again} resent"
            judged(f"TCP, delay {ms} ms", got, ">= 2 Gbit/s", goodput >= 2e9, link.ask("quit"))
    with wire(options, {"delay_ns": MS}) as link:
        seen = link.datagrams(2_000_000 // scale, 0, 22)
        stats = link.ask("quit")
        cpu = stats["threads"][0]["cpu_ns"]
        carried = stats["links"]["x"]["a_to_b"]["delivered_packets"]
        capacity = carried / cpu * 1e9
        got = f"offered {seen['per_second'] / 1e3:.0f} k/s; {capacity / 1e3:.0f} k a second of CPU"
        judged("64-octet frames", got, ">= 400 k/s a core", capacity >= 4e5, stats)


if __name__ == "__main__":
    sys.exit(main())
