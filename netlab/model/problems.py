"""Collecting everything that is wrong with a topology, each with its place and a hint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from netlab.errors import Problem, TopologyError
from netlab.model.topology import Mark

MAX_HINTS = 40
MAX_PROBLEMS = 200


class Problems:
    """What was found wrong so far; `check` raises all of it at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Problem] = []
        self.warnings: list[Problem] = []
        self._hints = 0

    def add(self, mark: Mark, message: str) -> None:
        """Note a problem at a place; what netlab itself added is reported at the top."""
        self.found.append(_problem(mark, message))

    def warn(self, mark: Mark, message: str) -> None:
        """Note something that is allowed but probably not meant."""
        self.warnings.append(_problem(mark, message))

    def hint(self, word: str, choices: Iterable[str]) -> str:
        """Return "; did you mean 'x'?" for the nearest choice, or nothing.

        Comparing is slow for large networks, so only the first problems get a hint.
        """
        self._hints += 1
        if self._hints > MAX_HINTS or len(word) > 80:
            return ""
        return near(word, choices)

    def check(self) -> None:
        """Raise TopologyError with every problem found, if there is any."""
        if self.found:
            found = sorted(set(self.found), key=lambda p: (p.file, p.line, p.column))
            rest = len(found) - MAX_PROBLEMS
            if rest > 0:
                last = found[MAX_PROBLEMS - 1]
                more = f"… and {rest} more problems"
                found = [*found[:MAX_PROBLEMS], Problem(last.line, last.column, more, last.file)]
            raise TopologyError(self.file, tuple(found))


def near(word: str, choices: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the choice most like a word, or nothing."""
    lowered = {choice.lower(): choice for choice in choices if len(choice) <= 80}
    close = get_close_matches(word.lower()[:80], lowered, n=1, cutoff=0.6)
    return f"; did you mean '{lowered[close[0]]}'?" if close else ""


def _problem(mark: Mark, message: str) -> Problem:
    return Problem(mark.line or 1, mark.column or 1, message, mark.file)


def loops(follows: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the loops of a graph, one for each knot of nodes that lead back to themselves."""
    state: dict[str, int] = {}  # 1: on the way, 2: done
    found: list[list[str]] = []
    for start in follows:
        way: list[tuple[str, Iterator[str]]] = []
        if start not in state:
            state[start] = 1
            way.append((start, iter(follows[start])))
        while way:
            name, rest = way[-1]
            following = next(rest, None)
            if following is None:
                state[name] = 2
                way.pop()
            elif following not in state:
                state[following] = 1
                way.append((following, iter(follows[following])))
            elif state[following] == 1:
                names = [step for step, _ in way]
                found.append(names[names.index(following) :])
    return found


def quoted(value: object, limit: int = 40) -> str:
    """Return a foreign value as it should appear in a message: one short, printable line."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return f"'{text[:limit]}…'" if len(text) > limit else f"'{text}'"
