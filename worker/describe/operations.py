"""The operations of formulas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf, isclose
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.functions import FUNCTIONS
from worker.describe.norm_operations import LayerNorm, Mean, NormScale, RmsNorm, RmsScale
from worker.describe.notation import Notation
from worker.describe.operation import BIASES, MASKS, NONE, PAIRS, WAVES, Array, Cell, Operation, Parameters, masked
from worker.describe.position_operations import AlibiSlope, Rotary, Rotate

__all__ = ["BIASES", "MASKS", "NONE", "OPERATIONS", "PAIRS", "WAVES", "Cell", "Operation", "Parameters"]


class Input(Operation):
    name, meaning, arity = "input", "given by the request", (0, 0)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        raise ValueError("an input is not computed")

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return "Given by the request"


class Embed(Operation):
    name, meaning, arity = "embed", "y(s), s being the token x, times `scale`, plus z if there is one", (2, 3)
    takes = frozenset({"scale"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        row, *position = (one[:, 0] for one in inputs[1:])
        return np.add.reduce([row * (1 if p.scale is None else p.scale), *position])

    def selected(self, p: Parameters, cell: Cell, first: Any) -> range | None:
        return None if first is None else range(int(first), int(first) + 1)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        row, *position = inputs[1:]
        return " + ".join((row if p.scale is None else n.times(n.number(p.scale), row), *position))

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        scaled = "" if p.scale is None else f", times {p.scale:g}"
        position = f", plus row {cell[0]} of {names[2]}, its position" if len(names) > 2 else ""
        return f"Row {values[0]} of {names[1]}, as that is the token{scaled}{position}"


class Dot(Operation):
    name, arity, sums = "dot", (2, inf), True
    meaning = (
        "Σₛ x·y over every pair of inputs, times `scale`, plus the one left over (times i − j where `bias` is "
        "distance); −∞ where `mask` is causal and i > j, or is window and i > j or i ≤ j − `window`"
    )
    takes = frozenset({"scale", "mask", "window", "bias"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        total = np.add.reduce([(x * y).sum(1) for x, y in zip(inputs[::2], inputs[1::2], strict=False)])
        total = total * (1 if p.scale is None else p.scale)
        if len(inputs) % 2:
            total = total + inputs[-1][:, 0] * (cells[0] - cells[1] if p.bias else 1)
        return np.where(masked(p, cells), -inf, total)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.times(*inputs[:2])

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        if p.scale is not None:
            root = _inverse_square(p.scale)
            total = n.fraction(total, n.root(str(root))) if root else n.times(n.number(p.scale), n.grouped(total))
        if len(inputs) % 2 == 0:
            return total
        bias = n.times(inputs[-1], n.grouped(n.less(str(cell[0]), str(cell[1])))) if p.bias else inputs[-1]
        return f"{total} + {bias}"

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        for at in range(0, len(inputs) - 1, 2):
            yield slice(at, at + 2), np.abs(inputs[at] * inputs[at + 1]) * (1 if p.scale is None else p.scale)
        if len(inputs) % 2:
            yield slice(len(inputs) - 1, None), np.abs(inputs[-1] * (cell[0] - cell[1] if p.bias else 1))

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        root = None if p.scale is None else _inverse_square(p.scale)
        scaled = "" if p.scale is None else f", divided by √{root}" if root else f", times {p.scale:g}"
        bias = f", plus {names[2]}" if len(names) == 3 else ""
        if p.bias:
            bias = f", less the head's slope times the distance {cell[1] - cell[0]}"
        return f"The sum of {over:,} products of {names[0]} and {names[1]}{scaled}{bias}"


class Max(Operation):
    name, meaning, arity, sums = "max", "maxₛ x", (1, 1), True

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.max(inputs[0], 1)

    def sum_in_symbols(self, n: Notation, over: int, term: str) -> str:
        return n.largest("s", over) + term

    def sum_in_numbers(self, n: Notation, terms: Sequence[str]) -> str:
        return n.call("max", ", ".join(terms))

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(None), inputs[0]

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The largest of {over:,} {names[0]}"


class SumExp(Operation):
    name, meaning, arity, sums = "sum_exp", "Σₛ exp(x − y)", (2, 2), True

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.exp(inputs[0] - inputs[1]).sum(1)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.call("exp", n.less(*inputs[:2]))

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(1), np.exp(inputs[0] - inputs[1])
        yield slice(1, None), np.array([inf])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The sum of the exponentials of {over:,} {names[0]}, each less the largest"


class Softmax(Operation):
    name, meaning, arity = "softmax", "exp(x − y) / z", (3, 3)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, largest, total = (one[:, 0] for one in inputs)
        return np.exp(x - largest) / total

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.fraction(n.call("exp", n.less(*inputs[:2])), inputs[2])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"Softmax: the exponential of {names[0]}, less the largest, as a share of the sum of all"


class Softcap(Operation):
    """Bello et al. 2016 (arXiv:1611.09940); Gemma Team 2024 (arXiv:2408.00118)."""

    name, arity = "softcap", (1, 1)
    meaning = "`cap` · tanh(x / `cap`), −∞ where `mask` says so, as for dot"
    needs = frozenset({"cap"})
    takes = frozenset({"mask", "window"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, cap = inputs[0][:, 0], p.cap or 1.0
        return np.where(masked(p, cells), -inf, cap * np.tanh(x / cap))

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.times(n.number(p.cap), n.call("tanh", n.fraction(inputs[0], n.number(p.cap))))

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"{names[0]}, kept between −{p.cap:g} and {p.cap:g} by a curve that is nearly straight around 0"


class Add(Operation):
    name, meaning, arity = "add", "x + y + …", (2, inf)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.add.reduce([one[:, 0] for one in inputs])

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return " + ".join(inputs)

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The sum of {', '.join(names[:-1])} and {names[-1]}"


class Activation(Operation):
    name, meaning, arity = "activation", "`function` of x", (1, 1)
    needs = frozenset({"function"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return _apply(p.function, inputs[0][:, 0])

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return FUNCTIONS[p.function or ""].text(n, inputs[0])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"{p.function} of {names[0]}"


class Gated(Operation):
    """Shazeer 2020 (arXiv:2002.05202)."""

    name, meaning, arity = "gated", "`function` of x, times y", (2, 2)
    needs = frozenset({"function"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return _apply(p.function, inputs[0][:, 0]) * inputs[1][:, 0]

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.times(FUNCTIONS[p.function or ""].text(n, inputs[0]), inputs[1])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"{p.function} of {names[0]}, times {names[1]}"


def _apply(function: str | None, x: Array) -> Array:
    out = np.empty_like(x)
    FUNCTIONS[function or ""].apply(x, out)
    return out


def _inverse_square(scale: float) -> int | None:
    """Return n if the scale is 1/√n, else None."""
    n = round(scale**-2)
    return n if isclose(n**-0.5, scale, rel_tol=1e-12) else None


#: The operations by name.
OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        kind.name: kind()
        for kind in (
            Input,
            Embed,
            Mean,
            NormScale,
            LayerNorm,
            RmsScale,
            RmsNorm,
            Dot,
            AlibiSlope,
            Rotary,
            Rotate,
            Max,
            SumExp,
            Softmax,
            Softcap,
            Add,
            Activation,
            Gated,
        )
    }
)
