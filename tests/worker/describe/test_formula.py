"""Formulas: validation of operations, inputs and parameters, and masks."""

from __future__ import annotations

from typing import Any

import pytest

from worker.describe.formula import Formula, Input
from worker.describe.index import Index
from worker.describe.operations import Parameters

X = Input("x", Index("i s k"))


@pytest.mark.parametrize(
    ("op", "inputs", "over", "parameters", "reason"),
    [
        ("sofmax", 3, None, {}, "the operation must be one of input, embed"),
        ("softmax", 2, None, {}, "it takes 3 inputs, not 2"),
        ("add", 1, None, {}, "it takes 2 or more inputs, not 1"),
        ("embed", 4, None, {}, "it takes 2 to 3 inputs, not 4"),
        ("mean", 1, None, {}, "`over` is missing"),
        ("add", 2, "C", {}, "`over` is not allowed"),
        ("mean", 1, "W", {}, "W is not a size"),
        ("norm_scale", 2, "C", {}, "missing parameters: epsilon"),
        ("add", 2, None, {"epsilon": 1e-5}, "unknown parameters: epsilon"),
        ("activation", 1, None, {"function": "tanh"}, "must be one of gelu_new, gelu, relu, silu"),
        (
            "rotary",
            0,
            None,
            {"function": "gelu", "base": 1e4, "pairs": "halves", "width": 4},
            "must be one of cos, sin",
        ),
        ("rotate", 3, "A", {"pairs": "thirds", "width": 4}, "`pairs` must be halves or neighbours"),
        ("dot", 2, "A", {"mask": "window"}, "only a window mask has a `window`"),
        ("dot", 2, "A", {"mask": "causal", "window": 4}, "only a window mask has a `window`"),
        ("dot", 2, "A", {"mask": "diagonal"}, "the mask must be causal or window"),
        ("dot", 3, "A", {"bias": "square"}, "`bias` must be distance"),
        ("dot", 2, "A", {"bias": "distance"}, "there must be an input left over"),
    ],
)
def test_invalid_formulas_are_rejected(op: str, inputs: int, over: str | None, parameters: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Formula(op, (X,) * inputs, over, Parameters(**parameters))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_add_takes_any_number_of_inputs(count: int) -> None:
    assert len(Formula("add", (X,) * count).inputs) == count


@pytest.mark.parametrize(
    ("parameters", "masked"),
    [
        ({}, []),
        ({"mask": "causal"}, [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)]),
        ({"mask": "window", "window": 2}, [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2), (0, 2), (0, 3), (1, 3)]),
    ],
)
def test_masks_cover_keys_after_the_query_or_outside_its_window(parameters: Any, masked: list[tuple[int, int]]) -> None:
    formula = Formula("dot", (X, X), "A", Parameters(**parameters))
    found = [(key, query) for query in range(4) for key in range(4) if formula.masks((key, query, 0))]
    assert sorted(found) == sorted(masked)
