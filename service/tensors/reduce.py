"""Shrink a tensor along its last two axes by integer factors.

A cell of the result is the reduction of a tile of cells; the last tile of an axis may be smaller. Masked cells (−inf)
are ignored; a tile of only masked cells gives −inf. A tile with a NaN gives NaN. The tensor is read strip by strip.
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

Reduction = Literal["mean", "max", "min", "absmax"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "max", "min", "absmax")
MAX_CELLS = 1 << 22  # of a result, which bounds its memory

_FLOAT32_CELLS = 1024  # of a tile that float32 sums accurately enough, in a third of the time

_COMBINE = {"mean": np.add, "sum": np.add, "max": np.maximum, "min": np.minimum, "absmax": np.maximum}
_NEUTRAL = {"mean": 0.0, "sum": 0.0, "max": -inf, "min": inf, "absmax": 0.0}


def factors(shape: tuple[int, ...], max_cells: int) -> tuple[int, ...]:
    """Return the factors that shrink the last two axes (or the only one) to at most `max_cells` cells in all.

    Raises Invalid (422) if the axes before them have more.
    """
    try:
        return detail.factors(shape, max_cells)
    except ValueError:
        why = f"the axes before the last two alone have {prod(shape[:-2]):,}; slice them"
        raise Invalid({"max_cells": [f"{list(shape)} cannot be shrunk to {max_cells:,} cells: {why}."]}) from None


def shrink(view: View, by: tuple[int, ...], how: Reduction | Literal["sum"]) -> NDArray[np.float64]:
    """Return the values of `view`, with its last axes shrunk by the factors `by`."""
    every = _of_every_axis(view, by)
    shape = [-(-size // factor) for size, factor in zip(view.lengths, every, strict=True)]
    result, counts = np.full(shape, _NEUTRAL[how]), np.zeros(shape)
    for position, values in view.parts():
        tiles = tuple(slice(at.start // f, (at.stop - 1) // f + 1) for at, f in zip(position, every, strict=True))
        starts = [_starts(at.start, at.stop, factor) for at, factor in zip(position, every, strict=True)]
        reduced, count = _tiles(values, starts, how)
        _COMBINE[how](result[tiles], reduced, out=result[tiles])
        counts[tiles] += count
    with np.errstate(invalid="ignore"):
        result = np.where(counts == 0, -inf, result / counts if how == "mean" else result)
    return result.reshape([shape[axis] for axis in view.axes])


def cells(view: View, by: tuple[int, ...]) -> NDArray[np.float64]:
    """Return how many cells of the view each cell of the result stands for, including masked ones."""
    count = np.ones(())
    for axis, (size, factor) in enumerate(zip(view.lengths, _of_every_axis(view, by), strict=True)):
        if axis in view.axes:
            count = np.multiply.outer(count, np.diff(_starts(0, size, factor), append=size))
    return count


def _of_every_axis(view: View, by: tuple[int, ...]) -> list[int]:
    """Return a factor for every axis of the source: 1 for all but the last axes of the view."""
    every = [1] * len(view.lengths)
    for axis, factor in zip(view.axes[::-1], by[::-1], strict=False):
        every[axis] = factor
    return every


@lru_cache(maxsize=64)  # strips have few different lengths
def _starts(start: int, stop: int, factor: int) -> Starts:
    """Return where tiles begin in the strip [start, stop) of an axis, relative to its start."""
    return np.maximum(np.arange(start // factor, (stop - 1) // factor + 1) * factor, start) - start


def _tiles(values: NDArray[Any], starts: list[Starts], how: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the reduced tiles, which begin at `starts` along each axis, and the number of unmasked cells of each."""
    if values.dtype != np.float32:
        values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
    if how == "mean" and values.size > _FLOAT32_CELLS * prod(map(len, starts)):
        values = values.astype(np.float64)
    reduced = _reduced(values, starts, how)
    if how != "max" and not np.isfinite(reduced).all():  # possibly masked cells; the search for them is slow
        masked = np.isneginf(values)
        if masked.any():
            reduced = _reduced(np.where(masked, values.dtype.type(_NEUTRAL[how]), values), starts, how)
            return reduced, tiled(np.add, (~masked).astype(np.float32), starts)
    count = np.ones(())
    for own, size in zip(starts, values.shape, strict=True):
        count = np.multiply.outer(count, np.diff(own, append=size))
    return reduced, count


def _reduced(values: NDArray[Any], starts: list[Starts], how: str) -> NDArray[Any]:
    if how == "absmax":
        maximum, minimum = (tiled(combine, values, starts).astype(np.float64) for combine in (np.maximum, np.minimum))
        return np.maximum(maximum, -minimum, out=maximum)
    return tiled(_COMBINE[how], values, starts)
