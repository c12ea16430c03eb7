from __future__ import annotations

import json
from pathlib import Path

import pytest

from netlab.engine.timetable import rows
from netlab.model.impairment import Codel, Episode, Impairment
from netlab.units import mbit, ms
from tests.cli.test_machine import netlab


def test_each_change_is_a_row_of_requests() -> None:
    busy = Impairment(delay=40 * ms, rate=1 * mbit, queue=Codel())
    link = Impairment(delay=5 * ms, schedule=(Episode(3, busy, 2),))
    table = list(rows(link, 1500, 100, "a->b"))
    assert [(at, what, len(requests)) for at, what, requests in table] == [
        (3, "a->b: delay=40ms rate=1mbit queue={'kind': 'codel'}", 3),
        (5, "a->b: delay=5ms", 2),
    ]
    kinds = [
        [bytes.fromhex(request)[40:].split(b"\0")[0].decode() for request in requests]
        for _, _, requests in table
    ]
    assert kinds == [["netem", "tbf", "codel"], ["netem", "tbf"]]


TOPOLOGY = """
name: episodes
nodes: [a, b]
links:
  - name: wire
    ends: a-b
    delay: 5ms
    schedule:
      - { at: 8s, for: 3s, delay: 40ms }
      - { at: 13s, for: 2s, loss: 100% }
"""


@pytest.mark.needs("uml")
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_episodes_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "episodes.yaml").write_text(TOPOLOGY)
    try:
        assert netlab(tmp_path, "up", "episodes.yaml").returncode == 0
        words = ("exec", "a", "--", "ping", "-4", "-D", "-n", "-i", "0.1", "-w", "17", "b")
        lines = netlab(tmp_path, *words).stdout.splitlines()
        logs = netlab(tmp_path, "logs").stdout
        refused = netlab(tmp_path, "tc", "set", "wire", "--delay", "1ms")
    finally:
        netlab(tmp_path, "down", "--all")
    # The clock started when the lab was up, some seconds before the pings (a command takes long to
    # begin in a guest): place them by what the agent wrote.
    done = [json.loads(line[line.index("{") :]) for line in logs.splitlines() if '"at"' in line]
    assert [row["at"] for row in done] == [8, 8, 11, 11, 13, 13, 15, 15]
    assert {row["errno"] for row in done} == {0}
    start = min(row["time_ns"] / 1e9 - row["at"] for row in done)
    seen = [
        (float(line.split("]")[0][1:]) - start, float(line.split("time=")[1].split()[0]))
        for line in lines
        if "time=" in line
    ]
    plain = [rtt for at, rtt in seen if at < 7.9 or 11.3 < at < 12.9 or at > 15.3]
    slow = [rtt for at, rtt in seen if 8.4 < at < 10.9]
    dark = [rtt for at, rtt in seen if 13.3 < at < 14.9]
    assert len(plain) >= 10
    assert 10 <= min(plain) < 20
    assert len(slow) >= 5
    assert 80 <= min(slow) < 95
    assert dark == []
    assert "follows a schedule" in refused.stderr
