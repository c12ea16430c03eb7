"""The manifest: what was run, on what, and whether the recording is whole.

Written by netlab, perhaps by another version of it, so reading is a door for foreign text and
guarded by pydantic; `Manifest` itself is a plain frozen dataclass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = 1

Status = Literal["running", "complete", "interrupted"]
Fidelity = Literal["ok", "suspect", "invalid", "unknown"]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Size in bytes and SHA-256 (hexadecimal) of one file of a recording."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a recording is of. Times are CLOCK_REALTIME nanoseconds of the machine that ran it.

    `options` are the scenario's keyword arguments as given, `sysctls` the settings that matter
    per node as read back during the run, `tools` the versions of what was started. `backend` names
    what impaired links, `backends` which of them each impaired link had. `status` stays
    "running" when nothing could write the end: such a recording is as incomplete as an
    "interrupted" one. `scale` says how much slower the machine was than a quick one, `pace` by what
    the rates of the lab's links were divided for it, `fidelity` what
    `netlab.analysis.fidelity` made of the recording when it was closed.
    """

    run: str
    lab: str
    variation: str | None = None
    fault: str | None = None
    status: Status = "running"
    reason: str = ""
    schema: int = SCHEMA
    netlab: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    kernel: str = ""
    machine: str = ""
    hz: int | None = None
    backend: str = ""
    backends: Mapping[str, str] = field(default_factory=dict[str, str])
    topology_sha256: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seeds: Mapping[str, int] = field(default_factory=dict[str, int])
    sysctls: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, dict[str, str]])
    tools: Mapping[str, str] = field(default_factory=dict[str, str])
    scale: float = 1.0
    pace: int = 1
    fidelity: Fidelity = "unknown"
    fidelity_reasons: tuple[str, ...] = ()
    files: Mapping[str, FileDigest] = field(default_factory=dict[str, FileDigest])

    @property
    def complete(self) -> bool:
        """True when the run reached its end and every file was digested."""
        return self.status == "complete"

    def text(self) -> str:
        """Return the manifest as the JSON text that `parse` reads back."""
        return json.dumps(asdict(self), indent=1, sort_keys=False, ensure_ascii=False) + "\n"


@cache
def _validator() -> TypeAdapter[Manifest]:
    from pydantic import TypeAdapter

    return TypeAdapter(Manifest)


def parse(text: str) -> Manifest:
    """Return the manifest written in `text`; ValueError with one sentence if it is none."""
    from pydantic import ValidationError

    try:
        raw: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}") from None
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    schema = cast("dict[str, Any]", raw).get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"schema {schema} is newer than the {SCHEMA} this netlab reads")
    try:
        return _validator().validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place or 'manifest'}: {first['msg']}") from None
