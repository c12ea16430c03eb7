"""The report of a run, or of captures alone: which sections a page has, and what they say.

Pure: what is read lies in the run's folder. Verdicts are those written beside the recordings
(`checks.json`); `netlab lab check` judges anew.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, cast

from netlab import units
from netlab.analysis import ss
from netlab.analysis.capture import Summary, summarize
from netlab.analysis.verdict import frames_of
from netlab.errors import NetlabError, RecordingError
from netlab.model import graph, yaml
from netlab.recording import Recording
from netlab.report import glossary, scene
from netlab.report.page import Html, Section, badge, details, render, table
from netlab.report.scene import Scene

CHECKS = "checks.json"
EXPLAINED = 5
"""Sockets of one state in one snapshot whose words are explained; the others are alike."""
RUN = "This page was made from recordings; nothing of it needs a network."
_OUTCOMES = {"pass": "pass ✓", "fail": "fail ✗", "skip": "skip –", "inconclusive": "inconclusive ?"}


def of_run(path: Path, *, plotly: str | None = None) -> str:
    """Return the page of a run (or of one recording of it); RecordingError if it is neither."""
    kept = recordings(path)
    told = checks(path)
    scenes = [scene.of_recording(recording) for recording in kept]
    by_name = {one.name: (at, one) for at, one in enumerate(scenes)}
    first = kept[0].manifest
    title = f"{told.get('title', first.lab)}"
    judged = verdicts(told, by_name) or _hint("No verdicts lie beside this.")
    sections = [
        Section("verdicts", "Verdicts", _doubts(kept) + judged),
        *_network(kept[0]),
    ]
    if len(scenes) > 1:
        sections.append(Section("figures", "Side by side", _side_by_side(kept, scenes, told)))
    after: list[Section] = []
    for at, recording in enumerate(kept):
        after += _recorded(at, recording, scenes[at])
    stamp = _stamp(kept)
    return render(title, sections, scenes, badge=stamp, plotly=plotly, after=after)


def of_captures(paths: Mapping[str, Path], *, plotly: str | None = None) -> str:
    """Return the page of captures by the name of their point; CaptureError if one is none."""
    summaries = {point: summarize(path) for point, path in paths.items()}
    drawn = scene.of_captures("this capture", paths)
    names = [path.name for path in paths.values()]
    sections: list[Section] = [
        Section("findings", "Findings", _damage(summaries) + _findings(0, drawn)),
        Section("file", "Capture" if len(paths) == 1 else "Captures", _files(summaries)),
    ]
    after = [Section("flows", "Flows", _flows(summaries))]
    charts = plotly if drawn.data["conversations"] else None
    return render(", ".join(names), sections, [drawn], plotly=charts, after=after)


def recordings(path: Path) -> list[Recording]:
    """Return the recordings of a run, planted faults left out."""
    if (path / "manifest.json").exists() or not path.is_dir():
        return [Recording.open(path)]
    found = [Recording.open(manifest.parent) for manifest in path.glob("*/manifest.json")]
    found = [one for one in found if one.manifest.fault is None]
    if not found:
        raise RecordingError(f"{path} is not a recording: it has no manifest.json")
    order = [str(one["name"]) for one in checks(path).get("variations", ())]

    def place(one: Recording) -> tuple[int, str]:
        name = one.manifest.variation or one.path.name
        return (order.index(name) if name in order else len(order), name)

    return sorted(found, key=place)


def checks(path: Path) -> dict[str, Any]:
    """Return what `checks.json` says of a run; empty where there is none."""
    folder = path if (path / CHECKS).is_file() else path.parent
    try:
        read = json.loads((folder / CHECKS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}


# -- a run ------------------------------------------------------------------------------------


def _stamp(recordings: Iterable[Recording]) -> str:
    """Return the worst fidelity of the recordings as a badge."""
    said = {one.manifest.fidelity for one in recordings}
    worst = next((word for word in ("invalid", "suspect", "unknown") if word in said), "ok")
    return badge(f"fidelity: {worst}", worst)


def _doubts(recordings: Iterable[Recording]) -> str:
    """Return why the fidelity of a run is in doubt, in words; nothing if it is not."""
    reasons = [
        f"<li>{escape(f'{one.manifest.variation}: {why}')}</li>"
        for one in recordings
        for why in one.manifest.fidelity_reasons
    ]
    if not reasons:
        return ""
    return f"<p>What the machine did to the run:</p><ul>{''.join(reasons)}</ul>"


def _hint(text: str) -> str:
    return f'<p class="nl-hint">{escape(text)}</p>'


def verdicts(told: Mapping[str, Any], scenes: Mapping[str, tuple[int, Scene]] | None = None) -> str:
    """Return the verdicts: totals, then a table for each variation, or each set of them.

    A verdict leads to the packets it names, where `scenes` has the one of its variation.
    """
    checks: list[dict[str, Any]] = list(told.get("checks", ()))
    if not checks:
        return ""
    counts: dict[str, int] = {}
    for check in checks:
        outcome = str(check["verdict"]["outcome"])
        counts[outcome] = counts.get(outcome, 0) + 1
    words = ", ".join(f"{count} {name}" for name, count in counts.items())
    parts = [f"<p>{len(checks)} checks: {escape(words)}.</p>"]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for check in checks:
        groups.setdefault(tuple(check["variations"]), []).append(check)
    variations = {str(v["name"]): v for v in told.get("variations", ())}
    for names, members in sorted(groups.items(), key=lambda item: len(item[0]) > 1):
        bad = any(c["verdict"]["outcome"] in ("fail", "inconclusive") for c in members)
        summary = " against ".join(names)
        if len(names) == 1 and (known := variations.get(names[0])):
            summary += f": {known['summary']}" if known.get("summary") else ""
        tally = sum(c["verdict"]["outcome"] == "pass" for c in members)
        heading = f"{summary} ({tally} of {len(members)} passed)"
        shown = (scenes or {}).get(names[0]) if len(names) == 1 else None
        listed = _verdict_table(members, shown)
        parts.append(details(heading, listed, opened=bad or len(groups) <= 3))
    parts += [
        f"<p>{escape(str(v['name']))}: {_outcome('skip')} {escape(str(v.get('reason', '')))}</p>"
        for v in variations.values()
        if v.get("status") != "ran"
    ]
    return "".join(parts)


def _verdict_table(checks: Sequence[Mapping[str, Any]], shown: tuple[int, Scene] | None) -> str:
    rows: list[Sequence[object]] = []
    for check in checks:
        verdict = check["verdict"]
        claim = Html(
            f'<span class="nl-claim" title="{escape(str(check["claim"]))}">'
            f"{escape(check['sentence'])}</span>"
        )
        observed: str = verdict.get("reason") or verdict.get("observed", "")
        if shown is not None and (way := _evidence(verdict.get("evidence", ()), *shown)):
            observed = Html(f"{escape(observed)} {way}")
        rows.append([_outcome(verdict["outcome"]), claim, observed, verdict.get("bound", "")])
    return table(("", "check", "observed", "expected"), rows, kind="nl-checks nl-cards")


def _evidence(places: Iterable[str], at: int, one: Scene) -> str:
    """Return the way from a verdict to the packets that its evidence names, if it names any."""
    named = [found for place in places if (found := frames_of(place)) is not None]
    passages = sorted({n for point, frames in named for n in one.passages(point, frames)})
    return _way(at, "packets", " ".join(map(str, passages)), len(passages))


def _way(at: int, name: str, value: object, count: int) -> str:
    """Return a link that marks packets of a scene in its ladder; nothing for no packets."""
    if not count:
        return ""
    words = f"show {count:,} packets" if count > 1 else "show the packet"
    return f'<a class="nl-way" href="#packets" data-scene="{at}" data-{name}="{value}">{words}</a>'


def _outcome(word: str) -> Html:
    shown = _OUTCOMES.get(word, word)
    return Html(f'<span class="nl-outcome nl-{escape(word)}">{escape(shown)}</span>')


def _network(recording: Recording) -> Iterator[Section]:
    """Yield the picture of the topology; nothing where it cannot be read."""
    try:
        topology = yaml.loads(recording.text("topology.resolved.json"), "topology.resolved.json")
        picture = graph.svg(topology)
    except (NetlabError, OSError):
        return
    # An image of its own, so that its styles do not reach the page.
    data = base64.b64encode(picture.encode()).decode()
    alt = escape(graph.description(topology))
    image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
    yield Section("network", "Network", f'<div class="nl-network nl-wide">{image}</div>')


_FIGURES = (
    "packets", "seconds", "handshake, ms", "data, octets", "sent again", "lost on the way",
    "RTT, ms (median)", "checks passed",
)  # fmt: skip


def _side_by_side(
    recordings: Sequence[Recording], scenes: Sequence[Scene], told: Mapping[str, Any]
) -> str:
    """Return figures of all variations in one table."""
    checks: list[dict[str, Any]] = list(told.get("checks", ()))
    changed = {str(v["name"]): str(v.get("summary", "")) for v in told.get("variations", ())}
    rows: list[Sequence[object]] = []
    for recording, one in zip(recordings, scenes, strict=True):
        name = recording.manifest.variation or one.name
        mine = [c for c in checks if c["variations"] == [name]]
        passed = sum(c["verdict"]["outcome"] == "pass" for c in mine)
        tally = f"{passed} of {len(mine)}" if mine else ""
        rows.append([name, changed.get(name, ""), *_figures(one), tally])
    return table(("variation", "what is changed", *_FIGURES), rows)


def _figures(one: Scene) -> list[object]:
    passages = cast("Mapping[str, list[Any]]", one.data["passages"])
    sights = passages["sights"]
    times = [sight[1] for sight in sights]
    span = (max(times) - min(times)) / 1e9 if times else 0.0
    rtts = [rtt / 1e6 for rtt in passages["rtt"] if rtt is not None]
    first: dict[int, int] = {}  # by conversation: when its SYN was seen first
    handshake = None
    for sight, flags, number in zip(
        sights, passages["flags"], passages["conversation"], strict=True
    ):
        if flags & 0x12 == 0x02:
            first.setdefault(number, sight[1])
        elif flags & 0x12 == 0x12 and number in first:
            handshake = round((sight[-2] - first[number]) / 1e6, 3)
            break
    return [
        len(times),
        round(span, 3),
        handshake,
        sum(passages["length"]),
        sum(again is not None for again in passages["repeats"]),
        sum(lost >= 0 for lost in passages["lost"]),
        round(median(rtts), 3) if rtts else None,
    ]


# -- what lies in one recording ----------------------------------------------------------------


def _recorded(at: int, recording: Recording, one: Scene) -> Iterator[Section]:
    """Yield the sections of one variation that are shown with its packets."""
    if one.data["findings"]:
        yield Section("findings", "Findings", _findings(at, one), at)
    sockets = "".join(_snapshots(recording))
    if sockets:
        yield Section("sockets", "Sockets (ss)", sockets, at)
    yield Section("settings", "Settings and provenance", _settings(recording), at)
    yield Section("again", "Run it again", _again(recording), at)


def _findings(at: int, one: Scene) -> str:
    """Return what stands out in the captures of a scene, each with the way to its packets."""
    found = cast("list[dict[str, Any]]", one.data["findings"])
    several = len(one.data["points"]) > 1
    rows: list[Sequence[object]] = []
    for number, finding in enumerate(found):
        way = _way(at, "finding", number, len(finding["passages"]))
        row: list[object] = [
            _severity(finding["severity"]),
            Html(f'<span class="nl-claim">{escape(finding["sentence"])}</span> {way}'),
            _filter(finding["filter"]),
        ]
        rows.append([finding["point"], *row] if several else row)
    head = ("", "finding", "Wireshark display filter")
    head = ("seen at", *head) if several else head
    return table(head, rows, kind="nl-cards") if rows else _hint("Nothing stands out.")


def _severity(word: str) -> Html:
    return badge(word, "suspect" if word == "warning" else "ok")


def _filter(text: str) -> Html:
    return Html(f"<code>{escape(text)}</code>" if text else "")


def _snapshots(recording: Recording) -> Iterator[str]:
    """Yield every snapshot of `ss`, each word of it explained."""
    for event in recording.timeline():
        if event.kind != "snapshot":
            continue
        name = str(event.fields.get("file", ""))
        try:
            text = recording.text(name)
            sockets = ss.parse(text)
        except (RecordingError, ValueError, OSError):
            continue
        label = f"{event.fields.get('node')}, {event.fields.get('label')}"
        states = Counter(one.state for one in sockets)
        counted = [f"{n} {state}" if n > 1 else state for state, n in states.items()]
        shown = list(_first_of_each(sockets))
        more = len(sockets) - len(shown)
        note = _hint(f"{more:,} more like these stand below, as ss printed them.") if more else ""
        raw = details("as ss printed it", f"<pre>{escape(text)}</pre>")
        heading = f"{label}: {', '.join(counted) or 'no sockets'}"
        yield details(heading, "".join(map(_socket, shown)) + note + raw)


def _first_of_each(sockets: Iterable[ss.Socket]) -> Iterator[ss.Socket]:
    """Yield the first `EXPLAINED` sockets of each state."""
    seen: Counter[str] = Counter()
    for one in sockets:
        seen[one.state] += 1
        if seen[one.state] <= EXPLAINED:
            yield one


def _socket(one: ss.Socket) -> str:
    listens = one.state == "LISTEN"
    rows: list[Sequence[object]] = [
        ["Recv-Q", one.recv_q,
         "connections that wait to be accepted" if listens else "octets the program has not read"],
        ["Send-Q", one.send_q,
         "how many may wait" if listens else "octets the peer has not acknowledged"],
    ]  # fmt: skip
    if one.timer is not None:
        kind = glossary.TIMERS.get(one.timer.kind, one.timer.kind)
        left = units.format_time(round(one.timer.expires, 6))
        rows.append(["timer", f"{left}, {one.timer.retransmits} times before", kind])
    if one.congestion:
        rows.append(["congestion control", one.congestion, "algorithm of this socket"])
    rows += [[word, "yes", glossary.explain(word)] for word in sorted(one.flags)]
    rows += [[word, value, glossary.explain(word)] for word, value in one.values.items()]
    rows += [[word, value, glossary.explain(word)] for word, value in one.skmem.items()]
    rows += [[word, "", "not explained here"] for word in one.unknown]
    head = f"<p><b>{escape(one.state)}</b> {escape(one.local.text)} → {escape(one.peer.text)}</p>"
    body = table(("word", "value", "meaning"), rows)
    return f'<div class="nl-socket">{head}{details("its figures, explained", body)}</div>'


def _settings(recording: Recording) -> str:
    manifest = recording.manifest
    rows: list[Sequence[object]] = [
        ["kernel", f"{manifest.kernel} ({manifest.machine})"],
        ["netlab", manifest.netlab],
        ["impairments by", manifest.backend],
        ["status", manifest.status + (f": {manifest.reason}" if manifest.reason else "")],
        ["fidelity", "; ".join((manifest.fidelity, *manifest.fidelity_reasons))],
        ["took", f"{max(0, manifest.ended_ns - manifest.started_ns) / 1e9:.3f} s"],
        ["topology", manifest.topology_sha256],
    ]
    rows += [
        [f"option {name}", str(value) or "nothing"] for name, value in manifest.options.items()
    ]
    rows += [[f"seed of {name}", str(value)] for name, value in manifest.seeds.items()]
    parts = [table(("setting", "value"), rows, kind="nl-settings")]
    nodes = sorted(manifest.sysctls)
    keys = sorted({key for node in nodes for key in manifest.sysctls[node]})
    if keys:
        lines = [[key, *(manifest.sysctls[node].get(key) for node in nodes)] for key in keys]
        parts.append(details("sysctls", table(("sysctl", *nodes), lines)))
    if manifest.files:
        files = [[name, digest.size, digest.sha256] for name, digest in manifest.files.items()]
        parts.append(details("files of the recording", table(("file", "octets", "sha256"), files)))
    return "".join(parts)


def _again(recording: Recording) -> str:
    manifest = recording.manifest
    variation = f" --variation {manifest.variation}" if manifest.variation else ""
    command = f"netlab lab run {manifest.lab}{variation}"
    check = f"netlab lab check results/{manifest.lab}/{manifest.run}"
    return (
        f"<pre>{escape(command)}</pre><p>Judge the recording again, without running anything:</p>"
        f"<pre>{escape(check)}</pre>{_hint(RUN)}"
    )


# -- captures alone ---------------------------------------------------------------------------


def _damage(summaries: Mapping[str, Summary]) -> str:
    """Return what is wrong with the files, in words."""
    several = len(summaries) > 1
    warnings = [
        f"{point}: {text}" if several else text
        for point, summary in summaries.items()
        for text in summary.warnings
    ]
    listed = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<ul class="nl-illegal">{listed}</ul>' if warnings else ""


def _files(summaries: Mapping[str, Summary]) -> str:
    rows: list[Sequence[object]] = []
    for point, summary in summaries.items():
        totals = summary.totals
        names = ", ".join(str(i["name"]) for i in totals["interfaces"][:8] if i["name"])
        rows.append(
            [point, totals["format"], summary.packets, totals["bytes"],
             round(summary.duration_ns / 1e9, 6), len(summary.flows), names]
        )  # fmt: skip
    head = ("capture", "format", "packets", "octets", "seconds", "flows", "interfaces")
    return table(head, rows)


_FLOW = (
    "stream", "proto", "orig_h", "orig_p", "resp_h", "resp_p", "orig_pkts", "resp_pkts",
    "orig_payload_bytes", "resp_payload_bytes", "duration", "initial_rtt",
    "orig_retransmission", "resp_retransmission", "conn_state", "closed_by",
)  # fmt: skip
_FLOW_HEADS = (
    "stream", "", "opener", "answerer", "packets →", "packets ←", "octets →", "octets ←",
    "duration, s", "RTT, ms", "again →", "again ←", "outcome", "closed first by",
)  # fmt: skip
_STATES = {
    "S0": "not answered", "S1": "still open", "SF": "opened and closed", "REJ": "refused",
    "S2": "closed by the opener alone", "S3": "closed by the answerer alone",
    "RSTO": "reset by the opener", "RSTR": "reset by the answerer",
    "RSTOS0": "reset by the opener, unanswered", "RSTRH": "SYN not seen, reset by the answerer",
    "SH": "closed by the opener, unanswered", "SHR": "SYN not seen, closed by the answerer",
    "OTH": "beginning not seen",
}  # fmt: skip
"""What the codes of Zeek's conn.log mean of a TCP connection."""
_CLOSED_BY = {
    "orig_fin": "FIN, opener", "resp_fin": "FIN, answerer",
    "orig_rst": "RST, opener", "resp_rst": "RST, answerer",
}  # fmt: skip
_SHOWN = 100


def _flows(summaries: Mapping[str, Summary]) -> str:
    parts: list[str] = []
    for point, summary in summaries.items():
        flows = summary.flows
        order = flows.rows_sorted("orig_bytes + resp_bytes")[:_SHOWN]
        columns = [flows.column(name) for name in _FLOW]
        rows = [_flow([column[row] for column in columns]) for row in order]
        more = len(flows) - len(rows)
        note = _hint(f"The {len(rows)} largest; {more:,} more.") if more > 0 else ""
        title = f"<h3>{escape(point)}</h3>" if len(summaries) > 1 else ""
        shown = table(_FLOW_HEADS, rows) if rows else _hint("There is no TCP, UDP or ICMP in it.")
        parts.append(title + note + shown)
    return "".join(parts)


def _flow(row: Sequence[Any]) -> list[object]:
    stream, protocol, opener, port, answerer, its_port, *counts, state, closed = row
    *counts, duration, rtt, again, again_back = counts
    said = _STATES.get(state, state) if protocol == "tcp" else ""
    return [
        str(stream), protocol, _end(opener, port), _end(answerer, its_port), *counts,
        _in(1e9, duration), _in(1e6, rtt), again, again_back, said, _CLOSED_BY.get(closed, closed),
    ]  # fmt: skip


def _in(unit: float, nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / unit, 3)


def _end(address: str, port: int | None) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
