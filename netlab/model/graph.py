"""A topology as a picture: mermaid and dot for other programs, SVG of our own.

The SVG's layout needs no other program. Up to `STRESS_UP_TO` nodes it minimises *stress*: the
distance of two nodes on paper should be proportional to their distance in hops (Gansner, Koren and
North, "Graph drawing by stress majorization", 2004), which draws chains straight, rings round and
grids square. Larger networks are drawn as a tree in rings around their middle. Nothing is random,
and coordinates are whole pixels, so the same topology gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import atan2, cos, hypot, pi, sin

from netlab.model.impairment import Impairment
from netlab.model.topology import Interface, Link, Node, Role, Topology
from netlab.units import format_rate, format_ratio, format_time

STRESS_UP_TO = 120
ADDRESSES_UP_TO = 40  # nodes; beyond, addresses would cover the picture
HOP = 250  # pixels between neighbours
FLAT = 0.9  # cosine of the steepest angle at which a line counts as flat


def impairment_label(forward: Impairment, backward: Impairment) -> list[str]:
    """Return a link's impairments as short lines, one if both directions are alike."""
    if forward == backward:
        return [text] if (text := _words(forward)) else []
    lines = [("→ ", _words(forward)), ("← ", _words(backward))]
    return [f"{arrow}{text or 'unimpaired'}" for arrow, text in lines]


def link_label(link: Link) -> list[str]:
    """Return what is special about a link as short lines."""
    if link.tunnel is not None:
        return [type(link.tunnel.kind).__name__.lower()]
    return impairment_label(link.forward, link.backward)


def _words(impairment: Impairment) -> str:
    words: list[str] = []
    if impairment.delay:
        words.append(format_time(impairment.delay))
    if impairment.jitter:
        words[-1:] = [f"{words[-1]} ±{format_time(impairment.jitter)}"]
    if impairment.rate:
        words.append(format_rate(impairment.rate))
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        if ratio := getattr(impairment, name):
            words.append(f"{name} {format_ratio(ratio)}")
    if impairment.trace:
        words.append(f"trace {format_rate(impairment.trace.mean_rate)}")
    if impairment.limit:
        words.append(f"queue {impairment.limit}")
    if impairment.queue:
        words.append(type(impairment.queue).__name__.lower())
    words += ["bursts of loss"] * bool(impairment.loss_model)
    words += ["drops by rule"] * bool(impairment.drops)
    words += ["changes"] * bool(impairment.schedule)
    return " ".join(words)


# -- other programs ----------------------------------------------------------------------------


def mermaid(topology: Topology) -> str:
    """Return the topology as a mermaid flowchart."""
    shapes = {Role.ROUTER: ("((", "))"), Role.SWITCH: ("[/", "/]")}
    ids = {node.name: f"n{number}" for number, node in enumerate(topology.nodes)}
    lines = ["graph LR"]
    for node in topology.nodes:
        left, right = shapes.get(node.role, ("[", "]"))
        lines.append(f'  {ids[node.name]}{left}"{_title(node)}"{right}')
    for link in topology.links:
        words = link_label(link)
        network = link.a.addresses[:1] or link.b.addresses[:1]
        words = [*(str(a.network) for a in network), *words]
        label = f'|"{"<br/>".join(words)}"|' if words else ""
        lines.append(f"  {ids[link.a.node]} ---{label} {ids[link.b.node]}")
    return "\n".join(lines) + "\n"


def dot(topology: Topology) -> str:
    """Return the topology as a graph for Graphviz's dot or neato."""
    shapes = {Role.ROUTER: "circle", Role.SWITCH: "diamond"}
    lines = [f"graph {_quote(topology.name)} {{", '  node [shape=box, fontname="sans-serif"];']
    lines.append('  edge [fontname="sans-serif", fontsize=9];')
    for node in topology.nodes:
        shape = shapes.get(node.role)
        options = [f"label={_quote(_title(node))}"] + ([f"shape={shape}"] if shape else [])
        lines.append(f"  {_quote(node.name)} [{', '.join(options)}];")
    for link in topology.links:
        options = [
            f"taillabel={_quote(_end_label(link.a))}",
            f"headlabel={_quote(_end_label(link.b))}",
        ]
        if words := link_label(link):
            options.append(f"label={_quote(chr(10).join(words))}")
        ends = f"{_quote(link.a.node)} -- {_quote(link.b.node)}"
        lines.append(f"  {ends} [{', '.join(options)}];")
    return "\n".join(lines) + "\n}\n"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _title(node: Node) -> str:
    return node.name.removesuffix(".lan") if node.hidden else node.name


def _end_label(end: Interface) -> str:
    return "\n".join([end.name, *(str(address) for address in end.addresses)])


# -- layout ------------------------------------------------------------------------------------

_Point = tuple[float, float]


def layout(topology: Topology) -> dict[str, tuple[int, int]]:
    """Return a place in whole pixels for every node, the leftmost and topmost at 0."""
    names = [node.name for node in topology.nodes]
    index = {name: number for number, name in enumerate(names)}
    neighbours: list[list[int]] = [[] for _ in names]
    for link in topology.links:
        a, b = index[link.a.node], index[link.b.node]
        if b not in neighbours[a]:
            neighbours[a].append(b)
            neighbours[b].append(a)
    placed: dict[int, _Point] = {}
    right = 0.0
    for part in _components(neighbours):
        first = min(part)
        edge = (first, min(neighbours[first], default=first))
        points = _sort_leaves(_turn(_place(part, neighbours), edge), neighbours)
        left = min(x for x, _ in points.values())
        for i, (x, y) in points.items():
            placed[i] = (x - left + right, y)
        right = max(x for i, (x, _) in placed.items() if i in points) + 1.0
    if not placed:
        return {}
    top = min(y for _, y in placed.values())
    return {
        names[i]: (round(x * HOP), round((y - top) * HOP)) for i, (x, y) in sorted(placed.items())
    }


def _components(neighbours: Sequence[Sequence[int]]) -> list[list[int]]:
    seen: set[int] = set()
    parts: list[list[int]] = []
    for start in range(len(neighbours)):
        if start in seen:
            continue
        part = [start]
        seen.add(start)
        for i in part:
            for j in neighbours[i]:
                if j not in seen:
                    seen.add(j)
                    part.append(j)
        parts.append(part)
    return parts


def _hops(start: int, neighbours: Sequence[Sequence[int]]) -> dict[int, int]:
    found = {start: 0}
    queue = [start]
    for i in queue:
        for j in neighbours[i]:
            if j not in found:
                found[j] = found[i] + 1
                queue.append(j)
    return found


def _place(part: list[int], neighbours: Sequence[Sequence[int]]) -> dict[int, _Point]:
    rings = _rings(part, neighbours)
    if len(part) > STRESS_UP_TO or len(part) < 3:
        return rings
    hops = {i: _hops(i, neighbours) for i in part}
    return _relax(rings, hops)


def _rings(part: list[int], neighbours: Sequence[Sequence[int]]) -> dict[int, _Point]:
    """Draw a spanning tree around its middle, each branch as wide as it has leaves."""
    far = _last(_hops(part[0], neighbours))
    hops = _hops(far, neighbours)
    other = _last(hops)
    middle = next(
        i
        for i in part
        if hops[i] == hops[other] // 2 and _hops(i, neighbours)[other] == -(-hops[other] // 2)
    )
    children: dict[int, list[int]] = {i: [] for i in part}
    order = [middle]
    seen = {middle}
    for i in order:
        for j in neighbours[i]:
            if j not in seen:
                seen.add(j)
                children[i].append(j)
                order.append(j)
    leaves: dict[int, int] = {}
    for i in reversed(order):
        leaves[i] = sum(leaves[j] for j in children[i]) or 1
    points: dict[int, _Point] = {middle: (0.0, 0.0)}
    todo: list[tuple[int, float, float, int]] = [(middle, 0.0, 2 * pi, 0)]
    # A ring must be long enough for what stands on it.
    depth = _hops(middle, neighbours)
    counts: dict[int, int] = {}
    for i in part:
        counts[depth[i]] = counts.get(depth[i], 0) + 1
    radius = {0: 0.0}
    for ring in range(1, max(counts) + 1):
        radius[ring] = max(radius[ring - 1] + 1.0, counts[ring] * 0.55 / (2 * pi))
    while todo:
        i, start, width, ring = todo.pop()
        at = start
        for j in children[i]:
            share = width * leaves[j] / leaves[i]
            angle = at + share / 2
            points[j] = (radius[ring + 1] * cos(angle), radius[ring + 1] * sin(angle))
            todo.append((j, at, share, ring + 1))
            at += share
    return points


def _last(hops: Mapping[int, int]) -> int:
    most = max(hops.values())
    return min(i for i, distance in hops.items() if distance == most)


def _relax(points: dict[int, _Point], hops: Mapping[int, Mapping[int, int]]) -> dict[int, _Point]:
    """Move each node to the weighted mean of where the others would have it, until they rest."""
    names = sorted(points)
    for _ in range(max(30, min(300, 600_000 // len(names) ** 2))):
        moved = 0.0
        for i in names:
            xi, yi = points[i]
            x = y = weights = 0.0
            for j in names:
                if j == i:
                    continue
                xj, yj = points[j]
                wanted = hops[i][j]
                weight = 1.0 / (wanted * wanted)
                apart = hypot(xi - xj, yi - yj) or 1e-9
                x += weight * (xj + wanted * (xi - xj) / apart)
                y += weight * (yj + wanted * (yi - yj) / apart)
                weights += weight
            points[i] = (x / weights, y / weights)
            moved = max(moved, abs(points[i][0] - xi), abs(points[i][1] - yi))
        if moved < 1e-4:
            break
    return points


def _turn(points: dict[int, _Point], edge: tuple[int, int]) -> dict[int, _Point]:
    """Lay the long side flat (without one, a link), the first node left, the next one up."""
    if len(points) == 1:
        return dict.fromkeys(points, (0.0, 0.0))
    n = len(points)
    cx = sum(x for x, _ in points.values()) / n
    cy = sum(y for _, y in points.values()) / n
    sxx = sum((x - cx) ** 2 for x, _ in points.values())
    syy = sum((y - cy) ** 2 for _, y in points.values())
    sxy = sum((x - cx) * (y - cy) for x, y in points.values())
    angle = -atan2(2 * sxy, sxx - syy) / 2
    spread = hypot(sxx - syy, 2 * sxy)  # 0 for what is as wide as it is high
    if spread < 0.2 * (sxx + syy):
        start, end = edge
        angle = -atan2(points[end][1] - points[start][1], points[end][0] - points[start][0])
    c, s = cos(angle), sin(angle)
    turned = {
        i: ((x - cx) * c - (y - cy) * s, (x - cx) * s + (y - cy) * c)
        for i, (x, y) in points.items()
    }
    order = sorted(turned)
    if turned[order[0]][0] > 1e-6:
        turned = {i: (-x, y) for i, (x, y) in turned.items()}
    first = next((i for i in order if abs(turned[i][1]) > 1e-3), None)
    if first is not None and turned[first][1] > 0:
        turned = {i: (x, -y) for i, (x, y) in turned.items()}
    return turned


def _sort_leaves(
    points: dict[int, _Point], neighbours: Sequence[Sequence[int]]
) -> dict[int, _Point]:
    """Let the leaves of a node change places so that they read from top to bottom."""
    leaves: dict[int, list[int]] = {}
    for i in sorted(points):
        if len(neighbours[i]) == 1:
            leaves.setdefault(neighbours[i][0], []).append(i)
    for mine in leaves.values():
        spots = sorted((points[i] for i in mine), key=lambda p: (round(p[1], 3), round(p[0], 3)))
        points.update(zip(mine, spots, strict=True))
    return points


# -- SVG ---------------------------------------------------------------------------------------

_STYLE = """\
text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1d2733; text-anchor: middle;
  dominant-baseline: central; }
.end { font-size: 10.5px; fill: #55606d; }
.word { font-size: 11px; fill: #9a3412; font-weight: 600; }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
.link { stroke: #8a96a3; stroke-width: 2; fill: none; }
.impaired { stroke: #c2410c; }
.host { fill: #e8f1fb; stroke: #3b6ea5; stroke-width: 1.6; }
.router { fill: #eaf6ec; stroke: #3c8a4c; stroke-width: 1.6; }
.switch { fill: #f2ecf9; stroke: #7a54a8; stroke-width: 1.6; }
.name { font-weight: 600; }
"""


@dataclass(frozen=True, slots=True)
class _Box:
    x: int
    y: int
    width: int
    height: int


def svg(topology: Topology) -> str:
    """Return the topology as a self-contained SVG picture."""
    points = layout(topology)
    margin_x, margin_y = 90, 70
    width = max((x for x, _ in points.values()), default=0) + 2 * margin_x
    height = max((y for _, y in points.values()), default=0) + 2 * margin_y
    boxes = {
        node.name: _box(node, points[node.name], margin_x, margin_y) for node in topology.nodes
    }
    roles = {node.name: node for node in topology.nodes}
    count = sum(not node.hidden for node in topology.nodes)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' role='img'>",
        f"<title>{escape(topology.name)}</title>",
        f"<desc>A network of {count} nodes: {escape(description(topology))}</desc>",
        f"<style>{_STYLE}</style>",
        f"<rect width='{width}' height='{height}' fill='#fff'/>",
    ]
    seen: dict[frozenset[str], int] = {}
    labels: list[str] = []
    for link in topology.links:
        pair = frozenset((link.a.node, link.b.node))
        number = seen[pair] = seen.get(pair, -1) + 1
        shape, words = _draw_link(link, boxes, roles, number, len(topology.nodes))
        parts.append(shape)
        labels += words
    parts += [_draw_node(node, boxes[node.name]) for node in topology.nodes]
    return "\n".join([*parts, *labels, "</svg>"]) + "\n"


def description(topology: Topology) -> str:
    """Return which nodes are joined, in words, for those who do not see the picture."""
    return ", ".join(f"{link.a.node} to {link.b.node}" for link in topology.links[:50])


def _box(node: Node, point: tuple[int, int], margin_x: int, margin_y: int) -> _Box:
    width = max(56, 9 * len(_title(node)) + 20)
    return _Box(point[0] + margin_x, point[1] + margin_y, width, 34)


def _draw_node(node: Node, box: _Box) -> str:
    title = escape(_title(node))
    x, y, w, h = box.x - box.width // 2, box.y - box.height // 2, box.width, box.height
    radius = {Role.HOST: 5, Role.SWITCH: 0}.get(node.role, h // 2)
    shape = f"<rect class='{node.role}' x='{x}' y='{y}' width='{w}' height='{h}' rx='{radius}'/>"
    name = f"<text class='name' x='{box.x}' y='{box.y}'>{title}</text>"
    addresses = ", ".join(str(address) for address in node.loopbacks)
    tip = f"<title>{title}: {node.role}{' ' + escape(addresses) if addresses else ''}</title>"
    return f"<g>{tip}{shape}{name}</g>"


def _draw_link(
    link: Link, boxes: Mapping[str, _Box], nodes: Mapping[str, Node], number: int, size: int
) -> tuple[str, list[str]]:
    """Return the line of a link and the texts that belong on top of everything.

    The texts at the ends stand below a flat line and upon any other, the impairments beside it.
    The `number`-th parallel link bends, and everything of it goes outwards.
    """
    a, b = boxes[link.a.node], boxes[link.b.node]
    length = hypot(b.x - a.x, b.y - a.y) or 1.0
    ux, uy = (b.x - a.x) / length, (b.y - a.y) / length
    nx, ny = (-uy, ux) if (ux, -uy) > (0, 0) else (uy, -ux)
    bend = (number + 1) // 2 * 60 * (-1 if number % 2 else 1)
    style = "link impaired" if link.forward or link.backward else "link"
    middle_x, middle_y = (a.x + b.x) / 2, (a.y + b.y) / 2
    way = f"Q{round(middle_x + nx * bend * 2)} {round(middle_y + ny * bend * 2)}" if bend else "L"
    path = f"<path class='{style}' d='M{a.x} {a.y} {way} {b.x} {b.y}'/>"

    side = 0 if abs(ny) < FLAT else -1 if bend < 0 else 1
    texts: list[str] = []
    if size <= ADDRESSES_UP_TO:
        for interface, box, sign in ((link.a, a, 1), (link.b, b, -1)):
            if nodes[interface.node].hidden:
                continue
            lines = [interface.name, *_shown(interface)]
            w, h = 6 * max(map(len, lines)), 12 * len(lines)
            along = box.width / 2 / abs(ux) + 3 + w / 2 if side else _clear(box, w, h, ux, uy)
            t = min(0.5, along / length)
            away = side * (4 + (w * abs(nx) + h * abs(ny)) / 2) + 4 * t * (1 - t) * bend
            x, y = box.x + sign * ux * along + nx * away, box.y + sign * uy * along + ny * away
            texts.append(_text("end", x, y, lines, 12))
    lines = link_label(link)
    if lines:
        w, h = 6.6 * max(map(len, lines)), 13 * len(lines)
        outwards = -1 if bend <= 0 else 1
        away = outwards * (5 + (w * abs(nx) + h * abs(ny)) / 2) + bend
        x, y = middle_x + nx * away, middle_y + ny * away
        texts.append(_text("word", x, y, lines, 13))
    return path, texts


def _clear(box: _Box, width: float, height: float, ux: float, uy: float) -> float:
    """Return how far along a line a text must be so as not to touch the box the line starts in."""
    across = (box.width + width + 8) / 2 / abs(ux) if abs(ux) > 1e-9 else 1e9
    along = (box.height + height + 8) / 2 / abs(uy) if abs(uy) > 1e-9 else 1e9
    return min(across, along)


def _text(style: str, x: float, y: float, lines: Sequence[str], height: int) -> str:
    """Write lines of text around a point."""
    top = y - height * (len(lines) - 1) / 2
    rows = "".join(
        f"<tspan x='{round(x)}' dy='{height if row else 0}'>{escape(line)}</tspan>"
        for row, line in enumerate(lines)
    )
    return f"<text class='{style} halo' x='{round(x)}' y='{round(top)}'>{rows}</text>"


def _shown(end: Interface) -> Iterable[str]:
    """Return the address to show at an end: IPv4 where there is one."""
    addresses = sorted(end.addresses, key=lambda address: address.version)
    return [str(address) for address in addresses[:1]]
