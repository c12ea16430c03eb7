"""Reports opened in chromium, offline: what is drawn, what a click and a key do, how it fits."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from netlab import notebook
from netlab.analysis import headers, journal
from netlab.analysis.frames import read
from netlab.analysis.layers import LINK_TYPES
from netlab.analysis.segments import Segment
from netlab.report import bundle, document, page
from tests.analysis import journals
from tests.analysis.encapsulations import LINKS, TEREDO, TUNNELS
from tests.browser import layout
from tests.browser.conftest import LABS, Watched, plotly
from tests.browser.traffic import bulk
from tests.capture import pcaps

pytestmark = pytest.mark.needs("chromium")


def report(lab: str, folder: Path, *, charts: bool = False) -> Path:
    """Write the report of a lab's own recording."""
    path = folder / f"{lab}.html"
    text = document.of_run(LABS / lab / "recording", plotly=plotly() if charts else None)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_click_on_a_segment_shows_its_headers(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("pmtu-black-hole", tmp_path))
    opened.locator("[data-index]").nth(1).click()
    inspector = opened.locator(".nl-inspector")
    assert "SYN-ACK seq=0 ack=1" in inspector.locator("h4").inner_text()
    names = inspector.locator(".nl-header > summary").all_inner_texts()
    assert [name.split()[0] for name in names[:3]] == ["Ethernet", "IPv4", "TCP"]
    assert "TCP checksum is right" in inspector.inner_text()
    watched.quiet()


def test_a_tunnel_is_shown_layer_by_layer(tmp_path: Path, watched: Watched) -> None:
    capture = tmp_path / "a.pcap"
    talk = pcaps.fast_retransmit(link=lambda p: pcaps.ether(TUNNELS["vxlan"](p)))
    capture.write_bytes(pcaps.pcap(talk))
    path = tmp_path / "a.html"
    path.write_text(document.of_captures({"a": capture}), encoding="utf-8")
    opened = watched.open(path)
    opened.locator("[data-index]").nth(3).click()
    inspector = opened.locator(".nl-inspector")
    assert "10.0.0.1:40000 sends 1000 octets" in inspector.inner_text()
    names = ["Ethernet", "IPv4", "UDP", "VXLAN", "Ethernet", "IPv4", "TCP"]
    summaries = inspector.locator(".nl-header:not(.nl-option) > summary")
    assert [text.split()[0] for text in summaries.all_inner_texts()] == names
    shown = inspector.locator(".nl-header:not(.nl-option)")
    assert shown.evaluate_all("all => all.map(e => e.open)") == [False] * 5 + [True] * 2
    boxes = inspector.locator(".nl-layer")
    assert [text.split()[0] for text in boxes.all_inner_texts()] == [*names, "data"]
    boxes.nth(3).click()
    assert "VXLAN, 8 octets. Tunnel" in inspector.locator(".nl-said").first.inner_text()
    assert "checksum of the IPv4 header at octet 14 is right" in inspector.inner_text()
    watched.quiet()


def test_a_verdict_leads_to_its_packets(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("handshake", tmp_path))
    opened.locator("#verdicts details").nth(2).locator("summary").click()
    row = opened.locator("tr", has_text="A SYN consumes one number").nth(2)
    way = row.get_by_role("link", name="show 2 packets")
    way.focus()
    opened.keyboard.press("Enter")
    opened.wait_for_selector(".nl-marks:not([hidden])")
    assert opened.locator("#pick").input_value() == "2"
    assert marked(opened) == ["1", "3"]
    assert opened.locator(".nl-selected").get_attribute("data-index") == "1"
    assert opened.locator(".nl-inspector h4").inner_text().startswith("2: SYN-ACK")
    assert opened.evaluate("document.activeElement.className") == "nl-scroll"
    box = opened.locator(".nl-selected").bounding_box()
    assert box is not None
    assert 0 < box["y"] < 900
    opened.get_by_role("button", name="the next marked packet").click()
    assert opened.locator(".nl-inspector h4").inner_text().startswith("4:")
    assert "2 of 2" in opened.locator(".nl-marks").inner_text()
    redrawn(opened)
    assert ", marked" in (opened.locator(".nl-selected").get_attribute("aria-label") or "")
    opened.get_by_label("which packets").select_option("marked")
    redrawn(opened)
    assert opened.locator(".nl-packet").count() == 2
    opened.get_by_role("button", name="unmark").click()
    assert marked(opened) == []
    assert opened.locator(".nl-packet").count() > 4
    opened.go_back()
    assert way.is_visible()
    watched.quiet()


def redrawn(opened: Page) -> None:
    """Wait until the ladder is drawn as it was last asked to be: it is with the next frame."""
    opened.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def marked(opened: Page) -> list[str]:
    """Return the numbers of the packets in view that are marked, counted from 0."""
    redrawn(opened)
    return opened.locator(".nl-marked").evaluate_all("all => all.map(e => e.dataset.index)")


@pytest.mark.parametrize(
    "watched", [{}, {"viewport": {"width": 400, "height": 800}}], indirect=True
)
def test_a_finding_leads_to_its_packets(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("pmtu-black-hole", tmp_path))
    # By key: the plots above come into view first and move it from under a pointer.
    opened.locator("#findings").get_by_role("link", name="show 3 packets").press("Enter")
    assert marked(opened) == ["18", "19", "20"]
    assert "1 of 3" in opened.locator(".nl-marks").inner_text()
    assert "It carries again" in opened.locator(".nl-inspector").inner_text()
    box = opened.locator(".nl-selected").bounding_box()
    assert box is not None
    assert 0 < box["y"] < 800
    rows = opened.locator("#findings tbody tr").all()
    assert [row.locator(".nl-way").count() for row in rows] == [1, 0, 1, 0]
    watched.quiet()


def test_keys_step_through_the_packets(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("pmtu-black-hole", tmp_path))
    assert opened.locator(".nl-inspector h4").inner_text().startswith("1:")
    opened.locator(".nl-scroll").focus()
    for _ in range(2):
        opened.keyboard.press("ArrowDown")
    assert opened.locator(".nl-inspector h4").inner_text().startswith("3:")
    active = opened.locator(".nl-scroll").get_attribute("aria-activedescendant")
    assert opened.locator(f"#{active}").get_attribute("aria-selected") == "true"
    opened.keyboard.press("End")
    last = opened.locator(".nl-inspector h4").inner_text()
    opened.get_by_role("button", name="the packet before").click()
    assert opened.locator(".nl-inspector h4").inner_text() != last
    watched.quiet()


def test_what_a_black_hole_swallows_is_seen_to_vanish(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("pmtu-black-hole", tmp_path))
    opened.get_by_label("variation").select_option("black-hole")
    opened.get_by_label("which packets").select_option("trouble")
    redrawn(opened)
    lost = opened.locator(".nl-lost")
    assert lost.count() > 5
    assert opened.locator(".nl-cross").count() == lost.count()
    lost.first.click()
    assert "never arrived" in opened.locator(".nl-inspector").inner_text()
    watched.quiet()


def test_two_variations_stand_side_by_side(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("pmtu-black-hole", tmp_path))
    opened.get_by_label("beside it").select_option("clamp")
    opened.wait_for_selector("#scene-2 .nl-view")
    boxes = [opened.locator(f"#scene-{n} .nl-ladder").bounding_box() for n in (1, 2)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    watched.quiet()


def test_time_to_scale_keeps_the_order_and_the_distances(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("pmtu-black-hole", tmp_path))
    opened.get_by_label("time to scale").check()
    redrawn(opened)
    tops: list[list[float]] = opened.evaluate(
        """() => [...document.querySelectorAll('.nl-packet')].map(g =>
             [parseFloat(g.querySelector('.nl-line').getAttribute('d').slice(1).split(' ')[1]),
              parseFloat(g.getAttribute('aria-label').split(', ')[1])])"""
    )
    heights, times = zip(*tops, strict=True)
    assert list(heights) == sorted(heights)
    scale = (heights[-1] - heights[0]) / (times[-1] - times[0])
    for y, at in tops:  # stamps in labels have a resolution of 1 µs, heights of 0.1 pixel
        assert y - heights[0] == pytest.approx((at - times[0]) * scale, abs=0.2 + 2e-6 * scale)
    watched.quiet()


def test_the_way_through_the_states_is_drawn_and_leads_to_packets(
    tmp_path: Path, watched: Watched
) -> None:
    opened = watched.open(report("teardown", tmp_path))
    client, server = opened.locator(".nl-machines figure").all()
    steps = [text.split(" ")[2] for text in client.locator("li").all_inner_texts()]
    assert steps == ["SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT"]
    assert client.locator(".nl-taken").count() == 5
    assert "LAST-ACK" in server.inner_text()
    client.get_by_role("button", name="SYN-SENT → ESTABLISHED").click()
    assert "SYN-ACK" in opened.locator(".nl-inspector h4").inner_text()
    assert opened.locator(".nl-illegal").count() == 0
    watched.quiet()


def test_a_refusal_is_told_and_leads_back_to_closed(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("resets", tmp_path))
    opened.get_by_role("button", name="the next packet").click()
    assert "refuses: no program listens" in opened.locator(".nl-inspector").inner_text()
    assert ends(opened) == ["client SYN-SENT → CLOSED", "server CLOSED"]
    client = opened.locator(".nl-machines figure").first
    assert client.locator(".nl-taken").count() == 2
    covered: list[bool] = client.locator(".nl-step circle").evaluate_all(
        """all => all.map(e => {
          const a = e.getBoundingClientRect();
          return [...document.querySelectorAll('.nl-node rect')].some(r => {
            const b = r.getBoundingClientRect();
            return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
          });
        })"""
    )
    assert covered == [False, False]
    watched.quiet()


def ends(opened: Page) -> list[str]:
    """Return what the inspector says of the states of both ends at the packet chosen."""
    return [text.replace("\n", " ") for text in opened.locator(".nl-ends div").all_inner_texts()]


def test_a_handshake_is_walked_through_step_by_step(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("eleven-states", tmp_path))
    steps = [ends(opened)]
    for _ in range(6):
        opened.get_by_role("button", name="the next packet").click()
        steps.append(ends(opened))
    assert steps == [
        ["client CLOSED → SYN-SENT", "server LISTEN → SYN-RECEIVED"],
        ["client SYN-SENT → ESTABLISHED", "server SYN-RECEIVED"],
        ["client ESTABLISHED", "server SYN-RECEIVED → ESTABLISHED"],
        ["client ESTABLISHED → FIN-WAIT-1", "server ESTABLISHED → CLOSE-WAIT"],
        ["client FIN-WAIT-1 → FIN-WAIT-2", "server CLOSE-WAIT"],
        ["client FIN-WAIT-2 → TIME-WAIT", "server CLOSE-WAIT → LAST-ACK"],
        ["client TIME-WAIT", "server LAST-ACK → CLOSED"],
    ]
    now = opened.locator(".nl-now").evaluate_all("all => all.map(e => e.dataset.state)")
    assert now == ["TIME-WAIT", "CLOSED"]
    watched.quiet()


def test_layers_and_states_say_what_they_are_when_chosen(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("eleven-states", tmp_path))
    opened.get_by_role("button", name="Ethernet, 14 octets").click()
    inspector = opened.locator(".nl-inspector")
    assert "Link layer" in inspector.inner_text()
    assert inspector.locator(".nl-header").first.get_attribute("open") is not None
    client = opened.locator(".nl-machines figure").first
    client.get_by_role("button", name="FIN-WAIT-2, was reached").focus()
    opened.keyboard.press("Enter")
    said = client.locator(".nl-said").inner_text()
    assert "It leads to TIME-WAIT" in said
    assert "client was in it for" in said
    watched.quiet()


def journalled(folder: Path) -> Path:
    """Return a run in which a wire keeps account of what was lost: kept recordings have none."""
    run = folder / "run"
    shutil.copytree(LABS / "eleven-states" / "recording", run)
    opened = notebook.open(run)
    assert isinstance(opened, notebook.Run)
    lost = [
        (passage.packet, passage.sights[-1].time_ns + 1000, journal.Verdict.EXACT)
        for passage in opened["simultaneous-open"].journeys().lost
        if isinstance(passage.packet, Segment)
    ]
    assert lost
    journals.write(run / "simultaneous-open" / "wire" / "middle.journal", "middle", lost)
    page = folder / "run.html"
    page.write_text(document.of_run(run, plotly=plotly()), encoding="utf-8")
    return page


def test_a_wire_tells_why_a_packet_was_lost_and_when(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(journalled(tmp_path))
    opened.get_by_label("variation").select_option("simultaneous-open")
    opened.locator(".nl-lost").first.click()
    why = "dropped by a rule for this very packet on middle"
    assert why in opened.locator(".nl-sights").inner_text()
    opened.locator(".nl-plots").first.scroll_into_view_if_needed()
    wires = opened.get_by_role("img", name="Packets inside the links")
    wires.wait_for(timeout=60_000)
    assert "dropped: exact" in (wires.get_attribute("aria-label") or "")
    watched.quiet()


def test_plots_are_drawn_when_they_come_into_view(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("path-mtu", tmp_path, charts=True))
    opened.locator(".nl-plots").first.scroll_into_view_if_needed()
    opened.wait_for_selector(".nl-plot .main-svg", timeout=60_000)
    captions = opened.locator(".nl-plots figcaption b").all_inner_texts()
    assert "Sequence numbers over time" in captions
    assert "Round trip times" in captions
    ranges = "all => all.map(e => e.layout.xaxis.range.map(x => x.toFixed(9)).join())"
    plots = opened.locator(".nl-plot")
    assert len(set(plots.evaluate_all(ranges))) == 1
    plots.first.evaluate("e => Plotly.relayout(e, {'xaxis.range': [0.001, 0.002]})")
    wanted = "0.001000000,0.002000000"
    every = f"() => ({ranges})([...document.querySelectorAll('.nl-plot')])"
    opened.wait_for_function(f"{every}.every(range => range === '{wanted}')", timeout=60_000)
    assert set(plots.evaluate_all(ranges)) == {wanted}
    names = plots.evaluate_all("all => all.map(e => e.getAttribute('aria-label')).join()")
    assert "undefined" not in names
    watched.quiet()


def test_plots_that_nobody_scrolled_to_are_on_paper(tmp_path: Path, watched: Watched) -> None:
    opened = watched.open(report("path-mtu", tmp_path, charts=True))
    assert opened.locator(".nl-plot").count() == 0
    opened.evaluate(
        """addEventListener("beforeprint", () => {
          window.printed = [...document.querySelectorAll(".nl-onpaper figure")].map(figure => [
            figure.querySelector("b").textContent, figure.querySelectorAll(".nl-keys span").length,
            [...figure.querySelectorAll(".nl-paper path")]
              .filter(p => p.getTotalLength() > 1).length,
          ]);
        })"""
    )
    opened.pdf(format="A4")
    printed: list[tuple[str, int, int]] = opened.evaluate("window.printed")
    assert [title for title, *_ in printed] == [
        "Sequence numbers over time",
        "Windows and what is in flight",
        "Round trip times",
        "Throughput and goodput",
    ]
    assert all(keys == lines > 0 for _, keys, lines in printed)
    assert opened.locator(".nl-onpaper figure").count() == 0  # and nothing of it stays
    opened.emulate_media(color_scheme="dark")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.emulate_media(media="print")
    first = opened.locator(".nl-paper").first
    box = first.bounding_box()
    assert box is not None
    assert box["width"] > 600
    outside: list[str] = first.evaluate(
        """e => [...e.querySelectorAll("text, path")].filter(one => {
          const [a, b] = [one.getBoundingClientRect(), e.getBoundingClientRect()];
          return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
        }).map(one => one.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    assert layout.unreadable(opened) == []
    watched.quiet()


def test_a_hundred_thousand_packets_stay_quick(
    tmp_path: Path, watched: Watched, record_property: Any
) -> None:
    capture = bulk(tmp_path / "bulk.pcap", 100_000)
    path = tmp_path / "bulk.html"
    path.write_text(document.of_captures({"a": capture}), encoding="utf-8")
    assert path.stat().st_size < 12_000_000
    opened = watched.open(path)
    paint = opened.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    ready = opened.evaluate("performance.now()")
    record_property("first_paint_ms", paint)
    drawn = opened.locator(".nl-packet").count()
    assert 5 < drawn < 200  # only what is in view
    longest: float = opened.evaluate(
        """async () => {
          const view = document.querySelector('.nl-scroll');
          let longest = 0, last = performance.now();
          for (let i = 1; i <= 60; i++) {
            view.scrollTop = (view.scrollHeight * i) / 61;
            await new Promise(requestAnimationFrame);
            const now = performance.now();
            longest = Math.max(longest, now - last);
            last = now;
          }
          return longest;
        }"""
    )
    record_property("longest_frame_ms", longest)
    print(f"first paint {paint:.0f} ms, ready {ready:.0f} ms, longest frame {longest:.0f} ms")
    opened.locator("#findings").get_by_role("link", name="show 1,332 packets").first.click()
    assert marked(opened)[0] == "100"  # the first of the fiftieths that is no ACK
    assert opened.locator(".nl-selected").get_attribute("data-index") == "100"
    opened.locator(".nl-scroll").press("End")
    opened.get_by_role("button", name="the marked packet before").click()
    assert "1,332 of 1,332" in opened.locator(".nl-marks").inner_text()
    last = marked(opened)
    assert opened.locator(".nl-selected").get_attribute("data-index") in last
    assert opened.locator(".nl-packet").count() < 200
    opened.get_by_label("time to scale").check()
    opened.wait_for_selector(".nl-bar")
    assert opened.locator(".nl-mark").count() > 10
    opened.locator(".nl-picture").click(position={"x": 300, "y": 200})
    assert opened.locator(".nl-inspector h4").count() == 1
    watched.quiet()


def test_plots_of_many_packets_are_thinned_until_one_comes_near(
    tmp_path: Path, watched: Watched
) -> None:
    path = tmp_path / "bulk.html"
    capture = bulk(tmp_path / "bulk.pcap", 30_000)
    path.write_text(document.of_captures({"a": capture}, plotly=plotly()), encoding="utf-8")
    opened = watched.open(path)
    opened.locator(".nl-plots").scroll_into_view_if_needed()
    opened.wait_for_selector(".nl-plot >> nth=2", timeout=60_000)
    first = opened.locator(".nl-plot").first
    counted = "e => [e.full[0].y.length, e.data[0].y.length, Math.max(...e.data[0].y)]"
    full, drawn, most = first.evaluate(counted)
    assert full > 50_000
    assert drawn <= 3_000
    assert most == first.evaluate("e => e.full[0].y.reduce((a, b) => Math.max(a, b))")
    near = "e => Plotly.relayout(e, {'xaxis.range': [1, 1.01]}).then(() => 0)"
    first.evaluate(near)
    exact = """e => {
      const within = e.full[0].x.filter(x => x !== null && x >= 1 && x <= 1.01).length;
      return [within, e.data[0].x.filter(x => x !== null && x >= 1 && x <= 1.01).length];
    }"""
    all_of_it = f"e => {{ const [all, drawn] = ({exact})(e); return all === drawn; }}"
    opened.wait_for_function(all_of_it, arg=first.element_handle(), timeout=60_000)
    within, shown = first.evaluate(exact)
    assert within == shown > 100
    watched.quiet()


def encapsulated() -> Iterator[tuple[bytes, str]]:
    """Yield a packet over every link, and in every tunnel, with the layer that it begins with."""
    ways = [
        *(LINKS[name] for name in LINKS),
        *((101, wrap) for wrap in (*TUNNELS.values(), *TEREDO.values())),
    ]
    for version in (4, 6):
        for number, wrap in ways:
            if version == 6 or wrap not in TEREDO.values():
                packet = pcaps.fast_retransmit(link=wrap, version=version)[3]
                yield packet.data[:200], LINK_TYPES[number]


def test_the_page_decodes_headers_as_the_library_does(watched: Watched, tmp_path: Path) -> None:
    frames = [
        (frame.data[:160], frame.link)
        for capture in sorted(LABS.glob("*/recording/*/captures/*.pcap"))
        for frame in read(capture, count=12)
    ]
    frames += [(data, link) for data, link in encapsulated()]
    draw = random.Random(7)
    for data, link in draw.sample(frames, min(len(frames), 500)):  # and damaged in every way
        broken = bytearray(data[: draw.randrange(len(data) + 1)])
        for _ in range(draw.randrange(4)):
            if broken:
                broken[draw.randrange(len(broken))] = draw.randrange(256)
        frames.append((bytes(broken), link))
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><title>x</title><html data-ready=yes>", encoding="utf-8")
    opened = watched.open(empty)
    found: list[Any] = opened.evaluate(
        """async ([code, layouts, packets]) => {
          const url = URL.createObjectURL(new Blob([code], {type: 'text/javascript'}));
          const {decode} = await import(url);
          return packets.map(([hex, link]) => {
            const octets = Uint8Array.from(hex.match(/../g) ?? [], h => parseInt(h, 16));
            const {headers, odd, cut} = decode(octets, link, layouts);
            return [headers.map(h => [h.name, h.octet, h.length, h.source, h.inside,
              h.fields.map(f => [f.name, f.bit, f.bits, f.text, f.octet])]), odd, cut];
          });
        }""",
        [
            bundle.script("packet.js", ending="\nexport { decode };\n"),
            page.shared()["layouts"],
            [[data.hex(), link] for data, link in frames],
        ],
    )
    for (data, link), seen in zip(frames, found, strict=True):
        packet = headers.decode(data, link=link)
        expected = [
            [
                [
                    h.name, h.octet, h.length, h.source, h.inside,
                    [[f.name, f.bit, f.bits, f.text, f.octet] for f in h.fields],
                ]
                for h in packet.headers
            ],
            list(packet.odd),
            packet.cut,
        ]  # fmt: skip
        assert seen == expected, (data.hex(), link)
    print(f"{len(frames)} packets decoded alike")
