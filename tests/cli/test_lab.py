"""`netlab lab`, as root and as an ordinary user: what is printed, and what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netlab.labs import discovery
from tests.cli import called
from tests.cli.person import NOBODY, Person, ordinary_prefix, without_what_python_forgets
from tests.conftest import ROOT
from tests.labs.believed import believe

LIVE = pytest.mark.needs("netns", "userns", "tcpdump", "ss", "nft")
UNDELAYED = ("--variation", "ipv4", "--variation", "ipv6")
PASSED = (0, 3)
"""3: it passed, and the machine was busy meanwhile (fidelity `suspect`)."""
TIMED = {"the_syn_ack_comes_after_one_rtt", "a_handshake_measures_the_idle_rtt"}


@pytest.fixture(params=["self", "ordinary"])
def person(request: pytest.FixtureRequest) -> Iterator[Person]:
    if request.param == "self":
        who = Person((sys.executable, "-W", "error"), uid=os.geteuid())
    else:
        prefix = ordinary_prefix()
        if os.geteuid() != 0 or prefix is None:
            pytest.skip("no other user to be")
        who = Person(prefix, uid=NOBODY)
    try:
        yield who
    finally:
        who.close()


def netlab(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-m", "netlab", "lab", *arguments)
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=280, cwd=ROOT, **more
    )


def test_the_labs_are_listed_for_people_and_programs() -> None:
    text = called.netlab("lab", "list").stdout
    assert "handshake" in text.splitlines()[[x[:9] for x in text.splitlines()].index("handshake")]
    found = json.loads(called.netlab("lab", "list", "--json").stdout)
    assert [item["name"] for item in found] == list(discovery.names())
    (handshake,) = (item for item in found if item["name"] == "handshake")
    assert list(handshake["variations"])[:2] == ["ipv4", "ipv6"]


def test_a_guide_is_shown_with_its_figures() -> None:
    done = called.netlab("lab", "show", "handshake")
    assert done.returncode == 0
    assert done.stdout.startswith("# The three-way handshake")
    assert "{{" not in done.stdout
    assert "Planted faults" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run",), "name the labs to run, or say --all"),
        (("run", "handshake", "--all"), "name the labs to run, or say --all"),
        (("run", "handshaek"), "there is no lab called 'handshaek'; did you mean 'handshake'?"),
        (("run", "handshake", "--variation", "ipv5"), "lab handshake has no variation 'ipv5'"),
        (
            ("run", "handshake", "teardown", "--variation", "clientfirst"),
            "none of these labs has a variation 'clientfirst'; did you mean 'client-first'?",
        ),
        (("run", "--all", "--variation", "?"), "none of these labs has a variation '?'"),
        (("show", "nothing"), "there is no lab called 'nothing'"),
        (("list", "--labs", "nowhere"), "there is no folder of labs at nowhere"),
        (("check", "nowhere"), "there is no recording at nowhere"),
        (("check", "README.md"), "README.md is a file; a recording is a directory"),
        (("check", "docs"), "docs is not a recording: it has no manifest.json"),
        (("run", "docs/"), "docs/ is not the folder of a lab"),
        (("keep", "nowhere"), "there is no recording at nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_2(arguments: tuple[str, ...], says: str) -> None:
    done = called.netlab("lab", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_recording_is_checked_without_privileges(person: Person) -> None:
    folder = discovery.place() / "handshake" / "recording"
    done = person.run("lab", "check", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    (result,) = [json.loads(done.stdout)]
    assert {c["verdict"]["outcome"] for c in result["checks"]} == {"pass"}
    text = person.ok("lab", "check", str(folder / "ipv4"))
    assert "SYN then SYN-ACK then ACK" in text
    assert "mss=1460" in text


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_verdicts_fit_the_terminal_and_need_no_colour(columns: str) -> None:
    folder = discovery.place() / "handshake" / "recording"
    done = called.netlab("lab", "check", folder, COLUMNS=columns, NO_COLOR="1")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert all(len(line) <= int(columns) for line in done.stdout.splitlines()[1:])


def test_a_terminal_without_unicode_gets_ascii_arrows() -> None:
    folder = discovery.place() / "handshake" / "recording"
    done = netlab("check", str(folder), env={**os.environ, "PYTHONIOENCODING": "ascii:replace"})
    assert done.returncode == 0
    assert "-->|" in done.stdout
    assert "?" not in done.stdout.split("The segments of")[1]


def test_a_changed_recording_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(discovery.place() / "handshake" / "recording", copy)
    (copy / "ipv4/nodes/client/connect.stdout.log").write_text('received text="hello"\n')
    done = called.netlab("lab", "check", copy)
    assert done.returncode == 2
    assert "was changed after it was recorded: ipv4/nodes/client/connect.stdout.log" in done.stderr


@LIVE
def test_the_undelayed_handshake_passes_for_everybody_and_skips_nothing(person: Person) -> None:
    results = person.folder / "results"
    done = person.run("lab", "run", "handshake", *UNDELAYED, "--results", str(results), timeout=280)
    if done.returncode == 6:
        believe(results, "handshake")
    assert done.returncode in PASSED, done.stdout + done.stderr
    assert "16 checks: 16 passed" in done.stdout
    assert "SYN-ACK seq=0 ack=1" in done.stdout
    assert "running" not in done.stdout
    assert "handshake ipv4: running" in done.stderr
    run = (results / "handshake" / "latest").resolve()
    assert (run / "junit.xml").is_file()
    stated = json.loads((run / "checks.json").read_text())
    assert [v["status"] for v in stated["variations"]] == ["ran", "ran"]
    manifest = json.loads((run / "ipv4" / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["sysctls"]["client"]["net.ipv4.tcp_no_metrics_save"] == "1"
    owners = {path.lstat().st_uid for path in results.rglob("*")}
    assert owners == {NOBODY if person.ordinary else os.geteuid()}
    again = person.run("lab", "check", str(run))
    assert again.returncode == done.returncode
    assert "16 checks: 16 passed" in again.stdout


@LIVE
def test_a_delayed_handshake_passes_for_everybody_on_the_wire(person: Person) -> None:
    results = person.folder / "results"
    words = ("--variation", "rtt-100ms", "--impair", "wire", "--results", str(results))
    done = person.run("lab", "run", "handshake", *words, timeout=280)
    if done.returncode in (1, 6):
        believe(results, "handshake", timed=TIMED)
    assert done.returncode in PASSED, done.stdout + done.stderr
    assert ("fidelity suspect" in done.stdout) == (done.returncode == 3)
    assert "10 checks: 10 passed" in done.stdout
    recording = results / "handshake" / "latest" / "rtt-100ms"
    manifest = json.loads((recording / "manifest.json").read_text())
    assert (manifest["backend"], manifest["backends"]) == ("wire", {"wire": "wire"})
    assert {"wire/wire.journal", "wire/wire.json"} <= set(manifest["files"])


@LIVE
def test_every_planted_fault_breaks_the_check_it_names(tmp_path: Path) -> None:
    done = netlab("run", "handshake", *UNDELAYED, "--faults", "--results", str(tmp_path), "--json")
    (result,) = json.loads(done.stdout)
    assert len(result["faults"]) == 8
    # Where the machine was too busy to be believed nothing is claimed, and the result says so.
    unsure = [fault for fault in result["faults"] if fault["outcome"] == "inconclusive"]
    assert all("not faithful" in fault["reason"] for fault in unsure)
    assert {fault["outcome"] for fault in result["faults"] if fault not in unsure} == {"pass"}
    assert done.returncode in ((6,) if unsure else PASSED), done.stdout + done.stderr


@LIVE
@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGINT, 0.0), (signal.SIGINT, 0.3), (signal.SIGTERM, 0.6), (signal.SIGINT, 1.5)],
)
def test_an_interrupt_at_any_moment_leaves_nothing_behind(
    tmp_path: Path, number: int, after: float
) -> None:
    who = Person((sys.executable, "-W", "error"), uid=os.geteuid())
    process = who.start("lab", "run", "handshake", *UNDELAYED, "--results", str(tmp_path))
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert "running" in first
        recording = tmp_path / "handshake/latest/ipv4/manifest.json"
        until(lambda: recording.exists() or not after)
        time.sleep(after)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, out + err
        assert "Traceback" not in without_what_python_forgets(err), err
        if recording.exists() or after:
            wanted = {"interrupted"} if after < 1 else {"interrupted", "complete"}
            if "handshake ipv4: ran for" in err:
                wanted = {"complete"}
            assert json.loads(recording.read_text())["status"] in wanted
        assert list(who.state.glob("*/state.json")) == []
        until(lambda: not _processes_about(str(tmp_path)))
    finally:
        process.kill()
        process.communicate()
        who.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _processes_about(text: str) -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if text in words:
                found.append(words)
    return found


@LIVE
def test_what_is_missing_is_a_reason_to_skip_and_4(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program = (
        "import shutil, sys\n"
        "real = shutil.which\n"
        "shutil.which = lambda name, *a, **k: None if name == 'tcpdump' else real(name, *a, **k)\n"
        "sys.argv[0] = 'netlab'\n"
        "from netlab.cli import main\n"
        "main()\n"
    )
    argv = ("lab", "run", "handshake", "--variation", "ipv4", "--results", str(tmp_path / "r"))
    done = subprocess.run(
        (sys.executable, "-c", program, *argv),
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=200,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "tcpdump is not installed; apt-get install tcpdump" in done.stdout
    assert "8 checks: 8 skipped" in done.stdout


@LIVE
@pytest.mark.needs("root")
@pytest.mark.parametrize("room", ["40k", "64k"])
def test_a_full_disk_is_one_sentence_and_5(tmp_path: Path, room: str) -> None:
    results = tmp_path / "results"
    results.mkdir()
    inner = (
        f'mount -t tmpfs -o size={room} none {results} && "$@"; code=$?; '
        f"cat {results}/handshake/latest/*/manifest.json; exit $code"
    )
    argv = (sys.executable, "-m", "netlab", "lab", "run", "handshake", "--variation", "ipv4")
    done = subprocess.run(
        ("unshare", "--mount", "sh", "-c", inner, "sh", *argv, "--results", str(results)),
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=200,
    )  # fmt: skip
    assert done.returncode == 5, done.stdout + done.stderr
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"status": "interrupted"' in done.stdout
