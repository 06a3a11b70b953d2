"""An independent implementation of indices and formulas, cell by cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.architecture import RESIDUAL, Architecture
from worker.describe.blocks import Kind
from worker.describe.config import Config
from worker.describe.expression import Sizes
from worker.describe.formula import Formula, Input
from worker.describe.operations import Parameters
from worker.describe.rotary import frequencies
from worker.families.registry import describe

Array = NDArray[Any]


@dataclass(frozen=True)
class Block:
    """A kind, in a layer, of a group member."""

    id: str
    kind: Kind
    layer: int | None
    member: int

    @property
    def tensor(self) -> str:
        assert self.kind.tensor is not None
        return self.kind.tensor.replace("{layer}", str(self.layer))

    @property
    def formula(self) -> Formula | None:
        return self.kind.formula if not self.kind.by_layer else self.kind.by_layer[self.layer or 0]

    @property
    def members(self) -> dict[str, int]:
        return {self.kind.group.letter: self.member} if self.kind.group else {}


def block_id(architecture: Architecture, pattern: str, layer: int | None, member: int) -> str:
    """Return the id of a pattern in a layer, for a group member."""
    if pattern == RESIDUAL:
        before, stack = (architecture.n_layer if layer is None else layer) - 1, architecture.stack
        return stack.enters if before < 0 else stack.leaves.replace("{layer}", str(before))
    return re.sub(r"{(\w+)}", lambda place: str(layer if place[1] == "layer" else member), pattern)


def all_blocks(config: Config) -> Iterator[Block]:
    architecture = describe(config)
    sizes = architecture.sizes(1)
    for kind in architecture.kinds:
        layers = [*range(architecture.n_layer)] if "{layer}" in kind.id else [None]
        members = [*range(sizes[kind.group.count])] if kind.group else [0]
        for layer, member in product(layers, members):
            yield Block(block_id(architecture, kind.id, layer, member), kind, layer, member)


def linear(row: list[int], variables: tuple[Array, ...]) -> Array:
    """Evaluate a row of an index: coefficients times variables, plus the constant."""
    total: Array = np.full(np.broadcast_shapes(*(at.shape for at in variables)), row[-1])
    for coefficient, at in zip(row, variables, strict=False):
        total = total + coefficient * at
    return total


@dataclass(frozen=True)
class Reader:
    """Evaluates the formulas of a configuration in float64, over values by tensor name."""

    config: Config
    tokens: int
    batch: int = 1
    values: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def blocks(self) -> dict[str, Block]:
        return {block.id: block for block in all_blocks(self.config)}

    @cached_property
    def sizes(self) -> Sizes:
        return self.architecture.sizes(self.tokens, self.batch)

    @cached_property
    def architecture(self) -> Architecture:
        return describe(self.config)

    def shape(self, block: Block) -> tuple[int, ...]:
        return tuple(self.sizes[letter] for letter in block.kind.cells)

    def place(self, block: Block, *cell: Array) -> list[Array]:
        """Return the tensor indices of cells, an array per axis."""
        for at, size in zip(cell, self.shape(block), strict=True):
            assert at.min() >= 0, block.id
            assert at.max() < size, block.id
        rows = block.kind.index.rows(self.sizes, block.members)
        return [linear(row, cell) for row in rows]

    def cells(self, block: Block, *cell: Array) -> Array:
        """Return the values of a block's cells."""
        at = self.place(block, *cell)
        tensor = self.values[block.tensor]
        assert all(axis.min() >= 0 and axis.max() < n for axis, n in zip(at, tensor.shape, strict=True)), block.id
        values: Array = tensor[tuple(at)].astype(np.float64)
        return values

    def formula(self, block: Block, *cell: Array) -> Any:
        """Compute the same values [n] from the block's formula."""
        formula = block.formula
        assert formula is not None
        i, j, _ = cell
        s = np.arange(self.sizes[formula.over] if formula.over else 1)
        x, *others = self.inputs(block, tuple(at[:, None] for at in cell), s)  # each called: [n, S]
        match formula.op:
            case "input":
                return self.cells(block, *cell)
            case "embed":
                rows, *more = others
                scale = 1.0 if formula.parameters.scale is None else formula.parameters.scale
                return sum((each() for each in more), scale * rows(x().astype(int)))[:, 0]
            case "mean":
                return x().sum(1) / len(s)
            case "norm_scale":
                y = others[0]
                return np.sqrt(((x() - y()) ** 2).sum(1) / len(s) + formula.parameters.epsilon)
            case "layer_norm":
                y, z, *affine = others
                normed = (x() - y()) / z()
                return (normed * affine[0]() + affine[1]() if affine else normed)[:, 0]
            case "dot":
                reads = [x, *others]
                pairs = zip(reads[::2], reads[1::2], strict=False)
                p = formula.parameters
                total = sum(((left() * right()).sum(1) for left, right in pairs), np.zeros(len(i)))
                total = total * (1.0 if p.scale is None else p.scale)
                if len(reads) % 2:
                    total = total + reads[-1](np.zeros(1, int))[:, 0] * (i - j if p.bias == "distance" else 1)
                return np.where(masked(p, i, j), -np.inf, total)
            case "softcap":
                p = formula.parameters
                return np.where(masked(p, i, j), -np.inf, p.cap * np.tanh(x()[:, 0] / (p.cap or 0)))
            case "alibi_slope":
                return alibi_slopes(formula.parameters.heads or 0)[i]
            case "max":
                return x().max(1)
            case "sum_exp":
                y = others[0]
                return np.exp(x() - y()).sum(1)
            case "softmax":
                y, z = others[:2]
                return (np.exp(x() - y()) / z())[:, 0]
            case "add":
                return sum((y() for y in others), x())[:, 0]
            case "activation" | "gated":
                function = ACTIVATIONS[formula.parameters.function or ""]
                return function(x()[:, 0]) * (others[0]()[:, 0] if others else 1.0)
            case "rms_scale":
                return np.sqrt((x() ** 2).sum(1) / len(s) + formula.parameters.epsilon)
            case "rms_norm":
                y, z = others[:2]
                return (x() / y() * (z() + (formula.parameters.offset or 0)))[:, 0]
            case "rotary":
                p = formula.parameters
                width, base = p.width or 0, p.base or 0.0
                pair = j % (width // 2) if p.pairs == "halves" else j // 2
                angle = np.where(j < width, i * frequencies(base, width, pair, p.scaling), 0)
                factor = np.where(j < width, (p.scaling and p.scaling.attention_factor) or 1.0, 1.0)
                return factor * (np.cos(angle) if p.function == "cos" else np.sin(angle))
            case "rotate":
                y, z = others[:2]
                p = formula.parameters
                width, half = p.width or 0, (p.width or 0) // 2
                partners, is_first = ((j + half) % width, j < half) if p.pairs == "halves" else (j ^ 1, j % 2 == 0)
                own, partner = (np.take_along_axis(x(), at[:, None], 1) for at in (j, np.where(j < width, partners, j)))
                turned = (own * y() + np.where(is_first, -1, 1)[:, None] * partner * z())[:, 0]
                return np.where(j < width, turned, own[:, 0])
        raise AssertionError(f"unknown operation {formula.op}")

    def inputs(self, block: Block, cell: tuple[Array, ...], s: Array) -> list[Callable[..., Array]]:
        formula = block.formula
        assert formula is not None
        own = [(source, block.members, block.member) for source in formula.inputs if not source.each]
        of_heads = [source for source in formula.inputs if source.each]
        repeated = [(source, {"h": head}, head) for head in range(self.sizes["H"]) for source in of_heads]

        def reading(source: Input, members: dict[str, int], member: int) -> Callable[..., Array]:
            if source.member is not None:
                assert source.member == "h//R"
                member = member // (self.sizes["H"] // self.sizes["G"])

            def read(s: Array = s) -> Array:
                id = block_id(self.architecture, source.block, block.layer, member)
                rows = source.index.rows(self.sizes, members, summed=True)
                return self.cells(self.blocks[id], *(linear(row, (*cell, s)) for row in rows))

            return read

        return [reading(*one) for one in (*repeated, *own)] or [lambda: np.empty(0)]


def masked(p: Parameters, key: Array, query: Array) -> Array:
    """Return which scores are masked: those of later keys, and of keys before the window."""
    if p.mask is None:
        return np.zeros(len(key), bool)
    return (key > query) | (key + (p.window or np.inf) <= query)


def alibi_slopes(heads: int) -> Array:
    """Return the slopes as the paper's code does (Press et al. 2022): a geometric sequence for powers of two; else that
    of the power below, and every other slope of the power above.
    """
    power = 2 ** int(np.log2(heads))
    if power == heads:
        return np.array([2.0 ** (-8 * n / heads) for n in range(1, heads + 1)])
    return np.concatenate([alibi_slopes(power), alibi_slopes(2 * power)[::2][: heads - power]])


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * np.vectorize(lambda v: 0.5 * (1 + erf(v / sqrt(2))))(x),
}


def grid(shape: tuple[int, ...]) -> list[Array]:
    return [axis.ravel() for axis in np.indices(shape)]
