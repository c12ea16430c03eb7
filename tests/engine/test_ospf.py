"""Routers that find their routes by themselves, and another way when a link is cut."""

from __future__ import annotations

import re

import pytest

from netlab.engine import probe
from netlab.engine.node import RunningNode
from netlab.engine.stage import open_stage
from netlab.errors import CapabilityError
from netlab.model.yaml import load
from tests.conftest import ROOT
from tests.engine.conftest import Notebook

live = pytest.mark.needs("netns", "userns")
EXAMPLE = ROOT / "topologies" / "ospf.yaml"


def routers_between(source: RunningNode, target: str, version: str) -> int | None:
    """Return how many routers a reply has passed, None where there is none."""
    argv = ["ping", version, "-c1", "-W2", target]
    found = re.search(r"ttl=(\d+)", source.run(argv, check=False).stdout)
    return None if found is None else 64 - int(found[1])


@live
@pytest.mark.needs("bird", "ping")
def test_routes_come_from_ospf_and_go_another_way_when_a_link_is_cut(notebook: Notebook) -> None:
    with open_stage(load(EXAMPLE), notebook, rootless=True) as stage:
        west, h1 = stage.node("west"), stage.node("h1")
        for version in ("-4", "-6"):
            routes = west.run(["ip", "-o", version, "route"]).stdout.splitlines()
            beyond = [route for route in routes if " via " in route or "nexthop" in route]
            assert len(beyond) == 4
            assert all("proto bird" in route for route in beyond)
            assert routers_between(h1, "h2", version) == 3
        west.run(["ip", "link", "set", "eth1", "down"])

        def there() -> bool:
            return [routers_between(h1, "h2", version) for version in ("-4", "-6")] == [4, 4]

        # A router may tell of a change five seconds after the last one (MinLSInterval, RFC 2328
        # appendix B), the tables are made anew each second, and the pings take two.
        stage.until(there, timeout=60, what="the other way")


@live
def test_without_bird_the_lab_is_refused_before_anything_is_built(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_operation: int) -> None:
        pytest.fail("something was built")

    monkeypatch.setitem(probe.TOOLS, "bird-of-paradise", (("bird-of-paradise",), "paradise"))
    text = EXAMPLE.read_text() + (
        "processes: { p: { node: h1, command: [id], needs: [bird-of-paradise] } }\n"
    )
    path = notebook.file("needs.yaml")
    path.write_text(text.replace("nodes: { routing: ospf }", "nodes: {}"))
    with (
        pytest.raises(
            CapabilityError, match=r"'p' needs 'bird-of-paradise'.*not installed"
        ) as told,
        open_stage(load(path), notebook, rootless=True, step=never),
    ):
        pytest.fail("it was built")
    assert told.value.hint == "`sudo apt-get install paradise`"
