"""Recordings survive crashes, full disks and sudo."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.errors import DiskFullError, RecordingError
from netlab.recording import Manifest, Recording
from netlab.recording import manifest as manifests
from netlab.recording import timeline as timelines
from netlab.recording.manifest import FileDigest
from netlab.recording.ownership import calling_user


def ticking() -> Iterator[int]:
    now = 1_000_000_000_000_000_000
    while True:
        now += 1
        yield now


def test_a_closed_recording_is_complete_and_every_file_has_its_digest(tmp_path: Path) -> None:
    with Recording.create(tmp_path, "demo", "ipv4") as writer:
        writer.event("note", text="hello")
        writer.file("captures/client.eth0.pcap").write_bytes(b"abc")
        writer.write_text("snapshots/x.client.ss.txt", "State")
        writer.note(kernel="6.1", sysctls={"client": {"net.ipv4.tcp_sack": "1"}})
    recording = Recording.open(writer.path)
    assert recording.complete
    assert recording.manifest.kernel == "6.1"
    assert set(recording.manifest.files) == {
        "captures/client.eth0.pcap",
        "snapshots/x.client.ss.txt",
        "timeline.jsonl",
    }
    assert recording.damaged() == ()
    assert [event.fields["text"] for event in recording.timeline()] == ["hello"]
    assert (tmp_path / "demo" / "latest").resolve() == writer.path.resolve()
    assert not list(writer.path.glob(".*"))


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    with Recording.create(tmp_path, "demo") as writer:
        writer.write_text("a.txt", "a")
        writer.write_text("b.txt", "b")
    (writer.path / "a.txt").write_text("A")
    (writer.path / "b.txt").unlink()
    assert Recording.open(writer.path).damaged() == ("a.txt", "b.txt")


def test_an_exception_marks_the_recording_interrupted_with_the_reason(tmp_path: Path) -> None:
    writer = Recording.create(tmp_path, "demo")
    with pytest.raises(RuntimeError, match="boom"), writer:
        raise RuntimeError("boom\nand a long story")
    recording = Recording.open(writer.path)
    assert recording.manifest.status == "interrupted"
    assert recording.manifest.reason == "boom"


def test_sigkill_leaves_a_readable_recording_that_is_not_complete(tmp_path: Path) -> None:
    program = (
        "import os,signal,sys,pathlib\n"
        "from netlab.recording import Recording\n"
        "w = Recording.create(pathlib.Path(sys.argv[1]), 'demo', 'ipv4')\n"
        "w.event('note')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    recording = Recording.open(tmp_path / "demo" / "latest")
    assert not recording.complete
    assert recording.manifest.status == "running"
    assert len(recording.timeline()) == 1


def test_two_runs_in_one_second_do_not_meet(tmp_path: Path) -> None:
    clock = ticking().__next__
    paths = [Recording.create(tmp_path, "demo", "a", clock=clock).path.name for _ in range(3)]
    assert paths == ["20010909T014640Z-a", "20010909T014640Z-a-2", "20010909T014640Z-a-3"]


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    Recording.create_at(tmp_path / "x", "demo").close()
    with pytest.raises(RecordingError, match="already holds"):
        Recording.create_at(tmp_path / "x", "demo")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../b", ""])
def test_a_path_that_leaves_the_recording_is_refused(tmp_path: Path, name: str) -> None:
    writer = Recording.create(tmp_path, "demo")
    with pytest.raises(ValueError, match="not a path inside"):
        writer.file(name)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is not a recording: it has no manifest.json"),
        ("", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "run: Field required"),
        ('{"run": "r", "lab": "l", "schema": 99}', "schema 99 is newer"),
        ('{"run": "r", "lab": "l", "status": "done"}', "status: Input should be"),
    ],
)
def test_what_is_not_a_recording_gets_one_sentence(
    tmp_path: Path, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RecordingError, match=says) as caught:
        Recording.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folders_and_plain_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="there is no recording at"):
        Recording.open(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"\x00\xff")
    with pytest.raises(RecordingError, match="is a file; a recording is a directory"):
        Recording.open(tmp_path / "file")
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordingError, match="cannot be read"):
        Recording.open(tmp_path)


def test_a_torn_last_line_is_no_event_and_a_torn_middle_is_an_error() -> None:
    good = timelines.Event(5, "note", {"a": 1}).line()
    assert len(timelines.parse(good + '{"at_ns": 6, "ki')) == 1
    with pytest.raises(ValueError, match="line 1"):
        timelines.parse("{torn\n" + good)


def test_phases_keep_their_order_and_an_open_one_has_no_end() -> None:
    events = (
        timelines.Event(1, "phase-start", {"phase": "idle"}),
        timelines.Event(2, "phase-end", {"phase": "idle"}),
        timelines.Event(3, "phase-start", {"phase": "loaded"}),
    )
    assert timelines.phases(events) == (
        timelines.Phase("idle", 1, 2),
        timelines.Phase("loaded", 3, None),
    )


@given(
    st.builds(
        Manifest,
        run=st.text(),
        lab=st.text(),
        variation=st.none() | st.text(),
        status=st.sampled_from(["running", "complete", "interrupted"]),
        started_ns=st.integers(0, 2**62),
        seeds=st.dictionaries(st.text(), st.integers(0, 2**31)),
        options=st.dictionaries(st.text(), st.booleans() | st.integers(-9, 9) | st.text()),
        fidelity_reasons=st.lists(st.text()).map(tuple),
        files=st.dictionaries(st.text(), st.builds(FileDigest, st.integers(0), st.just("00"))),
    )
)
def test_a_manifest_reads_back_as_it_was(manifest: Manifest) -> None:
    assert manifests.parse(manifest.text()) == manifest


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_give_a_manifest_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        manifests.parse(data.decode("utf-8", "replace"))


def test_a_full_disk_is_one_sentence_and_the_recording_says_interrupted(tmp_path: Path) -> None:
    program = """
import pathlib, resource, signal, sys
from netlab.errors import DiskFullError
from netlab.recording import Recording
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
w = Recording.create(pathlib.Path(sys.argv[1]), 'demo')
resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
try:
    with w:
        for _ in range(9):
            w.event('note', text='x' * 30)
except DiskFullError as error:
    print(error, error.exit_code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("no space left for the recording")
    assert done.stdout.strip().endswith("5")
    recording = Recording.open(tmp_path / "demo" / "latest")
    assert recording.manifest.status == "interrupted"
    assert "disk was full" in recording.manifest.reason
    recording.timeline()


def test_a_full_disk_while_closing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Recording.create(tmp_path, "demo")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, old[1]))
    try:
        with pytest.raises(DiskFullError):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert json.loads((writer.path / "manifest.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("environment", "uid", "owner"),
    [
        ({"SUDO_UID": "1000", "SUDO_GID": "100"}, 0, (1000, 100)),
        ({"SUDO_UID": "1000", "SUDO_GID": "100"}, 1000, None),
        ({"SUDO_UID": "0", "SUDO_GID": "0"}, 0, None),
        ({"SUDO_UID": "me", "SUDO_GID": "100"}, 0, None),
        ({}, 0, None),
    ],
)
def test_the_calling_user_is_the_one_behind_sudo(
    environment: dict[str, str], uid: int, owner: tuple[int, int] | None
) -> None:
    assert calling_user(environment, uid) == owner


@pytest.mark.needs("root")
def test_under_sudo_everything_made_belongs_to_the_calling_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    target = tmp_path / "elsewhere"
    target.write_text("not ours")
    with Recording.create(tmp_path / "results", "demo") as writer:
        writer.file("nodes/client/x.stdout.log").write_text("x")
        (writer.path / "link").symlink_to(target)
    everything = [tmp_path / "results", *(tmp_path / "results").rglob("*")]
    assert {os.lstat(path).st_uid for path in everything} == {65534}
    assert target.stat().st_uid == 0


@pytest.mark.needs("root")
@pytest.mark.parametrize("room", ["4k", "8k", "12k"])
def test_where_there_is_room_for_one_manifest_it_does_not_say_running(
    tmp_path: Path, room: str
) -> None:
    """The folders of a tmpfs take no page, each file takes one."""
    program = (
        "import pathlib, sys\nfrom netlab.errors import DiskFullError\n"
        "from netlab.recording import Recording\n"
        "try:\n"
        "    with Recording.create(pathlib.Path(sys.argv[1]), 'demo') as w:\n"
        "        w.note(fidelity='ok')\n"
        "        (w.path / 'data').write_bytes(bytes(65536))\n"
        "except DiskFullError as error:\n    print(error)\n"
    )
    inner = (
        f'mount -t tmpfs -o size={room} none {tmp_path} && "$@" && '
        f"cat {tmp_path}/demo/*/manifest.json"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inner, "sh", sys.executable, "-c", program, tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "no space left for the recording" in done.stdout, done.stderr
    assert '"status": "interrupted"' in done.stdout
    assert '"fidelity": "ok"' not in done.stdout


def test_nobody_vouches_for_what_an_interrupted_run_saw(tmp_path: Path) -> None:
    writer = Recording.create(tmp_path, "demo")
    writer.note(fidelity="ok", fidelity_reasons=("why",))
    writer.close(reason="it went wrong")
    manifest = Recording.open(writer.path).manifest
    assert (manifest.status, manifest.fidelity, manifest.fidelity_reasons) == (
        "interrupted", "unknown", (),
    )  # fmt: skip
