"""Operations: values against an independent implementation, and the table in docs/concepts.md."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.worker.describe.reader import Reader, alibi_slopes, all_blocks, linear
from tests.worker.describe.test_architecture import FAMILIES
from worker.describe.notation import LATEX, TEXT
from worker.describe.operations import OPERATIONS, Parameters
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
        formula = block.formula
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


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 16, 112])
def test_alibi_slopes_are_those_of_the_paper(heads: int) -> None:
    at = [np.arange(heads), np.zeros(heads, int), np.zeros(heads, int)]
    found = OPERATIONS["alibi_slope"].value([], Parameters(heads=heads), at)
    np.testing.assert_allclose(found, alibi_slopes(heads), rtol=1e-12)
    if heads == 8:
        assert found.tolist() == [2.0**-n for n in range(1, 9)]


def test_a_slope_is_written_as_a_power_of_two() -> None:
    operation, p = OPERATIONS["alibi_slope"], Parameters(heads=12)
    assert operation.formula(TEXT, "", [], p, 1, (9, 0, 0)) == "1 / 2^(12 / 8)"
    assert operation.formula(LATEX, "", [], p, 1, (2, 0, 0)) == r"\frac{1}{2^{\frac{24}{8}}}"


def test_a_bias_by_distance_is_the_slope_times_the_negative_distance() -> None:
    operation, p = OPERATIONS["dot"], Parameters(scale=0.5, mask="causal", bias="distance")
    inputs = [np.array([[2.0, 1.0]]), np.array([[3.0, 4.0]]), np.array([[0.25]])]
    at = [np.array([1]), np.array([4]), np.array([0])]
    assert operation.value(inputs, p, at).tolist() == [0.5 * 10 - 0.25 * 3]
    assert operation.formula(TEXT, "t", ["q", "k", "a"], p, 2, (1, 4, 0)) == "t / √4 + a · (1 − 4)"
    weights = [weight.tolist() for _, weight in operation.terms([one[0] for one in inputs], p, (1, 4, 0))]
    assert weights == [[3.0, 2.0], [0.75]]


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
def test_channels_beyond_the_rotated_width_are_unchanged(pairs: str) -> None:
    p, x = Parameters(pairs=pairs, width=4), np.arange(12.0).reshape(2, 6)
    turned = np.array([[0.6, 0.8]]).T
    at = [np.array([5, 5]), np.array([4, 5]), np.array([0, 0])]
    found = OPERATIONS["rotate"].value([x, turned, turned], p, at)
    assert found.tolist() == [4.0, 11.0]
    assert OPERATIONS["rotate"].selected(p, (5, 4, 0), None) == range(4, 5)
    assert OPERATIONS["rotate"].formula(TEXT, "", ["x", "c", "s"], p, 6, (5, 4, 0)) == "x"


def test_a_layer_norm_without_gain_and_shift_is_the_quotient() -> None:
    operation, inputs = OPERATIONS["layer_norm"], [np.array([[value]]) for value in (5.0, 1.0, 2.0)]
    assert operation.value(inputs, Parameters(), []).tolist() == [2.0]
    assert operation.formula(TEXT, "", ["x", "μ", "σ"], Parameters(), 1, (0, 0, 0)) == "(x − μ) / σ"
