from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab.errors import TopologyError
from netlab.model.dump import dump
from netlab.model.impairment import (
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
from netlab.model.yaml import loads
from netlab.units import mbit, ms

FULL = Impairment(
    delay=20 * ms,
    jitter=2 * ms,
    distribution=Distribution.NORMAL,
    delay_correlation=0.25,
    jitter_reorders=True,
    loss=0.01,
    loss_correlation=0.3,
    ecn=True,
    drops=(DropRule(Match.TCP_DATA, nth=(2, 5), per_flow=True), DropRule(Match.UDP, every=10)),
    duplicate=0.001,
    duplicate_correlation=0.1,
    corrupt=0.002,
    reorder=0.25,
    reorder_correlation=0.5,
    reorder_gap=5,
    rate=10 * mbit,
    overhead=-4,
    cell=48,
    cell_overhead=5,
    limit=100,
    seed=7,
)


def text(word: str) -> str:
    return f"nodes: [a, b]\nlinks:\n  - ends: a-b\n    {word}\n"


def link(word: str) -> Impairment:
    return loads(text(word)).links[0].forward


def survives(impairment: Impairment) -> None:
    topology = loads(text("delay: 0"))
    topology = replace(topology, links=(replace(topology.links[0], forward=impairment),))
    assert loads(dump(topology), topology.name) == topology


def test_every_word_of_an_impairment_survives_being_written() -> None:
    survives(FULL)


@pytest.mark.parametrize(
    "queue",
    [
        *[Pfifo(50), Bfifo(64_000), Tbf(15_000, 30_000, 20 * mbit), Codel(target=0.01), Fq()],
        *[FqCodel(flows=16, ecn=False), Red(100_000, 10_000, 30_000, 0.1, ecn=True)],
    ],
    ids=lambda queue: type(queue).__name__,
)
def test_every_queue_survives_being_written(queue) -> None:
    survives(Impairment(rate=10 * mbit, queue=queue))


def test_models_of_loss_traces_slots_and_schedules_survive_being_written() -> None:
    survives(Impairment(loss_model=GilbertElliott(0.01, 0.3, good_loss=0.001)))
    survives(Impairment(loss_model=LossStates(0.01, 0.3, 0.1)))
    survives(Impairment(trace=Trace((0, 5, 12))))
    survives(Impairment(delay=5 * ms, slot=Slot(0.001, 0.002, packets=4)))
    base = Impairment(loss=0.01, rate=10 * mbit, queue=Codel())
    survives(
        replace(
            base,
            schedule=(
                Episode(5.0, replace(base, loss=1.0), 2.0),
                Episode(9.0, replace(base, loss=0.0, queue=None)),
            ),
        )
    )


@given(
    st.builds(
        Impairment,
        delay=st.floats(1e-6, 10),
        loss=st.just(0.0) | st.floats(1e-9, 1),
        duplicate=st.just(0.0) | st.floats(1e-9, 1),
        rate=st.just(0.0) | st.floats(8, 1e11),
    )
)
@settings(max_examples=60)
def test_any_number_survives_being_written(impairment: Impairment) -> None:
    survives(impairment)


def test_a_queue_may_be_named_or_described() -> None:
    assert link("{rate: 10mbit, queue: fq_codel}"[1:-1].replace(", ", "\n    ")).queue == FqCodel()
    assert link("rate: 10mbit\n    queue: {kind: codel, target: 10ms, ecn: true}").queue == Codel(
        target=10 * ms, ecn=True
    )


def test_an_episode_says_only_what_differs() -> None:
    found = link(
        "delay: 10ms\n    rate: 5mbit\n    schedule:\n      - {at: 2s, for: 1s, loss: 100%}\n"
        "      - {at: 9s, rate: 1mbit}"
    )
    base = Impairment(delay=10 * ms, rate=5 * mbit)
    assert found == replace(
        base,
        schedule=(
            Episode(2.0, replace(base, loss=1.0), 1.0),
            Episode(9.0, replace(base, rate=1 * mbit)),
        ),
    )


def test_a_rule_counts_packets() -> None:
    assert link("drops: {match: tcp-data, nth: 2}").drops == (DropRule(Match.TCP_DATA, (2,)),)


def test_a_trace_lies_beside_the_topology(tmp_path) -> None:
    from netlab.model.yaml import load

    (tmp_path / "lte.trace").write_text("0\n4\n11\n")
    path = tmp_path / "t.yaml"
    path.write_text(text("trace: lte.trace"))
    assert load(path).links[0].forward.trace == Trace((0, 4, 11))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("queue: codle", "'codle' is no kind of queue; use one of .*; did you mean 'codel'?"),
        ("queue: 5", "the number 5 is no queue; write one of pfifo, .* or a mapping with 'kind'"),
        (
            "queue: {kind: codel, targt: 1ms}",
            "unknown key 'targt' in codel; did you mean 'target'?",
        ),
        ("queue: {kind: codel, target: 1}", "'target' of codel: '1' has no unit; .* '20ms'"),
        ("queue: {kind: bfifo}", "bfifo needs the key 'limit'"),
        ("queue: fq", "the queue fq needs a rate"),
        ("loss_model: {kind: gilbert, p: 1%, r: 0%}", "r is 0: the channel stays bad for ever"),
        (
            "drops: {match: tcp_data, nth: 2}",
            "'tcp_data' is no match; .*; did you mean 'tcp-data'?",
        ),
        ("drops: [{match: udp}]", "a drop rule needs either nth or every"),
        ("trace: nowhere.trace", "trace 'nowhere.trace' cannot be read: no such file"),
        ("schedule: [{for: 1s}]", "this link needs the key 'at'|link 'a-b' needs the key 'at'"),
        ("schedule: [{at: 1s, los: 1%}]", "unknown key 'los' in link 'a-b'; did you mean 'loss'?"),
        ("seed: -1", "'seed' of link 'a-b' is -1; it must be at least 0"),
        ("distribution: gauss", "'gauss' is no distribution of link 'a-b'; use one of uniform"),
        ("jitter: 5ms\n    delay: 1ms", "would need packets that arrive before they are sent"),
    ],
)
def test_a_bad_word_is_explained(word: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message) as caught:
        loads(text(word))
    assert len(caught.value.problems) == 1
