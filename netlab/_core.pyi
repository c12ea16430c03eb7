"""The native part of netlab: reads captures and analyses the flows in them."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, final

__version__: str

Progress: TypeAlias = Callable[[int, int | None, int], object]
"""Called a few times a second with bytes done, bytes in all (if known), packets; a false
answer other than None stops the run."""

@final
class Table:
    """Columns of equal length; whatever speaks the Arrow PyCapsule interface takes them."""

    def columns(self) -> list[str]: ...
    def column(self, name: str) -> list[Any]: ...
    def to_pylist(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]]: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __len__(self) -> int: ...

@final
class Summary:
    """What a capture holds."""

    @property
    def totals(self) -> dict[str, Any]:
        """Counts over the whole capture.

        `format` (pcap, nsecpcap, pcapng), `compression` (gzip, zstd, None), `sections`,
        `comments`, `interfaces` (list of dict: id, section, link_type, snaplen,
        ticks_per_second, offset_s, name, description, filter, packets, received, dropped,
        os_dropped), `packets`, `other_records` (numbered among the frames, but no packets),
        `bytes`, `captured_bytes`, `first_ns`, `last_ns` (None if no packet has a
        time), `untimed` (packets without a time), `time_back`, `cut_packets`,
        `undecodable` (reason to count), `unknown_link_types` (LINKTYPE_ to count), `arp`,
        `fragments`, `reassembled`, `fragments_dropped`, `vlan`, `tunnelled`, `icmp_errors`,
        `checksums_good|bad|partial`, `flows`, `evicted_flows|packets|bytes`, `truncated_at`,
        `damaged_at` (offsets or None), `warnings`.
        """

    @property
    def flows(self) -> Table:
        """One row per flow, in order of first frames."""

    @property
    def memory(self) -> tuple[int, int, int]:
        """Octets held by flow records, their seldom parts, and pools."""

    def segments(self, stream: int | None = None) -> Table:
        """One row per TCP packet of a stream, or of all.

        Reads the file again unless `summarize` was asked to keep them.
        """

    def series(self, stream: int | None = None, bin_ns: int | None = None) -> Table:
        """Packets, octets, retransmissions, flight and window per bin and direction."""

    def __len__(self) -> int: ...

def summarize(
    path: str | PathLike[str],
    *,
    threads: int = 1,
    checksums: bool = False,
    semantics: Literal["4.0", "4.4"] = "4.0",
    max_flows: int | None = None,
    follow: bool = False,
    segments: bool | Sequence[int] | None = None,
    series_bin_ns: int | None = None,
    progress: Progress | None = None,
    chunk: int | None = None,
) -> Summary:
    """Read a capture ("-" is standard input) and analyse its flows.

    The GIL is released throughout; signals are looked at a few times a second. A cut or damaged
    capture gives what stands before the damage: see `truncated_at` and `warnings`. What is no
    capture raises `netlab.errors.CaptureError`. `chunk` (frames handled at once) changes
    nothing but speed.
    """

def merge(
    paths: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    names: Sequence[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Write the packets of several captures in order of time as pcapng.

    Equal stamps keep the order of `paths`. `names`, one each, become names of interfaces. Returns
    `read`, `written`, `warnings` (damage in the inputs).
    """

def frames(
    path: str | PathLike[str],
    *,
    first: int = 1,
    count: int | None = None,
    snap: int | None = None,
) -> list[tuple[int, int, int, int, bytes]]:
    """Packets with their octets: (frame, ts_ns, length on the wire, LINKTYPE_ number, octets).

    At most `count` from frame `first` on, `snap` octets of each. What is no capture raises
    `netlab.errors.CaptureError`.
    """

def filter(
    path: str | PathLike[str],
    out: str | PathLike[str],
    *,
    streams: Sequence[int] | None = None,
    frames: Sequence[int] | None = None,
    expression: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Write the packets of a capture that satisfy every condition given, as pcapng.

    `streams` are TCP streams, `frames` frame numbers. Words of `expression`: ip ip6 tcp udp
    icmp icmp6 sctp, [src|dst] host A, [src|dst] net A/N, [src|dst] port N[-M], syn fin rst ack
    psh urg ece cwr, data, vlan [N], tunnel, quoted, len|bytes|ttl OP N, frame N[-M], not, and,
    or, parentheses. A mistake in it is a ValueError. Returns `read`, `written`, `warnings`.
    """

def schema() -> list[tuple[str, str, str, str, str, str]]:
    """Every column of every table: table, column, type, unit, meaning, source."""

def run_wire(config: str, control: int) -> str:
    """Run a userspace link until it is told to quit, and return its last counters as JSON.

    `config` is JSON and `control` the descriptor of a stream socket, both as in the README of
    crates/netlab-wire. It takes over SIGTERM and SIGINT of this process. UsageError for a
    configuration that makes no sense, CapabilityError in the machine's own network namespace,
    EngineError for what the system refused.
    """
