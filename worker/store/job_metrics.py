"""Histograms of how long jobs waited and took, in the queue's Redis.

The service does not see jobs end, and a process of a worker ends with its job. One hash holds all; a field is a count
or a sum, named measure|queue|kind|size|outcome|bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from redis import Redis

from worker.requests import RequestKind

KEY = "tallies:ended"
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # seconds, upper bounds
_SIZES = {"1M": 10**6, "1B": 10**9, "1T": 10**12}


class Histogram(NamedTuple):
    """The seconds of a measure ("took", "waited") for jobs of a queue, kind, size and outcome."""

    measure: str
    queue: str
    kind: str
    size: str
    outcome: str
    counts: list[int]  # by bucket, not cumulative; the last bucket has no upper bound
    total: float  # seconds


def size(parameters: int) -> str:
    """Return the size class of a model: up to a million, a billion or a trillion parameters, or more."""
    return next((name for name, most in _SIZES.items() if parameters <= most), "more")


def record(redis: Redis, queue: str, kind: RequestKind, size: str, outcome: str, waited: float, took: float) -> None:
    """Count a job that has ended, by the seconds that it waited in its queue and those that it took."""
    pipeline = redis.pipeline(transaction=False)
    for measure, seconds in (("waited", waited), ("took", took)):
        name = f"{measure}|{queue}|{kind}|{size}|{outcome}"
        bucket = next((n for n, most in enumerate(BUCKETS) if seconds <= most), len(BUCKETS))
        pipeline.hincrby(KEY, f"{name}|{bucket}", 1)
        pipeline.hincrbyfloat(KEY, f"{name}|sum", max(0.0, seconds))
    pipeline.execute()


def read(redis: Redis) -> Iterator[Histogram]:
    """Return all histograms."""
    found: dict[str, Histogram] = {}
    fields: Any = redis.hgetall(KEY)
    for field, value in fields.items():
        name, _, bucket = field.decode().rpartition("|")
        measure, queue, kind, of, outcome = name.split("|")
        histogram = found.setdefault(name, Histogram(measure, queue, kind, of, outcome, [0] * (len(BUCKETS) + 1), 0.0))
        if bucket == "sum":
            found[name] = histogram._replace(total=float(value))
        else:
            histogram.counts[int(bucket)] = int(value)
    yield from found.values()
