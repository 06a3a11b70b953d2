"""Jobs: enqueue, prioritize, stop, delete, and read their status."""

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

TRIES = 3  # attempts at a job whose process dies
_CHUNK = 1000  # commands in a round trip
_GONE = (InvalidJobOperation, NoSuchJobError)  # what RQ raises for a job that has ended or was deleted meanwhile


@dataclass(frozen=True)
class JobState:
    """A snapshot of a job."""

    id: str
    queue: str
    status: Status
    started_at: datetime | None
    meta: Mapping[str, str]  # the log context of the HTTP request that enqueued it, see worker.logs


class Jobs:
    """The jobs in the Redis server of the queues."""

    def __init__(self, settings: Settings, redis: Redis, results: Results) -> None:
        self.settings, self.redis, self.results = settings, redis, results

    def get(self, id: str) -> JobState | None:
        """Return the state of a job, or None if it does not exist."""
        job = self._fetch(id)
        if job is None:
            return None
        return JobState(job.id, job.origin, _status(job.get_status(refresh=False)), job.started_at, job.meta)

    def position(self, job: JobState) -> int:
        """Return how many jobs are ahead of this one."""
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.lpos(self._queue(job.queue).key, job.id)
        for name in queues.ahead(job.queue):
            pipeline.llen(self._queue(name).key)
        place, *before = pipeline.execute()
        return 0 if place is None else place + sum(before)  # a worker is taking a job that is in no queue

    def reason(self, id: str) -> str:
        """Return the recorded reason why a job failed."""
        job = self._fetch(id)
        result = job.latest_result() if job else None
        return (result and result.exc_string) or "The job ended without a recorded reason."

    def enqueue(self, id: str, timeout: int, queue: str, meta: Mapping[str, str] | None = None) -> None:
        """Enqueue a job for a stored request. The job has the id of the request.

        `meta` is the log context that the job continues, by default that of the current HTTP request.
        """
        events.publish(self.redis, id, "queued")  # before enqueueing, as the job may start at once
        for _ in range(2):
            try:
                self._enqueue(queue, requests.JOB, (id,), id, timeout, TRIES - 1, unique=True, meta=meta)
                return
            except DuplicateJobError:
                job = self._fetch(id)
                if job and job.get_status(refresh=False) in (JobStatus.QUEUED, JobStatus.STARTED):
                    return  # another client enqueued it at the same time
                if job:
                    removal.delete(job)  # RQ refuses a second job with the same id, even if the first has ended

    def enqueue_shared(self, id: str, ids: Sequence[str], timeout: int, queue: str) -> None:
        """Enqueue a job that several stored requests share."""
        retries = TRIES * len(ids)  # the process may die TRIES times for each request
        self._enqueue(queue, requests.SHARED_JOB, (id, ids), id, timeout, retries)

    def prioritize(self, id: str) -> bool:
        """Raise the priority of a request's job from low to normal.

        Return False if the priority is normal already or the job has left its queue.
        """
        record = requests.get(self.redis, id)
        if record is None or queues.priority(record.queue) == "normal":
            return False
        queue = queues.with_priority(record.queue, "normal")
        requests.change(self.redis, [id], job=None, queue=queue)  # so that its shared job skips it
        if record.job is not None:
            shared = self.get(record.job)
            self.enqueue(id, record.timeout, queue, shared.meta if shared else None)
            return True
        return removal.move(id, self._queue(record.queue), self._queue(queue))

    def stop(self, id: str) -> None:
        """Stop the job of one request and delete its unfinished result."""
        job = self._fetch(id)
        if job is None:
            return
        if removal.remove_from_queue(job):
            self.results.drop_unfinished(id)  # of an earlier attempt, whose worker died
            with suppress(*_GONE):
                job.delete()
            return
        with suppress(*_GONE):
            send_stop_job_command(self.redis, id, serializer=SERIALIZER)
        if not removal.wait_until_ended(job):  # otherwise a new job with the same id would be confused with this one
            self.results.drop_unfinished(id)  # the worker and its process died

    def delete(self, id: str) -> None:
        """Delete the job of one request, if it exists."""
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
    """Return the status of each job by its id; None for a job that does not exist."""
    by_id: dict[str, Status | None] = {}
    for start in range(0, len(ids), _CHUNK):
        chunk, pipeline = ids[start : start + _CHUNK], redis.pipeline(transaction=False)
        for id in chunk:
            pipeline.hget(Job.key_for(id), "status")
        for id, status in zip(chunk, pipeline.execute(), strict=True):
            by_id[id] = _status(JobStatus(status.decode())) if status else None
    return by_id


def _status(status: JobStatus) -> Status:
    """Map RQ's status to one of the five: the others are transitional or not used here, and count as queued."""
    return status.value if status.value in get_args(Status) else "queued"  # type: ignore[return-value]
