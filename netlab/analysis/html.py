"""Tables and summaries as HTML for notebooks: plain markup, no script, nothing loaded."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netlab.analysis.capture import Summary, Table

_MOST_ROWS = 20
_FLOW_COLUMNS = (
    "stream", "proto", "orig_h", "orig_p", "resp_h", "resp_p", "orig_pkts", "resp_pkts",
    "orig_bytes", "resp_bytes", "duration", "conn_state", "initial_rtt", "orig_retransmission",
    "resp_retransmission",
)  # fmt: skip


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else ''}</td>"
    if isinstance(value, int):
        return f'<td style="text-align:right">{value:,}</td>'
    if isinstance(value, float):
        return f'<td style="text-align:right">{value:,.6g}</td>'
    return f"<td>{escape(str(value))}</td>"


def rows_html(rows: list[dict[str, Any]], columns: tuple[str, ...], total: int) -> str:
    """Return rows as an HTML table, with a line that says how many are not shown."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(_cell(row[name]) for name in columns) + "</tr>" for row in rows)
    rest = total - len(rows)
    note = f"<p>{rest:,} more</p>" if rest > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def table_html(table: Table[Any]) -> str:
    """Return the first rows of a table; of the flow table its main columns."""
    wanted = tuple(name for name in _FLOW_COLUMNS if name in table.columns)
    columns = wanted if len(wanted) == len(_FLOW_COLUMNS) else table.columns
    return rows_html(table.to_pylist(0, _MOST_ROWS), columns, len(table))


def summary_html(summary: Summary) -> str:
    """Return what a summary holds: the file, warnings, findings, the first flows."""
    totals = summary.totals
    head = (
        f"<p><b>{escape(summary.path)}</b>: {escape(str(totals['format']))}, "
        f"{summary.packets:,} packets, {totals['bytes']:,} octets, "
        f"{summary.duration_ns / 1e9:,.6g} s, {len(summary.flows):,} flows</p>"
    )
    remarks = [f"<li>{escape(text)}</li>" for text in summary.warnings]
    for finding in summary.findings():
        shown = f" <code>{escape(finding.filter)}</code>" if finding.filter else ""
        remarks.append(f"<li>{escape(finding.sentence)}{shown}</li>")
    listed = f"<ul>{''.join(remarks)}</ul>" if remarks else ""
    return f"<div>{head}{listed}{table_html(summary.flows)}</div>"
