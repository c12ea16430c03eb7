"""A link beside what its file asks for: delay, rate and loss, and exact intervals of few probes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netlab.analysis import calibration, fidelity
from netlab.analysis.calibration import Way
from netlab.analysis.evidence import Evidence, NoEvidenceError
from netlab.errors import RecordingError
from netlab.model.dump import dump_json
from netlab.model.impairment import Impairment
from netlab.model.yaml import loads
from netlab.recording import Recording
from netlab.units import mbit, ms

TOLERANCE = 0.5 * ms


def way(*delays: float, lost: int = 0, **more: object) -> Way:
    trains = len(delays) + lost
    return Way(sent=trains, delays=delays, trains=trains, frame=60, **more)  # type: ignore[arg-type]


def deviations(asked: Impairment, *ways: Way) -> list[str]:
    both = (ways[0], ways[-1])
    return [text for _, text in calibration.deviations(both, (asked, asked), TOLERANCE)]


def test_the_quickest_frames_make_the_idle_round_trip() -> None:
    asked = Impairment(delay=10 * ms)
    ways = (way(10.1 * ms, 10.4 * ms), way(10.3 * ms, 10.2 * ms))
    assert calibration.round_trip(ways, (asked, asked)) == pytest.approx(20.3 * ms)
    assert deviations(asked, *ways) == []
    assert deviations(asked, way(10.3 * ms)) == ["an idle round trip took 20.60 ms, not 20.00"]
    assert deviations(asked, way(9.7 * ms)) == ["an idle round trip took 19.40 ms, not 20.00"]


def test_jitter_widens_what_is_allowed_and_overtaking_takes_the_median() -> None:
    assert deviations(Impairment(delay=10 * ms, jitter=2 * ms), way(8.1 * ms)) == []
    overtaking = Impairment(delay=10 * ms, reorder=0.2)
    assert deviations(overtaking, way(0.1 * ms, 10.1 * ms, 10.1 * ms)) == []


def test_nothing_came_nothing_said() -> None:
    asked = Impairment(delay=10 * ms, loss=1.0)
    ways = (way(lost=10), way(lost=10))
    assert calibration.round_trip(ways, (asked, asked)) is None
    assert deviations(asked, *ways) == []


@pytest.mark.parametrize(
    ("took", "offered", "says"),
    [
        (12.1 * ms, 1 * ms, []),
        (12.9 * ms, 1 * ms, ["15,140 octets took 12.90 ms, not 12.11"]),
        (11.3 * ms, 1 * ms, ["15,140 octets took 11.30 ms, not 12.11"]),
        (12.9 * ms, 12 * ms, []),  # the sender was no quicker: nothing is known
    ],
)
def test_a_rate_is_the_time_of_a_burst(took: float, offered: float, says: list[str]) -> None:
    asked = Impairment(rate=10 * mbit)
    arrived = tuple(took * at / 10 for at in range(11))
    one = way(0.05 * ms, arrived=arrived, offered=offered, octets=1514)
    assert deviations(asked, one, way(0.05 * ms)) == says


def test_a_burst_with_a_hole_says_nothing() -> None:
    assert way(arrived=(0.0, None, 0.5), octets=1514).rate_span is None


@pytest.mark.parametrize(
    ("asked", "lost", "doubted"),
    [
        (Impairment(), 0, False),
        (Impairment(), 1, True),
        (Impairment(loss=0.01), 1, False),
        (Impairment(loss=0.01), 5, True),
        (Impairment(corrupt=0.01), 1, False),
        (Impairment(loss=0.9), 0, True),
        (Impairment(loss=0.5), 0, False),
    ],
)
def test_loss_is_doubted_only_where_ten_probes_can_tell(
    asked: Impairment, lost: int, doubted: bool
) -> None:
    one = way(*[0.0] * (10 - lost), lost=lost)
    found = [text for text in deviations(asked, one, way(0.0)) if "probes" in text]
    assert bool(found) == doubted


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    # Tabulated for 95 %: 0 of 10 and 2 of 10 (for example in Fleiss, Statistical Methods).
    assert calibration.interval(0, 10, 0.05) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert calibration.interval(2, 10, 0.05) == pytest.approx((0.0252, 0.5561), abs=1e-4)
    assert calibration.interval(10, 10, 0.05) == pytest.approx((0.6915, 1.0), abs=1e-4)


def recording(path: Path, one_way: float) -> Recording:
    writer = Recording.create_at(path / "run", "made", "one")
    told = {"name": "x", "nodes": ["a", "b"], "links": [
        {"name": "wire", "ends": "a-b", "delay": "10ms"}]}  # fmt: skip
    writer.write_text("topology.resolved.json", dump_json(loads(json.dumps(told), "x")))
    measured = {
        "trial": {"count": 2, "octets": 60, "burst": None},
        "sent": 2, "one_way_s": [one_way, None], "damaged": 0,
    }  # fmt: skip
    both = {"forward": measured, "backward": measured}
    writer.write_text(calibration.FILE, json.dumps({"schema": 1, "links": {"wire": both}}))
    writer.close()
    return Recording.open(writer.path)


def test_evidence_has_the_idle_round_trip_or_says_so(tmp_path: Path) -> None:
    seen = Evidence(recording(tmp_path, 10.1 * ms))
    assert seen.idle_round_trip("wire") == pytest.approx(20.2 * ms)
    with pytest.raises(NoEvidenceError, match="idle round trip of link 'other'"):
        seen.idle_round_trip("other")


@pytest.mark.parametrize(
    ("one_way", "level"), [(10.1 * ms, "suspect"), (11 * ms, "suspect"), (16 * ms, "invalid")]
)
def test_a_link_that_is_not_as_asked_is_in_the_stamp(
    tmp_path: Path, one_way: float, level: str
) -> None:
    found = fidelity.stamp(recording(tmp_path, one_way))
    assert found.level == level
    assert "link 'wire' before the run: 1 of 2 probes were lost, where 0 was asked" in found.reasons
    assert any("round trip" in reason for reason in found.reasons) == (one_way > 10.5 * ms)


def test_a_damaged_file_is_no_calibration(tmp_path: Path) -> None:
    found = recording(tmp_path, 0.01)
    (found.path / calibration.FILE).write_text('{"links": {"wire": {}}}')
    with pytest.raises(RecordingError, match="is no calibration"):
        calibration.read(found)
