"""What a lab is written with: `from netlab.labs import Lab, vary, expect, ...`."""

from netlab.analysis.evidence import Evidence
from netlab.analysis.verdict import Outcome, Verdict, every, inconclusive, packets, skip
from netlab.labs.expect import expect
from netlab.labs.lab import Lab
from netlab.labs.variation import (
    Variation,
    delay,
    impair,
    mtu,
    nat,
    on_request,
    option,
    slower,
    sysctl,
    vary,
)

__all__ = [
    "Evidence",
    "Lab",
    "Outcome",
    "Variation",
    "Verdict",
    "delay",
    "every",
    "expect",
    "impair",
    "inconclusive",
    "mtu",
    "nat",
    "on_request",
    "option",
    "packets",
    "skip",
    "slower",
    "sysctl",
    "vary",
]
