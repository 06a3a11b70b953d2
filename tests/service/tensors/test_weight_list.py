"""The list of a model's weights, in pieces."""

from __future__ import annotations

import tracemalloc
from math import prod

import orjson
import pytest

import service.tensors.weight_list as weight_list
from worker.families.registry import PRESETS, config_from_text, describe
from worker.models.sources import catalogue


@pytest.mark.parametrize("model", ["nano-gpt", "gpt2", "gpt3-175b", *(id for id in PRESETS if "llama" in id)])
def test_the_pieces_are_the_whole_catalogue_in_its_order(model: str) -> None:
    config = PRESETS[model].config
    listed = orjson.loads(b"".join(weight_list.pieces(describe(config))))
    assert listed == {
        "tensors": [
            {"name": name, "shape": [*shape], "dtype": "float32", "bytes": 4 * prod(shape)}
            for name, shape in catalogue(config).items()
        ]
    }


def test_a_list_of_the_most_layers_takes_little_memory() -> None:
    architecture = describe(config_from_text("n_layer=10000,n_head=1,n_embd=4"))
    tracemalloc.start()
    try:
        length = sum(map(len, weight_list.pieces(architecture)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length > 8_000_000
    assert peak < 1_000_000
