"""The timeline of states fits the terminal and tells what is illegal."""

from __future__ import annotations

from random import Random

import pytest

from netlab.analysis.states import Look, State
from netlab.report.states import timeline
from tests.analysis.test_states import Net, S, judged


def orderly() -> Net:
    net = Net(Random(7), 1000)
    one, other = net.ends
    net.opened, other.state = "passive", S.LISTEN
    net.at(0, lambda: net.open(one))
    net.at(10_000, lambda: net.close(one))
    net.at(20_000, lambda: net.close(other))
    net.run()
    return net


def test_every_change_has_a_line() -> None:
    lines = timeline(judged(orderly(), 0), width=120).splitlines()
    assert [line.split()[1] for line in lines[3:]].count("│") == 5
    assert lines[0].split() == ["time", "a", "b"]
    assert lines[2].split() == ["CLOSED", "LISTEN"]
    assert "FIN-WAIT-2" in "".join(lines)


@pytest.mark.parametrize("width", [30, 50, 80, 120])
def test_it_fits(width: int) -> None:
    lie = Look(frozenset({State.CLOSING}), 15_000, 15_001, "ss, snapshot with a long name")
    text = timeline(judged(orderly(), 0, {"a": [[lie]]}), width=width, unicode=False)
    assert max(len(line) for line in text.splitlines()) <= max(width, 42)
    assert "illegal: a:" in text
    assert text.isascii()
