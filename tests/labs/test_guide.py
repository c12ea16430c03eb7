"""Guides as steps: what is read from Markdown, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.labs import answers, discovery, guide

TEXT = """# A title

What it is about.

    a ── b

## Predict

Before the list.

1. How long does it take,
   all in all?
   <!-- answer: {{ took }}; unit: ms; within: 10 % -->
   <details><summary>Hint</summary>There
   and back.</details>
2. Who waits?
   - a. the client
   - b. the server, which
     is patient
   <!-- answer: b; measured: {{ states }} -->
3. In which state?
   <!-- answer: TIME-WAIT | TIME_WAIT -->
4. And why?

## Run

    netlab lab run it

By hand:

    netlab up it

## Compare

It took {{ took }}.

### More

Words.

## Explain

* Why?
* Why not?
"""


def test_a_guide_becomes_steps_in_the_order_of_its_text() -> None:
    found = guide.parse(TEXT)
    assert found.title == "A title"
    assert [step.kind for step in found.steps] == [
        *("read", *["predict"] * 5, "run", "compare", "compare"),
        *("look", "explain", "explain", "next"),
    ]
    assert found.steps[0].markdown == "What it is about.\n\n    a ── b"
    assert found.of("predict")[0].markdown == "Before the list."
    assert found.of("compare")[1].title == "More"
    assert found.of("run")[0].commands == ("netlab lab run it", "netlab up it")


def test_questions_carry_form_answer_unit_tolerance_choices_and_hints() -> None:
    questions = [s.question for s in guide.parse(TEXT).of("predict") if s.question]
    number, choice, words, nothing = questions
    assert number.text == "How long does it take,\nall in all?"
    assert (number.form, number.unit, number.within) == ("number", "ms", "10 %")
    assert number.hints == ("There and back.",)
    assert choice.choices == (("a", "the client"), ("b", "the server, which is patient"))
    assert (choice.text, choice.answer, choice.measured) == ("Who waits?", "b", "{{ states }}")
    assert words.form == "words"
    assert nothing.form == "open"


def test_what_a_reader_sees_has_no_answers() -> None:
    assert "answer" not in guide.clean(TEXT)
    assert "and back" not in guide.clean(TEXT)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# A title\n", "", "does not begin with '# Title'"),
        ("## Explain", "## Thoughts", "no section 'Explain'"),
        ("answer: b; measured", "answer: c; measured", "none of their letters"),
        ("unit: ms", "units: ms", "'units: ms' is none of answer, unit, within, measured"),
        ("answer: {{ took }}; ", "", "has a unit and no answer"),
        ("; unit: ms", "", "has a tolerance and no unit"),
        ("4. And why?", "Which means what?", "belongs to none"),
        ("* Why?\n* Why not?", "Because.", "the section 'Explain' asks nothing"),
    ],
)
def test_what_is_no_guide_is_refused_in_one_sentence(old: str, new: str, told: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=told):
        guide.parse(TEXT.replace(old, new))


FIGURES = {"took": "100.4 ms", "states": "LAST-ACK"}


def ask(number: int, answer: str | None) -> answers.Judgement:
    question = [s.question for s in guide.parse(TEXT).of("predict") if s.question][number]
    return answers.judge(question, answer, FIGURES)


@pytest.mark.parametrize(
    ("number", "answer", "right"),
    [
        (0, "100 ms", True), (0, "0.1 s", True), (0, "91", True), (0, "90", False),
        (0, "100 s", False), (0, None, None),
        (1, "b", True), (1, "B.", True), (1, "a", False),
        (2, "time wait", True), (2, "FIN-WAIT-1", False),
        (3, "because", None),
    ],
)  # fmt: skip
def test_answers_are_judged_by_form_unit_and_tolerance(
    number: int, answer: str | None, right: bool | None
) -> None:
    assert ask(number, answer).right is right


def test_what_was_measured_is_told_beside_what_is_right() -> None:
    assert ask(0, "1 ms").expected == "100.4 ms"
    assert ask(1, "a").expected == "b. the server, which is patient (measured: LAST-ACK)"
    assert ask(2, "x").expected == "TIME-WAIT or TIME_WAIT"


def test_nobody_is_judged_by_what_was_not_measured() -> None:
    question = guide.parse(TEXT).of("predict")[1].question
    assert question is not None
    assert answers.judge(question, "100 ms", {}).right is None


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1,460 octets", "octets", 1460), ("65535", "B", 65535), ("1.25 MB", "octets", 1_250_000),
        ("5.24 Mbit/s", "Mbit/s", 5.24e6), ("5 segments", "segments", 5),
        ("1 segment", "segments", 1),
        ("3 %", "%", 0.03), ("20ms", "s", 0.02),
    ],
)  # fmt: skip
def test_quantities_are_read_as_people_write_them(text: str, unit: str, value: float) -> None:
    assert answers.quantity(text, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("soon", "ms"), ("5 ms", "octets"), ("5 ms", "segments"), ("", "s"), ("1.2.3", "x")],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(text: str, unit: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        answers.quantity(text, unit)


@pytest.mark.parametrize("name", discovery.names())
def test_the_guide_of_every_lab_asks_what_its_recording_answers(name: str) -> None:
    lab = discovery.find(name)
    found = guide.load(lab)
    figures, _ = guide.figures(lab, Path("nothing"))
    asked = [s.question for s in found.of("predict") if s.question]
    assert any(question.form != "open" for question in asked), "every question is open"
    for question in asked:
        right = guide.fill(question.answer, figures).split("|")[0]
        told = answers.judge(question, right, figures)
        assert guide.MISSING not in told.expected
        assert told.right or question.form == "open", question.text
