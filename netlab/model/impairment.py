"""What one direction of a link does to packets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impairment:
    """Delay, loss and rate of one direction of a link; all zeros is a perfect wire.

    Times in seconds and one way, ratios 0…1, `rate` in bits per second of frames (0 = unlimited),
    `limit` in packets (0 = computed from rate × delay).
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    rate: float = 0.0
    limit: int = 0

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "corrupt", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a ratio 0…1, not {getattr(self, name)}")
        for name in ("delay", "jitter", "rate", "limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        if self.jitter and not self.delay:
            raise ValueError("jitter needs a delay")

    def __bool__(self) -> bool:
        return self != Impairment()


PERFECT = Impairment()
