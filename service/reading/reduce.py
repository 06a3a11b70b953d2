"""Levels of detail: a tensor shrunk by whole factors along its two last axes, strip by strip.

A cell of the result stands for a tile of cells, a smaller one at the far end of an axis. What is masked (−inf) counts
for nothing; a tile of which all is masked is −inf. A tile with a cell that is not a number is none.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from math import inf, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.http.problems import Invalid
from service.reading.slices import View

Starts = NDArray[np.intp]
How = Literal["mean", "max", "min", "absmax"]
HOW: tuple[How, ...] = ("mean", "max", "min", "absmax")
MOST = 1 << 22  # cells of a result, so that a request cannot ask for the memory of any number

_FEW = 1024  # cells of a tile that float32 adds up well enough, in a third of the time

_COMBINE = {"mean": np.add, "max": np.maximum, "min": np.minimum, "absmax": np.maximum}
_NEUTRAL = {"mean": 0.0, "max": -inf, "min": inf, "absmax": 0.0}


def factors(shape: tuple[int, ...], max_cells: int) -> tuple[int, ...]:
    """By how much to shrink the last two axes (or the last) so that at most `max_cells` are left of `shape`.

    Detail is shared out evenly: both get the same limit of cells, the largest that will do, and each is shrunk by the
    least whole factor that keeps to it. Raises Invalid (422) where the axes before them have too many cells.
    """
    outer, last = prod(shape[:-2]), shape[-2:]

    def cells(limit: int) -> int:
        return outer * prod(-(-size // _factor(size, limit)) for size in last)

    limit = bisect_right(range(1, max(last, default=1) + 1), max_cells, key=cells)
    if not limit:
        many = f"{cells(1):,} cells are left of {list(shape)} when its two last axes are shrunk to one"
        raise Invalid({"max_cells": [f"{max_cells:,} are too few: {many}. Slice the axes before them."]})
    return tuple(_factor(size, limit) for size in last)


def _factor(size: int, limit: int) -> int:
    return max(1, -(-size // limit))


def shrink(view: View, by: tuple[int, ...], how: How) -> NDArray[np.float64]:
    """The result, of the shape of `view` but for its last axes, which are shrunk `by` these factors."""
    every = [1] * len(view.lengths)
    for axis, factor in zip(view.kept[::-1], by[::-1], strict=False):
        every[axis] = factor
    shape = [-(-size // factor) for size, factor in zip(view.lengths, every, strict=True)]
    result, counts = np.full(shape, _NEUTRAL[how]), np.zeros(shape)
    for position, values in view.parts():
        tiles = tuple(slice(at.start // f, (at.stop - 1) // f + 1) for at, f in zip(position, every, strict=True))
        starts = [_starts(at.start, at.stop, factor) for at, factor in zip(position, every, strict=True)]
        found, count = _tiles(values, starts, how)
        _COMBINE[how](result[tiles], found, out=result[tiles])
        counts[tiles] += count
    with np.errstate(invalid="ignore"):
        result = np.where(counts == 0, -inf, result / counts if how == "mean" else result)
    return result.reshape([shape[axis] for axis in view.kept])


@lru_cache(maxsize=64)  # strips are cut in the same few ways
def _starts(start: int, stop: int, factor: int) -> Starts:
    """Where in a strip from `start` to before `stop` the tiles of its axis begin."""
    return np.maximum(np.arange(start // factor, (stop - 1) // factor + 1) * factor, start) - start


def _tiles(values: NDArray[Any], starts: list[Starts], how: How) -> tuple[NDArray[Any], NDArray[Any]]:
    """The tiles that begin at `starts` along each axis, and how many cells of each are not masked."""
    if values.dtype != np.float32:
        values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
    if how == "mean" and values.size > _FEW * prod(map(len, starts)):
        values = values.astype(np.float64)
    found = _combined(values, starts, how)
    if how != "max" and not np.isfinite(found).all():  # perhaps of what is masked: it is looked for only then
        masked = np.isneginf(values)
        if masked.any():
            found = _combined(np.where(masked, values.dtype.type(_NEUTRAL[how]), values), starts, how)
            return found, _reduced(np.add, (~masked).astype(np.float32), starts)
    count = np.ones(())
    for own, size in zip(starts, values.shape, strict=True):
        count = np.multiply.outer(count, np.diff(own, append=size))
    return found, count


def _combined(values: NDArray[Any], starts: list[Starts], how: How) -> NDArray[Any]:
    if how == "absmax":
        largest, least = (_reduced(combine, values, starts).astype(np.float64) for combine in (np.maximum, np.minimum))
        return np.maximum(largest, -least, out=largest)
    return _reduced(_COMBINE[how], values, starts)


def _reduced(combine: Any, values: NDArray[Any], starts: list[Starts]) -> NDArray[Any]:
    """`values` with each axis reduced between `starts`, from the first axis to the last."""
    with np.errstate(invalid="ignore"):
        for axis, own in enumerate(starts):
            if len(own) < values.shape[axis]:
                last = axis == values.ndim - 1
                values = combine.reduceat(values, own, axis) if last else _rows_reduced(combine, values, own, axis)
    return values


def _rows_reduced(combine: Any, values: NDArray[Any], starts: Starts, axis: int) -> NDArray[Any]:
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
