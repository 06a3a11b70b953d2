"""A tensor shrunk by whole factors along its two last axes, strip by strip.

A cell of the result stands for a tile of cells, a smaller one at the far end of an axis. What is masked (−inf) counts
for nothing; a tile of which all is masked is −inf. A tile with a cell that is not a number is none.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import worker.trace.detail as detail
from service.errors import Invalid
from service.tensors.slices import View
from worker.trace.detail import Starts, tiled

How = Literal["mean", "max", "min", "absmax"]
HOW: tuple[How, ...] = ("mean", "max", "min", "absmax")
MOST = 1 << 22  # cells of a result, so that a request cannot ask for the memory of any number

_FEW = 1024  # cells of a tile that float32 adds up well enough, in a third of the time

_COMBINE = {"mean": np.add, "sum": np.add, "max": np.maximum, "min": np.minimum, "absmax": np.maximum}
_NEUTRAL = {"mean": 0.0, "sum": 0.0, "max": -inf, "min": inf, "absmax": 0.0}


def factors(shape: tuple[int, ...], max_cells: int) -> tuple[int, ...]:
    """By how much to shrink the last two axes (or the last): `detail.factors`. Raises Invalid (422)."""
    try:
        return detail.factors(shape, max_cells)
    except ValueError as error:
        raise Invalid({"max_cells": [f"{max_cells:,} are too few: {error}. Slice the axes before them."]}) from None


def shrink(view: View, by: tuple[int, ...], how: How | Literal["sum"]) -> NDArray[np.float64]:
    """The result, of the shape of `view` but for its last axes, which are shrunk `by` these factors."""
    every = _of_every_axis(view, by)
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


def cells(view: View, by: tuple[int, ...]) -> NDArray[np.float64]:
    """How many cells of a view each cell of the result stands for, what is masked included."""
    count = np.ones(())
    for axis, (size, factor) in enumerate(zip(view.lengths, _of_every_axis(view, by), strict=True)):
        if axis in view.kept:
            count = np.multiply.outer(count, np.diff(_starts(0, size, factor), append=size))
    return count


def _of_every_axis(view: View, by: tuple[int, ...]) -> list[int]:
    every = [1] * len(view.lengths)
    for axis, factor in zip(view.kept[::-1], by[::-1], strict=False):
        every[axis] = factor
    return every


@lru_cache(maxsize=64)  # strips are cut in the same few ways
def _starts(start: int, stop: int, factor: int) -> Starts:
    """Where in a strip from `start` to before `stop` the tiles of its axis begin."""
    return np.maximum(np.arange(start // factor, (stop - 1) // factor + 1) * factor, start) - start


def _tiles(values: NDArray[Any], starts: list[Starts], how: str) -> tuple[NDArray[Any], NDArray[Any]]:
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
            return found, tiled(np.add, (~masked).astype(np.float32), starts)
    count = np.ones(())
    for own, size in zip(starts, values.shape, strict=True):
        count = np.multiply.outer(count, np.diff(own, append=size))
    return found, count


def _combined(values: NDArray[Any], starts: list[Starts], how: str) -> NDArray[Any]:
    if how == "absmax":
        largest, least = (tiled(combine, values, starts).astype(np.float64) for combine in (np.maximum, np.minimum))
        return np.maximum(largest, -least, out=largest)
    return tiled(_COMBINE[how], values, starts)
