"""Handling of failed jobs: clean up, count, publish events."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime

from redis.exceptions import RedisError

import worker.jobs as jobs
import worker.rq.failures as failures
import worker.store.events as events
import worker.store.requests as requests
import worker.store.shared_jobs as shared_jobs
from worker.rq.worker import End, EndedJob
from worker.settings import Settings
from worker.store.requests import JOB
from worker.store.results import results

log = logging.getLogger("worker")


class FailedJob:
    """The failure handler of a job, and the request that the job was computing."""

    def __init__(self, settings: Settings, job: EndedJob) -> None:
        self.job, self.queue, self.results = job, job.redis, results(settings)
        self.request, self.started_at = job.id, job.started_at
        if self._is_shared:
            shared = shared_jobs.get_all(self.queue, [job.id])[job.id]
            self.request = shared.running or job.arguments[1][0]
            self.started_at = datetime.fromisoformat(shared.started_at) if shared.started_at else job.started_at

    @property
    def _is_shared(self) -> bool:
        return self.job.function != JOB

    def clean_up(self) -> None:
        """Delete the unfinished result of a dead process."""
        with suppress(RedisError):  # the pieces expire
            self.results.drop_unfinished(self.request)

    def count(self, end: End) -> None:
        """Count the request that was being computed when the process died."""
        record = requests.get(self.queue, self.request)
        if record is not None and self.started_at is not None:
            jobs.count(self.queue, record, end, self.started_at.timestamp())

    def report(self, end: End, reason: str) -> None:
        """Publish and log the end of each request that ends with the job."""
        match end:
            case "cancelled":
                self._publish(self._unfinished(), "cancelled", "The request was cancelled.")
            case "retried":
                message = reason if reason == failures.SHORTENED else "The process was killed"
                self._publish([self.request], "queued", f"{message.removesuffix('.')}; the job is being retried.")
            case "failed":
                self._publish(self._unfinished(), "failed", reason)

    def _unfinished(self) -> list[str]:
        """Return the ids of the requests that end with the job: in a shared job, those that have not ended before."""
        if not self._is_shared:
            return [self.job.id]
        ids: list[str] = self.job.arguments[1]
        failed = shared_jobs.get_all(self.queue, [self.job.id])[self.job.id].failures
        ended = {*self.results.which_done(ids), *failed}
        records = zip(ids, requests.get_all(self.queue, ids), strict=True)
        return [
            id
            for id, record in records
            if record and record.job == self.job.id and not record.cancelled and id not in ended
        ]

    def _publish(self, ids: list[str], event: str, reason: str) -> None:
        for id in ids:
            log.warning("%s %s: %s", id[:12], event, reason, extra={"fields": {"id": id}})
        events.publish_all(self.queue, ids, event, reason=reason)
