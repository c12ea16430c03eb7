"""Run labs: vary the topology, build it, play the scenario, judge what was recorded.

A run is a folder `ROOT/LAB/TIME/` with one recording per variation, `checks.json` and
`junit.xml`; recordings of planted faults lie below `faults/`. A series of repetitions is a folder
of such runs, `ROOT/LAB/TIME/01/` and so on, with a `repeat.json`. A variation whose needs the
machine lacks is skipped with the reason; one that fails is an error, and the others still run. An
interrupt ends the run: what was recorded until then is kept, marked interrupted.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from netlab.analysis import fidelity
from netlab.analysis.verdict import Outcome
from netlab.engine.stage import Stage, open_stage
from netlab.errors import (
    CapabilityError,
    EngineError,
    LabDefinitionError,
    NetlabError,
    UsageError,
)
from netlab.labs import chance, pool
from netlab.labs import judge as judging
from netlab.labs.lab import Fault, Lab
from netlab.labs.pool import ALONE, Ending, Job, Say, Silent, Watch
from netlab.labs.result import (
    CheckResult,
    FaultResult,
    LabResult,
    Status,
    VariationResult,
    junit,
    skip_reasons,
)
from netlab.labs.variation import Variation, at_pace, vary
from netlab.model.capabilities import Capabilities
from netlab.model.dump import dump_json
from netlab.model.topology import Topology
from netlab.model.yaml import load
from netlab.plan.backend import Backend, backends
from netlab.plan.build import build
from netlab.plan.operations import Plan
from netlab.recording import Recording, RecordingWriter
from netlab.recording.directory import MANIFEST, mark_interrupted, new_run, write_file
from netlab.recording.ownership import calling_user, make_folders

log = logging.getLogger(__name__)

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

    `impair` is the one back end that may impair links (None: the best that can). `budget` is how
    many plain variations may run at once (one with a wire counts for two). Each runs `repeat`
    times, with seeds that follow from `seed` (None: those of the topology). With `calibrate` every
    impaired link is measured before the scenario.
    """

    root: Path
    capabilities: Capabilities | None = None
    rootless: bool | None = None
    impair: Backend | None = None
    calibrate: bool = True
    budget: float = 1
    repeat: int = 1
    seed: int | None = None
    watch: Watch = field(default_factory=Silent)


def run(
    lab: Lab, settings: Settings, *, variations: Sequence[str] = (), faults: bool = False
) -> LabResult:
    """Run variations of a lab (default: all), judge them, and write the results.

    With `faults`, every planted fault runs too and must break the check it names.
    """
    (result,) = run_labs([lab], settings, variations=variations, faults=faults)
    return result


def run_labs(
    labs: Sequence[Lab],
    settings: Settings,
    *,
    variations: Sequence[str] = (),
    faults: bool = False,
    done: Callable[[LabResult], None] = lambda _: None,
) -> tuple[LabResult, ...]:
    """Run labs side by side within the budget of `settings`; return a result for each that began.

    With `settings.repeat`, each lab has so many results. `done` is called with each as soon as it
    is judged. An interrupt ends the run; what was recorded until then is in the results.
    """
    runs: list[_Run] = []
    _known(labs, variations)
    for lab in labs:
        chosen = _chosen(lab, variations)
        if not chosen and variations:
            continue
        series = _Series(lab, settings) if settings.repeat > 1 else None
        for number in range(1, settings.repeat + 1):
            runs.append(_Run(lab, settings, chosen, bool(variations), faults, series, number))
    by_job = {id(job): (one, task) for one in runs for job, task in one.jobs()}

    def ended(job: Job[VariationResult], ending: Ending[VariationResult]) -> list[_VJob]:
        one, task = by_job[id(job)]
        again = one.take(job, task, ending)
        if again is not None:
            by_job[id(again)] = (one, task)
            return [again]
        if not one.missing:
            done(one.finish())
        return []

    for one in runs:
        if not one.missing:  # all it has is run on request
            done(one.finish())
    jobs = [job for one in runs for job in one.order]
    if not pool.run(jobs, budget=settings.budget, watch=settings.watch, ended=ended):
        for one in runs:
            if one.began and one.result is None:  # it was under way, or about to be judged
                done(one.finish(interrupted=True))
    return tuple(one.result for one in runs if one.result is not None)


def _known(labs: Sequence[Lab], variations: Sequence[str]) -> None:
    """Refuse a variation that no lab has."""
    known = {name: None for lab in labs for name in lab.variations}
    for name in variations:
        if name in known:
            continue
        if len(labs) == 1:
            hint = f"it has {', '.join(known)}"
            raise UsageError(f"lab {labs[0].name} has no variation '{name}'", hint=hint)
        close = get_close_matches(name, known, n=1)
        raise UsageError(
            f"none of these labs has a variation '{name}'",
            hint=f"did you mean '{close[0]}'?" if close else "`netlab lab show NAME` lists them",
        )


def _chosen(lab: Lab, variations: Sequence[str]) -> tuple[str, ...]:
    """Return the variations to run; of several labs each runs those of the names that it has."""
    return tuple(
        name
        for name, variation in lab.variations.items()
        if (name in variations if variations else not variation.takes)
    )


def _on_request(lab: Lab, chosen: Sequence[str]) -> list[VariationResult]:
    """Return the variations that are run only when they are named, and were not, as skipped."""
    return [
        VariationResult(
            name,
            "skipped",
            variation.summary,
            f"the kernel's timers take {variation.takes:.0f} s of it; "
            f"`netlab lab run {lab.name} --variation {name}` runs it",
        )
        for name, variation in lab.variations.items()
        if variation.takes and name not in chosen
    ]


@dataclass(frozen=True, slots=True)
class _Task:
    """A variation to run, or a fault planted on it; `at` is its place in the folder of the run."""

    variation: str
    at: str
    fault: Fault | None = field(default=None, compare=False)


_VJob = Job[VariationResult]


class _Series:
    """The repetitions of one lab: a folder for them all, and what they say together."""

    def __init__(self, lab: Lab, settings: Settings) -> None:
        self.lab = lab
        self.settings = settings
        self.results: dict[int, LabResult] = {}

    @cached_property
    def folder(self) -> Path:
        """The folder of the series, made when the first repetition begins."""
        return new_run(self.settings.root, self.lab.name, now_ns=time.time_ns())

    def add(self, number: int, result: LabResult) -> None:
        """Take the result of a repetition and write the summary anew."""
        self.results[number] = result
        ordered = [self.results[n] for n in sorted(self.results)]
        text = chance.as_json(self.lab.name, self.settings.seed or 0, ordered)
        write_file(self.folder / chance.FILE, text)


class _Run:
    """One run of a lab while it is under way."""

    def __init__(
        self,
        lab: Lab,
        settings: Settings,
        chosen: Sequence[str],
        named: bool,
        faults: bool,
        series: _Series | None,
        number: int,
    ) -> None:
        self.lab = lab
        self.settings = settings
        self.chosen = chosen
        self.series = series
        self.number = number
        self.named = named
        self.topology = load(lab.folder / lab.topology)
        self.began = False
        self.result: LabResult | None = None
        self.missing = {_Task(name, name) for name in chosen}
        if faults:
            self.missing |= {
                _Task(fault.on, f"faults/{n:02}-{_slug(fault.name)}", fault)
                for n, fault in enumerate(lab.faults, 1)
                if fault.on in chosen
            }
        self.pace = lab.paces[0]
        self.order: list[_VJob] = []
        self._ended: dict[_Task, VariationResult] = {}

    @cached_property
    def folder(self) -> Path:
        """The folder of the run, made when its first job starts."""
        self.began = True
        if self.series is not None:
            path = self.series.folder / f"{self.number:02}"
            make_folders(path, calling_user(os.environ, os.geteuid()))
            return path
        return new_run(self.settings.root, self.lab.name, now_ns=time.time_ns())

    def _begin(self) -> None:
        self.folder  # noqa: B018 - it is made here, before the job's process is

    def jobs(self) -> Iterator[tuple[_VJob, _Task]]:
        """Yield a job for each task."""
        usual = _durations(self.lab)
        for task in sorted(self.missing, key=lambda task: task.at):
            usually = self.lab.variations[task.variation].takes or usual.get(task.variation, 5.0)
            job = self._job(task, usually)
            self.order.append(job)
            yield job, task

    def _job(self, task: _Task, seconds: float) -> _VJob:
        lab, settings = self.lab, self.settings
        variation = lab.variations[task.variation]
        if task.fault is not None:
            variation = vary(variation, task.fault.variation)
        label = f"{lab.name} {task.variation}" + (
            f", fault: {task.fault.name}" if task.fault else ""
        )
        if self.series is not None:
            label += f", {self.number} of {settings.repeat}"

        def work(say: Say) -> VariationResult:
            pace = self.pace  # as it is when the job starts
            it = at_pace(pace, variation)
            seeds: dict[str, int] = {}
            if settings.seed is not None:
                it, seeds = _seeded(lab, self.topology, it, settings.seed, self.number)
            return _attempt(
                _Attempt(lab, self.topology, it, task.variation, label, task.fault, seeds, pace),
                self.folder / task.at,
                settings,
                say,
            )

        weight = (
            ALONE if lab.runs_alone(task.variation) else _weight(self.topology, variation, settings)
        )
        limit = lab.minutes * 60 + variation.takes
        return Job(label, work, weight, seconds, limit, prepare=self._begin)

    def take(self, job: _VJob, task: _Task, ending: Ending[VariationResult]) -> _VJob | None:
        """Take the end of a job; return one to run instead where this one was disturbed.

        A recording that others beside it have made suspect is not kept: the same runs once more,
        alone. If it still is, and the lab knows slower paces, the next one is taken, for what comes
        after it too. What a check says has no part in that. That of a fault is kept where its
        stamp does not matter.
        """
        path = self.folder / task.at
        result = ending.result
        if result is None:
            mark_interrupted(path, ending.reason)
            status: Status = "interrupted" if ending.reason == pool.INTERRUPTED else "error"
            summary = self.lab.variations[task.variation].summary
            result = VariationResult(task.variation, status, summary, ending.reason, path.name)
            if status == "error":
                self.settings.watch.said(job, f"{job.name}: error, {ending.reason}")
        elif self._disturbed(task, result) and (ending.beside or self._slower):
            how = "alone"
            if not ending.beside:
                self.pace = self._slower
                how = f"every rate divided by {self.pace}"
            why = result.fidelity_reasons[0]
            self.settings.watch.said(job, f"{job.name}: disturbed ({why}); runs again, {how}")
            shutil.rmtree(path)
            return replace(job, weight=ALONE)
        self.missing.discard(task)
        self._ended[task] = result
        return None

    def _disturbed(self, task: _Task, result: VariationResult) -> bool:
        """Tell whether what came of a task is worth less for what the machine did to it."""
        if task.fault is None or result.fidelity == "invalid":
            return result.fidelity in ("suspect", "invalid")
        breaks = task.fault.breaks
        return result.fidelity == "suspect" and any(
            check.timing for check in self.lab.checks if check.name == breaks
        )

    @property
    def _slower(self) -> int:
        """The next pace of the lab, 0 if there is none."""
        return min((pace for pace in self.lab.paces if pace > self.pace), default=0)

    def finish(self, *, interrupted: bool = False) -> LabResult:
        """Judge what was recorded and write the results."""
        lab, folder = self.lab, self.folder
        plain = {task.variation: r for task, r in self._ended.items() if task.fault is None}
        results = [plain[name] for name in self.chosen if name in plain]
        recordings = {r.name: Recording.open(folder / r.name) for r in results if r.status == "ran"}
        waiting = [] if self.named else _on_request(lab, self.chosen)
        skipped = {r.name: r.reason for r in (*results, *waiting) if r.status == "skipped"}
        interrupted = interrupted or any(r.status == "interrupted" for r in self._ended.values())
        checks = () if interrupted else judging.judge(lab, recordings, skipped)
        found: list[FaultResult] = []
        for task, r in sorted(self._ended.items(), key=lambda pair: pair[0].at):
            if task.fault is not None and r.status not in ("interrupted", "not run"):
                found.append(_weighed(lab, task.fault, r, folder / task.at, recordings, skipped))
        results += [
            VariationResult(name, "not run", lab.variations[name].summary)
            for name in self.chosen
            if name not in plain
        ]
        if interrupted and all(r.status != "interrupted" for r in results):
            what = "faults" if self.missing else "checks"
            results.append(VariationResult(what, "interrupted", reason="interrupted"))
        results += waiting
        name = folder.name if self.series is None else f"{folder.parent.name}/{folder.name}"
        result = LabResult(
            lab.name,
            lab.title,
            name,
            tuple(results),
            checks,
            tuple(found),
            _provenance(recordings.values()),
        )
        write_file(folder / judging.CHECKS, result.json_text)
        write_file(folder / "junit.xml", junit([result]))
        if self.series is not None:
            self.series.add(self.number, result)
        self.result = result
        return result


def _durations(lab: Lab) -> Mapping[str, float]:
    """Return how many seconds each variation took when the committed recording was made."""
    try:
        text = (lab.folder / "recording" / judging.CHECKS).read_text(encoding="utf-8")
        return {name: found.seconds for name, found in skip_reasons(text).items()}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _seeded(
    lab: Lab, topology: Topology, variation: Variation, seed: int, number: int
) -> tuple[Variation, dict[str, int]]:
    """Return a variation with the seeds of a repetition, and those seeds by what they are for."""
    seeds = chance.seeded(variation.change(topology), seed, number)[1]

    def change(topology: Topology) -> Topology:
        return chance.seeded(variation.change(topology), seed, number)[0]

    options = dict(variation.options)
    if "seed" in inspect.signature(lab.run).parameters:
        options["seed"] = seeds["scenario"] = chance.derived(seed, number, "scenario")
    return Variation(change, MappingProxyType(options), variation.summary), seeds


def _weight(topology: Topology, variation: Variation, settings: Settings) -> float:
    """Return 1 for a plain network and 1 more for each link that a userspace wire has to serve."""
    try:
        plan = build(variation.change(topology), settings.capabilities, settings.impair)
    except CapabilityError:
        return 0.0
    return 1.0 + sum(name == "wire" for name in backends(plan).values())


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What is to be tried: a variation (perhaps with a fault in it) under a name and a label."""

    lab: Lab
    topology: Topology
    variation: Variation
    name: str
    label: str
    fault: Fault | None
    seeds: Mapping[str, int]
    pace: int


def _attempt(it: _Attempt, path: Path, settings: Settings, say: Say) -> VariationResult:
    """Play the scenario of one variation into a recording at `path`."""
    began = time.monotonic()

    def result(status: Status, reason: str = "") -> VariationResult:
        seconds = round(time.monotonic() - began, 3)
        return VariationResult(it.name, status, it.variation.summary, reason, path.name, seconds)

    changed = it.variation.change(it.topology)
    try:
        plan = build(changed, settings.capabilities, settings.impair)
    except CapabilityError as error:
        say(f"{it.label}: skipped, {error}")
        return result("skipped", str(error))
    say(f"{it.label}: running")
    try:
        with Recording.create_at(
            path,
            it.lab.name,
            it.name,
            fault=it.fault.name if it.fault else None,
            options=_options(it.lab, it.variation),
            seeds=dict(it.seeds),
            pace=it.pace,
            hz=settings.capabilities.hz if settings.capabilities else None,
        ) as writer:
            resolved = dump_json(changed)
            writer.write_text("topology.resolved.json", resolved)
            writer.note(topology_sha256=hashlib.sha256(resolved.encode()).hexdigest())
            _play(it.lab, changed, plan, it.variation, writer, settings)
    except KeyboardInterrupt:
        mark_interrupted(path, "interrupted")  # should it have come before the writer was there
        return result("interrupted", "interrupted")
    except CapabilityError as error:
        say(f"{it.label}: skipped, {error}")
        return result("skipped", str(error))
    except NetlabError as error:
        say(f"{it.label}: error, {error}")
        failed = result("error", str(error))
        if not (path / MANIFEST).exists():
            return failed
        return _stamped(failed, fidelity.stamp(Recording.open(path)))  # it may tell why
    manifest = Recording.open(path).manifest
    say(f"{it.label}: ran for {time.monotonic() - began:.1f} s")
    return _stamped(result("ran"), fidelity.Stamp(manifest.fidelity, manifest.fidelity_reasons))


def _stamped(result: VariationResult, seen: fidelity.Stamp) -> VariationResult:
    return replace(result, fidelity=seen.level, fidelity_reasons=seen.reasons)


def _play(
    lab: Lab,
    topology: Topology,
    plan: Plan,
    variation: Variation,
    writer: RecordingWriter,
    settings: Settings,
) -> None:
    with open_stage(
        topology,
        writer,
        rootless=settings.rootless,
        plan=plan,
        watch=True,
        calibrate=settings.calibrate,
    ) as stage:
        writer.note(scale=stage.scale, sysctls=_sysctls(stage), tools=_tools(stage))
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
    seen = fidelity.stamp(Recording(writer.path, writer.manifest))
    writer.note(fidelity=seen.level, fidelity_reasons=seen.reasons)


def _weighed(
    lab: Lab,
    fault: Fault,
    result: VariationResult,
    path: Path,
    recordings: Mapping[str, Recording],
    skipped: Mapping[str, str],
) -> FaultResult:
    """See which checks a fault broke, from its recording at `path`."""
    base = FaultResult(fault.name, fault.on, fault.breaks, Outcome.FAIL)
    if result.status == "skipped":
        return replace(base, outcome=Outcome.SKIP, reason=result.reason)
    if result.status != "ran":
        return replace(base, reason=f"the scenario did not come to its end: {result.reason}")
    found = {**recordings, fault.on: Recording.open(path)}
    checks = judging.judge(lab, found, skipped)
    mine = [c for c in checks if fault.on in c.variations]
    doubted = [c for c in mine if c.verdict.outcome is Outcome.INCONCLUSIVE]
    used = {fault.on}.union(*(c.variations for c in doubted)) & found.keys()
    levels = {found[name].manifest.fidelity for name in used}
    return weigh(base, fault, mine, faithful=levels <= {"ok", "unknown"})


def weigh(
    base: FaultResult, fault: Fault, checks: Iterable[CheckResult], *, faithful: bool = True
) -> FaultResult:
    """Say whether a fault broke exactly what it should; `checks` are those of its variation.

    Where a recording is not `faithful`, the fault's or one it is compared with, a check that is
    inconclusive proves nothing either way.
    """
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
    failed = {name for name, found in not_passed.items() if found is Outcome.FAIL}
    if reasons and not faithful and failed <= {fault.breaks, *fault.also}:
        outcome = Outcome.INCONCLUSIVE
        reasons.append("but the recording is not faithful")
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
