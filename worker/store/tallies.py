"""How jobs went, counted in the queue's Redis: no process of the service sees it, and none of a worker's lives to tell.

One hash; a field is a count or a sum, named by what it counts:
measure|queue|kind|size|outcome|bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from redis import Redis

from worker.requests import Kind

KEY = "tallies:ended"
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # seconds, upper bounds
_SIZES = {"1M": 10**6, "1B": 10**9, "1T": 10**12}


class Tally(NamedTuple):
    """Seconds of a measure ("took", "waited") of jobs of a queue, kind, size and outcome: by bucket, and their sum."""

    measure: str
    queue: str
    kind: str
    size: str
    outcome: str
    counts: list[int]  # by bucket, not accumulated; the last is what exceeds them all
    total: float


def size(parameters: int) -> str:
    """The class of a model: the next of a million, a billion, a trillion parameters."""
    return next((name for name, most in _SIZES.items() if parameters <= most), "more")


def record(redis: Redis, queue: str, kind: Kind, size: str, outcome: str, waited: float, took: float) -> None:
    """Count a job that has ended: how long it had waited in its queue and how long it took, in seconds."""
    pipeline = redis.pipeline(transaction=False)
    for measure, seconds in (("waited", waited), ("took", took)):
        name = f"{measure}|{queue}|{kind}|{size}|{outcome}"
        bucket = next((n for n, most in enumerate(BUCKETS) if seconds <= most), len(BUCKETS))
        pipeline.hincrby(KEY, f"{name}|{bucket}", 1)
        pipeline.hincrbyfloat(KEY, f"{name}|sum", max(0.0, seconds))
    pipeline.execute()


def read(redis: Redis) -> Iterator[Tally]:
    """All that was counted."""
    found: dict[str, Tally] = {}
    fields: Any = redis.hgetall(KEY)
    for field, value in fields.items():
        name, _, bucket = field.decode().rpartition("|")
        measure, queue, kind, of, outcome = name.split("|")
        tally = found.setdefault(name, Tally(measure, queue, kind, of, outcome, [0] * (len(BUCKETS) + 1), 0.0))
        if bucket == "sum":
            found[name] = tally._replace(total=float(value))
        else:
            tally.counts[int(bucket)] = int(value)
    yield from found.values()
