"""The viewer in a browser: it shows the API's values."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.viewer.conftest import ROOT, Visit

pytestmark = pytest.mark.viewer

Open = Callable[..., Visit]
SCORES = "blocks.0.attn.heads.2.scores"

#: The bytes of all responses as transferred, including the page's own files.
TRANSFERRED = "performance.getEntriesByType('resource').reduce((sum, { transferSize }) => sum + transferSize, 0)"


def api(visit: Visit, path: str) -> Any:
    with urllib.request.urlopen(visit.address + path, timeout=60) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def drawn(page: Page) -> float:
    """Return the milliseconds from the start of the navigation to the first picture."""
    mark = "performance.getEntriesByName('first picture')[0]?.startTime"
    return float(page.wait_for_function(f"() => {mark}").json_value())


def triangle(visit: Visit) -> float:
    """Return the milliseconds that a minimal page with WebGL takes in this browser."""
    page = visit.page.context.new_page()
    page.route("**/triangle", lambda route: route.fulfill(path=Path(__file__).with_name("triangle.html")))
    page.goto(visit.address + "/triangle")
    time = drawn(page)
    page.close()
    return time


def numbers(camera: dict[str, Any]) -> list[float]:
    return [*camera["target"], *(camera[name] for name in ("distance", "azimuth", "elevation"))]


def test_page_opens_with_every_cell_of_nano_gpt_filled(visit: Open) -> None:
    page = visit()
    filled = page.state("detail.count")
    assert filled == page.state("store.state.figures[0].layout.count") == 206
    red, green, blue = np.moveaxis(page.picture(), 2, 0)
    for colour in (blue > green + 20, green > blue + 20, red > green + 20):  # weights, values above 0 and below
        assert np.count_nonzero(colour) > 1_000
    assert page.page.locator(".token.generated").all_text_contents() == list("ABBBCC")
    assert page.page.evaluate(TRANSFERRED) < 2_000_000
    print(
        f"nano-gpt, with its values: on the screen after {drawn(page.page):.0f} ms and {len(page.requested)} requests"
    )
    print(f"one triangle, without a request: after {triangle(page):.0f} ms")


def test_page_reloads_if_a_chunk_fails_to_load(visit: Open) -> None:
    page = visit()
    part = re.compile(r"/viewer/assets/app-[^/]+\.js")
    page.page.route(part, lambda route: route.abort(), times=1)
    page.page.reload()
    page.settle()
    assert sum(bool(part.search(url)) for url in page.requested) == 3  # the first load, the failed one and the retry
    page.console.clear()  # the browser logs the failure


def test_another_prompt_changes_picture_and_output(visit: Open) -> None:
    page = visit()
    before = page.picture()
    page.page.get_by_label("Prompt").fill("AAACBA")
    page.page.get_by_role("button", name="Run").click()
    expect(page.page.locator(".token.generated")).to_have_text(list("AAAABC"))
    page.settle()
    changed = np.any(np.abs(page.picture() - before) > 30, axis=2)
    assert 0.002 < np.mean(changed) < 0.5  # values, but not weights or positions


def test_invalid_prompt_shows_the_servers_message(visit: Open) -> None:
    page = visit()
    page.page.get_by_label("Prompt").fill("CABD")
    page.page.get_by_role("button", name="Run").click()
    expect(page.page.get_by_role("status")).to_contain_text("must be one of A, B, C")
    page.console.clear()  # the browser logs each 422


@pytest.mark.parametrize(
    ("block", "cell"), [(SCORES, (3, 6)), ("blocks.1.mlp.in_weight", (100, 30)), ("ln_final.out", (10, 40))]
)
def test_cell_under_the_pointer_has_the_apis_value_and_explanation(
    visit: Open, block: str, cell: tuple[int, int]
) -> None:
    page = visit()
    page.look_at(block)
    page.page.mouse.move(*page.place(block, cell))
    trace = page.state("store.state.figures[0].trace.id")
    expected = api(page, f"/v1/traces/{trace}/explain?" + urlencode({"block": block, "cell": f"{cell[0]},{cell[1]},0"}))
    expect(page.page.locator(".card .formula")).to_contain_text(expected["formula"]["text"][:40])
    shown = page.page.locator(".card .value").text_content() or ""
    assert float(shown.replace("−", "-")) == pytest.approx(expected["value"], rel=1e-5)
    assert f"{block} [{cell[0]}, {cell[1]}, 0]" in (page.page.locator(".card .place").text_content() or "")


def test_formula_has_a_chinese_sentence_and_the_same_equation(visit: Open) -> None:
    page = visit("/#" + urlencode({"lang": "zh-Hant", "cell": f"0,{SCORES},1,2,0"}))
    formula = page.page.locator(".card .formula")
    expect(formula).to_contain_text("「查詢向量」與「鍵向量」的 16 個乘積之和")
    expect(formula).to_contain_text("= (Σ(s = 0…15) q[2, s] · k[1, s]) / √16")
    assert not re.search("[A-Za-z]{3}", formula.evaluate("element => element.firstChild.textContent"))


def test_value_can_be_traced_to_its_token_and_back(visit: Open) -> None:
    page = visit()
    page.look_at("embedding")
    page.page.mouse.click(*page.place("embedding", (5, 7)))
    page.page.locator(".operand", has_text="Token embedding").first.click()
    page.page.locator(".card .place", has_text="wte").wait_for()
    assert page.state("store.state.view.pinned")[-1] == {"figure": 0, "block": "wte", "cell": [2, 7, 0]}
    page.page.get_by_role("button", name="Back", exact=True).click()
    assert page.state("store.state.view.pinned")[-1]["block"] == "embedding"
    page.page.locator(".operand", has_text="tokens").click()
    expect(page.page.locator(".card .formula")).to_contain_text("Token 'C', given with the request")
    page.page.keyboard.press("Escape")
    assert page.state("store.state.view.pinned") == []


def test_address_restores_the_view(visit: Open) -> None:
    page = visit()
    page.page.get_by_role("button", name="Explore").click()  # links have no welcome, so their picture is larger
    page.look_at(SCORES)
    page.do(type="pin", at={"figure": 0, "block": SCORES, "cell": [2, 5, 0]})
    page.do(type="view", change={"step": 2})
    page.page.wait_for_function("() => location.hash.includes('step=2')")
    page.settle()
    before, wanted = page.picture(), page.state("store.state.view")
    again = visit(page.page.url.removeprefix(page.address))
    found = again.state("store.state.view")
    assert numbers(found.pop("camera")) == pytest.approx(numbers(wanted.pop("camera")), rel=1e-3)
    assert found == wanted
    assert np.mean(np.abs(again.picture() - before)) < 1


def test_step_shows_only_values_computed_by_then(visit: Open) -> None:
    page = visit()
    before = page.picture()
    page.page.get_by_role("button", name="One token back").click()
    page.page.get_by_role("button", name="One token back").click()
    expect(page.page.locator(".token.generated")).to_have_text(list("ABBB"))
    page.settle()
    after = page.picture()
    assert np.mean(after) < np.mean(before)
    page.page.get_by_role("button", name="One token forward").click()
    page.page.get_by_role("button", name="One token forward").click()
    page.settle()
    assert np.mean(np.abs(page.picture() - before)) < 0.5


def test_keyboard_rotates_pans_and_zooms(visit: Open) -> None:
    page = visit()
    page.page.locator("#picture").focus()
    seen = [page.state("stage.camera")]
    for key in ("ArrowLeft", "Shift+ArrowUp", "+", "-", "Home"):
        page.page.keyboard.press(key)
        page.settle()
        seen.append(page.state("stage.camera"))
    assert all(a != b for a, b in pairwise(seen))
    assert seen[-1]["distance"] == pytest.approx(seen[0]["distance"])


def test_search_by_name_flies_to_the_block(visit: Open) -> None:
    page = visit()
    page.page.keyboard.press("/")
    page.page.get_by_role("combobox", name="Search").fill("attention scores 1 2")
    page.page.keyboard.press("Enter")
    page.settle()
    x, y = page.place("blocks.1.attn.heads.2.scores", (5, 5))
    page.page.mouse.move(x, y)
    page.page.wait_for_function("() => cutaway.store.state.hovered")
    assert page.state("store.state.hovered")["block"].startswith("blocks.1.attn.heads.2.")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (844, 390), (1920, 1080)])
def test_page_fits_the_window_without_horizontal_scrolling(visit: Open, width: int, height: int) -> None:
    page = visit("/", width, height)
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture = page.picture()
    assert picture.shape[0] * picture.shape[1] > 0.35 * width * height
    drawn = np.any(picture > 60, axis=2)
    rows, columns = np.nonzero(drawn)
    assert max(np.ptp(rows) / picture.shape[0], np.ptp(columns) / picture.shape[1]) > 0.6


def test_page_is_translated_to_chinese(visit: Open) -> None:
    page = visit("/#lang=zh-Hant")
    assert page.page.evaluate("document.documentElement.lang") == "zh-Hant"
    expect(page.page.get_by_role("button", name="執行")).to_be_visible()


def test_models_are_side_by_side_to_scale(visit: Open) -> None:
    small = "n_layer:2,n_head:2,n_embd:32,vocab_size:40,n_positions:16"
    page = visit("/#" + urlencode({"beside": small}))
    page.page.wait_for_function("() => cutaway.stage.models.shown.length === 2")
    page.settle()
    boxes = page.page.evaluate("cutaway.stage.models.shown.map(({ figure, pose }) => pose.box(figure.layout.bounds))")
    assert boxes[1]["max"][1] < boxes[0]["min"][1]
    cells = page.page.evaluate("cutaway.stage.models.shown.map(({ layoutCell }) => layoutCell)")
    assert cells == [1.5, 1.5]


def test_gpt3_is_complete_and_can_be_rotated(visit: Open) -> None:
    page = visit("/#model=gpt3-175b&traced=0")
    assert page.state("store.state.figures[0].layout.count") == 131_150
    loaded = page.page.evaluate("performance.now()")
    times = page.page.evaluate(
        """() => new Promise((done) => {
            const { stage } = cutaway, times = [], from = stage.camera;
            let [frames, last] = [stage.frames, performance.now()];
            const step = () => {
                if (stage.frames > frames) {
                    const now = performance.now();
                    times.push(now - last);
                    [frames, last] = [stage.frames, now];
                    stage.camera = { ...from, azimuth: from.azimuth + 0.01 * times.length };
                    stage.invalidate();
                }
                if (times.length < 20) requestAnimationFrame(step);
                else done(times);
            };
            stage.invalidate();
            step();
        })"""
    )
    print(f"GPT-3, 131,150 blocks: loaded in {loaded:.0f} ms, then {np.median(times):.0f} ms a frame")
    page.settle()
    assert np.count_nonzero(page.picture().max(axis=2) > 60) > 5_000
    assert not any("/tensors/" in url for url in page.requested)  # no block is near enough to show values
    page.look_at("blocks.50.attn.heads.95.q_weight", distance=200)
    assert any("/tensors/h.50.attn.c_attn.weight" in url and "max_cells" in url for url in page.requested)
    assert page.page.evaluate(TRANSFERRED) < 3_000_000


def test_unreachable_server_is_retried(visit: Open) -> None:
    page = visit()
    page.page.route("**/v1/traces", lambda route: route.abort())
    page.page.get_by_label("Prompt").fill("BBBAAA")
    page.page.get_by_role("button", name="Run").click()
    expect(page.page.get_by_role("alert")).to_contain_text("Trying again")
    page.page.unroute("**/v1/traces")
    expect(page.page.locator(".token.generated")).to_have_text(list("AAABBB"))
    expect(page.page.get_by_role("alert")).to_be_hidden()
    page.console.clear()  # the browser logs each failure


def test_longer_trace_shows_progress_and_can_be_stopped(visit: Open) -> None:
    page = visit()
    sizes = "n_layer:24,n_head:2,n_embd:256,n_positions:1024,vocab_size:500"
    page.page.goto(
        page.address
        + "/?"
        + urlencode({"again": 1})
        + "#"
        + urlencode({"model": sizes, "ids": "1,2,3", "max_new_tokens": 900})
    )
    form = page.page.locator("#panel-input")
    expect(form.get_by_role("progressbar", name="Progress")).to_be_visible()
    form.get_by_role("button", name="Stop").click()
    expect(form.get_by_role("status")).to_contain_text("cancelled")


def test_unit_tests_pass() -> None:
    npm, modules = shutil.which("npm"), ROOT / "viewer" / "node_modules"
    if npm is None or not modules.is_dir():
        pytest.skip("needs Node.js and the viewer's tools: make viewer")
    ran = subprocess.run([npm, "test"], cwd=modules.parent, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
