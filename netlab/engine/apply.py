"""Change a lab that runs: operations applied through its supervisor."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterable
from typing import Any

from netlab.engine import channel, state
from netlab.engine.channel import Channel
from netlab.engine.lower import Indexes, lower
from netlab.engine.state import Lab
from netlab.engine.supervisor import checked, operation_error
from netlab.plan.operations import Operation


def indexes_of(lab: Lab) -> Indexes:
    """The interface indexes of a lab that runs, as its state tells."""
    return Indexes((node, device, index) for node, device, index in lab.state.get("indexes", ()))


@contextlib.contextmanager
def exclusive(name: str | None) -> Generator[Lab]:
    """Find a lab that runs and keep other changes away from it for the length of a block.

    ChannelClosedError where a file is gone because the lab has ended meanwhile.
    """
    lab = state.find(name)
    try:
        fd = os.open(f"{lab.folder}/changing", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield state.find(lab.id)  # as whoever had the lock before us left it
        finally:
            os.close(fd)
    except FileNotFoundError:
        channel.connect(lab.folder).close()  # says so where the lab has ended
        raise


def apply(
    lab: Lab,
    operations: Iterable[Operation],
    *,
    indexes: Indexes | None = None,
    describe: dict[str, Any] | None = None,
) -> None:
    """Apply operations to a lab as `apply_over` does."""
    with contextlib.closing(channel.connect(lab.folder)) as connection:
        known = indexes or indexes_of(lab)
        apply_over(connection, operations, known, str(lab.state.get("source", "")), describe)


def apply_over(
    connection: Channel,
    operations: Iterable[Operation],
    indexes: Indexes,
    source: str,
    describe: dict[str, Any] | None = None,
) -> None:
    """Apply operations, in order; OperationError names the one the kernel refused.

    What came before the refused one stays. `describe` replaces parts of the lab's state.
    """
    wanted = tuple(operations)
    program = lower(wanted, indexes)
    told = {
        "indexes": [[node, device, index] for (node, device), index in indexes.of.items()],
        **(describe or {}),
    }
    request = {"do": "build", "program": program.stages, "describe": told}
    answer = connection.request(request, blob=program.blob)
    error = answer.get("error")
    if error is not None and error.get("kind") == "operation":
        raise operation_error(source, wanted, error)
    checked(answer)
