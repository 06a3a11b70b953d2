"""Coarse levels of detail of a large tensor, from the one that the worker kept beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

import worker.trace.detail as detail
from service.tensors.reduce import How, cells, shrink
from service.tensors.slices import View
from worker.store.arrays import StoredArray


@dataclass(frozen=True)
class Smaller:
    """A tensor shrunk `by` these factors: of each tile the sum, the largest and the least value."""

    by: tuple[int, ...]
    kept: dict[str, StoredArray]

    @classmethod
    def of(cls, tensor: StoredArray, told: dict[str, Any]) -> Smaller:
        """From what a manifest tells of it: the factors, and where in the result its arrays begin."""
        shape = detail.shrunk(tensor.shape, tuple(told["by"]))
        one = replace(tensor, shape=shape, dtype=np.dtype(np.float32))
        starts = (told["offset"] + n * prod(shape) * one.dtype.itemsize for n in range(len(detail.REDUCTIONS)))
        return cls(
            tuple(told["by"]),
            {kind: replace(one, offset=at) for kind, at in zip(detail.REDUCTIONS, starts, strict=True)},
        )

    def serves(self, view: View, by: tuple[int, ...]) -> bool:
        """Whether tiles of `by` cells of a view are put together of its own."""
        axes = len(view.source.shape)
        whole = view.kept[-2:] == [axes - 2, axes - 1] and view.is_whole(axes - 2) and view.is_whole(axes - 1)
        return whole and all(factor % own == 0 for factor, own in zip(by, self.by, strict=True))

    def shrink(self, view: View, by: tuple[int, ...], how: How) -> NDArray[np.float64]:
        """What `reduce.shrink` makes of the view, to rounding."""
        further = tuple(factor // own for factor, own in zip(by, self.by, strict=True))
        key = view.key[: len(view.source.shape) - 2]
        largest, least, total = (View(self.kept[kind], key) for kind in ("max", "min", "sum"))
        match how:
            case "max":
                return shrink(largest, further, "max")
            case "min":
                return shrink(least, further, "min")
            case "absmax":
                return np.maximum(shrink(largest, further, "max"), -shrink(least, further, "min"))
            case "mean":
                return shrink(total, further, "sum") / cells(view, by)
