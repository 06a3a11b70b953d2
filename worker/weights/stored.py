"""Safetensors files, read by ranges as float32.

A program that shortens a mapped file kills the processes that read it (SIGBUS); reading by ranges raises ChangedError.
So the API reads, and only a job, which has a process of its own, maps (`mapped.py`). The safetensors package is not
used: its arrays are copies, and it has no bfloat16 for NumPy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.weights.base import Key, Weights
from worker.weights.digests import ChangedError
from worker.weights.folder import FileError
from worker.weights.header import read_header

#: The stored types. NumPy has no bfloat16: it is the upper half of a float32, here as uint16.
STORED: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_BFLOAT16 = STORED["BF16"]
_BLOCK = 4 << 20  # bytes read at a time
_PAGES = 16 << 10  # bytes of a row that is read whole: the disk and the page cache read no less

Version = tuple[int, int, int]  # of a file: inode, size, and the time its content changed (ns)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a version of a file: where its bytes begin, their type (uint16 for bfloat16) and its shape."""

    path: Path
    version: Version
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, key: Key) -> NDArray[Any]:
        """Return `tensor[key]` as stored, without reading the rest. Raises ChangedError."""
        key = (*key, *(slice(None),) * (len(self.shape) - len(key)))
        axes = [picked(size, part) for size, part in zip(self.shape, key, strict=True)]
        one = [range(1)] * (2 - len(axes))  # a vector is a matrix of one row
        rows, *others = [*one, *axes]
        values = self._read(rows, others, (*map(len, one), *self.shape))
        values = values.reshape([len(axis) for axis in axes])
        return np.asarray(values[tuple(slice(None) if isinstance(part, slice) else 0 for part in key)])

    def rows(self, rows: Sequence[int], columns: range) -> NDArray[Any]:
        """Return some columns of some rows of a tensor with at least two axes, as stored. Raises ChangedError."""
        return self._read(rows, [columns, *map(range, self.shape[2:])], self.shape)

    def _read(self, rows: Sequence[int], axes: list[range], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the cells at `rows` and `axes` of the tensor as one of this shape."""
        columns = axes[0]
        values = np.empty([len(rows), *map(len, axes)], self.dtype)
        item = prod(shape[2:]) * self.dtype.itemsize  # bytes of a column in a row
        low, high = 0, shape[1]
        if columns and shape[1] * item > _PAGES:
            low, high = min(columns[0], columns[-1]), max(columns[0], columns[-1]) + 1
        part = tuple(_slice(axis, low if at == 0 else 0) for at, axis in enumerate(axes))
        count = max(_BLOCK // max((high - low) * item, 1), 1)  # rows of a block
        with self._opened() as file:
            for start in range(0, len(rows) if values.size else 0, count):
                some = rows[start : start + count]
                block = np.empty((len(some), high - low, *shape[2:]), self.dtype)
                if isinstance(some, range) and some.step == 1 and high - low == shape[1]:
                    self._fill(file, block, some[0] * shape[1] * item)
                else:
                    for row, out in zip(some, block, strict=True):
                        self._fill(file, out, (row * shape[1] + low) * item)
                values[start : start + count] = block[(slice(None), *part)]
        return values

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the file. Raises ChangedError if it cannot be read, or is another version now or in the end."""
        try:
            with self.path.open("rb", buffering=0) as file:
                self._check(file.fileno())
                yield file.fileno()
                self._check(file.fileno())
        except OSError as error:
            raise ChangedError(f"{self.path.name} cannot be read any more ({error.strerror})") from None

    def _check(self, file: int) -> None:
        if version(file) != self.version:
            raise ChangedError(f"{self.path.name} changed while it was read")

    def _fill(self, file: int, out: NDArray[Any], start: int) -> None:
        """Read the bytes from `start` on into an array."""
        left, at = out.reshape(-1).view(np.uint8).data, self.offset + start
        while left:
            size = os.preadv(file, [left], at)
            if size == 0:
                raise ChangedError(f"{self.path.name} changed while it was read: it is shorter")
            left, at = left[size:], at + size


class StoredFile:
    """A safetensors file with a valid header. Raises FileError and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.version = version(file.fileno())
            self.entries, self._start = read_header(file)

    def tensor(self, name: str) -> StoredTensor:
        """Return a tensor, without reading it. Raises FileError if its type is not supported."""
        entry = self.entries[name]
        dtype = STORED.get(entry.dtype)
        if dtype is None:
            raise FileError(f"the tensor {name} is {entry.dtype}: must be one of {', '.join(STORED)}")
        return StoredTensor(self.path, self.version, self._start + entry.start, dtype, entry.shape)


class StoredWeights(Weights):
    """Weights that are read from their files; other types than float32 are converted."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.read(name, ())

    def read(self, name: str, key: Key) -> NDArray[Any]:
        return to_float32(self._tensors[name].read(key))


def version(file: int) -> Version:
    """Return the version of an open file."""
    found = os.fstat(file)
    return found.st_ino, found.st_size, found.st_mtime_ns


def to_float32(values: Any) -> NDArray[np.float32]:
    """Return stored values as float32, without a copy if they are aligned float32."""
    stored = np.asarray(values)
    if stored.dtype == _BFLOAT16:
        bits = stored.astype("<u4")
        np.left_shift(bits, 16, out=bits)
        return bits.view("<f4")
    if stored.dtype == np.float32 and stored.flags.aligned:
        return stored
    with np.errstate(over="ignore"):  # float64 values out of the range of float32 become infinite
        return stored.astype(np.float32)


def picked(size: int, part: slice | int) -> range:
    """Return the indices that a part of a key selects; an integer selects one. Raises IndexError."""
    if isinstance(part, slice):
        return range(size)[part]
    at = range(size)[part]
    return range(at, at + 1)


def _slice(picked: range, low: int) -> slice:
    """Return the slice that selects these indices in an array that begins at `low`."""
    if not picked:
        return slice(0, 0)
    stop = picked[-1] + picked.step - low
    return slice(picked[0] - low, stop if stop >= 0 else None, picked.step)
