"""The notebooks run from top to end in a fresh kernel; guides become notebooks that are valid.

nbformat and nbclient are imported where they are used: their dependencies take seconds, which
every process that collects tests would pay.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.errors import NetlabError
from netlab.labs import discovery, guide
from netlab.labs.notebook import notebook
from netlab.notebook import Run
from tests.cli.person import NOBODY, Person, ordinary_prefix
from tests.conftest import ROOT
from tests.labs.believed import believe

HANDSHAKE = ROOT / "labs/handshake/recording"
PLACES = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def _nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings and the history of whoever runs the tests out of the kernels."""
    for name in PLACES:
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def executed(cells: Any, folder: Path) -> Any:
    """Run a notebook in `folder` and return it with its outputs.

    The kernel is spoken to over sockets in a folder: TCP ports, which are chosen before the kernel
    begins, may be somebody else's by then.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="netlab-test-") as sockets:
        config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        client = NotebookClient(cells, timeout=250, kernel_name="python3", config=config)
        return client.execute(cwd=str(folder))


def outputs(cells: Any) -> str:
    """Return all that the code cells of a notebook put out."""
    return json.dumps([c.get("outputs", []) for c in cells["cells"]])


@pytest.mark.parametrize("name", ["tour", "congestion", "investigation"])
def test_notebooks_run_from_top_to_end(name: str, tmp_path: Path) -> None:
    import nbformat

    cells = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    assert outputs(cells) == json.dumps([[]] * len(cells["cells"])), "kept without outputs"
    done = executed(cells, tmp_path)
    said = outputs(done)
    assert "Traceback" not in said
    if name != "congestion":
        assert "application/vnd.jupyter.widget-view+json" in said


@pytest.mark.parametrize("name", discovery.names())
def test_every_guide_is_a_notebook(name: str) -> None:
    import nbformat

    lab = discovery.find(name)
    made = notebook(name, guide.load(lab))
    nbformat.validate(nbformat.from_dict(made))
    code = [c["source"] for c in made["cells"] if c["cell_type"] == "code"]
    questions = [s for s in guide.load(lab).of("predict") if s.question is not None]
    assert sum(source.startswith("answer_") for source in code) == len(questions)
    assert sum("run_lab(" in source for source in code) == 1
    assert made == notebook(name, guide.load(lab))


def test_a_guide_is_played_on_the_kept_recording(tmp_path: Path) -> None:
    """Everything but the run itself: the kept recording stands in for it."""
    import nbformat

    made = notebook("handshake", guide.load(discovery.find("handshake")))
    for cell in made["cells"]:
        source = cell["source"]
        if source == "answer_1 = None":
            cell["source"] = 'answer_1 = "b"'
        elif source == "answer_2 = None":
            cell["source"] = 'answer_2 = "c"'
        elif "run_lab(" in source:
            cell["source"] = f"run = netlab.open({str(HANDSHAKE)!r})"
    said = outputs(executed(nbformat.from_dict(made), tmp_path))
    assert "right \\u2713" in said
    assert "not so \\u2717" in said
    assert "see for yourself" in said


EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
from traitlets.config import Config
cells = nbformat.read("guide.ipynb", as_version=4)
config = Config(KernelManager={"transport": "ipc"})
client = NotebookClient(cells, timeout=200, kernel_name="python3", config=config)
nbformat.write(client.execute(), "done.ipynb")
"""


@pytest.mark.needs("netns", "userns", "tcpdump", "ss", "nft")
def test_a_lab_runs_in_a_kernel_that_is_not_root() -> None:
    """The guide of the handshake, its undelayed variations run by whoever runs the kernel."""
    import nbformat

    prefix = ordinary_prefix()
    if prefix is None:
        pytest.skip("no other user to be")
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    made = notebook("handshake", guide.load(discovery.find("handshake")))
    (run,) = (c for c in made["cells"] if "run_lab(" in c["source"])
    run["source"] = (
        'import os\nrun = notebook.run_lab("handshake", variations=["ipv4", "ipv6"])\n'
        'print(os.geteuid(), run.path)\n[v["outcome"] for v in run.verdicts]'
    )
    who = Person(prefix, uid=uid)
    try:
        cells = nbformat.from_dict(made)
        nbformat.write(cells, who.folder / "guide.ipynb")
        home = {name: str(who.folder) for name in ("HOME", *PLACES)}
        done = subprocess.run(
            (*prefix, "-c", EXECUTE), env=who.env | home, cwd=who.folder, timeout=280,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (ran,) = (
            cell["outputs"]
            for cell in nbformat.read(who.folder / "done.ipynb", as_version=4)["cells"]
            if "run_lab(" in cell["source"]
        )
        believe(who.folder / "results", "handshake")
        said = "".join(output.get("text", "") for output in ran)
        assert "16 checks: 16 passed" in said
        assert f"{uid} {who.folder}/results/handshake/" in said
        assert ran[-1]["data"]["text/plain"].count("'pass'") == 16
        owners = {path.lstat().st_uid for path in (who.folder / "results").rglob("*")}
        assert owners == {uid}
    finally:
        who.close()


def test_a_run_shows_itself() -> None:
    run = netlab.open(HANDSHAKE)
    assert isinstance(run, Run)
    assert list(run)[:2] == ["ipv4", "ipv6"]
    assert "checks passed" in repr(run)
    assert "<table" in run._repr_html_()
    assert len(run["ipv4"].segments()) == run["ipv4"].capture().summary.packets
    assert set(run["rtt-100ms"].tcp_info("client")) >= {"at_ns", "state", "snd_cwnd"}


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NetlabError, match="there is no run at"):
        netlab.open("no-such-lab")
    with pytest.raises(NetlabError):
        netlab.open(tmp_path)
    run = netlab.open(HANDSHAKE)
    assert isinstance(run, Run)
    with pytest.raises(NetlabError, match="no capture 'nowhere:eth0'"):
        run["ipv4"].capture("nowhere:eth0")
