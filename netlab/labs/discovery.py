"""Find labs: those that come with netlab, and those of a folder given.

A lab is a folder that holds a `lab.py`, which is loaded by its path, so labs need not be
importable and two of the same name in different folders do not meet.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from difflib import get_close_matches
from pathlib import Path

from netlab import resources
from netlab.errors import LabDefinitionError, UsageError
from netlab.labs.lab import Lab

PROGRAM = "lab.py"


def place(folder: Path | None = None) -> Path:
    """Return the folder where labs are looked for; UsageError if there is none."""
    found = resources.labs() if folder is None else folder
    if not found.is_dir():
        raise UsageError(f"there is no folder of labs at {found}")
    return found


def names(folder: Path | None = None) -> tuple[str, ...]:
    """Return the names of the labs in a folder (default: those that come with netlab), sorted."""
    return tuple(sorted(path.parent.name for path in place(folder).glob(f"*/{PROGRAM}")))


def find(name: str, folder: Path | None = None) -> Lab:
    """Load a lab by name, or by the path of its folder; UsageError if there is none."""
    as_path = Path(name)
    if "/" in name or (folder is None and (as_path / PROGRAM).is_file()):
        if not (as_path / PROGRAM).is_file():
            raise UsageError(f"{name} is not the folder of a lab: it has no {PROGRAM}")
        return load(as_path)
    known = names(folder)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "`netlab lab list` shows them all"
        raise UsageError(f"there is no lab called '{name}'", hint=hint)
    return load(place(folder) / name)


def load(folder: Path) -> Lab:
    """Load and verify the lab of a folder; LabDefinitionError names the file and what is wrong."""
    folder = folder.resolve()
    program = folder / PROGRAM
    module_name = f"netlab_lab_{re.sub(r'[^a-z0-9]', '_', folder.name.lower())}_{abs(hash(folder))}"
    spec = importlib.util.spec_from_file_location(module_name, program)
    if spec is None or spec.loader is None:
        raise LabDefinitionError(f"{program} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except LabDefinitionError as error:
        raise LabDefinitionError(f"{program}: {error}") from None
    except Exception as error:
        raise LabDefinitionError(f"{program}: {type(error).__name__}: {error}") from error
    finally:
        sys.modules.pop(module_name, None)
    lab = getattr(module, "lab", None)
    if not isinstance(lab, Lab):
        raise LabDefinitionError(f"{program} defines no `lab`")
    lab.folder = folder
    try:
        lab.verify()
    except LabDefinitionError as error:
        raise LabDefinitionError(f"{program}: {error}") from None
    return lab
