"""What programs printed, read back: steps, pings, samples."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.analysis import output, ping, samples
from netlab.analysis.verdict import Outcome, Verdict, every, inconclusive, skip

NAME = st.from_regex(r"[a-z_]{1,10}", fullmatch=True)
JSON = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()


@given(NAME, st.dictionaries(NAME, JSON | st.lists(JSON, max_size=3)))
def test_a_step_reads_back_as_it_was_said(word: str, values: dict[str, object]) -> None:
    line = " ".join([word, *(f"{key}={json.dumps(value)}" for key, value in values.items())])
    (step,) = output.parse(line + "\n")
    assert step == output.Step(word, values)


def test_other_lines_are_not_steps() -> None:
    text = 'Traceback (most recent call last):\nreceived bytes=5 text="hel\n= 3\n\nclosed\n'
    assert output.parse(text) == (output.Step("closed", {}),)


@given(st.text())
def test_any_output_is_read_without_an_error(text: str) -> None:
    output.parse(text)
    ping.parse(text)


def test_the_replies_of_ping_are_read() -> None:
    text = (
        "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n"
        "64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=100 ms\n"
        "64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=101.5 ms\n"
        "64 bytes from 10.0.0.2: icmp_seq=3 ttl=64 time=0.045 ms (DUP!)\n\n"
        "--- 10.0.0.2 ping statistics ---\n"
        "4 packets transmitted, 2 received, +1 duplicates, 50% packet loss, time 3ms\n"
    )
    found = ping.parse(text)
    assert found.sent == 4
    assert found.rtts == (pytest.approx(0.1), pytest.approx(0.1015), pytest.approx(45e-6))
    assert found.rtt == pytest.approx(0.1)
    assert ping.parse("").rtt is None


def socket(state: str, lport: int = 40000, rport: int = 8080) -> dict[str, object]:
    return {
        "state": state, "local": "10.0.0.1", "lport": lport, "remote": "10.0.0.2", "rport": rport,
        "rqueue": 0, "wqueue": 0, "cookie": 1,
    }  # fmt: skip


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


HEADER = {"schema": 1, "begin_ns": 1, "every_s": 0.001, "busy": False, "nodes": ["client"]}
END = {"end_ns": 9, "reason": "asked", "worst_late_s": 0.25, "samples": 4, "late": 2, "missed": 1}


def at(time: int, *sockets: dict[str, object], node: str = "client") -> dict[str, object]:
    return {"node": node, "at_ns": time, "took_ns": 1, "sockets": list(sockets)}


def test_the_changes_of_a_state_are_told_once_each() -> None:
    text = lines(
        HEADER,
        at(1),
        at(2, socket("LISTEN", lport=8080, rport=0)),
        at(3, socket("SYN-SENT")),
        at(4, socket("SYN-SENT")),
        at(5, socket("ESTAB"), node="server"),
        at(6, socket("ESTAB")),
        at(7),
        END,
    )
    found = samples.parse(text, "client")
    assert found.states(8080) == ((3, "SYN-SENT"), (6, "ESTAB"), (7, "CLOSED"))
    assert found.states(9999) == ()
    assert (found.every, found.late, found.missed, found.ended) == (0.001, 2, 1, True)
    assert found.worst_late == 0.25


def test_samples_that_were_cut_off_are_read_up_to_there() -> None:
    text = lines(HEADER, at(1, socket("ESTAB"))) + '{"node": "cli'
    found = samples.parse(text, "client")
    assert len(found.samples) == 1
    assert not found.ended


def test_damage_in_the_middle_is_named() -> None:
    with pytest.raises(ValueError, match="line 1 "):
        samples.parse("{torn\n" + lines(END), "client")


@given(st.text())
def test_any_text_gives_samples_or_a_known_error(text: str) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        samples.parse(text, "client")


OUTCOMES = st.sampled_from(list(Outcome))


@given(st.lists(st.builds(Verdict, OUTCOMES, st.text(), st.text(), reason=st.text())))
def test_joined_verdicts_pass_only_when_all_do(verdicts: list[Verdict]) -> None:
    joined = every(verdicts)
    assert joined.passed == (bool(verdicts) and all(v.passed for v in verdicts))
    assert (joined.outcome is Outcome.FAIL) == any(v.outcome is Outcome.FAIL for v in verdicts)


def test_a_joined_verdict_tells_of_those_that_count() -> None:
    good = Verdict(Outcome.PASS, "6", "6", ("a",))
    bad = Verdict(Outcome.FAIL, "7", "8", ("b",), value=7)
    assert (good & bad) == Verdict(Outcome.FAIL, "7", "8", ("b",), value=7)
    assert every([good, inconclusive("no capture"), skip("no netem")]).reason == "no capture"
    assert good.seen_in("c").evidence == ("a", "c")
