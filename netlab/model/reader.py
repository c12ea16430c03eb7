"""Read YAML strictly: the part of it that means what it looks like, with every place kept.

Theory of operation. libyaml turns text into events; one loop over the events with a stack of our
own builds plain data (dict, list, str, int, float, bool, None), so the depth of the text never is
the depth of our recursion. While building, the place of every key and value is written down,
keyed by the identity of the container it stands in: `Places.of(data, path)` finds it again. The
identity stays valid because `Places` holds the data.

What YAML does that surprises people is refused or read plainly: `no`, `on` and `22:22` are text,
`010` is text, keys are always text, a key written twice is a problem, and aliases, tags and second
documents are refused, so that nothing in a file can grow when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import yaml

from netlab.errors import Problem
from netlab.model.topology import Mark

MAX_BYTES = 4 << 20
MAX_DEPTH = 24
MAX_VALUES = 400_000

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")
_PLAIN: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}

# Per key or index: file, line and column of the key (in a list of the value), then of the value.
_Entry = tuple[str, int, int, int, int]


class Places:
    """Where each key and value of some read data stands."""

    def __init__(self) -> None:
        self._entries: dict[int, dict[str | int, _Entry]] = {}
        self._kept: list[object] = []

    def entries(self, container: object) -> dict[str | int, _Entry]:
        """Return the entries of a container, empty for one that no file holds."""
        found = self._entries.get(id(container))
        if found is None:
            found = {}
            self._entries[id(container)] = found
            self._kept.append(container)
        return found

    def key(self, container: object, key: str | int) -> Mark:
        """Return where a key of a container is written."""
        entry = self._entries.get(id(container), {}).get(key)
        return Mark() if entry is None else Mark(entry[1], entry[2], entry[0])

    def value(self, container: object, key: str | int) -> Mark:
        """Return where the value of a key or index of a container is written."""
        entry = self._entries.get(id(container), {}).get(key)
        return Mark() if entry is None else Mark(entry[3], entry[4], entry[0])

    def of(self, data: object, path: Sequence[str | int], *, key: bool = False) -> Mark:
        """Return where the value at `path` below `data` is written, or the key that leads to it.

        Parts that the data does not have (tags of unions, a missing key) are passed over, so the
        answer is the nearest place that exists.
        """
        mark = Mark(1, 1)
        current: Any = data
        for part in path:
            if isinstance(current, dict):
                inside = part in cast("dict[object, object]", current)
            elif isinstance(current, list):
                inside = isinstance(part, int) and part < len(cast("list[object]", current))
            else:
                inside = False
            if not inside:
                continue
            mark = (self.key if key else self.value)(cast("object", current), part) or mark
            current = cast("Any", current)[part]
        return mark


def read(text: str, places: Places, file: str = "") -> tuple[object, list[Problem]]:
    """Return the data of a YAML text and what is wrong with the text itself.

    After a problem the data is what could be read: keys written twice keep their first value,
    everything else ends the reading.
    """
    problems: list[Problem] = []
    if len(text) > MAX_BYTES:
        return None, [Problem(1, 1, f"the file is larger than {MAX_BYTES >> 20} MiB", file)]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        column = error.start - text.rfind("\n", 0, error.start)
        return None, [Problem(line, column, "this character is not valid Unicode", file)]
    try:
        data = _build(_events(text), places, file, problems)
    except _Refused as refused:
        problems.append(Problem(refused.line, refused.column, refused.message, file))
        return None, problems
    return data, problems


class _Refused(Exception):  # noqa: N818 - control flow inside this module
    """Reading cannot go on."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


def _events(text: str) -> Iterator[Any]:
    loader = cast("Any", yaml.CSafeLoader(text))
    try:
        while loader.check_event():
            yield loader.get_event()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise _Refused(line, column, f"this is not YAML: {what}{_advice(text, line)}") from None
    except yaml.reader.ReaderError as error:
        start = min(int(error.position), len(text))
        line = text.count("\n", 0, start) + 1
        column = start - text.rfind("\n", 0, start)
        raise _Refused(line, column, f"this is not YAML: {error.reason}") from None
    finally:
        loader.dispose()


def _advice(text: str, line: int) -> str:
    lines = text.splitlines()
    if line <= len(lines) and "\t" in lines[line - 1]:
        return "; indent with spaces, not with tabs"
    return ""


def _scalar(event: Any) -> object:
    value: str = event.value
    if not event.implicit[0] or event.style:  # quoted, or a block of text
        return value
    if value in _PLAIN:
        return _PLAIN[value]
    if value[0] in "-+.0123456789":
        if _INT.fullmatch(value):
            return int(value)
        if _FLOAT.fullmatch(value):
            return float(value)
    return value


class _Frame:
    """A mapping or a sequence being built."""

    __slots__ = ("data", "entries", "key", "key_at", "keyed")

    def __init__(self, data: dict[str, object] | list[object], entries: Any) -> None:
        self.data = data
        self.entries = entries
        self.key: str | None = None  # the key whose value comes next
        self.key_at = (0, 0)
        self.keyed = True  # False while the value of a repeated key is being passed over


def _build(events: Iterator[Any], places: Places, file: str, problems: list[Problem]) -> object:
    stack: list[_Frame] = []
    root: object = None
    documents = values = 0
    for event in events:
        kind = cast("object", type(event))
        if kind is yaml.ScalarEvent:
            new: object = None
        elif kind is yaml.MappingStartEvent:
            new = {}
        elif kind is yaml.SequenceStartEvent:
            new = []
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            stack.pop()
            continue
        elif kind is yaml.DocumentStartEvent:
            documents += 1
            if documents > 1:
                mark = event.start_mark
                raise _Refused(mark.line + 1, mark.column + 1, "a second document ('---') starts")
            continue
        elif kind is yaml.AliasEvent:
            mark = event.start_mark
            message = (
                f"alias '*{event.anchor}': aliases are not allowed; use 'groups' or 'defaults'"
            )
            raise _Refused(mark.line + 1, mark.column + 1, message)
        else:
            continue

        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        values += 1
        if values > MAX_VALUES:
            raise _Refused(line, column, f"the file holds more than {MAX_VALUES} values")
        if event.tag is not None and event.tag != "!":
            raise _Refused(line, column, f"tag '{event.tag}': tags are not allowed")
        frame = stack[-1] if stack else None
        in_mapping = frame is not None and type(frame.data) is dict
        if in_mapping and frame is not None and frame.key is None:
            if kind is not yaml.ScalarEvent:
                raise _Refused(line, column, "a key must be text, not a list or a mapping")
            frame.key = event.value
            frame.key_at = (line, column)
            first = frame.entries.get(event.value)
            frame.keyed = first is None
            if first is not None:
                where = f"first on line {first[1]}"
                problems.append(
                    Problem(line, column, f"key '{event.value}' is written twice, {where}", file)
                )
            continue
        if kind is yaml.ScalarEvent:
            new = _scalar(event)
        if frame is None:
            root = new
        elif in_mapping:
            if frame.keyed:
                cast("dict[str, object]", frame.data)[cast("str", frame.key)] = new
                frame.entries[frame.key] = (file, *frame.key_at, line, column)
            frame.key = None
        else:
            items = cast("list[object]", frame.data)
            frame.entries[len(items)] = (file, line, column, line, column)
            items.append(new)
        if kind is not yaml.ScalarEvent:
            if len(stack) >= MAX_DEPTH:
                raise _Refused(line, column, f"nested more than {MAX_DEPTH} levels deep")
            container = cast("dict[str, object] | list[object]", new)
            stack.append(_Frame(container, places.entries(container)))
    return root
