"""How long single commands and the planning of large networks take, beside what is unavoidable.

usage: latency.py [--repeat 31] [--write]

`Stage` runs a program in a node that is warm; beside it the same program by a bare posix_spawn.
`netlab exec` is a whole command, beside an interpreter that does nothing and one that imports the
command line. `netlab status` looks at a lab of a thousand nodes. The rows of plans are CPU seconds
from the text of a topology to its plan, in the command line's own configuration of the collector.
Modules are compiled beforehand, as after an installation.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import run  # noqa: E402

from netlab.engine import lifecycle  # noqa: E402
from netlab.engine.stage import open_stage  # noqa: E402
from netlab.model.yaml import loads  # noqa: E402
from netlab.plan.build import build  # noqa: E402

PAIR = "name: pair\nnodes: [a, b]\nlinks: [a-b]\n"
NETWORKS = {
    "star": "generate: star,999\n",
    "chain": "generate: chain,1000,0\n",
    "tree": "generate: tree,9,2\n",
    "ring": "generate: ring,1000,0\n",
    "grid 31 x 31": "generate: {kind: grid, rows: 31, columns: 31, hosts: 0}\n",
}


class Notebook:
    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, relative: str) -> Path:
        path = self.path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def event(self, kind: str, *, at_ns: int | None = None, **fields: object) -> None:
        pass


def median(action: Callable[[], object], repeat: int) -> float:
    """Milliseconds of wall time."""
    times: list[float] = []
    for _ in range(repeat):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def bare() -> None:
    pid = os.posix_spawn("/bin/true", ["/bin/true"], os.environ)
    os.waitpid(pid, 0)


def commands(folder: Path, repeat: int) -> list[tuple[str, float, float | None]]:
    """Rows of what was measured, its milliseconds, and what is promised."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")

    def command(*words: str) -> Callable[[], object]:
        argv = [sys.executable, *words]
        return lambda: subprocess.run(argv, env=env, cwd=ROOT, check=True, capture_output=True)

    def netlab(*words: str) -> Callable[[], object]:
        return command("-m", "netlab", *words)

    with open_stage(loads(PAIR), Notebook(folder / "recording")) as stage:
        node = stage.node("a")
        in_stage = median(lambda: node.run(["/bin/true"]), 5 * repeat)
    plain = median(bare, 5 * repeat)
    lab, _ = lifecycle.up(loads(PAIR))
    for warm in (netlab("exec", "a", "/bin/true"), command("-c", "import netlab.cli")):
        warm()
    nothing = median(command("-c", "pass"), repeat)
    imports = median(command("-c", "import netlab.cli"), repeat)
    whole = median(netlab("exec", "a", "/bin/true"), repeat)
    lifecycle.down(lab)
    lab, _ = lifecycle.up(loads("name: thousand\ngenerate: star,999\n"))
    netlab("status")()
    status = median(netlab("status"), repeat)
    lifecycle.down(lab)
    return [
        ("posix_spawn of /bin/true", plain, None),
        ("Stage: /bin/true in a node", in_stage, plain + 5),
        ("python -c pass", nothing, None),
        ("import of the command line, beyond that", imports - nothing, 60),
        ("netlab exec a /bin/true", whole, imports + 5),
        ("netlab status, 1000 nodes, beyond python -c pass", status - nothing, 150),
    ]


def plans(repeat: int) -> list[tuple[str, float, float | None]]:
    gc.set_threshold(100_000, 20, 100)  # as netlab.cli.main does
    rows: list[tuple[str, float, float | None]] = []
    for name, text in NETWORKS.items():
        times: list[float] = []
        for _ in range(repeat):
            gc.collect()
            began = time.process_time()
            topology = loads(text)
            build(topology)
            times.append(time.process_time() - began)
        what = f"text to plan: {name}, {len(topology.nodes)} nodes (CPU)"
        rows.append((what, 1000 * statistics.median(times), 500))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=31)
    parser.add_argument("--write", action="store_true", help="put the table into benches/README.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NETLAB_STATE_DIR"] = str(folder / "state")
        rows = commands(folder, options.repeat) + plans(max(3, options.repeat // 6))
    lines = ["| what | ms | promised | |", "|---|--:|--:|---|"]
    for what, took, promised in rows:
        bound = "" if promised is None else f"≤ {promised:.1f}"
        verdict = "" if promised is None else "ok" if took <= promised else "MISS"
        lines.append(f"| {what} | {took:.1f} | {bound} | {verdict} |")
    text = "\n".join(lines)
    where = f"{run.machine()}, medians of {options.repeat}."
    print(f"{text}\n\n{where}")
    if options.write:
        run.write("latency", "Latencies", f"{where}\n\n{text}")


if __name__ == "__main__":
    main()
