"""Figures of how true a run is, taken while it runs: of the machine, and of its impaired links.

What they mean is worked out from the recording alone, by `netlab.analysis.fidelity`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netlab.engine import netlink
from netlab.engine.channel import Channel
from netlab.engine.lower import Indexes, place
from netlab.engine.node import LogFile, Ready, RunningNode
from netlab.engine.programs import handed, python_agent
from netlab.engine.samplers import Sampler
from netlab.plan.calibration import Trial, trial
from netlab.plan.operations import AddQdisc, Plan
from netlab.plan.qdiscs import Netem

Json = dict[str, Any]

FOLDER = "machine"
"""The folder of a recording with what belongs to no node."""
LOAD = f"{FOLDER}/load.jsonl"
CALIBRATION = f"{FOLDER}/calibration.json"
PATIENCE_S = 0.1
"""How much longer than it may take a probe is waited for."""
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
    nodes = {name: namespaces[name] for name in sorted(shaped)}
    with handed({"nodes": nodes, "programs": dict(namespaces)}) as given:
        running = _nowhere(channel, log_file).spawn(
            "load", argv, stdin=given, ready=Ready.line("watching")
        )
    took = ((running.ready_ns or running.started_ns) - running.started_ns) / 1e9
    return Sampler(running), scale(took)


def scale(took: float) -> float:
    """Return the scale of a machine that starts a program of ours in so many seconds."""
    least, most = SCALES
    return round(min(most, max(least, took / QUICK_S)), 1)


def calibrate(
    channel: Channel,
    log_file: LogFile,
    namespaces: Mapping[str, str],
    plan: Plan,
    indexes: Indexes,
) -> None:
    """Measure every impaired link in both directions, and write down what came of it.

    Nothing else may use the links meanwhile. What a seed gives stays what it was: a wire counts
    the probes apart, a netem with a seed is told it again.
    """
    ends: list[Json] = []
    ways: list[Json] = []
    found: dict[str, dict[str, Json]] = {}
    measured: list[Json] = []
    for link in plan.topology.links:
        if not (link.forward or link.backward):
            continue
        mtu = max(link.a.mtu, link.b.mtu)
        first = len(ends)
        ends += [
            {"namespace": namespaces[end.node], "device": end.name, "mac": end.mac}
            for end in link.ends
        ]
        links = found.setdefault(link.name, {})
        for name, impairment, at in (
            ("forward", link.forward, (first, first + 1)),
            ("backward", link.backward, (first + 1, first)),
        ):
            told = trial(impairment, mtu)
            if isinstance(told, str):
                links[name] = {"why": told}
                continue
            links[name] = {"trial": asdict(told)}
            measured.append(links[name])
            ways.append(_way(told, *at))
    if not found:
        return
    task = {"ends": ends, "ways": ways, "patience_s": PATIENCE_S, "afterwards": []}
    task["afterwards"] = list(_seeded(plan, namespaces, indexes))
    if ways:
        longest = max(way["travel_s"] for way in ways)
        node = _nowhere(channel, log_file)
        done = node.run(python_agent("calibrate"), input=json.dumps(task), timeout=10 + longest)
        for one, result in zip(measured, json.loads(done.stdout)["ways"], strict=True):
            one |= result
    text = json.dumps({"schema": 1, "links": found}, separators=(",", ":"))
    log_file(CALIBRATION).write_text(text + "\n")


def _way(told: Trial, sender: int, receiver: int) -> Json:
    burst = told.burst
    return {
        "from": sender,
        "to": receiver,
        "count": told.count,
        "gap_s": told.gap,
        "octets": told.octets,
        "travel_s": told.travel,
        "burst": {"count": burst.count, "octets": burst.octets} if burst else None,
    }


def _seeded(plan: Plan, namespaces: Mapping[str, str], indexes: Indexes) -> list[Json]:
    """Return the requests that give each netem with a seed its numbers from the beginning."""
    found: dict[str, list[str]] = {}
    for op in plan.operations:
        if not isinstance(op, AddQdisc) or not isinstance(op.qdisc.discipline, Netem):
            continue
        if op.qdisc.discipline.impairment.seed is not None:
            request = place(1, indexes[op.node, op.dev], op.qdisc, change=True)
            found.setdefault(op.node, []).append(netlink.acknowledged(request).hex())
    return [{"namespace": namespaces[node], "requests": told} for node, told in found.items()]
