"""SIGKILL during `apply` and `reboot`: the lab goes on or is gone, and nothing is left over."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from netlab.engine import apply, change, lifecycle, state
from netlab.engine.state import Lab
from netlab.errors import EngineError
from netlab.model.yaml import loads
from tests.engine.kernel import nodes_of
from tests.engine.leftovers import footprint, remains

pytestmark = pytest.mark.needs("netns", "userns", "ping")

BEFORE = """
name: struck
nodes: {a: , r: router, b: }
links: [a-r, r-b]
processes: {idle: {node: r, command: sleep 1001}}
"""
AFTER = BEFORE.replace("b: }", "b: , c: }").replace("r-b]", "r-b, r-c]").replace("1001", "1002")


def to_other(lab: Lab) -> None:
    change.change(lab, change.difference(lab, loads(AFTER)))


def to_reboot(lab: Lab) -> None:
    change.reboot(lab, "r")


@contextlib.contextmanager
def struck(count: int, action: Callable[[Lab], None], lab: Lab) -> Generator[tuple[int, bool]]:
    """Run an action in a child that stops for good before its request number `count`."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        from netlab.engine.channel import Channel

        send, seen = Channel.send, 0

        def counted(self: Channel, *arguments: object, **more: object) -> int:
            nonlocal seen
            seen += 1
            if seen == count:
                os.write(write, b"x")
                signal.pause()
            return send(self, *arguments, **more)  # type: ignore[arg-type]

        Channel.send = counted  # type: ignore[method-assign]
        try:
            action(lab)
        finally:
            os._exit(0)
    os.close(write)
    try:
        yield pid, bool(os.read(read, 1))
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("action", [to_other, to_reboot])
@pytest.mark.parametrize("victim", ["controller", "supervisor"])
def test_sigkill_between_any_two_requests(
    action: Callable[[Lab], None], victim: str, rootless: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    count, reached = 0, True
    while reached:
        count += 1
        lab, _ = lifecycle.up(loads(BEFORE), rootless=rootless)
        taken = footprint(lab.pid, lab.path)
        with struck(count, action, lab) as (pid, reached):
            os.kill(pid if victim == "controller" else lab.pid, signal.SIGKILL)
        if victim == "controller":
            survived(lab)
            lifecycle.down(state.find("struck"))
        assert remains(taken) == [], f"before request {count}, {victim} killed"
        end = time.monotonic() + 30
        while (state.labs() or [*state.directories()]) and time.monotonic() < end:
            time.sleep(0.01)  # a trial dies after its controller
        assert state.labs() == []
        assert list(state.directories()) == []
    assert count > 3
    with capsys.disabled():
        print(f"\n{action.__name__}, {victim}: {count - 1} kill points, nothing left")


def survived(lab: Lab) -> None:
    """The lab answers, and is either not changed again or whole."""
    found = state.find("struck")
    assert found.pid == lab.pid
    with nodes_of(found, found.path) as nodes:
        assert nodes["a"].run(["true"]).status == 0
    with contextlib.suppress(EngineError), apply.exclusive("struck") as held:
        to_reboot(held)
        with nodes_of(held, held.path) as nodes:
            assert " 1 received" in nodes["a"].run(["ping", "-c1", "-W5", "b"]).stdout


def test_a_lab_whose_directory_is_removed_ends(rootless: bool) -> None:
    lab, _ = lifecycle.up(loads(BEFORE), rootless=rootless)
    taken = footprint(lab.pid, lab.path)
    shutil.rmtree(lab.folder)
    assert state.labs() == []
    assert remains(taken) == []
    lab, fresh = lifecycle.up(loads(BEFORE), rootless=rootless)
    assert fresh
    lifecycle.down(lab)


def test_a_node_has_no_way_out_and_no_interface_of_the_machine(
    tmp_path: Path, rootless: bool
) -> None:
    topology = loads(BEFORE)
    mine = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    macs = {line.split("link/")[1].split()[1] for line in mine.splitlines() if "link/ether" in line}
    lab, _ = lifecycle.up(topology, rootless=rootless)
    try:
        with nodes_of(lab, tmp_path) as nodes:
            for name, node in nodes.items():
                seen = node.run(["ip", "-o", "link"]).stdout
                names = {line.split(":")[1].split("@")[0].strip() for line in seen.splitlines()}
                own = {end.name for end in topology.interfaces(name)}
                # Modules such as ipip give every namespace a fallback device of their own.
                fallback = {n for n in names if n.rstrip("0123456789") in FALLBACK}
                assert names - fallback == own | {"lo"}
                assert not any(mac in seen for mac in macs)
                done = node.run(["ping", "-n", "-c1", "-W1", "192.0.2.1"], check=False)
                assert done.status != 0
    finally:
        lifecycle.down(lab)


FALLBACK = {"tunl", "gre", "gretap", "erspan", "ip_vti", "ip6_vti", "sit", "ip6tnl", "ip6gre"}
