"""What stands out in a capture: one sentence each, with the Wireshark display filter that shows it.

A finding is computed from the columns of the flow table and the totals, so it costs the same for
ten flows and for a million. `frames` is how many frames the filter selects when that is exactly
known, which lets a test hold every sentence against tshark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from netlab import units

Severity = Literal["warning", "note"]
Columns = Callable[[str], Sequence[object]]
"""Gives a column of the flow table by name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth knowing about a capture."""

    kind: str
    severity: Severity
    sentence: str
    filter: str = ""
    frames: int | None = None
    streams: tuple[int, ...] = ()
    """The TCP streams concerned, the worst first, at most ten."""
    least_rtt_ns: float = 0
    """Only acknowledgments that took longer are meant; of `rtt_rise`."""


@dataclass(frozen=True, slots=True)
class _Event:
    """An event that the flow table counts for each side, and how to speak of it.

    `what` and `did` make a sentence, ``|`` parting singular from plural: "3 ACKs of stream 0 were
    duplicates".
    """

    column: str
    severity: Severity
    what: str
    did: str
    filter: str
    exact: bool = True


_EVENTS: Final = (
    _Event("retransmission", "warning", "segment|segments", "was retransmitted|were retransmitted",
           "tcp.analysis.retransmission"),
    _Event("out_of_order", "warning", "segment|segments", "arrived out of order",
           "tcp.analysis.out_of_order"),
    _Event("lost_segment", "warning", "segment|segments",
           "followed a hole (lost upstream, or not captured)|"
           "followed holes (lost upstream, or not captured)", "tcp.analysis.lost_segment"),
    _Event("ack_lost_segment", "warning", "ACK|ACKs",
           "was for data that the capture does not have|"
           "were for data that the capture does not have", "tcp.analysis.ack_lost_segment"),
    _Event("zero_window", "warning", "packet|packets",
           "closed the window (the receiver did not keep up)", "tcp.analysis.zero_window"),
    _Event("bad_checksum", "warning", "TCP checksum|TCP checksums", "was wrong|were wrong",
           "tcp.checksum.status == 0", exact=False),
    _Event("fast_retransmission", "note", "retransmission|retransmissions",
           "was fast (after duplicate ACKs)|were fast (after duplicate ACKs)",
           "tcp.analysis.fast_retransmission"),
    _Event("spurious_retransmission", "note", "retransmission|retransmissions",
           "was spurious (acknowledged before)|were spurious (acknowledged before)",
           "tcp.analysis.spurious_retransmission"),
    _Event("duplicate_ack", "note", "ACK|ACKs", "was a duplicate|were duplicates",
           "tcp.analysis.duplicate_ack"),
    _Event("window_full", "note", "segment|segments", "filled the receiver's window",
           "tcp.analysis.window_full"),
    _Event("keep_alive", "note", "keep-alive|keep-alives",
           "probed the idle connection|probed idle connections", "tcp.analysis.keep_alive"),
    _Event("dsack", "note", "duplicate SACK|duplicate SACKs",
           "told of an unneeded retransmission|told of unneeded retransmissions",
           "tcp.options.sack.dsack_le", exact=False),
    _Event("ce_marks", "note", "packet|packets",
           "was marked by a congested queue (ECN)|were marked by a congested queue (ECN)",
           "ip.dsfield.ecn == 3 || ipv6.tclass.ecn == 3", exact=False),
    _Event("partial_checksum", "note", "TCP checksum|TCP checksums",
           "was left to the network card|were left to the network card", "", exact=False),
)  # fmt: skip


def _worded(count: float, text: str) -> str:
    """Return the singular or the plural of ``one|many``."""
    one, _, many = text.partition("|")
    return one if count == 1 else many or one


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _counted(count: float, one: str, many: str) -> str:
    return f"{count:,.0f} {one if count == 1 else many}"


class _Flows:
    """The columns that findings need, fetched once each."""

    def __init__(self, columns: Columns) -> None:
        self._fetch = columns
        self._held: dict[str, Sequence[object]] = {}

    def column(self, name: str) -> Sequence[object]:
        if name not in self._held:
            self._held[name] = self._fetch(name)
        return self._held[name]

    def both(self, name: str) -> list[tuple[int, float, str]]:
        """Return (row, count, side) of every flow side where a count is not 0, largest first."""
        found: list[tuple[int, float, str]] = []
        for side in ("orig", "resp"):
            for row, value in enumerate(self.column(f"{side}_{name}")):
                if value:
                    found.append((row, _number(value), side))
        found.sort(key=lambda entry: (-entry[1], entry[0]))
        return found

    def stream(self, row: int) -> int:
        return int(_number(self.column("stream")[row]))

    def end(self, row: int, side: str) -> str:
        host, port = self.column(f"{side}_h")[row], self.column(f"{side}_p")[row]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"

    def is_tcp(self, row: int) -> bool:
        return self.column("proto")[row] == "tcp"


def _streams(flows: _Flows, rows: Sequence[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(flows.stream(row) for row in rows if flows.is_tcp(row)))[:10]


def _narrowed(filter_: str, streams: tuple[int, ...], rows: set[int]) -> str:
    if len(rows) != 1 or not streams or not filter_:
        return filter_
    inner = f"({filter_})" if "||" in filter_ else filter_
    return f"tcp.stream == {streams[0]} && {inner}"


def _event(flows: _Flows, event: _Event) -> Finding | None:
    entries = flows.both(event.column)
    if not entries:
        return None
    total = sum(count for _, count, _ in entries)
    rows = {row for row, _, _ in entries}
    row, most, side = entries[0]
    streams = _streams(flows, [entry[0] for entry in entries])
    what, did = _worded(total, event.what), _worded(total, event.did)
    sent = _number(flows.column(f"{side}_pkts")[row])
    share = ""
    if event.column in ("retransmission", "out_of_order", "lost_segment") and sent:
        share = f", {units.format_ratio(round(most / sent, 4))} of its packets"
    if len(rows) == 1:
        sentence = (
            f"{total:,.0f} {what} of stream {flows.stream(row)} {did}, "
            f"{'all' if most == total and total > 1 else 'most' if total > 1 else 'sent'} "
            f"by {flows.end(row, side)}{share}"
        )
    else:
        sentence = (
            f"{total:,.0f} {what} in {len(rows):,} connections {did}, most ({most:,.0f}) by "
            f"{flows.end(row, side)} in stream {flows.stream(row)}{share}"
        )
    frames = int(total) if event.exact else None
    return Finding(
        event.column,
        event.severity,
        sentence,
        _narrowed(event.filter, streams, rows),
        frames,
        streams,
    )


def _outcomes(flows: _Flows) -> list[Finding]:
    """Return findings about how connections began and ended."""
    found: list[Finding] = []
    states = flows.column("conn_state")
    protos = flows.column("proto")

    def among(wanted: tuple[str, ...]) -> list[int]:
        return [
            row
            for row, (state, proto) in enumerate(zip(states, protos, strict=True))
            if state in wanted and proto == "tcp"
        ]

    def one_or_many(rows: list[int], one: str, many: str) -> str:
        if len(rows) == 1:
            return f"1 {one}: {flows.end(rows[0], 'orig')} to {flows.end(rows[0], 'resp')}"
        return f"{len(rows):,} {many}, the first {flows.end(rows[0], 'orig')} to " + flows.end(
            rows[0], "resp"
        )

    def report(kind: str, severity: Severity, rows: list[int], sentence: str, filter_: str) -> None:
        streams = _streams(flows, rows)
        if kind in ("unanswered", "refused") and 1 < len(rows) <= 10:
            narrowed = "tcp.stream in {" + ", ".join(map(str, sorted(streams))) + "}"
        elif kind in ("unanswered", "refused") and len(rows) == 1:
            narrowed = f"tcp.stream == {streams[0]}"
        else:
            narrowed = _narrowed(filter_, streams, set(rows))
        found.append(Finding(kind, severity, sentence, narrowed, None, streams))

    if rows := among(("S0",)):
        report(
            "unanswered", "warning", rows,
            one_or_many(rows, "connection attempt was never answered",
                        "connection attempts were never answered"),
            "tcp.completeness == 1 || tcp.completeness == 33",
        )  # fmt: skip
    if rows := among(("REJ",)):
        report(
            "refused", "warning", rows,
            one_or_many(rows, "connection was refused", "connections were refused"),
            "tcp.flags.reset == 1 && tcp.seq == 1 && tcp.ack == 1",
        )  # fmt: skip
    if rows := among(("RSTO", "RSTR")):
        report(
            "reset", "note", rows,
            one_or_many(rows, "connection ended with a reset", "connections ended with a reset"),
            "tcp.flags.reset == 1",
        )  # fmt: skip
    retried = [
        (row, count)
        for row, value in enumerate(flows.column("syn_retries"))
        if (count := _number(value)) > 0
    ]
    if retried:
        rows = [row for row, _ in retried]
        times = sum(count for _, count in retried)
        report(
            "syn_retries", "warning", rows,
            _counted(times, "SYN was repeated", "SYNs were repeated") + " in "
            + _counted(len(rows), "connection", "connections"),
            "tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.analysis.retransmission",
        )  # fmt: skip
    return found


def _mtu(flows: _Flows) -> list[Finding]:
    found: list[Finding] = []
    entries = flows.both("icmp_frag_needed")
    if entries:
        row, _, side = entries[0]
        hint = flows.column(f"{side}_mtu_hint")[row]
        size = f"; the path takes {_number(hint):,.0f} octets" if hint else ""
        total = sum(count for _, count, _ in entries)
        found.append(
            Finding(
                "icmp_frag_needed", "warning",
                _counted(total, "packet was", "packets were")
                + f" too big for a link on the path, most from {flows.end(row, side)}{size}",
                "icmp.type == 3 && icmp.code == 4 || icmpv6.type == 2",
                None, _streams(flows, [entry[0] for entry in entries]),
            )
        )  # fmt: skip
    entries = flows.both("icmp_unreach")
    if entries:
        row, _, side = entries[0]
        total = sum(count for _, count, _ in entries)
        found.append(
            Finding(
                "icmp_unreach", "warning",
                _counted(total, "packet was", "packets were")
                + f" answered by 'destination unreachable', the first of {flows.end(row, side)}",
                "icmp.type == 3 || icmpv6.type == 1",
                None, _streams(flows, [entry[0] for entry in entries]),
            )
        )  # fmt: skip
    return found


_RISE: Final = 4
"""A 90th percentile of the RTT this many times the least, and 20 ms above it, is a queue."""
_RISE_NS: Final = 20e6


def _queues(flows: _Flows) -> Finding | None:
    """Return a finding when RTTs rise far above their minimum: data waits in a queue."""
    worst: tuple[float, int, str, float, float] | None = None
    rows: list[int] = []
    for side in ("orig", "resp"):
        names = ("ack_rtt_n", "ack_rtt_min", "ack_rtt_p90")
        columns = [flows.column(f"{side}_{name}") for name in names]
        for row, (samples, least, high) in enumerate(zip(*columns, strict=True)):
            low, top = _number(least), _number(high)
            if _number(samples) >= 20 and top > _RISE * low and top - low > _RISE_NS:
                rows.append(row)
                if worst is None or top - low > worst[0]:
                    worst = (top - low, row, side, low, top)
    if worst is None:
        return None
    _, row, side, low, top = worst

    def milliseconds(value: float) -> str:
        return f"{value / 1e6:.3g} ms"

    return Finding(
        "rtt_rise", "note",
        f"the RTT of {flows.end(row, side)}'s data in stream {flows.stream(row)} rose from "
        f"{milliseconds(low)} to {milliseconds(top)} (90th percentile): it waited in a queue or "
        "for a delayed ACK"
        + (f"; so in {len(set(rows)):,} connections" if len(set(rows)) > 1 else ""),
        f"tcp.stream == {flows.stream(row)} && tcp.analysis.ack_rtt > {top / 1e9:.6f}",
        None, _streams(flows, [row]), top,
    )  # fmt: skip


def _capture(totals: Mapping[str, object]) -> list[Finding]:
    """Return findings about the capture itself."""
    found: list[Finding] = []
    cut = int(_number(totals.get("cut_packets")))
    packets = int(_number(totals.get("packets")))
    if cut:
        found.append(
            Finding(
                "cut_packets", "note",
                f"{_counted(cut, 'packet was', 'packets were')} cut by the capture "
                f"({units.format_ratio(round(cut / max(1, packets), 4))}); lengths and analysis "
                "come from the headers",
                "frame.cap_len < frame.len", cut,
            )
        )  # fmt: skip
    untimed = int(_number(totals.get("untimed")))
    if untimed:
        found.append(
            Finding(
                "untimed", "note",
                _counted(untimed, "packet has", "packets have") + " no time stamp: counted and "
                "analysed, but part of no duration, rate or RTT",
                "!frame.time_epoch", untimed,
            )
        )  # fmt: skip
    back = int(_number(totals.get("time_back")))
    if back:
        found.append(
            Finding(
                "time_back", "note",
                _counted(back, "packet is", "packets are") + " stamped earlier than the one before",
                "frame.time_delta < 0", back,
            )
        )  # fmt: skip
    return found


def findings(columns: Columns, totals: Mapping[str, object]) -> tuple[Finding, ...]:
    """Return what stands out, warnings first, in a fixed order.

    `columns` gives a column of the flow table by name; `totals` are the capture's.
    """
    flows = _Flows(columns)
    found = [finding for event in _EVENTS if (finding := _event(flows, event)) is not None]
    found += _outcomes(flows)
    found += _mtu(flows)
    rise = _queues(flows)
    if rise is not None:
        found.append(rise)
    found += _capture(totals)
    found.sort(key=lambda finding: finding.severity != "warning")
    return tuple(found)
