"""Memory-mapped safetensors files, read as float32.

Only the parts that are read take memory. The safetensors package is not used: its arrays are copies, and it has no
bfloat16 for NumPy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.weights.base import Key, Weights
from worker.weights.folder import FileError

#: The stored types. NumPy has no bfloat16: it is the upper half of a float32, here as uint16.
STORED: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_BFLOAT16 = STORED["BF16"]
_MAX_HEADER = 100_000_000  # bytes, the limit of the format
_TILE = 1 << 20  # values that are converted at a time


class Entry(NamedTuple):
    """A tensor in a file: dtype, shape, and byte range after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class MappedFile:
    """A mapped safetensors file with a valid header. Raises FileError and OSError."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise FileError(f"is truncated or not a safetensors file: it has {size:,} bytes, less than its header")
            self.entries = _entries(file.read(length), size - 8 - length)
            self._data: NDArray[np.uint8] = np.asarray(np.memmap(file, np.uint8, "r"))[8 + length :]

    def array(self, name: str) -> NDArray[Any]:
        """Return a tensor as stored, bfloat16 as uint16, without reading it. Raises FileError."""
        entry = self.entries[name]
        dtype = STORED.get(entry.dtype)
        if dtype is None:
            raise FileError(f"the tensor {name} is {entry.dtype}: must be one of {', '.join(STORED)}")
        if entry.stop - entry.start != prod(entry.shape) * dtype.itemsize:
            raise FileError(f"the tensor {name} has {entry.stop - entry.start:,} bytes, which does not match its shape")
        return self._data[entry.start : entry.stop].view(dtype).reshape(entry.shape)


def _entries(header: bytes, available: int) -> dict[str, Entry]:
    try:
        content = orjson.loads(header)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise FileError("is not a safetensors file: its header is not a JSON object")
    entries = {name: _entry(name, inner) for name, inner in content.items() if name != "__metadata__"}
    last = max(entries, key=lambda name: entries[name].stop, default=None)
    if last is not None and entries[last].stop > available:
        raise FileError(
            f"is truncated: the tensor {last} ends {entries[last].stop:,} bytes after the header, "
            f"and the file has only {available:,}"
        )
    return entries


def _entry(name: str, content: Any) -> Entry:
    match content:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop]}:
            if all(type(number) is int and number >= 0 for number in (*shape, start, stop)) and start <= stop:
                return Entry(dtype, tuple(shape), start, stop)
    raise FileError(f"is not a safetensors file: the header's entry of the tensor {name} is invalid")


def to_float32(values: Any) -> NDArray[np.float32]:
    """Return stored values as float32, without a copy if they are aligned float32."""
    stored = np.asarray(values)
    if stored.dtype == _BFLOAT16:
        bits = stored.astype("<u4")
        np.left_shift(bits, 16, out=bits)
        return bits.view("<f4")
    if stored.dtype == np.float32 and stored.flags.aligned:
        return stored
    return stored.astype(np.float32)


class MappedWeights(Weights):
    """Mapped weights; other types than float32 are converted when read."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        return to_float32(self._tensors[name])

    def read(self, name: str, key: Key) -> NDArray[Any]:
        return to_float32(self._tensors[name][key])

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        return to_float32(self._tensors[name][index])

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        stored = self._tensors[name]
        count, width = stored.shape
        is_float32 = stored.dtype == np.float32 and stored.flags.aligned
        step = count if is_float32 else max(1, _TILE // width)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, to_float32(stored[rows])
