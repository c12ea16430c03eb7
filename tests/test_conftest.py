"""What every test may rely on."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def drawn() -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []

    @given(st.integers(), st.text())
    @settings(max_examples=200)
    def note(number: int, text: str) -> None:
        found.append((number, text))

    note()
    return found


def test_examples_do_not_depend_on_the_modules_that_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings.get_current_profile_name() != "fixed":
        pytest.skip("examples are to differ")
    before = drawn()
    (tmp_path / "numbers_and_words.py").write_text("FOUND = (271828, 314159, 'word', 'words')\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("numbers_and_words")
    assert drawn() == before
