"""Pages rendered by headless Chromium, if it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # unavailable to root, as in containers
    "--no-first-run",
    "--no-proxy-server",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other hosts
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",  # milliseconds of the page's clock, which pauses during requests
    "--window-size=1600,900",
)


@dataclass(frozen=True)
class Page:
    """A rendered page: its document, console messages and screenshot."""

    document: str
    console: list[str]
    picture: Image.Image


def browse(url: str, folder: Path) -> Page:
    """Render a page; `folder` is for the browser's files."""
    assert CHROMIUM is not None
    own = (f"--user-data-dir={folder}/profile", f"--screenshot={folder}/page.png", "--dump-dom")
    ran = subprocess.run(
        [CHROMIUM, *_OPTIONS, *own, url], capture_output=True, text=True, check=True, timeout=120, cwd=folder
    )
    picture = Image.open(folder / "page.png").convert("RGB")
    return Page(ran.stdout, re.findall(r"CONSOLE\S*\] (.*)", ran.stderr), picture)
