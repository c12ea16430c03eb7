"""Reports by keyboard and for screen readers: names, roles, the order of the tab key, layout."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from netlab.report import document
from tests.browser.conftest import LABS, Watched

pytestmark = pytest.mark.needs("chromium")

WORKED = {
    "button", "link", "combobox", "checkbox", "slider", "listbox", "option", "img", "region",
    "toolbar", "DisclosureTriangle",
}  # fmt: skip
"""Roles that mean nothing without a name."""


def opened(lab: str, folder: Path, watched: Watched) -> Page:
    """Open the report of a lab's own recording."""
    path = folder / f"{lab}.html"
    path.write_text(document.of_run(LABS / lab / "recording"), encoding="utf-8")
    return watched.open(path)


def tree(page: Page) -> list[tuple[str, str]]:
    """Return the accessibility tree as the browser gives it to screen readers: role and name."""
    nodes: list[dict[str, Any]] = page.context.new_cdp_session(page).send(
        "Accessibility.getFullAXTree"
    )["nodes"]
    return [
        (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")))
        for node in nodes
        if not node["ignored"] and "role" in node
    ]


@pytest.mark.parametrize("lab", ["eleven-states", "pmtu-black-hole", "close-wait-leak"])
def test_everything_that_can_be_worked_has_a_name(
    lab: str, tmp_path: Path, watched: Watched
) -> None:
    page = opened(lab, tmp_path, watched)
    for folded in page.locator("details:visible > summary").all()[:12]:
        folded.click()
    found = tree(page)
    nameless = [role for role, name in found if role in WORKED and not name.strip()]
    assert nameless == []
    levels: list[int] = page.locator("h1, h2, h3, h4").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    roles = {role for role, _ in found}
    assert {"main", "navigation", "heading", "columnheader", "combobox"} <= roles
    watched.quiet()


def test_the_tab_key_reaches_what_is_seen_from_top_to_bottom(
    tmp_path: Path, watched: Watched
) -> None:
    page = opened("eleven-states", tmp_path, watched)
    seen: list[str] = []
    tops: list[float] = []
    for _ in range(150):
        page.keyboard.press("Tab")
        told: tuple[str, float, float, str] | None = page.evaluate(
            """() => {
              const e = document.activeElement;
              if (e === document.body) return null;
              const box = e.getBoundingClientRect(), style = getComputedStyle(e);
              const inside = e.closest('.nl-inspector, .nl-two') ? -1 : box.top + scrollY;
              const rect = e.querySelector('rect');
              const ring = style.outlineStyle !== 'none'
                || (rect && getComputedStyle(rect).strokeWidth === '3px') ? 'ring' : '';
              const name = e.getAttribute('aria-label') ?? e.textContent.trim();
              return [name, inside, box.width, ring];
            }"""
        )
        if told is None:
            break
        name, top, width, ring = told
        seen.append(name)
        assert width > 0, name
        assert ring == "ring", f"nothing shows that {name} has the focus"
        if top >= 0:
            tops.append(top)
    for name in ("to the contents", "light / dark", "the next packet", "Ethernet, 14 octets"):
        assert name in seen
    assert "packets, in the order of time" in seen
    assert any(name.startswith("ESTABLISHED") for name in seen)
    drops = [(a, b) for a, b in pairwise(tops) if b < a - 900]
    assert drops == []  # never back up by more than a screen: two figures stand side by side
    watched.quiet()


CLIPPED = """() => {
  const found = [];
  const shown = e => e.checkVisibility() && e.getClientRects().length;
  const words = ['h1', 'h2', 'h3', 'h4', 'p', 'li', 'button', 'td', 'th',
    'dt', 'dd', 'summary', 'label'];
  for (const e of document.querySelectorAll(words.map(name => `.nl ${name}`).join())) {
    if (!shown(e) || e.closest('.nl-bits') || e.matches('.nl-skip-link, .nl-span')) continue;
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
      found.push(`clipped: ${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`);
  }
  const blocks = [...document.querySelectorAll('.nl-two > *, .nl-machines > *, .nl-ends > *, '
    + 'main > section, .nl-bar-top > *, .nl-stack > *')].filter(shown);
  for (let i = 0; i < blocks.length; i++) for (let j = i + 1; j < blocks.length; j++) {
    if (blocks[i].parentElement !== blocks[j].parentElement) continue;
    const [a, b] = [blocks[i].getBoundingClientRect(), blocks[j].getBoundingClientRect()];
    const beside = a.right <= b.left + 1 || b.right <= a.left + 1;
    if (!beside && a.bottom > b.top + 1 && b.bottom > a.top + 1)
      found.push(`overlap: ${blocks[i].className} and ${blocks[j].className}`);
  }
  for (const e of document.querySelectorAll('.nl-machine text, .nl-machine rect')) {
    const [a, b] = [e.getBoundingClientRect(), e.closest('svg').getBoundingClientRect()];
    if (a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1)
      found.push(`sticks out: ${e.textContent}`);
  }
  return found;
}"""


@pytest.mark.parametrize(
    "watched",
    [{"viewport": {"width": width, "height": 900}} for width in (1280, 768, 400)],
    indirect=True,
    ids=["1280", "768", "400"],
)
@pytest.mark.parametrize("lab", ["eleven-states", "pmtu-black-hole", "sack", "close-wait-leak"])
def test_nothing_is_clipped_or_covered_with_everything_unfolded(
    lab: str, tmp_path: Path, watched: Watched
) -> None:
    page = opened(lab, tmp_path, watched)
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert page.evaluate(CLIPPED) == []
    wide, shown = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= shown
    watched.quiet()
