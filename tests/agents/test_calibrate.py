"""Probes of the calibration: each says which it is, and a flipped bit does not go unseen."""

from __future__ import annotations

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
