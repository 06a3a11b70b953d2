"""Weights by name: what every source of them can do, and those of a file that is read whole."""

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
    """Weights by Hugging Face name. Where they are made or converted as they are read, a whole one may be large:
    `read`, `rows` and `tiles` take little memory."""

    @abstractmethod
    def __getitem__(self, name: str, /) -> NDArray[Any]:
        """A weight, whole."""

    def read(self, name: str, key: Key) -> NDArray[Any]:
        """`weights[name][key]`, without making the rest of the tensor."""
        return np.asarray(self[name][key])

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        """`weights[name][index]`, without making the rest of the table."""
        return self[name][index]

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        """A matrix from its first row to its last, as many at a time as are cheap to have at once."""
        whole = self[name]
        yield slice(0, len(whole)), whole


class FileWeights(Weights, Mapping[str, NDArray[Any]]):
    """A safetensors file of one model: float32, every tensor of the catalogue."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            self._tensors: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            self.metadata: dict[str, str] = file.metadata() or {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class CachedWeights(Weights):
    """Weights made or read once and kept, for a model that is passed through many times."""

    def __init__(self, source: Weights | Mapping[str, NDArray[Any]]) -> None:
        self.source = source
        self._held: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        found = self._held.get(name)
        if found is None:
            found = self._held[name] = self.source[name]
        return found
