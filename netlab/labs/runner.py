"""Run a lab: vary the topology, build it, play the scenario, judge what was recorded.

A run is a folder `ROOT/LAB/TIME/` with one recording per variation, `checks.json` and
`junit.xml`; recordings of planted faults lie below `faults/`. A variation whose needs the machine
lacks is skipped with the reason; one that fails is an error, and the others still run. An
interrupt ends the run: what was recorded until then is kept, marked interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from netlab.analysis.verdict import Outcome
from netlab.engine.stage import Stage, open_stage
from netlab.errors import (
    CapabilityError,
    EngineError,
    LabDefinitionError,
    NetlabError,
    UsageError,
)
from netlab.labs import judge as judging
from netlab.labs.lab import Fault, Lab
from netlab.labs.result import (
    CheckResult,
    FaultResult,
    LabResult,
    Status,
    VariationResult,
    junit,
)
from netlab.labs.variation import Variation, vary
from netlab.model.capabilities import Capabilities
from netlab.model.dump import dump_json
from netlab.model.topology import Topology
from netlab.model.yaml import load
from netlab.plan.backend import Backend, backends
from netlab.plan.build import build
from netlab.plan.operations import Plan
from netlab.recording import Recording, RecordingWriter
from netlab.recording.directory import MANIFEST, mark_interrupted, new_run, write_file

log = logging.getLogger(__name__)

Say = Callable[[str], None]

SYSCTLS = (
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_no_metrics_save",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_max_syn_backlog",
    "net.core.somaxconn",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.ip_local_port_range",
)
"""Settings noted in every manifest, because results depend on them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run: where results go, on what kind of namespaces, what the machine can do.

    `impair` is the one back end that may impair links (None: the best that can).
    """

    root: Path
    capabilities: Capabilities | None = None
    rootless: bool | None = None
    impair: Backend | None = None
    say: Say = lambda _: None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one attempt to run the scenario."""

    result: VariationResult
    recording: Recording | None = None


def run(
    lab: Lab, settings: Settings, *, variations: Sequence[str] = (), faults: bool = False
) -> LabResult:
    """Run variations of a lab (default: all), judge them, and write the results.

    With `faults`, every planted fault runs too and must break the check it names.
    """
    for name in variations:
        if name not in lab.variations:
            known = ", ".join(lab.variations)
            raise UsageError(f"lab {lab.name} has no variation '{name}'", hint=f"it has {known}")
    topology = load(lab.folder / lab.topology)
    folder = new_run(settings.root, lab.name, now_ns=time.time_ns())
    chosen = [
        name
        for name, variation in lab.variations.items()
        if (name in variations if variations else not variation.takes)
    ]
    done: list[_Outcome] = []
    found: list[FaultResult] = []
    interrupted = False
    for name in chosen:
        outcome = _attempt(lab, topology, lab.variations[name], name, folder / name, settings)
        done.append(outcome)
        if outcome.result.status == "interrupted":
            interrupted = True
            break
    recordings = {o.result.name: o.recording for o in done if o.recording is not None}
    waiting = [] if variations else _on_request(lab)
    skipped = {
        result.name: result.reason
        for result in (*(outcome.result for outcome in done), *waiting)
        if result.status == "skipped"
    }
    checks = () if interrupted else judging.judge(lab, recordings, skipped)
    if faults and not interrupted:
        for number, fault in enumerate(lab.faults, 1):
            if fault.on not in chosen:
                continue
            at = folder / "faults" / f"{number:02}-{_slug(fault.name)}"
            result = _plant(lab, topology, fault, at, settings, recordings, skipped)
            if result is None:
                interrupted = True
                break
            found.append(result)
    results = [o.result for o in done]
    if interrupted and results and results[-1].status != "interrupted":
        results.append(VariationResult("faults", "interrupted", reason="interrupted"))
    started = {o.result.name for o in done}
    results += [
        VariationResult(name, "not run", lab.variations[name].summary)
        for name in chosen
        if name not in started
    ]
    results += waiting
    provenance = _provenance(recordings.values())
    result = LabResult(
        lab.name, lab.title, folder.name, tuple(results), checks, tuple(found), provenance
    )
    write_file(folder / judging.CHECKS, result.json_text)
    write_file(folder / "junit.xml", junit([result]))
    return result


def _on_request(lab: Lab) -> list[VariationResult]:
    """Return the variations that are run only when they are named, as skipped."""
    return [
        VariationResult(
            name,
            "skipped",
            variation.summary,
            f"the kernel's timers take {variation.takes:.0f} s of it; "
            f"`netlab lab run {lab.name} --variation {name}` runs it",
        )
        for name, variation in lab.variations.items()
        if variation.takes
    ]


def _attempt(
    lab: Lab,
    topology: Topology,
    variation: Variation,
    name: str,
    path: Path,
    settings: Settings,
    fault: Fault | None = None,
) -> _Outcome:
    """Play the scenario of one variation into a recording at `path`."""
    began = time.monotonic()
    label = f"{lab.name} {name}" + (f", fault: {fault.name}" if fault else "")

    def result(status: Status, reason: str = "") -> VariationResult:
        seconds = round(time.monotonic() - began, 3)
        return VariationResult(name, status, variation.summary, reason, path.name, seconds)

    changed = variation.change(topology)
    try:
        plan = build(changed, settings.capabilities, settings.impair)
    except CapabilityError as error:
        settings.say(f"{label}: skipped, {error}")
        return _Outcome(result("skipped", str(error)))
    settings.say(f"{label}: running")
    try:
        with Recording.create_at(
            path,
            lab.name,
            name,
            fault=fault.name if fault else None,
            options=_options(lab, variation),
            hz=settings.capabilities.hz if settings.capabilities else None,
        ) as writer:
            resolved = dump_json(changed)
            writer.write_text("topology.resolved.json", resolved)
            writer.note(topology_sha256=hashlib.sha256(resolved.encode()).hexdigest())
            _play(lab, changed, plan, variation, writer, settings)
    except KeyboardInterrupt:
        mark_interrupted(path, "interrupted")  # should it have come before the writer was there
        known = Recording.open(path) if (path / MANIFEST).exists() else None
        return _Outcome(result("interrupted", "interrupted"), known)
    except CapabilityError as error:
        settings.say(f"{label}: skipped, {error}")
        return _Outcome(result("skipped", str(error)))
    except NetlabError as error:
        settings.say(f"{label}: error, {error}")
        return _Outcome(result("error", str(error)))
    recording = Recording.open(path)
    manifest = recording.manifest
    fidelity: dict[str, Any] = {
        "fidelity": manifest.fidelity,
        "fidelity_reasons": manifest.fidelity_reasons,
    }
    settings.say(f"{label}: ran for {time.monotonic() - began:.1f} s")
    return _Outcome(replace(result("ran"), **fidelity), recording)


def _play(
    lab: Lab,
    topology: Topology,
    plan: Plan,
    variation: Variation,
    writer: RecordingWriter,
    settings: Settings,
) -> None:
    with open_stage(topology, writer, rootless=settings.rootless, plan=plan) as stage:
        writer.note(sysctls=_sysctls(stage), tools=_tools(stage))
        writer.note(backend=_backend(plan), backends=backends(plan))
        try:
            lab.run(stage, **variation.options)
        except NetlabError:
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise LabDefinitionError(
                f"the scenario of lab {lab.name} is broken: {type(error).__name__}: {error} "
                f"({Path(place.filename).name}:{place.lineno})"
            ) from error
    reasons = tuple(_doubts(writer.path))
    writer.note(fidelity="suspect" if reasons else "ok", fidelity_reasons=reasons)


def _plant(
    lab: Lab,
    topology: Topology,
    fault: Fault,
    path: Path,
    settings: Settings,
    recordings: Mapping[str, Recording],
    skipped: Mapping[str, str],
) -> FaultResult | None:
    """Run a fault and see which checks break; None after an interrupt."""
    both = vary(lab.variations[fault.on], fault.variation)
    outcome = _attempt(lab, topology, both, fault.on, path, settings, fault)
    if outcome.result.status == "interrupted":
        return None
    base = FaultResult(fault.name, fault.on, fault.breaks, Outcome.FAIL)
    if outcome.result.status == "skipped":
        return replace(base, outcome=Outcome.SKIP, reason=outcome.result.reason)
    if outcome.recording is None:
        return replace(
            base, reason=f"the scenario did not come to its end: {outcome.result.reason}"
        )
    checks = judging.judge(lab, {**recordings, fault.on: outcome.recording}, skipped)
    return weigh(base, fault, [c for c in checks if fault.on in c.variations])


def weigh(base: FaultResult, fault: Fault, checks: Iterable[CheckResult]) -> FaultResult:
    """Say whether a fault broke exactly what it should; `checks` are those of its variation."""
    not_passed = {
        c.check: c.verdict.outcome
        for c in checks
        if c.verdict.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
    }
    broke = tuple(not_passed)
    unexpected = [name for name in broke if name not in (fault.breaks, *fault.also)]
    reasons: list[str] = []
    if not_passed.get(fault.breaks) is not Outcome.FAIL:
        reasons.append(f"'{fault.breaks}' did not fail")
    reasons += [f"'{name}' did not pass either" for name in unexpected]
    outcome = Outcome.FAIL if reasons else Outcome.PASS
    return replace(base, outcome=outcome, broke=broke, reason="; ".join(reasons))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _plain(getattr(value, f.name))
            for f in fields(value)
            if f.compare  # marks, source and warnings say where things came from
        }
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (tuple, list, frozenset)):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)


def _options(lab: Lab, variation: Variation) -> dict[str, Any]:
    """Return every option of the scenario as it is used, defaults too."""
    import inspect

    parameters = list(inspect.signature(lab.run).parameters.values())[1:]
    return {p.name: _plain(variation.options.get(p.name, p.default)) for p in parameters}


def _sysctls(stage: Stage) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for node in stage.topology.nodes:
        if node.hidden:
            continue
        keys = [*SYSCTLS, *(key for key, _ in node.sysctls if key not in SYSCTLS)]
        done = stage.node(node.name).run(["sysctl", "-e", *keys], check=False)
        pairs = (line.partition(" = ")[::2] for line in done.stdout.splitlines() if " = " in line)
        found[node.name] = {key: " ".join(value.split()) for key, value in pairs}
    return found


def _tools(stage: Stage) -> dict[str, str]:
    node = next(iter(stage.nodes.values()))
    found: dict[str, str] = {}
    for name, argv in (("tcpdump", ["tcpdump", "--version"]), ("ss", ["ss", "-V"])):
        try:
            done = node.run(argv, check=False)
        except EngineError:
            continue
        text = (done.stdout or done.stderr).strip()
        found[name] = text.splitlines()[0] if text else ""
    return found


def _backend(plan: Plan) -> str:
    """Return what impairs the links of a plan: "netem", "wire", both, or "none"."""
    names = {type(operation).__name__ for operation in plan.operations}
    used = [name for name, kind in (("netem", "AddQdisc"), ("wire", "AddWire")) if kind in names]
    return "+".join(used) or "none"


def _doubts(path: Path) -> Iterable[str]:
    """Return why a recording may not be faithful."""
    for file in sorted(path.glob("captures/*.json")):
        counts = json.loads(file.read_text(encoding="utf-8"))
        dropped = int(counts["dropped_by_kernel"]) + int(counts["dropped_by_interface"])
        if dropped:
            yield f"the capture {counts['where']} lost {dropped} packets"
    for file in sorted(path.glob("wire/*.json")):
        for name, link in json.loads(file.read_text(encoding="utf-8"))["links"].items():
            yield from (f"the wire of link '{name}': {doubt}" for doubt in _strains(link))


_LATE_NS = 1_000_000  # a hundredth of the packets may leave so late


def _strains(counters: Mapping[str, Any]) -> Iterable[str]:
    """Return what a wire did that nobody asked for (crates/netlab-wire/README.md, Counters)."""
    for port in ("a", "b"):
        for name in ("kernel_drops", "oversize", "partial_checksum"):
            if counters[port][name]:
                yield f"{counters[port][name]} packets {name.replace('_', ' ')} at one end"
    for way in ("a_to_b", "b_to_a"):
        one = counters[way]
        if one["dropped_overflow"]:
            yield f"{one['dropped_overflow']} packets dropped for want of room"
        late_ns = one["lateness"]["p99_ns"] if one["lateness"]["count"] else 0
        if late_ns > _LATE_NS:
            yield f"one packet in a hundred left {late_ns / 1e6:.1f} ms late, or more"


def _provenance(recordings: Iterable[Recording]) -> dict[str, Any]:
    for recording in recordings:
        m = recording.manifest
        return {
            "netlab": m.netlab,
            "kernel": m.kernel,
            "machine": m.machine,
            "hz": m.hz,
            "backend": m.backend,
            "tools": dict(m.tools),
        }
    return {}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "fault"
