"""One cell of a block and every cell that it was made of, as the description of the model has it."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, repeat
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.describe.architecture import HEAD, LAYER, Formula, Input, Kind, Sizes, block_id, kinds_by_id, sizes
from worker.families.config import Config
from worker.weights.weights import Key

_ID = re.compile(
    r"blocks\.(?P<layer>0|[1-9]\d{0,8})\.(?:attn\.heads\.(?P<head>0|[1-9]\d{0,8})\.)?(?P<rest>.+)", re.ASCII
)

#: Reads `tensor[key]` of a weight or a value by the tensor's name.
Read = Callable[[str, Key], NDArray[Any]]
Place = tuple[int, int, int]
Rows = list[list[int]]


class UnknownBlockError(LookupError):
    """No block of this id in the model; says which there are."""


class CellError(ValueError):
    """No cell of the block; says which there are."""


class Sources(NamedTuple):
    """Where numbers are read: a model's weights, and the values of one inference."""

    weights: Read
    values: Read


@dataclass(frozen=True)
class Block:
    """A kind of block at a layer and a head."""

    kind: Kind
    layer: int | None
    head: int | None
    n_layer: int

    @property
    def id(self) -> str:
        return block_id(self.kind.id, self.n_layer, self.layer, self.head)

    @property
    def name(self) -> str:
        """The end of the id, which says what it is: `ln1.out`, `q_weight`, `mlp.pre`."""
        return self.kind.id.rpartition("}.")[2]

    @property
    def tensor(self) -> str:
        """The name of the tensor whose values fill it."""
        return (self.kind.tensor or "").replace(LAYER, str(self.layer))

    def source(self, given: Input, head: int | None = None) -> Block:
        """The block that an input of its formula reads; of this head where it reads every head's."""
        head = self.head if head is None else head
        return find(self.n_layer, block_id(given.block, self.n_layer, self.layer, head))

    @property
    def values(self) -> list[str]:
        """The names of the values that its cells are and are made of: what a trace has to hold to explain them."""
        inputs = self.kind.formula.inputs if self.kind.formula else ()
        read = (self, *(self.source(given, 0 if given.each_head else None) for given in inputs))
        return list(dict.fromkeys(block.tensor for block in read if block.kind.role != "weight"))


def find(n_layer: int, id: str, n_head: int | None = None) -> Block:
    """The block of an id in a model of so many layers (and heads in each). Raises UnknownBlockError."""
    match = _ID.fullmatch(id)
    layer, head = (int(match[part]) if match and match[part] else None for part in ("layer", "head"))
    of_head = f"attn.heads.{HEAD}." if head is not None else ""
    kind = kinds_by_id().get(f"blocks.{LAYER}.{of_head}{match['rest']}" if match else id)
    if kind is None or LAYER in id or HEAD in id:
        some = ", ".join(("embedding", "blocks.0.ln1.out", "blocks.0.attn.heads.0.q", "logits"))
        raise UnknownBlockError(f"There is no block {id!r}: the layout of this trace lists them, such as {some}.")
    for what, number, count in (("layer", layer, n_layer), ("head", head, n_head)):
        if number is not None and count is not None and number >= count:
            raise UnknownBlockError(f"There is no block {id!r}: the {what}s of this model go from 0 to {count - 1}.")
    return Block(kind, layer, head, n_layer)


@dataclass(frozen=True, eq=False)
class Run:
    """Cells of one block that a formula reads: one for each value of s, or one."""

    block: Block
    rows: list[tuple[int, int]]  # of each axis: at + step · s
    places: NDArray[np.int64]  # [n, 3]
    values: NDArray[Any]  # [n]

    @property
    def summed(self) -> bool:
        return any(step for _, step in self.rows)


class Operand(NamedTuple):
    """A cell with its value."""

    block: str
    cell: Place
    value: Any


@dataclass(frozen=True, eq=False)
class Terms:
    """What stands together in a sum, n times: a cell of each of these runs. `weight` [n]: what it adds, at most ∞."""

    runs: tuple[Run, ...]
    weight: NDArray[np.float64]

    def operands(self, which: slice) -> Iterator[Operand]:
        """Those of some of the terms, term after term."""
        columns = (
            map(Operand, repeat(run.block.id), map(tuple, run.places[which].tolist()), run.values[which])
            for run in self.runs
        )
        return chain.from_iterable(zip(*columns, strict=True))


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell (i, j, k) of a block: its value and what its formula read, the inputs in their order."""

    config: Config
    sizes: Sizes
    block: Block
    at: Place
    value: Any
    reads: tuple[Run, ...]

    @property
    def formula(self) -> Formula | None:
        return self.block.kind.formula

    @property
    def masked(self) -> bool:
        """Whether it is one of attention's scores that look ahead, which nothing was read for."""
        return _masked(self.block, self.at)

    @property
    def element(self) -> tuple[int, ...]:
        """Where it lies in its tensor."""
        return tuple(_at(row, self.at) for row in self.block.kind.index.rows(self.sizes, self.block.head or 0))

    @property
    def over(self) -> int:
        """How many values the summed index takes."""
        return self.sizes[self.formula.over] if self.formula and self.formula.over else 1

    @property
    def total(self) -> int:
        """How many operands there are."""
        return sum(len(run.values) for run in self.reads)

    @cached_property
    def terms(self) -> list[Terms]:
        """The operands by what stands together. What every term needs has the weight ∞."""
        formula = self.formula
        if formula is None or not self.reads:
            return []
        with np.errstate(over="ignore", invalid="ignore"):  # where float16 could not hold a value
            return self._terms(formula.op)

    def _terms(self, op: str) -> list[Terms]:
        x, *rest = (run.values.astype(np.float64) for run in self.reads)
        match op:
            case "dot":
                return [*self._products()]
            case "mean":
                return [Terms(self.reads, np.abs(x))]
            case "max":
                return [Terms(self.reads, x)]
            case "norm_scale":
                weights = (x - rest[0]) ** 2
            case "sum_exp":
                weights = np.exp(x - rest[0])
            case _:
                return [Terms(self.reads, np.array([inf]))]
        return [Terms(self.reads[:1], weights), Terms(self.reads[1:], np.array([inf]))]

    def _products(self) -> Iterator[Terms]:
        for pair in zip(self.reads[::2], self.reads[1::2], strict=False):
            x, y = (run.values.astype(np.float64) for run in pair)
            yield Terms(pair, np.abs(x * y))
        if len(self.reads) % 2:
            yield Terms(self.reads[-1:], np.abs(self.reads[-1].values.astype(np.float64)))

    def operands(self, limit: int | None = None) -> list[Operand]:
        """The operands in the order of the formula; with a limit at most so many, the weightiest terms first.

        Terms stay whole: there are both factors of a product or none, and all operands of what is no sum.
        """
        if limit is None:
            return [one for terms in self.terms for one in terms.operands(slice(None))]
        found: list[Operand] = []
        for terms, n in self.weightiest():
            if found and len(found) + len(terms.runs) > limit:
                break
            found += terms.operands(slice(n, n + 1))
        return found

    def weightiest(self) -> Iterator[tuple[Terms, int]]:
        """The terms, those that weigh most first: each as a place in one of `terms`."""
        starts = [0, *accumulate(len(terms.weight) for terms in self.terms)]
        for place in self._order:
            at = bisect(starts, place) - 1
            yield self.terms[at], place - starts[at]

    @cached_property
    def _order(self) -> list[int]:
        """The places of all terms, counted through, by their weight."""
        weights = [-terms.weight for terms in self.terms]
        order: list[int] = np.argsort(np.concatenate(weights), kind="stable").tolist() if weights else []
        return order


def look(config: Config, tokens: int, id: str, at: Place, sources: Sources, batch: int = 1) -> Cell:
    """The cell `at` (i, j, k) of the block `id` of a model over `tokens` positions, read where the sources have it.

    Reads no more than that cell and its operands. Raises UnknownBlockError, CellError and what the sources raise.
    """
    block, letters = find(config.n_layer, id, config.n_head), sizes(config, tokens, batch)
    shape = tuple(letters[letter] for letter in block.kind.cells)
    if not all(0 <= n < size for n, size in zip(at, shape, strict=True)):
        told = ", ".join(f"{axis} from 0 to {size - 1:,}" for axis, size in zip("ijk", shape, strict=True))
        raise CellError(f"{','.join(map(str, at))} is no cell of {id}: it has {told}.")
    own = _read(block, [(n, 0) for n in at], range(1), letters, sources)
    reads = () if _masked(block, at) else tuple(_reads(block, at, config, letters, sources))
    return Cell(config, letters, block, at, own.values[0], reads)


def _masked(block: Block, at: Place) -> bool:
    return block.kind.formula is not None and block.kind.formula.causal and at[0] > at[1]


def _reads(block: Block, at: Place, config: Config, letters: Sizes, sources: Sources) -> Iterator[Run]:
    """What the formula of a cell reads: inputs of each head together, one head after another, then the others."""
    formula = block.kind.formula
    if formula is None:
        return
    of_heads = [given for given in formula.inputs if given.each_head]
    own = [(given, block.head) for given in formula.inputs if not given.each_head]
    s = range(letters[formula.over] if formula.over else 1)
    for given, head in (
        *((given, head) for head in range(config.n_head if of_heads else 0) for given in of_heads),
        *own,
    ):
        rows = [(_at(row, at), row[3]) for row in given.index.rows(letters, head or 0, summed=True)]
        run = _read(block.source(given, head), rows, s, letters, sources)
        if run.block.kind.id == "tokens":
            s = range(token := int(run.values[0]), token + 1)  # the one row of the table
        yield run


def _at(row: list[int], at: Place) -> int:
    i, j, k = at
    return row[0] * i + row[1] * j + row[2] * k + row[-1]


def _read(block: Block, rows: list[tuple[int, int]], s: range, letters: Sizes, sources: Sources) -> Run:
    """The cells at + step · s of a block, for every s where a step is not 0."""
    if not any(step for _, step in rows):
        s = range(1)
    starts, steps = np.array(rows, np.int64).T
    places = starts + np.multiply.outer(np.array(s, np.int64), steps)
    key: list[int | slice] = []
    for row in block.kind.index.rows(letters, block.head or 0):
        start = row[-1] + sum(factor * first for factor, (first, _) in zip(row, rows, strict=False))
        step = sum(factor * step for factor, (_, step) in zip(row, rows, strict=False))
        key.append(slice(start + step * s.start, start + step * s.stop, step) if step else start)
    source = sources.weights if block.kind.role == "weight" else sources.values
    return Run(block, rows, places, np.reshape(source(block.tensor, tuple(key)), -1))
