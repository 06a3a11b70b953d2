"""The jobs of requests: enqueue, prioritize, stop and delete them, and read their status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from redis import Redis
from rq import Retry
from rq.command import send_stop_job_command
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus

import worker.logs as logs
import worker.rq.removal as removal
import worker.store.events as events
import worker.store.queues as queues
import worker.store.requests as requests
from worker.rq.queue import SERIALIZER, PriorityQueue, fetch, open_queue
from worker.settings import Settings
from worker.store.results import Results

Status = Literal["queued", "started", "finished", "failed", "stopped"]

TRIES = 3  # how often a job is run whose process dies
_CHUNK = 1000  # commands a round trip


@dataclass(frozen=True)
class JobState:
    """A job as it was when it was read."""

    id: str
    queue: str
    status: Status
    started_at: datetime | None
    meta: Mapping[str, str]  # the context of the HTTP request that it was enqueued for, as in worker.logs


class Jobs:
    """The jobs in the queue's Redis."""

    def __init__(self, settings: Settings, redis: Redis, results: Results) -> None:
        self.settings, self.redis, self.results = settings, redis, results

    def get(self, id: str) -> JobState | None:
        """Return a job, or None if there is none."""
        job = self._fetch(id)
        if job is None:
            return None
        return JobState(job.id, job.origin, _status(job.get_status(refresh=False)), job.started_at, job.meta)

    def position(self, job: JobState) -> int:
        """Return how many jobs are taken before this one."""
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.lpos(self._queue(job.queue).key, job.id)
        for name in queues.ahead(job.queue):
            pipeline.llen(self._queue(name).key)
        place, *before = pipeline.execute()
        return 0 if place is None else place + sum(before)  # a job in no queue is being taken

    def reason(self, id: str) -> str:
        """Return why a job failed, as the worker recorded it."""
        job = self._fetch(id)
        result = job.latest_result() if job else None
        return (result and result.exc_string) or "It ended without a word."

    def enqueue(self, id: str, timeout: int, queue: str, meta: Mapping[str, str] | None = None) -> None:
        """Enqueue a job for a recorded request, with the id of the request.

        `meta` is the context of the HTTP request that asked for it first; that of the current one by default.
        """
        events.publish(self.redis, id, "queued")  # first, as the job may start at once
        for _ in range(2):
            try:
                self._enqueue(queue, requests.JOB, (id,), id, timeout, TRIES - 1, unique=True, meta=meta)
                return
            except DuplicateJobError:
                job = self._fetch(id)
                if job and job.get_status(refresh=False) in (JobStatus.QUEUED, JobStatus.STARTED):
                    return  # another client asked for the same at the same moment
                if job:
                    removal.delete(job)  # RQ refuses a second job with an id, even if the first has ended

    def enqueue_shared(self, id: str, ids: Sequence[str], timeout: int, queue: str) -> None:
        """Enqueue a job that several recorded requests share."""
        retries = TRIES * len(ids)  # the process may die TRIES times for each
        self._enqueue(queue, requests.SHARED_JOB, (id, ids), id, timeout, retries)

    def prioritize(self, id: str) -> bool:
        """Give the job of a request with a low priority the normal one. False if it had that or has left its queue."""
        record = requests.get(self.redis, id)
        if record is None or queues.priority(record.queue) == "normal":
            return False
        queue = queues.with_priority(record.queue, "normal")
        requests.change(self.redis, [id], job=None, queue=queue)  # from now on a job that it shares passes it over
        if record.job is not None:
            shared = self.get(record.job)
            self.enqueue(id, record.timeout, queue, shared.meta if shared else None)
            return True
        return removal.move(id, self._queue(record.queue), self._queue(queue))

    def stop(self, id: str) -> None:
        """Stop the job of one request, and remove what it wrote."""
        job = self._fetch(id)
        if job is None:
            return
        if removal.remove_from_queue(job):
            self.results.drop_unfinished(id)  # of an earlier try, by a worker that died
            job.delete()
            return
        with suppress(InvalidJobOperation):  # it has ended meanwhile
            send_stop_job_command(self.redis, id, serializer=SERIALIZER)
        if not removal.wait_until_ended(job):  # a new job for the request must not be taken for this one
            self.results.drop_unfinished(id)  # its worker died, and the job with it

    def delete(self, id: str) -> None:
        """Delete the job of one request, if there is one."""
        job = self._fetch(id)
        if job is not None:
            removal.delete(job)

    def _fetch(self, id: str) -> Job | None:
        with suppress(NoSuchJobError):
            return fetch(id, self.redis)
        return None

    def _queue(self, name: str) -> PriorityQueue:
        return open_queue(name, self.redis)

    def _enqueue(
        self,
        queue: str,
        function: str,
        arguments: Iterable[Any],
        id: str,
        timeout: int,
        retries: int,
        unique: bool = False,
        meta: Mapping[str, str] | None = None,
    ) -> None:
        self._queue(queue).enqueue(
            function,
            *arguments,
            job_id=id,
            unique=unique,
            job_timeout=timeout,
            result_ttl=self.settings.failure_ttl,
            failure_ttl=self.settings.failure_ttl,
            retry=Retry(max=retries, enqueue_at_front=True),
            meta=dict(meta or logs.for_job()),
        )


def statuses(redis: Redis, ids: Sequence[str]) -> dict[str, Status | None]:
    """Return the status of many jobs by their ids; None for one that does not exist."""
    found: dict[str, Status | None] = {}
    for start in range(0, len(ids), _CHUNK):
        chunk, pipeline = ids[start : start + _CHUNK], redis.pipeline(transaction=False)
        for id in chunk:
            pipeline.hget(Job.key_for(id), "status")
        for id, status in zip(chunk, pipeline.execute(), strict=True):
            found[id] = _status(JobStatus(status.decode())) if status else None
    return found


def _status(status: JobStatus) -> Status:
    """Return one of the five; RQ's others are passed through on the way into a queue, or used by nothing here."""
    return status.value if status.value in get_args(Status) else "queued"  # type: ignore[return-value]
