"""Labs of these tests are written down in a folder of their own, so that they meet no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.engine.state import sweep


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "state"
    monkeypatch.setenv("NETLAB_STATE_DIR", str(path))
    yield path
    monkeypatch.undo()
    for lab in path.glob("*/lock"):  # what a dead lab has elsewhere is known here alone
        sweep(lab.parent)


class Notebook:
    """A recorder that keeps its events in a list."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[tuple[str, int | None, dict[str, object]]] = []

    def file(self, relative: str) -> Path:
        path = self.path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def event(self, kind: str, *, at_ns: int | None = None, **fields: object) -> None:
        self.events.append((kind, at_ns, fields))


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    return Notebook(tmp_path / "recording")


@pytest.fixture(params=["direct", "userns"])
def rootless(request: pytest.FixtureRequest) -> bool:
    """Run a test twice: with the caller's own privileges, and in a user namespace."""
    import os

    if request.param == "direct" and os.geteuid() != 0:
        pytest.skip("needs root: the user namespace is tried instead")
    return request.param == "userns"
