"""What the tcp_info sampler wrote: the sockets of a node over time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class SocketSample:
    """One socket at one instant; `info` holds the kernel's tcp_info, empty where it gave none."""

    state: str
    local: str
    lport: int
    remote: str
    rport: int
    rqueue: int
    wqueue: int
    cookie: int
    info: Mapping[str, Any]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """The sockets of a node, asked for at `at_ns` and answered `took_ns` later."""

    at_ns: int
    took_ns: int
    sockets: tuple[SocketSample, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """All samples of one node. `late` and `missed` count the sampler's own lateness.

    `ended` is False when the sampler was cut off before it could say how it went.
    """

    every: float
    samples: tuple[Sample, ...]
    late: int = 0
    missed: int = 0
    worst_late: float = 0.0
    ended: bool = False

    def states(self, port: int) -> tuple[tuple[int, str], ...]:
        """Return (at_ns, state) where the state of the connection on `port` changed.

        A listener is not a connection. "CLOSED" stands for samples without the socket after it
        was first seen.
        """
        changes: list[tuple[int, str]] = []
        for sample in self.samples:
            found = next(
                (
                    s.state
                    for s in sample.sockets
                    if port in (s.lport, s.rport) and s.state not in ("LISTEN", "UNCONN")
                ),
                "CLOSED",
            )
            if (changes and changes[-1][1] != found) or (not changes and found != "CLOSED"):
                changes.append((sample.at_ns, found))
        return tuple(changes)


def parse(text: str, node: str) -> Samples:
    """Return the samples of `node`; a torn last line is left out, other damage a ValueError."""
    every, late, missed, worst, ended = 0.0, 0, 0, 0.0, False
    samples: list[Sample] = []
    for record in _records(text):
        if "schema" in record:
            every = float(record["every_s"])
        elif "end_ns" in record:
            late, missed = int(record["late"]), int(record["missed"])
            worst, ended = float(record["worst_late_s"]), True
        elif record.get("node") == node:
            sockets = tuple(_socket(item) for item in record["sockets"])
            samples.append(Sample(int(record["at_ns"]), int(record["took_ns"]), sockets))
    return Samples(every, tuple(samples), late, missed, worst, ended)


def _records(text: str) -> Iterator[dict[str, Any]]:
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise ValueError(f"line {number} of the samples is not JSON") from None
        if not isinstance(record, dict):
            raise ValueError(f"line {number} of the samples is not an object")
        yield cast("dict[str, Any]", record)


def _socket(item: Mapping[str, Any]) -> SocketSample:
    return SocketSample(
        state=str(item["state"]),
        local=str(item["local"]),
        lport=int(item["lport"]),
        remote=str(item["remote"]),
        rport=int(item["rport"]),
        rqueue=int(item["rqueue"]),
        wqueue=int(item["wqueue"]),
        cookie=int(item["cookie"]),
        info=item.get("info", {}),
        raw=item,
    )
