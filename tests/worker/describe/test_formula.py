"""Formulas: refused where they are written, if the operation cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest

from worker.describe.formula import Formula, Input
from worker.describe.index import Index
from worker.describe.operations import Parameters

X = Input("x", Index("i s k"))


@pytest.mark.parametrize(
    ("op", "inputs", "over", "given", "reason"),
    [
        ("sofmax", 3, None, {}, "the operations are input, embed"),
        ("softmax", 2, None, {}, "it takes 3 inputs, and here are 2"),
        ("add", 1, None, {}, "it takes 2 or more inputs, and here are 1"),
        ("embed", 4, None, {}, "it takes 2 to 3 inputs, and here are 4"),
        ("mean", 1, None, {}, "`over` is missing"),
        ("add", 2, "C", {}, "it sums nothing"),
        ("mean", 1, "W", {}, "W is no size"),
        ("norm_scale", 2, "C", {}, "epsilon is missing"),
        ("add", 2, None, {"epsilon": 1e-5}, "epsilon is too much"),
        ("activation", 1, None, {"function": "tanh"}, "the functions are gelu_new, gelu, relu, silu"),
        ("rotary", 0, None, {"function": "gelu", "base": 1e4, "pairs": "halves", "width": 4}, "functions are cos, sin"),
        ("rotate", 3, "A", {"pairs": "thirds", "width": 4}, "pairs are halves or neighbours"),
        ("dot", 2, "A", {"mask": "window"}, "a window has a size"),
        ("dot", 2, "A", {"mask": "causal", "window": 4}, "a window has a size"),
        ("dot", 2, "A", {"mask": "diagonal"}, "a mask is causal or window"),
    ],
)
def test_what_cannot_be_meant_is_refused(op: str, inputs: int, over: str | None, given: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Formula(op, (X,) * inputs, over, Parameters(**given))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_sum_has_any_number_of_inputs(count: int) -> None:
    assert len(Formula("add", (X,) * count).inputs) == count


@pytest.mark.parametrize(
    ("given", "masked"),
    [
        ({}, []),
        ({"mask": "causal"}, [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)]),
        ({"mask": "window", "window": 2}, [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2), (0, 2), (0, 3), (1, 3)]),
    ],
)
def test_masks_are_of_keys_after_the_query_and_out_of_its_window(given: Any, masked: list[tuple[int, int]]) -> None:
    formula = Formula("dot", (X, X), "A", Parameters(**given))
    found = [(key, query) for query in range(4) for key in range(4) if formula.masks((key, query, 0))]
    assert sorted(found) == sorted(masked)
