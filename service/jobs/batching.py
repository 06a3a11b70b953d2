"""Asking for many traces at once: small ones share jobs, because a job takes longer to begin than they take."""

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
from service.jobs.status import UNFINISHED, standing
from worker.requests import TraceRequest
from worker.store.keys import request_id
from worker.store.queues import Priority
from worker.store.requests import Record

SHARED_SECONDS = queues.SMALL_SECONDS  # of estimated work that share a job
SHARED_MOST = 100
_TIMES = 8  # as in service.jobs.limits: on a slow machine that does other things, too
_AT_ONCE = 1000  # commands a round trip
_INDEX = "batches"


@dataclass(frozen=True)
class Wanted:
    """A canonical request: how long it may take, how long it probably does, and whether it waits for others."""

    request: TraceRequest
    timeout: int
    seconds: float
    priority: Priority


@dataclass(frozen=True)
class Batch:
    """What was asked for at once: the ids of the traces in its order, of which some may be the same."""

    id: str
    created_at: str
    traces: list[str]


class Summary(NamedTuple):
    """What a listing tells of a batch: how its traces stand takes reading them all."""

    id: str
    created_at: str
    total: int


def ask(broker: Broker, wanted: Sequence[Wanted], caller: str = "") -> tuple[Batch, dict[str, Status]]:
    """Have traces computed that are neither done nor under way; small neighbours share a job. How each stands then.

    Raises Full, where they are too many for now; none is queued then.
    """
    ids = [request_id(one.request) for one in wanted]
    batch = Batch(uuid.uuid4().hex, now(), ids)
    unique = dict(zip(ids, wanted, strict=True))
    known = standing(broker.queue, broker.results, list(unique))
    new = {id: one for id, one in unique.items() if known[id] not in ("done", *UNFINISHED)}
    jobs = {group: uuid.uuid4().hex if len(group) > 1 else None for group in _groups(new)}
    broker.admission.admit(caller, list(new), len(jobs))
    under_way = [id for id in unique if known[id] in UNFINISHED]
    requests.change(broker.queue, under_way, batch=None)
    for id in under_way:
        if unique[id].priority == "normal":
            broker.jobs.prioritize(id)
    records = {
        id: Record(new[id].request, batch.created_at, new[id].timeout, False, job, batch.id, _queue(new[id]))
        for group, job in jobs.items()
        for id in group
    }
    requests.put_all(broker.queue, records, broker.settings.result_ttl)
    _put(broker, batch)
    for group, job in jobs.items():
        if job is None:
            broker.jobs.enqueue(group[0], new[group[0]].timeout, _queue(new[group[0]]))
        else:
            _enqueue(broker, job, [*group], new)
    return batch, {id: "queued" if id in new else cast(Status, known[id]) for id in unique}


def get(broker: Broker, id: str) -> Batch | None:
    """A batch by its id."""
    told: Any = broker.queue.hmget(_key(id), "created_at", "traces")
    at, traces = told
    return None if traces is None else Batch(id, at.decode(), json.loads(traces))


def page(broker: Broker, before: int | None, limit: int) -> tuple[list[Summary], int | None]:
    """Up to `limit` batches, newest first, and the cursor of the next page if there may be one."""

    def read(ids: Sequence[str]) -> list[Summary | None]:
        pipeline = broker.queue.pipeline(transaction=False)
        for id in ids:
            pipeline.hmget(_key(id), "created_at", "total")
        told = zip(ids, pipeline.execute(), strict=True)
        return [Summary(id, at.decode(), int(total)) if at else None for id, (at, total) in told]

    found = listing.newest(broker.queue, _INDEX, read, before, limit)
    return [summary for _, _, summary in found], found[-1][0] if len(found) == limit else None


def statuses(broker: Broker, ids: Sequence[str]) -> dict[str, Status]:
    """How each of these traces stands. One that somebody had forgotten counts as cancelled."""
    found: dict[str, Status] = {}
    for id, told in standing(broker.queue, broker.results, list(dict.fromkeys(ids))).items():
        if told == "lost":  # by the cache; whoever reads it has it computed again
            found[id] = "done"
        elif told == "stranded":
            state = broker.find(TraceRequest, id)
            found[id] = state.status if state else "cancelled"
        else:
            found[id] = told or "cancelled"  # type: ignore[assignment]
    return found


def counts(statuses: Sequence[Status]) -> dict[str, int]:
    """How many there are in all and of each status."""
    counted = Counter[str](statuses)
    return {"total": len(statuses)} | {status: counted[status] for status in (*UNFINISHED, *events.ENDS)}


def cancel(broker: Broker, batch: Batch) -> bool:
    """Cancel what is left of what nobody else asked for. False where nothing was left."""
    unfinished = [id for id, status in statuses(broker, batch.traces).items() if status in UNFINISHED]
    records = dict(zip(unfinished, requests.get_all(broker.queue, unfinished), strict=True))
    own = {id: record for id, record in records.items() if record is not None and record.batch == batch.id}
    requests.change(broker.queue, list(own), cancelled=True)  # from now on none of them begins
    for id, status in jobs.statuses(broker.queue, [id for id, record in own.items() if record.job is None]).items():
        if status == "started":
            broker.jobs.stop(id)
    _publish(broker, list(own), "cancelled")
    return bool(unfinished)


def forget(broker: Broker, batch: Batch) -> None:
    """Remove a batch; its traces stay."""
    pipeline = broker.queue.pipeline()
    pipeline.delete(_key(batch.id))
    pipeline.zrem(_INDEX, batch.id)
    pipeline.execute()


def _key(batch: str) -> str:
    return f"batch:{batch}"


def _put(broker: Broker, batch: Batch) -> None:
    told: Any = {"created_at": batch.created_at, "total": len(batch.traces), "traces": json.dumps(batch.traces)}
    pipeline = broker.queue.pipeline()
    pipeline.hset(_key(batch.id), mapping=told)
    pipeline.expire(_key(batch.id), broker.settings.result_ttl)
    listing.append(pipeline, _INDEX, batch.id)
    pipeline.execute()


def _groups(new: dict[str, Wanted]) -> Iterator[tuple[str, ...]]:
    """Neighbours of the same priority whose work together is little."""
    group: list[str] = []
    seconds = 0.0
    for id, one in new.items():
        full = seconds + one.seconds > SHARED_SECONDS or len(group) == SHARED_MOST
        if group and (full or one.priority != new[group[0]].priority):
            yield tuple(group)
            group, seconds = [], 0.0
        group.append(id)
        seconds += one.seconds
    if group:
        yield tuple(group)


def _enqueue(broker: Broker, job: str, ids: list[str], new: dict[str, Wanted]) -> None:
    """A job that they share. Each has its own time in it; the job's own ends one that hangs."""
    seconds = max(new[id].timeout for id in ids) + int(_TIMES * sum(new[id].seconds for id in ids))
    _publish(broker, ids, "queued")
    broker.jobs.enqueue_shared(job, ids, seconds, _queue(new[ids[0]]))


def _queue(one: Wanted) -> str:
    return queues.choose(one.seconds, one.priority)


def _publish(broker: Broker, ids: list[str], event: str) -> None:
    for start in range(0, len(ids), _AT_ONCE):
        events.publish_all(broker.queue, ids[start : start + _AT_ONCE], event)
