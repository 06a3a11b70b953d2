"""Touch gestures on the picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import CDPSession, expect

from tests.viewer.conftest import Visit

pytestmark = pytest.mark.viewer

Point = tuple[float, float]
STEPS = 6


class Hand:
    """Fingers on an open page; points are in pixels from the centre of the picture."""

    def __init__(self, page: Visit) -> None:
        self.visit = page
        self.session: CDPSession = page.page.context.new_cdp_session(page.page)
        box = page.page.locator("#picture").bounding_box()
        assert box is not None
        self.middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def camera(self) -> dict[str, Any]:
        return dict(self.visit.state("stage.camera"))

    def move(self, *fingers: tuple[Point, Point]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Move fingers simultaneously from one point to another; return the camera before and after."""
        before = self.camera()
        for step in range(STEPS + 1):
            points = [[a + (b - a) * step / STEPS for a, b in zip(*finger, strict=True)] for finger in fingers]
            self._touch("touchMove" if step else "touchStart", points)
        self._touch("touchEnd", [])
        self.visit.settle()
        return before, self.camera()

    def _touch(self, kind: str, points: list[list[float]]) -> None:
        x, y = self.middle
        points_on_page = [{"x": x + dx, "y": y + dy, "id": n} for n, (dx, dy) in enumerate(points)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points_on_page})


@pytest.fixture
def hand(visit: Callable[..., Visit]) -> Iterator[Hand]:
    made = Hand(visit("/", 390, 844, has_touch=True, is_mobile=True))
    yield made
    assert made.visit.state("store.state.view.pinned") == []  # no gesture was mistaken for a tap


def test_gestures_rotate_pan_and_zoom(hand: Hand) -> None:
    before, after = hand.move(((0, 0), (60, 30)))
    assert after["azimuth"] < before["azimuth"] - 0.2
    assert after["elevation"] > before["elevation"] + 0.1
    assert (after["target"], after["distance"]) == (before["target"], before["distance"])

    before, after = hand.move(((-40, 0), (-90, 0)), ((40, 0), (90, 0)))  # apart
    assert after["distance"] / before["distance"] == pytest.approx(40 / 90, rel=0.01)
    assert after["azimuth"] == pytest.approx(before["azimuth"], abs=1e-6)

    before, after = hand.move(((-40, 0), (-40, 0)), ((40, 0), (90, 0)))  # the first finger rests: no tap
    assert after["distance"] / before["distance"] == pytest.approx(80 / 130, rel=0.01)

    before, after = hand.move(((-40, 0), (-40, 70)), ((40, 0), (40, 70)))  # side by side
    moved = math.dist(after["target"], before["target"]) * 844 / after["distance"]
    assert moved > 30
    assert after["distance"] == pytest.approx(before["distance"], rel=0.05)

    before, after = hand.move(((-60, 0), (0, -60)), ((60, 0), (0, 60)))  # a quarter, clockwise
    assert after["azimuth"] - before["azimuth"] == pytest.approx(math.pi / 2, rel=0.05)


def test_tap_pins_a_cell_and_a_tap_outside_unpins_it(visit: Callable[..., Visit]) -> None:
    page = visit("/", 390, 844, has_touch=True, is_mobile=True)
    page.look_at("embedding")
    page.page.touchscreen.tap(*page.place("embedding", (5, 7)))
    assert page.state("store.state.view.pinned") == [{"figure": 0, "block": "embedding", "cell": [5, 7, 0]}]
    expect(page.page.locator(".card .formula")).to_be_visible()
    box = page.page.locator(".card").bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= 390 - box["width"]
    page.page.locator("#picture").tap(position={"x": 2, "y": 2})
    assert page.state("store.state.view.pinned") == []
