"""A ladder as SVG: the same arrows as in the terminal, for documents and slides."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from netlab.analysis.segments import Segment
from netlab.report.ladder import label

ROW, TOP, GUTTER, WIDTH = 34, 48, 96, 860
_STYLE = (
    "text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#1a202c}"
    ".t{fill:#5a6473;font-size:11px}.h{font-weight:600}.l{stroke:#5a6473;stroke-width:1.5}"
    ".f{stroke:#2b6cb0;fill:#2b6cb0}.b{stroke:#9c4221;fill:#9c4221}.r{stroke-dasharray:7 4}"
)


def svg(
    segments: Iterable[Segment], *, names: tuple[str, str] | None = None, limit: int | None = None
) -> str:
    """Return the ladder of one connection as a self-contained SVG picture.

    The side that opened the connection stands on the left. Retransmissions are dashed and begin
    with an arrow that turns. Times are seconds after the first segment. `limit` ends after so many
    segments and says how many were left out.
    """
    rows = tuple(segments)
    shown = rows if limit is None else rows[:limit]
    left, right = names or _ends(rows)
    height = TOP + ROW * (len(shown) + (len(shown) < len(rows))) + 16
    x1, x2 = GUTTER, WIDTH - 40
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' "
        f"viewBox='0 0 {WIDTH} {height}' role='img'>",
        f"<title>{escape(f'{left} and {right}: {len(rows)} segments')}</title>",
        f"<style>{_STYLE}</style>",
        f"<rect width='{WIDTH}' height='{height}' fill='#fff'/>",
        f"<text class='h' x='{x1 - 60}' y='20'>{escape(left)}</text>",
        f"<text class='h' x='{x2 + 30}' y='20' text-anchor='end'>{escape(right)}</text>",
        f"<path class='l' d='M{x1} 28V{height - 8}M{x2} 28V{height - 8}'/>",
    ]
    for place, segment in enumerate(shown):
        parts.append(_arrow(segment, rows[0].time_ns, TOP + ROW * place, x1, x2))
    if len(shown) < len(rows):
        y = TOP + ROW * len(shown)
        parts.append(
            f"<text class='t' x='{(x1 + x2) / 2}' y='{y}' text-anchor='middle'>"
            f"{len(rows) - len(shown)} more segments are not shown</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ends(rows: tuple[Segment, ...]) -> tuple[str, str]:
    if not rows:
        return "", ""
    first = rows[0]
    there, back = f"{first.source}:{first.sport}", f"{first.destination}:{first.dport}"
    return (there, back) if first.forward else (back, there)


def _arrow(segment: Segment, start: int, y: int, x1: int, x2: int) -> str:
    kind = "f" if segment.forward else "b"
    again = " r" if segment.retransmission else ""
    head, tail, wing = (x2, x1, -8) if segment.forward else (x1, x2, 8)
    sign = "↻ " if segment.retransmission else ""
    return (
        f"<text class='t' x='{x1 - 10}' y='{y + 14}' text-anchor='end'>"
        f"{(segment.time_ns - start) / 1e9:.6f}</text>"
        f"<text x='{(x1 + x2) / 2}' y='{y + 5}' text-anchor='middle'>"
        f"{sign}{escape(label(segment).replace('*', ''))}</text>"
        f"<path class='{kind}{again}' d='M{tail} {y + 10}L{head} {y + 10}'/>"
        f"<path class='{kind}' d='M{head} {y + 10}l{wing} -3.5v7z'/>"
    )
