"""What netlab's own programs print: a word and `key=value` pairs with JSON values, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Step:
    """One line: what happened and its particulars."""

    word: str
    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


def parse(text: str) -> tuple[Step, ...]:
    """Return the lines that have the form of a step; other lines, and a torn last one, are not."""
    return tuple(step for line in text.splitlines() if (step := _step(line)) is not None)


def _step(line: str) -> Step | None:
    word, _, rest = line.partition(" ")
    if not word.isidentifier():
        return None
    try:
        return Step(word, dict(_pairs(rest)))
    except ValueError:
        return None


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    position = 0
    while position < len(text):
        key, sign, _ = text[position:].partition("=")
        if not sign or not key.isidentifier():
            raise ValueError(text)
        value, end = _DECODER.raw_decode(text, position + len(key) + 1)
        yield key, value
        if end < len(text) and text[end] != " ":
            raise ValueError(text)
        position = end + 1
