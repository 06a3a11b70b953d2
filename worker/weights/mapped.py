"""Memory-mapped safetensors files, read as float32: only the parts that are read take memory.

A process that reads a mapped file dies if another program shortens the file: only the processes of jobs map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.weights.base import Key, Weights
from worker.weights.digests import ChangedError
from worker.weights.stored import StoredTensor, to_float32, version

_TILE = 1 << 20  # values that are converted at a time


class MappedWeights(Weights):
    """Mapped weights; other types than float32 are converted when read. Raises ChangedError and OSError."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        files = {tensor.path: _mapped(tensor) for tensor in {each.path: each for each in tensors.values()}.values()}
        self._tensors: dict[str, NDArray[Any]] = {}
        for name, tensor in tensors.items():
            data = files[tensor.path][tensor.offset :][: prod(tensor.shape) * tensor.dtype.itemsize]
            self._tensors[name] = data.view(tensor.dtype).reshape(tensor.shape)

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


def _mapped(tensor: StoredTensor) -> NDArray[np.uint8]:
    """Map the file of a tensor."""
    with tensor.path.open("rb") as file:
        if version(file.fileno()) != tensor.version:
            raise ChangedError(f"{tensor.path.name} changed while it was read")
        return np.asarray(np.memmap(file, np.uint8, "r"))
