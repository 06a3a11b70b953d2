"""Estimate a trace's time, for progress and time limits."""

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

# Seconds on a slow machine with two processors, in plain NumPy.
_GENERATED = 1 / 250e6  # per synthetic weight
_READ = 1 / 1e9  # per cached weight
_OPERATION = 1 / 20e9  # per operation of a matrix product
_FILLED = 1 / 50e6  # per value of a trace
_CALLED = 0.5e-3  # per layer, whatever its size


class Work:
    """The estimated seconds of each part of a trace on a slow machine.

    `caches_weights`: whether the weights are cached between passes. They are if there are several passes and the
    weights take at most `held_weights_bytes`.
    """

    def __init__(self, config: Config, prompt: int, sampling: Sampling, held_weights_bytes: int) -> None:
        self.architecture, self.prompt, self.passes = describe(config), prompt, passes(sampling)
        self.caches_weights = self.passes > 1 and 4 * counts.total(self.architecture) <= held_weights_bytes
        self._layer, self._ends = _costs(config)

    def layer(self, n: int) -> float:
        """Return the seconds of one layer of pass `n`."""
        rows, length = self._rows(n)
        return _CALLED + self._weights(n, self._layer.weights) + rows * self._layer.seconds(length)

    def ends(self, n: int) -> float:
        """Return the seconds before and after the layers of pass `n`."""
        rows, length = self._rows(n)
        return self._weights(n, self._ends.weights) + rows * self._ends.seconds(length)

    @property
    def seconds(self) -> float:
        """The seconds of the whole trace."""
        last = self.passes - 1  # after the first pass, the time grows linearly from pass to pass
        return self._of(0) + (last * (self._of(1) + self._of(last)) / 2 if last else 0)

    def _of(self, n: int) -> float:
        return self.architecture.n_layer * self.layer(n) + self.ends(n)

    def _rows(self, n: int) -> tuple[int, int]:
        """Return the number of positions that pass `n` computes, and that exist after it."""
        return (1 if n else self.prompt), self.prompt + n

    def _weights(self, n: int, count: int) -> float:
        return count * (_READ if self.caches_weights and n else _GENERATED)


@dataclass(frozen=True)
class _Cost:
    """The cost of one layer, or of everything outside the layers.

    `weights` is the number of matrix weights. `operations` and `cells` are those of one position at sequence lengths 1
    and 2: both grow linearly with the length.
    """

    weights: int
    operations: tuple[int, int]
    cells: tuple[int, int]

    def seconds(self, length: int) -> float:
        """Return the seconds of one position at sequence length `length`."""
        return self._at(self.operations, length) * _OPERATION + self._at(self.cells, length) * _FILLED

    @staticmethod
    def _at(first_two: tuple[int, int], length: int) -> int:
        one, two = first_two
        return one + (two - one) * (length - 1)


@lru_cache(maxsize=16)
def _costs(config: Config) -> tuple[_Cost, _Cost]:
    """Return the cost of a layer, and of everything outside the layers."""
    architecture = describe(config)
    outside = [section for section in architecture.sections if section.layers is None]
    return _cost(architecture, [architecture.stack]), _cost(architecture, outside)


def _cost(architecture: Architecture, sections: Sequence[Section]) -> _Cost:
    sizes = architecture.sizes()
    matrices = {name for section in sections for name in counts.multiplied_weights(section)}
    weights = sum(prod(t.shape(sizes)) for section in sections for t in section.weights if t.name in matrices)
    operations, cells = [], []
    for length in (1, 2):
        s = architecture.sizes(length)
        operations.append(sum(counts.section_operations(architecture, section, s) for section in sections) // length)
        cells.append(sum(prod(value.shape(s)) for section in sections for value in section.values) // length)
    return _Cost(weights, (operations[0], operations[1]), (cells[0], cells[1]))
