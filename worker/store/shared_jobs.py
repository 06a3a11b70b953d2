"""The state of jobs that several small requests share.

A Redis hash for each job has the running request, how often each request was started, and the failures. Only the job's
process writes it; submissions and cancellations are in the records of the requests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

_TTL = 7 * 86400  # seconds for which the state is stored


@dataclass(frozen=True)
class Failure:
    """The reason why a request failed, and the time it was started at (RFC 3339)."""

    reason: str
    started_at: str


@dataclass(frozen=True)
class SharedJob:
    """The state of a shared job."""

    running: str | None  # the request that was started last
    started_at: str | None
    failures: dict[str, Failure]


def _key(job: str) -> str:
    return f"shared:{job}"


def begin(queue: Redis, job: str, id: str, at: str) -> int:
    """Record the start of a request; return how often it has been started, or 0 if it has already failed."""
    pipeline = queue.pipeline(transaction=False)
    pipeline.hexists(_key(job), f"failed:{id}")
    pipeline.hincrby(_key(job), f"times:{id}", 1)
    pipeline.hset(_key(job), mapping={"running": id, "started_at": at})
    pipeline.expire(_key(job), _TTL)
    failed, times, *_ = pipeline.execute()
    return 0 if failed else int(times)


def fail(queue: Redis, job: str, id: str, reason: str, at: str) -> None:
    """Record the failure of a request that was started at the time `at` (RFC 3339)."""
    queue.hset(_key(job), f"failed:{id}", json.dumps([reason, at]))


def get_all(queue: Redis, jobs: Sequence[str]) -> dict[str, SharedJob]:
    """Return the states of jobs by their ids; the state of an unknown job is empty."""
    pipeline = queue.pipeline(transaction=False)
    for job in jobs:
        pipeline.hgetall(_key(job))
    return {job: _parse(fields) for job, fields in zip(jobs, pipeline.execute(), strict=True)}


def _parse(raw: dict[bytes, bytes]) -> SharedJob:
    fields: dict[str, Any] = {name.decode(): value.decode() for name, value in raw.items()}
    failures = {
        name.removeprefix("failed:"): Failure(*json.loads(value))
        for name, value in fields.items()
        if name.startswith("failed:")
    }
    return SharedJob(fields.get("running"), fields.get("started_at"), failures)
