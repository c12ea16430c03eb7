"""Networks made by rule: star, chain, tree, ring, grid, fat-tree, of any size.

Each generator numbers its links so that what lies behind a router has neighbouring numbers; the
n-th link gets the n-th subnet of the pools, and one route covers a whole branch.

In a tree the numbers of a branch fill a block whose size is a power of two, aligned to it. A branch
is its children's blocks side by side, and the link upwards takes a number that they left over;
only where they left none does the block double. So a binary tree uses nearly all of its numbers,
and every router has one route for each child and a few exceptions, whatever the size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from netlab.model.problems import near
from netlab.model.topology import Role

MAX_NODES = 20_000


@dataclass(slots=True)
class Shape:
    """Nodes with their roles, and links as (end, end, number of their subnet)."""

    nodes: dict[str, Role] = field(default_factory=dict[str, Role])
    links: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    hosts: int = 0

    def link(self, a: str, b: str, number: int | None = None) -> None:
        """Join two nodes; without a number, with the next one."""
        self.links.append((a, b, len(self.links) if number is None else number))

    def hang(self, router: str, number: int | None = None) -> None:
        """Link the next host to a router."""
        self.hosts += 1
        self.nodes[f"h{self.hosts}"] = Role.HOST
        self.link(router, f"h{self.hosts}", number)


@dataclass(frozen=True, slots=True)
class Kind:
    """A generator, its parameters with their defaults (None: must be given), how large it gets."""

    make: Callable[..., Shape]
    parameters: Mapping[str, int | None]
    size: Callable[..., int]


def star(hosts: int) -> Shape:
    """Return a router with hosts around it."""
    shape = Shape({"r1": Role.ROUTER})
    for _ in range(hosts):
        shape.hang("r1")
    return shape


def chain(routers: int, hosts: int) -> Shape:
    """Return routers in a row, each with hosts; r1 is at one end."""
    shape = Shape()
    for i in range(1, routers + 1):
        shape.nodes[f"r{i}"] = Role.ROUTER
        if i > 1:
            shape.link(f"r{i - 1}", f"r{i}")
        for _ in range(hosts):
            shape.hang(f"r{i}")
    return shape


def ring(routers: int, hosts: int) -> Shape:
    """Return routers in a circle, each with hosts."""
    shape = chain(routers, hosts)
    shape.link(f"r{routers}", "r1")
    return shape


def grid(rows: int, columns: int, hosts: int) -> Shape:
    """Return routers in rows and columns, each joined to those beside it and below it."""
    shape = Shape()
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            name = f"r{i}x{j}"
            shape.nodes[name] = Role.ROUTER
            for _ in range(hosts):
                shape.hang(name)
            if j > 1:
                shape.link(f"r{i}x{j - 1}", name)
            if i > 1:
                shape.link(f"r{i - 1}x{j}", name)
    return shape


def tree(depth: int, fanout: int) -> Shape:
    """Return a root with branches; its leaves are hosts, everything above them routers."""
    shape = Shape()
    levels = [["r1"]]
    routers = hosts = 0
    for level in range(depth + 1):
        names: list[str] = []
        for _ in range(fanout**level):
            if level < depth:
                routers += 1
                names.append(f"r{routers}")
                shape.nodes[names[-1]] = Role.ROUTER
            else:
                hosts += 1
                names.append(f"h{hosts}")
                shape.nodes[names[-1]] = Role.HOST
        levels[level:] = [names]

    def place(level: int) -> tuple[int, list[int], list[tuple[int, int, int]]]:
        """Return size, left-over numbers and (level, index, number) of the links of a branch."""
        if level == depth:
            return 1, [], [(level, 0, 0)]
        size, left, links = place(level + 1)
        whole = 1 << (size * fanout - 1).bit_length()
        spare = sorted({size * i + n for i in range(fanout) for n in left[:depth]})
        spare = [*spare[:depth], *range(size * fanout, whole)][: depth + 1]
        if not spare:
            spare = list(range(whole, min(2 * whole, whole + depth + 1)))
            whole *= 2
        found = [
            (below, i * fanout ** (below - level - 1) + index, size * i + number)
            for i in range(fanout)
            for below, index, number in links
        ]
        return whole, spare[1:], [(level, 0, spare[0]), *found]

    for level, index, number in place(0)[2]:
        if level > 0:
            shape.link(levels[level - 1][index // fanout], levels[level][index], number)
    return shape


def fat_tree(ports: int) -> Shape:
    """Return a fat-tree of switches with so many ports (Al-Fares et al. 2008), as routers."""
    half = ports // 2
    shape = Shape()
    block = 1 << (half * (2 * half) - 1).bit_length()
    for pod in range(1, ports + 1):
        number = (pod - 1) * 2 * block
        for edge in range(1, half + 1):
            name = f"e{pod}x{edge}"
            shape.nodes[name] = Role.ROUTER
            for _ in range(half):
                shape.hang(name, number)
                number += 1
        for aggregate in range(1, half + 1):
            name = f"a{pod}x{aggregate}"
            shape.nodes[name] = Role.ROUTER
            for edge in range(1, half + 1):
                shape.link(f"e{pod}x{edge}", name, number)
                number += 1
    for core in range(half * half):
        name = f"c{core + 1}"
        shape.nodes[name] = Role.ROUTER
        for pod in range(1, ports + 1):
            number = (pod - 1) * 2 * block + block + core
            shape.link(f"a{pod}x{core // half + 1}", name, number)
    return shape


def _star_size(hosts: int) -> int:
    return hosts + 1


def _row_size(routers: int, hosts: int) -> int:
    return routers * (hosts + 1)


def _grid_size(rows: int, columns: int, hosts: int) -> int:
    return rows * columns * (hosts + 1)


def _tree_size(depth: int, fanout: int) -> int:
    if fanout == 1:
        return depth + 1
    return (fanout ** (min(depth, 64) + 1) - 1) // (fanout - 1)


def _fat_size(ports: int) -> int:
    return (ports**3 + 5 * ports**2) // 4


KINDS: dict[str, Kind] = {
    "star": Kind(star, {"hosts": None}, _star_size),
    "chain": Kind(chain, {"routers": None, "hosts": 1}, _row_size),
    "tree": Kind(tree, {"depth": None, "fanout": 2}, _tree_size),
    "ring": Kind(ring, {"routers": None, "hosts": 1}, _row_size),
    "grid": Kind(grid, {"rows": None, "columns": None, "hosts": 1}, _grid_size),
    "fat-tree": Kind(fat_tree, {"ports": None}, _fat_size),
}

_LEAST = {"routers": 1, "depth": 1, "fanout": 1, "rows": 1, "columns": 1, "hosts": 0, "ports": 2}


def parse(text: str) -> tuple[str, dict[str, int]]:
    """Read text such as "tree,2,3" into a kind and its parameters; ValueError with the reason."""
    kind, *numbers = [word.strip() for word in text.split(",")]
    if kind not in KINDS:
        raise ValueError(
            f"'{kind[:40]}' is no kind of network; use one of {', '.join(KINDS)}{near(kind, KINDS)}"
        )
    names = list(KINDS[kind].parameters)
    if len(numbers) > len(names):
        raise ValueError(f"{kind} takes at most {len(names)} numbers: {', '.join(names)}")
    for word in numbers:
        if not (word.isascii() and word.isdecimal() and len(word) < 10):
            raise ValueError(f"'{word[:40]}' is not a number; write for example '{example(kind)}'")
    return kind, {name: int(word) for name, word in zip(names, numbers, strict=False)}


def example(kind: str) -> str:
    """Return how a kind is written, such as "tree,3,3"."""
    needed = [name for name, default in KINDS[kind].parameters.items() if default is None]
    return ",".join([kind, *("4" if name == "ports" else "3" for name in needed)])


def generate(kind: str, parameters: Mapping[str, int]) -> Shape:
    """Return a network; ValueError where a parameter is missing, unknown or out of range."""
    known = KINDS[kind].parameters
    for name in parameters:
        if name not in known:
            hint = near(name, known) or f"; it has {', '.join(known)}"
            raise ValueError(f"{kind} has no '{name}'{hint}")
    values = {name: parameters.get(name, default) for name, default in known.items()}
    given: dict[str, int] = {}
    for name, value in values.items():
        if value is None:
            raise ValueError(f"{kind} needs '{name}'; write for example '{example(kind)}'")
        least = 3 if (kind, name) == ("ring", "routers") else _LEAST[name]
        if (kind, name) == ("star", "hosts"):
            least = 1
        if value < least or (name == "ports" and value % 2):
            what = "an even number" if name == "ports" else "a number"
            raise ValueError(f"'{name}' of {kind} is {value}; it must be {what} from {least}")
        given[name] = value
    size = KINDS[kind].size(*given.values())
    if size > MAX_NODES:
        raise ValueError(f"this {kind} has {size} nodes; at most {MAX_NODES} are possible")
    return KINDS[kind].make(**given)
