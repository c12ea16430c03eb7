"""Measure `netlab.capture` beside every other analyser that is installed, and beside the floor.

usage: bench.py [--small] [--dir DIR] [--runs N] [--only full,headers,flows,lossy] [--write]

Four captures are made once in DIR (about 6 GB; a tenth with --small): full frames, headers
only, very many flows, and loss. Then, file by file with the page cache warm and every process
pinned to one core: netlab (on two cores, too) and the floor program in alternation; each peer after
that. A run that counts follows at once on one of the same program that does not, unless that took
5 s: a virtual machine's host takes memory back that was free for two seconds, and to touch it again
costs up to 2.5 ms a megabyte, in the kernel (350 MB for many flows: 1.0 s instead of 0.1). What
counts is CPU time (user + system) of the whole process, Python's start included; a peer is repeated
until its runs have taken 5 s. Memory is the peak of anonymous memory, so a mapped file does not
count, beside the ordinary peak. --write puts the tables into benches/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

SUMMARIZE = """
import sys
from netlab.capture import summarize
print(len(summarize(sys.argv[1], threads=int(sys.argv[2]), checksums=sys.argv[3] == "sums").flows))
"""
NFSTREAM = """
import sys
from nfstream import NFStreamer
print(sum(1 for _ in NFStreamer(source=sys.argv[1], n_meters=1)))
"""


@dataclass(frozen=True)
class Run:
    """One execution: seconds of CPU and of the wall clock, megabytes, exit status."""

    cpu: float
    wall: float
    anonymous_mb: float
    peak_mb: float
    status: int


def execute(
    argv: Sequence[str], cpus: set[int], timeout: float, environment: dict[str, str]
) -> Run:
    """Run a command pinned to `cpus`; watch its anonymous memory every few milliseconds."""
    start = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        env=os.environ | environment,
        start_new_session=True,
    )
    anonymous = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
            if found := re.search(r"RssAnon:\s+(\d+)", text):
                anonymous = max(anonymous, int(found[1]))
        except OSError:
            pass
        if time.monotonic() - start > timeout:
            process.kill()
        time.sleep(0.004)
    wall = time.monotonic() - start
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    return Run(
        usage.ru_utime + usage.ru_stime, wall, anonymous / 1024, usage.ru_maxrss / 1024, code
    )


@dataclass
class Tool:
    """Something that reads a capture: a name, a command, and what it needs."""

    name: str
    argv: list[str]
    computes: str
    needs: str = ""
    package: str = ""
    cpus: int = 1
    environment: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def present(self) -> bool:
        return not self.needs or shutil.which(self.needs) is not None


@dataclass(frozen=True)
class Capture:
    """A file of the set: what it is for, where it is, how much is in it."""

    key: str
    what: str
    file: Path
    packets: int
    size: int


def say(text: str) -> None:
    """Talk goes to stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def build(directory: Path) -> tuple[Path, Path]:
    """Compile the two C programs."""
    made: list[Path] = []
    for name, flags in (("floor", ("-O3", "-march=native")), ("manyflows", ("-O2",))):
        target = directory / name
        subprocess.run(["gcc", *flags, "-o", target, HERE / f"{name}.c"], check=True)
        made.append(target)
    return made[0], made[1]


def captures(
    directory: Path, small: bool, only: Iterable[str], tools: tuple[Path, Path]
) -> list[Capture]:
    """Make what is missing of the capture set; return it."""
    floor, manyflows = tools
    scale = 0.1 if small else 1.0
    flows, concurrent = (70_000, 4_000) if small else (700_000, 40_000)
    parts = {
        "full": ("full frames, real stacks", "bulk", "bulk.pcap"),
        "headers": ("96-octet headers, real stacks", "headers", "headers.pcap"),
        "flows": (f"{flows:,} interleaved flows", "", "manyflows.pcap"),
        "lossy": ("2 % loss, seen at the sender", "lossy", "lossy-sender.pcap"),
    }
    found: list[Capture] = []
    for key in only:
        what, kind, name = parts[key]
        file = directory / name
        if not file.exists():
            say(f"making {name} ({what}) ...")
            if kind:
                command = [sys.executable, HERE / "live.py", kind, directory, "--scale", str(scale)]
            else:
                command = [manyflows, file, str(flows), str(concurrent), "3"]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        counted = json.loads(
            subprocess.run([floor, file, "batched"], check=True, capture_output=True).stdout
        )
        found.append(Capture(key, what, file, counted["packets"], file.stat().st_size))
    return found


def tools_for(capture: Capture, floor: Path, scratch: Path, nfstream: str | None) -> list[Tool]:
    """Return everything to run on a capture: netlab and the floor first, then the peers."""
    from tests.capture import tshark

    file = str(capture.file)
    python = sys.executable
    lean = {"WIRESHARK_CONFIG_DIR": tshark.configuration()} if tshark.path() else {}
    peers = [
        Tool("netlab", [python, "-c", SUMMARIZE, file, "1", ""], "everything, one thread"),
        Tool("floor, plain", [str(floor), file, "plain"], "five-tuples and bare TCP state"),
        Tool("floor, batched", [str(floor), file, "batched"], "the same, prefetched"),
        Tool("netlab, 2 threads", [python, "-c", SUMMARIZE, file, "2", ""], "everything", cpus=2),
        Tool(
            "netlab --checksums",
            [python, "-c", SUMMARIZE, file, "1", "sums"],
            "everything + checksums",
        ),
        Tool(
            "softflowd",
            ["softflowd", "-d", "-r", file, "-n", "127.0.0.1:9", "-m", "2000000"],
            "counters",
            "softflowd",
        ),
        Tool(
            "nfpcapd",
            ["nfpcapd", "-r", file, "-l", str(scratch)],
            "counters, flags",
            "nfpcapd",
            "nfdump",
        ),
        Tool(
            "argus",
            ["argus", "-F", "/dev/null", "-R", "-J", "-r", file, "-w", str(scratch / "argus.out")],
            "flow records, loss",
            "argus",
            "argus-server",
        ),
        Tool("tcpstat", ["tcpstat", "-r", file], "interval counters, no flows", "tcpstat"),
        Tool(
            "tcptrace -l -r",
            ["tcptrace", "-n", "-l", "-r", file],
            "full TCP statistics",
            "tcptrace",
        ),
        Tool(
            "tshark, lean",
            ["tshark", "-n", "-q", "-r", file, "-z", "conv,tcp"],
            "TCP analysis, no payload",
            "tshark",
            environment=lean,
        ),
    ]
    if nfstream:
        peers.append(Tool("NFStream", [nfstream, "-c", NFSTREAM, file], "counters, from Python"))
    return peers


ALTERNATED = ("netlab", "floor, plain", "floor, batched", "netlab, 2 threads")
FLOORS = ALTERNATED[1:3]
LONG = 5  # s of CPU; what takes longer is not repeated


def measure(
    capture: Capture, tools: list[Tool], options: argparse.Namespace, scratch: Path
) -> dict[str, list[Run]]:
    """Run everything on one capture: the alternated ones `runs` times, the rest as time allows."""
    with capture.file.open("rb") as stream:  # warm the page cache
        while stream.read(1 << 22):
            pass
    cores = sorted(os.sched_getaffinity(0))
    results: dict[str, list[Run]] = {}

    def once(tool: Tool) -> Run:
        for leftover in scratch.iterdir():
            leftover.unlink()
        return execute(tool.argv, set(cores[-tool.cpus :]), options.timeout, tool.environment)

    def counted(tool: Tool) -> None:
        run = once(tool)
        if run.cpu < LONG:
            run = once(tool)  # in memory that the computer has
        results.setdefault(tool.name, []).append(run)
        note = f"  (status {run.status})" if run.status else ""
        say(
            f"  {tool.name:20} {run.cpu:8.2f} s CPU {run.wall:8.2f} s wall "
            f"{run.anonymous_mb:7.0f} MB{note}"
        )

    for _ in range(options.runs):
        for tool in tools:
            if tool.name in ALTERNATED:
                counted(tool)
    for tool in tools:
        if tool.name in ALTERNATED:
            continue
        if not tool.present:
            say(f"  {tool.name:20} not installed: apt-get install {tool.package or tool.needs}")
            continue
        for _ in range(options.runs):
            counted(tool)
            if sum(run.cpu for run in results[tool.name]) > LONG:
                break
    return results


def median(runs: list[Run]) -> float:
    return statistics.median(run.cpu for run in runs)


def table(capture: Capture, tools: list[Tool], results: dict[str, list[Run]]) -> str:
    """Return the Markdown table of one capture."""
    ours = median(results["netlab"])
    floor = min(median(results[name]) for name in FLOORS)
    lines = [
        f"### {capture.what}: {capture.packets:,} packets, {capture.size / 1e9:.2f} GB",
        "",
        "| program | computes | CPU s | wall s | M packets/CPU s | GB/CPU s "
        "| anonymous MB | peak MB | × netlab |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for tool in tools:
        runs = results.get(tool.name)
        if not runs:
            continue
        cpu, wall = median(runs), statistics.median(run.wall for run in runs)
        note = "" if all(run.status == 0 for run in runs) else f" (status {runs[-1].status})"
        lines.append(
            f"| {tool.name}{note} | {tool.computes} | {cpu:.2f} | {wall:.2f} "
            f"| {capture.packets / cpu / 1e6:.2f} | {capture.size / cpu / 1e9:.2f} "
            f"| {max(run.anonymous_mb for run in runs):.0f} "
            f"| {max(run.peak_mb for run in runs):.0f} | {cpu / ours:.2f} |"
        )
    lines += [
        "",
        f"Share of the floor (faster of plain and batched, {floor:.2f} s): **{floor / ours:.0%}**.",
    ]
    if "netlab, 2 threads" in results:
        two = statistics.median(run.wall for run in results["netlab, 2 threads"])
        one = statistics.median(run.wall for run in results["netlab"])
        lines[-1] += (
            f" Two threads take {two:.2f} s of wall time, one {one:.2f} s: {one / two:.2f} ×."
        )
    return "\n".join(lines)


BOUNDS: dict[str, dict[str, float]] = {
    "full": {"tshark, lean": 25, "tcptrace -l -r": 10, "softflowd": 1, "nfpcapd": 1},
    "headers": {"tshark, lean": 25, "tcptrace -l -r": 10, "softflowd": 1, "nfpcapd": 1},
    "flows": {
        "tshark, lean": 25, "tcptrace -l -r": 10, "softflowd": 5, "nfpcapd": 5, "argus": 5,
    },
    "lossy": {"tshark, lean": 15, "tcptrace -l -r": 5, "softflowd": 1, "nfpcapd": 1},
}  # fmt: skip
"""How many times slower each peer must be, NFStream 20 times everywhere."""
FLOOR_SHARE = {"full": 0.4, "headers": 0.4, "flows": 0.5, "lossy": 0.4}


def verdicts(capture: Capture, results: dict[str, list[Run]]) -> list[str]:
    """Compare with the ratios that netlab promises; one line each."""
    ours = results["netlab"]
    floor = min(median(results[name]) for name in FLOORS)
    lines: list[str] = []

    def judge(holds: bool, text: str) -> None:
        lines.append(f"{'ok  ' if holds else 'MISS'} {capture.key}: {text}")

    for name, bound in (BOUNDS[capture.key] | {"NFStream": 20}).items():
        if name in results:
            ratio, most = median(results[name]) / median(ours), median(results[name]) / floor
            judge(
                ratio >= bound,
                f"{name} takes {ratio:.1f} × netlab's CPU (promised ≥ {bound:g}; floor {most:.1f})",
            )
    share = floor / median(ours)
    wanted = FLOOR_SHARE[capture.key]
    judge(share >= wanted, f"{share:.0%} of the floor (promised ≥ {wanted:.0%})")
    if capture.key in ("headers", "flows") and "netlab, 2 threads" in results:
        two = statistics.median(run.wall for run in results["netlab, 2 threads"])
        gain = statistics.median(run.wall for run in ours) / two
        judge(gain >= 1.7, f"two threads are {gain:.2f} × as fast (promised ≥ 1.7)")
    return lines


def machine() -> str:
    """Describe this machine in a line."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return (
        f"{os.cpu_count()} × {model[1].strip() if model else platform.machine()}, "
        f"{int(memory[1]) / 2**20 if memory else 0:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, "
        f"load average {os.getloadavg()[1]:.1f}"
    )


def write(text: str) -> None:
    """Put the tables between the markers of benches/README.md."""
    readme = ROOT / "benches" / "README.md"
    begin, end = "<!-- capture: begin -->", "<!-- capture: end -->"
    old = readme.read_text() if readme.exists() else f"# Benchmarks\n\n{begin}\n{end}\n"
    if begin not in old:
        old += f"\n{begin}\n{end}\n"
    head, _, rest = old.partition(begin)
    tail = rest.partition(end)[2]
    readme.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the size")
    parser.add_argument("--dir", type=Path, help="where the captures are kept")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=900)
    parser.add_argument("--only", default="full,headers,flows,lossy")
    parser.add_argument(
        "--skip", default="", help="how the names of peers not to run begin, separated by commas"
    )
    parser.add_argument("--nfstream", help="a Python that can import nfstream")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into benches/README.md"
    )
    options = parser.parse_args()
    directory: Path = options.dir or Path("/tmp/netlab-bench" + ("-small" if options.small else ""))
    scratch = directory / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    programs = build(directory)
    keys = options.only.split(",")
    skipped = tuple(name for name in options.skip.split(",") if name)
    if unknown := set(keys) - set(BOUNDS):
        parser.error(f"no such capture: {', '.join(sorted(unknown))}")
    texts: list[str] = []
    judged: list[str] = []
    for capture in captures(directory, options.small, keys, programs):
        say(f"{capture.file.name}: {capture.packets:,} packets")
        tools = [
            tool
            for tool in tools_for(capture, programs[0], scratch, options.nfstream)
            if not tool.name.startswith(skipped)
        ]
        results = measure(capture, tools, options, scratch)
        texts.append(table(capture, tools, results))
        judged += (lines := verdicts(capture, results))
        print(texts[-1], "", *lines, sep="\n", flush=True)
    size = "a tenth of the full size (`--small`)" if options.small else "full size"
    text = f"Measured on {machine()}; {size}; `make bench-capture`.\n\n" + "\n\n".join(texts)
    if options.small:
        text += "\n\nAt this size Python's start is most of netlab's time; ratios are not judged."
    else:
        text += "\n\n```text\n" + "\n".join(judged) + "\n```"
    if options.write:
        write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
