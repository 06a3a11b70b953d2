"""RQ's jobs where several see to the same one."""

from __future__ import annotations

from rq import Queue
from rq.job import Job

import service.asking.jobs as jobs
from tests.conftest import Servers
from worker.store.connection import connect


def test_a_job_that_two_delete_is_deleted(idle_servers: Servers) -> None:
    redis = connect(idle_servers.queue_url)
    job = Queue("cutaway-small-normal", connection=redis, serializer="json").enqueue("time.time", job_id="two")
    same = Job.fetch("two", connection=redis, serializer="json")
    jobs.delete(job)
    jobs.delete(same)
    assert not Job.exists("two", connection=redis)
