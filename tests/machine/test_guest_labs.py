"""Labs in a guest: what the computer's own kernel may lack, the guest has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from netlab.analysis import calibration
from netlab.recording import Recording
from tests.conftest import ROOT
from tests.labs.believed import believe
from tests.machine.test_guest import readable_by_all

pytestmark = [pytest.mark.needs("uml", "tcpdump", "ss"), pytest.mark.slow]

ORDINARY = 65534
TIMED = {"the_syn_ack_comes_after_one_rtt", "a_handshake_measures_the_idle_rtt"}


def lab_run(
    results: Path, *variations: str, prefix: tuple[str, ...] = (), python: str = sys.executable
) -> None:
    """Run variations of the handshake in a guest, and expect that it could."""
    chosen = [word for name in variations for word in ("--variation", name)]
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [*prefix, python, "-m", "netlab", "--machine", "guest", "lab", "run", "handshake",
         *chosen, "--results", str(results)],
        cwd=results.parent,
        env={
            **os.environ,
            "NETLAB_STATE_DIR": str(results.parent / "state"),
            "PYTHONPATH": f"{ROOT}:{packages}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )  # fmt: skip
    assert done.returncode in (0, 1, 3, 6), done.stdout + done.stderr


@pytest.mark.timeout(1000)
def test_the_handshake_lab_passes_with_delays_that_only_netem_gives(tmp_path: Path) -> None:
    results = tmp_path / "results"
    lab_run(results, "ipv4", "ipv6", "rtt-1ms", "rtt-100ms", "rtt-300ms")
    latest = results / "handshake" / "latest"
    assert {entry.name for entry in latest.iterdir()} >= {"ipv6", "rtt-1ms", "rtt-100ms"}
    manifest = json.loads((latest / "rtt-100ms" / "manifest.json").read_text())
    assert manifest["backend"] == "netem"
    assert manifest["status"] == "complete"
    (measured,) = calibration.read(Recording.open(latest / "rtt-100ms")).values()
    assert all(0.05 <= min(way.delays) < 0.055 for way in measured)
    believe(results, "handshake", timed=TIMED)


@pytest.mark.needs("root")
@pytest.mark.timeout(1000)
def test_the_handshake_lab_passes_for_an_ordinary_user() -> None:
    if not readable_by_all(str(ROOT)):
        pytest.skip("the checkout is not readable by other users")
    python = sys.executable
    if not readable_by_all(sys.base_prefix):
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or python
    version = "import sys; print(*sys.version_info[:2])"
    said = subprocess.run([python, "-c", version], capture_output=True, text=True, check=False)
    if said.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip("no interpreter of this version that other users can run")
    user = f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are root's alone
        folder = Path(name)
        os.chown(folder, ORDINARY, ORDINARY)
        results = folder / "results"
        prefix = ("setpriv", *user)
        lab_run(results, "rtt-100ms", prefix=prefix, python=python)
        owners = {path.lstat().st_uid for path in results.rglob("*")}
        assert owners == {ORDINARY}
        believe(results, "handshake", timed=TIMED)
