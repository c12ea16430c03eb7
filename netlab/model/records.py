"""The records of a topology file: what may be written where, checked by pydantic.

One model for each kind of entry; the values inside have readers of their own, whose ValueError is
the message an author sees. The JSON Schema comes from the same models (`json_schema`). Only
`netlab.model.yaml` uses them: what leaves that module are plain values of ours.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from netlab.model import conntrack, generate, words
from netlab.model.addressing import POOL_IPV4, POOL_IPV6
from netlab.model.complete import MAX_MTU, MIN_MTU, bad_address
from netlab.model.firewall import Rule
from netlab.model.impairment import (
    Distribution,
    DropRule,
    GilbertElliott,
    InBdp,
    LossStates,
    Queue,
    Slot,
)
from netlab.model.names import MAX_INTERFACE, MAX_LINK, MAX_NAME
from netlab.model.problems import near, quoted
from netlab.model.topology import Role
from netlab.model.tunnel import TunnelKind
from netlab.model.words import describe

MIN_MSS = 88  # below it the kernel ignores an MSS (TCP_MIN_MSS)
CONGESTION = (  # what the kernel's tcp_*.c register, the usual ones first
    "reno", "cubic", "bbr", "dctcp", "vegas", "westwood", "bic", "cdg", "highspeed", "htcp",
    "hybla", "illinois", "lp", "nv", "scalable", "veno", "yeah",
)  # fmt: skip

# -- values ------------------------------------------------------------------------------------


Time = Annotated[float, PlainValidator(words.TIME.read), WithJsonSchema(words.TIME_SCHEMA)]
Rate = Annotated[float, PlainValidator(words.RATE.read), WithJsonSchema(words.RATE_SCHEMA)]
Ratio = Annotated[float, PlainValidator(words.RATIO.read), WithJsonSchema(words.RATIO_SCHEMA)]
Size = Annotated[int, PlainValidator(words.SIZE.read), WithJsonSchema(words.SIZE_SCHEMA)]


def _interface(text: object) -> IPv4Interface | IPv6Interface:
    if not isinstance(text, str):
        raise ValueError(f"{describe(text)} is not an address; write for example '10.0.0.1/24'")
    _, slash, _ = text.partition("/")
    try:
        address = ip_interface(text)
    except ValueError:
        raise ValueError(f"{quoted(text)} is not an address such as '10.0.0.1/24'") from None
    if not slash:
        example = "/24" if address.version == 4 else "/64"
        raise ValueError(f"{quoted(text)} needs a prefix length, such as '{text}{example}'")
    if isinstance(address, IPv6Interface) and address.scope_id:
        raise ValueError(f"{quoted(text)} has a zone; an address in a file has none")
    if wrong := bad_address(address):
        raise ValueError(f"{quoted(text)} {wrong}")
    return address


def _network(text: object) -> IPv4Network | IPv6Network:
    if not isinstance(text, str) or "/" not in text:
        raise ValueError(f"{describe(text)} is not a network; write for example '10.0.0.0/24'")
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_interface(text).network
    except ValueError:
        raise ValueError(f"{quoted(text)} is not a network such as '10.0.0.0/24'") from None
    raise ValueError(f"{quoted(text)} has bits set after the prefix; the network is '{meant}'")


def _destination(text: object) -> IPv4Network | IPv6Network:
    if text in ("default", "default4"):
        return IPv4Network("0.0.0.0/0")
    return IPv6Network("::/0") if text == "default6" else _network(text)


def _several(one: Callable[[object], Any]) -> Callable[[object], tuple[Any, ...]]:
    def check(value: object) -> tuple[Any, ...]:
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        good: list[Any] = []
        bad: list[str] = []
        for item in items:
            try:
                good.append(one(item))
            except ValueError as error:
                bad.append(str(error))
        if bad:
            raise ValueError("; ".join(bad[:10]))
        return tuple(good)

    return check


def _one_or_more(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "array", "items": schema}]})


_ADDRESS: dict[str, Any] = {
    "type": "string",
    "pattern": r"^[0-9a-fA-F:.]+/\d+$",
    "examples": ["10.0.0.1/24", "fd00::1/64"],
}
_NETWORK: dict[str, Any] = {
    "type": "string",
    "pattern": r"^[0-9a-fA-F:.]+/\d+$",
    "examples": ["10.0.0.0/24", "fd00::/64"],
}
Addresses = Annotated[
    tuple[IPv4Interface | IPv6Interface, ...],
    PlainValidator(_several(_interface)),
    _one_or_more(_ADDRESS),
]


def _prefixes(value: object) -> tuple[IPv4Network | IPv6Network, ...] | None:
    return None if value is False else _several(_network)(value)


Prefixes = Annotated[
    tuple[IPv4Network | IPv6Network, ...] | None,
    PlainValidator(_prefixes),
    WithJsonSchema({"anyOf": [_NETWORK, {"type": "array", "items": _NETWORK}, {"const": False}]}),
]


def _pool_ipv4(value: object) -> IPv4Network | None:
    network = None if value is False else _network(value)
    if isinstance(network, IPv6Network):
        raise ValueError(f"'{network}' is not an IPv4 network")
    return network


def _pool_ipv6(value: object) -> IPv6Network | None:
    network = None if value is False else _network(value)
    if isinstance(network, IPv4Network):
        raise ValueError(f"'{network}' is not an IPv6 network")
    return network


_POOL = WithJsonSchema({"anyOf": [_NETWORK, {"const": False}]})
PoolIPv4 = Annotated[IPv4Network | None, PlainValidator(_pool_ipv4), _POOL]
PoolIPv6 = Annotated[IPv6Network | None, PlainValidator(_pool_ipv6), _POOL]


def _mac(text: object) -> str:
    digits = str(text).lower().split(":")
    if len(digits) != 6 or not all(
        len(d) == 2 and set(d) <= set("0123456789abcdef") for d in digits
    ):
        raise ValueError(f"{quoted(text)} is not a MAC address such as '02:00:00:00:00:01'")
    if int(digits[0], 16) & 1:
        raise ValueError(f"{quoted(text)} is a group address; an interface needs another")
    if digits == ["00"] * 6:
        raise ValueError(f"{quoted(text)} cannot be the address of an interface")
    return ":".join(digits)


Mac = Annotated[
    str,
    PlainValidator(_mac),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$",
            "examples": ["02:00:00:00:00:01"],
        }
    ),
]
Destination = Annotated[
    IPv4Network | IPv6Network, PlainValidator(_destination), WithJsonSchema({"type": "string"})
]


def _command(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError:
            raise ValueError(f"in {quoted(value)} a quote is not closed") from None
    elif isinstance(value, list):
        words = [str(word) for word in cast("list[object]", value) if isinstance(word, str | int)]
        if len(words) != len(cast("list[object]", value)):
            raise ValueError("each word of a command must be text")
    else:
        raise ValueError(f"{describe(value)} is not a command; write for example [sleep, '10']")
    if not words or not words[0]:
        raise ValueError("a command needs at least the name of a program")
    if any("\0" in word for word in words):
        raise ValueError("a command cannot hold a NUL")
    return tuple(words)


Command = Annotated[
    tuple[str, ...],
    PlainValidator(_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1},
            ],
            "examples": [["python3", "-m", "http.server", "8080"], "sleep 10"],
        }
    ),
]
Mtu = Annotated[int, Field(ge=MIN_MTU, le=MAX_MTU)]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Sysctls = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": r"^net\.[A-Za-z0-9_.-]+$"},
            "additionalProperties": {"type": ["string", "integer"]},
        }
    ),
]

# -- the file ----------------------------------------------------------------------------------


class _Model(BaseModel):
    # What checks a kind of entry is built with the first one: most files have few kinds.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


QueueKind = Annotated[
    Queue | InBdp,
    PlainValidator(words.read_queue),
    WithJsonSchema(words.queue_schema()),
]
TunnelWord = Annotated[
    TunnelKind,
    PlainValidator(words.read_kind(words.TUNNELS, "tunnel")),
    WithJsonSchema(words.kind_schema(words.TUNNELS)),
]
LossKind = Annotated[
    GilbertElliott | LossStates,
    PlainValidator(words.read_kind(words.LOSSES, "model of loss")),
    WithJsonSchema(words.kind_schema(words.LOSSES)),
]
Drops = Annotated[
    tuple[DropRule, ...],
    PlainValidator(_several(words.read_record(words.DROP, "a drop rule"))),
    _one_or_more(words.DROP.schema()),
]
SlotSettings = Annotated[
    Slot,
    PlainValidator(words.read_record(words.SLOT, "a slot")),
    WithJsonSchema(words.SLOT.schema()),
]
Count = Annotated[int, Field(ge=0)]


class Settings(_Model):
    """What happens to packets; each name is a field of `netlab.model.impairment.Impairment`."""

    delay: Time | None = Field(None, description="One way; the round trip is twice as long.")
    jitter: Time | None = Field(None, description="Spread of the delay; needs a delay.")
    distribution: Distribution | None = Field(
        None, strict=False, description="How the delay varies: uniform if absent."
    )
    delay_correlation: Ratio | None = Field(
        None, description="How much a packet's delay resembles that of the one before."
    )
    jitter_reorders: bool | None = Field(
        None, description="Whether packets may overtake each other because of the jitter."
    )
    loss: Ratio | None = Field(None, description="Packets lost at random.")
    loss_correlation: Ratio | None = Field(
        None, description="How much a packet's loss resembles that of the one before."
    )
    loss_model: LossKind | None = Field(None, description="Losses in bursts, instead of loss.")
    ecn: bool | None = Field(None, description="Mark ECN-capable packets instead of losing them.")
    drops: Drops | None = Field(None, description="Packets dropped by rule, counted exactly.")
    duplicate: Ratio | None = Field(None, description="Packets delivered twice.")
    duplicate_correlation: Ratio | None = Field(None, description="As for loss.")
    corrupt: Ratio | None = Field(None, description="Packets with one bit flipped.")
    corrupt_correlation: Ratio | None = Field(None, description="As for loss.")
    reorder: Ratio | None = Field(None, description="Packets that overtake the delayed ones.")
    reorder_correlation: Ratio | None = Field(None, description="As for loss.")
    reorder_gap: Count | None = Field(None, description="Only each so-many-th may overtake.")
    rate: Rate | None = Field(None, description="Bits per second of whole frames.")
    overhead: int | None = Field(
        None, description="Bytes that the rate counts besides each frame; may be negative."
    )
    cell: Count | None = Field(None, description="Bytes a cell carries, for links made of cells.")
    cell_overhead: Count | None = Field(None, description="Bytes a cell has besides.")
    trace: Annotated[str, Field(min_length=1)] | list[Count] | None = Field(
        None, description="A mahimahi trace instead of a rate: a file's name, or its numbers."
    )
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Queue of the link in packets; computed from rate and delay if absent."
    )
    queue: QueueKind | None = Field(
        None, description="Discipline of the queue before the rate, with its own limit."
    )
    slot: SlotSettings | None = Field(None, description="Packets leave in bunches.")
    seed: Count | None = Field(None, description="Seed of everything random.")


class EpisodeSettings(Settings):
    """Other settings for a while, over those of the link."""

    at: Time = Field(description="When it begins, after the start.")
    lasting: Time = Field(0.0, alias="for", description="How long it lasts; for good if absent.")
    every: Time = Field(0.0, description="How long from the beginning of one to that of the next.")
    times: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="How often, one beginning `every` so long after the other."
    )


class Shaping(Settings):
    """What happens to packets on a link: in both directions, or in the one it is written for."""

    schedule: list[EpisodeSettings] | None = Field(
        None, description="Episodes in which the link is different."
    )


class LinkDefaults(Shaping):
    """Settings of every link that does not say otherwise."""

    mtu: Mtu | None = Field(None, description="Largest IP packet in bytes; 1500 if absent.")
    offloads: bool | None = Field(
        None, description="Leave segmentation and checksum offload on (captures then lie)."
    )


class End(_Model):
    """One end of a link with its own settings."""

    node: Name = Field(description="The node this end is in.")
    interface: Annotated[str, Field(max_length=MAX_INTERFACE)] | None = Field(
        None, description="Name of the interface; eth0, eth1 … in order if absent."
    )
    address: Addresses | None = Field(
        None, description="Addresses with prefix length; given from the link's prefix if absent."
    )
    mac: Mac | None = Field(None, description="MAC address; made from the names if absent.")
    mtu: Mtu | None = Field(None, description="MTU of this end alone.")
    up: bool = Field(True, description="Whether the interface is up at the start.")


_END: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"defined": "End"}],
    "examples": ["h1", "h1:eth0"],
}


def _link_schema(schema: dict[str, Any]) -> None:
    schema["patternProperties"] = {
        r"^[A-Za-z0-9_.-]+ *-> *[A-Za-z0-9_.-]+$": {
            "defined": "Shaping",
            "description": "Settings of one direction, over those of the link.",
        }
    }


class LinkSettings(LinkDefaults):
    """A link with settings; keys like `h1->r1` hold the settings of that direction alone."""

    model_config = ConfigDict(json_schema_extra=_link_schema)

    ends: Annotated[
        Any,
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": _END, "minItems": 2}]}
        ),
    ] = Field(description="What it joins: 'h1-r1', or a list; more than two ends make a LAN.")
    name: Annotated[str, Field(max_length=MAX_LINK)] | None = Field(
        None, description="Name of the link; 'h1-r1' after its ends if absent."
    )
    prefix: Prefixes = Field(
        (), description="Its networks; from the pools if absent, false for none."
    )
    tunnel: TunnelWord | None = Field(
        None, description="No cable: its packets travel inside those of the network below."
    )


def _congestion(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{describe(value)} is no congestion control; write for example 'reno'")
    if value not in CONGESTION:
        hint = near(value, CONGESTION) or f"; known are {', '.join(CONGESTION)}"
        raise ValueError(f"{quoted(value)} is no congestion control{hint}")
    return value


Congestion = Annotated[str, PlainValidator(_congestion), WithJsonSchema({"enum": list(CONGESTION)})]
Metric = Annotated[int, Field(ge=1, le=0xFFFFFFFF)]


class RouteSettings(_Model):
    """A static route, beside or instead of the computed one."""

    to: Destination = Field(description="A network, or 'default', 'default6'.")
    via: str = Field(description="The next hop: an address or the name of a neighbour.")
    dev: str | None = Field(None, description="The interface, where the next hop leaves a choice.")
    metric: Metric | None = Field(
        None, description="Of several routes to one destination the lowest metric wins."
    )
    mtu: Mtu | None = Field(None, description="Path MTU in bytes, at most that of the interface.")
    advmss: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Largest MSS in bytes that TCP announces over it."
    )
    initcwnd: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Initial congestion window of TCP over it, in segments."
    )
    initrwnd: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Initial receive window of TCP over it, in segments."
    )
    congestion: Congestion | None = Field(
        None, description="Congestion control of TCP over it; that of the node if absent."
    )


FirewallRule = Annotated[
    Rule,
    PlainValidator(words.read_record(words.RULE, "a rule")),
    WithJsonSchema(words.RULE.schema()),
]
Conntrack = Annotated[
    tuple[tuple[str, str], ...],
    PlainValidator(conntrack.read),
    WithJsonSchema(conntrack.SCHEMA),
]


def _clamp(value: object) -> int | None:
    if isinstance(value, bool):
        return 0 if value else None
    if isinstance(value, int) and MIN_MSS <= value <= MAX_MTU:
        return value
    raise ValueError(f"{describe(value)} is neither true nor a number of bytes from {MIN_MSS}")


Clamp = Annotated[
    int | None,
    PlainValidator(_clamp),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": MIN_MSS}]}),
]


class NatSettings(_Model):
    """How a nat translates; it needs to know which side is outside."""

    outside: str | list[str] = Field(description="Interface or link towards the outside.")
    unsolicited: Literal["drop", "reject", "reset", "accept"] = Field(
        "drop", description="What happens to packets of no connection begun inside."
    )
    conntrack: Conntrack = Field((), description="Timeouts and strictness of its table.")


class NodeDefaults(_Model):
    """Settings of nodes that do not say otherwise."""

    role: Role | None = Field(
        None,
        strict=False,
        description="host (the default) ends packets, router forwards them, switch joins links, "
        "nat forwards them under its own address.",
    )
    sysctls: Sysctls | None = Field(None, description="Kernel settings of the node, 'net.…' only.")
    routing: Literal["static", "ospf", "none"] | None = Field(
        None,
        description="'static' (the default): computed routes; 'ospf': a router finds its own by "
        "OSPF (needs bird2); 'none': only written ones.",
    )
    routes: list[RouteSettings] | None = Field(None, description="Routes written by hand.")
    congestion: Congestion | None = Field(
        None, description="Congestion control of TCP; the kernel's choice if absent."
    )
    firewall: list[FirewallRule] | None = Field(
        None, description="Rules for packets; the first that decides counts."
    )
    icmp: Literal["drop", "limit", "v6-only"] | None = Field(
        None, description="What becomes of the ICMP messages it sends or forwards."
    )
    clamp_mss: Clamp = Field(
        None,
        alias="clamp-mss",
        description="Lower the MSS of connections to the path MTU (true) or to a number.",
    )
    nat: NatSettings | None = Field(None, description="Translation, for the role nat.")


class NodeSettings(NodeDefaults):
    """A node."""

    loopback: Addresses | None = Field(None, description="Addresses of the node itself, on lo.")


class Group(NodeDefaults):
    """Nodes that share settings; a group may have other groups among its members."""

    members: list[str] = Field(description="Names of nodes and of other groups.")


class Addressing(_Model):
    """Where addresses come from that are not written."""

    ipv4: PoolIPv4 = Field(POOL_IPV4, description="Pool of IPv4 subnets; false for none.")
    ipv6: PoolIPv6 = Field(POOL_IPV6, description="Pool of IPv6 subnets; false for none.")
    allocate: Literal["auto", "name", "order"] = Field(
        "auto",
        description="'name': a link's subnet depends on its name alone; 'order': the n-th link "
        "has the n-th subnet; 'auto': by name up to 200 links, then in order.",
    )


class Defaults(_Model):
    """Settings for everything that does not say otherwise."""

    nodes: NodeDefaults | None = Field(None, description="Settings of every node.")
    links: LinkDefaults | None = Field(None, description="Settings of every link.")
    addressing: Addressing | None = Field(None, description="Pools of addresses.")


class ReadySettings(_Model):
    """When a process counts as started: one of port, line, file, command."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="This TCP port is open in the node."
    )
    line: str | None = Field(None, description="A line it prints matches this regular expression.")
    file: str | None = Field(None, description="This file exists.")
    command: Command | None = Field(None, description="This command succeeds in the node.")
    timeout: Time = Field(10.0, description="How long to wait at most.")

    @model_validator(mode="after")
    def _one(self) -> ReadySettings:
        given = [self.port, self.line, self.file, self.command]
        if sum(value is not None for value in given) != 1:
            raise ValueError("needs exactly one of port, line, file and command")
        return self


class ProcessSettings(_Model):
    """A program that runs in a node from the start."""

    node: Name = Field(description="Where it runs.")
    command: Command = Field(description="What runs: a list of words, or text.")
    ready: ReadySettings | None = Field(None, description="When it counts as started.")
    after: list[str] = Field([], description="Processes that must be ready first.")
    restart: Literal["no", "on-failure", "always"] = Field(
        "no", description="Whether it is started again when it ends."
    )
    env: dict[str, str | int] = Field({}, description="Environment variables.")
    cwd: str | None = Field(None, description="Working directory.")
    user: str | None = Field(None, description="User it runs as.")
    cpus: Annotated[float, Field(gt=0, strict=False)] | None = Field(
        None, description="Processors it may use, such as 0.5."
    )
    memory: Size | None = Field(None, description="Memory it may use.")
    needs: list[str] = Field([], description="Programs that must be installed, or `up` refuses.")


class Validation(_Model):
    """Something that must hold in the finished network."""

    ping: Annotated[str, Field(pattern=r"^[^\s>]+ *-> *[^\s>]+$")] = Field(
        description="From a node to a node, such as 'h1->h4'.", examples=["h1->h4"]
    )
    reachable: bool = Field(True, description="false: the ping must not get through.")
    family: Literal["ipv4", "ipv6"] | None = Field(None, description="Both if absent.")


_GENERATE = rf"^({'|'.join(generate.KINDS)})(, *[0-9]+)*$"


class Generate(_Model):
    """A network made by rule; each kind has some of the numbers."""

    kind: Literal["star", "chain", "tree", "ring", "grid", "fat-tree"] = Field(
        description="What it looks like."
    )
    hosts: Count | None = Field(None, description="Hosts of a star, or of each router.")
    routers: Count | None = Field(None, description="Routers of a chain or ring.")
    depth: Count | None = Field(None, description="Levels of a tree below its root.")
    fanout: Count | None = Field(None, description="Branches of each router of a tree.")
    rows: Count | None = Field(None, description="Rows of a grid.")
    columns: Count | None = Field(None, description="Columns of a grid.")
    ports: Count | None = Field(None, description="Ports of each switch of a fat-tree, even.")


def _needs_nodes(schema: dict[str, Any]) -> None:
    keys = ("nodes", "generate", "include")
    schema["anyOf"] = [{"required": [key]} for key in keys]


class Document(_Model):
    """A netlab topology: nodes, the links between them, and their settings."""

    model_config = ConfigDict(json_schema_extra=_needs_nodes)

    name: Name | None = Field(None, description="Name of the lab; the file's name if absent.")
    version: Literal[1] | None = Field(None, description="Version of the file format.")
    defaults: Defaults | None = Field(None, description="Settings that entries fall back on.")
    groups: dict[str, Group] | None = Field(None, description="Nodes with common settings.")
    include: str | list[str] | None = Field(
        None, description="Files that stand under this one: what is written here wins."
    )
    variables: dict[str, str | int | float | bool | None] | None = Field(
        None, description="Values for '${name}', which '--set name=value' replaces."
    )
    generate: Annotated[str, Field(pattern=_GENERATE, examples=["tree,2,3"])] | Generate | None = (
        Field(None, description="A network made by rule, to which nodes and links are added.")
    )
    nodes: list[str] | dict[str, Role | NodeSettings | None] | None = Field(
        None, description="The nodes: a list of names, or names with a role or settings."
    )
    links: (
        list[
            str
            | LinkSettings
            | Annotated[list[Any], WithJsonSchema({"type": "array", "items": _END, "minItems": 2})]
        ]
        | None
    ) = Field(None, description="The links: 'h1-r1', '[h1:eth0, r1]', or a mapping with 'ends'.")
    sysctls: Sysctls | None = Field(None, description="Kernel settings of every node.")
    processes: dict[str, ProcessSettings] | None = Field(
        None, description="Programs that run in nodes, by name."
    )
    validate_: list[Validation] | None = Field(
        None, alias="validate", description="What must hold in the finished network."
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of topology files, made from the models that check them."""
    template = "#/$defs/{model}"
    schema = Document.model_json_schema(by_alias=True, ref_template=template)
    definitions = cast("dict[str, Any]", schema.pop("$defs"))
    for model in (End, Shaping):  # which stand behind a `defined` only
        definitions[model.__name__] = model.model_json_schema(ref_template=template)
    for definition in definitions.values():
        fields = definition.get("properties", {})
        fields.update({name: _or_variable(field) for name, field in fields.items()})
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netlab topology",
        **{key: value for key, value in schema.items() if key != "title"},
        "$defs": dict(sorted(definitions.items())),
    }
    return cast("dict[str, Any]", _refer(whole))


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a field be a variable, which takes the place of any value."""
    variable = {"type": "string", "pattern": r"\$\{[^}]+\}"}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], variable]}
    about = {key: schema[key] for key in ("description", "title", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in about}
    if rest in ({"type": "string"}, {}):
        return schema
    return {"anyOf": [rest, variable], **about}


def _refer(schema: Any) -> Any:
    """Replace `defined`, which pydantic would take for a mistake of its own, by `$ref`."""
    if isinstance(schema, list):
        return [_refer(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = {key: _refer(value) for key, value in cast("dict[str, Any]", schema).items()}
    if isinstance(name := found.pop("defined", None), str):
        found["$ref"] = f"#/$defs/{name}"
    return found
