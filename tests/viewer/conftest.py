"""Fixtures for browser tests: headless Chromium with WebGL 2 in software."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import service.resources.viewer as viewer
from tests.browser import CHROMIUM

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "--no-sandbox",  # unavailable to root, as in containers
    "--no-proxy-server",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # Antialiasing takes half of a frame's time in software: only screenshots for the documentation have it.
    *([] if "RECORD_SCREENSHOTS" in os.environ else ["--webgl-antialiasing-mode=none"]),
]
PATIENCE = 60_000  # milliseconds: the machine may be busy with other tests
QUIET = 250  # milliseconds without a frame: longer than any timer of the page
expect.set_options(timeout=PATIENCE)


@dataclass
class Visit:
    """An open page of the viewer, its console messages and requests."""

    page: Page
    address: str
    console: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Visit:
        self.page.goto(self.address + path)
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until everything in view is loaded and drawn."""
        self.page.evaluate("delete window.lastSeen")  # of an earlier call
        self.page.wait_for_function(
            """quiet => {
                const { store, stage, detail } = window.cutaway ?? {};
                if (!store || !store.state.figures.length) return false;
                const { run, view } = store.state;
                const computes = ["submitting", "queued", "running"].includes(run.status) && !view.step;
                const moves = view.camera && view.camera !== stage.camera; // in flight, or moved by hand
                const now = performance.now();
                if (computes || moves || !stage.still || !detail.still) return void delete window.lastSeen;
                if (window.lastSeen?.frames !== stage.frames) window.lastSeen = { frames: stage.frames, since: now };
                return now - window.lastSeen.since > quiet;
            }""",
            arg=QUIET,
            timeout=PATIENCE,
        )

    def state(self, of: str = "store.state") -> Any:
        """Return a part of the page's state, as JSON."""
        return json.loads(self.page.evaluate(f"JSON.stringify(cutaway.{of} ?? null)"))

    def do(self, **action: Any) -> None:
        self.page.evaluate("action => cutaway.store.dispatch(action)", action)

    def picture(self) -> NDArray[np.int16]:
        """Return the picture without its overlay: [height, width, 3]."""
        self.page.evaluate("document.getElementById('overlay').hidden = true")
        png = self.page.locator("#stage").screenshot()
        self.page.evaluate("document.getElementById('overlay').hidden = false")
        return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(np.int16)

    def place(self, block: str, cell: tuple[int, int]) -> tuple[float, float]:
        """Return the centre of a cell on the page, in pixels."""
        x, y = self.page.evaluate(
            """([id, [i, j]]) => {
                const { stage } = cutaway;
                const [{ figure, pose, layoutCell }] = stage.models.shown;
                const { min, max } = figure.layout.box(figure.layout.row(id));
                const at = [min[0] + (i + 0.5) * layoutCell, min[1] + (j + 0.5) * layoutCell, max[2]];
                const { x, y } = stage.project(pose.point(at));
                const { left, top } = stage.canvas.getBoundingClientRect();
                return [x + left, y + top];
            }""",
            [block, list(cell)],
        )
        return x, y

    def look_at(self, block: str, distance: float | None = None) -> None:
        """Fly to a block and view it from the front: all of it, or its centre from a distance."""
        self.page.evaluate(
            """([id, near]) => {
                const [{ figure, pose }] = cutaway.stage.models.shown;
                const { min, max } = pose.box(figure.layout.box(figure.layout.row(id)));
                const target = min.map((low, axis) => (low + max[axis]) / 2);
                const distance = near ?? 3 * Math.max(max[0] - min[0], max[1] - min[1]) + 10;
                cutaway.store.dispatch({ type: "camera", to: { target, distance, azimuth: 0, elevation: 0 } });
            }""",
            [block, distance],
        )
        self.settle()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")
    if not (viewer.FILES / "index.html").is_file():
        pytest.skip("needs the viewer: make viewer (Node.js 20.19 or later)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def contexts(browser: Browser) -> dict[str, BrowserContext]:
    """Contexts by their options: pages with the same options share a cache."""
    return {}


@pytest.fixture
def visit(browser: Browser, contexts: dict[str, BrowserContext], address: str) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens pages; fails if one logs a message or sends a request to another server."""
    visits: list[Visit] = []

    def start(path: str = "/", width: int = 1280, height: int = 800, **options: Any) -> Visit:
        defaults = {"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", "locale": "en-GB"}
        merged = defaults | options
        if str(merged) not in contexts:
            contexts[str(merged)] = browser.new_context(**merged)
        made = Visit(contexts[str(merged)].new_page(), address)
        made.page.set_default_timeout(PATIENCE)
        made.page.on("console", lambda message: made.console.append(message.text))
        made.page.on("pageerror", lambda error: made.console.append(str(error)))
        made.page.on("request", lambda request: made.requested.append(request.url))
        visits.append(made)
        return made.open(path)

    yield start
    for made in visits:
        made.page.evaluate("localStorage.clear()")  # so that the next page is a first visit
        made.page.close()
    for made in visits:
        assert made.console == []
        assert [url for url in made.requested if not re.match(re.escape(address) + "/|data:|blob:", url)] == []
