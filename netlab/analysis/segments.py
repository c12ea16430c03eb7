"""TCP segments of a capture as a person thinks of them: who sent what to whom.

One frozen value per TCP header, in the order of the capture, for captures of the size of a lab.
Sums over large captures are the business of `netlab.capture`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        """What it keeps on its way, whatever routers and address translators do to the rest."""
        return (
            self.seq_raw,
            self.ack_raw if self.flags & ACK else -1,
            self.length,
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


def load(path: Path) -> tuple[Segment, ...]:
    """Return the TCP segments of a capture file; CaptureError if it is no capture."""
    from netlab.analysis.capture import summarize

    summary = summarize(path, segments=True)
    flows = {flow["stream"]: flow for flow in summary.flows.to_pylist() if flow["proto"] == "tcp"}
    return tuple(
        from_row(row, flows[row["stream"]])
        for row in summary.segments().to_pylist()
        if row["layer"] == 0
    )


def from_row(row: Mapping[str, Any], flow: Mapping[str, Any]) -> Segment:
    """Return a row of the segments table, with the addresses of its flow, as a value."""
    there, back = ("orig", "resp") if row["from_orig"] else ("resp", "orig")
    return Segment(
        frame=row["frame"],
        time_ns=row["ts_ns"],
        stream=row["stream"],
        forward=row["from_orig"],
        source=flow[f"{there}_h"],
        sport=flow[f"{there}_p"],
        destination=flow[f"{back}_h"],
        dport=flow[f"{back}_p"],
        flags=row["flags"],
        seq=row["seq"],
        ack=row["ack"],
        seq_raw=row["seq_raw"],
        ack_raw=row["ack_raw"],
        length=row["len"],
        window=row["window_raw"],
        mss=row["mss"],
        wscale=row["wscale"],
        sack_permitted=bool(row["sack_perm"]),
        tsval=row["tsval"],
        tsecr=row["tsecr"],
        retransmission=bool(row["retransmission"] or row["fast_retransmission"]),
        ip_id=row["ip_id"] or 0,
    )


def of_port(segments: Iterable[Segment], port: int) -> tuple[Segment, ...]:
    """Return the segments from or to a port."""
    return tuple(s for s in segments if port in (s.sport, s.dport))


def of_stream(segments: Iterable[Segment], stream: int) -> tuple[Segment, ...]:
    """Return the segments of one connection."""
    return tuple(s for s in segments if s.stream == stream)
