"""Which back end impairs a link: the kernel's netem, or the userspace wire.

A link has one back end for both directions. netem comes first where the kernel has it and it can do
what is asked, since packets then never leave the kernel; else the wire; else CapabilityError with
the reasons.
"""

from __future__ import annotations

from enum import StrEnum

from netlab.errors import CapabilityError
from netlab.model.capabilities import Capabilities
from netlab.model.topology import Link
from netlab.plan import qdiscs, wire
from netlab.plan.operations import AddWire, Plan

ALWAYS = frozenset({"pfifo", "bfifo"})  # no kernel is without these


class Backend(StrEnum):
    """What impairs a link."""

    NETEM = "netem"
    WIRE = "wire"


def choose(
    link: Link, capabilities: Capabilities | None = None, wanted: Backend | None = None
) -> Backend:
    """Return the back end of an impaired link; `wanted` leaves only one to choose from.

    Without `capabilities` the machine is taken to be able to do everything.
    """
    reasons: dict[Backend, CapabilityError] = {}
    for backend in (wanted,) if wanted is not None else (Backend.NETEM, Backend.WIRE):
        test = _netem if backend is Backend.NETEM else _wire
        refused = test(link, capabilities)
        if refused is None:
            return backend
        reasons[backend] = refused
    first = next(iter(reasons.values()))
    text = "; and ".join(reason.message for reason in reasons.values())
    raise CapabilityError(f"link '{link.name}': {text}", hint=first.hint)


def _netem(link: Link, capabilities: Capabilities | None) -> CapabilityError | None:
    for impairment in (link.forward, link.backward):
        for one in (impairment, *(episode.becomes for episode in impairment.schedule)):
            reason = qdiscs.refusal(one, capabilities.kernel if capabilities else "")
            if reason is not None:
                return CapabilityError(reason, hint="the wire back end can")
            kinds = () if capabilities is None else qdiscs.chain(one, link.a.mtu)
            for kind in (qdisc.kind for qdisc in kinds):
                assert capabilities is not None
                if kind not in capabilities.qdiscs and kind not in ALWAYS:
                    return CapabilityError(
                        f"this kernel has no {kind}",
                        hint="install the kernel's extra modules (linux-modules-extra) or use a "
                        f"machine that has sch_{kind}, such as `--machine guest`",
                    )
    return None


def _wire(link: Link, capabilities: Capabilities | None) -> CapabilityError | None:
    if capabilities is not None and not capabilities.wire:
        return CapabilityError(
            "the wire cannot run here: it needs packet sockets and netlab's native part"
        )
    if link.offloads:
        return CapabilityError(
            "the wire carries frames as they are, so offloads would leave them unfinished",
            hint="leave `offloads` out",
        )
    mtu = max(link.a.mtu, link.b.mtu)
    for impairment in (link.forward, link.backward):
        reason = wire.refusal(impairment, mtu)
        if reason is not None:
            return CapabilityError(reason, hint="netem can, where the kernel has it")
    return None


def backends(plan: Plan) -> dict[str, str]:
    """Return the back end of each impaired link of a plan."""
    wired = {op.link for op in plan.operations if isinstance(op, AddWire)}
    return {
        link.name: str(Backend.WIRE if link.name in wired else Backend.NETEM)
        for link in plan.topology.links
        if link.forward or link.backward
    }
