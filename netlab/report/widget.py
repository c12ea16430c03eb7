"""The ladder and its inspector as a Jupyter widget: the same scripts as on a report's page."""

from __future__ import annotations

import anywidget
import traitlets

from netlab.report import bundle


class Ladder(anywidget.AnyWidget):
    """A scene in a notebook; `selected` is the number of the packet chosen, -1 for none."""

    _esm = bundle.script("view.js", ending="\nexport default { render };\n")
    _css = bundle.style("widget")

    data = traitlets.Dict().tag(sync=True)
    shared = traitlets.Dict().tag(sync=True)
    octets = traitlets.Bytes().tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
