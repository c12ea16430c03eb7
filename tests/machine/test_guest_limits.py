"""Limits of processors and memory, in a guest: its kernel has the controllers of cgroup v2."""

from __future__ import annotations

import json

import pytest

from tests.guest import in_guest

pytestmark = pytest.mark.needs("uml")

INSIDE = r"""
import json, os, time
from pathlib import Path
from netlab.engine import cgroups, lifecycle, state
from netlab.errors import CommandError
from netlab.model.yaml import loads

HEAD = "name: limits\nnodes: [a, b]\nlinks: [a-b]\nprocesses:\n"
HOG = '[python3, -c, "x = bytearray(200 << 20); import time; time.sleep(100)"]'
found = {}

lab, _ = lifecycle.up(loads(HEAD + f'''
  hog: {{ node: a, command: {HOG}, memory: 64MiB }}
  busy: {{ node: b, command: [python3, -c, "while True: pass"], cpus: 0.25 }}
'''))
end = time.monotonic() + 60
while not (told := lifecycle.inspect("limits"))["ended"]:
    assert time.monotonic() < end, told
    time.sleep(0.05)
found["status"] = lifecycle.status()[0]["out_of_memory"]
found["hog"] = told["ended"][0]
busy = Path(cgroups.path_of(lab.folder), "b.busy", "cpu.stat")

def usage():
    return int(dict(line.split() for line in busy.read_text().splitlines())["usage_usec"]) / 1e6

began, before = time.monotonic(), usage()
while time.monotonic() < began + 4:
    time.sleep(0.1)
found["share"] = (usage() - before) / (time.monotonic() - began)
group = cgroups.path_of(lab.folder)
lifecycle.down(lab)
found["left"] = os.path.exists(group)

never = "ready: { port: 1, timeout: 60s }"
hungry = loads(HEAD + f"  hog: {{ node: a, command: {HOG}, memory: 64MiB, {never} }}\n")
try:
    lifecycle.up(hungry)
except CommandError as error:
    found["refused"] = str(error)

# A part of the hierarchy to which no controllers have been handed stands for a whole one.
mine = Path(cgroups.mount_point(), "without")
mine.mkdir()
cgroups.mount_point = lambda: str(mine)
found["closed"] = cgroups.refusal({"cpu", "memory"})
(mine / "cgroup.subtree_control").write_text("+cpu")
found["half"] = cgroups.refusal({"cpu", "memory"})
print(json.dumps(found))
"""


def test_a_hog_is_killed_and_told_of_and_a_busy_loop_has_its_share() -> None:
    done = in_guest(["python", "-c", INSIDE])
    assert done.status == 0, done.stderr.decode()
    found = json.loads(done.stdout.decode().splitlines()[-1])
    assert found["status"] == ["a.hog"]
    assert found["hog"]["status"] == -9
    assert found["hog"]["out_of_memory"]
    assert "killed by SIGKILL, out of memory" in found["refused"]
    assert not found["left"]
    # A quarter of each tenth of a second; the ends of the four seconds may each be off by one of
    # them, and the guest may get less from a busy machine than the loop is entitled to.
    assert 0.1 < found["share"] <= 0.25 * (1 + 0.2 / 4) + 0.01
    reason, hint = found["closed"]
    assert "does not hand out cpu and memory" in reason
    assert "echo +cpu +memory | sudo tee" in hint
    assert "does not hand out memory" in found["half"][0]
