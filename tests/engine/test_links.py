"""Links go down and come up: afterwards everything is as before."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from netlab.engine import lifecycle, links, state
from netlab.engine.change import difference, running, set_links
from netlab.engine.stage import open_stage
from netlab.engine.state import Lab
from netlab.errors import UsageError
from netlab.model.yaml import loads
from tests.engine.conftest import Notebook
from tests.engine.kernel import nodes_of, settled_differences, state_of
from tests.engine.stream import numbered

pytestmark = pytest.mark.needs("netns", "userns", "ping", "nft", "ethtool")

TEXT = """
name: linked
nodes:
  h1: {congestion: reno}
  h2: {sysctls: {net.ipv4.conf.eth0.arp_ignore: 1}}
  h3: {routes: [{to: 203.0.113.0/24, via: r, metric: 7, initcwnd: 5}]}
  r: router
  s: switch
links:
  - {ends: [h1, r], prefix: [10.0.1.0/24, "fd00:1::/64"]}
  - {ends: [h2, r], delay: 1ms}
  - h3-r
  - {name: second, ends: [h3, s]}
  - {name: third, ends: [s, r]}
"""


@pytest.fixture(autouse=True)
def no_lab_stays() -> Generator[None]:
    yield
    for found in state.labs():
        lifecycle.down(found)


def put(lab: Lab, text: str, *, up: bool) -> None:
    before = running(lab)
    _, ends = links.choose(before, text)
    set_links(lab, before, links.with_ends(before, ends, up=up))


def test_down_and_up_is_as_before(tmp_path: Path, rootless: bool) -> None:
    topology = loads(TEXT)
    lab, _ = lifecycle.up(topology, rootless=rootless)
    before = state_of(lab, tmp_path)
    for text in ("h1-r", "h2-r", "r-h3", "second", "h1:eth0", "r:eth1", "s:eth1"):
        put(lab, text, up=False)
        one, ends = links.choose(running(lab), text)
        told = links.told(lab, running(lab), one)
        down = {end["interface"] for end in told["ends"] if not end["up"]}
        assert down == {str(end) for end in ends}
        assert not any(end["carrier"] for end in told["ends"] if not end["up"])
        put(lab, text, up=True)
    assert settled_differences(lambda: state_of(lab, tmp_path), before) == []
    assert not difference(lab, topology)
    _, again = lifecycle.up(topology)
    assert not again


def test_nothing_passes_a_link_that_is_down_and_others_lose_nothing(
    notebook: Notebook, rootless: bool
) -> None:
    topology = loads(TEXT)
    with open_stage(topology, notebook, rootless=rootless) as stage:
        h1, h3, r = (stage.node(name) for name in ("h1", "h3", "r"))
        with numbered(h3, r, topology.interface("r", "eth2").addresses[0].ip) as stream:
            for _ in range(3):
                stage.set_link("h1-r", up=False)
                assert h1.run(["ping", "-c1", "-W1", "h3"], check=False).status != 0
                stage.set_link("h1-r", up=True)
                assert " 1 received" in h1.run(["ping", "-c1", "-W5", "h3"]).stdout
                assert " 1 received" in h1.run(["ping", "-6", "-c1", "-W5", "h2"]).stdout
        assert stream.complete, f"{len(stream.arrived)} of {stream.sent}"
        kinds = [kind for kind, *_ in notebook.events if kind.startswith("link-")]
        assert kinds == ["link-down", "link-up"] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h1-x", "has no link or interface 'h1-x'; did you mean 'h1-r'"),
        ("h9:eth0", "has no link or interface 'h9:eth0'; did you mean"),
        ("", "has no link or interface ''; it has h1-r"),
    ],
)
def test_an_unknown_link_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        links.choose(loads(TEXT), text)


def test_two_links_between_the_same_nodes_need_their_names() -> None:
    text = "nodes: [a, b]\nlinks: [{name: one, ends: a-b}, {name: two, ends: b-a}]\n"
    with pytest.raises(UsageError, match="several links join a-b: one, two; say which one"):
        links.choose(loads(text), "a-b")
    assert links.choose(loads(text), "two")[0].name == "two"


def test_a_lab_with_a_link_down_reboots_with_it_down(tmp_path: Path) -> None:
    from netlab.engine.change import reboot

    lab, _ = lifecycle.up(loads(TEXT))
    put(lab, "h1-r", up=False)
    reboot(lab, "h1")
    with nodes_of(lab, tmp_path) as nodes:
        assert "state DOWN" in nodes["h1"].run(["ip", "link", "show", "eth0"]).stdout
    put(lab, "h1-r", up=True)
    with nodes_of(lab, tmp_path) as nodes:
        assert " 1 received" in nodes["h1"].run(["ping", "-c1", "-W5", "h2"]).stdout
