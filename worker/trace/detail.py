"""Levels of detail: tensors reduced along their last two axes.

Factors are powers of two, so a level can be computed from any finer one. One level is stored with each large tensor;
coarser ones are computed from it, instead of from hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Starts = NDArray[np.intp]
Statistics = tuple[float, float, float, int]  # minimum, maximum, sum, count

LARGE = 1 << 24  # a level is stored with tensors of more cells
_TILE = 64  # minimum number of cells per tile: three numbers for 64 cells are 5 % more to store

#: The values that a level stores for each tile.
REDUCTIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def factors(shape: tuple[int, ...], max_cells: int) -> tuple[int, ...]:
    """Return the factors of the last two axes (or one) that reduce `shape` to at most `max_cells` cells.

    The longer axis is halved until it fits. Raises ValueError if the other axes have more than `max_cells` cells.
    """
    outer, last = prod(shape[:-2]), shape[-2:]
    if outer > max_cells:
        raise ValueError(f"{list(shape)} has {outer:,} cells even when its last two axes are reduced to one cell")
    by = [1] * len(last)
    while outer * prod(left := shrunk(last, tuple(by))) > max_cells:
        by[left.index(max(left))] *= 2
    return tuple(by)


def shrunk(shape: tuple[int, ...], by: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` with its last axes reduced by these factors."""
    before = len(shape) - len(by)
    return (*shape[:before], *(-(-size // factor) for size, factor in zip(shape[before:], by, strict=True)))


def has_level(shape: tuple[int, ...]) -> bool:
    """Return whether a level is stored with a tensor of this shape."""
    return prod(shape) > LARGE and prod(shape[-2:]) >= _TILE


class Level:
    """Computes the level of a large tensor, strip by strip."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.by = factors(shape, prod(shape) // _TILE)
        self.shape = (len(REDUCTIONS), *shrunk(shape, self.by))  # of the content
        self._rows, self._columns = shape[-2:]
        self._matrices = prod(shape[:-2])
        self._tiles: list[list[NDArray[np.float32]]] = []

    def strips(self, most: int) -> Iterator[tuple[int, int]]:
        """Yield the (start, stop) cells of strips of at most `most` cells, but at least one row of tiles."""
        tall = max(1, most // (self.by[0] * self._columns)) * self.by[0]
        for first in range(0, self._matrices * self._rows, self._rows):
            for row in range(first, first + self._rows, tall):
                yield row * self._columns, min(row + tall, first + self._rows) * self._columns

    def add(self, strip: NDArray[Any]) -> Statistics:
        """Add the next strip's values [n]; return their statistics."""
        values = strip.reshape(-1, self._columns).astype(np.float32, copy=False)
        starts = [np.arange(0, size, factor) for size, factor in zip(values.shape, self.by, strict=True)]
        sums, largest, least = found = [tiled(combine, values, starts).ravel() for combine in REDUCTIONS.values()]
        self._tiles.append(found)
        return least.min().item(), largest.max().item(), sums.sum(dtype=np.float64).item(), len(strip)

    def is_finite(self) -> bool:
        """Return whether all values are finite; if not, means cannot be computed from the level."""
        return all(np.isfinite(sums).all() for sums, _, _ in self._tiles)

    def content(self) -> bytes:
        """Return the sums, maxima and minima of the tiles: three float32 arrays, concatenated."""
        return b"".join(np.concatenate(kind).tobytes() for kind in zip(*self._tiles, strict=True))


def tiled(combine: np.ufunc, values: NDArray[Any], starts: list[Starts]) -> NDArray[Any]:
    """Return `values` with every axis reduced between its `starts`, from first to last."""
    with np.errstate(invalid="ignore"):
        for axis, own in enumerate(starts):
            if len(own) < values.shape[axis]:
                last = axis == values.ndim - 1
                values = combine.reduceat(values, own, axis) if last else _rows_tiled(combine, values, own, axis)
    return values


def _rows_tiled(combine: np.ufunc, values: NDArray[Any], starts: Starts, axis: int) -> NDArray[Any]:
    """Reduce an axis other than the last; all tiles but the first and last have equal size, so are reduced at once."""
    stops = [*starts[1:].tolist(), values.shape[axis]]
    sizes = np.diff(starts, append=stops[-1])
    cuts = [0, len(starts)] if (sizes == sizes[0]).all() else sorted({0, 1, len(starts) - 1, len(starts)})
    found = []
    for first, last in pairwise(cuts):
        some = values[(slice(None),) * axis + (slice(int(starts[first]), stops[last - 1]),)]
        shape = (*values.shape[:axis], last - first, int(sizes[first]), *values.shape[axis + 1 :])
        found.append(combine.reduce(some.reshape(shape), axis + 1))
    return np.concatenate(found, axis) if len(found) > 1 else found[0]
