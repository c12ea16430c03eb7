"""The schema of the native module, the typed rows and the documentation say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from netlab import _core
from tests.capture import generate


def test_typed_rows_follow_the_schema(golden: Callable[[Path, str], None]) -> None:
    golden(generate.ROWS, generate.rows())


def test_documentation_follows_the_schema(golden: Callable[[Path, str], None]) -> None:
    golden(generate.SCHEMA, generate.schema())


def test_every_column_says_what_it_means() -> None:
    for table, name, _, _, meaning, _ in _core.schema():
        assert meaning, f"{table}.{name} has no meaning"


def test_no_column_is_named_twice() -> None:
    names = [(table, name) for table, name, *_ in _core.schema()]
    assert len(names) == len(set(names))
