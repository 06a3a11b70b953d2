"""The machine's limits: memory bandwidth and matrix products, on all cores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.timing import seconds
from worker.describe import counts
from worker.describe.config import Config
from worker.families.registry import describe

_TIMES = 8  # measurements, of which the fastest counts
_ROWS = 1 << 14  # of a matrix of 512 MiB, which fits in no CPU cache
_SIZE = 4096


@dataclass(frozen=True)
class Limits:
    """The measured limits."""

    bytes_a_second: float
    operations_a_second: float

    def pass_seconds(self, config: Config, tokens: int) -> float:
        """Return the minimum time of a forward pass, in which weights are read and products are computed."""
        reading = 4 * counts.total(describe(config)) / self.bytes_a_second
        return max(reading, counts.operations(describe(config), tokens) / self.operations_a_second)

    def __str__(self) -> str:
        return f"{self.bytes_a_second / 1e9:.1f} GB/s read, {self.operations_a_second / 1e9:.0f} GFLOP/s of sgemm"


def measure() -> Limits:
    """Measure the limits: a matrix times a vector for reading, and the product of two square matrices."""
    matrix, vector = np.ones((_ROWS, _ROWS // 2), dtype=np.float32), np.ones(_ROWS // 2, dtype=np.float32)
    reading = min(seconds(lambda: matrix @ vector, _TIMES))
    square, out = np.ones((_SIZE, _SIZE), dtype=np.float32), np.empty((_SIZE, _SIZE), dtype=np.float32)
    multiplying = min(seconds(lambda: np.matmul(square, square, out=out), _TIMES))
    return Limits(matrix.nbytes / reading, 2 * _SIZE**3 / multiplying)
