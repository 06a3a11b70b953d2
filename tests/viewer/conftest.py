"""A person's browser: headless Chromium, with WebGL 2 drawn in software."""

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
    "--no-sandbox",  # as root, who runs the tests in a container, there is none
    "--no-proxy-server",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # Smooth edges take software half of a frame's time: they are for pictures that people look at.
    *([] if "RECORD_SCREENSHOTS" in os.environ else ["--webgl-antialiasing-mode=none"]),
]
PATIENCE = 60_000  # milliseconds: the machine may be busy with other tests
QUIET = 250  # milliseconds, more than the page itself waits for before it does what was put off
expect.set_options(timeout=PATIENCE)


@dataclass
class Visit:
    """An open page of the viewer, and what it said and asked for."""

    page: Page
    address: str
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Visit:
        self.page.goto(self.address + path)
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until everything that is in view is there and drawn."""
        self.page.evaluate("delete window.lastSeen")  # what was still before says nothing about now
        self.page.wait_for_function(
            """quiet => {
                const { store, stage, detail } = window.cutaway ?? {};
                if (!store || !store.state.figures.length) return false;
                const { run, view } = store.state;
                const computes = ["asking", "queued", "running"].includes(run.status) && !view.step;
                const moves = view.camera && view.camera !== stage.camera; // in flight, or by hand just now
                const now = performance.now();
                if (computes || moves || !stage.still || !detail.still) return void delete window.lastSeen;
                if (window.lastSeen?.frames !== stage.frames) window.lastSeen = { frames: stage.frames, since: now };
                return now - window.lastSeen.since > quiet;
            }""",
            arg=QUIET,
            timeout=PATIENCE,
        )

    def state(self, of: str = "store.state") -> Any:
        """A part of what the page knows, as JSON."""
        return json.loads(self.page.evaluate(f"JSON.stringify(cutaway.{of} ?? null)"))

    def do(self, **action: Any) -> None:
        self.page.evaluate("action => cutaway.store.dispatch(action)", action)

    def picture(self) -> NDArray[np.int16]:
        """What is drawn, [height, width, 3], without names and arrows."""
        self.page.evaluate("document.getElementById('overlay').hidden = true")
        png = self.page.locator("#stage").screenshot()
        self.page.evaluate("document.getElementById('overlay').hidden = false")
        return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(np.int16)

    def place(self, block: str, cell: tuple[int, int]) -> tuple[float, float]:
        """Where the middle of a cell is on the page, in pixels."""
        told = self.page.evaluate(
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
        return told[0], told[1]

    def look_at(self, block: str, distance: float | None = None) -> None:
        """Fly to a block, seen from the front: all of it, or its middle from so far away."""
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
    """By their options: what a page of the same kind has loaded and compiled before is there already."""
    return {}


@pytest.fixture
def visit(browser: Browser, contexts: dict[str, BrowserContext], address: str) -> Iterator[Callable[..., Visit]]:
    """Opens pages; afterwards none may have complained, or asked anybody but the service."""
    visits: list[Visit] = []

    def start(path: str = "/", width: int = 1280, height: int = 800, **options: Any) -> Visit:
        usual = {"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", "locale": "en-GB"}
        wanted = usual | options
        if str(wanted) not in contexts:
            contexts[str(wanted)] = browser.new_context(**wanted)
        made = Visit(contexts[str(wanted)].new_page(), address)
        made.page.set_default_timeout(PATIENCE)
        made.page.on("console", lambda message: made.console.append(message.text))
        made.page.on("pageerror", lambda error: made.console.append(str(error)))
        made.page.on("request", lambda request: made.asked.append(request.url))
        visits.append(made)
        return made.open(path)

    yield start
    for made in visits:
        made.page.evaluate("localStorage.clear()")  # the next one is here for the first time
        made.page.close()
    for made in visits:
        assert made.console == []
        assert [url for url in made.asked if not re.match(re.escape(address) + "/|data:|blob:", url)] == []
