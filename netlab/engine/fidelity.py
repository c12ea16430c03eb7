"""Figures of how true a run is, taken while it runs: of the machine, and of its impaired links.

What they mean is worked out from the recording alone, by `netlab.analysis.fidelity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from netlab.engine.channel import Channel
from netlab.engine.node import LogFile, Ready, RunningNode
from netlab.engine.programs import handed, python_agent
from netlab.engine.samplers import Sampler
from netlab.plan.operations import AddQdisc, Plan

FOLDER = "machine"
"""The folder of a recording with what belongs to no node."""
LOAD = f"{FOLDER}/load.jsonl"
QUICK_S = 0.05
"""What it takes a machine with nothing else to do to start a program of ours."""
SCALES = (1.0, 20.0)


def _nowhere(channel: Channel, log_file: LogFile) -> RunningNode:
    """Return where programs run that belong to no node, and outlive the reboot of any."""
    return RunningNode("", channel, lambda name: log_file(f"{FOLDER}/{Path(name).name}"))


def watch(
    channel: Channel, log_file: LogFile, namespaces: Mapping[str, str], plan: Plan
) -> tuple[Sampler, float]:
    """Watch the machine until told to stop; also return how much slower it is than a quick one.

    That is measured by how long it took to start the watching itself.
    """
    shaped = {op.node for op in plan.operations if isinstance(op, AddQdisc)}
    argv = (*python_agent("load"), "--out", str(log_file(LOAD).absolute()))
    with handed({"nodes": {name: namespaces[name] for name in sorted(shaped)}}) as given:
        running = _nowhere(channel, log_file).spawn(
            "load", argv, stdin=given, ready=Ready.line("watching")
        )
    took = ((running.ready_ns or running.started_ns) - running.started_ns) / 1e9
    return Sampler(running), scale(took)


def scale(took: float) -> float:
    """Return the scale of a machine that starts a program of ours in so many seconds."""
    least, most = SCALES
    return round(min(most, max(least, took / QUICK_S)), 1)
