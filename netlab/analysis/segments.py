"""TCP segments of a capture as a person thinks of them: who sent what to whom.

One frozen value per TCP header, in tunnels too, in the order of the capture, for captures of the
size of a lab.
Sums over large captures are the business of `netlab.capture`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlab.analysis.capture import Summary

FLAGS = (
    (0x02, "SYN"),
    (0x01, "FIN"),
    (0x04, "RST"),
    (0x08, "PSH"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
    (0x100, "AE"),
    (0x10, "ACK"),
)
SYN, FIN, RST, PSH, ACK = 0x02, 0x01, 0x04, 0x08, 0x10


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment.

    `stream` numbers the connections of the capture from 0. `forward` is True from the side that
    opened the connection (or was seen first). `seq` and `ack` count from the initial sequence
    numbers, `seq_raw` and `ack_raw` are what the wire said; `ack` means nothing without the ACK
    flag. `window` is what the header says, unscaled. Options are None where absent. `ip_id` is the
    identification of IPv4, 0 under IPv6.
    """

    frame: int
    time_ns: int
    stream: int
    forward: bool
    source: str
    sport: int
    destination: str
    dport: int
    flags: int
    seq: int
    ack: int
    seq_raw: int
    ack_raw: int
    length: int
    window: int
    mss: int | None = None
    wscale: int | None = None
    sack_permitted: bool = False
    tsval: int | None = None
    tsecr: int | None = None
    retransmission: bool = False
    ip_id: int = 0

    @property
    def key(self) -> tuple[int, ...]:
        """What it keeps on its way, whatever routers and address translators do to the rest.

        A router may cut it, and only the first fragment says TCP: where there is an identification,
        the length does not count.
        """
        return (
            self.seq_raw,
            self.ack_raw if self.flags & ACK else -1,
            -1 if self.ip_id else self.length,
            self.flags,
            -1 if self.tsval is None else self.tsval,
            -1 if self.tsecr is None else self.tsecr,
            self.window,
            self.ip_id,
        )

    @property
    def octets(self) -> int:
        """How many sequence numbers it takes: SYN and FIN take one each."""
        return self.length + self.is_syn + self.is_syn_ack + self.fin

    @property
    def kind(self) -> str:
        """The flags in words as they are spoken: "SYN", "SYN-ACK", "FIN-ACK", "ACK", "RST"."""
        names = [name for bit, name in FLAGS if self.flags & bit and name != "PSH"]
        return "-".join(names) or "none"

    @property
    def flag_names(self) -> str:
        """All flags in words, PSH too: "PSH-ACK"."""
        return "-".join(name for bit, name in FLAGS if self.flags & bit) or "none"

    @property
    def is_syn(self) -> bool:
        """SYN without ACK."""
        return self.flags & (SYN | ACK) == SYN

    @property
    def is_syn_ack(self) -> bool:
        """SYN with ACK."""
        return self.flags & (SYN | ACK) == SYN | ACK

    @property
    def fin(self) -> bool:
        """The sender has nothing more to say."""
        return bool(self.flags & FIN)

    @property
    def rst(self) -> bool:
        """The connection is over at once."""
        return bool(self.flags & RST)


_COLUMNS = (
    "frame", "ts_ns", "stream", "from_orig", "flags", "seq", "ack", "seq_raw", "ack_raw",
    "len", "window_raw", "mss", "wscale", "sack_perm", "tsval", "tsecr", "retransmission",
    "fast_retransmission", "ip_id",
)  # fmt: skip


def load(path: Path) -> tuple[Segment, ...]:
    """Return the TCP segments of a capture file; CaptureError if it is no capture."""
    from netlab.analysis.capture import summarize

    return of_summary(summarize(path, segments=True))


def of_summary(summary: Summary, *, untimed: bool = False) -> tuple[Segment, ...]:
    """Return the TCP segments of a summary.

    Those without a time are left out, or with `untimed` have the time 0.
    """
    flows = summary.flows
    ends = {
        stream: ((orig, oport), (resp, rport))
        for proto, stream, orig, oport, resp, rport in zip(
            *map(flows.column, ("proto", "stream", "orig_h", "orig_p", "resp_h", "resp_p")),
            strict=True,
        )
        if proto == "tcp"
    }
    rows = zip(*map(summary.segments().column, _COLUMNS), strict=True)
    return tuple(
        _segment(ends[stream], frame, time_ns or 0, stream, *rest)
        for frame, time_ns, stream, *rest in rows
        if untimed or time_ns is not None
    )


def _segment(
    ends: tuple[tuple[str, int], tuple[str, int]],
    frame: int, time_ns: int, stream: int, forward: bool, flags: int, seq: int, ack: int,
    seq_raw: int, ack_raw: int, length: int, window: int, mss: int | None, wscale: int | None,
    sack: bool | None, tsval: int | None, tsecr: int | None, again: bool, fast: bool, ip_id: int,
) -> Segment:  # fmt: skip
    there, back = ends if forward else ends[::-1]
    return Segment(
        frame, time_ns, stream, forward, *there, *back, flags, seq, ack, seq_raw, ack_raw, length,
        window, mss, wscale, bool(sack), tsval, tsecr, bool(again or fast), ip_id or 0,
    )  # fmt: skip


def of_port(segments: Iterable[Segment], port: int) -> tuple[Segment, ...]:
    """Return the segments from or to a port."""
    return tuple(s for s in segments if port in (s.sport, s.dport))


def of_stream(segments: Iterable[Segment], stream: int) -> tuple[Segment, ...]:
    """Return the segments of one connection."""
    return tuple(s for s in segments if s.stream == stream)
