"""A schedule as a list of changes: what every back end carries out."""

from __future__ import annotations

from dataclasses import replace

from netlab.model.impairment import Impairment


def episodes_of(impairment: Impairment) -> list[tuple[float, Impairment]]:
    """Return when a schedule changes what, in order; an episode that is over gives way.

    Where episodes overlap, the one that began last is in force.
    """
    base = replace(impairment, schedule=())
    times = {episode.at for episode in impairment.schedule}
    times |= {e.at + e.duration for e in impairment.schedule if e.duration}
    changes: list[tuple[float, Impairment]] = []
    last = base
    for time in sorted(times):
        running = [
            episode
            for episode in impairment.schedule
            if episode.at <= time and (not episode.duration or time < episode.at + episode.duration)
        ]
        becomes = max(running, key=lambda e: e.at).becomes if running else base
        if becomes != last:
            changes.append((time, becomes))
            last = becomes
    return changes
