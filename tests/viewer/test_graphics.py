"""The viewer without WebGL 2, and after losing its graphics context."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.viewer.conftest import Visit

pytestmark = pytest.mark.viewer

Open = Callable[..., Visit]

#: Simulates the loss of the context. The page itself disables extensions.
LOSE = """() => {
    const ask = WebGL2RenderingContext.prototype.getExtension;
    window.loss = ask.call(cutaway.stage.canvas.getContext("webgl2"), "WEBGL_lose_context");
    loss.loseContext();
}"""
NO_WEBGL = """{
    const { getContext } = HTMLCanvasElement.prototype;
    HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind.startsWith("webgl") ? null : getContext.call(this, kind, ...more);
    };
}"""


def test_picture_returns_when_the_context_is_restored(visit: Open) -> None:
    page = visit()
    before = page.picture()
    page.page.evaluate(LOSE)
    expect(page.page.get_by_role("alert")).to_contain_text("stopped drawing")
    page.page.evaluate("loss.restoreContext()")
    expect(page.page.get_by_role("alert")).to_be_hidden()
    page.settle()
    assert np.array_equal(page.picture(), before)
    page.console.clear()  # three.js logs the loss and the restoration


def test_page_works_without_webgl_except_for_the_picture(visit: Open) -> None:
    page = visit()
    page.page.add_init_script(NO_WEBGL)
    page.page.reload()
    expect(page.page.get_by_role("alert")).to_contain_text("WebGL 2 is missing")
    page.page.get_by_label("Prompt").fill("AAACBA")
    page.page.get_by_role("button", name="Run").click()
    expect(page.page.locator(".token.generated")).to_have_text(list("AAAABC"))
    page.page.locator("#panel-share summary").click()
    expect(page.page.get_by_role("button", name="PNG")).to_be_disabled()
