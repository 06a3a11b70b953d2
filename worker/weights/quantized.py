"""GGUF files, read by ranges as float32.

Most types store a row in blocks of 32 or 256 values: only the blocks that a part needs are read and expanded. The files
are never mapped, as expanding takes longer than reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from worker.weights.base import Key, Weights
from worker.weights.folder import FileError
from worker.weights.gguf_header import read_gguf_header
from worker.weights.stored import STORED, StoredTensor, picked, to_float32, version

#: The supported types that have blocks.
BLOCKS = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S",
    "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0", "MXFP4",
)  # fmt: skip
_BYTE = np.dtype(np.uint8)
_TILE = 1 << 20  # values that are expanded at a time
_RUN = 256  # columns: the least multiple of every block


@dataclass(frozen=True)
class GgufTensor:
    """A matrix in a version of a file; a vector is one row. `stored` has its values, or its blocks, as bytes."""

    type: str
    shape: tuple[int, int]
    stored: StoredTensor

    def part(self, rows: Sequence[int], columns: Sequence[int]) -> NDArray[np.float32]:
        """Return some columns of some rows. Raises ChangedError."""
        values = np.empty((len(rows), len(columns)), np.float32)
        if not values.size:
            return values
        size, _ = GGML_QUANT_SIZES[GGMLQuantizationType[self.type]]
        blocks = range(min(columns[0], columns[-1]) // size, max(columns[0], columns[-1]) // size + 1)
        picked = np.asarray(columns) - blocks.start * size
        whole = np.array_equal(picked, np.arange(len(blocks) * size))
        step = max(1, _TILE // (len(blocks) * size))
        for start in range(0, len(rows), step):
            found = self._expanded(self.stored.rows(rows[start : start + step], blocks))
            values[start : start + step] = found if whole else found[:, picked]
        return values

    def _expanded(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return values [rows, columns] or blocks [rows, blocks, bytes] as float32 [rows, columns]."""
        if self.type in STORED:
            return to_float32(stored)
        with np.errstate(all="ignore"):  # a scale may be infinite or no number
            values: NDArray[np.float32] = dequantize(stored.reshape(len(stored), -1), GGMLQuantizationType[self.type])
        return values


class GgufFile:
    """A GGUF file with a valid header. Raises FileError and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.version = version(file.fileno())
            self.metadata, self.entries = read_gguf_header(file)

    def tensor(self, name: str) -> GgufTensor:
        """Return a tensor, without reading it. Raises FileError if its type or its shape is not supported."""
        entry = self.entries[name]
        if len(entry.shape) > 2:
            raise FileError(f"the tensor {name} has {len(entry.shape)} axes, and at most 2 are supported")
        rows, columns = (1, *entry.shape)[-2:]
        if entry.type in STORED:
            stored = StoredTensor(self.path, self.version, entry.start, STORED[entry.type], (rows, columns))
        elif entry.type in BLOCKS:
            size, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[entry.type]]
            shape = (rows, columns // size, nbytes)
            stored = StoredTensor(self.path, self.version, entry.start, _BYTE, shape)
        else:
            raise FileError(f"the tensor {name} is {entry.type}: must be one of {', '.join((*STORED, *BLOCKS))}")
        return GgufTensor(entry.type, (rows, columns), stored)


@dataclass(frozen=True, eq=False)
class GgufWeight:
    """A weight in a GGUF file.

    `rows` are the rows of the tensor that are the weight's, or the elements of a vector, in order; None for all.
    `transposed`: the tensor is the transpose of the weight. `offset` is added to the values.
    """

    tensor: GgufTensor
    shape: tuple[int, ...]
    rows: NDArray[np.intp] | None = None
    transposed: bool = False
    offset: float = 0.0

    def read(self, key: Key) -> NDArray[np.float32]:
        """Return `weight[key]` without reading or expanding the rest. Raises ChangedError."""
        key = (*key, *(slice(None),) * (len(self.shape) - len(key)))
        axes = [picked(size, part) for size, part in zip(self.shape, key, strict=True)]
        values = self.part(*axes) if len(axes) == 2 else self._vector(*axes)
        return np.asarray(values[tuple(slice(None) if isinstance(part, slice) else 0 for part in key)])

    def part(self, rows: Sequence[int], columns: range) -> NDArray[np.float32]:
        """Return some columns of some rows of a matrix."""
        if self.transposed:
            return self._with_offset(np.ascontiguousarray(self.tensor.part(columns, rows).T))
        return self._with_offset(
            self.tensor.part(rows if self.rows is None else self.rows[np.asarray(rows, np.intp)].tolist(), columns)
        )

    def _vector(self, axis: range) -> NDArray[np.float32]:
        whole = self.tensor.part(range(1), range(self.tensor.shape[1]))[0]
        return self._with_offset((whole if self.rows is None else whole[self.rows])[axis])

    def _with_offset(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values + np.float32(self.offset) if self.offset else values


class GgufWeights(Weights):
    """Weights that are read from a GGUF file."""

    def __init__(self, weights: Mapping[str, GgufWeight]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.read(name, ())

    def read(self, name: str, key: Key) -> NDArray[Any]:
        return self._weights[name].read(key)

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        if isinstance(index, slice):
            return self.read(name, (index,))
        weight = self._weights[name]
        unique, places = np.unique(index, return_inverse=True)
        return weight.part(unique.tolist(), range(weight.shape[1]))[places]

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        count, width = self._weights[name].shape
        step = max(1, _TILE // width)
        if self._weights[name].transposed:  # whole blocks
            step = -(-step // _RUN) * _RUN
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, self.read(name, (rows,))
