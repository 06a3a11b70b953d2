"""Columns of a geometry, and the safetensors file as its package reads it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

from worker.describe.outline import outline
from worker.families.gpt2 import GPT2Config as Config
from worker.layout.encode import COLUMNS, ROLES, columns, safetensors
from worker.layout.geometry import STYLES, Geometry, Style
from worker.layout.place import place


def geometry(style: Style = "columns", n_layer: int = 14) -> Geometry:
    return place(Config(n_layer=n_layer, n_head=3, n_embd=12, n_inner=20, n_positions=9, vocab_size=7), 5, 2, style)


def test_columns_have_the_documented_types() -> None:
    g = geometry()
    found = {name: (column.dtype.name, column.shape) for name, column in columns(g).items()}
    n = g.count
    assert found == {
        "position": ("float64", (n, 3)), "size": ("float64", (n, 3)), "cells": ("int32", (n, 3)),
        "layer": ("int32", (n,)), "head": ("int32", (n,)), "role": ("uint8", (n,)), "kind": ("uint8", (n,)),
    }  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_rows_are_in_block_order(style: Style) -> None:
    g = geometry(style)
    kinds = {
        scope: [n for n, kind in enumerate(g.kinds) if kind.scope == scope] for scope in ("model", "layer", "head")
    }
    expected = [(-1, -1, kind) for kind in kinds["model"][:4]]
    for layer in range(14):
        expected += [(layer, -1, kind) for kind in kinds["layer"][:5]]
        expected += [(layer, head, kind) for head in range(3) for kind in kinds["head"]]
        expected += [(layer, -1, kind) for kind in kinds["layer"][5:]]
    expected += [(-1, -1, kind) for kind in kinds["model"][4:]]
    table = columns(g)
    assert list(zip(*(table[name].tolist() for name in ("layer", "head", "kind")), strict=True)) == expected


@pytest.mark.parametrize("style", STYLES)
def test_rows_refer_to_their_kind(style: Style) -> None:
    g = geometry(style)
    table = columns(g)
    kinds = [g.kinds[kind] for kind in table["kind"]]
    assert [ROLES[role] for role in table["role"]] == [kind.role for kind in kinds]
    assert table["cells"].tolist() == [[g.sizes[dim] for dim in kind.cells] for kind in kinds]
    assert np.array_equal(table["size"], 1.5 * table["cells"])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("cuts", [[0, 14], [0, 1, 13, 14], [0, 0, 12, 14, 14], list(range(15))])
def test_ranges_of_layers_concatenate_to_the_whole(style: Style, cuts: list[int]) -> None:
    g = geometry(style)
    parts = [columns(g, slice(*cut)) for cut in pairwise(cuts)]
    for name, column in columns(g).items():
        assert np.array_equal(np.concatenate([part[name] for part in parts]), column)


@pytest.mark.parametrize("layers", [range(0, 15), range(-1, 2), slice(None, None, 2), range(3, 1), slice(9, 2)])
def test_layers_out_of_range_are_rejected(layers: slice | range) -> None:
    with pytest.raises(ValueError, match="layers"):
        columns(geometry(), layers)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("layers", [None, slice(0, 1), slice(3, 3), range(13, 14)])
def test_the_safetensors_package_reads_the_file(style: Style, layers: slice | range | None) -> None:
    g = geometry(style)
    read = load(bytes(safetensors(g, layers)))
    table = columns(g, layers)
    assert read.keys() == table.keys()
    for name, column in table.items():
        assert read[name].dtype == column.dtype
        assert np.array_equal(read[name], column)


def test_the_metadata_lists_roles_and_kinds(tmp_path: Path) -> None:
    g = geometry("llm-viz")
    file = tmp_path / "layout.safetensors"
    file.write_bytes(safetensors(g, slice(12, 14)))
    with safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    kinds = json.loads(metadata.pop("kinds"))
    assert json.loads(metadata.pop("architecture")) == json.loads(json.dumps(outline(g.architecture)))
    assert metadata == {
        "roles": '["weight", "activation", "statistic"]', "style": "llm-viz", "cell": "1.5", "margin": "12.0",
        "count": str(g.count), "layers": "12:14",
    }  # fmt: skip
    assert [(kind["id"], kind["name"], tuple(kind["dims"])) for kind in kinds] == [
        (kind.id, kind.name, kind.cells) for kind in g.kinds
    ]
    assert [kind["merges"][0].rpartition(".")[2] for kind in kinds if kind["merges"]] == ["q_weight", "q"]


def test_all_data_in_the_file_are_aligned() -> None:
    file = safetensors(geometry())
    length = int.from_bytes(file[:8], "little")
    described = json.loads(bytes(file[8 : 8 + length]))
    assert length % 8 == 0
    for name, (dtype, _) in COLUMNS.items():
        assert (8 + length + described[name]["data_offsets"][0]) % np.dtype(dtype).itemsize == 0
    assert 8 + length + described["kind"]["data_offsets"][1] == len(file)
