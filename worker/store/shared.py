"""Jobs that several small requests share: which of them runs, how often each was begun, and why any failed.

A Redis hash a job, which the job's process alone writes to: what somebody asks for or cancels is in the requests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

_TTL = 7 * 86400  # seconds that a failure is remembered


@dataclass(frozen=True)
class Failure:
    """Why a request failed, and when it was begun (RFC 3339)."""

    reason: str
    started_at: str


@dataclass(frozen=True)
class Notes:
    """What a shared job has noted."""

    running: str | None  # the request that was begun last
    started_at: str | None
    failures: dict[str, Failure]


def _key(job: str) -> str:
    return f"shared:{job}"


def begin(queue: Redis, job: str, id: str, at: str) -> int:
    """Note that request `id` is begun; how often it was by now, or 0 where it has failed before."""
    pipeline = queue.pipeline(transaction=False)
    pipeline.hexists(_key(job), f"failed:{id}")
    pipeline.hincrby(_key(job), f"times:{id}", 1)
    pipeline.hset(_key(job), mapping={"running": id, "started_at": at})
    pipeline.expire(_key(job), _TTL)
    failed, times, *_ = pipeline.execute()
    return 0 if failed else int(times)


def fail(queue: Redis, job: str, id: str, reason: str, at: str) -> None:
    """Note that request `id`, begun at `at`, has failed."""
    queue.hset(_key(job), f"failed:{id}", json.dumps([reason, at]))


def notes(queue: Redis, jobs: Sequence[str]) -> dict[str, Notes]:
    """What these jobs have noted, by their ids."""
    pipeline = queue.pipeline(transaction=False)
    for job in jobs:
        pipeline.hgetall(_key(job))
    return {job: _parse(found) for job, found in zip(jobs, pipeline.execute(), strict=True)}


def _parse(found: dict[bytes, bytes]) -> Notes:
    told: dict[str, Any] = {name.decode(): value.decode() for name, value in found.items()}
    failures = {
        name.removeprefix("failed:"): Failure(*json.loads(value))
        for name, value in told.items()
        if name.startswith("failed:")
    }
    return Notes(told.get("running"), told.get("started_at"), failures)
