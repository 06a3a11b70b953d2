"""Parts of a stored array, of which only the bytes near the cells are read.

A part takes a range of indices of every axis. Cells that are near each other are read with the bytes between them,
which takes less time than a request for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.store.stored_bytes import StoredBytes

#: The indices of every axis, all of them counting up.
Axes = tuple[range, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array in the bytes of a result, from `offset` on, little-endian in C order."""

    content: StoredBytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    def cost(self, axes: Axes) -> int:
        """Return the cost of reading a part, in bytes that could be read in the same time; memory takes no more."""
        part = _Part(self, axes)
        return part.count * part.reach + (part.count - 1) * self.content.gap

    def parts(self, many: Iterable[Axes]) -> Iterator[NDArray[Any]]:
        """Yield the cells of one part after another, each with all axes. Raises Missing."""
        for scattered, some in groupby((_Part(self, axes) for axes in many), _Part.is_scattered):
            read = self._gathered if scattered else self._received
            yield from read(some)

    def _received(self, parts: Iterable[_Part]) -> Iterator[NDArray[Any]]:
        asked: deque[_Part] = deque()

        def wanted() -> Iterator[tuple[int, memoryview]]:
            for part in parts:
                asked.append(part)
                yield from ((start, row.data) for start, row in zip(part.starts().tolist(), part.memory, strict=True))

        for view in self.content.receive(wanted()):
            asked[0].lacks -= len(view)
            if not asked[0].lacks:
                yield asked.popleft().cells()

    def _gathered(self, parts: Iterable[_Part]) -> Iterator[NDArray[Any]]:
        for part in parts:
            found = self.content.gather(part.starts(), part.reach)
            part.memory = np.frombuffer(found, np.uint8).reshape(part.count, part.reach)
            yield part.cells()

    def stream(self, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes of the cells from `first` to before `last`, in C order. Raises Missing."""
        size = self.dtype.itemsize
        return self.content.stream(self.offset + first * size, self.offset + last * size)


class _Part:
    """Where the cells of a part lie: `count` ranges of `reach` bytes, each with the axes from `inner` on."""

    def __init__(self, array: StoredArray, axes: Axes) -> None:
        self.array, self.axes = array, axes
        size = array.dtype.itemsize
        self.steps = [axis.step * prod(array.shape[n + 1 :]) * size for n, axis in enumerate(axes)]  # bytes
        self.inner, self.reach = len(axes), size
        while self.inner and self._is_near(self.inner - 1):
            self.inner -= 1
            self.reach += (len(axes[self.inner]) - 1) * self.steps[self.inner]
        self.count = prod(map(len, axes[: self.inner]))
        self.lacks = self.count * self.reach  # bytes not read yet

    def _is_near(self, axis: int) -> bool:
        return len(self.axes[axis]) == 1 or self.steps[axis] - self.reach <= self.array.content.gap

    @cached_property
    def memory(self) -> NDArray[np.uint8]:
        return np.empty((self.count, self.reach), np.uint8)

    def is_scattered(self) -> bool:
        """Whether it consists of many short ranges."""
        return self.count > 1 and self.reach < self.array.content.gap

    def starts(self) -> NDArray[np.int64]:
        """Return where in the result each range begins."""
        first = sum(axis[0] * step // axis.step for axis, step in zip(self.axes, self.steps, strict=True))
        starts = np.array(self.array.offset + first)
        for axis, step in zip(self.axes[: self.inner], self.steps, strict=False):
            starts = np.add.outer(starts, np.arange(len(axis)) * step)
        return starts.ravel()

    def cells(self) -> NDArray[Any]:
        """Return the cells from the ranges that were read."""
        lengths, dtype = [*map(len, self.axes)], self.array.dtype
        ranges = self.memory.view(dtype)
        strides = [self.reach, *self.steps[self.inner :]]
        found = np.lib.stride_tricks.as_strided(ranges, [self.count, *lengths[self.inner :]], strides)
        return found.reshape(lengths)
