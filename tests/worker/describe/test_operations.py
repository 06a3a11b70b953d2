"""Operations: values against an independent implementation, and the table in docs/concepts.md."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.worker.describe.reader import Reader, all_blocks, linear
from tests.worker.describe.test_architecture import FAMILIES
from worker.describe.operations import OPERATIONS
from worker.families.registry import describe

CONCEPTS = Path(__file__).parents[3] / "docs" / "concepts.md"


def test_the_docs_define_every_operation() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", CONCEPTS.read_text(), re.MULTILINE)
    shown = {name: meaning for name, meaning in rows if name in OPERATIONS}
    assert shown == {name: operation.meaning for name, operation in OPERATIONS.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_values_match_an_independent_implementation(family: str, make_weights, run_model) -> None:  # type: ignore[no-untyped-def]
    config, random = FAMILIES[family], np.random.default_rng(3)
    weights = make_weights(config)
    read = Reader(config, 6, 2, {**weights, **run_model(config, weights, random.integers(0, 17, (2, 6)))})
    seen = set()
    for block in all_blocks(config):
        formula = block.kind.formula
        if formula is None or formula.op == "input" or block.kind.id in seen:
            continue
        seen.add(block.kind.id)
        cells = [random.integers(0, size, 20) for size in read.shape(block)]
        s = np.arange(read.sizes[formula.over] if formula.over else 1)
        if formula.op == "embed":
            tokens = read.values["tokens"][cells[2], cells[0]]
            inputs = [each(tokens[:, None]) for each in read.inputs(block, tuple(at[:, None] for at in cells), s)]
        else:
            inputs = [each() for each in read.inputs(block, tuple(at[:, None] for at in cells), s)]
        found = formula.operation.value(inputs, formula.parameters, cells)
        wanted = read.formula(block, *cells)
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-6)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=2e-7 * scale, err_msg=block.id)
    assert {kind.id for kind in describe(config).kinds if kind.formula and kind.formula.op != "input"} == seen


def test_the_reader_evaluates_a_row_as_written() -> None:
    at = (np.array([1, 2]), np.array([3, 4]), np.array([0, 0]))
    assert linear([1, 10, 100, 7], at).tolist() == [38, 49]
