"""A stage that is watched: figures of the machine and of queues, and the scale of slow machines."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from netlab.analysis import calibration
from netlab.analysis import fidelity as judged
from netlab.analysis.journal import Journal, Verdict
from netlab.engine import fidelity
from netlab.engine.node import Ready
from netlab.engine.stage import open_stage
from netlab.errors import CommandError, NotReadyError
from netlab.model.topology import Topology
from netlab.model.yaml import loads
from netlab.plan.backend import Backend
from netlab.recording import Recording, RecordingWriter
from netlab.units import mbit, ms


@pytest.fixture
def writer(tmp_path: Path) -> RecordingWriter:
    return Recording.create_at(tmp_path / "run", "made", "one")


PAIR = "name: pair\nnodes: [a, b]\nlinks: [{name: wire, ends: a-b}]\n"


@pytest.mark.parametrize(("took", "scale"), [(0.02, 1.0), (0.05, 1.0), (0.4, 8.0), (9.0, 20.0)])
def test_the_scale_is_the_time_a_start_takes(took: float, scale: float) -> None:
    assert fidelity.scale(took) == scale


@pytest.mark.needs("netns", "userns")
def test_a_stage_is_watched_to_its_end(writer: RecordingWriter) -> None:
    with open_stage(loads(PAIR, "pair.yaml"), writer, watch=True) as stage:
        assert stage.scale >= 1
        stage.settle(0.6, because="a row is written every half second")
    writer.close()
    recording = Recording.open(writer.path)
    found = judged.Load.of(recording)
    assert found is not None
    assert len(found.rows) >= 2
    assert found.end["disciplines"] == {}
    assert judged.stamp(recording).level != "unknown"


PINNED = "import os, time\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
BEAT = f"""{PINNED}
print("beats", flush=True)
while True:
    time.sleep(0.005)
"""
LOOP = f"""{PINNED}
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(90))
for _ in range(3):
    end = time.monotonic() + 0.08
    while time.monotonic() < end:
        pass
    time.sleep(0.1)
"""


@pytest.mark.needs("root", "netns")
def test_a_busy_loop_beside_one_program_is_in_the_stamp(writer: RecordingWriter) -> None:
    """Whatever the witness on another processor saw: this one program waited 80 ms three times."""
    python = (sys.executable, "-I", "-S", "-c")
    with (
        open_stage(loads(PAIR, "pair.yaml"), writer, watch=True) as stage,
        stage.node("b").spawn("beat", (*python, BEAT), ready=Ready.line("beats")),
    ):
        stage.node("a").run((*python, LOOP))
    writer.close()
    found = judged.stamp(Recording.open(writer.path))
    assert found.level in ("suspect", "invalid")
    said = re.compile(r"'python[0-9.]*' \(pid \d+\) of node 'b' waited (\d+) ms for a processor")
    waited = [int(match[1]) for match in map(said.fullmatch, found.reasons) if match]
    assert waited
    assert waited[0] >= 70


@pytest.mark.needs("netns", "userns")
def test_timeouts_grow_with_the_scale(writer: RecordingWriter) -> None:
    with open_stage(loads(PAIR, "pair.yaml"), writer) as stage:
        node = stage.node("a")
        stage._channel.patience = 100.0  # pyright: ignore[reportPrivateUsage]
        assert node.run(["sleep", "0.5"], timeout=0.3).status == 0
        stage._channel.patience = 4.0  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(CommandError, match=r"longer than 0\.8 s"):
            node.run(["sleep", "30"], timeout=0.2)
        with pytest.raises(NotReadyError, match=r"waited 0\.8 s in vain for a miracle"):
            stage.until(lambda: False, timeout=0.2, what="a miracle")
        with pytest.raises(NotReadyError, match=r"was not ready after 0\.8 s"):
            node.spawn("x", ["sleep", "30"], ready=Ready.line("never", timeout=0.2))


def link(words: str) -> Topology:
    return loads(f"name: pair\nnodes: [a, b]\nlinks: [{{name: wire, ends: a-b, {words}}}]\n")


@pytest.mark.needs("netns", "userns")
def test_a_link_is_measured_before_anybody_uses_it(writer: RecordingWriter, rootless: bool) -> None:
    topology = link("delay: 10ms, rate: 20mbit")
    kinds = {"rootless": rootless, "impair": Backend.WIRE, "calibrate": True, "watch": True}
    with open_stage(topology, writer, **kinds):  # type: ignore[arg-type]
        pass
    writer.close()
    recording = Recording.open(writer.path)
    ways = calibration.read(recording)["wire"]
    measured = "link 'wire' before the run: "
    late = [why for why in judged.stamp(recording).reasons if not why.startswith(measured)]
    for way, asked in zip(ways, topology.links[0].ways, strict=True):
        assert way.lost == way.damaged == 0
        idle = way.delay(asked)
        assert idle is not None
        assert idle >= calibration.expected(way, asked)  # never early
        octets, took = way.rate_span or (0, 1.0)
        rate = pytest.approx(20 * mbit, rel=0.1)
        if late and (
            idle - calibration.expected(way, asked) >= 5 * ms or octets * 8 / took != rate
        ):
            pytest.skip(f"inconclusive, the computer was late: {'; '.join(late)}")
        assert idle - calibration.expected(way, asked) < 5 * ms
        assert octets * 8 / took == rate


@pytest.mark.needs("netns", "userns", "ping")
def test_measuring_changes_neither_what_a_seed_drops_nor_what_a_rule_counts(tmp_path: Path) -> None:
    topology = link("loss: 30%, seed: 7, drops: [{match: icmp, nth: [3]}]")
    found: list[object] = []
    for calibrate in (False, True):
        writer = Recording.create_at(tmp_path / str(calibrate), "made", "one")
        with open_stage(topology, writer, impair=Backend.WIRE, calibrate=calibrate) as stage:
            there = topology.interfaces("b")[0]
            to = str(there.addresses[0].ip)
            # Who has to ask for it may lose the question, and ask again a second later.
            known = ("ip", "neigh", "replace", to, "lladdr", there.mac, "dev", "eth0")
            stage.node("a").run(known)
            argv = ("ping", "-n", "-q", "-i", "0.005", "-c", "40", "-W", "0.2", to)
            stage.node("a").run(argv, check=False)
        drops = Journal.open(writer.path / "wire" / "wire.journal").drops(forward=True)
        assert (2, Verdict.EXACT) in drops
        assert len(drops) > 1
        found.append(drops)
    assert found[0] == found[1]


@pytest.mark.needs("netns", "userns")
def test_what_is_too_slow_is_not_measured_and_said(writer: RecordingWriter) -> None:
    topology = link("delay: 3s")
    with open_stage(topology, writer, impair=Backend.WIRE, calibrate=True):
        pass
    writer.close()
    (ways,) = calibration.read(Recording.open(writer.path)).values()
    assert {way.why for way in ways} == {"a frame may be under way for more than 2 s"}
    assert judged.stamp(Recording.open(writer.path)).level == "unknown"
