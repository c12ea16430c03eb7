"""Probes of the calibration: each says which it is, and a flipped bit does not go unseen."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.agents import calibrate

HEAD = calibrate.HEADER.pack(b"\1" * 6, b"\2" * 6, calibrate.TYPE)
WORDS = st.integers(0, 2**32 - 1)


@given(WORDS, st.integers(0, 2**16 - 1), st.integers(0, 1), WORDS, st.integers(60, 1514))
def test_a_probe_is_read_as_it_was_written(
    run: int, way: int, kind: int, number: int, octets: int
) -> None:
    sent = calibrate.frame(HEAD, run, way, kind, number, octets)
    assert len(sent) == octets
    assert calibrate.read_frame(sent, run) == (way, kind, number)
    assert calibrate.read_frame(sent, run ^ 1) is None


@given(st.integers(14 * 8, calibrate.SMALLEST * 8 - 1))
def test_a_flipped_bit_is_seen(bit: int) -> None:
    sent = bytearray(calibrate.frame(HEAD, 7, 1, 0, 3, 60))
    sent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="damaged"):
        calibrate.read_frame(bytes(sent), 7)


def test_what_is_too_short_is_no_probe() -> None:
    assert calibrate.read_frame(calibrate.frame(HEAD, 7, 1, 0, 3, 60)[:20], 7) is None


# Probes over a veth pair, heard with the buffers of a machine that keeps to net.core.rmem_max.
BURSTS = """
import json, subprocess
from netlab.agents import calibrate
for words in ("add p0 type veth peer name p1", "set p0 up", "set p1 up"):
    subprocess.run(["ip", "link", *words.split()], check=True)
while subprocess.check_output(["ip", "link"]).count(b" state UP ") < 2:
    pass  # what is sent before the kernel knows of the carrier is dropped
calibrate.BUFFER = 212_992
calibrate.inside = lambda namespaces, make: [make(at) for at in range(len(namespaces))]
ends = [{"namespace": "", "device": f"p{at}", "mac": f"02:00:00:00:00:0{at}"} for at in (0, 1)]
way = {"count": 10, "gap_s": 0.001, "octets": 60, "travel_s": 0.1}
way["burst"] = {"count": 400, "octets": 1514}
ways = [{"from": 0, "to": 1, **way}, {"from": 1, "to": 0, **way}]
print(json.dumps(calibrate.measure({"ends": ends, "ways": ways, "patience_s": 5.0})))
"""


@pytest.mark.needs("netns", "userns")
def test_no_probe_is_lost_where_it_waits_to_be_heard() -> None:
    argv = ["unshare", "-rn", sys.executable, "-c", BURSTS]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for way in json.loads(done.stdout):
        assert None not in way["one_way_s"]
        assert None not in way["arrived_s"]
        assert len(way["arrived_s"]) == 400
