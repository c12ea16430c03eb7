"""Ask tshark what it thinks of a capture, packet by packet and conversation by conversation.

Payload dissectors are disabled through a configuration directory of our own, for two reasons:
they take minutes on bulk data, and some of them split a tcp.stream in two. The directory also
keeps whatever preferences the user of this machine has away from the comparison.

A frame can hold several TCP headers (tunnels). `-T fields` gives their values without saying
which header each belongs to, so such frames are read again as PDML, where every header is an
element of its own. A header quoted inside an ICMP error has a stream but is not analysed; it is
left out (see ../shared/wireshark.md, "Which packets, which stream").
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

KEPT = re.compile(
    r"_ws\..*|frame|eth|ethertype|eth_.*|llc|vlan|ieee8021a[dh]|sll|null|raw|raw_ip|loop|fddi|tr|"
    r"wlan|radiotap|chdlc|ip|ipv6|icmp|icmpv6|tcp|udp|gre|vxlan|mpls|pppoe|pppoes|pppoed|ppp|"
    r"ppp_hdlc|geneve|gtp|teredo|data|pkt_comment|ip\.options\..*|ipv6\..*|tcp\.options\..*"
)

FLAGS = (
    "retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order",
    "duplicate_ack", "lost_segment", "ack_lost_segment", "zero_window", "zero_window_probe",
    "zero_window_probe_ack", "window_full", "window_update", "keep_alive", "keep_alive_ack",
    "reused_ports",
)  # fmt: skip
NUMBERS = (
    "acks_frame", "bytes_in_flight", "push_bytes_sent", "rto_frame", "duplicate_ack_num",
    "duplicate_ack_frame",
)  # fmt: skip
TIMES = ("ack_rtt", "initial_rtt", "rto")
HEADER = {
    "stream": "tcp.stream", "seq": "tcp.seq", "ack": "tcp.ack", "nxtseq": "tcp.nxtseq",
    "len": "tcp.len", "completeness": "tcp.completeness", "sport": "tcp.srcport",
    "dport": "tcp.dstport", "window": "tcp.window_size",
}  # fmt: skip

End = tuple[str, int]
"""Address and port."""

Values = dict[str, int]
"""What is known of one TCP header; a flag that is set has the value 1, times are nanoseconds."""


@functools.cache
def path() -> str | None:
    """Return where tshark is, or None."""
    return shutil.which("tshark")


@functools.cache
def version() -> str:
    """Return tshark's version, such as 4.0.17, or an empty string."""
    if path() is None:
        return ""
    first = subprocess.run(["tshark", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+\.\d+\.\d+)", first)
    return found.group(1) if found else ""


@functools.cache
def configuration() -> str:
    """Make the directory whose `disabled_protos` leaves link, network and transport only."""
    directory = tempfile.mkdtemp(prefix="netlab-tshark-")
    listing = subprocess.run(
        ["tshark", "-G", "protocols"], capture_output=True, text=True, check=True
    )
    names = [line.split("\t")[2] for line in listing.stdout.splitlines() if line.count("\t") >= 2]
    off = [name for name in names if not KEPT.fullmatch(name)]
    Path(directory, "disabled_protos").write_text("\n".join(off) + "\n")
    return directory


def run(*arguments: str | Path) -> str:
    """Run tshark without name resolution and payload dissectors; return what it printed.

    Its status is not checked: it is non-zero for a file cut in the middle of a packet, whose
    packets before the cut still count.
    """
    environment = os.environ | {"WIRESHARK_CONFIG_DIR": configuration(), "TZ": "UTC"}
    done = subprocess.run(
        ["tshark", "-n", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        timeout=600,
    )
    return done.stdout


def nanoseconds(text: str) -> int:
    """Turn ``0.000120000`` or ``-1.5`` into nanoseconds without a float in between."""
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.lstrip("-").partition(".")
    return sign * (int(whole) * 10**9 + int(fraction[:9].ljust(9, "0")))


def _number(name: str, text: str) -> int:
    if name in TIMES:
        return nanoseconds(text)
    return int(text, 0) if text.startswith("0x") else int(text)


ROW = re.compile(
    r"(?P<a>\S+)\s+<->\s+(?P<b>\S+)\s+(?P<fb>\d+) (?P<bb>\d+ \w+)\s+(?P<fa>\d+) (?P<ba>\d+ \w+)\s"
)


def _end(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address, int(port)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of `-z conv,tcp`: both ends, and frames and octets from each of them."""

    a: End
    b: End
    frames_from_a: int
    frames_from_b: int
    bytes_from_a: str
    bytes_from_b: str
    """As printed: Wireshark cuts to kB from 10 kB up, see `as_printed`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one run of tshark says of a capture."""

    segments: dict[int, list[Values]]
    """For each frame with analysed TCP headers, what it says of each header."""
    conversations: list[Conversation]
    """The rows of `-z conv,tcp`, in the order of its own table (by frames)."""
    volumes: dict[int, dict[End, list[int]]] | None
    """Exact frames and octets by stream and sender, added up from single frames as the
    conversation table does (a quoted header does not count). None when a frame holds several
    headers: the fields do not say which address is whose."""


def read(file: Path, *arguments: str) -> Reading:
    """Run tshark once over a capture and collect everything that is compared."""
    names = [*HEADER, *FLAGS, *NUMBERS, *TIMES]
    wanted = [HEADER.get(name, f"tcp.analysis.{name}") for name in names]
    fields = [argument for field in wanted for argument in ("-e", field)]
    text = run(
        "-r", file, *arguments, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,",
        "-e", "frame.number", "-e", "icmp.type", "-e", "icmpv6.type", "-e", "frame.len",
        "-e", "ip.src", "-e", "ipv6.src", "-e", "ipv6.opt.mipv6.home_address",
        "-e", "frame.protocols", *fields, "-z", "conv,tcp",
    )  # fmt: skip
    found: dict[int, list[Values]] = {}
    several: list[int] = []
    conversations: list[Conversation] = []
    volumes: dict[int, dict[End, list[int]]] | None = {}
    for line in text.splitlines():
        if line.count("\t") < len(names):
            if m := ROW.match(line):
                conversations.append(
                    Conversation(
                        _end(m["a"]), _end(m["b"]), int(m["fa"]), int(m["fb"]), m["ba"], m["bb"]
                    )
                )
            continue
        frame, icmp, icmp6, length, source4, source6, home, layers, *texts = line.split("\t")
        if not texts[0]:
            continue
        if "," in texts[0] or icmp or icmp6:
            several.append(int(frame))
            if not (icmp or icmp6):
                volumes = None
            continue
        values: Values = {}
        for name, value in zip(names, texts, strict=True):
            if name in FLAGS:
                if value:
                    values[name] = 1
            elif value:
                values[name] = _number(name, value.split(",")[0])
        found[int(frame)] = [values]
        if volumes is not None:
            inner = layers.split(":tcp")[0].split(":")[-1]
            source = ((home or source6) if inner.startswith("ipv6") else source4).split(",")[-1]
            sides = volumes.setdefault(values["stream"], {})
            entry = sides.setdefault((source, values["sport"]), [0, 0])
            entry[0] += 1
            entry[1] += int(length)
    for frame, headers in _by_element(file, several, *arguments).items():
        if headers:
            found[frame] = headers
    return Reading(found, conversations, volumes)


def _by_element(file: Path, frames: list[int], *arguments: str) -> dict[int, list[Values]]:
    """Read some frames as PDML, one `Values` for each TCP header that is not quoted by ICMP."""
    result: dict[int, list[Values]] = {}
    wanted = {**HEADER, **{n: f"tcp.analysis.{n}" for n in (*FLAGS, *NUMBERS, *TIMES)}}
    by_field = {field: name for name, field in wanted.items()}
    for start in range(0, len(frames), 500):
        some = frames[start : start + 500]
        condition = "frame.number in {" + ",".join(map(str, some)) + "}"
        text = run("-r", file, *arguments, "-Y", condition, "-T", "pdml")
        for packet in ElementTree.fromstring(text).iter("packet"):
            headers: list[Values] = []
            number, quoted = 0, False
            for proto in packet.findall("proto"):
                name = proto.get("name")
                if name == "frame":
                    for item in proto.iter("field"):
                        if item.get("name") == "frame.number":
                            number = int(item.get("show", "0"))
                if name in ("icmp", "icmpv6"):
                    quoted = True
                if name != "tcp" or quoted:
                    continue
                values: Values = {}
                for item in proto.iter("field"):
                    key = by_field.get(item.get("name", ""))
                    if key in FLAGS:
                        values[key] = 1
                    elif key is not None and key not in values:
                        values[key] = _number(key, item.get("show", "0"))
                if "stream" in values:
                    headers.append(values)
            result[number] = headers
    return result


def as_printed(octets: int) -> str:
    """Return a size as Wireshark's conversation table prints it: cut, not rounded."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if octets // 1000**power >= 10:
            return f"{octets // 1000**power} {unit}"
    return f"{octets} bytes"
