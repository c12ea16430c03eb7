"""Topology files: YAML in, a Topology or every problem with its place out.

Theory of operation. `reader` turns text into plain data and remembers places. Each entry of the
file (a node, a link, the defaults …) is then checked by a pydantic model of its own (`records`), so
one bad entry hides nothing of the others; what pydantic says is put into our words with file, line
and column. Good entries become a Spec, and `complete` checks what only the whole network shows.
Pydantic is not seen outside these two modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
)
from pathlib import Path
from typing import Any, cast

from pydantic import (
    BaseModel,
    ValidationError,
)

from netlab.errors import UsageError
from netlab.model import generate
from netlab.model.addressing import Pools, SubnetPool
from netlab.model.complete import complete
from netlab.model.compose import Composer
from netlab.model.firewall import Nat, Rule, icmp_rules
from netlab.model.impairment import (
    PERFECT,
    Trace,
)
from netlab.model.names import MAX_NAME, bad_name, bad_sysctl
from netlab.model.problems import Problems, loops, quoted
from netlab.model.reader import MAX_BYTES, Places, read
from netlab.model.records import (
    Addressing,
    Defaults,
    Document,
    End,
    EpisodeSettings,
    Group,
    LinkDefaults,
    LinkSettings,
    NodeDefaults,
    NodeSettings,
    ProcessSettings,
    Settings,
    Shaping,
    Validation,
    json_schema,
)
from netlab.model.spec import (
    DEFAULT_MTU,
    DirectionSpec,
    EndSpec,
    LinkSpec,
    NodeSpec,
    RouteSpec,
    Spec,
)
from netlab.model.topology import Mark, Process, Reach, Ready, Role, RouteOptions, Topology
from netlab.model.words import describe

__all__ = ["ELSEWHERE", "VERSION", "generated", "json_schema", "load", "loads"]

VERSION = 1  # of the file format


def load(path: str | Path, settings: Sequence[str] = ()) -> Topology:
    """Read, check and complete a topology file, with settings such as "defaults.links.mtu=9000".

    UsageError where there is no file to read, TopologyError with every problem of its text.
    """
    path = Path(path)
    return _loads(_decode(_content(path), str(path)), str(path), path.stem, settings)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory, not a topology file") from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    except ValueError:
        raise UsageError(f"{quoted(str(path))} is no file name") from None


def loads(text: str, name: str = "topology", settings: Sequence[str] = ()) -> Topology:
    """Read, check and complete the text of a topology; `name` stands for the file in messages."""
    return _loads(text, name, Path(name).stem, settings)


def generated(topo: str, settings: Sequence[str] = ()) -> Topology:
    """Return a network made by rule, such as "tree,2,3" (see `netlab.model.generate`)."""
    try:
        kind, parameters = generate.parse(topo)
        generate.generate(kind, parameters)
    except ValueError as error:
        raise UsageError(f"--topo {topo}: {error}") from None
    name = "-".join([kind, *map(str, parameters.values())])
    return _loads(f'name: "{name}"\ngenerate: "{topo}"\n', f"--topo {topo}", name, settings)


def _decode(content: bytes, file: str) -> str:
    problems = Problems(file)
    if len(content) > MAX_BYTES:
        problems.add(Mark(1, 1), f"the file is larger than {MAX_BYTES >> 20} MiB")
    elif b"\0" in content:
        problems.add(Mark(1, 1), "this is a binary file, not a topology")
    problems.check()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
        problems.add(Mark(line, column), f"byte 0x{content[error.start]:02x} is not UTF-8 text")
    problems.check()
    raise AssertionError("unreachable")


def _included(path: Path) -> str:
    """Return the text of an included file; ValueError in words that follow its name."""
    if path.is_dir():
        raise ValueError("is a directory")
    if not path.exists():
        raise ValueError("does not exist")
    content = _content(path)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def _loads(text: str, file: str, stem: str, settings: Sequence[str]) -> Topology:
    problems = Problems(file)
    return complete(_spec(text, file, stem, settings, problems), problems)


def _spec(text: str, file: str, stem: str, settings: Sequence[str], problems: Problems) -> Spec:
    """Return what a text asks for; its data and their places are not needed any longer."""
    places = Places()
    data, found = read(text, places)
    problems.found += found
    if data is None:
        if not found:
            problems.add(Mark(1, 1), "the file is empty; a topology needs at least 'nodes'")
        problems.check()
    if isinstance(data, dict):
        composer = Composer(places, problems, _included)
        data = composer.compose(cast("Data", data), Path(file), settings)
    return _Reading(data, places, problems, file, stem).spec()


@lru_cache
def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}

# What other tools call it: the key is theirs, the value ours.
ELSEWHERE = {
    "bandwidth": "rate",
    "bw": "rate",
    "endpoints": "ends",
    "hosts": "nodes",
    "interfaces": "ends",
    "ip": "address",
    "ipv4": "address",
    "ipv6": "address",
    "kind": "role",
    "latency": "delay",
    "max_queue_size": "limit",
    "packet_loss": "loss",
    "queue_size": "limit",
    "subnet": "prefix",
    "sysctl": "sysctls",
    "topology": "nodes",
    "type": "role",
}

Data = dict[str, Any]


def _as_mapping(value: object) -> Data | None:
    return cast("Data", value) if isinstance(value, dict) else None


def _as_list(value: object) -> list[object] | None:
    return cast("list[object]", value) if isinstance(value, list) else None


# Words that YAML 1.1 took for booleans; the kernel wants numbers.
_SWITCHES = {"yes": 1, "on": 1, "no": 0, "off": 0, "Yes": 1, "On": 1, "No": 0, "Off": 0}


class _Reading:
    """One file on its way from plain data to a Spec."""

    def __init__(
        self, data: object, places: Places, problems: Problems, file: str, stem: str
    ) -> None:
        self.data: Data = cast("Data", data) if isinstance(data, dict) else {}
        self.places = places
        self.problems = problems
        self.file = file
        self.stem = stem
        self.shape = generate.Shape()
        if not isinstance(data, dict):
            problems.add(
                Mark(1, 1), f"a topology is a mapping with the key 'nodes', not {describe(data)}"
            )
            problems.check()

    def spec(self) -> Spec:
        known = _keys(Document)
        for key in self.data:
            if key not in known:
                mark = self.places.key(self.data, key)
                self._unknown(mark, key, "", known)
        self._check_version()
        defaults = self._mapping("defaults")
        for key in defaults:
            if key not in _keys(Defaults):
                mark = self.places.key(defaults, key)
                self._unknown(mark, key, " in defaults", _keys(Defaults))
        self.link_defaults = self._model(LinkDefaults, defaults, "links", "defaults.links")
        at = self.places.value(defaults, "links")
        self.link_settings = self._settings(self.link_defaults, at)
        pools = self._pools(defaults)
        self._generate()
        nodes = self._nodes(defaults)
        links = [*self._generated_links(pools), *self._links()]
        processes, validations = self._processes(), self._validations()
        return Spec(
            self._name(),
            tuple(nodes),
            tuple(links),
            pools,
            self.file,
            bool(self.shape.nodes),
            processes,
            validations,
        )

    # -- helpers

    def _unknown(self, mark: Mark, key: str, where: str, known: Sequence[str]) -> None:
        if key == "<<":
            hint = "; merge keys are not allowed, use 'groups' or 'defaults'"
        elif ELSEWHERE.get(key) in known:
            hint = f"; did you mean '{ELSEWHERE[key]}'?"
        else:
            hint = self.problems.hint(key, known)
        if not hint:
            hint = f"; known are {', '.join(known)}"
        self.problems.add(mark, f"unknown key {quoted(key)}{where}{hint}")

    def _mapping(self, key: str) -> Data:
        """Return a part of the file that must be a mapping, empty if it is absent or wrong."""
        value = self.data.get(key)
        mapping = _as_mapping(value)
        if value is not None and mapping is None:
            at = self.places.value(self.data, key)
            self.problems.add(at, f"'{key}' must be a mapping, not {describe(value)}")
        return mapping or {}

    def _list(self, key: str) -> list[object]:
        """Return a part of the file that must be a list, empty if it is absent or wrong."""
        value = self.data.get(key)
        items = _as_list(value)
        if value is not None and items is None:
            at = self.places.value(self.data, key)
            self.problems.add(at, f"'{key}' must be a list, not {describe(value)}")
        return items or []

    def _model(self, model: type[Any], parent: Data, key: str, what: str) -> Any:
        """Check one entry of a mapping; an empty model stands for an absent or a bad one."""
        value = parent.get(key)
        if value is not None:
            checked = self._check(model, value, self.places.value(parent, key), what)
            if checked is not None:
                return checked
        return model.model_construct()  # its defaults need no check, nor what does the checking

    def _check(self, model: type[Any], value: object, mark: Mark, what: str) -> Any:
        """Return a model made of the data, or None after reporting every problem of it."""
        if not isinstance(value, dict):
            self.problems.add(mark, f"{what} must be a mapping, not {describe(value)}")
            return None
        try:
            return model(**value)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._report(detail, model, cast("Data", value), mark, what)
        except TypeError:
            # A key that is no identifier, such as one called like an argument of BaseModel.
            self.problems.add(mark, f"{what} has a key that cannot be read")
        return None

    def _report(
        self, detail: Mapping[str, Any], model: type[BaseModel], data: Data, mark: Mark, what: str
    ) -> None:
        path = tuple(detail["loc"])
        kind, given = str(detail["type"]), detail["input"]
        names = [part for part in path if isinstance(part, str)]
        key = names[-1] if names else what
        if kind == "extra_forbidden":
            at = self.places.of(data, path, key=True)
            for part in path[:-1]:
                model = _inner(model, part) if isinstance(part, str) else model
            self._unknown(at, str(path[-1]), f" in {what}", _keys(model))
            return
        if kind == "missing":
            at = self.places.of(data, path[:-1]) if len(path) > 1 else mark
            self.problems.add(at, f"{what} needs the key '{key}'")
            return
        at = self.places.of(data, path)
        context = detail.get("ctx", {})
        if kind == "value_error":
            message = f"'{key}' of {what}: {context['error']}"
        elif kind in _EXPECTED:
            message = f"'{key}' of {what} must be {_EXPECTED[kind]}, not {describe(given)}"
        elif kind in ("enum", "literal_error"):
            choices = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
            hint = self.problems.hint(str(given), choices)
            message = (
                f"{quoted(given)} is no {key} of {what}; use one of {', '.join(choices)}{hint}"
            )
        elif kind == "string_pattern_mismatch":
            field = model.model_fields.get(key)
            example = field.examples[0] if field and field.examples else context["pattern"]
            message = f"'{key}' of {what} is {quoted(given)}; it must look like '{example}'"
        elif kind in ("greater_than", "greater_than_equal", "less_than_equal"):
            words = {"gt": "more than", "ge": "at least", "le": "at most"}
            bound = " and ".join(f"{words[k]} {v}" for k, v in context.items() if k in words)
            message = f"'{key}' of {what} is {given}; it must be {bound}"
        elif kind == "string_too_long":
            length, most = len(given), context["max_length"]
            message = f"'{key}' of {what} is {length} characters long; at most {most} are possible"
        else:
            message = f"'{key}' of {what}: {str(detail['msg'])[:1].lower()}{str(detail['msg'])[1:]}"
        self.problems.add(at, message)

    # -- sections

    def _name(self) -> str:
        name = self.data.get("name")
        if name is None:
            kept = "".join(
                c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in self.stem
            )
            return kept.lstrip("-_")[:MAX_NAME] or "lab"
        if not isinstance(name, str):
            message = f"'name' must be text, not {describe(name)}"
            self.problems.add(self.places.value(self.data, "name"), message)
        elif wrong := bad_name(name):
            self.problems.add(self.places.value(self.data, "name"), f"name {quoted(name)} {wrong}")
        return str(name)

    def _check_version(self) -> None:
        version: object = self.data.get("version")
        if version is not None and (version != VERSION or version is True):
            self.problems.add(
                self.places.value(self.data, "version"),
                f"this netlab reads files of version {VERSION}, not {describe(version)}",
            )

    def _pools(self, defaults: Data) -> Pools:
        model: Addressing = self._model(Addressing, defaults, "addressing", "defaults.addressing")
        return Pools(model.ipv4, model.ipv6, model.allocate)

    def _sysctls(self, parent: Data | None, key: str = "sysctls") -> list[tuple[str, str, Mark]]:
        """Return the good sysctls below a key, and report the bad ones."""
        found: list[tuple[str, str, Mark]] = []
        given = None if parent is None else parent.get(key)
        if parent is None or given is None:
            return found
        mapping = _as_mapping(given)
        if mapping is None:
            if parent is self.data:  # in other places a model has said so
                self._mapping(key)
            return found
        given = mapping
        for name, value in given.items():
            if wrong := bad_sysctl(name):
                self.problems.add(self.places.key(given, name), f"sysctl {quoted(name)} {wrong}")
                continue
            mark = self.places.value(given, name)
            if isinstance(value, bool) or not isinstance(value, str | int):
                hint = f"; write {int(value)}" if isinstance(value, bool) else ""
                self.problems.add(
                    mark, f"sysctl '{name}' must be a number or text, not {describe(value)}{hint}"
                )
                continue
            text = str(value)
            if text in _SWITCHES:
                self.problems.add(mark, f"sysctl '{name}' is '{text}'; write {_SWITCHES[text]}")
                continue
            if not text or not text.isprintable() or len(text) > 1000:
                self.problems.add(mark, f"sysctl '{name}' cannot be {quoted(text)}")
                continue
            found.append((name, text, mark))
        return found

    def _generate(self) -> None:
        """Make the network that `generate` asks for."""
        given: object = self.data.get("generate")
        if given is None:
            return
        mark = self.places.value(self.data, "generate")
        mapping = _as_mapping(given)
        try:
            if mapping is None:
                kind, parameters = generate.parse(str(given))
            else:
                kind = str(mapping.get("kind"))
                numbers = {key: value for key, value in mapping.items() if key != "kind"}
                generate.parse(kind)
                for key, value in numbers.items():
                    if isinstance(value, bool) or not isinstance(value, int):
                        raise ValueError(f"'{key}' must be a whole number, not {describe(value)}")
                parameters = cast("dict[str, int]", numbers)
            self.shape = generate.generate(kind, parameters)
        except ValueError as error:
            self.problems.add(mark, f"generate: {error}")

    def _generated_links(self, pools: Pools) -> Iterator[LinkSpec]:
        """Return the generated links, each with the subnets of its number."""
        if not self.shape.links:
            return
        mark = self.places.value(self.data, "generate")
        families = [pool for pool in (pools.ipv4, pools.ipv6) if pool is not None]
        subnets = [SubnetPool(pool, ()) for pool in families]
        most = max(number for _, _, number in self.shape.links)
        for pool in subnets:
            if most >= pool.count:
                self.problems.add(
                    mark,
                    f"the pool {pool.pool} has {pool.count} subnets, and this network "
                    f"needs {most + 1}",
                )
                return
        defaults: LinkDefaults = self.link_defaults
        mtu = DEFAULT_MTU if defaults.mtu is None else defaults.mtu
        for a, b, number in self.shape.links:
            yield LinkSpec(
                (EndSpec(a, mark=mark), EndSpec(b, mark=mark)),
                settings=self.link_settings,
                prefixes=tuple(pool.nth(number) for pool in subnets),
                mtu=mtu,
                offloads=bool(defaults.offloads),
                mark=mark,
            )

    def _nodes(self, defaults: Data) -> list[NodeSpec]:
        if "nodes" not in self.data and not self.shape.nodes:
            if self.data.get("generate") is None:
                self.problems.add(Mark(1, 1), "a topology needs the key 'nodes'")
            return []
        layers = [_Layer(None, self._sysctls(self.data), self.places, {})]
        base = _as_mapping(defaults.get("nodes"))
        model = self._model(NodeDefaults, defaults, "nodes", "defaults.nodes")
        layers.append(_Layer(model, self._sysctls(base), self.places, base))
        entries = list(self._node_entries())
        names = {name for name, _, _ in entries}
        at = self.places.value(self.data, "generate")
        made = [(name, None, at) for name in self.shape.nodes if name not in names]
        memberships = self._groups(names | self.shape.nodes.keys())
        common = {role: _merge([*layers, _Layer.of(role)]) for role in (None, *Role)}
        nodes: list[NodeSpec] = []
        for name, value, mark in (*made, *entries):
            mine = memberships.get(name, ())
            role = self.shape.nodes.get(name)
            if not mine and value is None:
                nodes.append(common[role].node(name, mark))
                continue
            own = [*layers, _Layer.of(role), *mine]
            loopbacks: tuple[IPv4Interface | IPv6Interface, ...] = ()
            if value is not None:
                what = f"node {quoted(name)}"
                settings = self._check(NodeSettings, value, mark, what)
                own.append(_Layer(settings, self._sysctls(value), self.places, value))
                if settings is not None and settings.loopback is not None:
                    loopbacks = settings.loopback
            nodes.append(_merge(own).node(name, mark, loopbacks))
        return nodes

    def _node_entries(self) -> Iterator[tuple[str, Data | None, Mark]]:
        """Return name, settings and place of each node, whichever way they are written."""
        given: object = self.data.get("nodes", [])
        mapping, names = _as_mapping(given), _as_list(given)
        if mapping is not None:
            for name, value in mapping.items():
                yield name, self._node_settings(name, value, mapping), self.places.key(given, name)
        elif names is not None:
            for number, name in enumerate(names):
                mark = self.places.value(given, number)
                if isinstance(name, str):
                    yield name, None, mark
                else:
                    hint = f"; write '{name}' in quotes" if isinstance(name, int) else ""
                    what = f"a node in a list is a name, not {describe(name)}{hint}"
                    self.problems.add(mark, what)
        else:
            self.problems.add(
                self.places.value(self.data, "nodes"),
                f"'nodes' must be a list of names or a mapping, not {describe(given)}",
            )

    def _node_settings(self, name: str, value: object, parent: Data) -> Data | None:
        """Return the settings of a node; a role alone is a mapping with a role."""
        mark = self.places.value(parent, name)
        if isinstance(value, str):
            settings: Data = {"role": value}
            entry = (mark.file, mark.line, mark.column, mark.line, mark.column)
            self.places.entries(settings)["role"] = entry
            return settings
        settings_given = _as_mapping(value)
        if value is not None and settings_given is None:
            what = f"node {quoted(name)} must be a role or a mapping, not {describe(value)}"
            self.problems.add(mark, what)
        return settings_given

    def _groups(self, nodes: set[str]) -> dict[str, list[_Layer]]:
        """Return for each node the layers of its groups, the farthest first."""
        groups: Data = self._mapping("groups")
        members: dict[str, list[str]] = {}
        layers: dict[str, _Layer] = {}
        for name, value in groups.items():
            what = f"group {quoted(name)}"
            if name in nodes:
                self.problems.add(self.places.key(groups, name), f"{what} has the name of a node")
            model: Group | None = self._check(Group, value, self.places.value(groups, name), what)
            if model is None:
                members[name] = []
                continue
            layers[name] = _Layer(model, self._sysctls(_as_mapping(value)), self.places, value)
            members[name] = []
            for number, member in enumerate(model.members):
                if member in nodes or member in groups:
                    members[name].append(member)
                    continue
                mark = self.places.of(value, ("members", number))
                hint = self.problems.hint(member, [*nodes, *groups])
                self.problems.add(
                    mark, f"{what} has the member {quoted(member)}: no such node or group{hint}"
                )
        order = self._group_order(groups, members)
        found: dict[str, list[_Layer]] = {}
        expanded: dict[str, set[str]] = {}
        for name in reversed(order):  # members before those that contain them
            expanded[name] = {m for m in members[name] if m in nodes}.union(
                *(expanded[m] for m in members[name] if m in expanded)
            )
        for name in order:
            if name in layers:
                for node in expanded[name]:
                    found.setdefault(node, []).append(layers[name])
        return found

    def _group_order(self, groups: Data, members: Mapping[str, list[str]]) -> list[str]:
        """Return the groups, each after those that contain it; report loops."""
        inside: dict[str, int] = dict.fromkeys(groups, 0)
        for name in groups:
            for member in members[name]:
                if member in inside:
                    inside[member] += 1
        ready = [name for name in groups if inside[name] == 0]
        order: list[str] = []
        while ready:
            name = ready.pop(0)
            order.append(name)
            for member in members[name]:
                if member in inside:
                    inside[member] -= 1
                    if inside[member] == 0:
                        ready.append(member)
        inner = {name: [m for m in members[name] if m in groups] for name in groups}
        for loop in loops(inner):
            path = " contains ".join(f"'{name}'" for name in [*loop, loop[0]])
            self.problems.add(self.places.key(groups, loop[0]), f"groups form a loop: {path}")
        return order

    # -- processes and expectations

    def _processes(self) -> tuple[Process, ...]:
        given = self._mapping("processes")
        found: list[Process] = []
        models: dict[str, ProcessSettings] = {}
        for name, value in given.items():
            mark = self.places.key(given, name)
            model = self._check(ProcessSettings, value, mark, f"process {quoted(name)}")
            if model is not None:
                models[name] = model
        bad = given.keys() - models.keys()
        for name, model in models.items():
            mark = self.places.key(given, name)
            after = (n for n in model.after if n not in bad)
            ready = None if model.ready is None else Ready(**model.ready.model_dump())
            found.append(
                Process(
                    name,
                    model.node,
                    model.command,
                    ready,
                    tuple(after),
                    model.restart,
                    tuple((key, str(value)) for key, value in model.env.items()),
                    model.cwd,
                    model.user,
                    model.cpus,
                    model.memory,
                    tuple(model.needs),
                    mark,
                )
            )
        return tuple(found)

    def _validations(self) -> tuple[Reach, ...]:
        found: list[Reach] = []
        for number, value in enumerate(self._list("validate")):
            mark = self.places.value(self.data["validate"], number)
            model: Validation | None = self._check(Validation, value, mark, "this validation")
            if model is not None:
                source, _, target = (text.strip() for text in model.ping.partition("->"))
                family = {"ipv4": 4, "ipv6": 6, None: None}[model.family]
                found.append(Reach(source, target, model.reachable, family, mark))
        return tuple(found)

    # -- links

    def _links(self) -> list[LinkSpec]:
        given = self._list("links")
        self.node_names = self._names()
        links: list[LinkSpec] = []
        for number, value in enumerate(given):
            mark = self.places.value(given, number)
            link = self._link(value, mark)
            if link is not None:
                links.append(link)
        return links

    def _names(self) -> set[str]:
        nodes = self.data.get("nodes")
        found = set(self.shape.nodes)
        if isinstance(nodes, dict | list):
            found |= {name for name in cast("list[object]", nodes) if isinstance(name, str)}
        return found

    def _link(self, value: object, mark: Mark) -> LinkSpec | None:
        if isinstance(value, str):
            ends = self._short_ends(value, mark)
            return None if ends is None else self._plain(ends, mark)
        items, mapping = _as_list(value), _as_mapping(value)
        if items is not None:
            ends = self._ends(items)
            return None if ends is None else self._plain(ends, mark)
        if mapping is None:
            self.problems.add(
                mark, f"a link is written 'a-b', [a, b] or as a mapping, not {describe(value)}"
            )
            return None
        return self._long(mapping, mark)

    def _plain(self, ends: tuple[EndSpec, ...], mark: Mark) -> LinkSpec:
        defaults: LinkDefaults = self.link_defaults
        return LinkSpec(
            ends,
            settings=self.link_settings,
            mtu=DEFAULT_MTU if defaults.mtu is None else defaults.mtu,
            offloads=bool(defaults.offloads),
            mark=mark,
        )

    def _long(self, value: Data, mark: Mark) -> LinkSpec | None:
        label = value.get("name", value.get("ends"))
        what = f"link {quoted(label)}" if isinstance(label, str) else "this link"
        arrows = {key: part for key, part in value.items() if "->" in key}
        directions: list[DirectionSpec] = []
        for key, part in arrows.items():
            at = self.places.key(value, key)
            source, _, target = (text.strip() for text in key.partition("->"))
            shaping = self._check(Shaping, part, at, f"direction {quoted(key)}")
            if shaping is not None:
                directions.append(DirectionSpec(source, target, self._settings(shaping, at), at))
        rest = value
        if arrows:
            rest = {key: part for key, part in value.items() if key not in arrows}
            self.places.entries(rest).update(self.places.entries(value))
        model: LinkSettings | None = self._check(LinkSettings, rest, mark, what)
        ends = self._any_ends(value, what)
        if model is None or ends is None:
            return None
        defaults: LinkDefaults = self.link_defaults
        mtu = defaults.mtu if model.mtu is None else model.mtu
        offloads = defaults.offloads if model.offloads is None else model.offloads
        settings = self._settings(model, mark)
        if model.tunnel is None:
            settings = {**self.link_settings, **settings}
            mtu = DEFAULT_MTU if mtu is None else mtu
        else:
            mtu = model.mtu or 0  # defaults are for cables
        return LinkSpec(
            ends,
            model.name,
            settings,
            tuple(directions),
            model.prefix or (),
            model.prefix is not None,
            mtu,
            bool(offloads),
            mark,
            model.tunnel,
        )

    def _settings(self, model: Settings, mark: Mark) -> dict[str, Any]:
        """Return the fields of an impairment that were given."""
        found: dict[str, Any] = {}
        for name in Settings.model_fields:
            value = getattr(model, name)
            if value is not None:
                found[name] = value
            elif isinstance(model, EpisodeSettings) and name in model.model_fields_set:
                found[name] = getattr(PERFECT, name)  # null in an episode: as on a perfect wire
        if found.get("trace") is not None:
            found["trace"] = self._trace(found["trace"], mark)
        if isinstance(model, Shaping) and model.schedule is not None:
            found["schedule"] = tuple(
                (at, episode.lasting, self._settings(episode, mark))
                for episode in model.schedule
                for at in self._times(episode, mark)
            )
        return found

    def _times(self, episode: EpisodeSettings, mark: Mark) -> list[float]:
        """Return when an episode begins: once, or at the beginning of each repetition."""
        if (episode.times > 1) != bool(episode.every):
            self.problems.add(mark, "an episode that repeats needs both 'every' and 'times'")
        elif episode.times > 1 and not 0 < episode.lasting < episode.every:
            message = "an episode that repeats needs a 'for' that is shorter than 'every'"
            self.problems.add(mark, message)
        return [episode.at + number * episode.every for number in range(episode.times)]

    def _trace(self, given: str | list[int], mark: Mark) -> Trace | None:
        """Return a trace from its numbers or from the file that holds them."""
        try:
            if isinstance(given, list):
                return Trace(tuple(given))
            path = Path(self.file).parent / given
            with path.open(encoding="ascii", errors="replace") as file:
                return Trace.read(file.read(MAX_BYTES))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self.problems.add(mark, f"trace {quoted(given)} cannot be read: {reason}")
        except ValueError as error:
            self.problems.add(mark, f"trace {quoted(given)}: {error}")
        return None

    def _any_ends(self, link: Data, what: str) -> tuple[EndSpec, ...] | None:
        given: object = link.get("ends")
        at = self.places.value(link, "ends")
        items = _as_list(given)
        if isinstance(given, str):
            return self._short_ends(given, at)
        if items is not None:
            return self._ends(items)
        if "ends" in link:  # if it is missing, the model has said so
            message = f"'ends' of {what} must be 'a-b' or a list, not {describe(given)}"
            self.problems.add(at, message)
        return None

    def _short_ends(self, text: str, mark: Mark) -> tuple[EndSpec, ...] | None:
        """Split 'a-b' at the dash that leaves two known nodes."""
        cuts = [i for i, c in enumerate(text) if c == "-"]
        pairs = [(text[:i].strip(), text[i + 1 :].strip()) for i in cuts]
        good = [
            pair
            for pair in pairs
            if all(part.partition(":")[0] in self.node_names for part in pair)
        ]
        if len(good) == 1 or (len(pairs) == 1 and all(pairs[0])):
            a, b = good[0] if good else pairs[0]
            column = mark.column + text.index(b, len(a) + 1) if len(a) < len(text) else 0
            second = Mark(mark.line, column, mark.file)
            return _end(a, mark), _end(b, second)
        if len(good) > 1:
            self.problems.add(
                mark, f"link {quoted(text)} can be read in more than one way; write it as [a, b]"
            )
            return None
        for pair in pairs:
            known = [part.partition(":")[0] in self.node_names for part in pair]
            if any(known) and all(pair):
                missing = pair[0] if known[1] else pair[1]
                hint = self.problems.hint(missing, self.node_names)
                self.problems.add(
                    mark, f"link {quoted(text)}: there is no node {quoted(missing)}{hint}"
                )
                return None
        message = f"link {quoted(text)} must name two nodes, such as 'h1-r1'"
        self.problems.add(mark, message)
        return None

    def _ends(self, given: list[object]) -> tuple[EndSpec, ...] | None:
        ends: list[EndSpec] = []
        bad = False
        for number, value in enumerate(given):
            mark = self.places.value(given, number)
            if isinstance(value, str):
                ends.append(_end(value.strip(), mark))
                continue
            mapping = _as_mapping(value)
            if mapping is None:
                what = f"an end is a node, 'node:interface' or a mapping, not {describe(value)}"
                self.problems.add(mark, what)
                bad = True
                continue
            model: End | None = self._check(End, mapping, mark, "this end")
            if model is None:
                bad = True
                continue
            ends.append(
                EndSpec(
                    model.node, model.interface, model.address, model.mac, model.mtu, model.up, mark
                )
            )
        return None if bad else tuple(ends)


def _inner(model: type[BaseModel], key: str) -> type[BaseModel]:
    """Return the model inside a field, to name the keys that are known there."""
    from typing import get_args

    field = model.model_fields.get(key)
    todo = [field.annotation] if field else []
    while todo:
        kind = todo.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        todo += get_args(kind)
    return model


def _end(text: str, mark: Mark) -> EndSpec:
    node, colon, interface = text.partition(":")
    return EndSpec(node, interface if colon else None, mark=mark)


def _filters(
    model: NodeDefaults | None, places: Places, data: object
) -> tuple[tuple[Rule, ...], Nat | None, Mark]:
    """Return the rules, translation and place of what filters packets."""
    if model is None:
        return (), None, Mark()
    rules = tuple(model.firewall or ())
    if model.clamp_mss is not None:
        rules = (Rule(action="clamp-mss", mss=model.clamp_mss), *rules)
    if model.icmp is not None:
        rules += icmp_rules(model.icmp)
    nat = None
    if model.nat is not None:
        outside = model.nat.outside
        names = (outside,) if isinstance(outside, str) else tuple(outside)
        nat = Nat(names, model.nat.unsolicited, model.nat.conntrack)
    for key in ("firewall", "nat", "icmp", "clamp-mss"):
        if mark := places.key(data, key):
            return rules, nat, mark
    return rules, nat, Mark()


_ROUTE_WORDS = tuple(field.name for field in fields(RouteOptions))


class _Layer:
    """Settings of nodes from one place: the file, the defaults, a group, the node."""

    def __init__(
        self,
        model: NodeDefaults | None,
        sysctls: list[tuple[str, str, Mark]],
        places: Places,
        data: object,
    ) -> None:
        self.role = model.role if model else None
        self.routing = model.routing if model else None
        self.congestion = model.congestion if model else None
        self.sysctls = sysctls
        self.rules, self.nat, self.firewall_mark = _filters(model, places, data)
        self.routes: list[RouteSpec] = []
        routes = (model.routes if model else None) or []
        for number, route in enumerate(routes):
            try:
                via: IPv4Address | IPv6Address | str = ip_address(route.via)
            except ValueError:
                via = route.via
            mark = places.of(data, ("routes", number))
            words = {key: getattr(route, key) for key in _ROUTE_WORDS}
            self.routes.append(RouteSpec(route.to, via, route.dev, mark, RouteOptions(**words)))

    @staticmethod
    def of(role: Role | None) -> _Layer:
        """Return a layer that says nothing but the role."""
        return _Layer(NodeDefaults.model_construct(role=role), [], Places(), None)


class _Merged:
    """What layers come to: later ones win, sysctls and routes add up."""

    def __init__(self) -> None:
        self.role = Role.HOST
        self.routing = "static"
        self.congestion: str | None = None
        self.rules: tuple[Rule, ...] = ()
        self.nat: Nat | None = None
        self.firewall_mark = Mark()
        self.sysctls: dict[str, str] = {}
        self.marks: dict[str, Mark] = {}
        self.routes: list[RouteSpec] = []

    def node(
        self,
        name: str,
        mark: Mark,
        loopbacks: tuple[IPv4Interface | IPv6Interface, ...] = (),
    ) -> NodeSpec:
        return NodeSpec(
            name,
            self.role,
            self.sysctls,
            self.marks,
            loopbacks,
            tuple(self.routes),
            self.routing == "static" or (self.routing == "ospf" and not self.role.forwards),
            self.routing == "ospf" and self.role.forwards,
            mark,
            self.congestion,
            self.rules,
            self.nat,
            self.firewall_mark,
        )


def _merge(layers: Sequence[_Layer]) -> _Merged:
    merged = _Merged()
    for layer in layers:
        merged.role = layer.role or merged.role
        merged.routing = layer.routing or merged.routing
        merged.congestion = layer.congestion or merged.congestion
        merged.rules += layer.rules
        merged.nat = layer.nat or merged.nat
        merged.firewall_mark = layer.firewall_mark or merged.firewall_mark
        for key, value, mark in layer.sysctls:
            merged.sysctls[key] = value
            merged.marks[key] = mark
        merged.routes += layer.routes
    return merged
