"""Jobs side by side: within the budget, alone where asked, ended whatever happens."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import pytest

from netlab.labs import pool
from netlab.labs.pool import ALONE, Ending, Job, Say, Silent
from tests.conftest import ROOT

Span = tuple[float, float]


def spent(seconds: float) -> Callable[[Say], Span]:
    def work(_: Say) -> Span:
        began = time.monotonic()
        time.sleep(seconds)
        return began, time.monotonic()

    return work


def met(barrier: Barrier, seconds: float) -> Callable[[Say], Span]:
    """Return work that takes its time from when as many run as belong together."""

    def work(_: Say) -> Span:
        began = time.monotonic()
        barrier.wait(60)
        time.sleep(seconds)
        return began, time.monotonic()

    return work


def play(jobs: list[Job[Span]], budget: float) -> tuple[bool, dict[str, Ending[Span]]]:
    found: dict[str, Ending[Span]] = {}

    def ended(job: Job[Span], ending: Ending[Span]) -> list[Job[Span]]:
        found[job.name] = ending
        return []

    return pool.run(jobs, budget=budget, watch=Silent(), ended=ended), found


def spans(found: dict[str, Ending[Span]]) -> dict[str, Span]:
    return {name: ending.result for name, ending in found.items() if ending.result}


def most_at_once(all_: list[Span]) -> int:
    return max(sum(begin <= at < end for begin, end in all_) for at, _ in all_)


def test_jobs_run_side_by_side_within_the_budget() -> None:
    three = multiprocessing.get_context("fork").Barrier(3)
    went, found = play([Job(str(n), met(three, 0.3)) for n in range(6)], 3)
    assert went
    assert len(spans(found)) == 6
    assert most_at_once(list(spans(found).values())) == 3


def test_a_heavy_job_leaves_less_room() -> None:
    two = multiprocessing.get_context("fork").Barrier(2)
    jobs = [Job("heavy", met(two, 0.3), weight=2, seconds=9), Job("a", met(two, 0.3))]
    _, found = play([*jobs, Job("b", spent(0.3))], 3)
    assert most_at_once(list(spans(found).values())) == 2


def test_a_job_that_measures_runs_alone_and_last() -> None:
    alone = Job("alone", spent(0.1), weight=ALONE, seconds=99)
    _, found = play([alone, *(Job(str(n), spent(0.1)) for n in range(4))], 8)
    begin, _ = spans(found).pop("alone")
    assert all(end <= begin for name, (_, end) in spans(found).items() if name != "alone")
    assert not found["alone"].beside
    assert found["0"].beside


def test_longer_jobs_begin_first() -> None:
    jobs = [Job(f"{n}", spent(0.01), seconds=n) for n in (1, 3, 2)]
    _, found = play(jobs, 1)
    assert [*found] == ["3", "2", "1"]


def test_jobs_may_ask_for_more_jobs() -> None:
    more = [Job("second", spent(0.0))]
    names: list[str] = []

    def ended(job: Job[Span], _: Ending[Span]) -> list[Job[Span]]:
        names.append(job.name)
        return [more.pop()] if more else []

    assert pool.run([Job("first", spent(0.0))], budget=1, watch=Silent(), ended=ended)
    assert names == ["first", "second"]


def test_a_job_that_takes_too_long_is_ended_with_the_reason() -> None:
    went, found = play([Job("slow", spent(60), limit=0.3)], 1)
    assert went
    assert "it took longer than the 0.005 minutes it may" in found["slow"].reason


def test_a_job_that_dies_is_told_of() -> None:
    def die(_: Say) -> Span:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    _, found = play([Job("dies", die), Job("lives", spent(0.0))], 2)
    assert found["dies"].reason == "the process that ran it ended with status -9"
    assert found["lives"].result


def test_an_interrupt_ends_what_runs_and_drops_what_waits() -> None:
    def interrupt(_: Say) -> Span:
        os.kill(os.getppid(), signal.SIGINT)
        return spent(60)(_)

    began = time.monotonic()
    jobs = [Job("first", spent(60)), Job("second", interrupt), Job("third", spent(60))]
    went, found = play(jobs, 2)
    assert not went
    assert {name: ending.reason for name, ending in found.items()} == {
        "first": "interrupted",
        "second": "interrupted",
    }
    assert time.monotonic() - began < 20


def test_an_interrupt_in_the_middle_of_a_message_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    receive, heads = Connection._recv, list[int]()

    def interrupted(connection: Connection, size: int) -> io.BytesIO:
        found = receive(connection, size)
        heads.append(size)
        if len(heads) == 1:  # the length of the first message
            signal.raise_signal(signal.SIGINT)
        return found

    def work(say: Say) -> Span:
        say("something")
        return spent(60)(say)

    monkeypatch.setattr(Connection, "_recv", interrupted)
    went, found = play([Job("one", work)], 1)
    assert not went
    assert found["one"].reason == "interrupted"


EARLY = """
import os, signal, threading, time
from netlab.labs import pool
threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
os.register_at_fork(after_in_parent=lambda: time.sleep(0.3))
def work(say):
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
def ended(job, ending):
    print(job.name, ending.reason)
    return []
print(pool.run([pool.Job("one", work)], budget=1, watch=pool.Silent(), ended=ended))
"""


def test_an_interrupt_that_another_thread_takes_while_a_job_starts_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines() == ["one interrupted", "False"]


PROGRAM = """
import os, sys, time
from netlab.labs import pool
def work(say):
    print(os.getpid(), flush=True)
    time.sleep(60)
pool.run([pool.Job("one", work)], budget=1, watch=pool.Silent(), ended=lambda job, ending: [])
"""


def test_jobs_die_with_the_process_that_started_them() -> None:
    with subprocess.Popen(
        (sys.executable, "-c", PROGRAM), stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) != process.pid
        process.kill()
        process.wait()
        # The job held the other end of standard output: its end is the end of the job.
        assert process.stdout.read() == ""


@pytest.mark.parametrize("text", ["one", "two"])
def test_what_a_job_says_is_heard(text: str) -> None:
    heard: list[str] = []

    class Ear(Silent):
        def said(self, job: Job[object], text: str) -> None:
            heard.append(f"{job.name}: {text}")

    def work(say: Say) -> None:
        say(text)

    pool.run([Job("it", work)], budget=1, watch=Ear(), ended=lambda *_: [])
    assert heard == [f"it: {text}"]
