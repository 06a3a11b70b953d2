"""The tour, links, downloads and the welcome in a browser."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.viewer.conftest import ROOT, Visit

pytestmark = pytest.mark.viewer

Open = Callable[..., Visit]
AXE = ROOT / "viewer" / "node_modules" / "axe-core" / "axe.min.js"
STEPS = 19
LITTLE = "model=n_layer:2,n_head:2,n_embd:32,vocab_size:40,n_positions:16&ids=1,2,3&max_new_tokens=2"


def test_tour_runs_to_its_end_and_every_step_has_blocks(visit: Open) -> None:
    page = visit()
    page.page.get_by_role("button", name="Start the tour").click()
    titles, blocks = [], {}
    for _ in range(STEPS):
        step = page.state("store.state.view.tour")
        titles.append(page.page.locator(".tour h2").text_content())
        light = page.state("store.state.highlight")
        blocks[step] = [*light["blocks"], *(light["lit"] if step != "layers" else [])]
        page.do(type="tour", command={"do": "go", "step": step, "share": 0.9999})
        page.page.wait_for_function(
            "step => cutaway.store.state.view.tour !== step || cutaway.store.state.player.share === 1", arg=step
        )
    assert len(set(titles)) == len(blocks) == STEPS
    assert page.state("store.state.player") == {"share": 1, "playing": False, "speed": 1}
    for step, lit in blocks.items():
        assert lit or step in {"start", "layers", "again"}, step
    assert page.page.evaluate(
        "blocks => blocks.every(id => cutaway.store.state.figures[0].layout.row(id) !== null)",
        [id for ids in blocks.values() for id in ids],
    )
    page.page.get_by_role("button", name="End the tour").click()
    assert page.state("store.state.highlight") is None
    expect(page.page.locator(".tour")).to_be_hidden()


def test_cells_are_filled_in_order_with_their_operands_outlined(visit: Open) -> None:
    page = visit("/", reduced_motion="no-preference")
    page.do(type="tour", command={"do": "go", "step": "qkv", "share": 0})
    page.settle()
    empty = page.picture()
    page.do(type="tour", command={"do": "go", "step": "qkv", "share": 0.5})
    page.page.wait_for_function("() => cutaway.store.state.highlight.cells.length === 4")
    page.settle()
    half = page.picture()
    page.do(type="tour", command={"do": "go", "step": "qkv", "share": 1})
    page.settle()
    changed = [np.count_nonzero(np.any(np.abs(picture - empty) > 30, axis=2)) for picture in (half, page.picture())]
    assert 0 < changed[0] < changed[1]
    page.do(type="tour", command={"do": "go", "step": "qkv", "share": 0.5})
    target, weights, vector, bias = page.state("store.state.highlight.cells")
    (i, j, _), width = target["cell"], page.state("store.state.figures[0].layout.facts.config.n_embd")
    assert [weights["cell"], weights["to"]] == [[0, j, 0], [width - 1, j, 0]]
    assert [vector["cell"], vector["to"]] == [[i, 0, 0], [i, width - 1, 0]]
    assert bias["cell"] == bias["to"] == [0, j, 0]


def test_tour_texts_have_the_models_numbers_and_the_users_language(visit: Open) -> None:
    page = visit(f"/#{LITTLE}&tour=qkv")
    expect(page.page.locator(".tour-words")).to_contain_text("There are 2 heads")
    expect(page.page.locator(".tour-words")).to_contain_text("16 numbers")
    page.page.get_by_role("combobox", name="Language").select_option("zh-Hant")
    expect(page.page.locator(".tour h2")).to_have_text("查詢、鍵、值")
    assert page.page.evaluate("document.documentElement.lang") == "zh-Hant"


def test_keyboard_controls_the_tour(visit: Open) -> None:
    page = visit()
    keys = page.page.keyboard
    keys.press("Tab")
    expect(page.page.get_by_role("button", name="Skip to the picture")).to_be_focused()
    keys.press("Enter")
    expect(page.page.locator("#picture")).to_be_focused()
    page.page.get_by_role("button", name="Start the tour").press("Enter")
    expect(page.page.get_by_role("button", name="Pause")).to_be_focused()
    keys.press("Space")
    for key, step in (("ArrowRight", "tokens"), ("ArrowRight", "embedding"), ("ArrowLeft", "tokens")):
        keys.press(key)
        assert page.state("store.state.view.tour") == step
    assert page.state("store.state.player.playing") is False
    keys.press("Space")
    assert page.state("store.state.player.playing") is True


def test_tour_fits_a_phone(visit: Open) -> None:
    page = visit("/", 390, 844, has_touch=True)
    page.page.get_by_role("button", name="Start the tour").tap()
    for _ in range(2):
        page.page.get_by_role("button", name="Next step").tap()
    page.page.get_by_role("button", name="Pause").tap()
    page.settle()
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    left, top, right, bottom = page.page.evaluate(
        """() => {
            const { stage, store } = cutaway;
            const [{ figure, pose }] = stage.models.shown;
            const corners = figure.layout.box(figure.layout.row("embedding"));
            const at = [corners.min, corners.max].map((corner) => stage.project(pose.point(corner)));
            const { width, height } = store.state.viewport;
            const [xs, ys] = [at.map(({ x }) => x / width), at.map(({ y }) => y / height)];
            return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
        }"""
    )
    assert 0 < left < right < 1
    assert 0 < top < bottom < 1
    for name in ("Previous step", "Next step", "End the tour"):
        box = page.page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= 390 - box["width"]
        assert box["y"] <= 844 - box["height"]


def test_link_restores_step_camera_and_model(visit: Open) -> None:
    page = visit(f"/#{LITTLE}&tour=mlp&lang=zh-Hant")
    page.page.locator("#picture").press("Shift+ArrowLeft")  # an angle that no step has
    page.page.wait_for_function("() => location.hash.includes('camera')")
    page.settle()
    before, wanted = page.picture(), page.state("store.state.view")
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.page.locator("#panel-share > summary").click()
    page.page.get_by_role("button", name="複製連結").click()
    expect(page.page.locator("#panel-share").get_by_role("status")).to_have_text("已複製連結")
    link = page.page.evaluate("navigator.clipboard.readText()")
    again = visit(link.removeprefix(page.address))
    found = again.state("store.state.view")
    for camera in (wanted.pop("camera"), found["camera"]):
        assert camera["azimuth"] == pytest.approx(again.state("stage.camera")["azimuth"], abs=1e-3)
    assert {name: found[name] for name in wanted} == wanted
    assert np.mean(np.abs(again.picture() - before)) < 1


def test_picture_model_and_values_can_be_downloaded(visit: Open) -> None:
    page = visit()
    page.page.locator("#panel-share > summary").click()
    files = {}
    for name in ("Picture (PNG)", "Model in 3D (GLB)", "Values (safetensors)"):
        with page.page.expect_download() as download:
            page.page.locator("#panel-share").get_by_text(name).click()
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    trace = page.state("store.state.figures[0].trace.id")
    assert list(files) == ["cutaway-nano-gpt.png", "cutaway-nano-gpt.glb", f"nano-gpt-{trace[:12]}.safetensors"]
    png, glb, values = files.values()
    picture = Image.open(BytesIO(png)).convert("RGB")
    shown = page.state("store.state.viewport")
    assert picture.size == (2 * shown["width"], 2 * shown["height"])
    assert np.count_nonzero(np.asarray(picture).max(axis=2) > 60) > 10_000
    assert glb[:4] == b"glTF"
    header = json.loads(values[8 : 8 + struct.unpack("<Q", values[:8])[0]])
    assert header.keys() - {"__metadata__"} == page.state("store.state.figures[0].trace.tensors").keys()


def test_dismissed_welcome_does_not_return(visit: Open) -> None:
    page = visit()
    expect(page.page.locator(".welcome")).to_be_visible()
    page.page.get_by_role("button", name="Explore").click()
    expect(page.page.locator(".welcome")).to_be_hidden()
    page.open()
    expect(page.page.locator(".welcome")).to_be_hidden()


def test_unknown_model_offers_nano_gpt_instead(visit: Open) -> None:
    page = visit()
    page.page.goto(page.address + "/#model=gpt9")
    page.page.reload()
    expect(page.page.locator(".loading-card")).to_contain_text("gpt9")
    page.page.get_by_role("button", name="Show nano-gpt").click()
    page.settle()
    expect(page.page.locator(".loading-card")).to_be_hidden()
    page.console.clear()  # the browser logs each 4xx


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desktop", "phone"])
def checked(visit: Open, request: pytest.FixtureRequest) -> Page:
    if not AXE.is_file():
        pytest.skip("needs axe-core: make viewer (Node.js 20.19 or later)")
    page = visit("/", *request.param).page
    page.evaluate(AXE.read_text("utf-8"))
    return page


def test_page_has_no_serious_accessibility_violations(checked: Page) -> None:
    for command in (None, {"do": "start"}):
        if command:
            checked.evaluate("command => cutaway.store.dispatch({ type: 'tour', command })", command)
        found = checked.evaluate("axe.run().then(({ violations }) => violations)")
        serious = [
            (each["id"], each["help"], [node["html"][:200] for node in each["nodes"]])
            for each in found
            if each["impact"] in {"serious", "critical"}
        ]
        assert serious == []


LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "vocab_size": 11,
    "max_position_embeddings": 16,
}


def test_tour_of_another_family_is_translated(visit: Open) -> None:
    sizes = ",".join(f"{name}:{value}" for name, value in LLAMA.items())
    page = visit(f"/#model={sizes}&ids=1,2,3&max_new_tokens=2&tour=rotate&lang=zh-Hant")
    expect(page.page.locator(".tour h2")).to_have_text("旋轉")


def test_derived_sizes_follow_until_they_are_typed(visit: Open) -> None:
    sizes = ",".join(f"{name}:{value}" for name, value in LLAMA.items())
    page = visit(f"/#model={sizes}&traced=0")
    form = page.page.locator("#panel-sizes")
    form.locator("summary").click()
    form.get_by_label("Width", exact=True).fill("32")
    expect(form.get_by_label("Head width")).to_have_value("8")
    expect(form.get_by_label("Key/value heads")).to_have_value("2")  # not the derived number of heads
    form.get_by_label("Head width").fill("4")
    form.get_by_label("Width", exact=True).fill("64")
    expect(form.get_by_label("Head width")).to_have_value("4")
    form.get_by_role("button", name="Show").click()
    page.page.wait_for_function("() => cutaway.store.state.figures[0].layout.facts.config.hidden_size === 64")
    page.settle()
    assert page.state("store.state.figures[0].layout.facts.config.head_dim") == 4


def test_tour_of_another_family_has_its_own_steps(visit: Open) -> None:
    sizes = ",".join(f"{name}:{value}" for name, value in LLAMA.items())
    page = visit(f"/#model={sizes}&ids=1,2,3&max_new_tokens=2&tour=start")
    steps = page.state("store.state.figures[0].layout.description.steps")
    assert {"rms_norm", "rotate", "gated"} <= {step["id"] for step in steps}
    for step in steps:
        page.do(type="tour", command={"do": "go", "step": step["id"], "share": 0.5})
        page.settle()
        expect(page.page.locator(".tour h2")).not_to_be_empty()
        light = page.state("store.state.highlight")
        blocks = [*light["blocks"], *light["lit"]]
        assert blocks, step["id"]
        assert page.page.evaluate(
            "blocks => blocks.every(id => cutaway.store.state.figures[0].layout.row(id) !== null)", blocks
        )
        if step["id"] == "rotate":
            expect(page.page.locator(".tour h2")).to_contain_text(step["name"])
