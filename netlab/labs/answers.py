"""Whether a learner's answer agrees with what is right or was measured.

Numbers are compared in the unit of the question; an answer may come in another unit of the same
kind ("0.1 s" for "100 ms"), or without one. Words are compared without regard to case, blanks
and the marks between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netlab.labs import guide
from netlab.labs.guide import Question
from netlab.units import parse_rate, parse_ratio, parse_size, parse_time

_NUMBER = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(.*)", re.DOTALL)
_OCTETS = re.compile(r"\b(octets?|bytes?)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`right` is None where nobody can tell: an open question, or one that was not answered.

    `expected` says in words what is right, or what was measured.
    """

    right: bool | None
    expected: str


def quantity(text: str, unit: str) -> float:
    """Return a number in the base unit of its kind: seconds, bit/s, bytes, a ratio, or as it is.

    A text without a unit has `unit`. ValueError, in one sentence for a learner, for no number or
    a unit of another kind.
    """
    stripped = _OCTETS.sub("B", text.strip().replace(",", "").replace("_", ""))
    match = _NUMBER.fullmatch(stripped)
    if match is None:
        raise ValueError(f"'{text}' is no number; write for example '3 {unit}'")
    number, given = match[1], match[2].strip()
    asked = _OCTETS.sub("B", unit)
    for parse in _PARSERS:
        try:
            parse(f"1{asked}")
        except ValueError:
            continue
        try:
            return float(parse(f"{number}{given or asked}"))
        except ValueError as error:
            raise ValueError(str(error)) from None
    if given and given.rstrip("s").lower() != unit.rstrip("s").lower():
        raise ValueError(f"'{given}' is not what was asked for; write a number of {unit}")
    try:
        return float(number)
    except ValueError:
        raise ValueError(f"'{number}' is no number") from None


_PARSERS: tuple[Callable[[str], float], ...] = (parse_time, parse_rate, parse_size, parse_ratio)


def valid(question: Question, answer: str) -> str:
    """Return what is wrong with the form of an answer, for the learner; "" for nothing."""
    if question.form == "choice" and _letter(answer) not in dict(question.choices):
        letters = ", ".join(letter for letter, _ in question.choices)
        return f"answer with one of {letters}"
    if question.form == "number":
        try:
            quantity(answer, question.unit)
        except ValueError as error:
            return str(error)
    return ""


def judge(question: Question, answer: str | None, figures: Mapping[str, str]) -> Judgement:
    """Hold an answer against what is right; None for a question that was passed over."""
    right = guide.fill(question.answer, figures)
    expected = _expected(question, right, figures)
    if guide.MISSING in right:
        return Judgement(None, expected)
    if answer is None or question.form == "open":
        return Judgement(None, expected)
    if question.form == "choice":
        return Judgement(_letter(answer) == right, expected)
    if question.form == "number":
        truth, given = quantity(right, question.unit), quantity(answer, question.unit)
        return Judgement(abs(given - truth) <= _tolerance(question, truth), expected)
    return Judgement(_bare(answer) in {_bare(word) for word in right.split("|")}, expected)


def _tolerance(question: Question, truth: float) -> float:
    """Return by how much a number may differ; rounding in its sixth digit is no difference."""
    exact = 1e-6 * abs(truth)
    if not question.within:
        return exact
    if question.within.endswith("%"):
        return float(question.within[:-1]) / 100 * abs(truth) + exact
    return quantity(question.within, question.unit) + exact


def _expected(question: Question, right: str, figures: Mapping[str, str]) -> str:
    if question.form == "choice":
        told = f"{right}. {dict(question.choices)[right]}"
    elif question.form == "number":
        unit = "" if re.search(r"[A-Za-z%]", right) else f" {question.unit}"
        told = f"{right}{unit}"
    else:
        told = " or ".join(word.strip() for word in right.split("|")) if right else ""
    if question.measured:
        seen = guide.fill(question.measured, figures)
        told = f"{told} (measured: {seen})" if told else f"measured: {seen}"
    return told


def _letter(answer: str) -> str:
    return answer.strip().rstrip(".)").lower()


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()
