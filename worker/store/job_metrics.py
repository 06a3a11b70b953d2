"""Histograms of the waiting and running times of jobs, in Redis.

They are in Redis because the service does not run jobs and the process that does exits with its job. One hash holds
all of them; each field is a count or a sum, named measure|queue|kind|size|outcome|bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from redis import Redis

from worker.requests import RequestKind

KEY = "tallies:ended"
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # upper bounds in seconds
_SIZES = {"1M": 10**6, "1B": 10**9, "1T": 10**12}


class Histogram(NamedTuple):
    """Seconds that jobs of a queue, kind, size and outcome "waited" or "took"."""

    measure: str
    queue: str
    kind: str
    size: str
    outcome: str
    counts: list[int]  # one a bucket, not cumulative; the last bucket has no upper bound
    total: float  # seconds


def size(parameters: int) -> str:
    """Return the size class of a model: "1M", "1B" or "1T" for up to so many parameters, else "more"."""
    return next((name for name, limit in _SIZES.items() if parameters <= limit), "more")


def record(redis: Redis, queue: str, kind: RequestKind, size: str, outcome: str, waited: float, took: float) -> None:
    """Count a finished job: the seconds that it waited in its queue, and the seconds that it took."""
    pipeline = redis.pipeline(transaction=False)
    for measure, seconds in (("waited", waited), ("took", took)):
        name = f"{measure}|{queue}|{kind}|{size}|{outcome}"
        bucket = next((n for n, limit in enumerate(BUCKETS) if seconds <= limit), len(BUCKETS))
        pipeline.hincrby(KEY, f"{name}|{bucket}", 1)
        pipeline.hincrbyfloat(KEY, f"{name}|sum", max(0.0, seconds))
    pipeline.execute()


def read(redis: Redis) -> Iterator[Histogram]:
    """Yield all histograms."""
    histograms: dict[str, Histogram] = {}
    fields: Any = redis.hgetall(KEY)
    for field, value in fields.items():
        name, _, bucket = field.decode().rpartition("|")
        measure, queue, kind, model_size, outcome = name.split("|")
        histogram = histograms.setdefault(
            name, Histogram(measure, queue, kind, model_size, outcome, [0] * (len(BUCKETS) + 1), 0.0)
        )
        if bucket == "sum":
            histograms[name] = histogram._replace(total=float(value))
        else:
            histogram.counts[int(bucket)] = int(value)
    yield from histograms.values()
