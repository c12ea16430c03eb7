"""Runs that are kept: small, nobody's, and saying what they said."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from netlab.analysis.segments import load
from netlab.errors import RecordingError, UsageError
from netlab.labs import discovery, judge, keep
from netlab.recording import Recording
from tests.capture import pcaps
from tests.conftest import ROOT

LABS = ROOT / "labs"


def unpacked(tmp_path: Path, name: str) -> Path:
    """A run such as was kept, its files as they were before."""
    run = Path(shutil.copytree(LABS / name / "recording", tmp_path / name / "run"))
    for packed in run.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return run


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["teardown", "half-close"])
def test_what_is_kept_is_smaller_and_says_the_same(name: str, tmp_path: Path) -> None:
    lab = discovery.find(name)
    run = unpacked(tmp_path, name)
    whole = judge.check_run(lab, run)
    kept = tmp_path / "kept"
    assert keep.keep(lab, run, kept) == size(kept) < size(run)
    again = judge.check_run(lab, kept)
    assert [(c.check, c.verdict.observed) for c in again.checks] == [
        (c.check, c.verdict.observed) for c in whole.checks
    ]
    for manifest in kept.glob("*/manifest.json"):
        assert Recording.open(manifest.parent).damaged() == ()
    assert [*kept.rglob("*.gz")]
    assert not [*kept.rglob("*.journal")]


def test_packets_are_cut_behind_their_headers_or_not_at_all(tmp_path: Path) -> None:
    talk = pcaps.handshake()
    for nano in (True, False):
        content = pcaps.pcap(talk, nano=nano)
        file = tmp_path / "cut.pcap"
        file.write_bytes(content)
        whole = load(file)
        file.write_bytes(keep.cut(content, 70))
        assert load(file) == whole
        assert len(keep.cut(content, 70)) < len(content)
        assert keep.cut(content, 1 << 18)[24:] == content[24:]
    assert keep.cut(b"no capture", 70) == b"no capture"


def test_a_check_that_reads_the_data_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # segment-anatomy accounts for every octet of every packet.
    monkeypatch.setattr(keep, "SNAPLEN", 40)
    lab = discovery.find("segment-anatomy")
    run = unpacked(tmp_path, "segment-anatomy")
    keep.keep(lab, run, tmp_path / "kept")
    before = Recording.open(run / "live").file("captures/client.eth0.pcap").read_bytes()
    after = Recording.open(tmp_path / "kept" / "live").file("captures/client.eth0.pcap")
    assert gzip.decompress(after.read_bytes()) == before


def test_a_run_that_is_too_large_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    lab = discovery.find("teardown")
    run = unpacked(tmp_path, "teardown")
    target = tmp_path / "kept"
    keep.keep(lab, run, target)
    noise = "".join(f"{n * 7919 % 1000003:x}" for n in range(200_000))
    (run / "at-once" / "noise.txt").write_text(noise)
    with pytest.raises(UsageError, match=r"at most; the largest file is at-once/noise"):
        keep.keep(lab, run, target, replace_existing=True)
    assert judge.check_run(lab, target).exit_code() == 0
    assert not target.with_name(".kept.new").exists()


@pytest.mark.parametrize("folder", sorted(LABS.glob("*/recording")), ids=lambda p: p.parent.name)
def test_every_recording_that_comes_with_a_lab_is_small(folder: Path) -> None:
    assert size(folder) <= keep.LARGEST, "netlab lab keep"


def test_compressed_files_are_read_under_their_own_names(tmp_path: Path) -> None:
    run = unpacked(tmp_path, "teardown")
    path = run / "at-once"
    plain = Recording.open(path)
    files, text = plain.files("snapshots/*"), plain.text("timeline.jsonl")
    for file in [*path.glob("snapshots/*.txt"), *path.glob("*.jsonl")]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert plain.files("snapshots/*") == files
    assert plain.text("timeline.jsonl") == text
    assert plain.has("timeline.jsonl")
    assert not plain.has("nothing.jsonl")
    (path / "timeline.jsonl.gz").write_bytes(b"\x1f\x8bdamaged")
    with pytest.raises(RecordingError, match="cannot be read"):
        plain.text("timeline.jsonl")


def test_what_only_programs_read_is_left_out_of_the_verdicts(tmp_path: Path) -> None:
    lab = discovery.find("teardown")
    run = unpacked(tmp_path, "teardown")
    keep.keep(lab, run, tmp_path / "kept")
    checks = json.loads((tmp_path / "kept" / "checks.json").read_text())["checks"]
    assert checks
    assert {check["verdict"]["value"] for check in checks} == {None}
