"""Shrink a large tensor with the help of its stored level of detail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

import worker.trace.detail as detail
from service.tensors.reduce import Reduction, cells, shrink
from service.tensors.slices import View
from worker.store.arrays import StoredArray


@dataclass(frozen=True)
class DetailLevel:
    """A tensor shrunk by the factors `by`, which the worker stores with it.

    `arrays` has the sum, the maximum and the minimum of each tile, by these names ("sum", "max", "min").
    """

    by: tuple[int, ...]
    arrays: dict[str, StoredArray]

    @classmethod
    def of(cls, tensor: StoredArray, slot: dict[str, Any]) -> DetailLevel:
        """Return the level that a manifest describes: its factors, and the offset of its arrays in the result."""
        shape = detail.shrunk(tensor.shape, tuple(slot["by"]))
        first = replace(tensor, shape=shape, dtype=np.dtype(np.float32))
        offsets = (slot["offset"] + n * prod(shape) * first.dtype.itemsize for n in range(len(detail.REDUCTIONS)))
        arrays = {name: replace(first, offset=offset) for name, offset in zip(detail.REDUCTIONS, offsets, strict=True)}
        return cls(tuple(slot["by"]), arrays)

    def serves(self, view: View, by: tuple[int, ...]) -> bool:
        """Return whether tiles of `by` cells of the view consist of whole tiles of this level."""
        axes = len(view.source.shape)
        whole = view.axes[-2:] == [axes - 2, axes - 1] and view.is_whole(axes - 2) and view.is_whole(axes - 1)
        return whole and all(factor % own == 0 for factor, own in zip(by, self.by, strict=True))

    def shrink(self, view: View, by: tuple[int, ...], how: Reduction) -> NDArray[np.float64]:
        """Return the same as `reduce.shrink`, up to rounding, from this level's cells."""
        further = tuple(factor // own for factor, own in zip(by, self.by, strict=True))
        key = view.key[: len(view.source.shape) - 2]
        maximum, minimum, total = (View(self.arrays[name], key) for name in ("max", "min", "sum"))
        match how:
            case "max":
                return shrink(maximum, further, "max")
            case "min":
                return shrink(minimum, further, "min")
            case "absmax":
                return np.maximum(shrink(maximum, further, "max"), -shrink(minimum, further, "min"))
            case "mean":
                return shrink(total, further, "sum") / cells(view, by)
