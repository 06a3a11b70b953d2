"""An independent reading of the tables of kinds: what their indices and formulas say, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.architecture import (
    KINDS,
    Formula,
    Input,
    Kind,
    block_id,
    sizes,
)
from worker.families.config import Config

Array = NDArray[Any]


@dataclass(frozen=True)
class Block:
    """A kind at a layer and a head."""

    id: str
    kind: Kind
    layer: int | None
    head: int

    @property
    def tensor(self) -> str:
        assert self.kind.tensor is not None
        return self.kind.tensor.replace("{layer}", str(self.layer))


def all_blocks(config: Config) -> Iterator[Block]:
    for kind in KINDS:
        layers = [None] if kind.scope == "model" else [*range(config.n_layer)]
        heads = [*range(config.n_head)] if kind.scope == "head" else [0]
        for layer, head in product(layers, heads):
            yield Block(block_id(kind.id, config.n_layer, layer, head), kind, layer, head)


def linear(row: list[int], variables: tuple[Array, ...]) -> Array:
    """A row of an index, read: its variables times their coefficients, and the constant."""
    total: Array = np.full(np.broadcast_shapes(*(at.shape for at in variables)), row[-1])
    for coefficient, at in zip(row, variables, strict=False):
        total = total + coefficient * at
    return total


@dataclass(frozen=True)
class Reader:
    """An independent reading of Formula's docstring, cell by cell in float64, over values by tensor name."""

    config: Config
    tokens: int
    batch: int = 1
    values: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def blocks(self) -> dict[str, Block]:
        return {block.id: block for block in all_blocks(self.config)}

    @cached_property
    def sizes(self) -> dict[str, int]:
        return sizes(self.config, self.tokens, self.batch)

    def shape(self, block: Block) -> tuple[int, ...]:
        return tuple(self.sizes[letter] for letter in block.kind.cells)

    def place(self, block: Block, *cell: Array) -> list[Array]:
        """Where cells lie in the block's tensor: an array an axis."""
        for at, size in zip(cell, self.shape(block), strict=True):
            assert at.min() >= 0, block.id
            assert at.max() < size, block.id
        rows = block.kind.index.rows(self.sizes, block.head)
        return [linear(row, cell) for row in rows]

    def cells(self, block: Block, *cell: Array) -> Array:
        """The values of a block's cells."""
        at = self.place(block, *cell)
        tensor = self.values[block.tensor]
        assert all(axis.min() >= 0 and axis.max() < n for axis, n in zip(at, tensor.shape, strict=True)), block.id
        values: Array = tensor[tuple(at)].astype(np.float64)
        return values

    def formula(self, block: Block, *cell: Array) -> Any:
        """The same values, [n], by the block's formula."""
        formula = block.kind.formula
        assert formula is not None
        i, j, _ = cell
        s = np.arange(self.sizes[formula.over] if formula.over else 1)
        x, *others = self._inputs(block, formula, tuple(at[:, None] for at in cell), s)  # each called: [n, S]
        match formula.op:
            case "input":
                return self.cells(block, *cell)
            case "embed":
                y, z = others
                return (y(x().astype(int)) + z())[:, 0]
            case "mean":
                return x().sum(1) / len(s)
            case "norm_scale":
                [y] = others
                return np.sqrt(((x() - y()) ** 2).sum(1) / len(s) + self.config.layer_norm_epsilon)
            case "layer_norm":
                y, z, weight, bias = others
                return ((x() - y()) / z() * weight() + bias())[:, 0]
            case "dot":
                reads = [x, *others]
                pairs = zip(reads[::2], reads[1::2], strict=False)
                total = sum(((left() * right()).sum(1) for left, right in pairs), np.zeros(len(i)))
                if len(reads) % 2:
                    total = total + reads[-1](np.zeros(1, int))[:, 0]
                return np.where(i > j, -np.inf, total / sqrt(self.config.d_head)) if formula.causal else total
            case "max":
                return x().max(1)
            case "sum_exp":
                [y] = others
                return np.exp(x() - y()).sum(1)
            case "softmax":
                y, z = others
                return (np.exp(x() - y()) / z())[:, 0]
            case "add":
                [y] = others
                return (x() + y())[:, 0]
            case "activation":
                return ACTIVATIONS[self.config.activation_function](x()[:, 0])
        raise AssertionError(f"{formula.op} is no operation")

    def _inputs(self, block: Block, formula: Formula, cell: tuple[Array, ...], s: Array) -> list[Callable[..., Array]]:
        own = [(source, block.head) for source in formula.inputs if not source.each_head]
        of_heads = [source for source in formula.inputs if source.each_head]
        repeated = [(source, head) for head in range(self.config.n_head) for source in of_heads]

        def reading(source: Input, head: int) -> Callable[..., Array]:
            def read(s: Array = s) -> Array:
                id = block_id(source.block, self.config.n_layer, block.layer, head)
                rows = source.index.rows(self.sizes, head, summed=True)
                return self.cells(self.blocks[id], *(linear(row, (*cell, s)) for row in rows))

            return read

        return [reading(*one) for one in (*repeated, *own)] or [lambda: np.empty(0)]


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: x * np.vectorize(lambda v: 0.5 * (1 + erf(v / sqrt(2))))(x),
}


def grid(shape: tuple[int, ...]) -> list[Array]:
    return [axis.ravel() for axis in np.indices(shape)]
