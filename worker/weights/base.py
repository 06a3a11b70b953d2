"""The interface of weights, and weights in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

Key = tuple[slice | int, ...]


class Weights(ABC):
    """Weights by Hugging Face name.

    A whole weight may be large, if it is generated or converted when read. `read`, `rows` and `tiles` take little.
    """

    @abstractmethod
    def __getitem__(self, name: str, /) -> NDArray[Any]:
        """Return a whole weight."""

    def read(self, name: str, key: Key) -> NDArray[Any]:
        """Return `weights[name][key]` without the rest of the tensor."""
        return np.asarray(self[name][key])

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        """Return `weights[name][index]` without the rest of the table."""
        return self[name][index]

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield a matrix as (rows, tile), from the first row to the last, in tiles that take little memory."""
        whole = self[name]
        yield slice(0, len(whole)), whole


class FileWeights(Weights, Mapping[str, NDArray[Any]]):
    """A safetensors file with every tensor of a model in float32, read into memory."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            self._tensors: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            self.metadata: dict[str, str] = file.metadata() or {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class CachedWeights(Weights):
    """Caches the weights of a source, for several forward passes."""

    def __init__(self, source: Weights | Mapping[str, NDArray[Any]]) -> None:
        self.source = source
        self._cached: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        found = self._cached.get(name)
        if found is None:
            found = self._cached[name] = self.source[name]
        return found
