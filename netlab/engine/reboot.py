"""Reboot a node of a lab that runs; `netlab.plan.reboot` says what that is."""

from __future__ import annotations

from netlab.engine.apply import apply_over
from netlab.engine.channel import Channel
from netlab.engine.lower import Indexes
from netlab.model.topology import Topology
from netlab.plan.operations import AddQdisc
from netlab.plan.reboot import reboot as plan_of


def switch_off_and_on(
    connection: Channel,
    topology: Topology,
    indexes: Indexes,
    node: str,
    *,
    off: float = 0.0,
    shaped: tuple[AddQdisc, ...] = (),
) -> None:
    """Make a node's namespace anew; `off` seconds pass in between.

    `shaped` is what somebody has put on the node's own interfaces (`netlab tc`): it is of the link,
    so it is put there again.
    """
    gone, back = plan_of(topology, node)
    again = (*back.operations, *shaped)
    if not off:
        apply_over(connection, (*gone.operations, *again), indexes, topology.source)
        return
    apply_over(connection, gone.operations, indexes, topology.source)
    connection.sleep(off)
    apply_over(connection, again, indexes, topology.source)
