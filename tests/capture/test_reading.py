"""Reading: every container, any cut, any split; one answer however the octets arrive."""

from __future__ import annotations

import gzip
import io
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab.capture import Summary, summarize
from netlab.errors import CaptureError, UsageError
from tests.capture import pcaps
from tests.capture.pcaps import Packet
from tests.capture.scenes import SCENES
from tests.conftest import CAPTURES

SHARED = sorted(f for f in CAPTURES.iterdir() if f.name != "README.md") if CAPTURES.is_dir() else []
VARIED = ("chatter-3", "several-conversations", "fragments-ipv6-reversed", "mixture",
          "quoted-by-icmp", "link-vxlan-ipv4", "multipath", "cut-to-60")  # fmt: skip


def everything(summary: Summary) -> dict[str, object]:
    """Return all that a summary says, less what names the file and its container."""
    totals = dict(summary.totals)
    for name in ("format", "compression", "sections", "interfaces", "comments", "other_records"):
        totals.pop(name, None)
    return {
        "totals": totals,
        "flows": summary.flows.to_pylist(),
        "segments": summary.segments().to_pylist(),
        "series": summary.series(bin_ns=10**7).to_pylist(),
    }


def answer(data: bytes, directory: Path, **how: object) -> dict[str, object]:
    file = directory / "capture"
    file.write_bytes(data)
    return everything(summarize(file, **how))  # type: ignore[arg-type]


# One answer.


@pytest.mark.parametrize("name", VARIED)
def test_pcap_and_pcapng_of_the_same_packets_give_the_same(name: str, tmp_path: Path) -> None:
    data = SCENES[name]()
    packets = packets_of(data)
    linktype = int.from_bytes(data[20:24], "little")
    nano = data[:4] == b"\x4d\x3c\xb2\xa1"
    expected = answer(data, tmp_path)
    interface = pcaps.Interface(linktype)
    for other in (
        pcaps.pcap(packets, linktype=linktype, nano=nano, order=">"),
        pcaps.pcap(packets, linktype=linktype, nano=True),
        pcaps.pcapng(packets, interfaces=[interface]),
        pcaps.pcapng(packets, interfaces=[interface], order=">"),
        pcaps.pcapng(packets, interfaces=[interface], extra=[pcaps.block("<", 0xABC, b"?")]),
    ):
        assert answer(other, tmp_path) == expected


def packets_of(data: bytes) -> list[Packet]:
    """Read a little-endian pcap of our own back."""
    scale = 1 if data[:4] == b"\x4d\x3c\xb2\xa1" else 1000
    packets, at = [], 24
    while at < len(data):
        words = [int.from_bytes(data[at + 4 * n : at + 4 * n + 4], "little") for n in range(4)]
        when = words[0] * 10**9 + words[1] * scale
        packets.append(Packet(when, data[at + 16 : at + 16 + words[2]], words[3]))
        at += 16 + words[2]
    return packets


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same(name: str, threads: int, tmp_path: Path) -> None:
    data = SCENES[name]()
    assert answer(data, tmp_path, threads=threads) == answer(data, tmp_path)


def test_many_flows_on_several_threads_give_the_same(tmp_path: Path) -> None:
    talks = [
        pcaps.chatter(Random(n), 20, client_port=1024 + n, start_ns=pcaps.START + n * 1000)
        for n in range(1500)
    ]
    data = pcaps.pcap(pcaps.interleaved(*talks), nano=True)
    expected = answer(data, tmp_path)
    for threads in (2, 4):
        assert answer(data, tmp_path, threads=threads) == expected


def test_compressed_is_the_same_as_plain(tmp_path: Path) -> None:
    data = SCENES["several-conversations"]()
    expected = answer(data, tmp_path)
    assert answer(gzip.compress(data), tmp_path) == expected
    parts = gzip.compress(data[:9000]) + gzip.compress(data[9000:])
    assert answer(parts, tmp_path) == expected, "several gzip members are one file"


@pytest.mark.needs("zstd")
def test_zstd_is_the_same_as_plain(tmp_path: Path) -> None:
    data = SCENES["several-conversations"]()
    packed = subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True)
    assert answer(packed.stdout, tmp_path) == answer(data, tmp_path)


@pytest.mark.parametrize("step", [1, 7, 1000, 65536])
def test_a_pipe_written_in_any_pieces_gives_the_same(step: int, tmp_path: Path) -> None:
    data = SCENES["chatter-3"]()
    if step == 1:
        data = data[:5000]
    expected = answer(data, tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb", buffering=0) as out:
            for start in range(0, len(data), step):
                out.write(data[start : start + step])

    writer = threading.Thread(target=write)
    writer.start()
    summary = summarize(fifo, segments=True, series_bin_ns=10**7)
    writer.join()
    assert everything(summary) == expected


def test_the_summary_of_two_halves_is_the_summary_of_the_whole(tmp_path: Path) -> None:
    """Packets and octets of flows add up over a split that no flow crosses."""
    one = pcaps.handshake()
    two = pcaps.handshake(client_port=41000, start_ns=pcaps.START + 10**9)

    def total(packets: list[Packet]) -> tuple[int, int]:
        file = tmp_path / "part"
        file.write_bytes(pcaps.pcap(packets))
        flows = summarize(file).flows
        return len(flows), sum(flow.orig_bytes + flow.resp_bytes for flow in flows)

    parts = [total(one), total(two)]
    assert total(one + two) == tuple(map(sum, zip(*parts, strict=True)))


def test_segments_kept_and_read_again_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_bytes(SCENES["several-conversations"]())
    kept = summarize(file, segments=True)
    again = summarize(file)
    assert kept.segments().to_pylist() == again.segments().to_pylist()
    for stream in (0, 5, 11):
        assert kept.segments(stream).to_pylist() == again.segments(stream).to_pylist()
        assert kept.series(stream, 10**6).to_pylist() == again.series(stream, 10**6).to_pylist()


def test_the_flow_table_adds_up_to_the_segments(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_bytes(SCENES["several-conversations"]())
    summary = summarize(file, segments=True)
    for flow in summary.flows:
        rows = summary.segments(flow.stream)
        for side, forward in (("orig", True), ("resp", False)):
            mine = [row for row in rows if row.from_orig is forward]
            assert flow[f"{side}_pkts"] == len(mine)
            assert flow[f"{side}_payload_bytes"] == sum(row.len for row in mine)
            for flag in ("retransmission", "out_of_order", "duplicate_ack", "zero_window"):
                assert flow[f"{side}_{flag}"] == sum(row[flag] for row in mine), flag


# Packets without a time.


def test_packets_without_a_time_count_but_take_no_part_in_times(tmp_path: Path) -> None:
    """A conversation of which every third packet is a simple block, then one with nothing else."""
    interface = pcaps.Interface()
    head = [pcaps.section_header("<"), pcaps.block("<", 1, interface.body("<"))]
    packets = pcaps.fast_retransmit()

    def written(name: str, timeless: range) -> Summary:
        file = tmp_path / name
        blocks = [
            pcaps.simple("<", packet) if at in timeless else pcaps.enhanced("<", packet, interface)
            for at, packet in enumerate(packets)
        ]
        file.write_bytes(b"".join(head + blocks))
        return summarize(file)

    whole = written("whole", range(0))
    some = written("some", range(0, len(packets), 3))
    none = written("none", range(len(packets)))
    untimed = len(range(0, len(packets), 3))
    times = [packet.time_ns for at, packet in enumerate(packets) if at % 3]
    assert [s.totals["untimed"] for s in (whole, some, none)] == [0, untimed, len(packets)]
    assert [s.totals["time_back"] for s in (whole, some, none)] == [0, 0, 0]
    assert (some.totals["first_ns"], some.totals["last_ns"]) == (min(times), max(times))
    assert (none.totals["first_ns"], none.totals["last_ns"], none.duration_ns) == (None, None, 0)
    (all_,), (part,), (bare,) = (s.flows.to_pylist() for s in (whole, some, none))
    counted = [name for name in all_ if name.endswith(("_pkts", "_bytes", "_data_pkts"))]
    assert counted
    for flow in (part, bare):
        assert {name: flow[name] for name in counted} == {name: all_[name] for name in counted}
        assert flow["history"] == all_["history"]
        assert flow["completeness"] == all_["completeness"]
    assert part["ts"] == min(times)
    assert part["duration"] == max(times) - min(times)
    assert (bare["ts"], bare["duration"], bare["orig_throughput_bps"]) == (None, None, None)
    for name in ("initial_rtt", "syn_rtt", "ack_rtt3"):
        assert bare[name] is None
        assert part[name] is None or part[name] == all_[name]
    # A sample is taken where both packets have a time, and then it is the one of the whole capture.
    rtts = {row["frame"]: row["ack_rtt_ns"] for row in whole.segments().to_pylist()}
    rows = some.segments().to_pylist()
    for row in rows:
        timeless = row["frame"] % 3 == 1
        assert (row["ts_ns"] is None) == timeless
        partner = row["acks_frame"]
        if timeless or partner is None or partner % 3 == 1:
            assert row["ack_rtt_ns"] is None
        else:
            assert row["ack_rtt_ns"] == rtts[row["frame"]]
    samples = sum(row["ack_rtt_ns"] is not None for row in rows)
    assert 0 < samples == part["orig_ack_rtt_n"] + part["resp_ack_rtt_n"]
    assert bare["orig_ack_rtt_n"] == bare["resp_ack_rtt_n"] == 0
    assert bare["orig_karn_rtt_n"] == bare["resp_karn_rtt_n"] == 0
    assert none.series().to_pylist() == []
    (note,) = (f for f in some.findings() if f.kind == "untimed")
    assert note.frames == untimed


# Damage.


@pytest.mark.parametrize(
    "name", ["handshake-ipv4", "pcapng-of-everything", "simple-packets", "pcap-nano-be", "empty"]
)
def test_every_prefix_of_a_file_summarizes(name: str, tmp_path: Path) -> None:
    data = SCENES[name]()
    whole = len(answer(data, tmp_path)["flows"])  # type: ignore[arg-type]
    file = tmp_path / "prefix"
    packets = 0
    for prefix in pcaps.prefixes(data, Random(1), 400):
        file.write_bytes(prefix)
        try:
            summary = summarize(file)
        except CaptureError:
            assert len(prefix) < 28, f"{len(prefix)} octets should be enough"
            continue
        assert summary.packets >= packets, "a longer prefix has no fewer packets"
        packets = summary.packets
        assert len(summary.flows) <= whole
        if summary.damaged:
            assert summary.warnings


@pytest.mark.parametrize("name", ["handshake-ipv4", "pcapng-of-everything"])
def test_a_cut_inside_a_record_says_where(name: str, tmp_path: Path) -> None:
    file = tmp_path / "cut"
    data = SCENES[name]()
    file.write_bytes(data[:-5])
    summary = summarize(file)
    assert summary.damaged
    assert summary.totals["truncated_at"] < len(data)
    assert any("truncated at offset" in warning for warning in summary.warnings)


def test_a_cut_gzip_gives_what_stands_before_the_cut(tmp_path: Path) -> None:
    packed = gzip.compress(SCENES["several-conversations"]())
    file = tmp_path / "cut.gz"
    file.write_bytes(packed[: len(packed) // 2])
    summary = summarize(file)
    assert summary.damaged
    assert 0 < summary.packets < 1800


@pytest.mark.needs("captures")
@pytest.mark.parametrize("file", SHARED, ids=lambda file: file.name)
def test_public_captures_summarize_in_under_a_second(file: Path) -> None:
    begun = time.process_time()
    summary = summarize(file, segments=True, checksums=True)
    summary.findings()
    assert repr(summary)
    assert summary._repr_html_()
    assert time.process_time() - begun < 1
    assert summary.damaged == any(w for w in summary.warnings if "offset" in w) or summary.warnings


@pytest.mark.needs("captures")
def test_every_prefix_of_small_public_captures_summarizes(tmp_path: Path) -> None:
    small = [file for file in SHARED if file.stat().st_size < 2500 and file.suffix != ".gz"]
    target = tmp_path / "prefix"
    for file in small:
        data = file.read_bytes()
        for prefix in pcaps.prefixes(data, Random(2), 60):
            target.write_bytes(prefix)
            try:
                summarize(target, segments=True)
            except CaptureError:
                assert len(prefix) < 28


@settings(max_examples=150)
@given(st.sampled_from(VARIED), st.integers(0, 2**32), st.integers(1, 12))
def test_damaged_octets_give_a_summary_or_our_error(name: str, seed: int, hits: int) -> None:
    import tempfile

    data, dice = bytearray(SCENES[name]()), Random(seed)
    for _ in range(hits):
        data[dice.randrange(len(data))] = dice.randrange(256)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            summary = summarize(file.name, segments=True, series_bin_ns=10**9, checksums=True)
        except CaptureError:
            return
        summary.flows.to_pylist()
        summary.findings()


def test_a_file_truncated_while_it_is_read_is_no_crash(tmp_path: Path) -> None:
    """The mapping of a file that shrinks faults: that must read as truncation, not kill us."""
    file = tmp_path / "shrinking.pcap"
    block = pcaps.pcap([p for n in range(40) for p in pcaps.handshake(client_port=1024 + n)])
    body = block[24:]
    with file.open("wb") as out:
        out.write(block)
        for _ in range(4000):
            out.write(body)
    program = (
        "import os, sys, threading\n"
        "from netlab.capture import summarize\n"
        "path = sys.argv[1]\n"
        "size = os.path.getsize(path)\n"
        "def tell(done, total, packets):\n"
        "    if os.path.getsize(path) == size: os.truncate(path, size // 3)\n"
        "    return True\n"
        "threading.Timer(0.02, lambda: os.truncate(path, size // 3)).start()\n"
        "s = summarize(path, progress=tell)\n"
        "print(s.damaged, s.packets, s.warnings)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout or "truncated" in done.stdout, done.stdout


# Arguments.


def test_what_cannot_be_asked_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_bytes(SCENES["handshake-ipv4"]())
    for wrong in ({"series_bin_ns": 0}, {"max_flows": 0}, {"semantics": "9"}):
        with pytest.raises(UsageError):
            summarize(file, **wrong)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no TCP stream 9"):
        summarize(file).segments(9)
    with pytest.raises(KeyError, match="did you mean 'stream'"):
        summarize(file).flows.column("steram")


def test_progress_can_stop_a_run(tmp_path: Path) -> None:
    class StopReading(Exception):  # noqa: N818 - no error
        pass

    def stop(done: int, size: int | None, packets: int) -> bool:
        raise StopReading

    reader, writer = os.pipe()
    data = SCENES["several-conversations"]()

    def feed() -> None:
        with os.fdopen(writer, "wb", buffering=0) as out, suppress(BrokenPipeError):
            out.write(data[:24])
            while True:
                out.write(data[24:])

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    with pytest.raises(StopReading):
        summarize(f"/dev/fd/{reader}", progress=stop)
    os.close(reader)
    thread.join(60)
    assert not thread.is_alive()


def test_a_limit_on_flows_is_kept_and_told(tmp_path: Path) -> None:
    talks = [
        pcaps.handshake(client_port=2000 + n, start_ns=pcaps.START + n * 10**9) for n in range(200)
    ]
    file = tmp_path / "many"
    file.write_bytes(pcaps.pcap(pcaps.interleaved(*talks)))
    summary = summarize(file, max_flows=16)
    kept = sum(flow.orig_pkts + flow.resp_pkts for flow in summary.flows)
    assert summary.totals["evicted_flows"] >= 200 - 16
    assert kept + summary.totals["evicted_packets"] == 2000
    assert any("forgotten" in warning for warning in summary.warnings)


def test_follow_reads_on_as_the_file_grows(tmp_path: Path) -> None:
    data = SCENES["several-conversations"]()
    file = tmp_path / "growing.pcap"
    file.write_bytes(data[:10_000])

    def grow() -> None:
        for start in range(10_000, len(data), 20_000):
            time.sleep(0.02)
            with file.open("ab") as out:
                out.write(data[start : start + 20_000])

    writer = threading.Thread(target=grow)
    writer.start()

    def until_all(done: int, size: int | None, packets: int) -> bool:
        return packets < 1800

    summary = summarize(file, follow=True, progress=until_all)
    writer.join()
    assert summary.packets == 1800


# Start-up and interchange.


def test_import_and_a_small_file_take_under_60_ms(tmp_path: Path) -> None:
    file = tmp_path / "five-thousand.pcap"
    talks = [pcaps.chatter(Random(n), 100, client_port=1024 + n) for n in range(50)]
    file.write_bytes(pcaps.pcap(pcaps.interleaved(*talks)))

    def cpu(program: str) -> float:
        """Return the least CPU time of several runs: other work on the machine does not count."""
        best = 9.0
        for _ in range(7):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", program, str(file)], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime
            best = min(best, spent - before.ru_utime - before.ru_stime)
        return best

    program = (
        "import sys; from netlab.capture import summarize;"
        "assert summarize(sys.argv[1]).packets == 5000"
    )
    # Where Python itself begins in 20 ms; a slower processor is slower in both.
    bare = cpu("pass")
    assert cpu(program) - bare < 0.06 * max(1, bare / 0.02)


def test_arrow_consumers_take_tables_as_they_are(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    nanoarrow = pytest.importorskip("nanoarrow")
    file = tmp_path / "trace"
    file.write_bytes(SCENES["mixture"]())
    summary = summarize(file)
    for table in (summary.flows, summary.segments(), summary.series()):
        rows = table.to_pylist()
        frame = polars.DataFrame(table)
        assert frame.columns == list(table.columns)
        assert frame.to_dicts() == rows
        array = nanoarrow.Array(nanoarrow.ArrayStream(table).read_all())
        assert len(array) == len(rows)


def test_an_arrow_stream_that_is_dropped_unread_is_released(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_bytes(SCENES["mixture"]())
    for _ in range(1000):
        summarize(file).flows.__arrow_c_stream__()


def test_rows_are_typed_records(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_bytes(SCENES["mixture"]())
    flows = summarize(file).flows
    by_proto = {flow.proto: flow for flow in flows}
    assert by_proto["udp"].orig_retransmission == 0
    assert by_proto["udp"]["orig_retransmission"] is None
    assert by_proto["tcp"].initial_rtt == 12_500_000
    assert flows[-1] == flows[len(flows) - 1]
    assert [flow.stream for flow in flows[:2]] == [flows[0].stream, flows[1].stream]
    assert [flow.orig_p for flow in flows.where("proto == 'tcp'")] == [40000]
    with pytest.raises(AttributeError, match="did you mean 'orig_bytes'"):
        _ = flows[0].orig_byte  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        _ = flows[len(flows)]
    with io.StringIO() as out:
        print(flows, flows[0], summarize(file), file=out)
        assert "Flow(" in out.getvalue()


def test_hostile_names_do_not_break_html(tmp_path: Path) -> None:
    file = tmp_path / "<script>alert(1)<"
    file.write_bytes(SCENES["mixture"]())
    assert "<script>" not in summarize(file)._repr_html_()
