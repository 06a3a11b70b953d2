"""Explanations of every block of every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.worker.describe.test_architecture import FAMILIES
from worker.describe.notation import LATEX, TEXT
from worker.explain.cell import Sources, read_cell
from worker.explain.words import explain_cell
from worker.families.registry import describe
from worker.layout.describe import blocks
from worker.layout.place import place


@pytest.mark.parametrize("family", FAMILIES)
def test_operands_give_the_value_of_every_block(family: str, make_weights: Any, run_model: Any) -> None:
    config, random = FAMILIES[family], np.random.default_rng(4)
    weights = make_weights(config)
    values = run_model(config, weights, [[2, 1, 0, 1, 1, 2]])
    sources = Sources(lambda name, key: weights[name][key], lambda name, key: values[name][key])
    for block in blocks(place(config, 6), layers=range(2)):
        for _ in range(3):
            i, j, k = (int(random.integers(size)) for size in block["cells"])
            cell = read_cell(config, 6, block["id"], (i, j, k), sources)
            explanation = explain_cell(cell, "Given")
            assert explanation.text.endswith(f" = {TEXT.number(cell.value)}")
            assert explanation.latex.endswith(f" = {LATEX.number(cell.value)}")
            formula = cell.formula
            if formula is None or formula.op in ("input", "embed", "rotate") or cell.masked:
                continue
            reads = [cells.values.astype(np.float64)[None] for cells in cell.reads]
            at = [np.array([place]) for place in (i, j, k)]
            [value] = formula.operation.value(reads, formula.parameters, at)
            np.testing.assert_allclose(cell.value, value, rtol=1e-4, atol=1e-5, err_msg=block["id"])


def test_a_rotated_cell_reads_only_its_channel_and_its_partner(make_weights: Any, run_model: Any) -> None:
    config = FAMILIES["llama"]
    weights = make_weights(config)
    values = run_model(config, weights, [[2, 1, 0, 1, 1, 2]])
    sources = Sources(lambda name, key: weights[name][key], lambda name, key: values[name][key])
    half = describe(config).fixed_sizes["A"] // 2
    for channel, sign in ((1, -1), (1 + half, 1)):
        cell = read_cell(config, 6, "blocks.1.attn.heads.3.rot_q", (4, channel, 0), sources)
        first, second, cos, sin = (operand.value for operand in cell.operands())
        assert [operand.cell for operand in cell.operands()][:2] == [(4, 1, 0), (4, 1 + half, 0)]
        own, partner = (first, second) if channel == 1 else (second, first)
        assert cell.value == pytest.approx(own * cos + sign * partner * sin, rel=1e-5, abs=1e-6)
