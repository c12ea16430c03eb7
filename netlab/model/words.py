"""Records with a kind, as topology files write them: queues, models of loss, rules, slots.

One table per record says which words it has and what each is; from it come the reading, the writing
and the JSON Schema, so that the three cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, cast

from netlab.model.firewall import ACTIONS, DIRECTIONS, FLAGS, ICMP, PROTOCOLS, Rule
from netlab.model.impairment import (
    Bfifo,
    Codel,
    DropRule,
    Fq,
    FqCodel,
    GilbertElliott,
    InBdp,
    LossStates,
    Match,
    Pfifo,
    Red,
    Slot,
    Tbf,
)
from netlab.model.names import bad_interface_name
from netlab.model.problems import near, quoted
from netlab.model.tunnel import Gre, Vxlan
from netlab.units import (
    format_rate,
    format_ratio,
    format_time,
    parse_rate,
    parse_ratio,
    parse_size,
    parse_time,
)

Schema = dict[str, Any]


def describe(value: object) -> str:
    """Return what kind of thing a value is, in the words of someone who wrote YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"'{str(value).lower()}'"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return "a list" if isinstance(value, list) else "a mapping"


def with_unit(parse: Callable[[str], float], example: str) -> Callable[[object], float]:
    """Return a reader of text with a unit; a bare 0 needs none."""

    def check(value: object) -> float:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{describe(value)} is not possible; write for example '{example}'")
        if value == 0:
            return 0
        raise ValueError(f"'{value}' has no unit; write for example '{example}'")

    return check


def unit_schema(units: str, *examples: str) -> Schema:
    """Return the schema of text with one of some units."""
    number = r"^\s*\d*\.?\d+([eE][-+]?\d+)?\s*"
    return {
        "anyOf": [{"type": "string", "pattern": rf"{number}({units})\s*$"}, {"const": 0}],
        "examples": list(examples),
    }


TIME_SCHEMA = unit_schema("ns|us|µs|ms|s|min|h", "20ms", "1.5s")
RATE_SCHEMA = unit_schema("[kmgKMG]?[bB]it(/s)?|[kmgKMG]?bps", "10mbit", "1.5gbit")
RATIO_SCHEMA = unit_schema("%", "1%", "0.01%")
SIZE_SCHEMA = unit_schema("B|kB|MB|GB|KiB|MiB|GiB", "64KiB", "1MB")


@dataclass(frozen=True, slots=True)
class Word:
    """What a word of a record holds: how it is read, written and described to editors."""

    read: Callable[[object], Any]
    write: Callable[[Any], object]
    schema: Schema


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{describe(value)} is not a whole number from 0")
    return value


def _counts(value: object) -> tuple[int, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return tuple(_count(item) for item in items)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{describe(value)} is neither true nor false")
    return value


def _match(value: object) -> Match:
    try:
        return Match(cast("str", value))
    except ValueError:
        choices = [match.value for match in Match]
        hint = near(str(value), choices)
        raise ValueError(
            f"{quoted(value)} is no match; use one of {', '.join(choices)}{hint}"
        ) from None


def _size(value: object) -> int:
    return round(with_unit(parse_size, "64KiB")(value))


def _same(value: object) -> object:
    return value


_WHOLE: Schema = {"type": "integer", "minimum": 0}
TIME = Word(with_unit(parse_time, "20ms"), format_time, TIME_SCHEMA)
RATE = Word(with_unit(parse_rate, "10mbit"), format_rate, RATE_SCHEMA)
RATIO = Word(with_unit(parse_ratio, "1%"), format_ratio, RATIO_SCHEMA)
SIZE = Word(_size, lambda size: f"{size}B", SIZE_SCHEMA)
COUNT = Word(_count, _same, _WHOLE)
COUNTS = Word(_counts, list, {"anyOf": [_WHOLE, {"type": "array", "items": _WHOLE}]})
SWITCH = Word(_switch, _same, {"type": "boolean"})
MATCH = Word(_match, str, {"enum": [match.value for match in Match]})


@dataclass(frozen=True, slots=True)
class Record:
    """A kind of value that is written as a mapping, with its words by name."""

    make: type[Any]
    words: Mapping[str, Word]

    def read(self, given: Mapping[str, object], what: str) -> Any:
        """Return the value a mapping describes; ValueError with the reason if it does not."""
        values: dict[str, Any] = {}
        for key, value in given.items():
            word = self.words.get(key)
            if word is None:
                hint = near(key, self.words) or f"; known are {', '.join(self.words)}"
                raise ValueError(f"unknown key {quoted(key)} in {what}{hint}")
            try:
                values[key] = word.read(value)
            except ValueError as error:
                raise ValueError(f"'{key}' of {what}: {error}") from None
        for field in fields(self.make):
            if field.default is MISSING and field.name not in values:
                raise ValueError(f"{what} needs the key '{field.name}'")
        return self.make(**values)

    def write(self, value: object) -> dict[str, object]:
        """Return the mapping that describes a value; what is as by default is left out."""
        return {
            field.name: self.words[field.name].write(getattr(value, field.name))
            for field in fields(self.make)
            if getattr(value, field.name) != field.default
        }

    def schema(self, **more: Schema) -> Schema:
        """Return the JSON Schema of such mappings."""
        needed = [f.name for f in fields(self.make) if f.default is MISSING] + list(more)
        words = {name: word.schema for name, word in self.words.items()}
        return {
            "type": "object",
            "properties": {**more, **words},
            "required": needed,
            "additionalProperties": False,
        }


QUEUES: dict[str, Record] = {
    "pfifo": Record(Pfifo, {"limit": COUNT}),
    "bfifo": Record(Bfifo, {"limit": SIZE}),
    "tbf": Record(Tbf, {"burst": SIZE, "limit": SIZE, "peak": RATE}),
    "codel": Record(Codel, {"limit": COUNT, "target": TIME, "interval": TIME, "ecn": SWITCH}),
    "fq_codel": Record(
        FqCodel,
        {
            "limit": COUNT,
            "flows": COUNT,
            "quantum": SIZE,
            "target": TIME,
            "interval": TIME,
            "memory_limit": SIZE,
            "ecn": SWITCH,
        },
    ),
    "red": Record(
        Red,
        {
            "limit": SIZE,
            "minimum": SIZE,
            "maximum": SIZE,
            "probability": RATIO,
            "average_packet": SIZE,
            "burst": COUNT,
            "ecn": SWITCH,
        },
    ),
    "fq": Record(
        Fq, {"limit": COUNT, "flow_limit": COUNT, "quantum": SIZE, "initial_quantum": SIZE}
    ),
}

LOSSES: dict[str, Record] = {
    "gilbert": Record(
        GilbertElliott, {"p": RATIO, "r": RATIO, "bad_loss": RATIO, "good_loss": RATIO}
    ),
    "states": Record(
        LossStates, {"p13": RATIO, "p31": RATIO, "p32": RATIO, "p23": RATIO, "p14": RATIO}
    ),
}


def choice(what: str, choices: tuple[str, ...]) -> Word:
    """Return a word that is one of some."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            hint = near(str(value), choices)
            raise ValueError(f"{quoted(value)} is no {what}; use one of {', '.join(choices)}{hint}")
        return value

    return Word(check, _same, {"enum": list(choices)})


def _ports(value: object) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for item in cast("list[object]", value) if isinstance(value, list) else [value]:
        first, dash, last = str(item).partition("-")
        ends = (first, last if dash else first)
        if isinstance(item, bool) or not all(e.isascii() and e.isdigit() for e in ends):
            raise ValueError(f"{describe(item)} is no port such as 80, or range such as 80-90")
        pair = (int(ends[0]), int(ends[1]))
        if not 0 < pair[0] <= pair[1] < 65536:
            raise ValueError(f"{quoted(str(item))} is no port or range of ports")
        found.append(pair)
    return tuple(found)


def _write_ports(ranges: tuple[tuple[int, int], ...]) -> list[int | str]:
    return [a if a == b else f"{a}-{b}" for a, b in ranges]


def _block(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(cast("str", value))
    except ValueError as error:
        raise ValueError(f"{quoted(value)} is no address or network: {error}") from None


def _tcp_flags(value: object) -> tuple[str, ...]:
    items = str(value).split(",") if isinstance(value, str) else value
    if not isinstance(items, list):
        raise ValueError(f"{describe(value)} are no TCP flags; write for example 'syn,!ack'")
    flags = tuple(str(item).strip().lower() for item in cast("list[object]", items))
    for flag in flags:
        if flag.lstrip("!") not in FLAGS:
            raise ValueError(f"{quoted(flag)} is no TCP flag{near(flag, FLAGS)}")
    return flags


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{describe(value)} is no rule of one line")
    return value


def _interface(value: object) -> str:
    if not isinstance(value, str) or bad_interface_name(value):
        raise ValueError(f"{describe(value)} is no name of an interface")
    return value


_PORT: Schema = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^\d+(-\d+)?$"}]}
_TEXT: Schema = {"type": "string"}
PORTS = Word(_ports, _write_ports, {"anyOf": [_PORT, {"type": "array", "items": _PORT}]})
BLOCK = Word(_block, str, _TEXT)
RULE = Record(
    Rule,
    {
        "action": choice("action", ACTIONS),
        "direction": choice("direction", DIRECTIONS),
        "protocol": choice("protocol", PROTOCOLS),
        "port": PORTS,
        "source_port": PORTS,
        "source": BLOCK,
        "destination": BLOCK,
        "interface": Word(_interface, _same, _TEXT),
        "flags": Word(_tcp_flags, list, {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
        "icmp": choice("kind of ICMP", tuple(ICMP)),
        "family": choice("family", ("ipv4", "ipv6")),
        "rate": COUNT,
        "burst": COUNT,
        "mss": COUNT,
        "nft": Word(_text, _same, _TEXT),
    },
)

TUNNELS: dict[str, Record] = {
    "vxlan": Record(
        Vxlan, {"id": COUNT, "port": COUNT, "family": choice("family", ("ipv4", "ipv6"))}
    ),
    "gre": Record(Gre, {"key": COUNT}),
}

DROP = Record(DropRule, {"match": MATCH, "nth": COUNTS, "every": COUNT, "per_flow": SWITCH})
SLOT = Record(Slot, {"minimum": TIME, "maximum": TIME, "packets": COUNT, "bytes": SIZE})


def read_kind(kinds: Mapping[str, Record], what: str) -> Callable[[object], Any]:
    """Return a reader of records whose `kind` says which; the kind alone is enough as text."""

    def check(value: object) -> Any:
        given = {"kind": value} if isinstance(value, str) else value
        if not isinstance(given, dict) or "kind" not in given:
            raise ValueError(
                f"{describe(cast('object', value))} is no {what}; write one of {', '.join(kinds)}, "
                f"or a mapping with 'kind'"
            )
        rest = dict(cast("dict[str, object]", given))
        kind = str(rest.pop("kind"))
        if kind not in kinds:
            hint = near(kind, kinds)
            raise ValueError(
                f"{quoted(kind)} is no kind of {what}; use one of {', '.join(kinds)}{hint}"
            )
        return kinds[kind].read(rest, kind)

    return check


_IN_BDP = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?bdp", re.IGNORECASE)


def read_queue(value: object) -> Any:
    """Return the queue a value describes; the limit of a fifo may be `1bdp`."""
    if isinstance(value, dict):
        given = cast("dict[str, object]", value)
        fifo = {"pfifo": Pfifo, "bfifo": Bfifo}.get(str(given.get("kind")))
        found = _IN_BDP.fullmatch(str(given.get("limit")))
        if fifo is not None and found and given.keys() == {"kind", "limit"}:
            return InBdp(fifo, float(found[1]))
    return read_kind(QUEUES, "queue")(cast("object", value))


def queue_schema() -> Schema:
    """Return the JSON Schema of a queue."""
    in_bdp: Schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["pfifo", "bfifo"]},
            "limit": {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?bdp$"},
        },
        "required": ["kind", "limit"],
        "additionalProperties": False,
    }
    return {"anyOf": [*kind_schema(QUEUES)["anyOf"], in_bdp]}


def write_kind(kinds: Mapping[str, Record], value: object) -> dict[str, object]:
    """Return the mapping, kind included, that describes a value."""
    kind = next(name for name, record in kinds.items() if type(value) is record.make)
    return {"kind": kind, **kinds[kind].write(value)}


def kind_schema(kinds: Mapping[str, Record]) -> Schema:
    """Return the JSON Schema of records of these kinds."""
    records = [record.schema(kind={"const": name}) for name, record in kinds.items()]
    return {"anyOf": [{"enum": list(kinds)}, *records]}


def read_record(record: Record, what: str) -> Callable[[object], Any]:
    """Return a reader of one kind of record."""

    def check(value: object) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{what} must be a mapping, not {describe(value)}")
        return record.read(cast("dict[str, object]", value), what)

    return check
