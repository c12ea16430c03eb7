"""The timeline: one JSON object per line, in the order in which things happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at `at_ns` (CLOCK_REALTIME); `fields` are particular to `kind`."""

    at_ns: int
    kind: str
    fields: Mapping[str, Any]

    def line(self) -> str:
        """Return the event as one line of text, with its newline."""
        record = {"at_ns": self.at_ns, "kind": self.kind, **self.fields}
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


@dataclass(frozen=True, slots=True)
class Phase:
    """A named stretch of time; `end_ns` is None when the run ended inside it."""

    name: str
    start_ns: int
    end_ns: int | None


def parse(text: str) -> tuple[Event, ...]:
    """Return the events of a timeline; a torn last line, left by a crash, is not an event.

    Raises ValueError naming the line for damage anywhere else.
    """
    events: list[Event] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = cast("dict[str, Any]", json.loads(line))
            at_ns, kind = int(record.pop("at_ns")), str(record.pop("kind"))
        except (ValueError, KeyError, TypeError, AttributeError):
            if number == len(lines):
                break
            raise ValueError(f"line {number} of the timeline is not an event") from None
        events.append(Event(at_ns, kind, record))
    return tuple(events)


def phases(events: tuple[Event, ...]) -> tuple[Phase, ...]:
    """Return the phases in the order in which they began."""
    started: dict[str, int] = {}
    order: list[str] = []
    ended: dict[str, int] = {}
    for event in events:
        name = str(event.fields.get("phase", ""))
        if event.kind == "phase-start" and name not in started:
            started[name] = event.at_ns
            order.append(name)
        elif event.kind == "phase-end":
            ended[name] = event.at_ns
    return tuple(Phase(name, started[name], ended.get(name)) for name in order)
