"""What the machine can do at most, measured: bytes read and operations done a second, by every core together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.figures import seconds
from worker.describe import counts
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe

_TIMES = 8
_ROWS = 1 << 14  # of a matrix of half a gigabyte, which no cache holds
_SIZE = 4096


@dataclass(frozen=True)
class Limits:
    """The quickest of several tries of each."""

    bytes_a_second: float
    operations_a_second: float

    def pass_seconds(self, config: Config, tokens: int) -> float:
        """The least time of a forward pass: its weights have to be read, and its products to be computed."""
        reading = 4 * counts.total(describe(config)) / self.bytes_a_second
        return max(reading, counts.operations(describe(config), tokens) / self.operations_a_second)

    def __str__(self) -> str:
        return f"{self.bytes_a_second / 1e9:.1f} GB/s read, {self.operations_a_second / 1e9:.0f} GFLOP/s of sgemm"


def measure() -> Limits:
    """Read through a matrix once, times a vector; and multiply two square matrices."""
    matrix, vector = np.ones((_ROWS, _ROWS // 2), dtype=np.float32), np.ones(_ROWS // 2, dtype=np.float32)
    reading = min(seconds(lambda: matrix @ vector, _TIMES))
    square, out = np.ones((_SIZE, _SIZE), dtype=np.float32), np.empty((_SIZE, _SIZE), dtype=np.float32)
    multiplying = min(seconds(lambda: np.matmul(square, square, out=out), _TIMES))
    return Limits(matrix.nbytes / reading, 2 * _SIZE**3 / multiplying)
