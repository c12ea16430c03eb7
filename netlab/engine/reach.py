"""Find a lab that runs and connect to it; light, because `netlab exec` does it every time."""

from __future__ import annotations

from netlab.engine import channel, state
from netlab.engine.channel import Channel
from netlab.engine.state import Lab
from netlab.errors import UsageError


def connect(name: str | None, node: str | None = None) -> tuple[Lab, Channel]:
    """Connect to a lab that runs, by name or because it is the only one; it must have the node."""
    lab = state.find(name)
    if node is not None:
        check_node(lab, node)
    return lab, channel.connect(lab.folder)


def check_node(lab: Lab, node: str) -> None:
    """UsageError, with the nearest name, when a lab has no such node."""
    if node in lab.nodes:
        return
    from difflib import get_close_matches

    visible = [name for name, found in lab.nodes.items() if not found["hidden"]]
    close = get_close_matches(node, visible, n=1)
    known = ", ".join(visible[:10]) + (", ..." if len(visible) > 10 else "")
    hint = f"did you mean {close[0]!r}?" if close else f"it has {known}"
    raise UsageError(f"lab {lab.id!r} has no node {node!r}", hint=hint)
