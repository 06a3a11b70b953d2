"""Timing and the words for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def seconds(function: Callable[[], object], times: int) -> list[float]:
    """How long each of so many calls took."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return taken


def milliseconds(taken: Sequence[float]) -> str:
    """Median and 99th percentile of times in seconds."""
    last = sorted(taken)[min(len(taken) - 1, round(0.99 * len(taken)))]
    return f"median {statistics.median(taken) * 1e3:7.2f} ms   p99 {last * 1e3:7.2f} ms"


def interleaved(functions: Sequence[Callable[[], object]], times: int, pause: float) -> list[list[float]]:
    """How long each call of each function took, taking turns, after one call of each that does not count."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(times + 1):
        for function, own in zip(functions, taken, strict=True):
            time.sleep(pause)
            own += seconds(function, 1)
    return [own[1:] for own in taken]
