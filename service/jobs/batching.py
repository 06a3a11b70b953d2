"""Batches of traces, in which small traces share jobs.

Starting a job takes longer than computing a small trace.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import worker.rq.jobs as jobs
import worker.store.events as events
import worker.store.listing as listing
import worker.store.queues as queues
import worker.store.requests as requests
from service.jobs.broker import Broker, Status, now
from service.jobs.status import UNFINISHED, read_statuses
from worker.requests import TraceRequest
from worker.store.keys import request_id
from worker.store.queues import Priority
from worker.store.requests import Record

SHARED_SECONDS = queues.SMALL_SECONDS  # the most estimated work that shares a job
SHARED_MOST = 100  # the most requests that share a job
_SAFETY = 8  # a job may take so many times its estimate, as in service.jobs.limits
_CHUNK = 1000  # commands a round trip
_INDEX = "batches"


@dataclass(frozen=True)
class BatchItem:
    """A canonical request of a batch, with its timeout and its estimated time in seconds."""

    request: TraceRequest
    timeout: int
    seconds: float
    priority: Priority


@dataclass(frozen=True)
class Batch:
    """The ids of a batch's traces in the order of its requests; equal requests have equal ids."""

    id: str
    created_at: str
    traces: list[str]


class Summary(NamedTuple):
    """A batch in a listing, without counts by status, which would take reading all of its traces."""

    id: str
    created_at: str
    total: int


def submit(broker: Broker, items: Sequence[BatchItem], client: str = "") -> tuple[Batch, dict[str, Status]]:
    """Enqueue the traces that are neither done nor in progress; return the batch and the status of each trace.

    Small neighbours share a job. Raises Full if there are too many for now; none is enqueued then.
    """
    ids = [request_id(item.request) for item in items]
    batch = Batch(uuid.uuid4().hex, now(), ids)
    unique = dict(zip(ids, items, strict=True))
    known = read_statuses(broker.queue, broker.results, list(unique))
    new = {id: item for id, item in unique.items() if known[id] not in ("done", *UNFINISHED)}
    grouped = {group: uuid.uuid4().hex if len(group) > 1 else None for group in _groups(new)}
    broker.admission.admit(client, list(new), len(grouped))
    in_progress = [id for id in unique if known[id] in UNFINISHED]
    requests.change(broker.queue, in_progress, batch=None)
    for id in in_progress:
        if unique[id].priority == "normal":
            broker.jobs.prioritize(id)
    records = {
        id: Record(new[id].request, batch.created_at, new[id].timeout, False, job, batch.id, _queue(new[id]))
        for group, job in grouped.items()
        for id in group
    }
    requests.put_all(broker.queue, records, broker.settings.result_ttl)
    _put(broker, batch)
    for group, job in grouped.items():
        if job is None:
            broker.jobs.enqueue(group[0], new[group[0]].timeout, _queue(new[group[0]]))
        else:
            _enqueue(broker, job, [*group], new)
    return batch, {id: "queued" if id in new else cast(Status, known[id]) for id in unique}


def get(broker: Broker, id: str) -> Batch | None:
    """Return a batch by its id, or None."""
    stored: Any = broker.queue.hmget(_key(id), "created_at", "traces")
    at, traces = stored
    return None if traces is None else Batch(id, at.decode(), json.loads(traces))


def page(broker: Broker, before: int | None, limit: int) -> tuple[list[Summary], int | None]:
    """Return up to `limit` batches, newest first, and the cursor of the next page if there may be one."""

    def read(ids: Sequence[str]) -> list[Summary | None]:
        pipeline = broker.queue.pipeline(transaction=False)
        for id in ids:
            pipeline.hmget(_key(id), "created_at", "total")
        stored = zip(ids, pipeline.execute(), strict=True)
        return [Summary(id, at.decode(), int(total)) if at else None for id, (at, total) in stored]

    found = listing.newest(broker.queue, _INDEX, read, before, limit)
    return [summary for _, _, summary in found], found[-1][0] if len(found) == limit else None


def statuses(broker: Broker, ids: Sequence[str]) -> dict[str, Status]:
    """Return the status of each trace. A deleted one counts as cancelled."""
    found: dict[str, Status] = {}
    for id, status in read_statuses(broker.queue, broker.results, list(dict.fromkeys(ids))).items():
        if status == "lost":  # by the cache; reading it computes it again
            found[id] = "done"
        elif status == "stranded":
            state = broker.find(TraceRequest, id)
            found[id] = state.status if state else "cancelled"
        else:
            found[id] = status or "cancelled"  # type: ignore[assignment]
    return found


def counts(statuses: Sequence[Status]) -> dict[str, int]:
    """Return the number of traces in all and with each status."""
    counted = Counter[str](statuses)
    return {"total": len(statuses)} | {status: counted[status] for status in (*UNFINISHED, *events.ENDS)}


def cancel(broker: Broker, batch: Batch) -> bool:
    """Cancel the unfinished traces that only this batch requested; return False if all traces had ended."""
    unfinished = [id for id, status in statuses(broker, batch.traces).items() if status in UNFINISHED]
    records = dict(zip(unfinished, requests.get_all(broker.queue, unfinished), strict=True))
    own = {id: record for id, record in records.items() if record is not None and record.batch == batch.id}
    requests.change(broker.queue, list(own), cancelled=True)  # none of them starts from now on
    for id, status in jobs.statuses(broker.queue, [id for id, record in own.items() if record.job is None]).items():
        if status == "started":
            broker.jobs.stop(id)
    _publish(broker, list(own), "cancelled")
    return bool(unfinished)


def delete(broker: Broker, batch: Batch) -> None:
    """Delete a batch, but not its traces."""
    pipeline = broker.queue.pipeline()
    pipeline.delete(_key(batch.id))
    pipeline.zrem(_INDEX, batch.id)
    pipeline.execute()


def _key(batch: str) -> str:
    return f"batch:{batch}"


def _put(broker: Broker, batch: Batch) -> None:
    fields: Any = {"created_at": batch.created_at, "total": len(batch.traces), "traces": json.dumps(batch.traces)}
    pipeline = broker.queue.pipeline()
    pipeline.hset(_key(batch.id), mapping=fields)
    pipeline.expire(_key(batch.id), broker.settings.result_ttl)
    listing.append(pipeline, _INDEX, batch.id)
    pipeline.execute()


def _groups(new: dict[str, BatchItem]) -> Iterator[tuple[str, ...]]:
    """Yield groups of neighbours with the same priority that are small enough to share a job."""
    group: list[str] = []
    seconds = 0.0
    for id, item in new.items():
        full = seconds + item.seconds > SHARED_SECONDS or len(group) == SHARED_MOST
        if group and (full or item.priority != new[group[0]].priority):
            yield tuple(group)
            group, seconds = [], 0.0
        group.append(id)
        seconds += item.seconds
    if group:
        yield tuple(group)


def _enqueue(broker: Broker, job: str, ids: list[str], new: dict[str, BatchItem]) -> None:
    """Enqueue a shared job. Each request has a timeout of its own; the job's stops one that hangs all the same."""
    seconds = max(new[id].timeout for id in ids) + int(_SAFETY * sum(new[id].seconds for id in ids))
    _publish(broker, ids, "queued")
    broker.jobs.enqueue_shared(job, ids, seconds, _queue(new[ids[0]]))


def _queue(item: BatchItem) -> str:
    return queues.choose(item.seconds, item.priority)


def _publish(broker: Broker, ids: list[str], event: str) -> None:
    for start in range(0, len(ids), _CHUNK):
        events.publish_all(broker.queue, ids[start : start + _CHUNK], event)
