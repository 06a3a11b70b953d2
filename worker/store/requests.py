"""Submitted requests, in the Redis server that never evicts.

A record outlives its job, so that a result that the cache evicted can be computed again. An index for each kind lists
requests in the order in which they were submitted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson
from redis import Redis

import worker.requests as requests
import worker.store.listing as listing
import worker.store.queues as queues
from worker.requests import Request, RequestKind

JOB = "worker.jobs.run"  # the function of a job for one request; the service does not import it
SHARED_JOB = "worker.jobs.run_together"  # the function of a job that several small requests share
_CHUNK = 1000  # requests in a round trip


@dataclass(frozen=True)
class Record:
    """A request, the time it was submitted at (RFC 3339), and the seconds that computing it may take."""

    request: Request
    created_at: str
    timeout: int
    cancelled: bool = False
    job: str | None = None  # the id of a shared job; None if the request has its own job, whose id is the request's
    batch: str | None = None  # the batch that submitted it, if no other client did
    queue: str = queues.name("small", "normal")  # the queue of its job
    number: int = 0  # the position in the index

    @property
    def kind(self) -> RequestKind:
        """The kind of the request."""
        return self.request.kind

    def to_json(self) -> str:
        """Return the record as JSON."""
        return orjson.dumps({"kind": self.kind} | vars(self) | {"request": self.request.to_json()}).decode()

    @classmethod
    def from_json(cls, content: bytes) -> Record:
        """Parse a record from JSON."""
        fields = json.loads(content)
        return cls(requests.from_json(fields.pop("kind"), fields.pop("request")), **fields)


def _key(id: str) -> str:
    return f"request:{id}"


def _index(kind: RequestKind) -> str:
    return f"requests:{kind}"


def put(queue: Redis, id: str, request: Request, created_at: str, timeout: int, ttl: int) -> None:
    """Store the record of a request for `ttl` seconds."""
    put_all(queue, {id: Record(request, created_at, timeout)}, ttl)


def put_all(queue: Redis, records: dict[str, Record], ttl: int) -> None:
    """Store many records, by the ids of the requests, for `ttl` seconds."""
    for ids in _chunks([*records]):
        pipeline = queue.pipeline()
        for id in ids:
            pipeline.set(_key(id), records[id].to_json(), ex=ttl)
        for kind in {records[id].kind for id in ids}:
            listing.append(pipeline, _index(kind), *(id for id in ids if records[id].kind == kind))
        pipeline.execute()


def get(queue: Redis, id: str) -> Record | None:
    """Return the record of a request, or None."""
    content: Any = queue.get(_key(id))
    return None if content is None else Record.from_json(content)


def get_all(queue: Redis, ids: Sequence[str]) -> list[Record | None]:
    """Return the record of each request, None for one that does not exist."""
    contents: list[Any] = []
    for chunk in _chunks(ids):
        contents += queue.mget([_key(id) for id in chunk])
    return [None if content is None else Record.from_json(content) for content in contents]


def cancel(queue: Redis, id: str) -> None:
    """Mark a request as cancelled; its job will not finish it."""
    change(queue, [id], cancelled=True)


def change(queue: Redis, ids: Sequence[str], /, **changes: Any) -> None:
    """Set fields of stored records, without extending their life."""
    for chunk in _chunks(ids):
        pipeline = queue.pipeline(transaction=False)
        for id, record in zip(chunk, get_all(queue, chunk), strict=True):
            if record is not None:
                pipeline.set(_key(id), replace(record, **changes).to_json(), keepttl=True)
        pipeline.execute()


def delete(queue: Redis, id: str, kind: RequestKind) -> None:
    """Delete the record of a request."""
    pipeline = queue.pipeline()
    pipeline.delete(_key(id))
    pipeline.zrem(_index(kind), id)
    pipeline.execute()


def newest(queue: Redis, kind: RequestKind, before: int | None, count: int) -> list[tuple[str, Record]]:
    """Return up to `count` records numbered below `before`, newest first, with the ids of their requests."""
    page = listing.newest(queue, _index(kind), partial(get_all, queue), before, count)
    return [(id, replace(record, number=number)) for number, id, record in page]


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
