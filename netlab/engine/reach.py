"""Find a lab that runs and connect to it; light, because `netlab exec` does it every time."""

from __future__ import annotations

from netlab.engine import channel, state
from netlab.engine.channel import Channel
from netlab.engine.state import Lab
from netlab.errors import EngineError


def connect(name: str | None) -> tuple[Lab, Channel]:
    """Connect to a lab that runs, by name or because it is the only one."""
    lab = state.find(name)
    try:
        return lab, channel.connect(lab.path)
    except OSError as error:
        raise EngineError(f"the lab {lab.id!r} ended just now") from error
