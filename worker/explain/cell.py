"""Read a cell of a block and its operands."""

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

#: (name, key): return tensor[key] of the tensor with this name.
Read = Callable[[str, Key], NDArray[Any]]
Place = tuple[int, int, int]
Rows = list[list[int]]


class CellError(ValueError):
    """The block has no such cell."""


class Sources(NamedTuple):
    """Readers of a model's weights and of the values of one trace."""

    weights: Read
    values: Read


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one block that an input of a formula reads: one for each value of s, or only one."""

    input: Input
    block: Block
    rows: list[tuple[int, int]]  # (start, step) of each axis: start + step · s
    places: NDArray[np.int64]  # [n, 3]
    values: NDArray[Any]  # [n]

    @property
    def summed(self) -> bool:
        return any(step for _, step in self.rows)


class Operand(NamedTuple):
    """A cell that was read, with its value."""

    block: str
    cell: Place
    value: Any


@dataclass(frozen=True, eq=False)
class Terms:
    """n terms of a sum, each with one cell of each input; `weight` [n] is the magnitude of each term, at most ∞."""

    runs: tuple[Cells, ...]
    weight: NDArray[np.float64]

    def operands(self, which: slice) -> Iterator[Operand]:
        """Yield the operands of a slice of the terms, term by term."""
        columns = (
            map(Operand, repeat(run.block.id), map(tuple, run.places[which].tolist()), run.values[which])
            for run in self.runs
        )
        return chain.from_iterable(zip(*columns, strict=True))


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell (i, j, k) of a block: its value, and the cells that its formula read, by input."""

    sizes: Sizes
    block: Block
    at: Place
    value: Any
    reads: tuple[Cells, ...]

    @property
    def formula(self) -> Formula | None:
        return self.block.formula

    @property
    def masked(self) -> bool:
        """Whether it is a masked attention score, which has no operands."""
        return _masked(self.block, self.at)

    @property
    def selected(self) -> range | None:
        """The values of s that were read, or None for all."""
        return _selected(self.formula, self.at, self.reads) if self.formula else None

    @property
    def element(self) -> tuple[int, ...]:
        """Its index in its tensor."""
        return tuple(_at(row, self.at) for row in self.block.kind.index.rows(self.sizes, self.block.members))

    @property
    def over(self) -> int:
        """The number of values of s."""
        return self.sizes[self.formula.over] if self.formula and self.formula.over else 1

    @property
    def total(self) -> int:
        """The number of operands."""
        return sum(len(run.values) for run in self.reads)

    @cached_property
    def terms(self) -> list[Terms]:
        """The operands, grouped into terms."""
        formula = self.formula
        if formula is None or not self.reads:
            return []
        with np.errstate(over="ignore", invalid="ignore"):  # a value may have overflowed float16
            values = [run.values.astype(np.float64) for run in self.reads]
            terms = formula.operation.terms(values, formula.parameters, self.at)
            return [Terms(self.reads[which], weight) for which, weight in terms]

    def operands(self, limit: int | None = None) -> list[Operand]:
        """Return the operands in formula order, or at most `limit` of them, those of the largest terms first.

        Terms are never split: a product has both factors, and a formula that is not a sum has all its operands.
        """
        if limit is None:
            return [one for terms in self.terms for one in terms.operands(slice(None))]
        found: list[Operand] = []
        for terms, n in self.by_weight():
            if found and len(found) + len(terms.runs) > limit:
                break
            found += terms.operands(slice(n, n + 1))
        return found

    def by_weight(self) -> Iterator[tuple[Terms, int]]:
        """Yield every term as (terms, position in them), the largest first."""
        starts = [0, *accumulate(len(terms.weight) for terms in self.terms)]
        for place in self._order:
            at = bisect(starts, place) - 1
            yield self.terms[at], place - starts[at]

    @cached_property
    def _order(self) -> list[int]:
        """The positions of all terms in the concatenation of `terms`, the largest first."""
        weights = [-terms.weight for terms in self.terms]
        order: list[int] = np.argsort(np.concatenate(weights), kind="stable").tolist() if weights else []
        return order


def read_cell(config: Config, tokens: int, id: str, at: Place, sources: Sources, batch: int = 1) -> Cell:
    """Return the cell `at` (i, j, k) of a block, in a trace of `batch` sequences of `tokens` positions.

    Only that cell and its operands are read. Raises UnknownBlockError, CellError and the errors of the sources.
    """
    architecture = describe(config)
    block, sizes = architecture.find(id), architecture.sizes(tokens, batch)
    shape = block.kind.shape(sizes)
    if not all(0 <= n < size for n, size in zip(at, shape, strict=True)):
        allowed = ", ".join(f"{axis} from 0 to {size - 1:,}" for axis, size in zip("ijk", shape, strict=True))
        raise CellError(f"{','.join(map(str, at))} is not a cell of {id}: must be {allowed}.")
    own = _read(_SELF, block, [(n, 0) for n in at], range(1), sizes, sources)
    reads = () if _masked(block, at) else _reads(block, at, sizes, sources)
    return Cell(sizes, block, at, own.values[0], reads)


_SELF = Input("", Index("i j k"))


def _masked(block: Block, at: Place) -> bool:
    return block.formula is not None and block.formula.masks(at)


def _selected(formula: Formula, at: Place, reads: Sequence[Cells]) -> range | None:
    return formula.operation.selected(formula.parameters, at, reads[0].values[0] if reads else None)


def _reads(block: Block, at: Place, sizes: Sizes, sources: Sources) -> tuple[Cells, ...]:
    """Read the inputs of a formula: those repeated for each member, member by member, then the others."""
    formula, found = block.formula, list[Cells]()
    if formula is None:
        return ()
    repeated = [input for input in formula.inputs if input.each]
    numbers = range(sizes[GROUPS[repeated[0].each or ""].count] if repeated else 0)
    own: list[tuple[Input, int | None]] = [(input, None) for input in formula.inputs if not input.each]
    every = range(sizes[formula.over] if formula.over else 1)
    for input, number in (*((input, number) for number in numbers for input in repeated), *own):
        members = block.members if number is None else {GROUPS[input.each or ""].letter: number}
        rows = [(_at(row, at), row[3]) for row in input.index.rows(sizes, members, summed=True)]
        s = _selected(formula, at, found) or every
        found.append(_read(input, block.source(input, number), rows, s, sizes, sources))
    return tuple(found)


def _at(row: list[int], at: Place) -> int:
    i, j, k = at
    return row[0] * i + row[1] * j + row[2] * k + row[-1]


def _read(input: Input, block: Block, rows: list[tuple[int, int]], s: range, sizes: Sizes, sources: Sources) -> Cells:
    """Read the cells start + step · s of a block, for every s, or only one if all steps are 0."""
    if not any(step for _, step in rows):
        s = range(1)
    starts, steps = np.array(rows, np.int64).T
    places = starts + np.multiply.outer(np.array(s, np.int64), steps)
    key: list[int | slice] = []
    for row in block.kind.index.rows(sizes, block.members):
        start = row[-1] + sum(factor * first for factor, (first, _) in zip(row, rows, strict=False))
        step = sum(factor * step for factor, (_, step) in zip(row, rows, strict=False))
        key.append(slice(start + step * s.start, start + step * s.stop, step * s.step) if step else start)
    source = sources.weights if block.kind.role == "weight" else sources.values
    return Cells(input, block, rows, places, np.reshape(source(block.tensor, tuple(key)), -1))
