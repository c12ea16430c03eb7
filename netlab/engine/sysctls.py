"""Sysctls of a node that runs: read, and set for as long as the node is not rebooted."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from netlab.engine import channel
from netlab.engine.apply import apply_over, indexes_of
from netlab.engine.lower import sysctl_path
from netlab.engine.reach import check_node
from netlab.engine.state import Lab
from netlab.engine.supervisor import checked
from netlab.errors import UsageError
from netlab.plan.operations import SetSysctl


def key_of(text: str) -> str:
    """Return a key with dots, as sysctl(8) has it; UsageError for one that no node has."""
    key = text
    if "/" in text and "." not in text.partition("/")[0]:
        key = text.strip("/").replace(".", "\0").replace("/", ".").replace("\0", "/")
    if not key.startswith("net.") or ".." in key:
        raise UsageError(
            f"a node has no {text!r} of its own", hint="only sysctls that begin with net. are"
        )
    return key


def read(lab: Lab, node: str, keys: Sequence[str]) -> dict[str, str]:
    """Return the values of some sysctls; UsageError, with the nearest name, for an unknown one."""
    check_node(lab, node)
    paths = {sysctl_path(key): key for key in keys}
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        request = {"do": "sysctls", "node": node, "paths": list(paths)}
        answer = checked(connection.request(request))
    values: dict[str, str | None] = answer["values"]
    known: list[str] = answer["known"]
    for path, key in paths.items():
        if values[path] is None:
            close = get_close_matches(path, known, n=1, cutoff=0.8)
            hint = f"did you mean '{_key(close[0])}'?" if close else None
            raise UsageError(f"node {node!r} has no sysctl '{key}'", hint=hint)
    return {key: str(values[path]) for path, key in paths.items()}


def _key(path: str) -> str:
    name = path.removeprefix("/proc/sys/")
    return name.replace(".", "\0").replace("/", ".").replace("\0", "/")


def write(lab: Lab, node: str, wanted: Mapping[str, str]) -> None:
    """Set sysctls, each verified; OperationError for a value that the kernel does not keep.

    They are kept in mind, so that `apply` can change them back.
    """
    read(lab, node, list(wanted))
    by_hand: dict[str, Any] = {**lab.state.get("sysctls", {})}
    indexes, source = indexes_of(lab), str(lab.state.get("source", ""))
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        for key, value in wanted.items():
            by_hand[node] = {**by_hand.get(node, {}), key: value}
            operation = SetSysctl(node, key, value)
            apply_over(connection, (operation,), indexes, source, {"sysctls": by_hand})
