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
from worker.requests import Kind, Request

JOB = "worker.jobs.run"  # what its jobs call: the service names it and never imports it
SHARED_JOB = "worker.jobs.run_together"  # the same for small requests that share a job
_AT_ONCE = 1000  # requests a round trip, where there are many


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
    number: int = 0  # its place in a listing: requests are counted as they come

    @property
    def kind(self) -> Kind:
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


def _index(kind: Kind) -> str:
    return f"requests:{kind}"


def put(queue: Redis, id: str, request: Request, created_at: str, timeout: int, ttl: int) -> None:
    """Record a request under its id for `ttl` seconds."""
    put_all(queue, {id: Record(request, created_at, timeout)}, ttl)


def put_all(queue: Redis, records: dict[str, Record], ttl: int) -> None:
    """Record many requests by their ids."""
    for ids in _portions([*records]):
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
    """The records of many requests, or None."""
    contents: list[Any] = []
    for portion in _portions(ids):
        contents += queue.mget([_key(id) for id in portion])
    return [None if content is None else Record.from_json(content) for content in contents]


def cancel(queue: Redis, id: str) -> None:
    """Mark a request as cancelled: a job that has not finished it will not."""
    change(queue, [id], cancelled=True)


def change(queue: Redis, ids: Sequence[str], /, **changes: Any) -> None:
    """Change fields of stored records."""
    for portion in _portions(ids):
        pipeline = queue.pipeline(transaction=False)
        for id, record in zip(portion, get_all(queue, portion), strict=True):
            if record is not None:
                pipeline.set(_key(id), replace(record, **changes).to_json(), keepttl=True)
        pipeline.execute()


def forget(queue: Redis, id: str, kind: Kind) -> None:
    """Remove a request."""
    pipeline = queue.pipeline()
    pipeline.delete(_key(id))
    pipeline.zrem(_index(kind), id)
    pipeline.execute()


def newest(queue: Redis, kind: Kind, before: int | None, count: int) -> list[tuple[str, Record]]:
    """Up to `count` requests, newest first, of those that came before number `before`; expired ones are dropped."""
    found = listing.newest(queue, _index(kind), partial(get_all, queue), before, count)
    return [(id, replace(record, number=number)) for number, id, record in found]


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
