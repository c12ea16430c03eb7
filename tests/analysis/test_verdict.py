"""Places of evidence: written by checks, read by reports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.analysis.verdict import frames_of, packets


def segments(*frames: int) -> Any:
    return [SimpleNamespace(frame=frame) for frame in frames]


def test_packets_are_written_as_ranges() -> None:
    assert packets("client:eth0", segments(3, 1, 2, 7, 9, 10)) == "client:eth0, frames 1-3, 7, 9-10"
    assert packets("a:b", segments(4, 4)) == "a:b, frame 4"
    assert packets("a:b", segments()) == ""


@given(st.sets(st.integers(1, 200_000), min_size=1))
def test_what_is_written_is_read(frames: set[int]) -> None:
    assert frames_of(packets("r1:eth1.7", segments(*frames))) == (
        "r1:eth1.7",
        tuple(sorted(frames)),
    )


@pytest.mark.parametrize(
    "place", ["", "captures/client.eth0.pcap", "frames 1, 2", "a:b, frames", "a:b, frames 1-", "x"]
)
def test_other_places_name_no_packets(place: str) -> None:
    assert frames_of(place) is None
