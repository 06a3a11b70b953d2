"""One cell of a block and every cell that it was made of, as the description of the model has it."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.describe.architecture import Block
from worker.describe.blocks import GROUPS
from worker.describe.config import Config
from worker.describe.expression import Sizes
from worker.describe.formula import Formula, Input
from worker.describe.index import Index
from worker.families.registry import describe
from worker.weights.base import Key

#: Reads `tensor[key]` of a weight or a value by the tensor's name.
Read = Callable[[str, Key], NDArray[Any]]
Place = tuple[int, int, int]
Rows = list[list[int]]


class CellError(ValueError):
    """No cell of the block; says which there are."""


class Sources(NamedTuple):
    """Where numbers are read: a model's weights, and the values of one inference."""

    weights: Read
    values: Read


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of one block that a formula reads: one for each value of s, or one."""

    given: Input
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

    runs: tuple[Cells, ...]
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

    sizes: Sizes
    block: Block
    at: Place
    value: Any
    reads: tuple[Cells, ...]

    @property
    def formula(self) -> Formula | None:
        return self.block.kind.formula

    @property
    def masked(self) -> bool:
        """Whether it is one of attention's scores that are masked, which nothing was read for."""
        return _masked(self.block, self.at)

    @property
    def picked(self) -> range | None:
        """The values of the summed index that were read, where they are not all."""
        return _picked(self.formula, self.at, self.reads) if self.formula else None

    @property
    def element(self) -> tuple[int, ...]:
        """Where it lies in its tensor."""
        return tuple(_at(row, self.at) for row in self.block.kind.index.rows(self.sizes, self.block.members))

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
            values = [run.values.astype(np.float64) for run in self.reads]
            return [Terms(self.reads[which], weight) for which, weight in formula.operation.terms(values)]

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


def read_cell(config: Config, tokens: int, id: str, at: Place, sources: Sources, batch: int = 1) -> Cell:
    """The cell `at` (i, j, k) of the block `id` of a model over `tokens` positions, read where the sources have it.

    Reads no more than that cell and its operands. Raises UnknownBlockError, CellError and what the sources raise.
    """
    architecture = describe(config)
    block, letters = architecture.find(id), architecture.sizes(tokens, batch)
    shape = block.kind.shape(letters)
    if not all(0 <= n < size for n, size in zip(at, shape, strict=True)):
        there = ", ".join(f"{axis} from 0 to {size - 1:,}" for axis, size in zip("ijk", shape, strict=True))
        raise CellError(f"{','.join(map(str, at))} is no cell of {id}: it has {there}.")
    own = _read(_ITSELF, block, [(n, 0) for n in at], range(1), letters, sources)
    reads = () if _masked(block, at) else _reads(block, at, letters, sources)
    return Cell(letters, block, at, own.values[0], reads)


_ITSELF = Input("", Index("i j k"))


def _masked(block: Block, at: Place) -> bool:
    return block.kind.formula is not None and block.kind.formula.masks(at)


def _picked(formula: Formula, at: Place, reads: Sequence[Cells]) -> range | None:
    return formula.operation.selected(formula.parameters, at, reads[0].values[0] if reads else None)


def _reads(block: Block, at: Place, letters: Sizes, sources: Sources) -> tuple[Cells, ...]:
    """What the formula of a cell reads: inputs of each member together, one member after another, then the others."""
    formula, found = block.kind.formula, list[Cells]()
    if formula is None:
        return ()
    repeated = [given for given in formula.inputs if given.each]
    numbers = range(letters[GROUPS[repeated[0].each or ""].count] if repeated else 0)
    own: list[tuple[Input, int | None]] = [(given, None) for given in formula.inputs if not given.each]
    every = range(letters[formula.over] if formula.over else 1)
    for given, number in (*((given, number) for number in numbers for given in repeated), *own):
        members = block.members if number is None else {GROUPS[given.each or ""].letter: number}
        rows = [(_at(row, at), row[3]) for row in given.index.rows(letters, members, summed=True)]
        s = _picked(formula, at, found) or every
        found.append(_read(given, block.source(given, number), rows, s, letters, sources))
    return tuple(found)


def _at(row: list[int], at: Place) -> int:
    i, j, k = at
    return row[0] * i + row[1] * j + row[2] * k + row[-1]


def _read(given: Input, block: Block, rows: list[tuple[int, int]], s: range, letters: Sizes, sources: Sources) -> Cells:
    """The cells at + step · s of a block, for every s where a step is not 0."""
    if not any(step for _, step in rows):
        s = range(1)
    starts, steps = np.array(rows, np.int64).T
    places = starts + np.multiply.outer(np.array(s, np.int64), steps)
    key: list[int | slice] = []
    for row in block.kind.index.rows(letters, block.members):
        start = row[-1] + sum(factor * first for factor, (first, _) in zip(row, rows, strict=False))
        step = sum(factor * step for factor, (_, step) in zip(row, rows, strict=False))
        key.append(slice(start + step * s.start, start + step * s.stop, step * s.step) if step else start)
    source = sources.weights if block.kind.role == "weight" else sources.values
    return Cells(given, block, rows, places, np.reshape(source(block.tensor, tuple(key)), -1))
