"""Timing functions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def seconds(function: Callable[[], object], count: int) -> list[float]:
    """Return how long each of `count` calls took, in seconds."""
    durations = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return durations


def milliseconds(durations: Sequence[float]) -> str:
    """Format the median and the 99th percentile of durations in seconds."""
    p99 = sorted(durations)[min(len(durations) - 1, round(0.99 * len(durations)))]
    return f"median {statistics.median(durations) * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms"


def interleaved(functions: Sequence[Callable[[], object]], count: int, pause: float) -> list[list[float]]:
    """Call functions in turn, `pause` seconds apart; return the durations of `count` calls of each.

    The first call of each function is a warm-up and does not count.
    """
    durations: list[list[float]] = [[] for _ in functions]
    for _ in range(count + 1):
        for function, own in zip(functions, durations, strict=True):
            time.sleep(pause)
            own += seconds(function, 1)
    return [own[1:] for own in durations]
