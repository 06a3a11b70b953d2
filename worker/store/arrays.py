"""Slices of stored arrays, read without the rest of the array.

A part is a range of indices along every axis. Cells that are near each other are read together with the bytes between
them, which is faster than a request for each.
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

#: A range of indices for every axis, each with a positive step.
Axes = tuple[range, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array that starts at byte `offset` of a result, little-endian in C order."""

    content: StoredBytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    def cost(self, axes: Axes) -> int:
        """Return the cost of reading a part, as the bytes that take as long to read; at least the memory it takes."""
        part = _Part(self, axes)
        return part.count * part.reach + (part.count - 1) * self.content.gap

    def parts(self, selections: Iterable[Axes]) -> Iterator[NDArray[Any]]:
        """Yield the cells of one part after another, with the number of axes of the array. Raises Missing."""
        for scattered, parts in groupby((_Part(self, axes) for axes in selections), _Part.is_scattered):
            read = self._gathered if scattered else self._received
            yield from read(parts)

    def _received(self, parts: Iterable[_Part]) -> Iterator[NDArray[Any]]:
        pending: deque[_Part] = deque()

        def wanted() -> Iterator[tuple[int, memoryview]]:
            for part in parts:
                pending.append(part)
                yield from ((start, row.data) for start, row in zip(part.starts().tolist(), part.memory, strict=True))

        for view in self.content.receive(wanted()):
            pending[0].unread -= len(view)
            if not pending[0].unread:
                yield pending.popleft().cells()

    def _gathered(self, parts: Iterable[_Part]) -> Iterator[NDArray[Any]]:
        for part in parts:
            content = self.content.gather(part.starts(), part.reach)
            part.memory = np.frombuffer(content, np.uint8).reshape(part.count, part.reach)
            yield part.cells()

    def stream(self, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes of cells `first` to `last` (exclusive), in C order. Raises Missing."""
        size = self.dtype.itemsize
        return self.content.stream(self.offset + first * size, self.offset + last * size)


class _Part:
    """The byte ranges of a part: `count` ranges of `reach` bytes, each spanning the axes from `inner` on."""

    def __init__(self, array: StoredArray, axes: Axes) -> None:
        self.array, self.axes = array, axes
        size = array.dtype.itemsize
        self.steps = [axis.step * prod(array.shape[n + 1 :]) * size for n, axis in enumerate(axes)]  # bytes
        self.inner, self.reach = len(axes), size
        while self.inner and self._is_near(self.inner - 1):
            self.inner -= 1
            self.reach += (len(axes[self.inner]) - 1) * self.steps[self.inner]
        self.count = prod(map(len, axes[: self.inner]))
        self.unread = self.count * self.reach  # bytes

    def _is_near(self, axis: int) -> bool:
        return len(self.axes[axis]) == 1 or self.steps[axis] - self.reach <= self.array.content.gap

    @cached_property
    def memory(self) -> NDArray[np.uint8]:
        return np.empty((self.count, self.reach), np.uint8)

    def is_scattered(self) -> bool:
        """Whether the part consists of many short ranges."""
        return self.count > 1 and self.reach < self.array.content.gap

    def starts(self) -> NDArray[np.int64]:
        """Return the offset of each range in the result, in bytes, int64 [count]."""
        first = sum(axis[0] * step // axis.step for axis, step in zip(self.axes, self.steps, strict=True))
        starts = np.array(self.array.offset + first)
        for axis, step in zip(self.axes[: self.inner], self.steps, strict=False):
            starts = np.add.outer(starts, np.arange(len(axis)) * step)
        return starts.ravel()

    def cells(self) -> NDArray[Any]:
        """Return the cells, as a view of the ranges that were read where possible."""
        lengths, dtype = [*map(len, self.axes)], self.array.dtype
        ranges = self.memory.view(dtype)
        strides = [self.reach, *self.steps[self.inner :]]
        view = np.lib.stride_tricks.as_strided(ranges, [self.count, *lengths[self.inner :]], strides)
        return view.reshape(lengths)
