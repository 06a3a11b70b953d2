"""The reading aids in a browser: they show the API's values."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.viewer.conftest import Visit

pytestmark = pytest.mark.viewer

Open = Callable[..., Visit]


def api(visit: Visit, path: str) -> Any:
    with urllib.request.urlopen(visit.address + path, timeout=60) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def trace(visit: Visit) -> str:
    return str(visit.state("store.state.figures[0].trace.id"))


def test_attention_map_has_every_weight_and_enter_shows_a_cell_in_3d(visit: Open) -> None:
    page = visit("/#aid=attention&head=1,2")
    expect(page.page.get_by_role("radio", name="Head 2")).to_be_checked()
    rows = page.page.locator(".attention-table tr")
    expect(rows).to_have_count(12)
    expected = api(page, f"/v1/traces/{trace(page)}/tensors/blocks.1.attn.pattern?slice=0,2")["data"]
    cells = [row.locator("td").all_text_contents() for row in rows.all()[1:]]
    assert [[float(cell.strip("<% ")) for cell in row] for row in cells] == [
        [pytest.approx(100 * share, abs=0.11) for share in row] for row in expected
    ]
    map_ = page.page.locator(".heatmap")
    map_.focus()
    for key in ("ArrowUp", "ArrowRight", "ArrowRight", "ArrowRight"):  # from the last row's first cell
        page.page.keyboard.press(key)
    expect(page.page.locator(".reading")).to_contain_text("“B” (9) attends to “B” (3)")
    page.page.keyboard.press("Enter")
    assert page.state("store.state.view.pinned") == [
        {"figure": 0, "block": "blocks.1.attn.heads.2.pattern", "cell": [3, 9, 0]}
    ]


def test_attention_rollout_equals_the_api(visit: Open) -> None:
    page = visit("/#aid=attention&head=-1,0")
    rows = page.page.locator(".attention-table tr")
    expect(rows).to_have_count(12)
    last = [float(cell.strip("<% ")) for cell in rows.last.locator("td").all_text_contents()]
    expected = api(page, f"/v1/traces/{trace(page)}/lens?attention=rollout")["rollout"][-1]["shares"]
    assert last == [pytest.approx(100 * share, abs=0.11) for share in expected]


def test_lens_shows_predictions_of_each_layer_and_flies_there(visit: Open) -> None:
    page = visit("/#aid=lens")
    rows = page.page.locator(".lens-table tbody tr")
    expect(rows).to_have_count(4)
    expected = api(page, f"/v1/traces/{trace(page)}/lens?top=1")["layers"]
    for row, layer in zip(rows.all(), expected, strict=True):
        assert row.locator("button").all_text_contents() == [one["top"][0]["text"] for one in layer["predictions"]]
    before = page.state("store.state.view.camera")
    rows.nth(1).locator("button").first.click()
    assert page.state("store.state.view.camera") != before


def test_temperature_changes_the_distribution_without_a_request(visit: Open) -> None:
    page = visit("/#aid=sampling&step=1")
    bars = page.page.locator(".bars li")
    expect(bars).to_have_count(3)
    logits = api(page, f"/v1/traces/{trace(page)}/tensors/logits?slice=0,5")["data"]
    requested = len(page.requested)
    for temperature in (5, 1, 0.5, 0):
        page.page.locator("#temperature").fill(str(temperature))
        weights = [
            math.exp((x - max(logits)) / temperature) if temperature else float(x == max(logits)) for x in logits
        ]
        shares = sorted((100 * weight / sum(weights) for weight in weights), reverse=True)
        shown = [float(text.strip("<% ")) for text in bars.locator("b").all_text_contents()]
        assert shown == [pytest.approx(share, abs=0.011) for share in shares]
    assert len(page.requested) == requested


def test_parameters_equal_the_api(visit: Open) -> None:
    page = visit("/#aid=parameters")
    parts = api(page, "/v1/models/nano-gpt")["parameters"]
    rows = page.page.locator(".parts tr")
    exact = [row.locator("td").first.get_attribute("title") for row in rows.all()]
    assert sorted(exact, key=str) == sorted((f"{count:,}" for count in parts["by_part"].values()), key=str)
    expect(page.page.locator(".total")).to_contain_text(f"{parts['total']:,}")


def test_parameters_of_custom_sizes_are_counted_from_the_layout(visit: Open) -> None:
    own = "n_layer:2,n_head:3,n_embd:48,n_positions:11,vocab_size:3,tie_word_embeddings:false"
    page = visit(f"/#aid=parameters&traced=0&model={own}")
    assert page.state("store.state.figures[0].model") is None
    a_layer = 4 * 48 * 48 + 2 * 48 * 192 + (3 * 48 + 48 + 192 + 48) + 2 * 2 * 48
    expect(page.page.locator(".total")).to_contain_text(f"{2 * a_layer + 2 * 3 * 48 + 11 * 48 + 2 * 48:,}")


def test_scale_palette_and_range_change_the_colours(visit: Open) -> None:
    page = visit("/#aid=colours")
    seen = [page.picture()]
    for name in ("logarithmic", "colour-blind safe", "same value for all blocks"):
        page.page.get_by_role("radio", name=name).check(force=True)
        page.settle()
        seen.append(page.picture())
        assert np.mean(np.any(np.abs(seen[-1] - seen[-2]) > 20, axis=2)) > 0.005, name
    largest = max(abs(one[key]) for one in tensors(page) for key in ("min", "max") if one[key] is not None)
    assert page.state("store.state.view.colour.range") == pytest.approx(largest, rel=0.1)
    page.page.wait_for_function("() => location.hash.includes('range=')")
    restored = visit("/" + page.page.evaluate("location.hash"))
    assert restored.state("store.state.view.colour") == page.state("store.state.view.colour")


def tensors(visit: Visit) -> list[Any]:
    return list(api(visit, f"/v1/traces/{trace(visit)}")["tensors"].values())


def test_legend_has_the_range_of_the_current_block(visit: Open) -> None:
    page = visit("/#cell=0,blocks.0.attn.heads.1.pattern,3,4,0")
    scale = page.state("detail.scale('blocks.0.attn.heads.1.pattern')")
    high = page.page.locator(".legend .ramp").nth(1).locator("small span").last
    expect(high).to_have_text(f"{scale:.2f}".rstrip("0").rstrip("."))
    expect(page.page.locator(".ramp-marker")).to_have_count(1)


def test_keyboard_searches_gpt3_and_flies_from_layer_to_layer(visit: Open) -> None:
    page = visit("/#model=gpt3-175b&traced=0")
    page.page.keyboard.press("/")
    page.page.keyboard.type("queries layer 95 head 12")
    expect(page.page.locator(".results").get_by_role("option").first).to_contain_text("blocks.95.attn.heads.12.q")
    page.page.keyboard.press("Enter")
    assert page.state("store.state.highlight.blocks") == ["blocks.95.attn.heads.12.q"]
    cameras = [page.state("store.state.view.camera.target")]
    for key in ("PageUp", "PageUp", "PageDown"):
        page.page.keyboard.press(key)
        cameras.append(page.state("store.state.view.camera.target"))
    assert cameras[1] == cameras[3] != cameras[2]
    page.page.keyboard.press("Escape")
    assert page.state("store.state.highlight") is None


def test_help_lists_the_keys_and_escape_only_closes_it(visit: Open) -> None:
    page = visit("/#cell=0,tokens,0,0,0")
    page.page.keyboard.press("?")
    expect(page.page.get_by_role("dialog")).to_contain_text("Search for a block")
    page.page.keyboard.press("Escape")
    expect(page.page.get_by_role("dialog")).to_have_count(0)
    assert page.state("store.state.view.pinned") != []


def test_aids_are_below_the_picture_on_a_phone(visit: Open) -> None:
    page = visit("/", 390, 844, has_touch=True, is_mobile=True)
    expect(page.page.locator("#side")).to_be_hidden()
    for name, place in (("Input", "#side"), ("Sampling", "#aids")):
        button = page.page.locator("#rail").get_by_role("button", name=name)
        button.tap()
        expect(button).to_have_attribute("aria-expanded", "true")
        box = page.page.locator(place).bounding_box()
        assert box is not None
        assert box["width"] == 390
        assert box["y"] > 300
        button.tap()
        expect(page.page.locator(place)).to_be_hidden()
    assert page.page.evaluate("document.documentElement.scrollWidth") == 390
