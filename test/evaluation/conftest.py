"""Pages as a browser shows them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Browsed(NamedTuple):
    """A page after its scripts have run."""

    dom: str
    screenshot: Path


@pytest.fixture(scope="session")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Browsed]:
    """Open a page in headless Chromium that reaches no network; skips where there is no Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("needs Chromium")

    def run(page: Path) -> Browsed:
        folder = tmp_path_factory.mktemp("browser")
        screenshot = folder / "page.png"
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            f"--user-data-dir={folder / 'profile'}", "--proxy-server=127.0.0.1:9", "--virtual-time-budget=10000",
            "--window-size=1280,4200", f"--screenshot={screenshot}", "--dump-dom", page.resolve().as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return Browsed(done.stdout, screenshot)

    return run
