"""The names and shapes of a model's weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from worker.describe.architecture import Architecture
from worker.describe.blocks import LAYER, Tensor

_NUMBER = re.compile(r"(?<=\.)(0|[1-9]\d{0,8})(?=\.)", re.ASCII)


class Catalogue(Mapping[str, tuple[int, ...]]):
    """The shape of every weight by name, including a tied head.

    Shapes are computed on access: a catalogue of ten thousand layers costs no more than one of two.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self._sizes = architecture.sizes()
        self._kinds = {tensor.name: tensor for tensor in architecture.weights}

    def tensor(self, name: str) -> Tensor:
        """Return the tensor of a weight in the architecture. Raises KeyError."""
        layer = _NUMBER.search(name)
        if LAYER in name or (layer and int(layer[0]) >= self.architecture.n_layer):
            raise KeyError(name)
        return self._kinds[_NUMBER.sub(LAYER, name, count=1)]

    def source(self, name: str) -> str:
        """Return the name of the weight that this one is tied to, or its own. Raises KeyError."""
        return self.tensor(name).alias_of or name

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self.tensor(name).shape(self._sizes)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.architecture.all_weights())

    def __len__(self) -> int:
        return sum(self.architecture.n_layer if kind.is_layered else 1 for kind in self._kinds.values())
