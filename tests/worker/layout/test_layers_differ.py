"""Layers whose formulas differ: in layouts, explanations and values to read."""

from __future__ import annotations

from typing import Any

import pytest

from worker.describe.architecture import Architecture
from worker.explain.cell import Sources, read_cell
from worker.explain.words import explain_cell
from worker.families.gemma3 import Gemma3Config
from worker.families.registry import describe
from worker.layout.describe import blocks
from worker.layout.place import place

CONFIG = Gemma3Config(
    num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, hidden_size=12, head_dim=4, intermediate_size=10,
    max_position_embeddings=9, vocab_size=17, sliding_window=2,
    layer_types=("sliding_attention", "full_attention", "sliding_attention"),
)  # fmt: skip
LOCAL = [0, 2]


@pytest.fixture(scope="module")
def formulas() -> dict[str, Any]:
    return {block["id"]: block["formula"] for block in blocks(place(CONFIG, 6))}


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return describe(CONFIG)


@pytest.mark.parametrize("layer", range(3))
def test_a_layouts_formulas_are_those_of_the_layer(formulas: dict[str, Any], layer: int) -> None:
    scores, rotated = (formulas[f"blocks.{layer}.attn.heads.1.{name}"] for name in ("scores", "rot_q"))
    wanted = {"mask": "window", "window": 2} if layer in LOCAL else {"mask": "causal"}
    assert {name: scores[name] for name in ("mask", "window") if name in scores} == wanted
    waves = "rotary_local" if layer in LOCAL else "rotary"
    assert [read["block"] for read in rotated["inputs"][1:]] == [f"{waves}.cos", f"{waves}.sin"]


def test_formulas_that_are_equal_in_all_layers_are_stored_once(architecture: Architecture) -> None:
    varying = {kind.short_name for kind in architecture.kinds if kind.by_layer}
    assert varying == {"scores", "rot_q", "rot_k"}


@pytest.mark.parametrize("layer", range(3))
def test_values_to_read_are_those_of_the_layer(architecture: Architecture, layer: int) -> None:
    block = architecture.find(f"blocks.{layer}.attn.kv_heads.0.rot_k")
    waves = "rotary_local" if layer in LOCAL else "rotary"
    assert block.values[2:] == [f"{waves}.cos", f"{waves}.sin"]


def test_an_explanation_says_that_a_key_is_out_of_the_window(make_weights: Any, run_model: Any) -> None:
    weights = make_weights(CONFIG)
    values = run_model(CONFIG, weights, [[2, 1, 0, 1, 1, 2]])
    sources = Sources(lambda name, key: weights[name][key], lambda name, key: values[name][key])

    def text(layer: int) -> str:
        id = f"blocks.{layer}.attn.heads.0.scores"
        return explain_cell(read_cell(CONFIG, 6, id, (1, 4, 0), sources), "").text

    assert text(0) == "Masked, as position 1 is 2 or more before position 4, out of its window: scores[1, 4] = −∞"
    assert text(1).startswith("The sum of 4 products of rot_q and rot_k, divided by √256: ")
