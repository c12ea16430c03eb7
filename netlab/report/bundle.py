"""The page's scripts and styles, from the modules in `assets`.

The modules are standard ES modules, each with its imports. A page that opens from the disk and a
notebook's widget both want a single one, so `script` joins a module with what it imports, in order,
into one scope: import lines and the word `export` are left out, default exports too. Names at the
top of all modules therefore differ, which the join verifies.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)
_DEFAULT = re.compile(r"^export default .*;\n", re.MULTILINE)
_NAME = re.compile(
    r"^(?:async )?(?:function|class|const|let) (?:\{[^}]*\}|([A-Za-z_$][\w$]*))", re.M
)


def _asset(name: str) -> str:
    return (files("netlab.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def style(kind: str = "page") -> str:
    """Return the style sheet of a page, or of a widget, which leaves the rest of its page alone."""
    text = _asset("page.css")
    return text.replace("\nbody {", "\n.nl-none {") if kind == "widget" else text


@cache
def script(name: str, *, ending: str = "") -> str:
    """Return the module `name` joined with all it imports; `ending` is added, such as an export.

    Two modules that name the same thing at the top are a ValueError.
    """
    order: list[str] = []
    _visit(name, order)
    parts: list[str] = []
    known: dict[str, str] = {}
    for module in order:
        body = _DEFAULT.sub("", _EXPORT.sub("", _IMPORT.sub("", _asset(module))))
        for found in filter(None, _NAME.findall(body)):
            if found in known:
                raise ValueError(f"{found} is named in {known[found]} and in {module}")
            known[found] = module
        parts.append(body)
    return "\n".join(parts) + ending


def _visit(module: str, order: list[str]) -> None:
    for imported in _IMPORT.findall(_asset(module)):
        if imported not in order:
            _visit(imported, order)
    if module not in order:
        order.append(module)
