"""A stage that is watched: figures of the machine and of queues, and the scale of slow machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.analysis import fidelity as judged
from netlab.engine import fidelity
from netlab.engine.node import Ready
from netlab.engine.stage import open_stage
from netlab.errors import CommandError, NotReadyError
from netlab.model.yaml import loads
from netlab.recording import Recording, RecordingWriter


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


@pytest.mark.needs("netns", "userns")
def test_timeouts_grow_with_the_scale(writer: RecordingWriter) -> None:
    with open_stage(loads(PAIR, "pair.yaml"), writer) as stage:
        stage._channel.patience = 4.0  # pyright: ignore[reportPrivateUsage]
        node = stage.node("a")
        assert node.run(["sleep", "0.5"], timeout=0.3).status == 0
        with pytest.raises(CommandError, match=r"longer than 0\.8 s"):
            node.run(["sleep", "30"], timeout=0.2)
        with pytest.raises(NotReadyError, match=r"waited 0\.8 s in vain for a miracle"):
            stage.until(lambda: False, timeout=0.2, what="a miracle")
        with pytest.raises(NotReadyError, match=r"was not ready after 0\.8 s"):
            node.spawn("x", ["sleep", "30"], ready=Ready.line("never", timeout=0.2))
