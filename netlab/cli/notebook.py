"""`netlab notebook`: the guide of a lab as a notebook, opened in JupyterLab."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from netlab.errors import CapabilityError


@click.command()
@click.argument("lab")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: LAB.ipynb here.")
@click.option("--write-only", is_flag=True, help="Write the notebook, start nothing.")
@click.option(
    "--labs", "folder", type=click.Path(path_type=Path),
    help="Folder of labs (default: those that come with netlab).",
)  # fmt: skip
def notebook(lab: str, output: Path | None, write_only: bool, folder: Path | None) -> None:
    """Open the guide of LAB as a notebook: predict, run, compare.

    A notebook that is there already is opened as it is; remove it to begin anew.
    """
    from netlab.labs import discovery, guide
    from netlab.labs.notebook import notebook as made
    from netlab.recording.directory import write_file

    found = discovery.find(lab, folder)
    target = output or Path(f"{found.name}.ipynb")
    if not target.exists():
        text = json.dumps(made(found.name, guide.load(found)), indent=1, ensure_ascii=False)
        write_file(target, text + "\n")
    click.echo(str(target))
    if write_only:
        return
    if find_spec("jupyterlab") is None:
        raise CapabilityError("JupyterLab is not here", hint="pip install 'netlab-tcpip[notebook]'")
    root = ["--allow-root"] if os.geteuid() == 0 else []
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *root, str(target)])
