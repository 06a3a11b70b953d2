"""A page as a person's browser shows it: headless Chromium, where there is one."""

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
    "--no-sandbox",  # as root, who runs the tests in a container, there is none
    "--no-first-run",
    "--no-proxy-server",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing from outside
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",  # milliseconds of the page's clock, which waits for what it asks for
    "--window-size=1600,900",
)


@dataclass(frozen=True)
class Page:
    """What a page became: its document, what it wrote to the console, its picture."""

    document: str
    console: list[str]
    picture: Image.Image


def browse(url: str, folder: Path) -> Page:
    """Open a page and let it run; `folder` is the browser's."""
    assert CHROMIUM is not None
    own = (f"--user-data-dir={folder}/profile", f"--screenshot={folder}/page.png", "--dump-dom")
    ran = subprocess.run(
        [CHROMIUM, *_OPTIONS, *own, url], capture_output=True, text=True, check=True, timeout=120, cwd=folder
    )
    picture = Image.open(folder / "page.png").convert("RGB")
    return Page(ran.stdout, re.findall(r"CONSOLE\S*\] (.*)", ran.stderr), picture)
