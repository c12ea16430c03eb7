"""Write from the native schema what must agree with it: typed rows and the documentation.

`pytest --update-golden tests/capture/test_schema.py` rewrites both files.
"""

from __future__ import annotations

from pathlib import Path

from netlab import _core

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "netlab" / "analysis" / "rows.py"
SCHEMA = ROOT / "docs" / "capture-schema.md"

TYPES = {
    "uint64": "int", "int64": "int", "float64": "float", "bool": "bool", "string": "str",
    "list<uint32>": "list[int]",
}  # fmt: skip
COUNTS = ("packets", "octets", "blocks", "samples", "bits")
"""Units of columns that count, where an absent value reads as 0 (netlab/analysis/record.py)."""
ALWAYS = frozenset((
    "stream", "proto", "orig_h", "orig_p", "resp_h", "resp_p", "ip_version", "interface",
    "first_frame", "last_frame", "conn_state", "history", "frame", "layer", "from_orig",
    "seq_raw", "ack_raw", "flags", "window_raw", "window_scale", "analysis", "ip_ttl", "ip_id",
    "t_ns",
))  # fmt: skip
"""Columns that are never absent."""
OPTIONAL = frozenset((
    "mss", "wscale", "win_min", "win_max", "mtu_hint", "mptcp", "bytes_in_flight",
    "push_bytes_sent",
))  # fmt: skip
"""Columns of such a unit that tell something by being absent."""
CLASSES = {
    "flows": ("Flow", "A five-tuple, both directions; `orig` sent the SYN, or the first packet."),
    "segments": ("Segment", "One TCP header, with what the analysis decided on it."),
    "series": ("Bin", "What one side of a flow sent within one stretch of time."),
}
TITLES = {
    "flows": "One row for each flow: `summary.flows`, `netlab pcap flows`.",
    "segments": "One row for each TCP header: `summary.segments()`, `netlab pcap segments`.",
    "series": "One row for each time bin and direction: `summary.series()`, `netlab pcap series`.",
}
ROWS_HEAD = '''"""Typed rows of the tables of a summary.

Made from the schema of `netlab._core` by tests/capture/generate.py; do not edit. Each column is
described in docs/capture-schema.md.
"""

from __future__ import annotations

from netlab.analysis.record import Record
'''
SCHEMA_HEAD = """# The tables of a capture summary

Made from the schema of the native module by tests/capture/generate.py; a test holds both together.
Names follow tshark where the meaning is the same, Zeek for endpoints and counts. Times are
nanoseconds, sizes octets, rates bits per second. A value that does not apply, or that the capture
does not tell, is absent (null); absent never means 0.
"""


def columns(table: str) -> list[tuple[str, str, str, str, str]]:
    """Return (name, type, unit, meaning, source) of each column of a table."""
    return [row[1:] for row in _core.schema() if row[0] == table]


def annotation(name: str, kind: str, unit: str) -> str:
    """Return the type of an attribute of a typed row."""
    bare = name.removeprefix("orig_").removeprefix("resp_")
    counted = kind != "float64" and unit in COUNTS and bare not in OPTIONAL
    certain = name in ALWAYS or kind == "bool" or counted
    return TYPES[kind] if certain else f"{TYPES[kind]} | None"


def rows() -> str:
    """Return the text of netlab/analysis/rows.py."""
    out = [ROWS_HEAD]
    for table, (name, about) in CLASSES.items():
        out.append(f'\nclass {name}(Record):\n    """{about}"""\n\n    __slots__ = ()')
        for column, kind, unit, _, _ in columns(table):
            out.append(f"    {column}: {annotation(column, kind, unit)}")
        out.append("")
    return "\n".join(out)


def schema() -> str:
    """Return the text of docs/capture-schema.md."""
    out = [SCHEMA_HEAD]
    for table, title in TITLES.items():
        out += [f"## {table}", "", title, ""]
        out += ["| column | type | unit | meaning | source |", "|---|---|---|---|---|"]
        for name, *cells in columns(table):
            text = " | ".join(cell.replace("|", "\\|") for cell in cells)
            out.append(f"| `{name}` | {text} |")
        out.append("")
    return "\n".join(out)
