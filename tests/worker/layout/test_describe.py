"""Blocks and groups as JSON: consistent with columns, tensors and each other."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gpt2 import CONFIGS
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe
from worker.layout.describe import FIELDS, blocks, groups
from worker.layout.encode import ROLES, columns
from worker.layout.geometry import STYLES, Geometry, Style
from worker.layout.place import place


def geometry(style: Style = "columns", n_layer: int = 13) -> Geometry:
    """A geometry whose sizes all differ."""
    config = Config(n_layer=n_layer, n_head=2, d_head=4, n_embd=5, n_inner=7, n_positions=6, vocab_size=11)
    return place(config, 3, 2, style)


LARGE_AND_SMALL = [("columns", 2), ("columns", 13), ("llm-viz", 13)]


@pytest.mark.parametrize("style", STYLES)
def test_blocks_agree_with_the_columns_row_by_row(style: Style) -> None:
    g = geometry(style)
    table = columns(g)
    found = list(blocks(g))
    for name in ("position", "size", "cells"):
        assert [block[name] for block in found] == table[name].tolist()
    for name in ("layer", "head"):
        assert [-1 if block[name] is None else block[name] for block in found] == table[name].tolist()
    assert [ROLES.index(block["role"]) for block in found] == table["role"].tolist()
    for block, number in zip(found, table["kind"], strict=True):
        kind = g.kinds[number]
        assert block["id"] == kind.id.format(layer=block["layer"], head=block["head"])
        assert (block["name"], tuple(block["dims"]), block["minor"]) == (kind.name, kind.cells, kind.minor)
        assert (block["tensor"] is None, block["formula"] is None) == (kind.tensor is None, kind.formula is None)


@pytest.mark.parametrize(("style", "n_layer"), LARGE_AND_SMALL)
def test_ids_are_unique(style: Style, n_layer: int) -> None:
    ids = [block["id"] for block in blocks(geometry(style, n_layer))]
    assert len(set(ids)) == len(ids)


def test_a_block_has_the_documented_form() -> None:
    g = place(CONFIGS["nano-gpt"], 11)
    block = next(block for block in blocks(g) if block["id"] == "blocks.0.attn.heads.1.q")
    assert tuple(block) == FIELDS
    position, size = block.pop("position"), block.pop("size")
    assert len(position) == 3
    assert size == [16.5, 24, 1.5]
    assert json.loads(json.dumps(block)) == {
        "id": "blocks.0.attn.heads.1.q", "name": "Q vectors", "role": "activation", "layer": 0, "head": 1,
        "cells": [11, 16, 1], "dims": ["T", "A", "B"], "minor": False,
        "tensor": {"name": "blocks.0.attn.q", "index": [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]},
        "formula": {"op": "dot", "over": 48, "inputs": [
            {"block": "blocks.0.attn.heads.1.q_weight", "index": [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]},
            {"block": "blocks.0.ln1.out", "index": [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]},
            {"block": "blocks.0.attn.heads.1.q_bias", "index": [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]},
        ]},
    }  # fmt: skip


def test_every_activation_and_statistic_has_a_formula_and_every_block_a_tensor() -> None:
    for block in blocks(geometry()):
        assert block["tensor"] is not None
        assert (block["formula"] is None) == (block["role"] == "weight")


# ----------------------------------------------------------------------------------------------------- tensors


def cells(shape: list[int], index: list[list[int]]) -> NDArray[np.int64]:
    """[cells, axes]: the index of every cell (i, j, k, …) of a box of this shape."""
    every = np.indices((*shape, 1)).reshape(len(shape) + 1, -1)
    every[-1] = 1
    return (np.array(index) @ every).T


@pytest.mark.parametrize(("style", "n_layer"), LARGE_AND_SMALL)
def test_blocks_of_a_tensor_cover_it_exactly_once(style: Style, n_layer: int) -> None:
    g = geometry(style, n_layer)
    shapes = {
        name: tensor.shape(g.sizes)
        for name, tensor in (*describe(g.config).all_weights(), *describe(g.config).all_values())
    }
    seen: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for block in blocks(g, fields={"cells", "tensor"}):
        if block["tensor"]:
            seen[block["tensor"]["name"]] += map(tuple, cells(block["cells"], block["tensor"]["index"]).tolist())
    shapes["wpe.weight"] = (g.tokens, *shapes["wpe.weight"][1:])  # of the positions in use
    for name, found in seen.items():
        assert sorted(found) == list(product(*map(range, shapes[name]))), name

    unseen = {"embed", "pos_embed", *(f"blocks.{layer}.resid_pre" for layer in range(1, n_layer))}
    if style == "llm-viz":
        unseen |= {f"blocks.{layer}.attn.{part}" for layer in range(n_layer) for part in "qkv"}
        unseen |= {f"h.{layer}.attn.c_attn.weight" for layer in range(n_layer)}
    assert shapes.keys() - seen.keys() == unseen


# ---------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize(("style", "n_layer"), LARGE_AND_SMALL)
def test_inputs_are_cells_of_blocks_that_come_before(style: Style, n_layer: int) -> None:
    g = geometry(style, n_layer)
    found = list(blocks(g))
    shapes = {block["id"]: block["cells"] for block in found}
    # Weights are there from the start; a sum of exponentials is listed just before the maximum that it reads.
    known = {block["id"] for block in found if block["role"] == "weight" or block["id"].endswith("_max")}
    for block in found:
        for given in block["formula"]["inputs"] if block["formula"] else ():
            assert given["block"] in known
            over = g.sizes["V"] if block["formula"]["op"] == "embed" else block["formula"]["over"] or 1
            reached = cells([*block["cells"], over], given["index"])
            assert (reached >= 0).all()
            assert (reached < shapes[given["block"]]).all()
        known.add(block["id"])


def formula(g: Geometry, id: str) -> dict[str, Any]:
    return next(block["formula"] for block in blocks(g, fields={"id", "formula"}) if block["id"] == id)


def test_formulas_have_their_parameters() -> None:
    g = geometry()
    scores = formula(g, "blocks.0.attn.heads.0.scores")
    assert {name: scores[name] for name in ("op", "over", "scale", "mask")} == {
        "op": "dot", "over": 4, "scale": 0.5, "mask": "causal",
    }  # fmt: skip
    assert formula(g, "blocks.3.ln2.scale")["epsilon"] == Config().layer_norm_epsilon
    assert formula(g, "blocks.3.mlp.post")["function"] == "gelu_new"


def test_the_projection_reads_every_head_in_turn() -> None:
    dot = formula(geometry(), "blocks.1.attn_out")
    assert dot["over"] == 4
    assert [(given["block"], given["index"][0]) for given in dot["inputs"]] == [
        ("blocks.1.attn.out_weight", [0, 0, 0, 1, 0]),
        ("blocks.1.attn.heads.0.z", [1, 0, 0, 0, 0]),
        ("blocks.1.attn.out_weight", [0, 0, 0, 1, 4]),
        ("blocks.1.attn.heads.1.z", [1, 0, 0, 0, 0]),
        ("blocks.1.attn.out_bias", [0, 0, 0, 0, 0]),
    ]


def test_the_residual_stream_runs_through_all_layers() -> None:
    g = geometry()
    entered = [formula(g, f"blocks.{layer}.resid_mid")["inputs"][1]["block"] for layer in range(13)]
    assert entered == ["embedding", *(f"blocks.{layer}.resid_post" for layer in range(12))]
    assert formula(g, "ln_final.mean")["inputs"][0]["block"] == "blocks.12.resid_post"


def test_rows_of_a_merged_box_are_q_then_k_then_v() -> None:
    g = geometry("llm-viz")
    at = "blocks.5.attn.heads.1"
    scores, z = formula(g, f"{at}.scores"), formula(g, f"{at}.z")
    rows = [(given["block"], given["index"][1]) for given in (*scores["inputs"], z["inputs"][1])]
    assert rows == [
        (f"{at}.qkv", [0, 0, 0, 1, 0]), (f"{at}.qkv", [0, 0, 0, 1, 4]), (f"{at}.qkv", [0, 1, 0, 0, 8]),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- choosing


@pytest.mark.parametrize("cuts", [[0, 13], [0, 1, 12, 13], list(range(14))])
def test_ranges_of_layers_concatenate_to_the_whole(cuts: list[int]) -> None:
    g = geometry()
    assert [block for cut in pairwise(cuts) for block in blocks(g, slice(*cut))] == list(blocks(g))
    assert [group for cut in pairwise(cuts) for group in groups(g, range(*cut))] == groups(g)


@pytest.mark.parametrize("style", STYLES)
def test_heads_select_the_blocks_of_heads(style: Style) -> None:
    g = geometry(style)
    assert list(blocks(g, heads=slice(1, 2))) == [block for block in blocks(g) if block["head"] in (None, 1)]


@pytest.mark.parametrize("field", FIELDS)
def test_fields_select_the_fields_of_blocks(field: str) -> None:
    g = geometry()
    assert list(blocks(g, fields=[field])) == [{field: block[field]} for block in blocks(g)]


@pytest.mark.parametrize("wrong", [{"fields": ["place"]}, {"layers": range(14)}, {"heads": range(3)}])
def test_unknown_fields_layers_and_heads_are_rejected_before_iteration(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        blocks(geometry(), **wrong)


# ------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize(("style", "n_layer"), LARGE_AND_SMALL)
@pytest.mark.parametrize("heads", [slice(None), slice(1, 2)])
def test_groups_contain_exactly_the_listed_blocks(style: Style, n_layer: int, heads: slice) -> None:
    g = geometry(style, n_layer)
    found = groups(g, slice(None), heads)
    ids = [block["id"] for block in blocks(g, slice(None), heads)]
    outer = ["embedding", *(f"blocks.{layer}" for layer in range(n_layer)), "unembedding"]
    by_id = {group["id"]: group["blocks"] for group in found}
    assert len(by_id) == len(found)
    assert [id for name in outer for id in by_id[name]] == ids
    assert {id for group in found for id in group["blocks"]} == set(ids)


def test_groups_of_a_layer_match_the_original() -> None:
    g = geometry(n_layer=2)
    found = {group["id"]: group["blocks"] for group in groups(g, slice(1, 2))}
    layer, head = "blocks.1", "blocks.1.attn.heads.0"
    assert list(found)[:4] == [layer, f"{layer}.proj", f"{layer}.self_attention", f"{layer}.mlp"]
    assert [len(found[id]) for id in list(found)[:4]] == [50, 4, 5 + 28 + 4, 13]
    assert sorted(found[f"{layer}.self_attention"] + found[f"{layer}.mlp"]) == sorted(found[layer])
    parts = {id.removeprefix(f"{head}."): found[id] for id in found if id.startswith(f"{head}.")}
    assert {part: [id.removeprefix(f"{head}.") for id in ids] for part, ids in parts.items()} == {
        "q": ["q_weight", "q_bias", "q"], "k": ["k_weight", "k_bias", "k"], "v": ["v_weight", "v_bias", "v"],
        "bias": ["q_bias", "k_bias", "v_bias"], "matrix": ["scores", "scores_sum", "scores_max", "pattern"],
        "vector": ["z"],
    }  # fmt: skip
    twice = Counter(id for ids in parts.values() for id in ids)
    assert set(twice) == set(found[head])
    assert len(found[head]) == 14
