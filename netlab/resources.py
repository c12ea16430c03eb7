"""Where the labs and topologies that come with netlab lie.

In a checkout `netlab/_data` holds symbolic links to the folders at the top; in an installed wheel
the folders themselves.
"""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).resolve().parent / "_data"


def labs() -> Path:
    """Return the folder of the labs that come with netlab."""
    return (DATA / "labs").resolve()


def topologies() -> Path:
    """Return the folder of the example topologies that come with netlab."""
    return (DATA / "topologies").resolve()
