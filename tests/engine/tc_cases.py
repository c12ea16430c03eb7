"""Queue disciplines whose bytes are compared with tc's; their words are the command to run."""

from __future__ import annotations

from netlab.model.impairment import (
    Bfifo,
    Codel,
    Distribution,
    Fq,
    FqCodel,
    GilbertElliott,
    Impairment,
    LossStates,
    Pfifo,
    Red,
    Slot,
)
from netlab.plan.qdiscs import Discipline, Htb, HtbClass, Netem, RedAt, Shaper
from netlab.units import gbit, kbit, mbit, ms, s, us

IMPAIRMENTS = (
    Impairment(),
    Impairment(delay=10 * ms),
    Impairment(delay=1 * us),
    Impairment(delay=137 * us),
    Impairment(delay=20 * s, jitter=3 * s),
    Impairment(delay=10 * ms, jitter=1 * ms, delay_correlation=0.25),
    *(
        Impairment(delay=10 * ms, jitter=2 * ms, distribution=distribution)
        for distribution in Distribution
    ),
    Impairment(loss=0.003, loss_correlation=0.1),
    Impairment(loss=0.01),
    Impairment(loss=1.0, ecn=True),
    Impairment(loss=1e-7),
    Impairment(loss_model=GilbertElliott(p=0.01, r=0.1, bad_loss=0.7, good_loss=0.001), ecn=True),
    Impairment(loss_model=GilbertElliott(p=0.05, r=0.95)),
    Impairment(loss_model=LossStates(p13=0.01, p31=0.02, p32=0.03, p23=0.04, p14=0.05)),
    # tc 6.1 forgets a correlation of duplicates unless another correlation is there.
    Impairment(duplicate=0.01, duplicate_correlation=0.05, loss=0.01, loss_correlation=0.25),
    Impairment(corrupt=0.02, corrupt_correlation=0.03),
    Impairment(delay=5 * ms, reorder=0.25, reorder_correlation=0.5),
    Impairment(delay=5 * ms, reorder=0.25, reorder_gap=5),
    Impairment(rate=10 * mbit),
    Impairment(rate=5 * gbit, overhead=-4, cell=48, cell_overhead=5),
    Impairment(rate=33 * mbit, overhead=24),
    Impairment(rate=40 * gbit),
    Impairment(rate=100 * gbit, delay=1 * ms, jitter=1 * ms),
    Impairment(slot=Slot(1 * ms, 2 * ms, packets=10, bytes=1000)),
    Impairment(slot=Slot(800 * us, 800 * us)),
    Impairment(
        delay=1 * ms, loss=0.003, loss_correlation=0.1, duplicate=0.01,
        duplicate_correlation=0.05, corrupt=0.02, corrupt_correlation=0.03, reorder=0.25,
        reorder_correlation=0.5, reorder_gap=5, rate=10 * mbit, overhead=14, ecn=True,
    ),
)  # fmt: skip

DISCIPLINES: tuple[Discipline, ...] = (
    *(Netem(impairment, limit) for limit, impairment in enumerate(IMPAIRMENTS, 1000)),
    Shaper(rate=10 * mbit, burst=5 * 1024, limit=100 * 1024),
    Shaper(rate=10 * mbit, burst=5120, limit=70_000, peak=20 * mbit, mtu=1514, overhead=4),
    Shaper(rate=40 * gbit, burst=500_000, limit=10_000_000),
    Shaper(rate=40 * gbit, burst=500_000, limit=10_000_000, peak=80 * gbit, mtu=9018),
    Shaper(rate=64 * kbit, burst=3036, limit=4000),
    Htb(),
    Htb(default=0x1F, r2q=5),
    Pfifo(100),
    Bfifo(65_535),
    Codel(),
    Codel(limit=50, target=1 * ms, interval=20 * ms, ecn=True),
    FqCodel(),
    FqCodel(limit=1000, flows=64, quantum=300, memory_limit=1 << 20, ecn=False),
    Fq(),
    Fq(limit=100, flow_limit=50, quantum=1514, initial_quantum=3028),
    RedAt(Red(limit=61_440, minimum=15_360, maximum=46_080, burst=20, ecn=True), 10 * mbit),
    RedAt(Red(limit=400_000, minimum=30_000, maximum=90_000), 10 * mbit),
    RedAt(Red(1_000_000, 100_000, 300_000, probability=0.1, average_packet=1500), 1 * gbit),
    RedAt(Red(60_000, 5_000, 20_000, probability=0.5, average_packet=500), 256 * kbit),
)

CLASSES = (
    HtbClass(rate=10 * mbit, ceil=20 * mbit, burst=15_360, ceil_burst=15_360, priority=2),
    HtbClass(
        rate=40 * gbit, ceil=80 * gbit, burst=90_000, ceil_burst=99_000, quantum=9018, mtu=9018
    ),
)
