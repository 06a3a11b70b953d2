"""An independent implementation of formulas and index maps, as a layout's JSON describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import erf, exp, inf, sqrt, tanh
from typing import Any

import numpy as np

Block = dict[str, Any]
Place = tuple[int, ...]

ACTIVATIONS: Mapping[str, Callable[[float], float]] = {
    "gelu_new": lambda x: 0.5 * x * (1 + tanh(sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / sqrt(2))),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + exp(-x)),
}


def apply_index(rows: list[list[int]], *variables: int) -> Place:
    """Apply the rows of an index map."""
    given = (*variables, 1)
    return tuple(sum(factor * value for factor, value in zip(row, given, strict=True)) for row in rows)


def operands(block: Block, cell: Place, token: int) -> set[tuple[str, Place]]:
    """Return the cells that a block's formula reads for a cell; `token` is the token at its position."""
    formula = block["formula"]
    if formula is None or (formula.get("mask") and cell[0] > cell[1]):
        return set()
    s = [token] if formula["op"] == "embed" else range(formula["over"] or 1)
    return {(read["block"], apply_index(read["index"], *cell, n)) for read, n in product(formula["inputs"], s)}


def recompute(block: Block, cell: Place, values: Sequence[float]) -> float:
    """Compute a cell in float64 from the values of its operands, in their order."""
    formula, values = block["formula"], list(values)
    match formula["op"]:
        case "embed":
            return values[1] + values[2]
        case "mean":
            return sum(values) / int(formula["over"])
        case "norm_scale":
            *terms, mean = values
            return sqrt(sum((one - mean) ** 2 for one in terms) / formula["over"] + formula["epsilon"])
        case "layer_norm":
            x, mean, scale, weight, bias = values
            return (x - mean) / scale * weight + bias
        case "dot":
            if formula.get("mask") and cell[0] > cell[1]:
                return -inf
            bias = values.pop() if len(values) % 2 else 0.0
            pairs = zip(values[::2], values[1::2], strict=True)
            return float(formula.get("scale", 1.0) * sum(x * y for x, y in pairs) + bias)
        case "max":
            return max(values)
        case "sum_exp":
            *terms, largest = values
            return sum(exp(one - largest) for one in terms)
        case "softmax":
            x, largest, total = values
            return exp(x - largest) / total
        case "add":
            return values[0] + values[1]
        case "activation":
            return ACTIVATIONS[formula["function"]](values[0])
    raise AssertionError(f"unknown operation: {formula['op']}")


def some_cells(block: Block, seed: int, count: int = 3) -> list[Place]:
    """Return the two corners of a block and some random cells."""
    sizes = np.array(block["cells"])
    random = np.random.default_rng(seed)
    inside = [tuple(random.integers(0, sizes).tolist()) for _ in range(count)]
    return list(dict.fromkeys([(0, 0, 0), tuple((sizes - 1).tolist()), *inside]))


def cell_value(block: Block, cell: Place, tensors: Mapping[str, Any]) -> float:
    """Return a cell's value from the block's tensor."""
    return float(tensors[block["tensor"]["name"]][apply_index(block["tensor"]["index"], *cell)])
