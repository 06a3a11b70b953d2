"""What was asked for, kept in the queue's Redis (which never evicts): a result that the cache lost is made again.

A record outlives the job that computes it. The index keeps the order in which requests came.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis

from worker.store.keys import Kind

QUEUE = "cutaway"  # RQ's name of the one queue
JOB = "worker.jobs.run"  # what its jobs call: the service names it and never imports it


@dataclass(frozen=True)
class Record:
    """A request by id: its kind and canonical form, when it was asked for (RFC 3339), how many seconds it may take."""

    kind: Kind
    request: dict[str, Any]
    created_at: str
    timeout: int
    number: int  # counts the requests of a kind as they come; a listing's cursor
    cancelled: bool = False  # a job that has not finished it will not


def _key(id: str) -> str:
    return f"request:{id}"


def _index(kind: Kind) -> str:
    return f"requests:{kind}"


def put(
    queue: Redis, id: str, kind: Kind, request: dict[str, Any], created_at: str, timeout: int, ttl: int
) -> None:
    """Record that `id` was asked for (again), for `ttl` seconds."""
    record = Record(kind, request, created_at, timeout, number=int(queue.incr(f"{_index(kind)}:last")))
    pipeline = queue.pipeline()
    pipeline.set(_key(id), json.dumps(asdict(record)), ex=ttl)
    pipeline.zadd(_index(kind), {id: record.number})
    pipeline.execute()


def get(queue: Redis, id: str) -> Record | None:
    """The record of a request, or None."""
    return _parse(queue.get(_key(id)))


def cancel(queue: Redis, id: str) -> None:
    """Mark a request cancelled: a job that has not finished it will not."""
    record = get(queue, id)
    if record is not None:
        queue.set(_key(id), json.dumps(asdict(record) | {"cancelled": True}), keepttl=True)


def forget(queue: Redis, id: str, kind: Kind) -> None:
    """Remove a request."""
    pipeline = queue.pipeline()
    pipeline.delete(_key(id))
    pipeline.zrem(_index(kind), id)
    pipeline.execute()


def newest(queue: Redis, kind: Kind, before: int | None, count: int) -> list[tuple[str, Record]]:
    """Up to `count` requests, newest first, of those that came before number `before`; expired ones are dropped."""
    highest = "+inf" if before is None else f"({before}"
    ids = queue.zrange(_index(kind), highest, "-inf", desc=True, byscore=True, offset=0, num=count)
    records = [_parse(content) for content in queue.mget([_key(id.decode()) for id in ids])] if ids else []
    expired = [id for id, record in zip(ids, records, strict=True) if record is None]
    if expired:
        queue.zrem(_index(kind), *expired)
        return newest(queue, kind, before, count)
    return [(id.decode(), record) for id, record in zip(ids, records, strict=True) if record is not None]


def _parse(content: Any) -> Record | None:
    return None if content is None else Record(**json.loads(content))
