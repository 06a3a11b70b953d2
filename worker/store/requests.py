"""Requests in the queue's Redis, which never evicts: a result that the cache lost can be computed again.

A record outlives the job that computes it. An index has the order in which requests came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from redis import Redis

import worker.requests as requests
import worker.store.listing as listing
import worker.store.queues as queues
from worker.requests import Request, RequestKind

JOB = "worker.jobs.run"  # the function that its job calls: the service names it and never imports it
SHARED_JOB = "worker.jobs.run_together"  # the same for a job that small requests share
_CHUNK = 1000  # requests a round trip


@dataclass(frozen=True)
class Record:
    """A request, when it was submitted (RFC 3339), and how many seconds computing it may take."""

    request: Request
    created_at: str
    timeout: int
    cancelled: bool = False  # a job that has not finished it will not
    job: str | None = None  # the job that it shares with others; a job of its own has the request's id
    batch: str | None = None  # the batch that alone submitted it
    queue: str = queues.name("small", "normal")  # of its job
    number: int = 0  # its position in the index

    @property
    def kind(self) -> RequestKind:
        """The request's."""
        return self.request.kind

    def to_json(self) -> str:
        """The record as it is stored."""
        return json.dumps({"kind": self.kind} | vars(self) | {"request": self.request.to_json()})

    @classmethod
    def from_json(cls, content: bytes) -> Record:
        """The record of what was stored."""
        fields = json.loads(content)
        return cls(requests.from_json(fields.pop("kind"), fields.pop("request")), **fields)


def _key(id: str) -> str:
    return f"request:{id}"


def _index(kind: RequestKind) -> str:
    return f"requests:{kind}"


def put(queue: Redis, id: str, request: Request, created_at: str, timeout: int, ttl: int) -> None:
    """Record a request under its id for `ttl` seconds."""
    put_all(queue, {id: Record(request, created_at, timeout)}, ttl)


def put_all(queue: Redis, records: dict[str, Record], ttl: int) -> None:
    """Record many requests by their ids."""
    for ids in _chunks([*records]):
        pipeline = queue.pipeline()
        for id in ids:
            pipeline.set(_key(id), records[id].to_json(), ex=ttl)
        for kind in {records[id].kind for id in ids}:
            listing.append(pipeline, _index(kind), *(id for id in ids if records[id].kind == kind))
        pipeline.execute()


def get(queue: Redis, id: str) -> Record | None:
    """The record of a request, or None."""
    content: Any = queue.get(_key(id))
    return None if content is None else Record.from_json(content)


def get_all(queue: Redis, ids: Sequence[str]) -> list[Record | None]:
    """Return the record of each request, or None."""
    contents: list[Any] = []
    for chunk in _chunks(ids):
        contents += queue.mget([_key(id) for id in chunk])
    return [None if content is None else Record.from_json(content) for content in contents]


def cancel(queue: Redis, id: str) -> None:
    """Mark a request as cancelled: a job that has not finished it will not."""
    change(queue, [id], cancelled=True)


def change(queue: Redis, ids: Sequence[str], /, **changes: Any) -> None:
    """Change fields of stored records."""
    for chunk in _chunks(ids):
        pipeline = queue.pipeline(transaction=False)
        for id, record in zip(chunk, get_all(queue, chunk), strict=True):
            if record is not None:
                pipeline.set(_key(id), replace(record, **changes).to_json(), keepttl=True)
        pipeline.execute()


def forget(queue: Redis, id: str, kind: RequestKind) -> None:
    """Remove a request."""
    pipeline = queue.pipeline()
    pipeline.delete(_key(id))
    pipeline.zrem(_index(kind), id)
    pipeline.execute()


def newest(queue: Redis, kind: RequestKind, before: int | None, count: int) -> list[tuple[str, Record]]:
    """Return up to `count` requests, newest first, of those before the number `before`; expired ones are removed."""
    found = listing.newest(queue, _index(kind), partial(get_all, queue), before, count)
    return [(id, replace(record, number=number)) for number, id, record in found]


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
