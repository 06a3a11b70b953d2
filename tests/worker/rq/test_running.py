"""RQ functions for the running job."""

from __future__ import annotations

import time

import pytest
from rq import SimpleWorker

import worker.store.requests as requests
from tests.worker.conftest import LAYOUT, Store
from worker.rq.queue import open_queue
from worker.rq.running import time_limit


def test_time_limit_raises_with_a_message_for_the_client() -> None:
    with pytest.raises(Exception, match=r"^Task exceeded maximum timeout value \(1 seconds\)$"), time_limit(1):
        time.sleep(20)


@pytest.mark.parametrize("known", [True, False])
def test_job_that_was_cancelled_when_a_worker_took_it_is_deleted(store: Store, known: bool) -> None:
    id = store.submit(LAYOUT)
    requests.cancel(store.queue, id)
    if not known:
        requests.delete(store.queue, id, "layout")
    queue = open_queue("here", store.queue)
    job = queue.enqueue(requests.JOB, id, job_id=id, result_ttl=60)
    SimpleWorker([queue], connection=store.queue, serializer="json").execute_job(job, queue)
    persistent = [key for key in store.queue.scan_iter("rq:*") if id.encode() in key and store.queue.ttl(key) == -1]
    assert not store.queue.exists(f"rq:job:{id}", f"rq:results:{id}")
    assert persistent == []
