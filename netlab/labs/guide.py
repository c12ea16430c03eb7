"""The guide of a lab: Markdown for people, and the same as steps for whoever plays it.

A guide is plain Markdown with the sections Predict, Run, Compare and Explain. `parse` turns it
into a `Guide`, a sequence of `Step`s that a terminal or a notebook goes through. What a reader on
a web page need not see stands in comments, inside the list item it belongs to:

    2. How long does `connect()` take over a delay of 50 ms each way?
       <!-- answer: {{ connect_time }}; unit: ms; within: 10 % -->
       <details><summary>Hint</summary>The SYN has to get there, the SYN-ACK back.</details>
    3. Who ends in TIME-WAIT?
       - a. the side that closes first
       - b. both
       <!-- answer: a; measured: {{ client_states }} -->

`{{ name }}` stands for a figure that the lab's `@lab.figure` function measures. Where there is
no recording, or it does not hold the figure, "not measured" stands there instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netlab.analysis.evidence import Evidence, NoEvidenceError
from netlab.errors import LabDefinitionError, NetlabError
from netlab.labs import judge
from netlab.labs.lab import Lab
from netlab.recording import Recording

GUIDE = "guide.md"
PLACE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
MISSING = "not measured"

Kind = Literal["read", "predict", "run", "compare", "look", "explain", "next"]
Form = Literal["number", "choice", "words", "open"]

SECTIONS: Mapping[str, Kind] = {
    "Predict": "predict",
    "Run": "run",
    "Compare": "compare",
    "Look": "look",
    "Explain": "explain",
    "Further": "next",
}
NEEDED = ("Predict", "Run", "Compare", "Explain")
KEYS = ("answer", "unit", "within", "measured")

_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
_DETAILS = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", re.DOTALL)
_ITEM = re.compile(r"(?:\d+\.|[*-]) +(?=\S)")
_CHOICE = re.compile(r"[*-] +([a-z])\. +(?=\S)")


@dataclass(frozen=True, slots=True)
class Question:
    """What a learner is asked before the answer is known, or is to think about afterwards.

    `form` says what an answer is: a number with `unit` (which may differ by `within`, such as
    "10 %" or "5 ms"), the letter of one of `choices`, certain `words` (alternatives divided by
    "|"), or anything ("open"). `answer` and `measured` may hold `{{ figures }}`: what is right is
    what was measured. Texts are Markdown.
    """

    text: str
    form: Form = "open"
    answer: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    unit: str = ""
    within: str = ""
    measured: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a guide: Markdown to read, perhaps with commands to type or a question."""

    kind: Kind
    title: str
    markdown: str
    question: Question | None = None

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands of the step as the learner types them."""
        lines = self.markdown.split("\n")
        return tuple(line[4:] for line in lines if re.match(r" {4}[a-z]", line))


@dataclass(frozen=True, slots=True)
class Guide:
    """A guide as steps in their order; `title` is its heading."""

    title: str
    steps: tuple[Step, ...]

    def of(self, kind: Kind) -> tuple[Step, ...]:
        """Return the steps of a kind."""
        return tuple(step for step in self.steps if step.kind == kind)


def read(lab: Lab) -> str:
    """Return the guide as it was written; LabDefinitionError if there is none."""
    path = lab.folder / GUIDE
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise LabDefinitionError(f"lab {lab.name} has no {GUIDE}") from None


def load(lab: Lab) -> Guide:
    """Return the guide of a lab as steps; LabDefinitionError names the lab and what is wrong."""
    try:
        return parse(read(lab))
    except ValueError as error:
        raise LabDefinitionError(f"{lab.folder / GUIDE}: {error}") from None


def parse(text: str) -> Guide:
    """Return a guide as steps; ValueError with one sentence for what is none.

    The steps are in the order of the text. A step "look" (the ladder, the states, what `ss` saw)
    follows the last "compare" where the guide has no section of that name, and a step "next" ends
    every guide.
    """
    sections = list(_sections(text))
    title = sections[0][0]
    missing = [name for name in NEEDED if all(heading != name for heading, _ in sections)]
    if missing:
        raise ValueError(f"the guide has no section '{missing[0]}'")
    steps: list[Step] = []
    for heading, body in sections:
        steps += _steps(heading, body)
    if all(step.kind != "look" for step in steps):
        last = max(n for n, step in enumerate(steps) if step.kind == "compare")
        steps.insert(last + 1, Step("look", "Look", ""))
    if all(step.kind != "next" for step in steps):
        steps.append(Step("next", "Next", ""))
    return Guide(title, tuple(steps))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield heading and body of the title and of each second-level section."""
    first, *rest = re.split(r"^## +", text, flags=re.MULTILINE)
    title = re.match(r"# +(.+)\n", first)
    if title is None:
        raise ValueError("the guide does not begin with '# Title'")
    yield title[1].strip(), first[title.end() :].strip("\n")
    for part in rest:
        heading, _, body = part.partition("\n")
        yield heading.strip(), body.strip("\n")


def _steps(heading: str, body: str) -> list[Step]:
    kind = SECTIONS.get(heading, "read")
    if kind in ("predict", "explain"):
        before, items = _items(body)
        found = [Step(kind, heading, before)] if before else []
        for number, item in enumerate(items, 1):
            question = _question(item)
            title = f"{heading}, {number} of {len(items)}"
            found.append(Step(kind, title, question.text, question))
        if not items:
            raise ValueError(f"the section '{heading}' asks nothing")
        return found
    parts = re.split(r"^### +", body, flags=re.MULTILINE)
    found = [Step(kind, heading, clean(parts[0]))] if parts[0].strip() else []
    for part in parts[1:]:
        title, _, text = part.partition("\n")
        found.append(Step(kind, title.strip(), clean(text)))
    return found


def _items(body: str) -> tuple[str, tuple[str, ...]]:
    """Return what stands before a list, and its items without their indent."""
    before: list[str] = []
    items: list[list[str]] = []
    for line in body.split("\n"):
        marker = _ITEM.match(line)
        if marker:
            items.append([line[marker.end() :]])
        elif items and (not line.strip() or line.startswith(" ")):
            items[-1].append(line)
        elif items:
            raise ValueError(f"'{line}' stands between the questions and belongs to none")
        else:
            before.append(line)
    texts = ("\n".join([item[0], _dedent(item[1:])]) for item in items)
    return clean("\n".join(before)), tuple(texts)


def _dedent(lines: list[str]) -> str:
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    return "\n".join(line[min(indents, default=0) :] for line in lines)


def _question(item: str) -> Question:
    keys: dict[str, str] = {}
    for comment in _COMMENT.findall(item):
        for part in " ".join(comment.split()).split("; "):
            key, colon, value = part.partition(":")
            if not colon or key.strip() not in KEYS:
                raise ValueError(f"'{part}' is none of {', '.join(KEYS)}")
            keys[key.strip()] = value.strip()
    hints = tuple(" ".join(text.split()) for _, text in _DETAILS.findall(item))
    choices: list[list[str]] = []
    text: list[str] = []
    for line in clean(item).split("\n"):
        marker = _CHOICE.match(line)
        if marker:
            choices.append([marker[1], line[marker.end() :]])
        elif choices and line.strip():
            choices[-1][1] += " " + line.strip()
        else:
            text.append(line)
    question = "\n".join(text).strip()
    return Question(
        question,
        _form(question, keys, [letter for letter, _ in choices]),
        keys.get("answer", ""),
        tuple((letter, words) for letter, words in choices),
        keys.get("unit", ""),
        keys.get("within", ""),
        keys.get("measured", ""),
        hints,
    )


def _form(question: str, keys: Mapping[str, str], letters: list[str]) -> Form:
    answer = keys.get("answer", "")
    if letters:
        if answer not in letters:
            raise ValueError(f"'{question}' has choices, and its answer is none of their letters")
        return "choice"
    if "unit" in keys:
        if not answer:
            raise ValueError(f"'{question}' has a unit and no answer")
        return "number"
    if "within" in keys:
        raise ValueError(f"'{question}' has a tolerance and no unit")
    return "words" if answer else "open"


def clean(text: str) -> str:
    """Return Markdown without comments and hints: what a reader is to see at once."""
    shown = _DETAILS.sub("", _COMMENT.sub("", text))
    lines = [line.rstrip() for line in shown.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def places(text: str) -> tuple[str, ...]:
    """Return the names of the figures in a guide, each once."""
    return tuple(dict.fromkeys(PLACE.findall(text)))


def fill(text: str, figures: Mapping[str, str]) -> str:
    """Return the guide with its figures filled in."""
    return PLACE.sub(lambda match: figures.get(match[1], MISSING), text)


def measure(lab: Lab, recordings: Mapping[str, Recording]) -> dict[str, str]:
    """Return the figures that these recordings hold; none where one of them is missing."""
    function = lab.figures
    if function is None:
        return {}
    wanted = lab.parameters(function, "figures")
    if any(name not in recordings for name in wanted):
        return {}
    try:
        return dict(function(*(Evidence(recordings[name]) for name in wanted)))
    except NoEvidenceError:
        return {}


def figures(lab: Lab, results: Path) -> tuple[dict[str, str], Path | None]:
    """Return figures, and the run they are of: the latest in `results`, else the committed one."""
    for path in (results / lab.name / "latest", lab.folder / "recording"):
        try:
            _, recordings, _ = judge.open_run(path)
        except NetlabError:
            continue
        found = measure(lab, recordings)
        if found:
            return found, path
    return {}, None


def filled(lab: Lab, results: Path) -> str:
    """Return the guide with figures of the latest run in `results`, else of the committed one."""
    found, _ = figures(lab, results)
    return fill(clean(read(lab)), found) + "\n"
