"""Checks judged on recordings alone: offline, and inconclusive where there is too little."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from netlab.analysis import fidelity
from netlab.analysis.evidence import Evidence
from netlab.analysis.verdict import Outcome, Verdict
from netlab.errors import LabDefinitionError, RecordingError, UsageError
from netlab.labs import Lab, discovery, expect, guide, judge, keep, option, runner, vary
from netlab.labs.lab import Fault
from netlab.labs.result import (
    CheckResult,
    FaultResult,
    LabResult,
    VariationResult,
    first_code,
    junit,
    skip_reasons,
)
from netlab.recording import Recording
from tests.capture import pcaps


def made() -> Lab:
    lab = Lab("A lab", variations={"one": vary(), "two": option(loss=0.5)})

    @lab.scenario
    def play(stage: object, *, loss: float = 0.0) -> None:
        """Nothing."""

    @lab.check
    def ten_segments(each: Evidence) -> Verdict:
        """The capture has ten segments."""
        return expect(len(each.capture("a:eth0").segments)).equals(10)

    @lab.check
    def the_first_is_longer(one: Evidence, two: Evidence) -> Verdict:
        """The first run says more."""
        return expect(len(one.text("a", "x"))).above(len(two.text("a", "x")))

    @lab.figure
    def figures(one: Evidence) -> dict[str, str]:
        return {"said": one.text("a", "x")}

    lab.fault(option(loss=1.0), on="one", breaks=ten_segments)
    lab.fault(option(loss=0.9), on="two", breaks=the_first_is_longer)
    return lab


def record(path: Path, variation: str, said: str, *, reason: str = "", **fields: object) -> None:
    writer = Recording.create_at(path / variation, "made", variation, **fields)
    writer.file("captures/a.eth0.pcap").write_bytes(pcaps.pcap(pcaps.handshake(), nano=True))
    writer.write_text("captures/a.eth0.json", '{"captured": 998, "dropped_by_kernel": 2}')
    writer.write_text("nodes/a/x.stdout.log", said)
    writer.write_text("snapshots/before.a.ss.txt", "ESTAB 0 0 10.0.0.1:40000 10.0.0.2:80\n")
    writer.event("snapshot", node="a", label="before")
    writer.close(reason=reason)


def load(path: Path, worst: float) -> None:
    """Say that somebody watched the machine, and saw a process wait for `worst` seconds."""
    row = {
        "span_s": 1.0, "busy": [1.0], "steal": [0.0], "dropped": 0,
        "late_log2_us": {"6": 99, str(int(worst * 1e6).bit_length() - 1): 1}, "late_max_s": worst,
    }  # fmt: skip
    file = path / fidelity.LOAD
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(row) + "\n")


def outcomes(results: tuple[CheckResult, ...]) -> list[tuple[str, str]]:
    return [("+".join(r.variations), str(r.verdict.outcome)) for r in results]


def judged(path: Path, lab: Lab | None = None) -> tuple[CheckResult, ...]:
    _, recordings, skipped = judge.open_run(path)
    return judge.judge(lab or made(), recordings, skipped)


def test_checks_of_each_and_checks_that_compare(tmp_path: Path) -> None:
    record(tmp_path, "one", "long text")
    record(tmp_path, "two", "text")
    results = judged(tmp_path)
    assert outcomes(results) == [("one", "pass"), ("two", "pass"), ("one+two", "pass")]


def test_one_recording_alone_can_be_judged(tmp_path: Path) -> None:
    record(tmp_path, "one", "long text")
    results = judged(tmp_path / "one")
    assert outcomes(results) == [("one", "pass"), ("one+two", "skip")]
    assert results[1].verdict.reason == "variation two was not run"


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("captures/a.eth0.pcap", "has no captures/a.eth0.pcap"),
        ("nodes/a/x.stdout.log", "has no nodes/a/x.stdout.log"),
    ],
)
def test_what_is_missing_makes_a_check_inconclusive(tmp_path: Path, lost: str, says: str) -> None:
    record(tmp_path, "one", "long text")
    record(tmp_path, "two", "text")
    (tmp_path / "one" / lost).unlink()
    found = [r.verdict for r in judged(tmp_path) if r.verdict.outcome is Outcome.INCONCLUSIVE]
    assert len(found) == 1
    assert says in found[0].reason


def test_a_damaged_capture_makes_a_check_inconclusive(tmp_path: Path) -> None:
    record(tmp_path, "one", "x")
    (tmp_path / "one" / "captures/a.eth0.pcap").write_bytes(b"not a capture at all")
    assert outcomes(judged(tmp_path))[0] == ("one", "inconclusive")


def test_an_interrupted_or_unfaithful_recording_decides_nothing(tmp_path: Path) -> None:
    record(tmp_path, "one", "long text", reason="interrupted")
    record(tmp_path, "two", "text", fidelity="invalid", fidelity_reasons=("steal 40 %",))
    results = judged(tmp_path)
    assert [outcome for _, outcome in outcomes(results)] == ["inconclusive"] * 3
    assert results[0].verdict.reason == "the recording of one is incomplete: interrupted"
    assert results[1].verdict.reason == "the recording of two is not faithful: steal 40 %"


def timed() -> Lab:
    lab = Lab("Timed", variations={"one": vary()})

    @lab.scenario
    def play(stage: object, *, loss: float = 0.0) -> None:
        """Nothing."""

    @lab.check(timing=True)
    def quick(each: Evidence) -> Verdict:
        """It takes a second."""
        return expect(float(each.text("a", "x")), "s").at_most(1.0)

    @lab.check
    def whole(each: Evidence) -> Verdict:
        """The figure is no question of time."""
        return expect(float(each.text("a", "x")), "s").at_most(2.0)

    return lab


@pytest.mark.parametrize(
    ("said", "worst", "outcome", "code"),
    [
        ("1.0", 0.004, ["pass", "pass"], 0),
        ("1.0", 0.08, ["pass", "pass"], 3),
        ("1.5", 0.004, ["fail", "pass"], 1),
        ("1.5", 0.08, ["inconclusive", "pass"], 6),
        ("2.5", 0.08, ["inconclusive", "fail"], 1),
    ],
)
def test_a_busy_machine_may_excuse_what_is_late_and_nothing_else(
    tmp_path: Path, said: str, worst: float, outcome: list[str], code: int
) -> None:
    record(tmp_path, "one", said)
    (tmp_path / "one" / "captures" / "a.eth0.json").unlink()
    load(tmp_path / "one", worst)
    found = judge.check_run(timed(), tmp_path)
    assert [str(result.verdict.outcome) for result in found.checks] == outcome
    assert found.exit_code() == code
    if outcome[0] == "inconclusive":
        reason = found.checks[0].verdict.reason
        assert "expected at most 1s; but the recording of one is suspect: processes" in reason


def test_a_stamp_is_made_anew_from_the_figures(tmp_path: Path) -> None:
    record(tmp_path, "one", "1", fidelity="invalid", fidelity_reasons=("limits of another day",))
    (tmp_path / "one" / "captures" / "a.eth0.json").unlink()
    load(tmp_path / "one", 0.004)
    assert judge.check_run(timed(), tmp_path).variations[0].fidelity == "ok"


def test_a_check_that_crashes_is_the_labs_fault(tmp_path: Path) -> None:
    lab = made()

    @lab.check
    def broken(one: Evidence) -> Verdict:
        """Divides by zero."""
        return expect(1 / 0).equals(1)

    record(tmp_path, "one", "x")
    with pytest.raises(LabDefinitionError, match=r"'broken'.*ZeroDivisionError.*test_judge\.py"):
        judged(tmp_path, lab)


def test_reasons_of_skips_survive_in_checks_json(tmp_path: Path) -> None:
    lab = made()
    lab.folder = tmp_path / "made"
    record(tmp_path, "one", "x")
    skipped = VariationResult("two", "skipped", reason="no netem")
    checks = judge.judge(lab, judge.open_run(tmp_path)[1], {"two": "no netem"})
    result = LabResult("made", "A lab", "r", (VariationResult("one", "ran"), skipped), checks)
    (tmp_path / "checks.json").write_text(result.json_text)
    assert skip_reasons(result.json_text)["two"].reason == "no netem"
    again = judge.check_run(lab, tmp_path)
    assert outcomes(again.checks) == [("one", "pass"), ("two", "skip"), ("one+two", "skip")]
    assert [v.status for v in again.variations] == ["ran", "skipped"]
    assert again.exit_code() == 3  # the capture lost two packets


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: None, "is not a recording: it has no manifest"),
        (lambda p: (p / "checks.json").write_text("{"), "cannot be read"),
        (lambda p: (p / "checks.json").write_text('{"variations": [{"name": "x"}]}'), "cannot be"),
        (lambda p: (record(p, "one", ""), _rename(p)), "recordings of several labs: made, other"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path: Path, make: object, says: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(RecordingError, match=says):
        judge.open_run(tmp_path)


def _rename(path: Path) -> None:
    record(path, "two", "")
    manifest = path / "two" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"lab": "made"', '"lab": "other"'))


def test_evidence_reads_what_is_there(tmp_path: Path) -> None:
    record(tmp_path, "one", 'received bytes=5 text="hello"\n')
    seen = Evidence(Recording.open(tmp_path / "one"))
    assert seen.step("a", "x", "received")["text"] == "hello"
    assert seen.states("a", 80) == {"ESTAB"}
    assert seen.capture("a:eth0").dropped == 2
    kinds = [s.kind for s in seen.capture("a:eth0").on_port(80)]
    assert kinds[:3] == ["SYN", "SYN-ACK", "ACK"]
    assert kinds[-3:] == ["FIN-ACK", "FIN-ACK", "ACK"]
    assert seen.snapshots("a")["before"][0].state == "ESTAB"


def verdicts(**found: str) -> list[CheckResult]:
    return [
        CheckResult(name, name, "", ("one",), Verdict(Outcome(outcome)))
        for name, outcome in found.items()
    ]


@pytest.mark.parametrize(
    ("found", "outcome", "reason"),
    [
        ({"a": "fail", "b": "pass"}, "pass", ""),
        ({"a": "fail", "b": "skip"}, "pass", ""),
        ({"a": "fail", "c": "fail"}, "pass", ""),
        ({"a": "pass", "b": "pass"}, "fail", "'a' did not fail"),
        ({"a": "inconclusive"}, "fail", "'a' did not fail"),
        ({"a": "fail", "b": "fail"}, "fail", "'b' did not pass either"),
        ({"a": "fail", "b": "inconclusive"}, "fail", "'b' did not pass either"),
    ],
)
def test_a_fault_breaks_exactly_what_it_names(
    found: dict[str, str], outcome: str, reason: str
) -> None:
    fault = Fault("f", vary(), "one", "a", ("c",))
    base = FaultResult("f", "one", "a", Outcome.FAIL)
    weighed = runner.weigh(base, fault, verdicts(**found))
    assert (str(weighed.outcome), weighed.reason) == (outcome, reason)


def test_a_fault_on_a_machine_too_busy_proves_nothing() -> None:
    fault = Fault("f", vary(), "one", "a", ("c",))
    base = FaultResult("f", "one", "a", Outcome.FAIL)
    for found, outcome in (
        ({"a": "inconclusive", "b": "pass"}, "inconclusive"),
        ({"a": "inconclusive", "b": "fail"}, "fail"),
        ({"a": "fail", "b": "pass"}, "pass"),
    ):
        weighed = runner.weigh(base, fault, verdicts(**found), faithful=False)
        assert str(weighed.outcome) == outcome, found


def result(*outcomes: str, statuses: tuple[str, ...] = ("ran",), fidelity: str = "ok") -> LabResult:
    variations = tuple(
        VariationResult(str(n), status, fidelity=fidelity)  # type: ignore[arg-type]
        for n, status in enumerate(statuses)
    )
    checks = tuple(
        CheckResult(str(n), "", "", ("0",), Verdict(Outcome(o))) for n, o in enumerate(outcomes)
    )
    return LabResult("l", "L", "r", variations, checks)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (result("pass", "skip", statuses=("ran", "skipped")), 0),
        (result("pass", "fail"), 1),
        (result("pass", "inconclusive"), 6),
        (result("fail", "inconclusive"), 1),
        (result("pass", fidelity="suspect"), 3),
        (result("fail", fidelity="suspect"), 1),
        (result("inconclusive", fidelity="suspect"), 6),
        (result("pass", fidelity="invalid"), 6),
        (result("skip", "skip", statuses=("skipped",)), 4),
        (result(statuses=("skipped",)), 4),
        (result("pass", "fail", statuses=("ran", "error")), 5),
        (result("pass", "fail", statuses=("ran", "interrupted", "error")), 130),
    ],
)
def test_the_exit_code_is_the_first_that_applies(found: LabResult, code: int) -> None:
    assert found.exit_code() == code


def test_any_skip_counts_where_privileges_are_required() -> None:
    assert result("pass", "skip", statuses=("ran", "skipped")).exit_code(require=True) == 4
    assert result("pass").exit_code(require=True) == 0
    assert first_code([0, 4, 3]) == 3
    assert first_code([]) == 0


def test_junit_counts_what_happened() -> None:
    found = result("pass", "fail", "skip", "inconclusive", statuses=("ran", "error"))
    root = ElementTree.fromstring(junit([found, found]))
    suite = root[0]
    assert root.attrib == {"tests": "10", "failures": "2", "errors": "4", "skipped": "2"}
    assert suite.attrib == {
        "name": "l",
        "tests": "5",
        "failures": "1",
        "errors": "2",
        "skipped": "1",
    }
    assert [child.attrib for child in suite[0]] == [
        {"name": "fidelity.0", "value": "ok"},
        {"name": "fidelity.1", "value": "ok"},
    ]
    assert [child.tag for case in suite[1:] for child in case] == [
        "failure",
        "skipped",
        "error",
        "error",
    ]


def test_junit_holds_any_text() -> None:
    hostile = "\x00<&\"'\ud800\ufffe"
    check = CheckResult("c", "", "", ("v",), Verdict(Outcome.FAIL, hostile, hostile, (hostile,)))
    text = junit([LabResult(hostile, "", "", (), (check,))])
    ElementTree.fromstring(text)


def test_guides_are_filled_in(tmp_path: Path) -> None:
    lab = made()
    lab.folder = tmp_path / "made"
    record(tmp_path / "made" / "recording", "one", "42")
    (tmp_path / "made" / "guide.md").write_text("It said {{ said }}, not {{lost}}.\n")
    assert guide.places(guide.read(lab)) == ("said", "lost")
    assert guide.filled(lab, tmp_path / "nothing") == "It said 42, not not measured.\n"
    (tmp_path / "made" / "recording" / "one" / "nodes/a/x.stdout.log").unlink()
    assert guide.filled(lab, tmp_path / "nothing") == "It said not measured, not not measured.\n"


def test_a_kept_run_is_whole_and_names_no_path_of_this_machine(tmp_path: Path) -> None:
    lab = made()
    run = tmp_path / "run"
    record(run, "one", f"at {run}/one\n")
    with pytest.raises(UsageError, match="one recording"):
        keep.keep(lab, run / "one", tmp_path / "kept")
    (run / "checks.json").write_text(
        LabResult("made", "", "r", (VariationResult("one", "ran"),), ()).json_text
    )
    (run / "faults").mkdir()
    assert keep.keep(lab, run, tmp_path / "kept") > 0
    with pytest.raises(UsageError, match="exists"):
        keep.keep(lab, run, tmp_path / "kept")
    keep.keep(lab, run, tmp_path / "kept", replace_existing=True)
    kept = tmp_path / "kept"
    assert not (kept / "faults").exists()
    assert (kept / "one/nodes/a/x.stdout.log").read_text() == "at RUN/one\n"
    assert Recording.open(kept / "one").damaged() == ()
    assert outcomes(judged(kept, lab))[0] == ("one", "pass")


RECORDED = [n for n in discovery.names() if (discovery.place() / n / "recording").is_dir()]


@pytest.mark.parametrize("name", RECORDED)
def test_the_recording_of_each_lab_passes_its_checks(name: str) -> None:
    lab = discovery.find(name)
    found = judge.check_run(lab, lab.folder / "recording")
    bad = [
        (c.check, c.variations, c.verdict)
        for c in found.checks
        if c.verdict.outcome not in (Outcome.PASS, Outcome.SKIP)
    ]
    assert bad == []
    assert found.count(Outcome.PASS) > 0
    for variation in (lab.folder / "recording").glob("*/manifest.json"):
        assert Recording.open(variation).damaged() == ()


@pytest.mark.parametrize("name", RECORDED)
def test_the_guide_of_each_lab_is_filled_from_its_recording(name: str, tmp_path: Path) -> None:
    lab = discovery.find(name)
    text = guide.filled(lab, tmp_path)
    assert guide.MISSING not in text
    known = set(guide.measure(lab, judge.open_run(lab.folder / "recording")[1]))
    assert set(guide.places(guide.read(lab))) <= known


@pytest.mark.parametrize("name", RECORDED)
def test_no_recording_names_a_path_of_a_machine(name: str) -> None:
    folder = discovery.place() / name / "recording"
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in keep.TEXT:
            text = path.read_text(encoding="utf-8")
            assert "/home/" not in text
            assert "/root/" not in text
            assert "/tmp/" not in text
            json.dumps(text)
