"""JupyterLab in a real browser: a notebook is run there and its ladder is clicked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.conftest import ROOT

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture
def lab(tmp_path: Path) -> Generator[str]:
    """Start JupyterLab on loopback in a folder with the tour; its address with its token."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "notebooks/tour.ipynb", work)
    places = {
        name: str(tmp_path / name.lower())
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    }
    root = ["--allow-root"] if os.geteuid() == 0 else []
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *root, "--no-browser", "--ServerApp.ip=127.0.0.1",
         "--ServerApp.port=0", "--LabApp.news_url=", "--ServerApp.root_dir=.",
         "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
        cwd=work, env={**os.environ, **places}, stdout=subprocess.DEVNULL,
        stderr=file,
    )  # fmt: skip
    try:
        yield _address(Path(places["JUPYTER_RUNTIME_DIR"]), server, log)
    finally:
        server.terminate()
        server.wait(60)


def _address(runtime: Path, server: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server has written where it listens."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        for path in runtime.glob("jpserver-*.json"):
            try:
                told = json.loads(path.read_text())
            except ValueError:
                continue  # it is being written
            return f"{told['url']}lab/tree/tour.ipynb?token={told['token']}"
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_the_tour_runs_in_jupyterlab_and_its_ladder_is_clicked(lab: str, chromium: Browser) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(lab)
    page.wait_for_selector(".jp-Notebook", timeout=120_000)
    page.get_by_text("| Idle").wait_for(timeout=120_000)  # the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    segment = page.locator(".nl-view [data-index]").nth(1)
    # Cells out of view are not drawn: the last one is brought into view until it has its output.
    deadline = time.monotonic() + 200
    while not segment.count() and time.monotonic() < deadline:
        page.locator(".jp-Notebook").first.press("Control+End")
        page.wait_for_timeout(300)
    segment.scroll_into_view_if_needed()
    segment.click()
    inspector = page.locator(".nl-inspector")
    inspector.locator("h4").wait_for()
    assert "SYN-ACK" in inspector.locator("h4").inner_text()
    assert "TCP checksum is right" in inspector.inner_text()
    assert page.locator(".jp-RenderedText[data-mime-type*='stderr']").count() == 0
    outside = [
        u
        for u in asked
        if not u.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:"))
    ]
    assert outside == []
    context.close()
