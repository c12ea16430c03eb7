"""How a page is laid out, as data: where its parts stand, what its text covers, what can be read.

Fonts differ from machine to machine, so nothing here compares a picture with a kept one. What is
kept is where the parts of a page stand. Widths and left edges follow from the style sheet alone
and agree within `EXACT`. So do the heights of what has its size in pixels or from its width
(`SIZED`); where text decides a height, lines may wrap otherwise, and `LINES` is what that may
change.

What can be read is found within one run, by hiding all text and looking at which pixels change:
text that has the colour of its ground, lies behind something or is cut off changes none.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from playwright.sync_api import Page

EXACT = 3.0
"""Pixels; one would do, were it not for borders and roundings."""

LINES = (0.4, 60.0)
"""Share and pixels by which text may make a part higher or lower: two lines of 23 px, a margin,
and every third line wrapped otherwise."""

PARTS = {
    "title": "header.nl-top",
    "contents": "nav.nl-nav",
    "section": "main > section",
    "tools": ".nl-bar-top",
    "ladder": ".nl-ladder",
    "lanes": ".nl-lanes",
    "packets": ".nl-scroll",
    "inspector": ".nl-inspector",
    "layers": ".nl-stack",
    "bits": ".nl-header[open] > div > .nl-bits",
    "timeline": ".nl-timeline",
    "machine": "svg.nl-machine",
    "plot": ".nl-plot",
    "network": ".nl-network img",
}
SIZED = frozenset({"packets", "lanes", "machine", "plot", "network"})
CONTRAST = 3.0
"""WCAG 2.2 asks 4.5 of text; the strokes of small text are thinner than a pixel and mixed with
what is behind them, so their pixels have less."""
INK = 0.01
"""Share of the pixels of a text's box with that contrast; the thinnest text here has 0.04."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where a part stands, in pixels of the page."""

    name: str
    left: float
    width: float
    height: float

    @property
    def kind(self) -> str:
        """The part's name without its number."""
        return self.name.split()[0]


def measure(page: Page) -> list[Box]:
    """Return where the parts of a page stand, in their order in the document."""
    found: list[tuple[str, float, float, float]] = page.evaluate(
        """parts => Object.entries(parts).flatMap(([name, selector]) =>
          [...document.querySelectorAll(selector)].filter(e => e.checkVisibility())
            .map((e, at) => {
              const box = e.getBoundingClientRect();
              return [`${name} ${e.id || at + 1}`, box.left, box.width, box.height];
            }))""",
        PARTS,
    )
    return [Box(*one) for one in found]


def table(boxes: Iterable[Box]) -> str:
    """Return boxes as the lines that are kept: name, left, width, height."""
    return "".join(f"{b.name:24}{b.left:7.0f}{b.width:7.0f}{b.height:7.0f}\n" for b in boxes)


def parse(text: str) -> list[Box]:
    """Return the boxes of kept lines."""
    rows = (line.rsplit(maxsplit=3) for line in text.splitlines())
    return [Box(name.strip(), *map(float, numbers)) for name, *numbers in rows]


def differences(expected: Iterable[Box], found: Iterable[Box], *, text: bool = True) -> list[str]:
    """Say where parts stand otherwise than expected; without `text`, heights must agree too."""
    kept, seen = {b.name: b for b in expected}, {b.name: b for b in found}
    said = [f"{name} is missing" for name in kept if name not in seen]
    said += [f"{name} is new" for name in seen if name not in kept]
    for name, want in kept.items():
        got = seen.get(name)
        if got is None:
            continue
        share, pixels = (0.0, EXACT) if want.kind in SIZED or not text else LINES
        for what, a, b, most in (
            ("left edge", want.left, got.left, EXACT),
            ("width", want.width, got.width, EXACT),
            ("height", want.height, got.height, pixels + share * want.height),
        ):
            if abs(a - b) > most:
                said.append(f"{name}: {what} is {b:.0f} px, expected {a:.0f} ± {most:.0f}")
    return said


TEXTS = """() => {
  let nodes = 0;
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  // What becomes of a box beyond an edge of what it is in: an ellipsis says so, one can scroll
  // there, or it is cut off.
  const beyond = (e, box) => {
    let cut = null;
    for (; e && e !== document.body; e = e.parentElement) {
      const style = getComputedStyle(e), edge = e.getBoundingClientRect();
      if (style.display === 'inline') continue;
      const wide = box.left < edge.left - 1 || box.right > edge.right + 1;
      const high = box.top < edge.top - 1 || box.bottom > edge.bottom + 1;
      for (const [out, how] of [[wide, style.overflowX], [high, style.overflowY]]) {
        if (!out || how === 'visible') continue;
        if (how === 'auto' || how === 'scroll' || style.textOverflow === 'ellipsis') return 'told';
        cut = 'cut';
      }
    }
    return cut;
  };
  while (walk.nextNode()) {
    const node = walk.currentNode, e = node.parentElement, text = node.textContent.trim();
    if (!text || e.closest('script, style, noscript, .nl-skip-link, option, svg title')
      || !e.checkVisibility({ visibilityProperty: true })) continue;
    nodes++;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {  // one a line, and one of what an ellipsis left
      if (box.width < 2 || box.height < 2) continue;
      found.push({ text: text.slice(0, 40), node: nodes, cut: beyond(e, box),
        box: [box.left + scrollX, box.top + scrollY, box.right + scrollX, box.bottom + scrollY] });
    }
  }
  return found;
}"""

HIDE = """* { -webkit-text-fill-color: transparent !important; text-decoration: none !important }
  svg text { fill-opacity: 0 !important; stroke-opacity: 0 !important }
  summary::marker, li::marker { color: inherit }"""

COUNT = """async ([shots, boxes, contrast]) => {
  const pixels = [];
  for (const shot of shots) {
    const image = await createImageBitmap(await (await fetch(shot)).blob());
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext('2d').drawImage(image, 0, 0);
    pixels.push(canvas.getContext('2d').getImageData(0, 0, image.width, image.height));
  }
  const linear = [...Array(256).keys()].map(v => v / 255)
    .map(c => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  const light = (data, at) =>
    0.2126 * linear[data[at]] + 0.7152 * linear[data[at + 1]] + 0.0722 * linear[data[at + 2]];
  const [a, b] = pixels;
  return boxes.map(([left, top, right, bottom]) => {
    let [ink, all] = [0, 0];
    for (let y = Math.max(0, Math.floor(top)); y < Math.min(a.height, Math.ceil(bottom)); y++)
      for (let x = Math.max(0, Math.floor(left)); x < Math.min(a.width, Math.ceil(right)); x++) {
        const at = 4 * (y * a.width + x);
        const [one, other] = [light(a.data, at), light(b.data, at)];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio >= contrast) ink++;
        all++;
      }
    return all ? ink / all : 0;
  });
}"""

MEET = """texts => {
  const found = [];
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    if (texts[i].node === texts[j].node) continue;
    const [a, b] = [texts[i].box, texts[j].box];
    if (a[2] > b[0] + 1 && b[2] > a[0] + 1 && a[3] > b[1] + 3 && b[3] > a[1] + 3)
      found.push([i, j]);
  }
  return found;
}"""
"""Pairs of texts that cover each other, but for the room above and below the letters."""


def unreadable(page: Page) -> list[str]:
    """Say which text of a page is cut off, covers other text or cannot be told from its ground."""
    page.evaluate("scrollTo(0, 0)")  # what sticks to the top of the window covers nothing there
    texts = [one for one in page.evaluate(TEXTS) if one["cut"] != "told"]
    said = [f"cut off: {one['text']}" for one in texts if one["cut"] == "cut"]
    boxes = [one["box"] for one in texts]
    for i, j in page.evaluate(MEET, texts):
        said.append(f"one over the other: {texts[i]['text']} | {texts[j]['text']}")
    shots = [page.screenshot(full_page=True)]
    hidden = page.add_style_tag(content=HIDE)
    shots.append(page.screenshot(full_page=True))
    hidden.evaluate("e => e.remove()")
    urls = [f"data:image/png;base64,{base64.b64encode(shot).decode()}" for shot in shots]
    inks: list[float] = page.evaluate(COUNT, [urls, boxes, CONTRAST])
    for one, ink in zip(texts, inks, strict=True):
        if ink < INK and one["cut"] is None:
            said.append(f"cannot be seen ({ink:.1%} of its box): {one['text']}")
    return said


def contrast(page: Page) -> float:
    """Return the contrast ratio of WCAG 2.2 of a page's text and its ground."""

    def luminance(colour: str) -> float:
        parts = [int(p) / 255 for p in colour.partition("(")[2].rstrip(")").split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(c * w for c, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    colours: list[str] = page.evaluate(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    )
    light, dark = sorted(map(luminance, colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)
