"""Bring-up and tear-down of many nodes: netlab beside the kernel's floor and other tools.

usage: run.py [--kinds star,chain,tree] [--sizes 10,100,500,1000] [--repeat 3] [--methods a,b]
              [--write]

Every method builds the same network from the same description, one after the other within each
repeat, so that what else the machine does hits all alike; medians are shown. `up` is from the
finished plan to the last acknowledgement, interpreter start and reading of files excluded, except
in the row `netlab up FILE`, which is the whole command from start to exit. `down` is the time until
the command (or the process that held the namespaces) is gone, `gone` until the kernel has reaped
the last namespace, which it does in the background: that is what tear-down costs, whoever asks.
Latencies of single commands are measured by latency.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import network  # noqa: E402
import reaper  # noqa: E402

README = ROOT / "benches" / "README.md"
PLACE = "bringup"
SLOW = {"pyroute2": 500, "mininet": 100}  # sizes above which a method only wastes time


@dataclass(frozen=True)
class Result:
    up: float
    down: float
    gone: float
    rss_mib: float


Method = Callable[[network.Network], Result]


def conversation(argv: list[str], text: str = "") -> Result:
    """Run a method that prints when it is up and goes down at the end of its input."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"}
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{argv} failed with status {process.wait()}")
    began = time.perf_counter()
    process.stdin.close()
    told = process.stdout.readline().strip()
    down = time.perf_counter() - began
    reaper.wait()
    gone = time.perf_counter() - began
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv} failed with status {process.returncode}")
    return Result(float(line), float(told) if told else down, gone, usage.ru_maxrss / 1024)


def script(name: str, *extra: str) -> Method:
    def run(net: network.Network) -> Result:
        argv = [sys.executable, str(HERE / name), net.kind, str(net.size), *extra]
        return conversation(argv)

    return run


def mininet(net: network.Network) -> Result:
    with tempfile.NamedTemporaryFile("w", suffix=".links") as file:
        file.writelines(f"{w.a} {w.b}\n" for w in net.wires)
        file.flush()
        argv = ["/usr/bin/python3", str(HERE / "with_mininet.py"), file.name, str(net.size)]
        return conversation(argv)


def whole_command(net: network.Network) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "topology.yaml"
        path.write_text(network.as_yaml(net))
        env = {**os.environ, "NETLAB_STATE_DIR": f"{folder}/state"}
        times: list[float] = []
        for command in (["up", str(path)], ["down", "--all"]):
            argv = [sys.executable, "-m", "netlab", *command]
            began = time.perf_counter()
            subprocess.run(argv, env=env, cwd=ROOT, check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        reaper.wait()
        gone = time.perf_counter() - began
    rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Result(*times, gone, rss)


def methods(folder: Path, wanted: list[str]) -> dict[str, Method]:
    raw = folder / "raw"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O2", "-o", str(raw), str(HERE / "raw.c")], check=True)
    found: dict[str, Method] = {
        "raw": lambda net: conversation([str(raw)], network.as_text(net) + "go\n"),
        "raw (named)": lambda net: conversation([str(raw), "names"], network.as_text(net) + "go\n"),
        "netlab (same state)": script("with_netlab.py", "same"),
        "netlab (its defaults)": script("with_netlab.py", "default"),
        "netlab up FILE": whole_command,
        "ip -batch": script("with_ip_batch.py"),
        "pyroute2": script("with_pyroute2.py"),
    }
    if shutil.which("mn"):
        found["mininet"] = mininet
    return {name: found[name] for name in (wanted or found) if name in found}


def table(rows: list[tuple[str, int, str, Result, int]]) -> str:
    base = {(k, n): r for k, n, m, r, _ in rows if m == "ip -batch"}
    floor = {(k, n): r for k, n, m, r, _ in rows if m == "raw"}
    lines = [
        "| network | nodes | method | up s | ms/node | × `ip -batch` | × raw | down s | gone s "
        "| × raw | RSS MiB |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, size, method, r, _ in rows:
        batch, raw = base.get((kind, size)), floor.get((kind, size))
        versus = [f"{r.up / other.up:.2f}" if other else "" for other in (batch, raw)]
        slower = f"{r.gone / raw.gone:.2f}" if raw else ""
        lines.append(
            f"| {kind} | {size} | {method} | {r.up:.3f} | {1000 * r.up / size:.2f} | {versus[0]} "
            f"| {versus[1]} | {r.down:.3f} | {r.gone:.3f} | {slower} | {r.rss_mib:.0f} |"
        )
    return "\n".join(lines)


def write(place: str, title: str, text: str) -> None:
    """Put a text between its marks in benches/README.md, in a section of its own if new."""
    begin, end = f"<!-- {place}: begin -->", f"<!-- {place}: end -->"
    old = README.read_text() if README.exists() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n## {title}\n\n{begin}\n{end}\n"
    head, _, rest = old.partition(begin)
    _, _, tail = rest.partition(end)
    README.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def machine() -> str:
    """Say where and when something was measured."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} processors, kernel {platform.release()}, Python "
        f"{platform.python_version()}, {time.strftime('%Y-%m-%d')}, load average at the end {load}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", default="star,chain,tree")
    parser.add_argument("--sizes", default="10,100,500,1000")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--methods", default="")
    parser.add_argument("--write", action="store_true", help="put the table into benches/README.md")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("the other methods need root")
    rows: list[tuple[str, int, str, Result, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        wanted = [name for name in options.methods.split(",") if name]
        chosen = methods(Path(folder), wanted)
        for kind in options.kinds.split(","):
            for size in map(int, options.sizes.split(",")):
                net = network.make(kind, size)
                got: dict[str, list[Result]] = {}
                for _ in range(options.repeat):
                    for name, method in chosen.items():
                        if size <= SLOW.get(name, size):
                            got.setdefault(name, []).append(method(net))
                for name, results in got.items():
                    median = Result(
                        *(
                            statistics.median(getattr(r, f) for r in results)
                            for f in ("up", "down", "gone")
                        ),
                        max(r.rss_mib for r in results),
                    )
                    rows.append((kind, size, name, median, len(results)))
                    print(
                        f"{kind:6}{size:5} {name:22} up {median.up:8.3f} down {median.down:7.3f} "
                        f"gone {median.gone:7.3f}",
                        flush=True,
                    )
    text = table(rows)
    where = f"{machine()}, median of {options.repeat}."
    print(f"\n{text}\n\n{where}")
    if options.write:
        write(PLACE, "Bring-up", f"{where}\n\n{text}")


if __name__ == "__main__":
    main()
