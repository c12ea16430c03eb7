"""Numbers with units: the only place where text such as "20ms" becomes a number.

Inside netlab durations are seconds, rates bits per second and ratios 0…1 (floats), sizes are
bytes (int). Write `20 * ms`, `10 * mbit`. Text follows `tc(8)`: decimal prefixes for rates
(`mbit` = 10⁶ bit/s), binary prefixes for sizes written `KiB`/`MiB`, decimal for `kB`/`MB`.

Reading is exact: "1.1ms" is the float nearest to 0.0011, and what `format_*` writes is read back
as the same float.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache

ns, us, ms, s, minute, hour = 1e-9, 1e-6, 1e-3, 1.0, 60.0, 3600.0
bit, kbit, mbit, gbit = 1.0, 1e3, 1e6, 1e9
percent = 0.01
kB, MB, GB = 1_000, 1_000_000, 1_000_000_000  # noqa: N816 - the unit is spelt so
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

_NUMBER = re.compile(
    r"\s*([-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,2})?)"
    r"\s*([A-Za-zµ%/]*)\s*"
)

_TIME = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
}
_RATE = {
    "bit": Decimal(1),
    "kbit": Decimal(10**3),
    "mbit": Decimal(10**6),
    "gbit": Decimal(10**9),
}
_RATE_ALIASES = {f"{name}/s": value for name, value in _RATE.items()} | {
    f"{name}ps": _RATE[f"{name}it"] for name in ("b", "kb", "mb", "gb")
}
_SIZE = {
    "B": Decimal(1),
    "kB": Decimal(kB),
    "MB": Decimal(MB),
    "GB": Decimal(GB),
    "KiB": Decimal(KiB),
    "MiB": Decimal(MiB),
    "GiB": Decimal(GiB),
}
_RATIO = {"%": Decimal("0.01")}


def _split(
    text: str,
    what: str,
    example: str,
    units: Mapping[str, Decimal],
    aliases: Mapping[str, Decimal] | None = None,
) -> Decimal:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not {what}; write for example {example!r}")
    number, unit = match.groups()
    if unit == "" and Decimal(number) != 0:
        raise ValueError(f"{text!r} has no unit; write for example {example!r}")
    every = {**units, **(aliases or {}), "": Decimal(0)}
    lowered = {name.lower(): factor for name, factor in every.items()}
    factor = every.get(unit, lowered.get(unit.lower()))
    if factor is None:
        raise ValueError(f"{unit!r} is no unit of {what}; use one of {', '.join(units)}")
    return Decimal(number) * factor


@lru_cache(maxsize=4096)
def parse_time(text: str) -> float:
    """Return seconds for text such as "20ms", "1.5s", "2min"; ValueError without a unit."""
    return float(_split(text, "a time", "20ms", _TIME))


@lru_cache(maxsize=4096)
def parse_rate(text: str) -> float:
    """Return bits per second for text such as "10mbit" or "1.5gbit"; ValueError without a unit."""
    return float(_split(text, "a rate", "10mbit", _RATE, _RATE_ALIASES))


@lru_cache(maxsize=4096)
def parse_ratio(text: str) -> float:
    """Return 0…1 for text such as "1%"; ValueError outside that range or without the sign."""
    value = _split(text, "a ratio", "1%", _RATIO)
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is outside 0%…100%")
    return float(value)


@lru_cache(maxsize=4096)
def parse_size(text: str) -> int:
    """Return bytes for text such as "64KiB" or "1500B"; ValueError without a unit."""
    value = _split(text, "a size", "64KiB", _SIZE)
    if value != value.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(value)


def _format(
    value: float, scales: tuple[tuple[str, Decimal], ...], parse: Callable[[str], float]
) -> str:
    """Write `value` in the largest unit that keeps it at or above 1, exactly."""
    base, smallest = scales[-1]
    if value == 0:
        return f"0{base}"
    exact = Decimal(repr(value))
    for unit, factor in scales:
        if abs(exact) >= factor:
            text = f"{_digits(exact / factor)}{unit}"
            if parse(text) == value:
                return text
    return f"{_digits(exact / smallest)}{base}"


def _digits(number: Decimal) -> str:
    """Write a number without an exponent unless that would be long."""
    number = number.normalize()
    plain = f"{number:f}"
    return plain if len(plain) <= 20 else str(number)


def _scales(units: Mapping[str, Decimal], *names: str) -> tuple[tuple[str, Decimal], ...]:
    return tuple((name, units[name]) for name in names)


_TIME_SCALES = _scales(_TIME, "s", "ms", "us", "ns")
_RATE_SCALES = _scales(_RATE, "gbit", "mbit", "kbit", "bit")
_RATIO_SCALES = _scales(_RATIO, "%")


def format_time(seconds: float) -> str:
    """Return seconds as text that `parse_time` reads back, such as "20ms"."""
    return _format(seconds, _TIME_SCALES, parse_time)


def format_rate(bits_per_second: float) -> str:
    """Return bits per second as text that `parse_rate` reads back, such as "10mbit"."""
    return _format(bits_per_second, _RATE_SCALES, parse_rate)


def format_ratio(ratio: float) -> str:
    """Return a ratio as text that `parse_ratio` reads back, such as "1%"."""
    return "0%" if ratio == 0 else f"{_digits(Decimal(repr(ratio)) * 100)}%"
