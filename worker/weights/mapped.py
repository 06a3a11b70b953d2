"""Memory-mapped safetensors files, read as float32.

Only the parts that are read take memory. The safetensors package is not used: its arrays are copies, and it has no
bfloat16 for NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.weights.base import Key, Weights
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
_TILE = 1 << 20  # values that are converted at a time


class MappedFile:
    """A mapped safetensors file with a valid header. Raises FileError and OSError."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.entries, start = read_header(file)
            self._data: NDArray[np.uint8] = np.asarray(np.memmap(file, np.uint8, "r"))[start:]

    def array(self, name: str) -> NDArray[Any]:
        """Return a tensor as stored, bfloat16 as uint16, without reading it. Raises FileError."""
        entry = self.entries[name]
        dtype = STORED.get(entry.dtype)
        if dtype is None:
            raise FileError(f"the tensor {name} is {entry.dtype}: must be one of {', '.join(STORED)}")
        return self._data[entry.start : entry.stop].view(dtype).reshape(entry.shape)


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
