from __future__ import annotations

import time
from pathlib import Path

import pytest

from netlab.engine import channel, lifecycle, state
from netlab.engine.processes import in_order
from netlab.engine.stage import open_stage
from netlab.errors import CapabilityError, CommandError
from netlab.model.topology import Process, Topology
from netlab.model.yaml import loads
from tests.engine.conftest import Notebook

HEAD = "name: programs\nnodes: { a: {}, b: {} }\nlinks: [a-b]\nprocesses:\n"
live = pytest.mark.needs("netns", "userns")


def topology(processes: str) -> Topology:
    return loads(HEAD + processes, "programs.yaml")


def test_a_process_comes_after_those_it_names() -> None:
    def process(name: str, *after: str) -> Process:
        return Process(name, "a", ("true",), after=after)

    given = (process("z", "m"), process("m", "a"), process("a"), process("b", "z", "a"))
    assert [p.name for p in in_order(given)] == ["a", "m", "z", "b"]
    with pytest.raises(ValueError, match="the processes x, y wait for each other"):
        list(in_order((process("x", "y"), process("y", "x"))))


@live
def test_programs_run_for_the_length_of_a_stage_each_ready_before_the_next(
    notebook: Notebook, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    given = topology(f"""
  second:
    node: b
    command: [sh, -c, "test -e {mark} && echo found; exec sleep 60"]
    after: [first]
  first:
    node: a
    command: [sh, -c, "sleep 0.1; touch {mark}; exec sleep 60"]
    ready: {{ file: {mark} }}
""")
    with open_stage(given, notebook) as stage:
        said = notebook.path / "nodes/b/second.stdout.log"
        stage.until(lambda: said.read_text() == "found\n", timeout=60, what="the second to say so")


@live
def test_each_kind_of_readiness_is_waited_for(notebook: Notebook, tmp_path: Path) -> None:
    """Each program does what it is waited for after a while, and the next one sees it done."""
    mark = tmp_path / "mark"
    sees = "test -e {0}/{1} && exec sleep 60; exit 9"
    server = (
        "import pathlib, socket, time; time.sleep(0.1); s = socket.create_server(('', 80)); "
        f"pathlib.Path('{mark}/port').touch(); time.sleep(60)"
    )
    mark.mkdir()
    given = topology(f"""
  port:
    node: b
    command: [python3, -c, "{server}"]
    ready: {{ port: 80 }}
  line:
    node: a
    command: [sh, -c, "sleep 0.1; touch {mark}/line; echo now 7; exec sleep 60"]
    ready: {{ line: "^now [0-9]$" }}
  command:
    node: a
    command: [sh, -c, "sleep 0.1; touch {mark}/command; exec sleep 60"]
    ready: {{ command: [test, -e, {mark}/command] }}
  after-port: {{ node: a, command: [sh, -c, "{sees.format(mark, "port")}"], after: [port] }}
  after-line: {{ node: b, command: [sh, -c, "{sees.format(mark, "line")}"], after: [line] }}
  after-command:
    node: b
    command: [sh, -c, "{sees.format(mark, "command")}"]
    after: [command]
""")
    with open_stage(given, notebook) as stage:
        (lab,) = state.labs()
        stage.settle(0.2, because="one that did not find its file would end now")
        connection = channel.connect(lab.folder)
        try:
            told = connection.request({"do": "state"})
        finally:
            connection.close()
    assert {p["name"] for p in told["processes"]} == {p.name for p in given.processes}
    assert told["ended"] == []


@live
def test_a_program_has_the_environment_and_the_folder_it_is_given(
    rootless: bool, tmp_path: Path, state_dir: Path
) -> None:
    given = topology(f"""
  speaker:
    node: a
    command: [sh, -c, "echo $GREETING $NUMBER $NETLAB_NODE; pwd; exit 3"]
    env: {{ GREETING: good morning, NUMBER: 7 }}
    cwd: {tmp_path}
""")
    lab, _ = lifecycle.up(given, rootless=rootless)
    try:
        end = time.monotonic() + 60
        while not (ended := lifecycle.inspect("programs")["ended"]):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert [(p["name"], p["status"]) for p in ended] == [("speaker", 3)]
        said = (lab.path / "logs/a/speaker.stdout.log").read_text()
        assert said == f"good morning 7 a\n{tmp_path}\n"
    finally:
        lifecycle.down(lab)


@live
def test_always_means_also_after_success(
    notebook: Notebook,
) -> None:
    given = topology("  again: { node: a, command: [echo, run], restart: always }\n")
    with open_stage(given, notebook) as stage:
        said = notebook.path / "nodes/a/again.stdout.log"
        stage.until(lambda: said.read_text().count("run") >= 3, timeout=60, what="three runs")


@live
def test_a_program_that_ends_before_it_is_ready_fails_the_lab(
    notebook: Notebook, state_dir: Path
) -> None:
    given = topology("  bad: { node: a, command: [sh, -c, 'exit 3'], ready: { port: 1 } }\n")
    with pytest.raises(CommandError, match=r"'bad' .* ended before it was ready .*exit status 3"):
        lifecycle.up(given)
    assert list(state_dir.iterdir()) == []


@live
def test_programs_of_a_detached_lab_stay_and_are_restarted(rootless: bool) -> None:
    given = topology("""
  fails: { node: a, command: [sh, -c, "echo run; exit 1"], restart: on-failure }
  ends: { node: a, command: [sh, -c, "echo run; exit 0"], restart: on-failure }
  stays: { node: b, command: [sleep, "1000"] }
""")
    lab, _ = lifecycle.up(given, rootless=rootless)
    try:
        logs = lab.path / "logs" / "a"
        end = time.monotonic() + 60
        while (logs / "fails.stdout.log").read_text().count("run") < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert (logs / "ends.stdout.log").read_text() == "run\n"
        running = [p["name"] for p in lifecycle.inspect("programs")["processes"]]
        assert "stays" in running
    finally:
        lifecycle.down(lab)


@live
def test_what_cannot_be_done_for_a_program_is_refused_before_anything_is_built(
    notebook: Notebook,
) -> None:
    given = topology("  other: { node: a, command: [id], user: nobody }\n")
    with (
        pytest.raises(
            CapabilityError, match=r"programs.yaml:5:\d+: process 'other' wants to run as"
        ),
        open_stage(given, notebook, rootless=True),
    ):
        pytest.fail("it was built")


@live
@pytest.mark.needs("root")
def test_a_program_runs_as_another_user(notebook: Notebook) -> None:
    given = topology("  other: { node: a, command: [id, -un], user: nobody }\n")
    with open_stage(given, notebook) as stage:
        path = notebook.path / "nodes/a/other.stdout.log"
        stage.until(lambda: path.read_text() == "nobody\n", timeout=60, what="the user's name")
