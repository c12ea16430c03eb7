"""Numbers with units: the only place where text such as "20ms" becomes a number.

Inside netlab durations are seconds, rates bits per second and ratios 0…1 (floats), sizes are
bytes (int). Write `20 * ms`, `10 * mbit`. Text follows `tc(8)`: decimal prefixes for rates
(`mbit` = 10⁶ bit/s), binary prefixes for sizes written `KiB`/`MiB`, decimal for `kB`/`MB`.
"""

from __future__ import annotations

import re

ns, us, ms, s, minute, hour = 1e-9, 1e-6, 1e-3, 1.0, 60.0, 3600.0
bit, kbit, mbit, gbit = 1.0, 1e3, 1e6, 1e9
percent = 0.01
kB, MB, GB = 1_000, 1_000_000, 1_000_000_000
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

_NUMBER = re.compile(r"^\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµ%/]*)\s*$")

_TIME = {"ns": ns, "us": us, "µs": us, "ms": ms, "s": s, "min": minute, "h": hour}
_RATE = {"bit": bit, "kbit": kbit, "mbit": mbit, "gbit": gbit}
_RATE |= {f"{name}/s": value for name, value in _RATE.items()} | {
    f"{name}ps": value for name, value in (("b", bit), ("kb", kbit), ("mb", mbit), ("gb", gbit))
}
_SIZE = {"B": 1, "kB": kB, "MB": MB, "GB": GB, "KiB": KiB, "MiB": MiB, "GiB": GiB}


def _split(text: str, units: dict[str, float] | dict[str, int], what: str, example: str) -> float:
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not {what}; write for example {example!r}")
    number, unit = match.groups()
    if unit == "":
        raise ValueError(f"{text!r} has no unit; write for example {example!r}")
    factor = units.get(unit) or units.get(unit.lower())
    if factor is None:
        raise ValueError(f"{unit!r} is no unit of {what}; use one of {', '.join(units)}")
    return float(number) * factor


def parse_time(text: str) -> float:
    """Return seconds for text such as "20ms", "1.5s", "2min"; ValueError without a unit."""
    return _split(text, _TIME, "a time", "20ms")


def parse_rate(text: str) -> float:
    """Return bits per second for text such as "10mbit" or "1.5gbit"; ValueError without a unit."""
    return _split(text, _RATE, "a rate", "10mbit")


def parse_ratio(text: str) -> float:
    """Return 0…1 for text such as "1%"; ValueError outside that range or without the sign."""
    value = _split(text, {"%": percent}, "a ratio", "1%")
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is outside 0%…100%")
    return value


def parse_size(text: str) -> int:
    """Return bytes for text such as "64KiB" or "1500B"; ValueError without a unit."""
    return round(_split(text, _SIZE, "a size", "64KiB"))


def _format(value: float, scales: tuple[tuple[float, str], ...]) -> str:
    if value == 0:
        return f"0{scales[-1][1]}"
    for factor, unit in scales:
        if abs(value) >= factor:
            return f"{value / factor:.6g}{unit}"
    factor, unit = scales[-1]
    return f"{value / factor:.6g}{unit}"


def format_time(seconds: float) -> str:
    """Return seconds as text that `parse_time` reads back, such as "20ms"."""
    return _format(seconds, ((s, "s"), (ms, "ms"), (us, "us"), (ns, "ns")))


def format_rate(bits_per_second: float) -> str:
    """Return bits per second as text that `parse_rate` reads back, such as "10mbit"."""
    return _format(bits_per_second, ((gbit, "gbit"), (mbit, "mbit"), (kbit, "kbit"), (bit, "bit")))


def format_ratio(ratio: float) -> str:
    """Return a ratio as text that `parse_ratio` reads back, such as "1%"."""
    return f"{ratio / percent:.6g}%"
