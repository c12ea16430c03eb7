"""`netlab lab learn`: a guide from its first step to its last, on pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from netlab.labs import discovery, guide
from tests.cli import called
from tests.conftest import ROOT

TRANSCRIPTS = ROOT / "docs" / "transcripts"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    chosen = {"XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "80", "NO_COLOR": "1"}
    return {**os.environ, "PYTHONUTF8": "1", **chosen, **more}


def learn(
    tmp_path: Path, *arguments: str, lines: tuple[str, ...] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    typed = "".join(f"{line}\n" for line in lines)
    if "PYTHONIOENCODING" not in more:
        env = environment(tmp_path, **more)
        return called.netlab("lab", "learn", *arguments, input=typed, **env)
    return subprocess.run(
        (sys.executable, "-W", "error", "-m", "netlab", "lab", "learn", *arguments),
        input=typed, capture_output=True, text=True, check=False, timeout=100, cwd=ROOT,
        env=environment(tmp_path, **more), encoding="utf-8",
    )  # fmt: skip


def saved(tmp_path: Path, lab: str) -> dict[str, object]:
    return json.loads((tmp_path / "state" / "netlab" / "learn" / f"{lab}.json").read_text())


# What two learners type; where the lab would run they take the recording that comes with it, so
# that what is printed is the same everywhere.
TYPED = {
    "handshake": (
        "", "", "b", "b", "hint", "a", "c", "0.1 s", "recording", "", "", "syn-recv", "rtt-100ms",
        "", "An old SYN would open a connection that nobody wants.", "",
        "The network may only be slow.", "steps", "", "",
    ),
    "pmtu-black-hole": (
        "", "", "b", "hint", "c", "a", "2 s", "c", "recording", "", "black-hole", "",
        "hint", "", "On the server.", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lab", sorted(TYPED))
def test_the_transcripts_are_what_a_learner_sees(
    lab: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    done = learn(tmp_path, lab, lines=TYPED[lab])
    assert done.returncode == 0, done.stderr
    text = "\n".join(line.rstrip() for line in done.stdout.split("\n")).rstrip("\n")
    text = f"$ netlab lab learn {lab}\n{text}\n"
    golden = TRANSCRIPTS / f"{lab}.txt"
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert f"That was {lab}." in text
    assert text == golden.read_text(encoding="utf-8"), "make golden"


def test_a_learner_goes_on_where_the_last_session_ended(tmp_path: Path) -> None:
    first = learn(tmp_path, "teardown", lines=("", "4", "quit"))
    assert first.returncode == 0
    assert "goes on from here" in first.stderr
    question = guide.load(discovery.find("teardown")).of("predict")[0].question
    assert question is not None
    assert saved(tmp_path, "teardown")["answers"] == {question.text: "4"}
    second = learn(tmp_path, "teardown", lines=("back", "quit"))
    assert "You are at step 3" in second.stdout
    assert "Your answer so far: 4" in second.stdout
    assert saved(tmp_path, "teardown")["step"] == 1


def test_the_end_of_the_input_is_no_error_and_loses_nothing(tmp_path: Path) -> None:
    done = learn(tmp_path, "teardown", lines=("", "4"))
    assert done.returncode == 0
    assert saved(tmp_path, "teardown")["step"] == 2
    assert "Traceback" not in done.stderr


def test_steps_can_be_jumped_to_and_begun_anew(tmp_path: Path) -> None:
    done = learn(tmp_path, "teardown", "--step", "6", lines=("go 2", "4", "restart", "quit"))
    assert "6/" in done.stdout
    assert saved(tmp_path, "teardown") == {"schema": 1, "step": 0, "answers": {}, "run": ""}
    again = learn(tmp_path, "teardown", "--restart", lines=("go 99", "nonsense")).stdout
    for says in ("Enter goes on", "There are 12 steps.", "Type Enter to go on"):
        assert says in again
    wrong = learn(tmp_path, "teardown", "--step", "99")
    assert (wrong.returncode, wrong.stderr) == (2, "error: the guide of teardown has 12 steps\n")


def test_what_is_no_answer_is_asked_again(tmp_path: Path) -> None:
    done = learn(tmp_path, "handshake", "--step", "7", lines=("soon", "5 octets", "0.1 s", "quit"))
    assert "'soon' is no number; write for example '3 ms'." in done.stdout
    assert "'B' is no unit of a time" in done.stdout
    assert list(saved(tmp_path, "handshake")["answers"].values()) == ["0.1 s"]  # pyright: ignore


@pytest.mark.parametrize(
    "more", [{"COLUMNS": "40"}, {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}]
)
def test_narrow_terminals_and_plain_letters_will_do(tmp_path: Path, more: dict[str, str]) -> None:
    done = learn(
        tmp_path, "half-close", lines=("", "c", "", "", "recording", "", "", "", ""), **more
    )
    assert done.returncode == 0, done.stderr
    assert "That was half-close." in done.stdout
    assert "\x1b" not in done.stdout


def test_an_unknown_lab_is_one_sentence_and_2(tmp_path: Path) -> None:
    done = learn(tmp_path, "handshak")
    assert done.returncode == 2
    assert done.stderr == "error: there is no lab called 'handshak'; did you mean 'handshake'?\n"


class Screen:
    """A terminal with a learner in front of it."""

    def __init__(self, tmp_path: Path, *arguments: str) -> None:
        env = environment(tmp_path, TERM="xterm")
        del env["NO_COLOR"]
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            argv = (sys.executable, "-m", "netlab", "lab", "learn", *arguments)
            os.execve(argv[0], argv, env)
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nobody in front of a dark screen when the test has failed."""
        if self.handle >= 0:
            os.kill(self.pid, signal.SIGKILL)
            self.close()

    def until(self, what: str, timeout: float = 60) -> None:
        end = time.monotonic() + timeout
        while not re.search(what, self.text):
            ready, _, _ = select.select([self.handle], [], [], max(0, end - time.monotonic()))
            assert ready, f"waited in vain for {what!r} in:\n{self.text}"
            self.text += os.read(self.handle, 65536).decode(errors="replace")

    def type(self, line: str) -> None:
        self.text = ""
        os.write(self.handle, f"{line}\n".encode())

    def close(self) -> int:
        try:
            while os.read(self.handle, 65536):
                pass
        except OSError:
            pass
        os.close(self.handle)
        self.handle = -1
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.needs("netns", "tcpdump", "ss")
def test_on_a_terminal_the_lab_runs_and_ctrl_c_at_a_prompt_is_130(tmp_path: Path) -> None:
    results = str(tmp_path / "results")
    with Screen(tmp_path, "teardown", "--step", "6", "--results", results) as screen:
        screen.until("Enter: run")
        screen.type("")
        kept = json.loads((ROOT / "labs/teardown/recording/checks.json").read_text())
        count = len(kept["checks"])
        # On a very busy machine a check may stay without an answer, but none fails.
        screen.until(rf"{count} checks: \d+ (passed|inconclusive)", timeout=100)
        assert "failed" not in screen.text
        screen.until("You made no predictions")
        screen.until("Enter: go on")
        assert "\x1b[1m" in screen.text
        os.kill(screen.pid, signal.SIGINT)
        assert screen.close() == 130
    assert saved(tmp_path, "teardown")["run"].startswith(results)  # pyright: ignore
