"""Operations of norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.notation import Notation
from worker.describe.operation import Array, Cell, Operation, Parameters


class Mean(Operation):
    name, meaning, arity, sums = "mean", "(1/over) Σₛ x", (1, 1), True

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.mean(inputs[0], 1)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.fraction(total, str(over))

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(None), np.abs(inputs[0])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The mean of the {over:,} channels of {names[0]}"


class NormScale(Operation):
    name, meaning, arity, sums = "norm_scale", "√((1/over) Σₛ (x − y)² + `epsilon`)", (2, 2), True
    needs = frozenset({"epsilon"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.sqrt(np.mean((inputs[0] - inputs[1]) ** 2, 1) + p.epsilon)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.power(n.grouped(n.less(*inputs[:2])), 2)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.root(f"{n.fraction(total, str(over))} + {n.number(p.epsilon)}")

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(1), (inputs[0] - inputs[1]) ** 2
        yield slice(1, None), np.array([inf])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The standard deviation of the {over:,} channels of {names[0]}, with ε = {p.epsilon:g}"


class LayerNorm(Operation):
    name, meaning, arity = "layer_norm", "(x − y) / z · weight + bias, the last two only if given", (3, 5)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, mean, scale, *affine = (one[:, 0] for one in inputs)
        normed = (x - mean) / scale
        return normed * affine[0] + affine[1] if affine else normed

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        x, mean, scale, *affine = inputs
        normed = n.fraction(n.less(x, mean), scale)
        return f"{n.times(normed, affine[0])} + {affine[1]}" if affine else normed

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        affine = ", times the gain γ, plus the bias β" if len(names) > 3 else ""
        return f"{names[0]} less its mean, divided by its scale{affine}"


class RmsScale(Operation):
    name, meaning, arity, sums = "rms_scale", "√((1/over) Σₛ x² + `epsilon`)", (1, 1), True
    needs = frozenset({"epsilon"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.sqrt(np.mean(inputs[0] ** 2, 1) + p.epsilon)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.power(inputs[0], 2)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.root(f"{n.fraction(total, str(over))} + {n.number(p.epsilon)}")

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(None), inputs[0] ** 2

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The root of the mean square of the {over:,} channels of {names[0]}, with ε = {p.epsilon:g}"


class RmsNorm(Operation):
    name, meaning, arity = "rms_norm", "x / y · z, or · (`offset` + z)", (3, 3)
    takes = frozenset({"offset"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, scale, weight = (one[:, 0] for one in inputs)
        return x / scale * (weight + (p.offset or 0))

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        gain = n.grouped(f"{n.number(p.offset)} + {inputs[2]}") if p.offset else inputs[2]
        return n.times(n.fraction(*inputs[:2]), gain)

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        gain = f"{p.offset:g} + γ" if p.offset else "γ"
        return f"{names[0]}, divided by its scale, times the gain {gain}"
