"""RQ's jobs where several see to the same one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from rq import Queue, SimpleWorker
from rq.job import Job

import service.jobs.rq_jobs as rq_jobs
from tests.conftest import Servers
from worker.store.connection import connect


def test_a_job_that_two_delete_is_deleted(idle_servers: Servers) -> None:
    redis = connect(idle_servers.queue_url)
    job = Queue("cutaway-small-normal", connection=redis, serializer="json").enqueue("time.time", job_id="two")
    same = Job.fetch("two", connection=redis, serializer="json")
    rq_jobs.delete(job)
    rq_jobs.delete(same)
    assert not Job.exists("two", connection=redis)


def test_a_job_that_a_worker_has_just_taken_is_deleted_once_it_has_ended(idle_servers: Servers) -> None:
    redis = connect(idle_servers.queue_url)
    queue = Queue("cutaway-small-normal", connection=redis, serializer="json")
    job = queue.enqueue("time.time", job_id="taken", result_ttl=60)
    redis.lrem(queue.key, 1, job.id)  # as a worker does before it says that it has
    with ThreadPoolExecutor() as threads:
        deleted = threads.submit(rq_jobs.delete, Job.fetch("taken", connection=redis, serializer="json"))
        time.sleep(0.1)
        assert not deleted.done()
        SimpleWorker([queue], connection=redis, serializer="json").execute_job(job, queue)
        deleted.result()
    assert [key for key in redis.scan_iter("rq:*taken*") if redis.ttl(key) == -1] == []
    assert not Job.exists("taken", connection=redis)
