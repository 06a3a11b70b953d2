"""Deleting jobs at the same time as other clients and workers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from rq import SimpleWorker
from rq.job import Job

import worker.rq.removal as removal
from tests.conftest import Servers
from worker.rq.queue import fetch, open_queue
from worker.store.connection import connect


def test_two_clients_can_delete_the_same_job(idle_servers: Servers) -> None:
    redis = connect(idle_servers.queue_url)
    job = open_queue("cutaway-small-normal", redis).enqueue("time.time", job_id="two")
    same = fetch("two", redis)
    removal.delete(job)
    removal.delete(same)
    assert not Job.exists("two", connection=redis)


def test_job_that_a_worker_has_taken_is_deleted_after_its_end(idle_servers: Servers) -> None:
    redis = connect(idle_servers.queue_url)
    queue = open_queue("cutaway-small-normal", redis)
    job = queue.enqueue("time.time", job_id="taken", result_ttl=60)
    redis.lrem(queue.key, 1, job.id)  # as a worker does before it updates the job
    with ThreadPoolExecutor() as threads:
        deleted = threads.submit(removal.delete, fetch("taken", redis))
        time.sleep(0.1)
        assert not deleted.done()
        SimpleWorker([queue], connection=redis, serializer="json").execute_job(job, queue)
        deleted.result()
    assert [key for key in redis.scan_iter("rq:*taken*") if redis.ttl(key) == -1] == []
    assert not Job.exists("taken", connection=redis)
