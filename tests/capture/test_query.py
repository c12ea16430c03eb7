"""The expressions of `--where` and `--sort`."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.analysis.query import QueryError, Row, rows_where, sort_values, where

ROW: Row = {
    "proto": "tcp", "conn_state": "SF", "orig_h": "10.0.0.1", "orig_p": 40000, "resp_h": "fd00::2",
    "resp_p": 443, "orig_retransmission": 3, "resp_retransmission": 2, "initial_rtt": 20_000_000,
    "orig_throughput_bps": 9.5e6, "loss": 0.01, "ts_rtt": None, "reused": True,
}  # fmt: skip

TRUE = """
    orig_p == 40000
    orig_p = 40_000
    retransmission == 5
    retransmission > 4 and port == 443
    retransmission / 2 > 2
    retransmission * 2 - 10 == 0
    host in 10.0.0.0/8
    host in fd00::/16
    host == 10.0.0.1
    host == fd00:0:0::2
    host != 10.9.9.9
    port == 40000 or port == 1
    initial_rtt == 20ms
    initial_rtt >= 19.5ms && initial_rtt < 1s
    initial_rtt > 100us
    orig_throughput_bps > 9mbit
    loss >= 1%
    proto == "tcp"
    proto == 'tcp'
    conn_state ~ "^S"
    not conn_state ~ "^R"
    ! (conn_state == "RSTO")
    reused
    "S" in conn_state
    -retransmission < 0
    true
""".strip().splitlines()

FALSE = """
    port != 443
    host in 192.168.0.0/16
    ts_rtt < 5
    ts_rtt != 5
    ts_rtt == 5
    ts_rtt + 1 > 0
    orig_p / 0 > 1
    orig_p == "40000"
    proto < 5
    false
""".strip().splitlines()


@pytest.mark.parametrize("expression", [line.strip() for line in TRUE])
def test_holds(expression: str) -> None:
    assert where(expression, list(ROW))(ROW)


@pytest.mark.parametrize("expression", [line.strip() for line in FALSE])
def test_does_not_hold(expression: str) -> None:
    assert not where(expression, list(ROW))(ROW)


WRONG = {
    "retransmision > 1": "there is no column 'retransmision'; did you mean 'retransmission'?",
    "proto == udp": "there is no column 'udp'",
    "orig_p >": "something is missing at the end",
    "orig_p > 1 2": "'2' is one thing too many",
    "1 < orig_p < 3": "comparisons do not chain; join them with 'and'",
    "initial_rtt > 5parsec": "'parsec' is no unit",
    "host in 10.0.0.0/77": "'10.0.0.0/77' is no address",
    "proto ~ 5": "'~' needs a quoted pattern on its right",
    "proto ~ '('": "is no regular expression",
    "(orig_p > 1": "a ')' is missing",
    "": "the expression is empty",
    "   ": "the expression is empty",
    "orig_p ; import os": "';' is not understood here",
    "__import__": "there is no column '__import__'",
    "(" * 200 + "1" + ")" * 200: "too deeply nested",
    "1" * 5000: "the expression is too long",
}


@pytest.mark.parametrize(("expression", "problem"), WRONG.items(), ids=range(len(WRONG)))
def test_a_wrong_expression_is_one_sentence_with_its_place(expression: str, problem: str) -> None:
    with pytest.raises(QueryError) as caught:
        where(expression, list(ROW))
    assert problem in str(caught.value)
    assert "column " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_text_in_arithmetic_is_an_error_when_met() -> None:
    with pytest.raises(QueryError, match="works on numbers"):
        where("proto + 1 > 2", list(ROW))(ROW)


TABLE: dict[str, list[object]] = {"a": [None, -5, 7], "b": ["x", "y", "x"]}


def test_rows_without_a_value_sort_below_all_others() -> None:
    keys = sort_values("a", list(TABLE), TABLE.__getitem__, 3)  # type: ignore[arg-type]
    assert sorted(range(3), key=keys.__getitem__, reverse=True) == [2, 1, 0]


def test_only_the_columns_of_the_expression_are_fetched() -> None:
    fetched: list[str] = []

    def fetch(name: str) -> list[object]:
        fetched.append(name)
        return TABLE[name]

    assert rows_where('b == "x"', list(TABLE), fetch, 3) == [0, 2]  # type: ignore[arg-type]
    assert fetched == ["b"]


def test_an_expression_without_columns_selects_all_or_nothing() -> None:
    assert rows_where("1 < 2", list(TABLE), TABLE.__getitem__, 3) == [0, 1, 2]  # type: ignore[arg-type]
    assert rows_where("false", list(TABLE), TABLE.__getitem__, 3) == []  # type: ignore[arg-type]


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_a_query_error(text: str) -> None:
    with suppress(QueryError):
        where(text, list(ROW))(ROW)


TOKENS = ["orig_p", "proto", "host", "loss", "1", "2.5ms", '"x"', "10.0.0.1", "10.0.0.0/8",
          "(", ")", "and", "or", "not", "==", "<", "~", "in", "+", "-", "*", "/"]  # fmt: skip


@given(st.lists(st.sampled_from(TOKENS), max_size=12))
def test_any_words_are_a_query_or_a_query_error(words: list[str]) -> None:
    with suppress(QueryError):
        where(" ".join(words), list(ROW))(ROW)
