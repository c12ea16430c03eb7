"""The guide of a lab as a Jupyter notebook: read, predict, run, compare, look, explain.

Pure: a guide in, a notebook (nbformat 4.5) as plain data out. Cells have ids that depend on their
place alone, so the same guide gives the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from netlab.labs.guide import Guide, Question, Step, clean

Cell = dict[str, Any]


def notebook(name: str, guide: Guide) -> dict[str, Any]:
    """Return the notebook of the lab `name`."""
    cells = [_markdown(f"# {guide.title}"), _code("import netlab\nfrom netlab import notebook")]
    counted = 0
    asked: list[int] = []
    told = False
    for step in guide.steps:
        if step.question is not None and step.kind == "predict":
            counted += 1
            asked.append(counted)
            cells += _asked(counted, step.question)
        elif step.kind == "run":
            cells += _run(name, step)
        elif step.kind == "compare":
            cells += list(_compare(name, step, asked if not told else []))
            told = True
        elif step.kind == "look":
            cells += [_markdown(_text(step)), _code("run[next(iter(run))].ladder()")]
        elif step.markdown.strip():
            cells.append(_markdown(_text(step, without=guide.title)))
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place:03}"
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _text(step: Step, *, without: str = "") -> str:
    heading = f"## {step.title}\n\n" if step.title not in ("", without) else ""
    return f"{heading}{clean(step.markdown).strip()}".strip() or f"## {step.kind.title()}"


def _asked(number: int, question: Question) -> list[Cell]:
    text = f"**{number}.** {clean(question.text).strip()}"
    text += "".join(f"\n- {letter}. {words}" for letter, words in question.choices)
    text += "".join(
        f"\n\n<details><summary>Hint</summary>{hint}</details>" for hint in question.hints
    )
    unit = f"  # {question.unit}" if question.unit else ""
    return [_markdown(text), _code(f"answer_{number} = None{unit}")]


def _run(name: str, step: Step) -> list[Cell]:
    return [_markdown(_text(step)), _code(f'run = notebook.run_lab("{name}")')]


def _compare(name: str, step: Step, asked: list[int]) -> Iterator[Cell]:
    yield _markdown(_text(step))
    if asked:
        lines = [f'display(notebook.answer("{name}", {n}, answer_{n}, run))' for n in asked]
        yield _code("\n".join(["run", *lines]))


def _markdown(text: str) -> Cell:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _code(text: str) -> Cell:
    return {
        "cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": text,
    }  # fmt: skip
