"""Which frames a finding speaks of, by the tables of its capture.

A finding comes from counts of flows, whatever the size of the capture; this looks for its packets
where the segments were kept. Frames are those that its display filter selects, as far as both are
exact (`Finding.frames`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from netlab.analysis.capture import Summary
from netlab.analysis.datagrams import Datagram
from netlab.analysis.findings import Finding
from netlab.analysis.segments import ACK, RST, SYN

_FLAGGED: Final = {
    **{name: name for name in (
        "retransmission", "out_of_order", "lost_segment", "ack_lost_segment", "zero_window",
        "fast_retransmission", "spurious_retransmission", "duplicate_ack", "window_full",
        "keep_alive", "dsack",
    )},
    "ce_marks": "ip_ce",
}  # fmt: skip
"""Findings that are a column of the table of segments."""
_SUMS: Final = {"bad_checksum": "bad", "partial_checksum": "partial"}
_ENDED: Final[Mapping[str, tuple[frozenset[str], int]]] = {
    "unanswered": (frozenset({"S0"}), SYN),
    "refused": (frozenset({"REJ"}), RST),
    "reset": (frozenset({"RSTO", "RSTR"}), RST),
}
"""Findings about how connections ended: their states, and the flag of the packets meant."""
_ERRORS: Final[Mapping[str, Callable[[bool, int, int], bool]]] = {
    "icmp_frag_needed": lambda v6, kind, code: kind == 2 if v6 else (kind, code) == (3, 4),
    "icmp_unreach": lambda v6, kind, code: kind == 1 if v6 else kind == 3 and code != 4,
}
"""Findings about ICMP errors: whether a message is meant, by IPv6 or not, its type and code."""


class Concerned:
    """The packets of one capture, to be asked for those of a finding.

    `summary` must have kept its segments, and have verified checksums where those are asked for;
    `others` are the packets that are not TCP.
    """

    def __init__(self, summary: Summary, others: Iterable[Datagram]) -> None:
        self._summary = summary
        self._segments = summary.segments()
        self._others = tuple(others)

    def frames(self, finding: Finding) -> tuple[int, ...]:
        """Return the frames of a finding in order; none where it is about the whole capture."""
        kind = finding.kind
        column = self._segments.column
        if kind in _FLAGGED:
            return self._where(column(_FLAGGED[kind]))
        if kind in _SUMS:
            return self._where(said == _SUMS[kind] for said in column("checksum"))
        if kind == "syn_retries":
            return self._where(
                again and flags & (SYN | ACK) == SYN
                for again, flags in zip(column("retransmission"), column("flags"), strict=True)
            )
        if kind == "rtt_rise":
            least, streams = finding.least_rtt_ns, finding.streams
            return self._where(
                rtt is not None and rtt > least and stream in streams
                for rtt, stream in zip(column("ack_rtt_ns"), column("stream"), strict=True)
            )
        if kind in _ENDED:
            states, flag = _ENDED[kind]
            streams = self._in_state(states)
            return self._where(
                flags & flag and stream in streams
                for flags, stream in zip(column("flags"), column("stream"), strict=True)
            )
        if kind in _ERRORS:
            return tuple(
                one.frame
                for one in self._others
                if one.icmp is not None and _ERRORS[kind](":" in one.source, *one.icmp)
            )
        return ()

    def _where(self, meant: Iterable[object]) -> tuple[int, ...]:
        frames = self._segments.column("frame")
        return tuple(frame for frame, one in zip(frames, meant, strict=True) if one)

    def _in_state(self, states: frozenset[str]) -> frozenset[int]:
        names = ("proto", "stream", "conn_state")
        rows = zip(*map(self._summary.flows.column, names), strict=True)
        return frozenset(
            stream for proto, stream, state in rows if proto == "tcp" and state in states
        )
