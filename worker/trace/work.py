"""How long a trace takes, roughly: what progress and time limits go by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import worker.describe.counts as counts
from worker.describe.architecture import Architecture, Section
from worker.describe.config import Config
from worker.families.registry import describe
from worker.trace.sampling import Sampling, passes

# Seconds on a slow machine of two processors, in plain NumPy.
_MADE = 1 / 250e6  # a synthetic weight
_READ = 1 / 1e9  # a weight that is there
_OPERATION = 1 / 20e9  # of a matrix product
_FILLED = 1 / 50e6  # a value of a trace
_CALLED = 0.5e-3  # whatever the size of a layer


class Work:
    """The seconds that each part of a trace takes on a slow machine.

    `held`: whether its weights are kept in memory from pass to pass. They are where that saves something, and where
    they take at most `held_weights_bytes`.
    """

    def __init__(self, config: Config, prompt: int, sampling: Sampling, held_weights_bytes: int) -> None:
        self.architecture, self.prompt, self.passes = describe(config), prompt, passes(sampling)
        self.caches_weights = self.passes > 1 and 4 * counts.total(self.architecture) <= held_weights_bytes
        self._layer, self._ends = _each(config)

    def layer(self, n: int) -> float:
        """One layer of pass `n`."""
        rows, length = self._rows(n)
        return _CALLED + self._weights(n, self._layer.weights) + rows * self._layer.seconds(length)

    def ends(self, n: int) -> float:
        """What is before and after the layers of pass `n`."""
        rows, length = self._rows(n)
        return self._weights(n, self._ends.weights) + rows * self._ends.seconds(length)

    @property
    def seconds(self) -> float:
        """All of it."""
        last = self.passes - 1  # from one pass to the next, but for the first, the time grows evenly
        return self._of(0) + (last * (self._of(1) + self._of(last)) / 2 if last else 0)

    def _of(self, n: int) -> float:
        return self.architecture.n_layer * self.layer(n) + self.ends(n)

    def _rows(self, n: int) -> tuple[int, int]:
        """How many positions pass `n` computes, and how many there are then."""
        return (1 if n else self.prompt), self.prompt + n

    def _weights(self, n: int, count: int) -> float:
        return count * (_READ if self.caches_weights and n else _MADE)


@dataclass(frozen=True)
class _Each:
    """What one layer, or what is outside of the layers, takes: `weights` are those of matrices. Operations and cells of
    one position among one, and among two: both grow evenly with how many there are.
    """

    weights: int
    operations: tuple[int, int]
    cells: tuple[int, int]

    def seconds(self, length: int) -> float:
        """One position among `length`."""
        return self._at(self.operations, length) * _OPERATION + self._at(self.cells, length) * _FILLED

    @staticmethod
    def _at(grows: tuple[int, int], length: int) -> int:
        one, two = grows
        return one + (two - one) * (length - 1)


@lru_cache(maxsize=16)
def _each(config: Config) -> tuple[_Each, _Each]:
    """A layer, and what is outside of the layers."""
    architecture = describe(config)
    outside = [section for section in architecture.sections if section.layers is None]
    return _taken(architecture, [architecture.stack]), _taken(architecture, outside)


def _taken(architecture: Architecture, sections: Sequence[Section]) -> _Each:
    sizes = architecture.sizes()
    matrices = {name for section in sections for name in counts.multiplied_weights(section)}
    weights = sum(prod(t.shape(sizes)) for section in sections for t in section.weights if t.name in matrices)
    operations, cells = [], []
    for length in (1, 2):
        s = architecture.sizes(length)
        operations.append(sum(counts.section_operations(architecture, section, s) for section in sections) // length)
        cells.append(sum(prod(value.shape(s)) for section in sections for value in section.values) // length)
    return _Each(weights, (operations[0], operations[1]), (cells[0], cells[1]))
