"""Custom models, models that were not run, and several models side by side."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.viewer.conftest import Visit

pytestmark = pytest.mark.viewer

Open = Callable[..., Visit]
SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 40, "n_positions": 16}
TYPED = ",".join(f"{name}:{size}" for name, size in SIZES.items())
ID = ",".join(f"{name}={size}" for name, size in SIZES.items())
WEIGHT = "blocks.1.mlp.in_weight"


def api(visit: Visit, path: str) -> Any:
    with urllib.request.urlopen(visit.address + path, timeout=60) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def card_text(visit: Visit) -> str:
    """Return the card's text about the current cell."""
    return " ".join(visit.page.locator(".card p").all_text_contents())


@pytest.mark.parametrize("how", [{"traced": "0"}, {"ids": "1,2,3", "max_new_tokens": "1"}], ids=["not run", "run"])
def test_weights_of_custom_sizes_equal_the_api(visit: Open, how: dict[str, str]) -> None:
    page = visit("/#" + urlencode({"model": TYPED} | how))
    blue = page.picture()[..., 2] - page.picture()[..., 0]
    assert np.count_nonzero(blue > 20) > 1_000
    total = api(page, f"/v1/models/{ID}")["parameters"]["total"]
    expect(page.page.locator("#bar .size")).to_have_text(f"{total:,} parameters")
    page.look_at(WEIGHT)
    page.page.mouse.move(*page.place(WEIGHT, (7, 21)))
    value = api(page, f"/v1/models/{ID}/tensors/h.1.mlp.c_fc.weight?slice=21,7")["data"]
    expect(page.page.locator(".card .place")).to_have_text(f"{WEIGHT} [7, 21, 0]")
    expect(page.page.locator(".card .formula").first).to_contain_text("h.1.mlp.c_fc.weight[21, 7]")
    shown = page.page.locator(".card .value").text_content() or ""
    assert float(shown.replace("−", "-")) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("language", "words", "none"),
    [
        ("en", "The sum of 16 products of “Queries” and “Keys”, divided by √16", "no value until the model is run"),
        ("zh-Hant", "「查詢向量」與「鍵向量」的 16 個乘積之和", "執行模型後才有數值"),
    ],
)
def test_cell_without_a_trace_explains_how_it_would_be_computed(
    visit: Open, language: str, words: str, none: str
) -> None:
    block = "blocks.1.attn.heads.1.scores"
    page = visit("/#" + urlencode({"model": TYPED, "traced": "0", "lang": language, "cell": f"0,{block},2,3,0"}))
    expect(page.page.locator(".card .formula").first).to_contain_text(words)
    assert none in card_text(page)
    expect(page.page.locator(".card .value")).to_have_count(0)


def test_search_finds_blocks_of_every_model(visit: Open) -> None:
    page = visit("/#" + urlencode({"beside": TYPED}))
    page.page.wait_for_function("() => cutaway.stage.models.shown.length === 2")
    page.page.keyboard.press("/")
    page.page.get_by_role("combobox", name="Search").fill("mlp weights layer 1")
    options = page.page.locator(".results").get_by_role("option")
    expect(options.filter(has_text=WEIGHT)).to_have_count(2)
    options.filter(has_text=WEIGHT).last.click()
    page.settle()
    other = "cutaway.stage.models.shown[1]"
    box = page.page.evaluate(f"{other}.pose.box({other}.figure.layout.around(['{WEIGHT}']))")
    target = page.state("stage.camera.target")
    assert all(box["min"][axis] < target[axis] < box["max"][axis] for axis in (0, 1))
    light = page.picture().max(axis=2)
    corners = page.page.evaluate(
        "({ min, max }) => [min, max].map((corner) => cutaway.stage.project(corner)).map(({ x, y }) => [x, y])", box
    )
    (left, right), (top, foot) = (sorted(round(at[axis]) for at in corners) for axis in (0, 1))
    within = np.zeros(light.shape, bool)
    within[max(top, 0) : foot, max(left, 0) : right] = True
    assert light[within].mean() > 3 * light[~within].mean()  # the block that was found is brighter


def test_formulas_are_requested_once_for_all_layers_and_heads(visit: Open) -> None:
    page = visit("/#" + urlencode({"model": TYPED.replace("n_layer:2", "n_layer:3"), "traced": "0"}))
    for layer, head in ((1, 0), (1, 1), (2, 1)):
        for cell in ((2, 3), (4, 5)):
            block = f"blocks.{layer}.attn.heads.{head}.scores"
            page.do(type="pin", at={"figure": 0, "block": block, "cell": [*cell, 0]})
            expect(page.page.locator(".card .place")).to_have_text(f"{block} [{cell[0]}, {cell[1]}, 0]")
            expect(page.page.locator(".card .formula").first).to_contain_text("products of “Queries” and “Keys”")
    assert len([url for url in page.requested if "formula" in url]) == 1


def test_arrow_keys_move_the_pinned_cell_or_else_the_picture(visit: Open) -> None:
    page = visit()
    page.look_at("ln_final.out")
    page.page.mouse.click(*page.place("ln_final.out", (4, 20)))
    camera = page.state("store.state.view.camera")
    expect(page.page.locator(".card")).to_contain_text("The arrow keys move to the neighbouring cells")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        x, y = page.place("ln_final.out", tuple(page.state("store.state.view.pinned")[0]["cell"][:2]))
        page.page.keyboard.press(key)
        to_x, to_y = page.place("ln_final.out", tuple(page.state("store.state.view.pinned")[0]["cell"][:2]))
        dx, dy = {"Right": (1, 0), "Left": (-1, 0), "Down": (0, 1), "Up": (0, -1)}[key.removeprefix("Arrow")]
        assert (np.sign(round(to_x - x)), np.sign(round(to_y - y))) == (dx, dy)
    [pinned] = page.state("store.state.view.pinned")
    assert pinned["cell"] != [4, 20, 0]
    assert page.state("store.state.view.camera") == camera
    place = f"ln_final.out [{', '.join(map(str, pinned['cell']))}]"
    expect(page.page.locator(".card .place")).to_have_text(place)
    expect(page.page.locator(".card .formula")).to_contain_text(f"out[{pinned['cell'][0]}, {pinned['cell'][1]}]")
    page.page.keyboard.press("Escape")
    page.page.keyboard.press("ArrowRight")
    page.settle()
    assert page.state("store.state.view.camera") != camera
    page.page.keyboard.press("?")
    expect(page.page.get_by_role("dialog")).to_contain_text("move to the neighbouring cells")
