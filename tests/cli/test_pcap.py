"""`netlab pcap` as a user meets it: output, forms, bad input, exit codes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from netlab.cli.pcap import pcap
from tests.capture import pcaps
from tests.capture.scenes import SCENES
from tests.cli import called
from tests.conftest import CAPTURES


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.pcap"
    path.write_bytes(SCENES["lossy-ipv4-sender-1"]())
    return path


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Sixty connections."""
    talks = [pcaps.handshake(client_port=40000 + n, start_ns=pcaps.START + n) for n in range(60)]
    path = tmp_path / "many.pcap"
    path.write_bytes(pcaps.pcap(pcaps.interleaved(*talks)))
    return path


def netlab(*arguments: str | Path, width: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = {} if width is None else {"COLUMNS": str(width)}
    return called.netlab("pcap", *arguments, **environment)


def piped(*arguments: str, input: bytes) -> str:
    """Run a command line on a pipe, which the core reads by its descriptor; return the output."""
    done = subprocess.run(
        [sys.executable, "-m", "netlab", "pcap", *arguments], capture_output=True, input=input
    )
    return done.stdout.decode()


@pytest.mark.needs("captures")
def test_each_public_capture_is_summarized_within_a_second(record_property: object) -> None:
    """Odd and broken files included: status 0, or a warning on stderr that says what is wrong."""
    assert callable(record_property)
    took: dict[str, float] = {}
    for file in sorted(f for f in CAPTURES.iterdir() if f.name != "README.md"):
        before = time.process_time()
        done = CliRunner().invoke(pcap, ["summary", str(file)])
        took[file.name] = time.process_time() - before
        assert done.exit_code == 0, f"{file.name}: {done.output}"
    assert took
    slowest = max(took, key=lambda name: took[name])
    record_property("slowest summary", {slowest: round(took[slowest], 3)})
    assert took[slowest] < 1, f"{slowest} took {took[slowest]:.2f} s of CPU"


def test_summary_says_what_stands_out_with_its_display_filter(trace: Path) -> None:
    done = netlab("summary", trace)
    assert done.returncode == 0, done.stderr
    assert "819 packets, 623 kB" in done.stdout
    text = " ".join(done.stdout.split())
    assert re.search(r"\d+ segments of stream 0 were retransmitted, all by 10.0.0.1:40000", text)
    assert "tcp.stream == 0 && tcp.analysis.retransmission" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["summary", "flows", "segments", "series", "columns"])
@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_line_is_wider_than_the_terminal(command: str, width: int, trace: Path) -> None:
    short = trace.parent / "t.pcap"
    short.write_bytes(trace.read_bytes())
    where = ("flows",) if command == "columns" else ("t.pcap",)
    done = called.netlab("pcap", command, *where, cwd=trace.parent, COLUMNS=str(width))
    assert done.returncode == 0, done.stderr
    longest = max(done.stdout.splitlines(), key=len)
    if command != "columns":  # its meanings are sentences, cut only so far
        assert len(click.unstyle(longest)) <= width, longest


def test_summary_as_json_holds_everything(trace: Path) -> None:
    found = json.loads(netlab("summary", trace, "--json").stdout)
    assert found["totals"]["packets"] == 819
    assert found["flows"][0]["orig_p"] == 40000
    kinds = {finding["kind"] for finding in found["findings"]}
    assert {"retransmission", "duplicate_ack"} <= kinds


@pytest.mark.parametrize("command", ["flows", "segments", "series"])
def test_csv_and_json_hold_the_same(command: str, trace: Path) -> None:
    rows = json.loads(netlab(command, trace, "--json").stdout)
    table = list(csv.DictReader(io.StringIO(netlab(command, trace, "--csv").stdout)))
    assert len(rows) == len(table) > 0
    assert list(rows[0]) == list(table[0])
    plain = {name: "" if value is None else str(value) for name, value in rows[0].items()}
    plain = {k: v for k, v in plain.items() if not v.startswith("[")}
    assert {name: table[0][name] for name in plain} == plain


def test_parquet_holds_the_rows_asked_for(many: Path, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    out = tmp_path / "flows.parquet"
    done = netlab("flows", many, "--parquet", out, "--where", "orig_p >= 40050", "--columns",
                  "orig_p,resp_p")  # fmt: skip
    assert done.returncode == 0, done.stderr
    frame = polars.read_parquet(out)
    assert frame.columns == ["orig_p", "resp_p"]
    assert frame["orig_p"].to_list() == list(range(40050, 40060))


def test_parquet_without_polars_is_one_sentence(many: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['polars'] = None; from netlab.cli import main;"
        f"sys.argv = ['netlab', 'pcap', 'flows', {str(many)!r}, '--parquet', 'x']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: writing Parquet needs polars; pip install 'netlab-tcpip[parquet]'"
    )


def test_sort_and_where_choose_rows(many: Path) -> None:
    arguments = ("--where", "port == 40007 or port > 40057", "--sort", "orig_p", "--json",
                 "--columns", "orig_p")  # fmt: skip
    found = json.loads(netlab("flows", many, *arguments).stdout)
    assert [row["orig_p"] for row in found] == [40059, 40058, 40007]
    found = json.loads(netlab("flows", many, *arguments, "--ascending", "--top", "1").stdout)
    assert [row["orig_p"] for row in found] == [40007]


def test_summary_shows_the_largest_flows_and_says_how_many_it_hides(many: Path) -> None:
    done = netlab("summary", many)
    assert len(re.findall(r"^tcp \d+", done.stdout, re.MULTILINE)) == 10
    assert "50 more flows" in done.stdout
    assert "more flows" not in netlab("summary", many, "--all").stdout


def test_segments_of_one_stream(many: Path) -> None:
    found = json.loads(netlab("segments", many, "--stream", "59", "--json").stdout)
    assert len(found) == 10
    assert {row["stream"] for row in found} == {59}


def test_series_bins_add_up(trace: Path) -> None:
    found = json.loads(netlab("series", trace, "--bin", "50ms", "--json").stdout)
    assert sum(row["pkts"] for row in found) == 819


def test_reading_from_a_pipe_and_compressed_is_the_same(trace: Path, tmp_path: Path) -> None:
    plain = json.loads(netlab("summary", trace, "--json").stdout)["flows"]
    data = trace.read_bytes()
    whole = json.loads(piped("summary", "-", "--json", input=data))["flows"]
    packed = tmp_path / "t.pcap.gz"
    packed.write_bytes(gzip.compress(data))
    unpacked = json.loads(netlab("summary", packed, "--json").stdout)["flows"]
    assert plain == whole == unpacked
    segments = json.loads(piped("segments", "-", "--json", input=data))
    assert len(segments) == 819


WRONG = {
    "missing": ("nothing.pcap", "No such file or directory"),
    "directory": (".", "is a directory, not a capture"),
    "empty": ("empty", "the file is empty"),
    "binary": ("binary", "this is a program, not a pcap or pcapng capture"),
    "text": ("text", "this is text, not a pcap or pcapng capture"),
    "nul": ("a\udcffb", "No such file or directory"),
}


@pytest.mark.parametrize("command", ["summary", "flows", "segments", "series"])
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_capture_is_one_sentence_and_status_2(
    command: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "binary").write_bytes(b"\x7fELF" + bytes(100))
    (tmp_path / "text").write_text("hello\n" * 9)
    name, sentence = WRONG[kind]
    done = netlab(command, os.fsdecode(os.fsencode(tmp_path / name)))
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_cut_capture_gives_what_stands_before_the_cut_and_status_3(
    trace: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(trace.read_bytes()[:5000])
    for command in ("summary", "flows", "segments", "series"):
        done = netlab(command, cut)
        assert done.returncode == 3, done.stderr
        assert "warning: " in done.stderr
        assert "truncated at offset" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout
    assert netlab("flows", cut, "--json").returncode == 3


BAD_ARGUMENTS = {
    ("--where", "nosuch > 1"): "there is no column 'nosuch'",
    ("--where", "orig_pkt > 1"): "did you mean 'orig_pkts'?",
    ("--where", "orig_pkts >"): "something is missing at the end",
    ("--sort", "orig_pktz"): "did you mean 'orig_pkts'?",
    ("--columns", "orig_pkts,resp_pkt"): "did you mean 'resp_pkts'?",
    ("--columns", ","): "--columns names no column",
    ("--top", "0"): "0 is not in the range",
    ("--semantics", "9"): "'9' is not one of",
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_wrong_arguments_are_explained(arguments: tuple[str, ...], trace: Path) -> None:
    done = netlab("flows", trace, *arguments)
    assert done.returncode == 2
    assert BAD_ARGUMENTS[arguments] in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_wrong_bins_and_streams_are_explained(trace: Path) -> None:
    for value in ("5", "0s", "-1s", "nonsense"):
        done = netlab("series", trace, f"--bin={value}")
        assert done.returncode == 2
        assert "100ms" in done.stderr or "20ms" in done.stderr
    for command in ("segments", "series"):
        done = netlab(command, trace, "--stream", "7")
        assert done.returncode == 2
        assert "there is no TCP stream 7" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_file_in_place_of_a_command_gets_a_hint(trace: Path) -> None:
    assert "did you mean 'netlab pcap summary" in netlab(trace).stderr
    assert "did you mean 'summary'?" in netlab("sumary").stderr


def test_a_reader_that_goes_away_is_no_error(many: Path) -> None:
    command = f"{sys.executable} -m netlab pcap segments {many} --json | head -c 100"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def _in_terminal(*argv: str, columns: int = 100) -> str:
    """Run a command on a pseudo-terminal; return what it shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("COLUMNS", None)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.execv(sys.executable, [sys.executable, "-m", "netlab", "pcap", *argv])
    text = b""
    while select.select([terminal], [], [], 30)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        text += data
    os.waitpid(pid, 0)
    os.close(terminal)
    return text.decode()


def test_a_terminal_gets_the_first_rows_and_colours(many: Path) -> None:
    text = _in_terminal("flows", str(many), columns=90)
    assert "20 more flows" in text
    assert max(len(click.unstyle(line)) for line in text.splitlines()) <= 90
    assert "\x1b[" in text


def test_no_color_is_obeyed(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in _in_terminal("summary", str(trace))


def test_help_of_the_group_lists_every_command() -> None:
    text = netlab("--help").stdout
    for name in ("summary", "flows", "segments", "series", "columns"):
        assert name in text


def test_filter_writes_the_packets_asked_for(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcapng"
    done = netlab("filter", many, out, "port 40007 and not syn")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"8 of 600 packets written to {out}\n"
    found = json.loads(netlab("flows", out, "--json").stdout)
    assert [(row["orig_p"], row["orig_pkts"] + row["resp_pkts"]) for row in found] == [(40007, 8)]
    assert netlab("filter", many, out, "--stream", "3", "--stream", "4").stderr.startswith("20 of")
    assert netlab("filter", many, out, "--frames", "1-20,35").stderr.startswith("21 of")
    assert netlab("filter", many, out, "--where", "port > 40057").stderr.startswith("20 of")


def test_merge_puts_packets_in_order_of_time(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        file = tmp_path / f"{number}.pcap"
        packets = pcaps.handshake(client_port=40000 + number, start_ns=pcaps.START + number)
        file.write_bytes(pcaps.pcap(packets, nano=True))
        files.append(file)
    out = tmp_path / "merged.pcapng"
    assert netlab("merge", *files, "-o", out).returncode == 0
    summary = json.loads(netlab("summary", out, "--json").stdout)
    assert summary["totals"]["packets"] == 30
    assert summary["totals"]["time_back"] == 0


FILTERS = {
    ("prt 80",): "'prt' is not understood",
    (): "no condition; give an EXPRESSION",
    ("--frames", "0"): "is no range of frames",
    ("--frames", "x"): "is no frame number; write 1-20,35",
    ("--where", "nosuch"): "there is no column 'nosuch'",
}


@pytest.mark.parametrize("arguments", FILTERS)
def test_wrong_filters_are_explained(
    arguments: tuple[str, ...], many: Path, tmp_path: Path
) -> None:
    done = netlab("filter", many, tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert FILTERS[arguments] in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_its_own_input(many: Path) -> None:
    before = many.read_bytes()
    for arguments in (("filter", many, many, "tcp"), ("merge", many, "-o", many)):
        done = netlab(*arguments)
        assert done.returncode == 2
        assert "is also the input" in done.stderr
    assert many.read_bytes() == before


def test_merge_of_what_is_no_capture_leaves_nothing(many: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    out = tmp_path / "out"
    for wrong in ("text", "missing"):
        done = netlab("merge", many, tmp_path / wrong, "-o", out)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("out")] == []
