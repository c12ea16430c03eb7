"""A report as one HTML file that opens from the disk and asks nothing of any network.

What can be read is plain HTML; packets, states and plots are drawn by the script (see `assets`)
from data that travel in the page, compressed. The charts library, if there is one, is in it once
and is unpacked when the first plot comes into view.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

from netlab import _core
from netlab.analysis import headers
from netlab.report import bundle
from netlab.report.scene import Scene

ANALYSIS_FLAGS = 16
"""How many columns after `analysis` in the table of segments name its bits."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; `body` is HTML. With `scene`, shown only while that scene is."""

    anchor: str
    heading: str
    body: str
    scene: int | None = None


def render(
    title: str,
    sections: Sequence[Section],
    scenes: Sequence[Scene],
    *,
    badge: str = "",
    plotly: str | None = None,
    after: Sequence[Section] = (),
) -> str:
    """Return the page: `sections`, then the packets of `scenes`, then the sections `after`.

    `badge` is HTML beside the title; `plotly` is the code of the charts library, or None.
    """
    heads = [(s.anchor, s.heading) for s in (*sections, *after) if s.scene in (None, 0)]
    place = len([s for s in sections if s.scene in (None, 0)])
    if scenes:
        heads.insert(place, ("packets", "Packets"))
    seen: dict[str, str] = {}
    for anchor, heading in heads:
        seen.setdefault(anchor, heading)
    nav = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading in seen.items())
    body = "".join(map(_section, sections))
    if scenes:
        body += _packets(scenes)
    body += "".join(map(_section, after))
    data = "".join(_data(number, scene) for number, scene in enumerate(scenes))
    charts = f'<script type="text/plain" id="plotly">{_packed(plotly)}</script>' if plotly else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>{bundle.style()}</style></head>\n"
        '<body class="nl"><a class="nl-skip-link" href="#main">to the contents</a>'
        '<div class="nl-page"><header class="nl-top">'
        f'<h1>{escape(title)}</h1>{badge}<button type="button" id="theme">light / dark</button>'
        f'</header>\n<nav class="nl-nav" aria-label="parts of the report">{nav}</nav>\n'
        f'<main id="main">{body}</main></div>\n'
        f'<script type="application/json" id="shared">{_shared()}</script>\n{data}{charts}\n'
        f'<script type="module">{bundle.script("page.js")}</script></body></html>\n'
    )


def _section(section: Section) -> str:
    if section.scene is None:
        return (
            f'<section id="{section.anchor}"><h2>{escape(section.heading)}</h2>'
            f"{section.body}</section>\n"
        )
    anchor = f' id="{section.anchor}"' if section.scene == 0 else ""
    hidden = "" if section.scene == 0 else " hidden"
    return (
        f'<section{anchor} data-of="{section.scene}"{hidden}><h2>{escape(section.heading)}</h2>'
        f"{section.body}</section>\n"
    )


def _packets(scenes: Sequence[Scene]) -> str:
    choice = ""
    if len(scenes) > 1:
        options = "".join(
            f'<option value="{number}">{escape(scene.name)}</option>'
            for number, scene in enumerate(scenes)
        )
        choice = (
            '<div class="nl-pick"><label>variation <select id="pick">'
            f"{options}</select></label>"
            '<label>beside it <select id="beside"><option value="">nothing</option>'
            f"{options}</select></label></div>"
        )
    left = sum(scene.data["left_out"] for scene in scenes)
    note = f'<p class="nl-hint">{left:,} packets are left out of this view.</p>' if left else ""
    return (
        f'<section id="packets"><h2>Packets</h2>{choice}{note}'
        "<noscript><p>The packets are drawn by a script, which this browser does not run.</p>"
        '</noscript><div><div id="scene-1"></div><div id="scene-2" hidden></div></div></section>\n'
    )


def _data(number: int, scene: Scene) -> str:
    text = json.dumps(scene.data, separators=(",", ":"), ensure_ascii=False)
    return (
        f'<script type="text/plain" id="data-{number}">{_packed(text)}</script>\n'
        f'<script type="text/plain" id="octets-{number}">{_packed(scene.octets)}</script>\n'
    )


def _packed(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def shared() -> Mapping[str, object]:
    """Return what all scenes have in common: layouts of headers, names of analysis flags."""
    columns = [name for table, name, *_ in _core.schema() if table == "segments"]
    first = columns.index("analysis") + 1
    return {"layouts": headers.layouts(), "analysis": columns[first : first + ANALYSIS_FLAGS]}


@cache
def _shared() -> str:
    return json.dumps(shared(), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


# -- pieces of HTML ---------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, kind: str = "") -> str:
    """Return a table; numbers stand at the right, `Html` goes in as it is."""
    names = "".join(
        f'<th scope="col"{_NUMBER if _numeric(rows, at) else ""}>{escape(name)}</th>'
        for at, name in enumerate(head)
    )
    body = "".join(
        "<tr>" + "".join(_cell(value, head[at]) for at, value in enumerate(row)) + "</tr>"
        for row in rows
    )
    mark = f' class="{kind}"' if kind else ""
    return (
        f'<div class="nl-wide"><table{mark}><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


_NUMBER = ' class="nl-number"'


def _numeric(rows: Sequence[Sequence[object]], column: int) -> bool:
    """Tell whether a column has numbers and nothing else, but for gaps."""
    found = {type(row[column]) for row in rows} - {type(None)}
    return bool(found) and found <= {int, float}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _cell(value: object, name: str) -> str:
    data = f' data-name="{escape(name)}"'
    if isinstance(value, Html):
        return f"<td{data}>{value}</td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td{data}>{'' if value is None else escape(str(value))}</td>"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
    if "e" in shown:  # no exponents: all the digits of what is large, few of what is small
        shown = f"{value:,.0f}" if abs(value) >= 1 else f"{value:.9f}".rstrip("0")
    return f"<td{_NUMBER}{data}>{shown}</td>"


def details(summary: str, body: str, *, opened: bool = False) -> str:
    """Return something that folds away."""
    mark = " open" if opened else ""
    return f"<details{mark}><summary>{escape(summary)}</summary>{body}</details>"


def badge(word: str, kind: str) -> Html:
    """Return a word in a frame, coloured by `kind`."""
    return Html(f'<span class="nl-badge nl-{escape(kind)}">{escape(word)}</span>')
