"""What a topology file is made of before it means anything: included files, settings, variables.

All of it works on plain data, with the place of every value kept: an included file stands under the
one that includes it, key by key; `--set` writes a single value; then `${name}` becomes the value
of a variable. Variables are plain values and texts are limited, so nothing grows without bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from netlab.model.problems import Problems, quoted
from netlab.model.reader import Places, read
from netlab.model.topology import Mark

MAX_INCLUDES = 50
MAX_TEXT = 10_000

Data = dict[str, Any]
_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z0-9_.-]+)\}")


class Composer:
    """Puts one topology together; `text_of` reads a file or says why it cannot (ValueError)."""

    def __init__(self, places: Places, problems: Problems, text_of: Callable[[Path], str]) -> None:
        self.places = places
        self.problems = problems
        self.text_of = text_of
        self.included = 0

    def compose(self, data: Data, path: Path, settings: Sequence[str]) -> Data:
        """Return the data with everything included, set and substituted."""
        whole = self._include(data, path, "", [path.resolve()])
        for setting in settings:
            self._set(whole, setting)
        self._substitute(whole)
        return whole

    # -- include

    def _include(self, data: Data, path: Path, label: str, stack: list[Path]) -> Data:
        given: object = data.get("include")
        if given is None:
            return data
        several = cast("list[object] | None", given if isinstance(given, list) else None)
        under: Data = {}
        names: list[object] = [given] if several is None else several
        for number, name in enumerate(names):
            at = self.places.value(data, "include")
            if several is not None:
                at = self.places.value(several, number)
            if not isinstance(name, str) or not name:
                self.problems.add(at, "'include' must be the name of a file, or a list of names")
                continue
            part = self._read(name, path, label, at, stack)
            if part is not None:
                under = self._merge(under, part)
        return self._merge(under, data)

    def _read(self, name: str, path: Path, label: str, at: Mark, stack: list[Path]) -> Data | None:
        self.included += 1
        if self.included > MAX_INCLUDES:
            self.problems.add(at, f"more than {MAX_INCLUDES} files are included")
            return None
        target = path.parent / name
        shown = str(Path(label or path).parent / name)
        try:
            resolved = target.resolve()
            if resolved in stack:
                raise ValueError("includes itself")
            text = self.text_of(target)
        except (ValueError, OSError) as error:
            self.problems.add(at, f"included file {quoted(name)} {error}")
            return None
        data, found = read(text, self.places, shown)
        self.problems.found += found
        if data is None and not found:
            return {}
        if not isinstance(data, dict):
            if not found:
                self.problems.add(Mark(1, 1, shown), "an included file is a mapping, as any other")
            return None
        return self._include(cast("Data", data), target, shown, [*stack, resolved])

    def _merge(self, under: Data, over: Data, depth: int = 0) -> Data:
        """Return a mapping with the keys of both; `over` wins, mappings and lists are joined."""
        merged: Data = {}
        entries = self.places.entries(merged)
        for source in (under, over):
            known = self.places.entries(source)
            for key, value in source.items():
                before = merged.get(key)
                if depth == 0 and key == "nodes":
                    before, value = self._named(before), self._named(value)
                if isinstance(before, dict) and isinstance(value, dict):
                    value = self._merge(cast("Data", before), cast("Data", value), depth + 1)
                elif isinstance(before, list) and isinstance(value, list):
                    value = self._join(cast("list[object]", before), cast("list[object]", value))
                merged[key] = value
                if key in known:
                    entries[key] = known[key]
        return merged

    def _named(self, value: object) -> object:
        """Return a list of nodes as a mapping, so that it can be merged with one."""
        if not isinstance(value, list):
            return value
        named: Data = {}
        items = cast("list[object]", value)
        if not all(isinstance(item, str) for item in items):
            return items
        entries = self.places.entries(named)
        known = self.places.entries(items)
        for number, name in enumerate(cast("list[str]", items)):
            named[name] = None
            entries[name] = known[number]
        return named

    def _join(self, first: list[object], second: list[object]) -> list[object]:
        joined = [*first, *second]
        entries = self.places.entries(joined)
        entries.update(self.places.entries(first))
        for number, entry in self.places.entries(second).items():
            entries[cast("int", number) + len(first)] = entry
        return joined

    # -- settings

    def _set(self, data: Data, setting: str) -> None:
        """Write the value of "a.b=value"; a name of a variable stands for the variable."""
        name, equals, text = setting.partition("=")
        label = f"--set {setting}"
        mark = Mark(1, 1, label)
        path = name.strip().split(".")
        if not equals or not all(path):
            self.problems.add(
                mark, "a setting is written NAME=VALUE, such as defaults.links.mtu=9000"
            )
            return
        value, found = read(text, self.places, label)
        self.problems.found += found
        if found:
            return
        variables = data.get("variables")
        if isinstance(variables, dict) and name in variables:
            path = ["variables", name]
        for number, part in enumerate(path[:-1]):
            if part == "sysctls":  # whose keys have dots
                path = [*path[: number + 1], ".".join(path[number + 1 :])]
                break
        target: object = data
        for number, part in enumerate(path):
            last = number == len(path) - 1
            key: str | int = part
            if isinstance(target, list):
                items = cast("list[object]", target)
                if not part.isdecimal() or int(part) >= len(items):
                    where = ".".join(path[:number])
                    self.problems.add(mark, f"{quoted(where)} has {len(items)} entries, from 0")
                    return
                key = int(part)
            elif not isinstance(target, dict):
                where = ".".join(path[:number])
                self.problems.add(
                    mark, f"{quoted(where)} is not a mapping, so nothing can be set in it"
                )
                return
            container: Any = cast("object", target)
            missing = key not in container if isinstance(key, str) else False
            if last or missing or container[key] is None:
                container[key] = value if last else {}
                self.places.entries(container)[key] = (label, 1, 1, 1, 1)
            target = cast("object", container[key])

    # -- variables

    def _substitute(self, data: Data) -> None:
        given = data.get("variables")
        if given is None:
            return
        if not isinstance(given, dict):
            mark = self.places.value(data, "variables")
            self.problems.add(mark, "'variables' must be a mapping of names to values")
            return
        variables: dict[str, object] = {}
        mapping = cast("Data", given)
        for name, value in mapping.items():
            mark = self.places.value(mapping, name)
            if isinstance(value, dict | list):
                self.problems.add(mark, f"variable {quoted(name)} must be a single value")
                continue
            variables[name] = self._replaced(value, variables, mark)
        todo: list[Any] = [value for key, value in data.items() if key != "variables"]
        for key, value in data.items():
            if key != "variables" and isinstance(value, str):
                data[key] = self._replaced(value, variables, self.places.value(data, key))
        seen: set[int] = set()
        while todo:
            container = todo.pop()
            if not isinstance(container, dict | list) or id(cast("object", container)) in seen:
                continue
            seen.add(id(cast("object", container)))
            items: Any = (
                list(cast("Data", container).items())
                if isinstance(container, dict)
                else list(enumerate(cast("list[object]", container)))
            )
            for key, value in items:
                if isinstance(value, str):
                    mark = self.places.value(cast("object", container), key)
                    container[key] = self._replaced(value, variables, mark)
                else:
                    todo.append(value)

    def _replaced(self, value: object, variables: dict[str, object], mark: Mark) -> object:
        """Return a value with its variables filled in; a lone one keeps its type."""
        if not isinstance(value, str) or "${" not in value:
            return value
        lone = _VARIABLE.fullmatch(value)
        if lone and not lone[1] and lone[2] in variables:
            return variables[lone[2]]

        def fill(match: re.Match[str]) -> str:
            if match[1]:
                return match[0][1:]
            if match[2] not in variables:
                hint = self.problems.hint(match[2], variables)
                hint = hint or f"; for the text itself write ${match[0]}"
                self.problems.add(mark, f"there is no variable {quoted(match[2])}{hint}")
                return match[0]
            found = variables[match[2]]
            return str(found).lower() if isinstance(found, bool) else str(found)

        text = _VARIABLE.sub(fill, value)
        if len(text) > MAX_TEXT:
            self.problems.add(mark, f"with its variables this text has {len(text)} characters")
            return value
        return text
