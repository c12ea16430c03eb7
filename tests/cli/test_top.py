"""`netlab top`: rates against known counts, the screen under a pilot, text and JSON for scripts."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from netlab.cli.dashboard import BLOCKS, Dashboard, Grid, Help, spark
from netlab.cli.panels import matches
from netlab.engine.overview import LinkRow, Look, NodeRow, Overview, View, Way
from tests.cli.person import Person
from tests.cli.test_lifecycle import make
from tests.conftest import ROOT

LAB = """
name: watched
nodes:
  h1:
  h2:
  left: router
  right: router
  h3:
links:
  - h1-left
  - h2-left
  - name: middle
    ends: left-right
    loss: 30%
    rate: 80mbit
    limit: 3000
    seed: 7
  - right-h3
"""
COUNT, SIZE = 2000, 1000
SEND = f"""
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({COUNT}):
    sock.sendto(bytes({SIZE}), (sys.argv[1], 9999))
    if number % 20 == 19:  # 20 Mbit/s: no queue on the way runs over
        time.sleep(0.008)
"""
OCTETS = 1_000_000
SINK = """
import socket
with socket.create_server(("", 7000)) as listener:
    sock, _ = listener.accept()
    while sock.recv(1 << 16):
        pass
"""
SOURCE = f"""
import fcntl, socket, struct, sys, time
with socket.create_connection((sys.argv[1], 7000)) as sock:
    sock.sendall(bytes({OCTETS}))
    while struct.unpack("i", fcntl.ioctl(sock, 0x5411, bytes(4)))[0]:  # SIOCOUTQ: not acknowledged
        time.sleep(0.01)
    print("acknowledged", flush=True)
    sys.stdin.read()
"""
# What interfaces say on their own in some seconds: neighbours and multicast groups.
CHATTER_PACKETS, CHATTER_OCTETS = 30, 3000


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    person = Person((sys.executable, "-W", "error"), uid=os.geteuid())
    try:
        (person.folder / "watched.yaml").write_text(LAB)
        person.ok("up", str(person.folder / "watched.yaml"), "--impair", "wire")
        monkeypatch.setenv("NETLAB_STATE_DIR", str(person.state))
        yield person
    finally:
        person.close()


def address(person: Person, node: str) -> str:
    (found,) = json.loads(person.ok("inspect", "--json"))["nodes"][node]["interfaces"]
    return found["addresses"][0].partition("/")[0]


live = pytest.mark.needs("netns", "userns")


def _arrived(look: Look) -> int:
    return look.interfaces["right", "eth0"].rx_packets


def _dropped(look: Look) -> int:
    return look.queues["middle", "forward"].dropped


@live
def test_rates_are_what_was_sent(mine: Person) -> None:
    """2000 datagrams of 1042 octets on Ethernet, and whatever the wire did not drop of them."""
    target = address(mine, "h3")
    # The routers come to know each other first: a request of ARP that the wire drops stops all.
    mine.ok("exec", "h1", "--", "ping", "-q", "-c", "1", "-i", "0.2", "-w", "60", target)
    with Overview(None) as overview:
        before = overview.look()
    with Overview(None) as overview:
        assert overview.view().span == 0
        mine.ok("exec", "h1", "--", "python3", "-c", SEND, target)
        seen = overview.view()
    links = {link.name: link for link in seen.links}
    assert list(links) == ["h1-left", "h2-left", "middle", "right-h3"]
    sent = links["h1-left"].forward
    packets, octets = sent.packets * seen.span, sent.rate * seen.span / 8
    assert COUNT <= round(packets) <= COUNT + CHATTER_PACKETS
    assert COUNT * (SIZE + 42) <= round(octets) <= COUNT * (SIZE + 42) + CHATTER_OCTETS
    nodes = {node.name: node for node in seen.nodes}
    assert list(nodes) == ["h1", "h2", "left", "right", "h3"]
    assert COUNT <= round(nodes["h1"].tx_packets * seen.span) <= COUNT + CHATTER_PACKETS
    assert round(links["h2-left"].forward.rate * seen.span / 8) <= CHATTER_OCTETS
    # Some may be on their way still: what is delivered and what is dropped add up in the end.
    with Overview(None) as overview:
        delivered = dropped = 0
        while delivered + dropped < COUNT:
            look = overview.look()
            delivered = _arrived(look) - _arrived(before)
            dropped = _dropped(look) - _dropped(before)
        way = {link.name: link for link in overview.view().links}["middle"].forward
    assert delivered + dropped <= COUNT + CHATTER_PACKETS
    assert way.dropped == dropped + _dropped(before)
    # Seeded loss of 30 %: 600 expected, standard deviation √(2000 · 0.3 · 0.7) = 20.5.
    assert 500 <= dropped <= 700
    assert way.limit == 80e6


@live
def test_a_connection_is_told_by_its_sender(mine: Person) -> None:
    target = address(mine, "h2")
    mine.ok("exec", "--detach", "--name", "sink", "h2", "--", "python3", "-c", SINK)
    with Overview(None) as overview:
        while overview.view().sockets.get("LISTEN", 0) == 0:
            pass
        process = subprocess.Popen(
            mine.argv("exec", "h1", "--", "python3", "-c", SOURCE, target),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mine.env, cwd=ROOT,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "acknowledged\n"
        seen = overview.view()
        process.communicate(timeout=120)
    (flow,) = seen.flows
    assert (flow.node, flow.peer, flow.state) == ("h1", "h2", "ESTAB")
    assert flow.remote == f"{target}:7000"
    # The kernel counts the SYN among the octets acknowledged.
    assert round(flow.rate * seen.span / 8) == OCTETS + 1
    assert flow.cwnd
    assert flow.rtt
    assert flow.congestion
    sockets = {node.name: dict(node.sockets) for node in seen.nodes if node.sockets}
    assert sockets == {"h1": {"ESTAB": 1}, "h2": {"ESTAB": 1, "LISTEN": 1}}
    assert seen.sockets == {"ESTAB": 2, "LISTEN": 1}


@live
def test_a_lab_that_changes_is_followed(mine: Person) -> None:
    with Overview(None) as overview:
        overview.view()
        mine.ok("link", "h1-left", "down")
        mine.ok("reboot", "h2")
        seen = overview.view()
        assert [link.name for link in seen.links if not link.up] == ["h1-left"]
        assert all(node.present and node.interfaces for node in seen.nodes)
        mine.ok("link", "h1-left", "up")
        assert all(link.up for link in overview.view().links)


def piloted(
    person: Person | None,
    play: Callable[[Dashboard, Pilot[str]], Coroutine[Any, Any, None]],
    source: Any = None,
) -> Dashboard:
    """Play with the screen of a lab, or of a source, at 80 x 24."""

    async def run(app: Dashboard) -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.views >= 1)
            await play(app, pilot)

    if person is None:
        app = Dashboard(source, period=0.1)
        asyncio.run(run(app))
        return app
    with Overview(None) as overview:
        app = Dashboard(overview, period=0.1)
        asyncio.run(run(app))
    return app


async def until(pilot: Pilot[str], condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        await pilot.pause(0.05)
    raise AssertionError("it did not happen within 30 s")


def text(grid: Grid) -> list[str]:
    return [grid.render_line(y).text.rstrip() for y in range(grid.scrollable_content_region.height)]


@live
@pytest.mark.needs("ping")
def test_the_screen_of_a_lab_with_traffic(mine: Person) -> None:
    ping = ("exec", "--detach", "h1", "--", "ping", "-q", "-i", "0.01", address(mine, "h2"))
    mine.ok(*ping)

    async def play(app: Dashboard, pilot: Pilot[str]) -> None:
        links, _, nodes = app.grids
        await until(pilot, lambda: links.rows[0].forward.packets > 50)
        first = text(links)
        assert first[0].startswith(" LINK▲") or first[0].startswith("LINK▲"), first
        assert [line.split()[0] for line in first[1:]] == [
            "h1-left",
            "h2-left",
            "middle",
            "right-h3",
        ]
        assert all(len(line) <= 80 for grid in app.grids for line in text(grid))
        # Sorted by the next column, the busy links come first.
        await pilot.press("s")
        busy = {"h1-left", "h2-left"}
        await until(pilot, lambda: {row.name for row in links.rows[:2]} == busy)
        await pilot.press("r")
        await until(pilot, lambda: {row.name for row in links.rows[2:]} == busy)
        # A filter while it is typed; Esc ends it.
        await pilot.press("slash", "h", "2")
        await until(pilot, lambda: [row.name for row in nodes.rows] == ["h2"])
        await until(pilot, lambda: [row.name for row in links.rows] == ["h2-left"])
        assert app.query_one("#filter").region.height == 1
        await pilot.press("escape")
        await until(pilot, lambda: len(nodes.rows) == 5)
        # One table alone, and back.
        await pilot.press("3")
        alone = [False, False, True]
        await until(pilot, lambda: [grid.region.height > 0 for grid in app.grids] == alone)
        await pilot.press("3")
        await until(pilot, lambda: all(grid.region.height > 0 for grid in app.grids))
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        await pilot.press("x")
        assert not isinstance(app.screen, Help)
        await pilot.press("q")

    assert piloted(mine, play).return_value is None


@live
def test_the_screen_ends_with_the_lab(mine: Person) -> None:
    async def play(app: Dashboard, pilot: Pilot[str]) -> None:
        await asyncio.to_thread(mine.ok, "down")
        await until(pilot, lambda: app.return_value is not None)

    app = piloted(mine, play)
    assert (app.return_value, app.return_code) == ("the lab watched has ended", 0)


@live
def test_json_ends_with_the_lab(mine: Person) -> None:
    with mine.start("top", "--json", "--every", "100ms") as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["lab"] == "watched"
        mine.ok("down")
        told, said = watching.communicate(timeout=30)
    assert (watching.returncode, said) == (0, "the lab watched has ended\n")
    assert all(json.loads(line)["lab"] == "watched" for line in told.splitlines())


@live
def test_text_and_json_for_scripts(mine: Person) -> None:
    lines = mine.ok("top", "--every", "100ms").splitlines()
    assert lines[0].startswith("watched: ")
    titles = ("LINK", "→ bit/s", "← bit/s", "pkt/s", "load", "queue", "drop/s", "drops")
    assert lines[2].split() == " ".join(titles).split()
    assert [line.split()[0] for line in lines[3:7]] == ["h1-left", "h2-left", "middle", "right-h3"]
    once = mine.ok("top", "--once", "--every", "100ms", "--node", "h3", "--sort", "pkt/s")
    assert "right-h3" in once
    assert "h1" not in once


@live
@pytest.mark.parametrize("kind", ["self", "ordinary"])
def test_json_goes_on_until_told(kind: str) -> None:
    person = make(kind)
    try:
        person.ok("up", "topologies/two-hosts.yaml")
        lines = person.ok("top", "--json", "--count", "2", "--every", "0.1s").splitlines()
    finally:
        person.close()
    told = [json.loads(line) for line in lines]
    assert [[node["name"] for node in view["nodes"]] for view in told] == [["client", "server"]] * 2
    assert all(node["present"] and node["interfaces"] == 1 for node in told[1]["nodes"])
    assert told[0]["at_ns"] < told[1]["at_ns"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--every", "1"), "error: --every: "),
        (("--every", "10ms"), "error: --every: 10ms is outside 100ms…60s"),
        (("--sort", "x"), "error: no column 'x'"),
        (("--count", "2"), "error: --count goes with --json"),
        (("--lab", "x"), "error: no lab called 'x' runs"),
    ],
)
def test_bad_words_are_one_sentence(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "netlab", "top", *words], capture_output=True, text=True,
        timeout=30, check=False, env={**os.environ, "NETLAB_STATE_DIR": str(tmp_path)}, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


def test_without_textual_it_says_what_to_do(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    code = "import sys; sys.modules['textual'] = None; sys.argv[1:] = ['top']"
    code += "; from netlab.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=slave, stderr=subprocess.PIPE, text=True,
        timeout=30, check=False, env={**os.environ, "NETLAB_STATE_DIR": str(tmp_path)}, cwd=ROOT,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    assert done.returncode == 4
    assert "error: netlab top needs Textual, which is not installed" in done.stderr
    assert "pip install 'netlab-tcpip[top]'" in done.stderr


class Invented:
    """A lab of very many nodes, whose rates grow."""

    def __init__(self, count: int) -> None:
        self.count, self.looks = count, 0

    def view(self) -> View:
        self.looks += 1
        nodes = tuple(
            NodeRow(f"n{i}", "host", True, 1, 8.0 * i * self.looks, 0, 0, 0, 0, 0, {})
            for i in range(self.count)
        )
        way = Way("n0:eth0", "n1:eth0", 5e6, 10, 0, 0, 0, 0, 5e6)
        link = LinkRow("a-link-whose-name-is-longer-than-any-screen-" + 40 * "x", True, way, way)
        return View("many", self.looks, 1.0, nodes, (link,), ())


def test_a_thousand_nodes_scroll_and_long_names_are_cut() -> None:
    async def play(app: Dashboard, pilot: Pilot[str]) -> None:
        links, _, nodes = app.grids
        assert "…" in text(links)[1]
        assert "100%" in text(links)[1]
        await pilot.press("3", "end")
        await until(pilot, lambda: text(nodes)[-1].split()[:1] == ["n999"])
        assert text(nodes)[0].split()[0] == "NODE▲"
        await pilot.press("s", "s", "home")
        await until(pilot, lambda: text(nodes)[1].split()[0] == "n999")
        await pilot.press("p")
        views = app.views
        await pilot.pause(0.5)
        assert app.views == views
        await pilot.press("p")
        await until(pilot, lambda: app.views > views)
        period = app.period
        await pilot.press("minus")
        assert app.period > period
        await pilot.press("q")

    piloted(None, play, Invented(1000))


def test_a_filter_is_a_part_of_a_name_or_a_pattern() -> None:
    names = ("h1", "h10", "left", "H2")
    assert [name for name in names if matches(name, "h1")] == ["h1", "h10"]
    assert [name for name in names if matches(name, "h?")] == ["h1", "H2"]
    assert [name for name in names if matches(name, "")] == list(names)


def test_history_is_drawn_from_nothing_to_the_most() -> None:
    assert spark([0, 1, 4, 8], 6, 8) == f"   {BLOCKS[1]}{BLOCKS[4]}{BLOCKS[7]}"
    assert spark([0.001], 1, 1e9) == BLOCKS[1]
    assert spark([], 3, 0) == "   "
