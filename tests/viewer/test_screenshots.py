"""The pictures of the viewer in docs/: RECORD_SCREENSHOTS=1 takes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from tests.viewer.conftest import ROOT, Visit

pytestmark = pytest.mark.viewer

Open = Callable[..., Visit]
VIEWS = {
    "viewer": {"tour": "scores"},
    "viewer-gpt3": {
        "model": "gpt3-175b",
        "traced": "0",
        "tokens": "1024",
        "beside": "gpt2-xl;gpt2",
        "flow": "down",
        "aid": "none",
    },
}

recorded = pytest.mark.skipif("RECORD_SCREENSHOTS" not in os.environ, reason="takes pictures: make screenshots")


@recorded
@pytest.mark.parametrize("name", VIEWS)
def test_the_docs_show_the_viewer_as_it_is(visit: Open, name: str) -> None:
    page = visit("/#" + urlencode(VIEWS[name]), 1600, 900, reduced_motion="no-preference")
    figures = 1 + VIEWS[name].get("beside", "").count(";") + ("beside" in VIEWS[name])
    page.page.wait_for_function("count => cutaway.stage.models.shown.length === count", arg=figures)
    if "tour" in VIEWS[name]:
        page.do(type="tour", command={"do": "go", "step": VIEWS[name]["tour"], "share": 0.62})
    page.settle()
    page.page.screenshot(path=ROOT / "docs" / f"{name}.png")
