from __future__ import annotations

import pytest

from netlab.model.reader import Places, read
from netlab.model.topology import Mark


def value(text: str) -> object:
    data, problems = read(f"x: {text}", Places())
    assert not problems
    assert isinstance(data, dict)
    return data["x"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *[("true", True), ("false", False), ("null", None), ("~", None), ("", None)],
        *[("1", 1), ("-1", -1), ("0", 0), ("1.5", 1.5), (".5", 0.5), ("1.0e3", 1000.0)],
        *[(word, word) for word in ("no", "yes", "on", "off", "NO", "True", "NULL", "y")],
        *[(word, word) for word in ("010", "0x10", "0o7", "1_000", "22:22", "1:30:00", "1e3")],
        *[(word, word) for word in ("2024-01-01", ".inf", ".nan", "+", "-x", "1.2.3", "0b1")],
        *[("'1'", "1"), ('"true"', "true"), ("9" * 19, "9" * 19), ("=", "=")],
    ],
)
def test_a_plain_word_means_what_it_looks_like(text: str, meant: object) -> None:
    found = value(text)
    assert found == meant
    assert type(found) is type(meant)


def test_keys_are_text() -> None:
    assert read("{1: a, true: b, null: c, 1.5: d}", Places())[0] == {
        "1": "a",
        "true": "b",
        "null": "c",
        "1.5": "d",
    }


def test_every_value_has_its_place() -> None:
    places = Places()
    data, _ = read("a:\n  - b: 1\n    c: {d: [x, yy]}\n", places)
    assert places.of(data, ("a", 0, "c", "d", 1)) == Mark(3, 16)
    assert places.of(data, ("a", 0, "c"), key=True) == Mark(3, 5)
    assert places.of(data, ("a", 0, "union-tag", "c", "missing")) == Mark(3, 8)
    assert places.of(data, ()) == Mark(1, 1)


def test_a_key_written_twice_keeps_its_first_value_and_says_so() -> None:
    data, problems = read("a: 1\nb: 2\na: {x: [1]}\nc: 3\n", Places())
    assert data == {"a": 1, "b": 2, "c": 3}
    assert [(p.line, p.column, p.message) for p in problems] == [
        (3, 1, "key 'a' is written twice, first on line 1")
    ]


def test_depth_of_text_is_not_depth_of_recursion() -> None:
    for text in ("[" * 300_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000):
        data, problems = read(text, Places())
        assert data is None
        assert len(problems) == 1


def test_a_billion_laughs_are_not_heard() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    data, problems = read("\n".join(lines), Places())
    assert data is None
    assert "aliases are not allowed" in problems[0].message
