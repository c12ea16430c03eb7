"""netlab in a notebook: runs as objects that show themselves, tables without a copy.

    import netlab
    run = netlab.open("results/handshake/latest")     # or the name of a lab, or a capture
    run                                               # verdicts
    run["ipv4"].flows()                               # an Arrow table: polars.DataFrame(it)
    run["ipv4"].ladder()                              # ladder and header inspector, to click

Needs `pip install 'netlab-tcpip[notebook]'` for the ladder; everything else needs nothing more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlab.analysis import points
from netlab.analysis.capture import Summary, Table, summarize
from netlab.analysis.evidence import Evidence
from netlab.analysis.rows import Flow, Segment
from netlab.errors import CapabilityError, NetlabError, RecordingError, UsageError
from netlab.recording import Recording
from netlab.recording.manifest import Manifest
from netlab.report import document, page, scene

if TYPE_CHECKING:
    from netlab.analysis.journey import Journeys
    from netlab.analysis.samples import Samples
    from netlab.analysis.ss import Socket
    from netlab.labs.answers import Judgement

__all__ = ["Capture", "Run", "Variation", "answer", "open", "run_lab"]


@dataclass(frozen=True, slots=True)
class Page:
    """HTML that a notebook shows."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


class Capture:
    """One capture: its summary, flows, segments, and the ladder of its packets."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    @cached_property
    def summary(self) -> Summary:
        """What the capture holds."""
        return summarize(self.path)

    def flows(self) -> Table[Flow]:
        """Return a row for each flow; an Arrow stream for polars, duckdb, pyarrow."""
        return self.summary.flows

    def segments(self, stream: int | None = None) -> Table[Segment]:
        """Return a row for each TCP segment, of one stream or of all."""
        return self.summary.segments(stream)

    def ladder(self) -> Any:
        """Return the ladder with its header inspector, as a widget."""
        return _widget(scene.of_captures(self.name, {self.name: self.path}))

    def __repr__(self) -> str:
        return f"<capture {self.name}: {self.summary.packets:,} packets>"

    def _repr_html_(self) -> str:
        return self.summary._repr_html_()  # pyright: ignore[reportPrivateUsage] - ours


class Variation:
    """One recording of a run: what was captured, sampled and printed in one variation."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.evidence = Evidence(recording)

    @property
    def name(self) -> str:
        """The name of the variation."""
        return self.recording.manifest.variation or self.recording.manifest.run

    @property
    def manifest(self) -> Manifest:
        """Under what conditions it ran."""
        return self.recording.manifest

    @cached_property
    def captures(self) -> Mapping[str, Capture]:
        """The captures by their point, such as "client:eth0"."""
        return {p.name: Capture(p.name, p.path) for p in points.of(self.evidence)}

    def capture(self, point: str | None = None) -> Capture:
        """Return a capture; the first where `point` is not given."""
        if not self.captures:
            raise RecordingError(f"{self.name} has no captures")
        if point is None:
            return next(iter(self.captures.values()))
        if point not in self.captures:
            raise UsageError(
                f"there is no capture '{point}'", hint=f"it has {_list(self.captures)}"
            )
        return self.captures[point]

    def flows(self, point: str | None = None) -> Table[Flow]:
        """Return the flows at a point, the first unless it is named."""
        return self.capture(point).flows()

    def segments(self, point: str | None = None, stream: int | None = None) -> Table[Segment]:
        """Return the segments at a point, the first unless it is named."""
        return self.capture(point).segments(stream)

    def samples(self, node: str) -> Samples:
        """Return the tcp_info samples of a node."""
        return self.evidence.samples(node)

    def tcp_info(self, node: str) -> dict[str, list[Any]]:
        """Return the samples of a node as columns: `polars.DataFrame(it)` makes a table.

        Times are ns since 1970; the rest are the kernel's units (include/uapi/linux/tcp.h).
        """
        rows = [
            {"at_ns": sample.at_ns, "state": one.state, "lport": one.lport, "rport": one.rport}
            | {key: value for key, value in one.info.items() if isinstance(value, int | float)}
            for sample in self.samples(node).samples
            for one in sample.sockets
        ]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}

    def snapshots(self, node: str) -> Mapping[str, tuple[Socket, ...]]:
        """Return what `ss` showed on a node, by label."""
        return self.evidence.snapshots(node)

    def journeys(self) -> Journeys:
        """Return what became of every packet over all points."""
        from netlab.analysis import datagrams, segments
        from netlab.analysis.journey import follow

        found = tuple(points.of(self.evidence))
        packets = {
            p.name: sorted(
                (*segments.load(p.path), *datagrams.load(p.path)), key=lambda s: s.time_ns
            )
            for p in found
        }
        return follow(packets, **points.known(self.recording, found))

    def ladder(self) -> Any:
        """Return the ladder over all points with its header inspector, as a widget."""
        return _widget(scene.of_recording(self.recording))

    def __repr__(self) -> str:
        return f"<variation {self.name}: {self.manifest.status}, captures {_list(self.captures)}>"

    def _repr_html_(self) -> str:
        rows = [
            [name, one.summary.packets, len(one.flows())] for name, one in self.captures.items()
        ]
        head = f"<p><b>{escape(self.name)}</b>, kernel {escape(self.manifest.kernel)}</p>"
        return head + page.table(("captured at", "packets", "flows"), rows)


class Run(Mapping[str, Variation]):
    """A run of a lab: its variations by name, and its verdicts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._variations = {
            variation.name: variation for variation in map(Variation, document.recordings(path))
        }

    def __getitem__(self, name: str) -> Variation:
        return self._variations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variations)

    def __len__(self) -> int:
        return len(self._variations)

    @property
    def lab(self) -> str:
        """The name of the lab."""
        return next(iter(self.values())).manifest.lab

    @cached_property
    def verdicts(self) -> Sequence[Mapping[str, Any]]:
        """The verdicts written beside the recordings: check, variations, outcome, observed."""
        return [
            {
                "check": check["check"],
                "variations": ", ".join(check["variations"]),
                "outcome": check["verdict"]["outcome"],
                "observed": check["verdict"].get("observed", ""),
                "expected": check["verdict"].get("bound", ""),
            }
            for check in document.checks(self.path).get("checks", ())
        ]

    def report(self, output: Path | str | None = None) -> Path:
        """Write the report as one HTML file and return where; default: report.html in the run."""
        target = Path(output) if output is not None else self.path / "report.html"
        target.write_text(document.of_run(self.path), encoding="utf-8")
        return target

    def __repr__(self) -> str:
        passed = sum(v["outcome"] == "pass" for v in self.verdicts)
        return f"<run of {self.lab}: {_list(self)}; {passed} of {len(self.verdicts)} checks passed>"

    def _repr_html_(self) -> str:
        return document.verdicts(document.checks(self.path)) or f"<p>{escape(repr(self))}</p>"


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"


def open(run: Path | str) -> Run | Capture:
    """Open a run: its folder, one recording, the name of a lab (its latest run), or a capture.

    RecordingError or CaptureError for what is neither.
    """
    path = Path(run)
    if path.is_file() and path.name != "manifest.json":
        return Capture(path.name, path)
    if not path.exists():
        latest = Path("results") / path / "latest"
        if not latest.exists():
            raise RecordingError(f"there is no run at {path}, and no lab of this name was run here")
        path = latest
    return Run(path.resolve())


def run_lab(lab: str, *, variations: Sequence[str] = (), rootless: bool | None = None) -> Run:
    """Run a lab and return the run. The kernel of the notebook need not be root.

    What the run says is printed; NetlabError if it could not be run at all.
    """
    argv = [sys.executable, "-m", "netlab", "lab", "run", lab]
    argv += [word for name in variations for word in ("--variation", name)]
    if rootless is not None:
        argv.append("--rootless" if rootless else "--no-rootless")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    if done.returncode not in (0, 1, 3, 6):
        raise NetlabError(f"{lab} could not be run: {done.stderr.strip().splitlines()[-1]}")
    found = open(lab)
    assert isinstance(found, Run)
    return found


def answer(lab: str, question: int, given: str | None, run: Run | None = None) -> Page:
    """Hold the answer to a question of a lab's guide (from 1) against what a run measured."""
    from netlab.labs import answers, discovery, guide

    found = discovery.find(lab)
    asked = [s.question for s in guide.load(found).of("predict") if s.question is not None]
    if not 1 <= question <= len(asked):
        raise UsageError(f"{lab} has questions 1 to {len(asked)}")
    recordings = {} if run is None else {name: one.recording for name, one in run.items()}
    figures = guide.measure(found, recordings) or guide.figures(found, Path("results"))[0]
    one = asked[question - 1]
    if given is not None and (wrong := answers.valid(one, given)):
        return Page(f"<p>{escape(wrong)}</p>")
    return Page(_told(question, given, answers.judge(one, given, figures)))


def _told(question: int, given: str | None, said: Judgement) -> str:
    word = {True: "right ✓", False: "not so ✗", None: "see for yourself"}[said.right]
    kind = {True: "pass", False: "fail", None: "skip"}[said.right]
    return (
        f"<p>{question}. {page.badge(word, kind)} you said <b>{escape(given or 'nothing')}</b>; "
        f"measured: {escape(said.expected)}</p>"
    )


def _widget(one: scene.Scene) -> Any:
    """Return a scene as a widget; CapabilityError where anywidget is not here."""
    try:
        from netlab.report.widget import Ladder
    except ImportError:
        raise CapabilityError(
            "the ladder needs anywidget", hint="pip install 'netlab-tcpip[notebook]'"
        ) from None
    data = json.loads(json.dumps(one.data))
    return Ladder(data=data, octets=one.octets, shared=json.loads(json.dumps(page.shared())))
