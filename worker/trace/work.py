"""How long a trace takes, roughly: what progress and time limits go by."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import worker.describe.architecture as architecture
import worker.describe.counts as counts
from worker.families.config import Config
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
        self.config, self.prompt, self.passes = config, prompt, passes(sampling)
        self.held = self.passes > 1 and 4 * counts.total(config) <= held_weights_bytes
        s = architecture.sizes(config)
        self._layer_weights = s["C"] * s["3HA"] + s["HA"] * s["C"] + 2 * s["C"] * s["F"]
        self._head_weights = s["V"] * s["C"]
        self._cells = {scope: (_cells(config, scope, 1), _cells(config, scope, 2)) for scope in ("layer", "model")}

    def layer(self, n: int) -> float:
        """One layer of pass `n`."""
        rows, length = self._rows(n)
        operations = 2 * (self._layer_weights + 2 * length * self.config.n_head * self.config.d_head)
        each = operations * _OPERATION + self._filled("layer", length)
        return _CALLED + self._weights(n, self._layer_weights) + rows * each

    def ends(self, n: int) -> float:
        """What is before and after the layers of pass `n`."""
        rows, length = self._rows(n)
        each = 2 * self._head_weights * _OPERATION + self._filled("model", length)
        return self._weights(n, self._head_weights) + rows * each

    @property
    def seconds(self) -> float:
        """All of it."""
        last = self.passes - 1  # from one pass to the next, but for the first, the time grows evenly
        return self._of(0) + (last * (self._of(1) + self._of(last)) / 2 if last else 0)

    def _of(self, n: int) -> float:
        return self.config.n_layer * self.layer(n) + self.ends(n)

    def _rows(self, n: int) -> tuple[int, int]:
        """How many positions pass `n` computes, and how many there are then."""
        return (1 if n else self.prompt), self.prompt + n

    def _weights(self, n: int, count: int) -> float:
        return count * (_READ if self.held and n else _MADE)

    def _filled(self, scope: str, length: int) -> float:
        """Filling a position of the tensors: as many cells as with one position, and some for each one more."""
        one, two = self._cells[scope]
        return (one + (two - one) * (length - 1)) * _FILLED


@lru_cache(maxsize=16)
def _cells(config: Config, scope: str, length: int) -> int:
    """How many values of a layer, or outside of the layers, belong to one of `length` positions."""
    sizes = architecture.sizes(config, length)
    return sum(prod(tensor.shape(sizes)) for tensor in architecture.VALUES if tensor.scope == scope) // length
