"""Reports laid out as expected: two widths, two themes, any font; planted faults are found.

`--update-golden` rewrites the expectations in `layout/` beside this file.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from netlab.report import document
from tests.browser import layout
from tests.browser.conftest import LABS, Watched, plotly

pytestmark = pytest.mark.needs("chromium")

KEPT = Path(__file__).parent / "layout"
SIZES = {
    1280: {"viewport": {"width": 1280, "height": 900}},
    400: {"viewport": {"width": 400, "height": 800}},
}
CHARTED = ("pmtu-black-hole",)
BOTH = pytest.mark.parametrize("watched", SIZES.values(), indirect=True, ids=map(str, SIZES))


def made(view: str, folder: Path) -> Path:
    """Write a page: the report of a lab's recording with its charts, or of captures alone."""
    path = folder / "page.html"
    if view == "captures":
        capture = LABS / "resets/recording/filters/captures/client.eth0.pcap.gz"
        text = document.of_captures({"client": capture})
    else:
        text = document.of_run(
            LABS / view / "recording", plotly=plotly() if view in CHARTED else None
        )
    path.write_text(text, encoding="utf-8")
    return path


def shown(view: str, folder: Path, watched: Watched) -> Page:
    """Open a page with its second packet chosen and its charts, if it has any, drawn."""
    page = watched.open(made(view, folder))
    page.locator("[data-index]").nth(1).click()
    if view in CHARTED:
        page.locator(".nl-plots").scroll_into_view_if_needed()
        page.wait_for_selector(".nl-plot .main-svg >> nth=3", timeout=60_000)
    return page


def width(page: Page) -> int:
    """Return the width of the window."""
    size = page.viewport_size
    assert size is not None
    return size["width"]


def expected(view: str, page: Page) -> list[layout.Box]:
    """Return what is kept of a page at this width."""
    return layout.parse((KEPT / f"{view}-{width(page)}.txt").read_text(encoding="utf-8"))


@BOTH
@pytest.mark.parametrize("view", ["handshake", "pmtu-black-hole", "captures"])
def test_a_report_is_laid_out_as_expected_in_both_themes(
    view: str, tmp_path: Path, watched: Watched, request: pytest.FixtureRequest
) -> None:
    page = shown(view, tmp_path, watched)
    light = layout.measure(page)
    if request.config.getoption("--update-golden"):
        KEPT.mkdir(exist_ok=True)
        (KEPT / f"{view}-{width(page)}.txt").write_text(layout.table(light), encoding="utf-8")
    assert layout.differences(expected(view, page), light) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert layout.differences(light, layout.measure(page), text=False) == []
        assert layout.unreadable(page) == []
        assert layout.contrast(page) >= 7
    watched.quiet()


def picture(page: Page) -> bytes:
    """Return a picture of the whole page, scrolled to its top, with nothing pointed at."""
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.mouse.move(0, 0)
    return page.screenshot(full_page=True)


def test_the_button_gives_the_same_picture_as_a_dark_screen(
    tmp_path: Path, watched: Watched
) -> None:
    page = shown("handshake", tmp_path, watched)
    light = picture(page)
    page.emulate_media(color_scheme="dark")
    dark = picture(page)
    assert dark != light
    page.get_by_role("button", name="light / dark").click()
    assert picture(page) == light
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="light / dark").click()
    assert picture(page) == dark
    watched.quiet()


@BOTH
def test_other_fonts_are_within_the_tolerances(tmp_path: Path, watched: Watched) -> None:
    page = shown("handshake", tmp_path, watched)
    words = page.locator(".nl-nav a").first
    widths = {words.evaluate("e => e.getBoundingClientRect().width")}
    for family in ("serif", "monospace"):
        page.add_style_tag(content=f".nl, .nl * {{ font-family: {family} !important }}")
        widths.add(words.evaluate("e => e.getBoundingClientRect().width"))
        assert layout.differences(expected("handshake", page), layout.measure(page)) == []
    assert len(widths) == 3, "the machine has one font only"


@pytest.mark.parametrize("watched", [SIZES[1280]], indirect=True, ids=["1280"])
def test_on_paper_a_dark_page_is_light_and_nothing_is_cut_off(
    tmp_path: Path, watched: Watched
) -> None:
    page = shown("handshake", tmp_path, watched)
    page.get_by_role("button", name="light / dark").click()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert layout.unreadable(page) == []
    boxes = {box.kind: box for box in layout.measure(page)}
    assert boxes["ladder"].width == pytest.approx(boxes["inspector"].width, abs=layout.EXACT)
    paper = page.pdf(format="A4")  # narrower than the window
    assert 4 <= paper.count(b"/Type /Page\n") <= 8


PLANTED = {
    "a panel is cut off": (
        "#settings { height: 120px; overflow: hidden }",
        ("section settings: height is 120 px", "cut off: topology"),
    ),
    "a panel is squeezed": (
        ".nl-two { grid-template-columns: minmax(0, 1fr) 200px }",
        ("inspector 1: width is 200 px", "ladder 1: width is"),
    ),
    "the ladder has no height": (
        ".nl-scroll { max-height: 90px }",
        ("packets 1: height is 90 px, expected 296 ± 3",),
    ),
    "a part is gone": (".nl-stack { display: none }", ("layers 1 is missing",)),
    "a label lies over another": (
        ".nl-packet:nth-of-type(3) .nl-label { transform: translateY(-34px) }",
        ("one over the other: SYN-ACK seq=0",),
    ),
    "text has the colour of its ground": (
        ".nl { --soft: var(--paper) }",
        ("box): Choose a layer.", "box): seen at"),
    ),
    "text is too faint": (
        "#settings td { opacity: 0.35 }",
        ("box): impairments by", "box): fidelity"),
    ),
    "something lies over text": (
        "#again { position: relative } #again::after"
        " { content: ''; position: absolute; inset: 40px 0 60px; background: #888 }",
        ("box): netlab lab run handshake",),
    ),
}  # fmt: skip
"""What is done to a page, and how what is found of it begins or ends."""


@pytest.mark.parametrize("watched", [SIZES[1280]], indirect=True, ids=["1280"])
def test_planted_faults_are_found(tmp_path: Path, watched: Watched) -> None:
    page = shown("handshake", tmp_path, watched)
    kept = expected("handshake", page)
    for number, (fault, (style, words)) in enumerate(PLANTED.items()):
        page.emulate_media(color_scheme="dark" if number % 2 else "light")
        planted = page.add_style_tag(content=style)
        said = layout.differences(kept, layout.measure(page)) + layout.unreadable(page)
        planted.evaluate("e => e.remove()")
        for word in words:
            assert any(word in one for one in said), (fault, word, said)
    assert layout.differences(kept, layout.measure(page)) == []
    assert layout.unreadable(page) == []


@pytest.mark.parametrize("watched", [SIZES[1280]], indirect=True, ids=["1280"])
def test_a_fault_of_one_theme_is_found_there_alone(tmp_path: Path, watched: Watched) -> None:
    page = shown("handshake", tmp_path, watched)
    page.add_style_tag(
        content="@media (prefers-color-scheme: dark) { .nl-label { fill: #1a202c } }"
    )
    assert layout.unreadable(page) == []
    page.emulate_media(color_scheme="dark")
    assert any("box): ACK seq=1" in one for one in layout.unreadable(page))
