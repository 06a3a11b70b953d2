"""Levels of detail: a tensor shrunk along its last two axes by powers of two, so that a level lies in every finer one.

Of a large tensor one such level is kept beside it, and coarser ones are made of that instead of hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Starts = NDArray[np.intp]
Statistics = tuple[float, float, float, int]  # the least, the largest, the sum, how many

LARGE = 1 << 24  # cells of which a tensor beside which a level is kept has more
_TILE = 64  # cells of it, at the least, that are one of the level: three numbers for 64 are 5 % more to keep

#: What a level has of each tile, and how it comes from the cells.
REDUCTIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def factors(shape: tuple[int, ...], max_cells: int) -> tuple[int, ...]:
    """By how much to shrink the last two axes (or the last) so that at most `max_cells` are left of `shape`.

    The axis with more cells is halved until it fits. Raises ValueError where the axes before them have too many.
    """
    outer, last = prod(shape[:-2]), shape[-2:]
    if outer > max_cells:
        raise ValueError(f"{outer:,} cells are left of {list(shape)} when its two last axes are shrunk to one")
    by = [1] * len(last)
    while outer * prod(left := shrunk(last, tuple(by))) > max_cells:
        by[left.index(max(left))] *= 2
    return tuple(by)


def shrunk(shape: tuple[int, ...], by: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array of `shape` whose last axes are shrunk `by` these factors."""
    before = len(shape) - len(by)
    return (*shape[:before], *(-(-size // factor) for size, factor in zip(shape[before:], by, strict=True)))


def has_level(shape: tuple[int, ...]) -> bool:
    """Whether a level is kept of a tensor."""
    return prod(shape) > LARGE and prod(shape[-2:]) >= _TILE


class Level:
    """The level that is kept of a large tensor, made of its values as they come, strip by strip."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.by = factors(shape, prod(shape) // _TILE)
        self.shape = (len(REDUCTIONS), *shrunk(shape, self.by))  # of its content
        self._rows, self._columns = shape[-2:]
        self._matrices = prod(shape[:-2])
        self._tiles: list[list[NDArray[np.float32]]] = []

    def strips(self, most: int) -> Iterator[tuple[int, int]]:
        """From which cell to before which the strips lie in the tensor: of `most` cells or a row of tiles each."""
        tall = max(1, most // (self.by[0] * self._columns)) * self.by[0]
        for first in range(0, self._matrices * self._rows, self._rows):
            for row in range(first, first + self._rows, tall):
                yield row * self._columns, min(row + tall, first + self._rows) * self._columns

    def add(self, strip: NDArray[Any]) -> Statistics:
        """Take the next strip's values, [n], and describe them."""
        values = strip.reshape(-1, self._columns).astype(np.float32, copy=False)
        starts = [np.arange(0, size, factor) for size, factor in zip(values.shape, self.by, strict=True)]
        sums, largest, least = found = [tiled(combine, values, starts).ravel() for combine in REDUCTIONS.values()]
        self._tiles.append(found)
        return least.min().item(), largest.max().item(), sums.sum(dtype=np.float64).item(), len(strip)

    def is_finite(self) -> bool:
        """Whether all values are numbers: it is of use only then, as what is infinite is no part of a mean."""
        return all(np.isfinite(sums).all() for sums, _, _ in self._tiles)

    def content(self) -> bytes:
        """The tiles' sums, largest and least values, as float32: three arrays, one after another."""
        return b"".join(np.concatenate(kind).tobytes() for kind in zip(*self._tiles, strict=True))


def tiled(combine: np.ufunc, values: NDArray[Any], starts: list[Starts]) -> NDArray[Any]:
    """`values` with each axis reduced between its `starts`, from the first axis to the last."""
    with np.errstate(invalid="ignore"):
        for axis, own in enumerate(starts):
            if len(own) < values.shape[axis]:
                last = axis == values.ndim - 1
                values = combine.reduceat(values, own, axis) if last else _rows_tiled(combine, values, own, axis)
    return values


def _rows_tiled(combine: np.ufunc, values: NDArray[Any], starts: Starts, axis: int) -> NDArray[Any]:
    """The same along an axis that is not the last: many tiles at once, as all but the first and last are of a size."""
    stops = [*starts[1:].tolist(), values.shape[axis]]
    sizes = np.diff(starts, append=stops[-1])
    cuts = [0, len(starts)] if (sizes == sizes[0]).all() else sorted({0, 1, len(starts) - 1, len(starts)})
    found = []
    for first, last in pairwise(cuts):
        some = values[(slice(None),) * axis + (slice(int(starts[first]), stops[last - 1]),)]
        shape = (*values.shape[:axis], last - first, int(sizes[first]), *values.shape[axis + 1 :])
        found.append(combine.reduce(some.reshape(shape), axis + 1))
    return np.concatenate(found, axis) if len(found) > 1 else found[0]
