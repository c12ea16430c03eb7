from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from netlab.errors import CapabilityError
from netlab.model.capabilities import Capabilities
from netlab.model.impairment import (
    PERFECT,
    Bfifo,
    Codel,
    Distribution,
    DropRule,
    Episode,
    Fq,
    FqCodel,
    GilbertElliott,
    Impairment,
    LossStates,
    Match,
    Pfifo,
    Red,
    Slot,
    Tbf,
    Trace,
)
from netlab.model.topology import Link, Topology
from netlab.model.yaml import loads
from netlab.plan import wire
from netlab.plan.backend import Backend, choose
from netlab.plan.build import build
from netlab.plan.operations import AddBridge, AddQdisc, AddTap, AddWire
from netlab.plan.script import script
from netlab.units import kbit, mbit, ms

NETEM = Capabilities(kernel="6.12.0", qdiscs=frozenset({"netem", "tbf", "codel"}), wire=True)
BARE = Capabilities(wire=True)

SETTINGS: list[tuple[Impairment, dict[str, Any]]] = [
    (PERFECT, {}),
    (Impairment(delay=1.5 * ms), {"delay_ns": 1_500_000}),
    (
        Impairment(delay=20 * ms, jitter=2 * ms, distribution=Distribution.PARETONORMAL),
        {"delay_ns": 20_000_000, "jitter": {"ns": 2_000_000, "distribution": "paretonormal"}},
    ),
    (
        Impairment(delay=20 * ms, jitter=2 * ms, delay_correlation=0.25, jitter_reorders=True),
        {
            "delay_ns": 20_000_000,
            "jitter": {"ns": 2_000_000, "correlation": 0.25, "reorders": True},
        },
    ),
    (Impairment(loss=0.01), {"loss": {"rate": 0.01}}),
    (
        Impairment(loss=0.01, loss_correlation=0.5, ecn=True),
        {"loss": {"rate": 0.01, "correlation": 0.5, "ecn": True}},
    ),
    (
        Impairment(loss_model=GilbertElliott(0.01, 0.25, 0.9, 0.1)),
        {"loss": {"gilbert_elliott": {"p": 0.01, "r": 0.25, "bad_loss": 0.9, "good_loss": 0.1}}},
    ),
    (
        Impairment(drops=(DropRule(Match.TCP_DATA, nth=(2, 5), per_flow=True),)),
        {"drop": [{"match": "tcp-data", "nth": [2, 5], "per": "flow"}]},
    ),
    (
        Impairment(drops=(DropRule(Match.ANY, every=3),)),
        {"drop": [{"match": "any", "every": 3}]},
    ),
    (
        Impairment(duplicate=0.1, duplicate_correlation=0.2, corrupt=0.3, corrupt_correlation=0.4),
        {
            "duplicate": {"rate": 0.1, "correlation": 0.2},
            "corrupt": {"rate": 0.3, "correlation": 0.4},
        },
    ),
    (
        Impairment(delay=1 * ms, reorder=0.25, reorder_correlation=0.5, reorder_gap=5),
        {"delay_ns": 1_000_000, "reorder": {"rate": 0.25, "correlation": 0.5, "gap": 5}},
    ),
    (
        Impairment(rate=10 * mbit, overhead=24, cell=48, cell_overhead=5),
        {
            "rate": {
                "bits_per_second": 10_000_000,
                "overhead_bytes": 24,
                "cell_bytes": 48,
                "cell_overhead_bytes": 5,
            },
            "queue": {"kind": "pfifo", "packets": 1000},
        },
    ),
    (
        Impairment(rate=64 * kbit, limit=7, seed=9),
        {
            "rate": {"bits_per_second": 64_000},
            "queue": {"kind": "pfifo", "packets": 7},
            "seed": 9,
        },
    ),
    (Impairment(delay=1 * ms, limit=7), {"delay_ns": 1_000_000, "limit": 7}),
    (
        Impairment(trace=Trace((1, 3)), queue=Bfifo(3000)),
        {"trace": {"ms": [1, 3]}, "queue": {"kind": "bfifo", "bytes": 3000}},
    ),
    (
        Impairment(rate=1 * mbit, queue=Tbf(burst=3000, limit=9000, peak=2 * mbit)),
        {
            "rate": {
                "bits_per_second": 1_000_000,
                "burst_bytes": 3000,
                "peak_bits_per_second": 2_000_000,
            },
            "queue": {"kind": "bfifo", "bytes": 9000},
        },
    ),
    (
        Impairment(rate=1 * mbit, queue=Codel(50, 4 * ms, 80 * ms, ecn=True)),
        {
            "rate": {"bits_per_second": 1_000_000},
            "queue": {
                "kind": "codel",
                "packets": 50,
                "target_ns": 4_000_000,
                "interval_ns": 80_000_000,
                "ecn": True,
            },
        },
    ),
    (
        Impairment(rate=1 * mbit, queue=FqCodel(50, 16, 300, 4 * ms, 80 * ms, 1 << 20, ecn=False)),
        {
            "rate": {"bits_per_second": 1_000_000},
            "queue": {
                "kind": "fq_codel",
                "packets": 50,
                "bytes": 1 << 20,
                "flows": 16,
                "quantum": 300,
                "target_ns": 4_000_000,
                "interval_ns": 80_000_000,
                "ecn": False,
            },
        },
    ),
]


@pytest.mark.parametrize(("impairment", "told"), SETTINGS)
def test_an_impairment_becomes_settings_of_the_wire(
    impairment: Impairment, told: dict[str, Any]
) -> None:
    assert wire.refusal(impairment) is None
    assert wire.settings(impairment) == told


def test_every_field_is_tried_or_refused() -> None:
    tried = {f.name for f in fields(PERFECT) for it, _ in SETTINGS if differs(it, f.name)}
    assert tried | {"slot", "schedule"} == {f.name for f in fields(PERFECT)}


def differs(impairment: Impairment, name: str) -> bool:
    return getattr(impairment, name) != getattr(PERFECT, name)


@pytest.mark.parametrize(
    ("impairment", "reason"),
    [
        (Impairment(loss_model=LossStates(0.1, 0.2)), "four-state"),
        (Impairment(rate=1 * mbit, queue=Red(9000, 1000, 3000)), "no queue 'red'"),
        (Impairment(rate=1 * mbit, queue=Fq()), "no queue 'fq'"),
        (Impairment(delay=1 * ms, slot=Slot(0.01, 0.02)), "no slots"),
        (Impairment(delay=3601), "an hour at most"),
        (Impairment(rate=1 * mbit, overhead=-41), "-40…1000"),
        (Impairment(rate=1 * mbit, queue=Tbf(1000, 9000)), "1514 bytes pass"),
        (Impairment(delay=1, schedule=(Episode(1, Impairment(delay=9999)),)), "an hour"),
    ],
)
def test_what_the_wire_cannot_do_is_refused_with_the_reason(
    impairment: Impairment, reason: str
) -> None:
    refused = wire.refusal(impairment)
    assert refused is not None
    assert reason in refused


def topology(words: str) -> Topology:
    return loads(f"nodes: [a, b]\nlinks: [{{name: x, ends: a-b, {words}}}]\n")


def link(words: str) -> Link:
    return topology(words).links[0]


@pytest.mark.parametrize(
    ("words", "capabilities", "wanted", "chosen"),
    [
        ("delay: 1ms", None, None, Backend.NETEM),
        ("delay: 1ms", NETEM, None, Backend.NETEM),
        ("delay: 1ms", NETEM, Backend.WIRE, Backend.WIRE),
        ("delay: 1ms", BARE, None, Backend.WIRE),
        ("drops: [{match: tcp-data, nth: [2]}]", NETEM, None, Backend.WIRE),
        ("drops: [{match: tcp-data, nth: [2]}]", None, None, Backend.WIRE),
        ("loss: 1%, reorder: 0, duplicate: 1%, duplicate_correlation: 9%", NETEM, None, "wire"),
        ("delay: 1ms, slot: {minimum: 1ms, maximum: 2ms}", NETEM, None, Backend.NETEM),
        ("delay: 1ms, schedule: [{at: 1s, drops: [{match: udp, nth: [1]}]}]", NETEM, None, "wire"),
        ("rate: 1mbit, queue: fq_codel", NETEM, None, Backend.WIRE),
    ],
)
def test_netem_comes_first_where_it_is_there_and_able(
    words: str, capabilities: Capabilities | None, wanted: Backend | None, chosen: str
) -> None:
    assert choose(link(words), capabilities, wanted) == chosen


@pytest.mark.parametrize(
    ("words", "capabilities", "wanted", "reason"),
    [
        ("delay: 1ms", Capabilities(), None, "link 'x': this kernel has no netem; and the wire"),
        ("delay: 1ms", BARE, Backend.NETEM, "link 'x': this kernel has no netem;"),
        ("delay: 1ms, slot: {minimum: 1ms, maximum: 2ms}", BARE, None, "the wire has no slots"),
        ("delay: 1ms, offloads: true", BARE, None, "offloads would leave them unfinished"),
        ("drops: [{match: udp, nth: [1]}]", NETEM, Backend.NETEM, "exact packets"),
    ],
)
def test_where_neither_can_the_reasons_are_told(
    words: str, capabilities: Capabilities, wanted: Backend | None, reason: str
) -> None:
    with pytest.raises(CapabilityError) as caught:
        choose(link(words), capabilities, wanted)
    assert reason in str(caught.value)


def test_a_wire_takes_the_place_of_bridge_and_disciplines() -> None:
    plan = build(topology("delay: 1ms"), BARE)
    kinds = {type(operation) for operation in plan.operations}
    assert AddWire in kinds
    assert not kinds & {AddBridge, AddQdisc}
    last = script(plan).splitlines()[-1]
    assert last.startswith("ip netns exec x.wire python3 -m netlab.engine.wire_main '{")
    assert last.endswith("' &")


def test_a_schedule_is_the_wires_own_and_overlaps_as_everywhere() -> None:
    outage, slow = Impairment(loss=1.0), Impairment(delay=50 * ms)
    base = Impairment(delay=1 * ms)
    whole = replace(link("delay: 1ms"), forward=replace(base, schedule=(Episode(5, outage, 2),)),
                    backward=replace(base, schedule=(Episode(1, slow),)))  # fmt: skip
    config = wire.configuration(whole, ("p0", "p1"))
    assert config["hold_schedule"] is True
    assert config["links"][0]["schedule"] == [
        {"at_ns": 10**9, "direction": "b_to_a", "settings": {"delay_ns": 50_000_000}},
        {"at_ns": 5 * 10**9, "direction": "a_to_b", "settings": {"loss": {"rate": 1.0}}},
        {"at_ns": 7 * 10**9, "direction": "a_to_b", "settings": {"delay_ns": 1_000_000}},
    ]


def test_a_links_seed_follows_from_its_name() -> None:
    seeds = [wire.configuration(link("loss: 1%"), ("p0", "p1"))["links"][0]["seed"]]
    seeds += [wire.seed_of("x"), wire.seed_of("y")]
    assert seeds[0] == seeds[1] != seeds[2]
    json.dumps(wire.configuration(link("loss: 1%"), ("p0", "p1")))


@pytest.mark.parametrize(
    ("words", "rings"),
    [
        ("delay: 1ms", (4096, 4096)),
        ("rate: 1gbit, limit: 100", (4096, 4096)),
        ("rate: 1gbit, limit: 20000", (20_000, 20_000)),
        ("a->b: {delay: 1ms, limit: 5000}, b->a: {rate: 1gbit, queue: fq_codel}", (5000, 10_240)),
        ("rate: 1gbit, queue: {kind: bfifo, limit: 100MB}", (4096, 4096)),
        ("rate: 1gbit, limit: 1000000", (65_536, 65_536)),
        ("rate: 1gbit, schedule: [{at: 1s, limit: 9000}]", (9000, 9000)),
    ],
)
def test_the_ring_of_a_tap_has_room_for_what_the_queue_behind_it_holds(
    words: str, rings: tuple[int, int]
) -> None:
    plan = build(topology(words), replace(BARE, tun=True))
    taps = [operation for operation in plan.operations if isinstance(operation, AddTap)]
    assert tuple(tap.ring for tap in taps) == rings
    assert [tap.commands[-1][-2:] for tap in taps] == [("txqueuelen", str(r)) for r in rings]


def test_a_pfifo_is_the_queue_in_front_of_a_rate() -> None:
    told = wire.settings(Impairment(rate=1 * mbit, queue=Pfifo(5)))
    assert told["queue"] == {"kind": "pfifo", "packets": 5}
