"""Summarize packet captures: what every connection did, exactly and fast.

    >>> from netlab.capture import summarize
    >>> summary = summarize("trace.pcapng")          # doctest: +SKIP
    >>> summary.flows[0].orig_retransmission         # doctest: +SKIP
    8
    >>> import polars                                # doctest: +SKIP
    >>> polars.DataFrame(summary.flows)              # doctest: +SKIP

This is the public face of `netlab.analysis.capture`; docs/capture-schema.md describes the tables.
"""

from __future__ import annotations

from netlab.analysis.capture import Copied, Summary, Table, filter, merge, summarize
from netlab.analysis.rows import Bin, Flow, Segment

__all__ = ["Bin", "Copied", "Flow", "Segment", "Summary", "Table", "filter", "merge", "summarize"]
