"""Add up what the comparisons compared, and print it at the end of the run."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    totals: dict[str, Counter[str]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in getattr(report, "user_properties", []):
            if name.startswith("compared "):
                totals.setdefault(name.removeprefix("compared "), Counter()).update(value)
    for name in sorted(totals):
        counts = ", ".join(f"{count:,} {what}" for what, count in totals[name].items())
        terminalreporter.write_line(f"compared {name}: {counts}")
