from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from netlab.model.graph import dot, layout, mermaid, svg
from netlab.model.yaml import load, loads
from tests.model.networks import texts

TOPOLOGIES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("draw", [mermaid, dot, svg], ids=["mermaid", "dot", "svg"])
def test_every_example_is_drawn_as_before(path: Path, draw, golden) -> None:
    suffix = {mermaid: ".mmd", dot: ".dot", svg: ".svg"}[draw]
    golden(Path(__file__).parent / "graphs" / f"{path.stem}{suffix}", draw(load(path)))


@given(texts(connected=False))
@settings(max_examples=25)
def test_nodes_do_not_cover_each_other_and_every_link_is_drawn(text: str) -> None:
    topology = loads(text)
    points = layout(topology)
    assert len(points) == len(topology.nodes)
    spots = list(points.values())
    for i, (x, y) in enumerate(spots):
        assert x >= 0
        assert y >= 0
        for x2, y2 in spots[:i]:
            assert abs(x - x2) > 40 or abs(y - y2) > 36, text
    picture = ET.fromstring(svg(topology))
    ns = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{ns}path")) == len(topology.links)
    assert svg(topology) == svg(topology)


def test_a_chain_is_straight() -> None:
    points = layout(loads("nodes: [a, b, c, d]\nlinks: [a-b, b-c, c-d]\n"))
    assert {y for _, y in points.values()} == {0}
    xs = [points[name][0] for name in "abcd"]
    assert xs == sorted(xs)


def test_an_empty_network_is_an_empty_picture() -> None:
    ET.fromstring(svg(loads("nodes: []\n")))


def test_a_large_network_is_drawn_in_rings() -> None:
    links = ", ".join(f"n{(i - 1) // 3}-n{i}" for i in range(1, 400))
    names = ", ".join(f"n{i}" for i in range(400))
    points = layout(loads(f"nodes: [{names}]\nlinks: [{links}]\n"))
    assert len(set(points.values())) == 400


def test_names_are_escaped() -> None:
    topology = loads("nodes: [a, b]\nlinks: [a-b]\n")
    assert "\\n" in dot(topology)
    assert "<script" not in svg(topology)
