"""The guard over the machine sees what a session has changed, and lets others pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.needs("root", "netns")

CHANGES = {
    "ip link add left0 type veth peer name right0": "+ interface left0",
    "ip link set lo up; ip address add 192.0.2.1/24 dev lo": "  interface lo",
    "ip route add 198.51.100.0/24 dev lo": "+ route -4",
    "ip rule add priority 7 table 7": "+ rule -4",
    "echo 1 >/proc/sys/net/ipv4/ip_forward": "  /proc/sys/net/ipv4/ip_forward: 0 became 1",
    "nft add table inet left": "  nft ruleset",
    "mount -t tmpfs none /mnt": "+ mount /mnt",
    "sleep 300 >/dev/null 2>&1 &": "+ process",
    "mkdir -p /run/netns; touch /run/netns/left": "+ /run/netns/left",
}


def session(tmp_path: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a session of one test, in namespaces of its own, that runs a shell command."""
    path = tmp_path / "test_it.py"
    path.write_text(
        f"import subprocess\ndef test_it():\n    subprocess.run({command!r}, shell=True)\n"
    )
    program = (
        "import tests.host_guard as g; g.PATIENCE = 0.5\n"
        f"import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'tests.host_guard', {str(path)!r},"
        f" '--rootdir', {str(tmp_path)!r}, '-c', '/dev/null', '-p', 'no:cacheprovider']))"
    )
    inner = 'mount -t tmpfs none /run && exec "$@"'
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run(
        [*argv, "sh", "-c", inner, "sh", sys.executable, "-c", program],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


def test_a_session_that_changes_nothing_passes(tmp_path: Path) -> None:
    done = session(tmp_path, "true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed this machine" not in done.stdout


@pytest.mark.needs("nft")
def test_a_session_that_leaves_something_fails_and_names_it(tmp_path: Path) -> None:
    done = session(tmp_path, "\n".join(CHANGES))
    assert done.returncode == 1, done.stdout + done.stderr
    _, _, told = done.stdout.partition("the tests have changed this machine")
    for command, line in CHANGES.items():
        assert f"\n{line}" in told, command
