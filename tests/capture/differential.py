"""Compare netlab with tshark on one capture, value by value.

`docs/wireshark-differences.md` holds a table of the differences that are known and explained. A
row names a file (or a pattern), frames, fields, who is right and why; the comparison takes such
differences out and fails on all others, and on rows that no longer match anything.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.capture import tshark

ROOT = Path(__file__).resolve().parents[2]
DIFFERENCES = ROOT / "docs" / "wireshark-differences.md"

COMPARED = (
    *tshark.FLAGS, *tshark.NUMBERS, *tshark.TIMES,
    "stream", "seq", "ack", "nxtseq", "len", "completeness",
)  # fmt: skip


OPTIONS_CUT, NOT_ANALYSED = "options cut", "not analysed"


@dataclass(frozen=True, slots=True)
class Explained:
    """A row of the table of differences."""

    file: str
    frames: str
    fields: str
    right: str
    reason: str

    def covers(self, difference: Difference) -> bool:
        """Say whether this row explains that difference."""
        return (
            fnmatch.fnmatchcase(difference.file, self.file)
            and (self.frames == "*" or _in_ranges(difference.frame, self.frames))
            and (self.fields == "*" or difference.name in re.split(r", *", self.fields))
        )


def _in_ranges(number: int, text: str) -> bool:
    for part in re.split(r"[ ,]+", text):
        first, _, last = part.partition("-")
        if int(first) <= number <= int(last or first):
            return True
    return False


@functools.cache
def explained() -> tuple[Explained, ...]:
    """Read the table of docs/wireshark-differences.md."""
    if not DIFFERENCES.is_file():
        return ()
    rows: list[Explained] = []
    for line in DIFFERENCES.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and line.startswith("| `"):
            rows.append(Explained(*(cell.strip("`") for cell in cells)))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Difference:
    """One value on which the two disagree; None where one shows nothing."""

    file: str
    frame: int
    header: int
    name: str
    theirs: int | None
    ours: int | None

    def __str__(self) -> str:
        place = f"frame {self.frame}" + (f" header {self.header}" if self.header else "")
        return f"{self.file}: {place}: {self.name}: tshark {self.theirs}, netlab {self.ours}"


@dataclass(slots=True)
class Comparison:
    """What was compared in one file and what came of it."""

    file: str
    packets: int = 0
    values: int = 0
    flags: int = 0
    silent: int = 0
    """Packets whose options the capture cut: netlab analyses them, tshark shows nothing."""
    conversations: int = 0
    differences: list[Difference] = field(default_factory=list[Difference])

    @property
    def unexplained(self) -> list[Difference]:
        """Return the differences that no row of the table covers."""
        return [d for d in self.differences if not any(row.covers(d) for row in explained())]


OURS = {"ack_rtt": "ack_rtt_ns", "initial_rtt": "initial_rtt_ns", "rto": "rto_ns"}
ANALYSIS = frozenset((*tshark.FLAGS, *tshark.NUMBERS, *tshark.TIMES))


def ours(file: Path, **how: object) -> dict[int, list[tshark.Values]]:
    """Return netlab's segments in the form of `tshark.segments`."""
    from netlab.capture import summarize

    table = summarize(file, **how).segments()  # type: ignore[arg-type]
    columns = {name: table.column(OURS.get(name, name)) for name in COMPARED if name != "nxtseq"}
    ends = zip(table.column("seq"), table.column("len"), table.column("flags"), strict=True)
    columns["nxtseq"] = [
        (seq + length + bool(flags & 3)) & 0xFFFFFFFF for seq, length, flags in ends
    ]
    # tshark prints completeness as it was before the packet, we print what it became.
    before: dict[int, int] = {}
    streams, after = columns["stream"], columns["completeness"]
    shown: list[int] = []
    for stream, value, reused, flags in zip(
        streams, after, columns["reused_ports"], table.column("flags"), strict=True
    ):
        # A stream that a SYN on used ports opens has its first bit before that packet is shown.
        shown.append(before.get(stream, 1 if reused and not flags & 16 else 0))
        before[stream] = value
    columns["completeness"] = shown
    found: dict[int, list[tshark.Values]] = {}
    cut, analysed = table.column("options_cut"), table.column("analysed")
    for row, frame in enumerate(table.column("frame")):
        values: tshark.Values = {}
        for name, column in columns.items():
            value = column[row]
            if value is None or (name in tshark.FLAGS and not value):
                continue
            values[name] = int(value)
        if cut[row]:
            values[OPTIONS_CUT] = 1
        if not analysed[row]:
            values[NOT_ANALYSED] = 1
        found.setdefault(frame, []).append(values)
    return found


def compare(file: Path, name: str | None = None, **how: object) -> Comparison:
    """Compare every value of every analysed TCP header of a capture, and the conversations."""
    name = name or file.name
    reading = tshark.read(file)
    result = compare_values(name, reading.segments, ours(file, **how))
    compare_conversations(result, file, reading)
    return result


def _ends(row: Mapping[str, object], side: str) -> tuple[str, int]:
    return (str(row[f"{side}_h"]), int(str(row[f"{side}_p"])))


def compare_conversations(result: Comparison, file: Path, reading: tshark.Reading) -> None:
    """Compare packets and octets of each direction: by stream, and with the printed table."""
    from netlab.capture import summarize

    flows = summarize(file).flows.to_pylist()
    rows = [row for row in flows if row["proto"] == "tcp"]
    result.conversations = len(reading.conversations)
    if reading.volumes is not None:
        mine = {
            row["stream"]: {
                _ends(row, side): [row[f"{side}_pkts"], row[f"{side}_bytes"]]
                for side in ("orig", "resp")
                if row[f"{side}_pkts"]
            }
            for row in rows
        }
        for stream in sorted(mine.keys() | reading.volumes.keys()):
            left, right = reading.volumes.get(stream, {}), mine.get(stream, {})
            for end in sorted(left.keys() | right.keys()):
                for place, what in enumerate(("conversation packets", "conversation bytes")):
                    x = left[end][place] if end in left else None
                    y = right[end][place] if end in right else None
                    if x != y:
                        result.differences.append(Difference(result.file, 0, stream, what, x, y))
    theirs = Counter(
        tuple(
            sorted(((c.a, c.frames_from_a, c.bytes_from_a), (c.b, c.frames_from_b, c.bytes_from_b)))
        )
        for c in reading.conversations
    )
    printed = Counter(
        tuple(sorted(
            (_ends(row, side), row[f"{side}_pkts"], tshark.as_printed(row[f"{side}_bytes"]))
            for side in ("orig", "resp")
        ))
        for row in rows
    )  # fmt: skip
    if theirs != printed:
        result.differences.append(
            Difference(
                result.file, 0, 0, "conversation table",
                sum((theirs - printed).values()), sum((printed - theirs).values()),
            )
        )  # fmt: skip


def compare_values(
    name: str,
    theirs: Mapping[int, list[tshark.Values]],
    mine: Mapping[int, list[tshark.Values]],
) -> Comparison:
    """Compare two accounts of one capture."""
    result = Comparison(name)
    for frame in sorted(theirs.keys() | mine.keys()):
        left, right = theirs.get(frame, []), mine.get(frame, [])
        result.packets += 1
        if len(left) != len(right):
            result.differences.append(Difference(name, frame, 0, "headers", len(left), len(right)))
        for header, (a, b) in enumerate(zip(left, right, strict=False)):
            result.silent += OPTIONS_CUT in b
            for field_name in COMPARED:
                x, y = a.get(field_name), b.get(field_name)
                if x is None and OPTIONS_CUT in b and field_name in ANALYSIS:
                    continue  # tshark says nothing of such packets; see the table's first row
                if x is None and field_name == "initial_rtt" and not ANALYSIS.intersection(a):
                    continue  # tshark shows it only beside another result for the packet
                result.values += x is not None or y is not None
                result.flags += field_name in tshark.FLAGS and x is not None
                if x != y:
                    result.differences.append(Difference(name, frame, header, field_name, x, y))
    return result
