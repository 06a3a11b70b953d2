"""Cells and operands: they match the layout, and the operands determine the value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isinf
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.explanations import cell_value, operands, recompute, some_cells
from tests.gpt2 import CONFIGS
from tests.nano import nano as trained
from worker.describe.architecture import UnknownBlockError
from worker.explain.cell import Cell, CellError, Read, Sources, read_cell
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe
from worker.layout.describe import blocks
from worker.layout.place import place
from worker.models.sources import synthetic

NANO = CONFIGS["nano-gpt"]
ODD: dict[str, Any] = {
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 10,
    "d_head": 4,
    "n_inner": 7,
    "n_positions": 6,
    "vocab_size": 9,
}
MODELS = {
    "relu, untied": Config(**ODD, activation_function="relu", tie_word_embeddings=False),
    "silu": Config(**ODD, activation_function="silu"),
    "gelu": Config(**ODD, activation_function="gelu"),
}


@dataclass
class Traced:
    """A model's weights and the values of a trace, and a record of what was read."""

    config: Config
    tensors: dict[str, NDArray[Any]]
    read: list[tuple[str, int]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        batch, tokens = self.tensors["tokens"].shape
        return batch, tokens

    @cached_property
    def blocks(self) -> list[dict[str, Any]]:
        batch, tokens = self.shape
        return list(blocks(place(self.config, tokens, batch)))

    def source(self) -> Read:
        def read(name: str, key: Any) -> NDArray[Any]:
            found: NDArray[Any] = self.tensors[name][key]
            self.read.append((name, found.size))
            return found

        return read

    def read_cell(self, id: str, at: Any) -> Cell:
        batch, tokens = self.shape
        return read_cell(self.config, tokens, id, at, Sources(self.source(), self.source()), batch)


@pytest.fixture(scope="module")
def nano(run_model: Callable[..., Any]) -> Traced:
    weights = dict(trained())
    return Traced(NANO, weights | run_model(NANO, weights, [[2, 1, 0, 1, 1, 2, 0, 1, 1, 1, 2]]))


@pytest.fixture(scope="module", params=MODELS)
def odd(request: pytest.FixtureRequest, make_weights: Callable[..., Any], run_model: Callable[..., Any]) -> Traced:
    config = MODELS[request.param]
    weights = make_weights(config)
    return Traced(config, weights | run_model(config, weights, np.random.default_rng(1).integers(0, 9, (3, 5))))


def check(traced: Traced, block: dict[str, Any], at: Any) -> None:
    """Check the cell's value, that its operands are those in the layout, and that they give the value."""
    cell = traced.read_cell(block["id"], at)
    by_id = {block["id"]: block for block in traced.blocks} if block["formula"] else {}
    assert cell.value == cell_value(block, at, traced.tensors)
    found = cell.operands()
    assert len(found) == cell.total
    if block["formula"] is None or block["formula"]["op"] == "input":
        assert found == []
        return
    token = int(traced.tensors["tokens"][at[2], at[0]]) if block["id"] == "embedding" else 0
    assert {(one.block, one.cell) for one in found} == operands(block, at, token)
    assert [one.value for one in found] == [cell_value(by_id[one.block], one.cell, traced.tensors) for one in found]
    values = [float(one.value) for one in found]
    wanted = recompute(block, at, values)
    largest = max([abs(value) for value in (*values, wanted) if not isinf(value)], default=0.0)
    assert float(cell.value) == pytest.approx(wanted, rel=2e-6, abs=2e-6 * largest), (block["id"], at)


def ids(config: Config) -> list[str]:
    return [block["id"] for block in blocks(place(config, 1), fields=["id"])]


@pytest.mark.parametrize("number", range(len(ids(NANO))))
def test_operands_give_the_cells_of_every_block_of_nano_gpt(nano: Traced, number: int) -> None:
    block = nano.blocks[number]
    for at in some_cells(block, number):
        check(nano, block, at)


def test_operands_give_the_cells_of_every_block_of_small_models(odd: Traced) -> None:
    for number, block in enumerate(odd.blocks):
        for at in some_cells(block, number):
            check(odd, block, at)


def test_only_the_cell_and_its_operands_are_read(odd: Traced) -> None:
    for number, block in enumerate(odd.blocks):
        for at in some_cells(block, number):
            odd.read.clear()
            cell = odd.read_cell(block["id"], at)
            assert sum(size for _, size in odd.read) == 1 + cell.total


def test_only_the_operands_weights_are_generated() -> None:
    config = CONFIGS["gpt3-175b"]
    weights, tensors = synthetic(config, 0), {"h.95.mlp.c_proj.weight", "h.95.mlp.c_proj.bias"}
    read_sizes: dict[str, int] = {}

    def read(name: str, key: Any) -> NDArray[Any]:
        made = weights.read(name, key)
        read_sizes[name] = made.size
        return made

    def values(name: str, key: Any) -> NDArray[Any]:
        return np.ones(np.broadcast_to(np.empty(()), (1, 2048, 4 * 12288))[key].shape, np.float32)

    cell = read_cell(config, 2048, "blocks.95.mlp_out", (2047, 12287, 0), Sources(read, values))
    assert cell.total == 2 * 49152 + 1
    assert read_sizes.keys() == tensors
    assert sum(read_sizes.values()) == 49152 + 1


# ------------------------------------------------------------------------------------------------------- limits


def test_a_limit_keeps_the_largest_contributions_first(nano: Traced) -> None:
    cell = nano.read_cell("blocks.1.attn.heads.2.q", (4, 7, 0))
    values = [float(one.value) for one in cell.operands()]
    products = [abs(x * y) for x, y in zip(values[::2], values[1::2], strict=False)]
    few = [float(one.value) for one in cell.operands(10)]
    assert [abs(x * y) for x, y in zip(few[::2], few[1::2], strict=True)] == sorted(products, reverse=True)[:5]
    assert cell.total == 2 * 48 + 1


@pytest.mark.parametrize(
    ("id", "at"), [("logits", (3, 1, 0)), ("ln_final.scale", (3, 0, 0)), ("logits_sum", (2, 0, 0))]
)
@pytest.mark.parametrize("limit", [2, 3, 4, 7, 1000])
def test_a_limited_sum_has_as_many_whole_terms_as_fit(nano: Traced, id: str, at: Any, limit: int) -> None:
    cell = nano.read_cell(id, at)
    few = cell.operands(limit)
    assert len(few) <= min(limit, cell.total)
    assert len(few) >= min(limit - 1, cell.total)
    assert set(few) <= set(cell.operands())


def test_shared_operands_come_first_in_a_limited_sum(nano: Traced) -> None:
    shared = [nano.read_cell(id, (2, 0, 0)).operands(2)[0].block for id in ("blocks.0.ln2.scale", "logits_sum")]
    assert shared == ["blocks.0.ln2.mean", "logits_max"]


def test_operands_of_a_maximum_are_sorted_with_masked_ones_last(nano: Traced) -> None:
    cell = nano.read_cell("blocks.0.attn.heads.0.scores_max", (0, 4, 0))
    found = [float(one.value) for one in cell.operands(11)]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[5:]) == (cell.value, [-inf] * 6)


def test_a_formula_that_is_not_a_sum_is_not_limited(nano: Traced) -> None:
    assert len(nano.read_cell("ln_final.out", (1, 2, 0)).operands(1)) == 5


# ---------------------------------------------------------------------------------------- blocks and cells


def test_every_block_of_a_layout_is_found_by_its_id() -> None:
    config = Config(n_layer=13, n_head=2, n_embd=4, n_positions=3, vocab_size=3)
    for block in blocks(place(config, 3)):
        found = describe(config).find(block["id"])
        assert (found.id, found.layer, found.member) == (block["id"], block["layer"], block["head"])
        assert (found.tensor, found.kind.role) == (block["tensor"]["name"], block["role"])


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("", "such as embedding, blocks.0.ln1.out"),
        ("blocks.{layer}.ln1.out", "such as embedding"),
        ("{residual_in}", "such as embedding"),
        ("blocks.00.ln1.out", "such as embedding"),
        ("blocks.0.attn.heads.0.ln1.out", "such as embedding"),
        ("blocks.0.attn.heads.0", "such as embedding"),
        ("blocks.0.embedding", "such as embedding"),
        ("blocks.3.ln1.out", "layer must be from 0 to 2"),
        ("blocks.2.attn.heads.3.q", "head must be from 0 to 2"),
    ],
)
def test_an_unknown_block_is_rejected_with_the_allowed_ids(id: str, message: str) -> None:
    with pytest.raises(UnknownBlockError, match=f"There is no block '{id}'.*{message}"):
        describe(NANO).find(id)


@pytest.mark.parametrize("at", [(11, 0, 0), (0, 48, 0), (0, 0, 1), (-1, 0, 0)])
def test_a_cell_out_of_range_is_rejected_with_the_allowed_range(nano: Traced, at: Any) -> None:
    with pytest.raises(
        CellError,
        match="is not a cell of embedding: must be i from 0 to 10, j from 0 to 47, k from 0 to 0",
    ):
        nano.read_cell("embedding", at)


@pytest.mark.parametrize(
    ("id", "values"),
    [
        ("wte", []),
        ("tokens", ["tokens"]),
        ("embedding", ["blocks.0.resid_pre", "tokens"]),
        ("blocks.1.ln1.mean", ["blocks.1.ln1.mean", "blocks.0.resid_post"]),
        ("blocks.1.attn_out", ["blocks.1.attn_out", "blocks.1.attn.z"]),
        ("ln_final.out", ["ln_final.out", "blocks.2.resid_post", "ln_final.mean", "ln_final.scale"]),
    ],
)
def test_a_block_lists_the_values_that_explain_it(id: str, values: list[str]) -> None:
    assert describe(NANO).find(id).values == values
