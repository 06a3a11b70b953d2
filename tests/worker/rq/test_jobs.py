"""Stopping jobs that disappear meanwhile."""

from __future__ import annotations

import pytest
from rq.job import Job, JobStatus

import worker.rq.jobs as rq_jobs
import worker.rq.removal as removal
from tests.conftest import Servers
from worker.rq.jobs import Jobs
from worker.rq.queue import open_queue
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.results import Results


@pytest.mark.parametrize("queued", [True, False])
def test_stopping_a_job_that_disappears_between_two_calls_is_not_an_error(
    idle_servers: Servers, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    redis = connect(idle_servers.queue_url)
    queue = open_queue("cutaway-small-normal", redis)
    job = queue.enqueue("time.time", job_id=f"gone-{queued}")
    if not queued:
        queue.remove(job)
        job.set_status(JobStatus.STARTED)
    removed = removal.remove_from_queue

    def remove_and_lose(job: Job) -> bool:
        was_queued = removed(job)
        redis.delete(job.key)  # its worker has ended it and its time is over, or another client deleted it
        return was_queued

    monkeypatch.setattr(removal, "remove_from_queue", remove_and_lose)
    jobs = Jobs(Settings(), redis, Results(connect(idle_servers.cache_url), None))
    jobs.stop(job.id)
    assert jobs.get(job.id) is None
    assert rq_jobs.statuses(redis, [job.id]) == {job.id: None}
