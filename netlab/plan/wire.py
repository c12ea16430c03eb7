"""From an impairment to the settings of the userspace wire (crates/netlab-wire, README there).

The wire does queue, rate, exact drops, loss, duplication, corruption and delay in this order. Its
times are whole nanoseconds. Where no seed is given, a link has one that follows from its name, so
that a run repeats; the wire draws apart for its two directions.
"""

from __future__ import annotations

import json
from hashlib import sha256
from math import ceil
from typing import Any

from netlab.model.impairment import (
    Bfifo,
    Codel,
    Distribution,
    DropRule,
    Fq,
    FqCodel,
    GilbertElliott,
    Impairment,
    LossStates,
    Match,
    Pfifo,
    Queue,
    Red,
    Tbf,
)
from netlab.model.topology import Link
from netlab.plan.episodes import episodes_of

Json = dict[str, Any]

ETHERNET = 14
"""Bytes of an Ethernet header."""
LONGEST = 3600.0
"""Seconds; the wire takes a longer delay for a mistake in the unit."""
OVERHEAD = (-40, 1000)
"""Bytes by which a frame may count as longer than it is."""
RING = (4096, 65_536)
"""Frames that the ring of a TAP device holds, at least and at most (8 bytes of the kernel each)."""
FORWARD, BACKWARD = "a_to_b", "b_to_a"


def refusal(impairment: Impairment, mtu: int = 1500) -> str | None:
    """Return why the wire cannot do this impairment, None if it can."""
    if isinstance(impairment.loss_model, LossStates):
        return "the wire has no four-state channel (loss_model: states)"
    if isinstance(impairment.queue, Red | Fq):
        return f"the wire has no queue '{type(impairment.queue).__name__.lower()}'"
    if impairment.slot:
        return "the wire has no slots"
    if max(impairment.delay, impairment.jitter) > LONGEST:
        return f"the wire delays by an hour at most, not {impairment.delay:g} s"
    if not OVERHEAD[0] <= impairment.overhead <= OVERHEAD[1]:
        return f"the wire takes an overhead of {OVERHEAD[0]}…{OVERHEAD[1]} bytes"
    if isinstance(impairment.queue, Tbf) and impairment.queue.burst < mtu + ETHERNET:
        return (
            f"a token bucket of {impairment.queue.burst} bytes never lets a frame of "
            f"{mtu + ETHERNET} bytes pass"
        )
    if isinstance(impairment.queue, Tbf) and impairment.trace:
        return "a token bucket needs a rate, and the link follows a trace"
    for episode in impairment.schedule:
        reason = refusal(episode.becomes, mtu)
        if reason is not None:
            return reason
    return None


def ring(impairment: Impairment) -> int:
    """Return how many frames the ring of the TAP device holds at which a direction begins.

    A sender may get ahead of the wire by a whole window: what its queue has room for must not be
    lost in front of it.
    """
    least, most = RING
    ever = (impairment, *(episode.becomes for episode in impairment.schedule))
    return min(most, max(least, *map(_room, ever)))


def _room(impairment: Impairment) -> int:
    """Return how many packets a direction has room for, where that is said in packets."""
    queue = impairment.waits
    return queue.limit if isinstance(queue, Pfifo | Codel | FqCodel) else impairment.limit


def seed_of(link: str) -> int:
    """Return the seed of a link for which none is given: 32 bits of a digest of its name."""
    return int.from_bytes(sha256(link.encode()).digest()[:4], "big")


def settings(impairment: Impairment) -> Json:
    """Return the settings of one direction, without its schedule, as the wire reads them."""
    it = impairment
    told: Json = {}
    if it.delay:
        told["delay_ns"] = _ns(it.delay)
    if it.jitter:
        told["jitter"] = _jitter(it)
    if it.loss or it.loss_model is not None:
        told["loss"] = _loss(it)
    if it.drops:
        told["drop"] = [_rule(rule) for rule in it.drops]
    if it.reorder:
        told["reorder"] = _likelihood(it.reorder, it.reorder_correlation)
        if it.reorder_gap:
            told["reorder"]["gap"] = it.reorder_gap
    if it.duplicate:
        told["duplicate"] = _likelihood(it.duplicate, it.duplicate_correlation)
    if it.corrupt:
        told["corrupt"] = _likelihood(it.corrupt, it.corrupt_correlation)
    if it.rate:
        told["rate"] = _rate(it)
    if it.trace is not None:
        told["trace"] = {"ms": list(it.trace.opportunities)}
    waits = it.waits
    if waits is not None:
        told["queue"] = _queue(waits)
    elif it.limit:
        told["limit"] = it.limit
    if it.seed is not None:
        told["seed"] = it.seed
    return told


def configuration(
    link: Link, ports: tuple[str, str], taps: tuple[tuple[str, str], ...] = ()
) -> Json:
    """Return what a wire is started with.

    It lies between two interfaces of its own namespace, or between two TAP devices (node, name).
    """
    a, b = (
        [{"tap": name, "netns": f"/run/netns/{node}"} for node, name in taps]
        if taps
        else [{"packet": port} for port in ports]
    )
    told: Json = {
        "name": link.name,
        "seed": seed_of(link.name),
        "mtu": max(link.a.mtu, link.b.mtu),
        "a": a,
        "b": b,
        FORWARD: settings(link.forward),
        BACKWARD: settings(link.backward),
    }
    ways = ((FORWARD, link.forward), (BACKWARD, link.backward))
    changes = [
        (_ns(at), way, settings(becomes))
        for way, impairment in ways
        for at, becomes in episodes_of(impairment)
    ]
    if changes:
        told["schedule"] = [
            {"at_ns": at_ns, "direction": way, "settings": becomes}
            for at_ns, way, becomes in sorted(changes, key=lambda change: change[:2])
        ]
    # The kernel kills the wire with its lab; by hand it may outlive the shell that started it.
    return {"version": 1, "die_with_parent": False, "hold_schedule": True, "links": [told]}


def settings_of(config: str, way: str) -> Json:
    """Return the settings of one direction in a configuration, as `AddWire` has it."""
    found: Json = json.loads(config)["links"][0][way]
    return found


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _jitter(it: Impairment) -> Json:
    told: Json = {"ns": _ns(it.jitter)}
    if it.distribution is not Distribution.UNIFORM:
        told["distribution"] = it.distribution.value
    if it.delay_correlation:
        told["correlation"] = it.delay_correlation
    if it.jitter_reorders:
        told["reorders"] = True
    return told


def _loss(it: Impairment) -> Json:
    told: Json = {}
    match it.loss_model:
        case GilbertElliott(p, r, bad, good):
            told["gilbert_elliott"] = {"p": p, "r": r, "bad_loss": bad, "good_loss": good}
        case _:
            told |= _likelihood(it.loss, it.loss_correlation)
    if it.ecn:
        told["ecn"] = True
    return told


def _likelihood(ratio: float, correlation: float) -> Json:
    return {"rate": ratio, "correlation": correlation} if correlation else {"rate": ratio}


def _rule(rule: DropRule) -> Json:
    told: Json = {"match": Match(rule.match).value}
    if rule.nth:
        told["nth"] = list(rule.nth)
    if rule.every:
        told["every"] = rule.every
    if rule.per_flow:
        told["per"] = "flow"
    return told


def _rate(it: Impairment) -> Json:
    told: Json = {"bits_per_second": ceil(it.rate)}
    for name in ("overhead", "cell", "cell_overhead"):
        if getattr(it, name):
            told[f"{name}_bytes"] = getattr(it, name)
    if isinstance(it.queue, Tbf):
        told["burst_bytes"] = it.queue.burst
        if it.queue.peak:
            told["peak_bits_per_second"] = ceil(it.queue.peak)
    return told


def _queue(queue: Queue) -> Json:
    match queue:
        case Pfifo(limit):
            return {"kind": "pfifo", "packets": limit}
        case Bfifo(limit) | Tbf(limit=limit):
            return {"kind": "bfifo", "bytes": limit}
        case Codel():
            return {"kind": "codel", "packets": queue.limit, **_codel(queue)}
        case FqCodel():
            sizes = {"bytes": queue.memory_limit, "flows": queue.flows, "quantum": queue.quantum}
            return {"kind": "fq_codel", "packets": queue.limit, **sizes, **_codel(queue)}
        case Red() | Fq():
            raise ValueError(f"the wire has no queue '{type(queue).__name__.lower()}'")


def _codel(queue: Codel | FqCodel) -> Json:
    times = {"target_ns": _ns(queue.target), "interval_ns": _ns(queue.interval)}
    return {**times, "ecn": queue.ecn}
