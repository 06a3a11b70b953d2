"""Safetensors files, mapped: what is read of a tensor is what comes into memory, as float32 whatever is stored.

The header is read here and not by the library, whose arrays are copies, and which gives NumPy no bfloat16.
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

#: How each number is stored. NumPy has no bfloat16: it is the upper half of a float32, here as what it weighs in bits.
STORED: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_BFLOAT16 = STORED["BF16"]
_MAX_HEADER = 100_000_000  # bytes, as the format has it
_TILE = 1 << 20  # values that are widened at a time


class Entry(NamedTuple):
    """A tensor in a file: the name of its type, its shape, and its bytes, counted from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class MappedFile:
    """One safetensors file, its header read and checked. Raises FileError and OSError."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise FileError(f"is cut short, or no safetensors file: it has {size:,} bytes, less than its header")
            self.entries = _entries(file.read(length), size - 8 - length)
            self._data: NDArray[np.uint8] = np.asarray(np.memmap(file, np.uint8, "r"))[8 + length :]

    def array(self, name: str) -> NDArray[Any]:
        """A tensor as it is stored, bfloat16 as uint16; nothing of it is read yet. Raises FileError."""
        entry = self.entries[name]
        dtype = STORED.get(entry.dtype)
        if dtype is None:
            raise FileError(f"the tensor {name} is {entry.dtype}: {', '.join(STORED)} are read")
        if entry.stop - entry.start != prod(entry.shape) * dtype.itemsize:
            raise FileError(f"the tensor {name} has {entry.stop - entry.start:,} bytes, and not those of its shape")
        return self._data[entry.start : entry.stop].view(dtype).reshape(entry.shape)


def _entries(header: bytes, room: int) -> dict[str, Entry]:
    try:
        told = orjson.loads(header)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise FileError("is no safetensors file: its header is no JSON object")
    entries = {name: _entry(name, inner) for name, inner in told.items() if name != "__metadata__"}
    last = max(entries, key=lambda name: entries[name].stop, default=None)
    if last is not None and entries[last].stop > room:
        raise FileError(
            f"is cut short: the tensor {last} ends {entries[last].stop:,} bytes after the header, "
            f"and only {room:,} are there"
        )
    return entries


def _entry(name: str, told: Any) -> Entry:
    match told:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop]}:
            if all(type(number) is int and number >= 0 for number in (*shape, start, stop)) and start <= stop:
                return Entry(dtype, tuple(shape), start, stop)
    raise FileError(f"is no safetensors file: its header says nothing sound of the tensor {name}")


def widened(values: Any) -> NDArray[np.float32]:
    """Stored values as float32: themselves where they are that, and lie where arithmetic takes them."""
    stored = np.asarray(values)
    if stored.dtype == _BFLOAT16:
        bits = stored.astype("<u4")
        np.left_shift(bits, 16, out=bits)
        return bits.view("<f4")
    if stored.dtype == np.float32 and stored.flags.aligned:
        return stored
    return stored.astype(np.float32)


class MappedWeights(Weights):
    """Weights as files store them, mapped. Only float32 comes as it is; all else is widened when it is read."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        return widened(self._tensors[name])

    def read(self, name: str, key: Key) -> NDArray[Any]:
        return widened(self._tensors[name][key])

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        return widened(self._tensors[name][index])

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        stored = self._tensors[name]
        count, width = stored.shape
        as_it_is = stored.dtype == np.float32 and stored.flags.aligned
        step = count if as_it_is else max(1, _TILE // width)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, widened(stored[rows])
